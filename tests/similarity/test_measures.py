"""CCA and related measures: direct computation, invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bertft.similarity import measures
from bertft.similarity.moments import CrossMoments

N, D, E = 120, 8, 6


def data(seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(N, D, generator=g, dtype=torch.float64) @ torch.randn(D, D, generator=g, dtype=torch.float64) + 5
    y = x @ torch.randn(D, E, generator=g, dtype=torch.float64) + 2 * torch.randn(
        N, E, generator=g, dtype=torch.float64
    )
    return x, y


def moments(x, y, metric="dot"):
    return CrossMoments(1, 1, metric).update(x[None, :50], y[None, :50]).update(x[None, 50:], y[None, 50:])


def orthonormal(a: torch.Tensor) -> torch.Tensor:
    return torch.linalg.qr(a - a.mean(0)).Q


def leading(a: torch.Tensor, variance: float) -> torch.Tensor:
    u, s, _ = torch.linalg.svd(a - a.mean(0), full_matrices=False)
    keep = int((s.square().cumsum(0) / s.square().sum() < variance).sum()) + 1
    return u[:, :keep]


def test_cca_is_the_cosine_of_principal_angles():
    x, y = data()
    expected = torch.linalg.svdvals(orthonormal(x).T @ orthonormal(y)).mean()
    assert moments(x, y).cca().item() == pytest.approx(expected.item(), abs=1e-10)


def test_svcca_truncates_first():
    x, y = data()
    expected = torch.linalg.svdvals(leading(x, 0.9).T @ leading(y, 0.9)).mean()
    assert moments(x, y).svcca(0.9).item() == pytest.approx(expected.item(), abs=1e-10)


def test_svcca_keeps_99_percent_of_the_variance_unless_asked():
    x, y = data()
    x = orthonormal(x) * torch.tensor([1.0, 1, 1, 1, 0.5, 0.1, 0.05, 0.01])
    expected = torch.linalg.svdvals(leading(x, 0.99).T @ leading(y, 0.99)).mean().item()
    assert leading(x, 0.99).shape[1] == 5
    assert moments(x, y).svcca().item() == pytest.approx(expected, abs=1e-10)
    assert measures.svcca(*measures.scatter(moments(x, y).moments(0, 0))).item() == pytest.approx(expected, abs=1e-10)


def test_directions_are_kept_until_they_have_exactly_the_share():
    c = torch.diag(torch.tensor([1.0, 9.0, 0.0], dtype=torch.float64))
    for variance, kept in ((0.89, 1), (0.9, 1), (0.91, 2), (1.0, 2), (2.0, 2), (None, 2)):
        w = measures.whitener(c, 1e-10, variance)
        torch.testing.assert_close(w.T @ c @ w, torch.eye(kept, dtype=torch.float64))
    assert measures.whitener(0 * c, 1e-10, 0.9).shape == (3, 0)  # nothing varies


def test_pwcca_weighs_by_projection():
    x, y = data()
    u, s, _ = torch.linalg.svd(orthonormal(x).T @ orthonormal(y), full_matrices=False)
    weights = ((orthonormal(x) @ u).T @ (x - x.mean(0))).abs().sum(1)
    assert moments(x, y).pwcca().item() == pytest.approx(float((weights * s).sum() / weights.sum()), abs=1e-10)


def test_procrustes_is_the_best_rotation():
    from scipy.linalg import orthogonal_procrustes

    x, y = data()
    y = torch.cat([y, torch.zeros(N, D - E, dtype=y.dtype)], dim=1)
    a, b = ((t - t.mean(0)).numpy() for t in (x, y))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    rotation, scale = orthogonal_procrustes(a, b)
    value = moments(x, y).procrustes().item()
    assert value == pytest.approx(scale, abs=1e-10)
    assert 2 - 2 * value == pytest.approx(np.linalg.norm(a @ rotation - b) ** 2, abs=1e-10)


def test_linear_r2_is_least_squares():
    x, y = data()
    a, b = x - x.mean(0), y - y.mean(0)
    fit = a @ torch.linalg.lstsq(a, b).solution
    expected = 1 - (b - fit).square().sum() / b.square().sum()
    assert moments(x, y).linear_r2().item() == pytest.approx(expected.item(), abs=1e-10)
    penalty = 0.3 * a.square().sum() / D
    w = torch.linalg.solve(a.T @ a + penalty * torch.eye(D, dtype=a.dtype), a.T @ b)
    expected = 1 - (b - a @ w).square().sum() / b.square().sum()
    assert moments(x, y).linear_r2(ridge=0.3).item() == pytest.approx(expected.item(), abs=1e-10)


def test_anisotropy_and_effective_dimension():
    x, y = data()
    u = x / x.norm(dim=1, keepdim=True)
    cosines = (u @ u.T)[np.triu_indices(N, 1)]
    assert moments(x, y, "cosine").anisotropy()[0].item() == pytest.approx(cosines.mean().item(), abs=1e-12)
    e = torch.linalg.eigvalsh(torch.cov(y.T))
    expected = e.sum().square() / e.square().sum()
    assert moments(x, y).effective_dimension()[1].item() == pytest.approx(expected.item(), abs=1e-10)


def test_invariances():
    x, y = data()
    g = torch.Generator().manual_seed(9)
    rotation = torch.linalg.qr(torch.randn(E, E, generator=g, dtype=torch.float64)).Q
    linear = torch.randn(E, E, generator=g, dtype=torch.float64)
    start, turned, mapped = moments(x, y), moments(x, 3 * y @ rotation + 7), moments(x, y @ linear)
    for measure in ("cka", "cca", "svcca", "pwcca", "procrustes", "linear_r2"):
        torch.testing.assert_close(getattr(turned, measure)(), getattr(start, measure)(), rtol=0, atol=1e-9)
    for measure in ("cca", "pwcca"):
        torch.testing.assert_close(getattr(mapped, measure)(), getattr(start, measure)(), rtol=0, atol=1e-9)
    assert abs(mapped.cka() - start.cka()).item() > 1e-3
    same = moments(x, x)
    for measure in ("rsa", "cka", "cca", "svcca", "pwcca", "procrustes", "linear_r2"):
        assert getattr(same, measure)().item() == pytest.approx(1, abs=1e-10)


def test_fewer_stimuli_than_dimensions():
    x, y = data()
    few = CrossMoments(1, 1, "dot").update(x[None, :5], y[None, :5])
    assert few.cca().item() == pytest.approx(1, abs=1e-8)
    assert few.linear_r2().item() == pytest.approx(1, abs=1e-8)


def test_linear_r2_has_no_penalty_unless_asked_and_leaves_out_what_depends():
    x, y = data()
    whole = moments(x, y)
    expected = whole.linear_r2(ridge=0.0).item()
    assert measures.linear_r2(*measures.scatter(whole.moments(0, 0))).item() == pytest.approx(expected, abs=1e-12)
    assert expected - whole.linear_r2(ridge=1.0).item() > 0.01
    doubled = moments(torch.cat([x, x[:, :2]], dim=1), y)  # its scatter matrix has no inverse
    assert doubled.linear_r2().item() == pytest.approx(expected, abs=1e-9)

"""Agreement with other tools of the same definitions.

On plain and on awkward data.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from bertft.ops.rdm.correlation import rdm_correlation
from bertft.similarity.moments import CrossMoments

KINDS = ("plain", "large mean", "rogue", "repeated")


def spaces(kind: str, n: int = 60, d: int = 12, e: int = 9):
    """Return two related spaces (1, n, d) and (1, n, e), float64, awkward in one way."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, n, d, generator=g, dtype=torch.float64)
    y = x @ torch.randn(d, e, generator=g, dtype=torch.float64) / 3
    y = y + torch.randn(1, n, e, generator=g, dtype=torch.float64)
    if kind in ("large mean", "rogue"):
        x, y = x + 8 * torch.randn(d, generator=g, dtype=torch.float64), y + 20
    if kind == "rogue":  # two dimensions far from the others, as in BERT
        x[..., :2] = x[..., :2] * 10 + 100
        y[..., :2] *= 20
    if kind == "repeated":
        x[:, n // 2 :], y[:, n // 2 :] = x[:, : n - n // 2], y[:, : n - n // 2]
    return x, y


def stream(x: torch.Tensor, y: torch.Tensor, metric: str) -> CrossMoments:
    moments = CrossMoments(1, 1, metric)
    for a, b in zip(x.tensor_split((2, 31), 1), y.tensor_split((2, 31), 1), strict=True):
        moments.update(a, b)
    return moments


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("metric", "theirs"), [("sqeuclidean", "euclidean"), ("correlation", "correlation")])
def test_rsatoolbox(kind, metric, theirs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rsatoolbox = pytest.importorskip("rsatoolbox")
        x, y = spaces(kind)
        a, b = (rsatoolbox.rdm.calc_rdm(rsatoolbox.data.Dataset(t[0].numpy()), method=theirs) for t in (x, y))
        for method, compare in (
            ("corr", "pearson"),
            ("cosine", "cosine"),
            ("spearman", "spearman"),
            ("rho-a", "rho_a"),
        ):
            expected = rsatoolbox.rdm.compare(a, b, method=method).item()
            if compare in ("pearson", "cosine"):
                assert stream(x[:1], y[:1], metric).rsa(compare).item() == pytest.approx(expected, abs=1e-6)
            if kind != "repeated" or compare in ("pearson", "cosine"):  # equal rows are rounding noise apart in theirs
                found = rdm_correlation(x[:1], y[:1], metric=metric, compare=compare).item()
                assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", ["cosine", "sqeuclidean", "correlation"])
def test_mne_rsa(kind, metric):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mne_rsa = pytest.importorskip("mne_rsa")
        x, y = spaces(kind)
        a, b = (mne_rsa.compute_rdm(t[0].numpy(), metric=metric) for t in (x, y))
        expected = float(np.squeeze(mne_rsa.rsa(a, b, metric="pearson")))
    assert stream(x[:1], y[:1], metric).rsa().item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_pytorch_cka(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cka = pytest.importorskip("cka")
        x, y = spaces(kind)
        x, y = (
            x - x.mean(1, keepdim=True),
            y - y.mean(1, keepdim=True),
        )  # their kernels round, and CKA ignores the shift
        expected = float(cka.cka_from_features(x[0], y[0]))
    assert stream(x, y, "dot").cka(debiased=True).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shape", [(3, 30, 20), (5, 4, 4), (200, 3, 5)])
def test_n_below_d_and_few_stimuli_in_float32(shape):
    n, d, e = shape
    x, y = spaces("rogue", n, d, e)
    moments, wide = stream(x.float(), y.float(), "cosine"), stream(x.float().double(), y.float().double(), "cosine")
    assert moments.rsa().tolist() == pytest.approx(wide.rsa().tolist(), abs=1e-6)


def test_two_stimuli_make_one_pair_and_no_correlation():
    x, y = spaces("plain", n=2)
    assert torch.isnan(rdm_correlation(x[:1], y[:1])).all()

"""linear_cka: values, gradients, compile, bad input.

The values are compared with kernels in memory and with golden values.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bertft.errors import BertftError
from bertft.ops import linear_cka
from bertft.ops.native import cpu, dispatch


@pytest.fixture(autouse=True, scope="module", params=["kernel", "reference"])
def served(request):
    assert cpu.load(), cpu.status()["reason"]
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "reference":
            patch.setattr(dispatch, "serves", lambda tensor: False)
        yield request.param


def spaces(n, d=9, e=6, L=3, M=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(L, n, d, generator=generator) + 2
    y = torch.randn(M, n, e, generator=generator)
    y += x[:1, :, :e]
    return x.to(dtype), y.to(dtype)


def brute_force(x, y, debiased):
    """Return CKA from both n x n kernels, by unbiased HSIC (Song et al. 2012, equation 5) or centred traces."""

    def hsic(k, l_):
        n = len(k)
        if not debiased:
            centre = torch.eye(n, dtype=k.dtype) - 1 / n
            return torch.trace(k @ centre @ l_ @ centre)
        k, l_ = (m - m.diagonal().diag() for m in (k, l_))
        row = 2 / (n - 2) * (k.sum(0) @ l_.sum(0))
        return (torch.trace(k @ l_) + k.sum() * l_.sum() / (n - 1) / (n - 2) - row) / (n * (n - 3))

    k, l_ = x.double() @ x.double().mT, y.double() @ y.double().mT
    return hsic(k, l_) / (hsic(k, k) * hsic(l_, l_)).sqrt()


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_values(debiased, dtype):
    x, y = spaces(40, dtype=dtype)
    for other in (y, None):
        out = linear_cka(x, other, debiased=debiased)
        want = [[brute_force(a, b, debiased) for b in (x if other is None else y)] for a in x]
        assert out.dtype == torch.float64
        assert (out - torch.tensor(want)).abs().max() <= (1e-12 if dtype == torch.float64 else 1e-6)
        if other is None:
            assert torch.equal(out, out.mT)
    assert (linear_cka(x, y, float64=True) - linear_cka(x.double(), y.double())).abs().max() < 1e-13
    assert linear_cka(x[:0], y).shape == (0, 2)
    assert linear_cka(torch.ones(1, 5, 3, dtype=dtype), debiased=debiased).isnan().all()


def test_golden_values():
    state = np.random.RandomState(1337)
    x = torch.tensor(state.randn(1, 100, 10))
    y = torch.tensor(state.randn(1, 100, 10)) + x
    assert abs(linear_cka(x, y, debiased=False).item() - 0.55761) < 5e-6
    assert abs(linear_cka(x, y).item() - 0.51346) < 5e-6


def test_rotation_scale_and_shift_change_nothing():
    x, y = spaces(30)
    turn, _ = torch.linalg.qr(torch.randn(9, 9, generator=torch.Generator().manual_seed(4), dtype=torch.float64))
    assert torch.allclose(linear_cka(5 * x @ turn + 7, y), linear_cka(x, y), atol=1e-12)
    assert (linear_cka(5 * x @ turn + 7, x).diagonal() - 1).abs().max() < 1e-12


@pytest.mark.parametrize("debiased", [True, False])
def test_gradcheck(debiased):
    x, y = (t.requires_grad_() for t in spaces(6, d=5, e=4, L=2, M=1))
    assert torch.autograd.gradcheck(lambda x, y: linear_cka(x, y, debiased=debiased), (x, y))
    assert torch.autograd.gradcheck(lambda x: linear_cka(x, debiased=debiased)[0, 1], x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_gradient_of_low_precision(dtype):
    x, y = spaces(150, d=24, e=20, L=1, M=1, dtype=dtype)
    exact = x.double().requires_grad_()
    (want,) = torch.autograd.grad(brute_force(exact[0], y[0], True), exact)
    (got,) = torch.autograd.grad(linear_cka(x.requires_grad_(), y).squeeze(), x)
    assert got.dtype == dtype
    rounding = {torch.float32: 1e-4, torch.float16: 2**-10, torch.bfloat16: 2**-7}[dtype]
    assert (got - want).abs().max() <= rounding * want.abs().max()


def test_compile(served):
    if served == "reference":
        pytest.skip("compiled code meets the reference only where there is no kernel")
    x, y = (t.requires_grad_() for t in spaces(12, L=1))
    graph = torch.compile(lambda x, y: linear_cka(x, y).sum(), fullgraph=True, backend="aot_eager")
    got, want = (torch.autograd.grad(f(x, y).sum(), (x, y)) for f in (graph, linear_cka))
    assert all(torch.allclose(a, b, rtol=1e-11, atol=1e-14) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(4, 3)}, r"linear_cka: x must be floating \(L, N, D\)"),
        ({"y": torch.ones(4, 3)}, r"linear_cka: y must be floating \(M, N, E\)"),
        ({"y": torch.ones(1, 5, 3)}, "same stimuli on one device, found 4 on cpu and 5 on cpu"),
        ({"x": torch.ones(1, 3, 2), "y": None}, "debiased needs at least 4 stimuli, found 3"),
        ({"x": torch.full((2, 4, 3), torch.nan)}, "linear_cka: row 0 of x in layer 0 holds NaN"),
        ({"nan": "no"}, "linear_cka: nan must be"),
    ],
)
def test_bad_input(change, message):
    call = {"x": torch.ones(2, 4, 3), "y": torch.ones(1, 4, 3)} | change
    with pytest.raises(BertftError, match=message):
        linear_cka(**call)


def test_nan_may_pass():
    x, y = spaces(20)
    x[1, 3, 2] = torch.nan
    out = linear_cka(x, y, nan="propagate")
    assert out[1].isnan().all() and not out[[0, 2]].isnan().any()

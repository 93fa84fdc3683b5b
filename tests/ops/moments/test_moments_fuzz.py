"""Fuzzed sums over stimuli: equal to brute force or refused.

Shapes, strides, types and broken numbers are drawn at random.

Under ``.ci/sanitize`` the same examples also prove that the kernels stay inside their memory.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertft.errors import BertftError
from bertft.ops import cross_moments, provisional_mean, rdm_correlation, reference
from bertft.ops.metrics import LINEAR, NORMALISED
from bertft.ops.moments.layout import Moments
from bertft.ops.native import cpu

TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
LAYOUTS = {  # of (..., n, d), with NaN between the rows
    "contiguous": lambda x: x,
    "dims before rows": lambda x: x.mT.contiguous().mT,
    "rows before layers": lambda x: x.transpose(0, -2).contiguous().transpose(0, -2),
    "cut from wider rows": lambda x: torch.cat([x, torch.full_like(x, torch.nan)], dim=-1)[..., : x.shape[-1]],
    "every other row": lambda x: torch.stack([x, torch.full_like(x, torch.nan)], dim=-2).flatten(-3, -2)[..., ::2, :],
    "every other dim": lambda x: torch.stack([x, torch.full_like(x, torch.nan)], dim=-1).flatten(-2)[..., ::2],
    "offset by one": lambda x: torch.cat([x.new_full((1,), torch.nan), x.flatten()])[1:].view(x.shape),
}
WIDE = 128  # dimensions up to which products are always float64
BAD = (None, None, None, torch.nan, torch.inf, -torch.inf, 0.0)


@pytest.fixture(autouse=True, scope="module")
def compiled():
    assert cpu.load(), cpu.status()["reason"]
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@st.composite
def spaces(draw, layers, smallest):
    """Return two correlated spaces (n, d), (n, e), or (L, n, d), (M, n, e) with ``layers``."""
    n = draw(st.one_of(st.integers(smallest, 12), st.sampled_from([31, 32, 33])))
    sizes = st.sampled_from([3, 4, 7, 8, 9, 16, 17, 33, 130, 144])
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    common, found = torch.randn(n, 144, generator=generator) + draw(st.sampled_from([0.0, 2.0])), []
    for _ in range(2):
        shape = (draw(st.integers(1, 3)), n) if layers else (n,)
        d, scale = draw(sizes), draw(st.sampled_from([1e-2, 1.0, 30.0]))
        x = (common[:, :d] + torch.randn(*shape, d, generator=generator)) * scale
        found.append(LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))](x.to(draw(st.sampled_from(TYPES)))))
    return found


metrics = st.tuples(st.sampled_from(LINEAR), st.sampled_from(LINEAR))


def refused(bad, metric):
    return bad is not None and (bad != 0 or metric in NORMALISED)


@settings(max_examples=120, deadline=None)
@given(
    pair=spaces(layers=False, smallest=0),
    metrics=metrics,
    threads=st.integers(1, 3),
    grams=st.booleans(),
    float64=st.booleans(),
    bad=st.sampled_from(BAD),
    data=st.data(),
)
def test_sums(pair, metrics, threads, grams, float64, bad, data):
    torch.set_num_threads(threads)
    x, y = pair
    n = len(x)
    means = [provisional_mean(rows, metric) for rows, metric in zip(pair, metrics, strict=True)]
    call = {"mean_x": means[0], "mean_y": means[1], "metric": metrics[0], "metric_y": metrics[1]}
    call |= {"grams": grams, "float64": float64}
    if bad is not None and n:
        row, side = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, 1))
        pair[side] = pair[side].clone()
        pair[side][row] = bad
        x, y = pair
        if refused(bad, metrics[side]):
            with pytest.raises(BertftError, match=f"^cross_moments: row {row} of {'xy'[side]} (holds NaN|has norm 0)"):
                cross_moments(x, y, **call)
            passed = cross_moments(x, y, nan="propagate", **call)
            assert not passed.cross.isfinite().any(1 - side).any()
            return
    cut = data.draw(st.integers(0, n))
    got = cross_moments(x[:cut], y[:cut], **call) + cross_moments(x[cut:], y[cut:], **call)
    want = Moments(*reference.cross_moments(x, y, *means, *metrics, grams=grams))
    exact = float64 or max(x.shape[1], y.shape[1]) <= WIDE or torch.float64 in (x.dtype, y.dtype)
    for name, a, b in zip(Moments._fields, got, want, strict=True):
        assert (a is None) == (b is None), name
        if a is not None:
            assert a.shape == b.shape and a.dtype == torch.float64
            assert (a - b).abs().max() <= (1e-13 if exact else 1e-6) * b.abs().max().clamp(min=1e-300), name


@settings(max_examples=80, deadline=None)
@given(
    pair=spaces(layers=True, smallest=5),
    metrics=metrics,
    compare=st.sampled_from(["pearson", "cosine"]),
    threads=st.integers(1, 3),
    alone=st.booleans(),
    bad=st.sampled_from(BAD),
    data=st.data(),
)
def test_linear_route(pair, metrics, compare, threads, alone, bad, data):
    torch.set_num_threads(threads)
    x, y = pair
    call = {"compare": compare, "metric": metrics[0], "metric_y": metrics[0] if alone else metrics[1]}
    if bad is not None:
        side = 0 if alone else data.draw(st.integers(0, 1))
        layer, row = (data.draw(st.integers(0, size - 1)) for size in pair[side].shape[:2])
        pair[side] = pair[side].clone()
        pair[side][layer, row] = bad
        x, y = pair
    other = None if alone else y
    if bad is not None and refused(bad, metrics[side]):
        with pytest.raises(BertftError, match=f"^rdm_correlation: row {row} of {'xy'[side]} in layer {layer} "):
            rdm_correlation(x, other, route="linear", **call)
        passed = rdm_correlation(x, other, route="linear", nan="propagate", **call)
        touched = torch.zeros_like(passed, dtype=torch.bool)
        (touched if side == 0 else touched.mT)[layer] = True
        assert torch.equal(passed.isnan(), touched | touched.mT if alone else touched)
        return
    x.requires_grad_()
    got = rdm_correlation(x, other, route="linear", **call)
    exact = x.detach().double().requires_grad_()
    want = reference.rdm_correlation(exact, None if alone else y.double(), **call)
    assert got.shape == want.shape
    wide = max(x.shape[2], x.shape[2] if alone else y.shape[2]) <= WIDE or torch.float64 in (x.dtype, y.dtype)
    assert (got - want).abs().max() <= (1e-9 if wide else 1e-4)
    (found,), (wanted,) = (torch.autograd.grad(t[0, -1], leaf) for t, leaf in ((got, x), (want, exact)))
    assert found.dtype == x.dtype and found.isfinite().all()
    if not alone or len(x) > 1:  # a matrix with itself has correlation 1
        rounding = {torch.float64: 1e-7, torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 2e-2}[x.dtype]
        assert (found - wanted).abs().max() <= rounding * wanted.abs().max() + 1e-7

"""Fuzzed probe losses: equal to the reference or refused.

Shapes, strides, types, lengths and broken numbers are drawn at random.

Under ``.ci/sanitize`` the same examples also prove that the kernel stays inside its memory.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertft.errors import BertftError
from bertft.ops import probe_loss, probe_loss_and_gradient, reference
from bertft.ops.native import cpu

LAYOUTS = {
    "contiguous": lambda h: h,
    "words first": lambda h: h.transpose(0, 1).contiguous().transpose(0, 1),
    "dims before words": lambda h: h.transpose(1, 2).contiguous().transpose(1, 2),
    "cut from wider rows": lambda h: torch.cat([h, torch.full_like(h, torch.nan)], dim=2)[..., : h.shape[2]],
    "every other word": lambda h: torch.stack([h, torch.full_like(h, torch.nan)], dim=2).flatten(1, 2)[:, ::2],
    "offset by one": lambda h: torch.cat([h.new_full((1,), torch.nan), h.flatten()])[1:].view(h.shape),
}


@st.composite
def problems(draw):
    """Draw (h, weight_distance, weight_depth, distances, depths, lengths), small, with awkward sizes."""
    sizes = st.one_of(st.integers(0, 9), st.sampled_from([15, 16, 17, 31, 33, 48]))
    lengths = torch.tensor(draw(st.lists(sizes, max_size=7)), dtype=torch.int64)
    L, D = draw(st.integers(0, 3)), draw(st.sampled_from([1, 2, 5, 8, 17, 32]))
    ranks = st.sampled_from([1, 2, 3, 7, 8, 9, 15, 16, 17, 33])
    R, R2, T = draw(ranks), draw(ranks), int(lengths.sum())
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    dtype = draw(st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]))
    h = torch.randn(L, T, D, generator=generator).to(dtype)
    if T and draw(st.booleans()):
        h[:] = h[:, :1]  # all distances zero
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    weights = [(torch.randn(L, D, r, generator=generator) / (D * r) ** 0.5).to(wide) for r in (R, R2)]
    gold_type = draw(st.sampled_from([torch.uint8, torch.int32, torch.int64, torch.float32]))
    distances = torch.randint(0, 12, (int((lengths**2).sum()),), generator=generator).to(gold_type)
    depths = torch.randint(0, 9, (T,), generator=generator).to(gold_type)
    return LAYOUTS[draw(st.sampled_from(sorted(LAYOUTS)))](h), *weights, distances, depths, lengths


@pytest.fixture(autouse=True, scope="module")
def compiled():
    assert cpu.load(), cpu.status()["reason"]
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(problem=problems(), threads=st.integers(1, 3), with_h=st.booleans(), with_weight=st.booleans())
def test_agrees_with_the_reference(problem, threads, with_h, with_weight):
    torch.set_num_threads(threads)
    h, *weights = problem[:3]
    golds = problem[3:]
    h.requires_grad_(with_h)
    for weight in weights:
        weight.requires_grad_(with_weight)
    loss = probe_loss(h, *weights, *golds)
    exact = [t.detach().double().requires_grad_() for t in (h, *weights)]
    expected = reference.probe_loss(*exact, *golds)
    tolerance = 1e-11 if loss.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=tolerance, atol=tolerance)
    upstream = torch.linspace(-1, 2, loss.numel()).view_as(loss)
    inputs = [t for t in (h, *weights) if t.requires_grad]
    assert loss.requires_grad == bool(inputs)
    if not inputs:
        return
    found = dict(zip(map(id, inputs), torch.autograd.grad((loss * upstream).sum(), inputs), strict=True))
    wanted = torch.autograd.grad((expected * upstream).sum(), exact)
    for tensor, target in zip((h, *weights), wanted, strict=True):
        if not tensor.requires_grad:
            continue
        gradient = found[id(tensor)]
        assert gradient.shape == tensor.shape and gradient.dtype == tensor.dtype
        # Signs of errors that are zero except for rounding may differ: see test_equal_words_have_finite_gradients.
        ties = bool((h.detach() == h.detach()[:, :1]).all()) if h.numel() else True
        assert torch.isfinite(gradient).all()
        if not ties:
            limit = {torch.float64: 1e-10, torch.float32: 1e-4}.get(tensor.dtype, 1e-2)
            assert (gradient.double() - target).norm() <= limit * target.norm() + 1e-12


@settings(deadline=None, derandomize=True, max_examples=60)
@given(problem=problems(), value=st.sampled_from([torch.nan, torch.inf, -torch.inf]), data=st.data())
def test_broken_numbers_are_named_or_passed_on(problem, value, data):
    torch.set_num_threads(1)
    h, *rest = problem
    h = h.clone()
    if h.numel() == 0:
        assert torch.isfinite(probe_loss(h, *rest)).all()
        return
    layer, word, dim = (data.draw(st.integers(0, size - 1)) for size in h.shape)
    h[layer, word, dim] = value
    with pytest.raises(BertftError, match=rf"^probe_loss: h\[{layer}, {word}\] is not finite$"):
        probe_loss(h, *rest)
    clean = h.clone()
    clean[layer, word, dim] = 0
    passed, expected = probe_loss(h, *rest, check_finite=False), probe_loss(clean, *rest)
    others = torch.arange(h.shape[0]) != layer
    assert not torch.isfinite(passed[layer]).any()
    torch.testing.assert_close(passed[others], expected[others])


@settings(deadline=None, derandomize=True, max_examples=60)
@given(problem=problems(), change=st.integers(-3, 3).filter(bool), data=st.data())
def test_lengths_that_do_not_fit_are_refused(problem, change, data):
    h, wd, wp, distances, depths, lengths = problem
    lengths = lengths.clone() if len(lengths) else torch.zeros(1, dtype=torch.int64)
    lengths[data.draw(st.integers(0, len(lengths) - 1))] += change
    with pytest.raises(BertftError, match=r"^probe_loss: lengths"):
        probe_loss(h, wd, wp, distances, depths, lengths)
    weight = torch.cat([wd, wp], dim=2)
    with pytest.raises(BertftError, match=r"^probe_loss: lengths"):
        probe_loss_and_gradient(h, weight, distances, depths, lengths, distance_rank=wd.shape[2])
    args = (distances.to(wd.dtype), depths.to(wd.dtype), lengths)
    with pytest.raises(RuntimeError, match="probe_loss: lengths"):
        torch.ops.bertft.probe_loss(h.to(wd.dtype), weight, wd.shape[2], *args, False, False, False)

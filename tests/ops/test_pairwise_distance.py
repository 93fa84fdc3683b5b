"""pairwise_distance.

Values, gradients, compile, properties and bad input.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist
from torch._dynamo.testing import CompileCounterWithBackend

from bertft.errors import BertftError
from bertft.ops import pairwise_distance, reference
from bertft.ops.metrics import METRICS, NORMALISED
from bertft.ops.native import cpu, dispatch

HALVES = (torch.bfloat16, torch.float16)
# Relative to the largest entry. Halves are exact inputs to float32 arithmetic.
TOLERANCE = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 1e-6, torch.float16: 1e-6}


@pytest.fixture(autouse=True, scope="module")
def compiled():
    assert cpu.load(), cpu.status()["reason"]


def rows(*shape, seed=0, dtype=torch.float64, shift=1.5):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) + shift).to(dtype)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("size", [(1, 1, 1), (5, 3, 7), (67, 130, 33)], ids=str)  # straddles vectors, strips and tiles
def test_values(metric, dtype, size):
    n, m, d = size
    if metric == "correlation" and d == 1:
        pytest.skip("every row of one number is constant")
    x, y = rows(2, n, d, dtype=dtype), rows(2, m, d, seed=1, dtype=dtype)
    for other in (None, y):
        got = pairwise_distance(x, other, metric=metric)
        want = reference.pairwise_distance(x.double(), None if other is None else other.double(), metric=metric)
        assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert (got - want).abs().max() <= TOLERANCE[dtype] * max(1, want.abs().max())


@pytest.mark.parametrize("metric", ["cosine", "correlation", "sqeuclidean", "euclidean", "manhattan"])
def test_reference_equals_scipy(metric):
    x, y = rows(20, 6), rows(9, 6, seed=1)
    name = {"manhattan": "cityblock"}.get(metric, metric)
    assert torch.allclose(reference.pairwise_distance(x, y, metric=metric), torch.tensor(cdist(x, y, name)), atol=1e-12)
    got = reference.pairwise_distance(x, metric=metric, condensed=True)
    assert torch.allclose(got, torch.tensor(pdist(x, name)), atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_against_itself_is_exact(metric, dtype):
    x = rows(2, 150, 24, dtype=dtype, shift=40.0)
    x[:, 77] = x[:, 3]
    out = pairwise_distance(x, metric=metric)
    assert torch.equal(out, out.mT)
    if metric != "dot":
        assert out.diagonal(dim1=1, dim2=2).abs().max() == 0
        assert out[:, 77, 3].abs().max() == 0  # equal rows
        assert out.min() >= 0
    condensed = pairwise_distance(x, metric=metric, condensed=True)
    assert torch.equal(condensed, reference.condense(out))


def test_small_distances_between_large_vectors_keep_their_digits():
    x = rows(64, 40, dtype=torch.float32, shift=1000.0)
    near = x + torch.full_like(x, 0.25)  # exactly a quarter off in each of 40 dimensions
    out = pairwise_distance(x, near, metric="sqeuclidean").diagonal()
    assert (out / (40 * 0.0625) - 1).abs().max() < 1e-5


@pytest.mark.parametrize("metric", METRICS)
def test_gradcheck(metric):
    x, y = rows(2, 6, 5).requires_grad_(), rows(2, 4, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pairwise_distance(x, metric=metric), x)
    assert torch.autograd.gradcheck(lambda x: pairwise_distance(x, metric=metric, condensed=True), x)
    assert torch.autograd.gradcheck(lambda x, y: pairwise_distance(x, y, metric=metric), (x, y))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_gradient_of_low_precision(metric, dtype):
    x = rows(1, 90, 20, dtype=dtype).requires_grad_()
    weight = rows(1, 90, 90, seed=3, dtype=torch.float32)
    (got,) = torch.autograd.grad((pairwise_distance(x, metric=metric) * weight).sum(), x)
    exact = x.detach().double().requires_grad_()
    (want,) = torch.autograd.grad((reference.pairwise_distance(exact, metric=metric) * weight).sum(), exact)
    assert got.dtype == dtype
    rounding = {torch.float32: 1e-5, torch.bfloat16: 5e-3, torch.float16: 6e-4}[dtype]
    assert (got - want).abs().max() <= rounding * want.abs().max()


@pytest.mark.parametrize("metric", METRICS)
def test_gradient_is_finite_and_zero_at_zero_distance(metric):
    x = rows(3, 4).requires_grad_()
    same = torch.cat([x[:1], x[:1], x[2:]])
    (grad,) = torch.autograd.grad(pairwise_distance(same, metric=metric)[0, 1], x)
    assert torch.isfinite(grad).all()
    if metric != "dot":
        assert grad.abs().max() < 1e-12


def test_second_derivatives_are_refused():
    x = rows(4, 3).requires_grad_()
    (grad,) = torch.autograd.grad(pairwise_distance(x).sum(), x, create_graph=True)
    with pytest.raises(BertftError, match="second derivatives"):
        grad.sum().backward()


@pytest.mark.parametrize("metric", METRICS)
def test_opcheck(metric):
    x, y = rows(2, 9, 5).requires_grad_(), rows(2, 4, 5, seed=1).requires_grad_()
    code = METRICS.index(metric)
    for args in ((x, y, code, False, True), (x, None, code, True, True), (x.detach().float(), None, code, False, True)):
        torch.library.opcheck(torch.ops.bertft.pairwise_distance, args)
    half = x.detach().half()
    for first, second, condensed in ((x.detach(), y.detach(), False), (half, None, False), (half, None, True)):
        out = torch.ops.bertft.pairwise_distance(first, second, code, condensed, True)
        args = (torch.ones_like(out), first, second, out, code, condensed)
        torch.library.opcheck(torch.ops.bertft.pairwise_distance_backward, args)


def test_the_kernel_itself_refuses_a_gradient_that_does_not_fit():
    """The sizes of the matrices must be those of the rows, or the kernel would read other memory."""
    x, y, backward = rows(2, 9, 5), rows(2, 4, 5), torch.ops.bertft.pairwise_distance_backward
    for shape, other, condensed in (
        ((2, 9, 3), y, False),
        ((1, 9, 4), y, False),
        ((2, 35), None, True),
        ((2, 81), x, False),
    ):
        grad = torch.ones(shape, dtype=x.dtype)
        with pytest.raises(RuntimeError, match="grad must be like the output"):
            backward(grad, x, other, grad, 3, condensed)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_compile(metric):
    x, y = rows(2, 9, 5).requires_grad_(), rows(2, 4, 5, seed=1).requires_grad_()
    graph = torch.compile(lambda x, y: pairwise_distance(x, y, metric=metric), fullgraph=True, backend="aot_eager")
    assert torch.equal(graph(x, y), pairwise_distance(x, y, metric=metric))
    grads = [
        torch.autograd.grad(f(x, y).sum(), (x, y)) for f in (graph, lambda x, y: pairwise_distance(x, y, metric=metric))
    ]
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_compile_once_for_any_shape():
    torch._dynamo.reset()
    counted = CompileCounterWithBackend("aot_eager")
    graph = torch.compile(lambda x, y: pairwise_distance(x, y).sum(), fullgraph=True, backend=counted, dynamic=True)
    for n, m in ((9, 4), (6, 11)):
        x, y = rows(2, n, 5).requires_grad_(), rows(2, m, 5, seed=1)
        got, want = (torch.autograd.grad(f(x, y).sum(), x)[0] for f in (graph, pairwise_distance))
        assert torch.equal(got, want)
    assert counted.frame_count == 1


def test_strides_and_leading_dimensions():
    x = rows(7, 3, 2, 11).transpose(0, 2)[..., ::2]  # (2, 3, 7, 6)
    out = pairwise_distance(x)
    assert out.shape == (2, 3, 7, 7)
    assert torch.equal(out, pairwise_distance(x.contiguous()))
    assert torch.equal(out[1, 2], pairwise_distance(x[1, 2]))
    expanded = rows(1, 5).expand(4, 5)
    assert pairwise_distance(expanded).abs().max() == 0
    assert pairwise_distance(torch.zeros(0, 3)).shape == (0, 0)
    assert pairwise_distance(rows(1, 3), condensed=True).shape == (0,)
    assert torch.equal(pairwise_distance(torch.zeros(2, 4, 0)), torch.zeros(2, 4, 4))


def test_thread_count_changes_no_bit():
    x, y = (rows(1, n, 16, seed=n, dtype=torch.float32).requires_grad_() for n in (300, 170))
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 2):
            torch.set_num_threads(threads)
            out, pair = pairwise_distance(x, metric="euclidean"), pairwise_distance(x, y, metric="manhattan")
            slope = rows(1, 300, 300, seed=3, dtype=torch.float32)
            grads = torch.autograd.grad((out * slope).sum(), x), torch.autograd.grad((pair * pair).sum(), (x, y))
            results.append((out, pair, *grads[0], *grads[1]))
    finally:
        torch.set_num_threads(before)
    for one, two, again in zip(*results, strict=True):
        assert torch.equal(two, again)
        assert (one - two).abs().max() <= 1e-6 * one.abs().max()  # the size of tiles may differ


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(0, 40),
    m=st.one_of(st.none(), st.integers(0, 20)),
    d=st.integers(1, 20),
    metric=st.sampled_from(METRICS),
    dtype=st.sampled_from(list(TOLERANCE)),
    scale=st.sampled_from([1e-3, 1.0, 100.0]),
    bad=st.sampled_from([None, float("nan"), float("inf"), -float("inf"), 0.0]),
    step=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_fuzz_against_reference(n, m, d, metric, dtype, scale, bad, step, seed):
    """Kernel and plain PyTorch agree on values, or on which row to refuse."""
    x = (rows(n, d * step, seed=seed, shift=0.5) * scale).to(dtype)[:, ::step]
    y = None if m is None else (rows(m, d, seed=seed + 1, shift=0.5) * scale).to(dtype)
    if bad is not None and n:
        x[seed % n] = bad
    finite = bool(torch.isfinite(x).all())
    degenerate = metric == "correlation" and d == 1 and (n > 0 or (m or 0) > 0)
    zero = metric in ("cosine", "correlation") and bool((x == 0).all(-1).any())
    if not finite or zero or degenerate:
        with pytest.raises(BertftError, match=r"row \d+ of [xy] in layer 0"):
            pairwise_distance(x, y, metric=metric)
        out = pairwise_distance(x, y, metric=metric, nan="propagate")
        assert n == 0 or not finite or out.numel() == 0 or out[seed % n].isnan().any()
        return
    got = pairwise_distance(x, y, metric=metric)
    want = reference.pairwise_distance(x.double(), None if y is None else y.double(), metric=metric)
    assert got.shape == want.shape
    if got.numel():
        largest = 1.0 if metric in ("cosine", "correlation") else want.abs().max()
        tolerance = TOLERANCE[dtype] * (40 if metric == "euclidean" else 4)
        assert (got - want).abs().max() <= tolerance * max(largest, 1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: pairwise_distance(x, metric="l2"), "metric must be one of dot, cosine"),
        (lambda x: pairwise_distance(x[0, 0]), r"x must be floating \(..., N, D\), found torch.float64 \(4,\)"),
        (lambda x: pairwise_distance(x.long()), "x must be floating"),
        (lambda x: pairwise_distance(x, x[:1]), r"y must be \(2, 'M', 4\) to go with x, found \(1, 3, 4\)"),
        (lambda x: pairwise_distance(x, x[..., :2]), "y must be"),
        (lambda x: pairwise_distance(x, x, condensed=True), "condensed needs y=None"),
        (lambda x: pairwise_distance(x, nan="ignore"), "nan must be raise or propagate"),
        (lambda x: pairwise_distance(x * 0, metric="cosine"), "row 0 of x in layer 0 has norm 0"),
        (
            lambda x: pairwise_distance(x, x.index_fill(1, torch.tensor(2), float("nan"))),
            "row 2 of y in layer 0 holds NaN",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(BertftError, match=message):
        call(rows(2, 3, 4))


@pytest.mark.parametrize("nan", ["raise", "propagate"])
@pytest.mark.parametrize("served", [True, False])
@pytest.mark.parametrize("metric", METRICS)
def test_rows_without_dimensions_are_zero_apart_or_refused(metric, served, nan, monkeypatch):
    if not served:
        monkeypatch.setattr(dispatch, "serves", lambda tensor: False)
    x, y = torch.empty(2, 60, 0), torch.empty(2, 50, 0)
    if metric in NORMALISED:
        with pytest.raises(BertftError, match=rf"{metric} needs rows of at least one number, found x of .*2, 60, 0"):
            pairwise_distance(x, y, metric=metric, nan=nan)
        return
    assert torch.equal(pairwise_distance(x, y, metric=metric, nan=nan), torch.zeros(2, 60, 50))
    assert torch.equal(pairwise_distance(x, metric=metric, nan=nan), torch.zeros(2, 60, 60))
    assert torch.equal(pairwise_distance(x, metric=metric, nan=nan, condensed=True), torch.zeros(2, 60 * 59 // 2))


@pytest.mark.parametrize("metric", [metric for metric in METRICS if metric not in NORMALISED])
def test_the_kernel_itself_writes_zeros_for_rows_without_dimensions(metric):
    """An empty y has no address; the kernel must not take it for a missing one and write an N x N matrix."""
    out = torch.ops.bertft.pairwise_distance(
        torch.empty(2, 60, 0), torch.empty(2, 50, 0), METRICS.index(metric), False, True
    )
    assert torch.equal(out, torch.zeros(2, 60, 50))


def test_plain_pytorch_refuses_the_same_rows(monkeypatch):
    monkeypatch.setattr(dispatch, "serves", lambda tensor: False)
    x = rows(2, 3, 4)
    assert torch.allclose(pairwise_distance(x), reference.pairwise_distance(x))
    x[1, 2] = 3.0
    with pytest.raises(BertftError, match="row 2 of x in layer 1 has norm 0"):
        pairwise_distance(x, metric="correlation")
    x[1, 1, 1] = float("inf")
    with pytest.raises(BertftError, match="row 1 of x in layer 1 holds NaN or infinity"):
        pairwise_distance(x, metric="correlation")


@pytest.mark.parametrize("second", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("first", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_inputs_of_two_types_are_compared_in_float64_if_one_is(first, second):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 4, generator=generator, dtype=torch.float64).to(t) for n, t in ((3, first), (2, second)))
    found, wide = pairwise_distance(x, y), torch.float64 in (first, second)
    assert found.dtype == (torch.float64 if wide else torch.float32)
    expected = torch.from_numpy(cdist(x.double(), y.double(), "sqeuclidean"))
    torch.testing.assert_close(found.double(), expected, rtol=1e-12 if wide else 1e-5, atol=0)

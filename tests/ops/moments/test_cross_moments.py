"""cross_moments and the statistics that follow from its sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bertft.errors import BertftError
from bertft.ops import cross_moments, provisional_mean, reference
from bertft.ops.metrics import LINEAR, NORMALISED
from bertft.ops.moments.formulas import _hsic, cka_from_moments, local_pearson, pair_sums, rsa_from_moments
from bertft.ops.moments.layout import Moments, pair_xy, space_x, space_y
from bertft.ops.native import cpu, dispatch

PAIRS = [("dot", "cosine"), ("cosine", "correlation"), ("correlation", "sqeuclidean"), ("sqeuclidean", "dot")]


@pytest.fixture(autouse=True, scope="module")
def compiled():
    assert cpu.load(), cpu.status()["reason"]


def rows(*shape, seed=0, dtype=torch.float64, shift=1.5):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) + shift).to(dtype)


def moments(x, y, metrics, split=(), **options):
    """Return the sums of x and y, in chunks that end at ``split``, about the means of the first chunk."""
    ends = [*split, len(x)]
    mean_x, mean_y = provisional_mean(x[: ends[0]], metrics[0]), provisional_mean(y[: ends[0]], metrics[1])
    means = {"mean_x": mean_x, "mean_y": mean_y, "metric": metrics[0], "metric_y": metrics[1]}
    parts = [cross_moments(x[a:b], y[a:b], **means, **options) for a, b in zip([0, *ends], ends, strict=False)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total, (mean_x, mean_y)


@pytest.mark.parametrize("metrics", PAIRS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", [(1, 2, 3), (70, 33, 20), (130, 300, 17)], ids=str)  # straddles blocks and strips
def test_values(metrics, dtype, size):
    n, d, e = size
    x, y = rows(n, d, dtype=dtype), rows(n, e, seed=1, dtype=dtype)
    for float64 in (False, True):
        got, means = moments(x, y, metrics, float64=float64)
        want = Moments(*reference.cross_moments(x, y, *means, *metrics))
        scale = max(1.0, *(t.abs().max().item() for t in want))
        for a, b in zip(got, want, strict=True):
            exact = float64 or dtype == torch.float64
            assert a.shape == b.shape and a.dtype == torch.float64
            assert (a - b).abs().max() <= (1e-14 if exact else 1e-7) * scale
        assert torch.equal(got.gram_x, got.gram_x.mT) and torch.equal(got.gram_y, got.gram_y.mT)


def test_long_input_takes_several_chunks():
    x, y = rows(9000, 5, dtype=torch.float32), rows(9000, 3, seed=1, dtype=torch.float32)
    got, means = moments(x, y, ("sqeuclidean", "dot"))
    want = Moments(*reference.cross_moments(x, y, *means, "sqeuclidean", "dot"))
    for a, b in zip(got, want, strict=True):
        assert (a - b).abs().max() <= 1e-6 * b.abs().max()


def test_what_is_left_out_is_none_and_out_adds_in_place():
    x, y = rows(30, 6), rows(30, 4, seed=1)
    mean_x, mean_y = provisional_mean(x), provisional_mean(y)
    whole = cross_moments(x, y, mean_x=mean_x, mean_y=mean_y)
    alone = cross_moments(x, mean_x=mean_x)
    pair = cross_moments(x, y, mean_x=mean_x, mean_y=mean_y, grams=False)
    assert alone[2:] == (None,) * 4 and pair[:2] == (None, None) == pair[4:]
    assert torch.equal(alone.gram_x, whole.gram_x) and torch.equal(pair.stats_xy, whole.stats_xy)
    total = Moments(*(torch.zeros_like(t) for t in whole))
    for part in (slice(0, 11), slice(11, 30)):
        assert cross_moments(x[part], y[part], mean_x=mean_x, mean_y=mean_y, out=total) is total
    assert all(torch.allclose(a, b, rtol=1e-13, atol=1e-12) for a, b in zip(total, whole, strict=True))
    before = [t.clone() for t in total]
    bad = x.clone()
    bad[7] = 0
    with pytest.raises(BertftError, match="cross_moments: row 7 of x has norm 0"):
        cross_moments(bad, y, mean_x=mean_x, mean_y=mean_y, out=total)
    assert all(torch.equal(a, b) for a, b in zip(total, before, strict=True))


@pytest.mark.parametrize("metric", LINEAR)
@pytest.mark.parametrize("metric_y", LINEAR)
@pytest.mark.parametrize("compare", ["pearson", "cosine"])
def test_rsa_equals_brute_force(metric, metric_y, compare):
    x, y = rows(40, 7, shift=3), rows(40, 5, seed=1, shift=-1)
    m, (mean_x, mean_y) = moments(x, y, (metric, metric_y), split=(8, 9, 30))
    got = rsa_from_moments(m, metric=metric, metric_y=metric_y, compare=compare, mean_x=mean_x, mean_y=mean_y)
    want = reference.rdm_correlation(x[None], y[None], metric=metric, metric_y=metric_y, compare=compare)
    assert abs(got - want.item()) < 1e-12


@pytest.mark.parametrize("single", [True, False])
def test_sums_without_a_kernel_add_in_place_and_leave_out_what_is_none(single, monkeypatch):
    x, y = rows(12, 4), None if single else rows(12, 3, seed=1)
    mean_x, mean_y = provisional_mean(x), None if single else provisional_mean(y)
    whole = cross_moments(x, y, mean_x=mean_x, mean_y=mean_y)
    monkeypatch.setattr(dispatch, "serves", lambda tensor: False)
    total = cross_moments(x[:5], None if single else y[:5], mean_x=mean_x, mean_y=mean_y)
    rest = {"mean_x": mean_x, "mean_y": mean_y, "out": total}
    assert cross_moments(x[5:].requires_grad_(), None if single else y[5:], **rest) is total
    for a, b in zip(total, whole, strict=True):
        assert (a is b is None) or (torch.allclose(a, b, rtol=1e-12) and not a.requires_grad)
    assert [a is None for a in total] == [False, False, *[single] * 4]


def test_the_cosine_comparison_needs_both_means_and_the_others_none():
    m, (mean_x, mean_y) = moments(rows(9, 3), rows(9, 3, seed=1), ("dot", "dot"))
    assert rsa_from_moments(m, metric="dot") == rsa_from_moments(m, metric="dot", metric_y="dot", mean_x=mean_x)
    for means in ({}, {"mean_x": mean_x}, {"mean_y": mean_y}):
        with pytest.raises(BertftError, match="compare='cosine' needs mean_x and mean_y"):
            rsa_from_moments(m, metric="dot", compare="cosine", **means)


def test_local_pearson_equals_brute_force():
    x, y = rows(25, 7), rows(25, 5, seed=1)
    m, means = moments(x, y, ("cosine", "sqeuclidean"), split=(10,))
    u, p = reference.prepared_rows(x, means[0], "cosine")
    v, q = reference.prepared_rows(y, means[1], "sqeuclidean")
    got = local_pearson(u, p, v, q, m)
    a = 1 - reference.pairwise_distance(x, metric="cosine")
    b = -reference.pairwise_distance(y, metric="sqeuclidean")
    for i in range(25):
        others = torch.arange(25) != i
        want = torch.corrcoef(torch.stack([a[i, others], b[i, others]]))[0, 1]
        assert abs(got[i] - want) < 1e-12


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_cka_golden_values(shift):
    state = np.random.RandomState(1337)
    x = torch.tensor(state.randn(100, 10))
    y = torch.tensor(state.randn(100, 10)) + x
    mean = torch.full((10,), shift)
    m = cross_moments(x, y, mean_x=mean, mean_y=mean, metric="dot")
    assert abs(cka_from_moments(m, debiased=False) - 0.55761) < 5e-6
    assert abs(cka_from_moments(m) - 0.51346) < 5e-6


@pytest.mark.parametrize("leading", [(2,), (2, 3)])
def test_stacked_moments_have_the_statistics_of_each(leading):
    count = math.prod(leading)
    pairs = [(rows(12, 4, seed=s), rows(12, 3, seed=s + 50)) for s in range(count)]
    mean_x, mean_y = torch.full((4,), 1.4).double(), torch.full((3,), 1.6).double()
    each = [cross_moments(x, y, mean_x=mean_x, mean_y=mean_y, metric="sqeuclidean") for x, y in pairs]
    stacked = Moments(*(torch.stack(t).view(*leading, *t[0].shape) for t in zip(*each, strict=True)))
    settings = {"metric": "sqeuclidean", "mean_x": mean_x, "mean_y": mean_y}
    for statistic in (
        lambda m: rsa_from_moments(m, **settings),
        lambda m: rsa_from_moments(m, compare="cosine", **settings),
        lambda m: cka_from_moments(m),
        lambda m: cka_from_moments(m, debiased=False),
        lambda m: torch.stack(pair_sums(m), -1),
    ):
        found = statistic(stacked)
        assert found.shape[: len(leading)] == leading
        expected = torch.stack([statistic(m) for m in each]).view_as(found)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n", [4, 9])
def test_hsic_is_the_unbiased_estimator_of_song(n):
    """Song et al. 2012, equation 5; CKA would not show a common factor."""
    x, y = rows(n, 3), rows(n, 2, seed=1)
    m = cross_moments(x, y, mean_x=torch.zeros(3), mean_y=torch.zeros(2), metric="dot")
    k, l_ = (t @ t.T - torch.diag((t * t).sum(1)) for t in (x, y))
    sums = k.sum() * l_.sum() / ((n - 1) * (n - 2)) - 2 * (k @ l_).sum() / (n - 2)
    expected = ((k @ l_).trace() + sums) / (n * (n - 3))
    xy = pair_xy(m)
    torch.testing.assert_close(_hsic(m.cross, space_x(m), space_y(m), xy.bu, xy.av, xy.ab), expected)


@pytest.mark.parametrize("metrics", PAIRS, ids=str)
def test_gradcheck(metrics):
    x, y = rows(6, 4).requires_grad_(), rows(6, 3, seed=1).requires_grad_()
    mean_x, mean_y = provisional_mean(x, metrics[0]), provisional_mean(y, metrics[1])
    means = {"mean_x": mean_x, "mean_y": mean_y, "metric": metrics[0], "metric_y": metrics[1]}
    assert torch.autograd.gradcheck(lambda x, y: tuple(cross_moments(x, y, **means)), (x, y))
    assert torch.autograd.gradcheck(lambda x, y: tuple(cross_moments(x, y, grams=False, **means)[2:4]), (x, y))
    assert torch.autograd.gradcheck(lambda x, y: cka_from_moments(cross_moments(x, y, **means)), (x, y))
    alone = lambda x: tuple(cross_moments(x, mean_x=mean_x, metric=metrics[0])[:2])
    assert torch.autograd.gradcheck(alone, x)


def test_opcheck_and_compile():
    x, y = rows(9, 5).requires_grad_(), rows(9, 4, seed=1).requires_grad_()
    means = provisional_mean(x), provisional_mean(y)
    op = torch.ops.bertft.cross_moments
    torch.library.opcheck(op, (x, y, *means, 1, 3, True, False, True))
    torch.library.opcheck(op, (x.detach().float(), None, means[0], None, 0, 0, True, True, False))
    totals = [torch.zeros_like(t) for t in op(x.detach(), y.detach(), *means, 1, 1, True, False, True)]
    torch.library.opcheck(
        torch.ops.bertft.cross_moments_add, (x.detach(), y.detach(), *means, 1, 1, False, True, *totals)
    )

    def loss(x, y):
        return rsa_from_moments(cross_moments(x, y, mean_x=means[0], mean_y=means[1]))

    graph = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert torch.equal(graph(x, y), loss(x, y))
    for a, b in zip(torch.autograd.grad(graph(x, y), (x, y)), torch.autograd.grad(loss(x, y), (x, y)), strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-15)


def test_strides_empty_input_and_threads():
    x, y = rows(14, 22).T[:, ::2], rows(44, 6, seed=1)[::2]
    assert not x.is_contiguous() and len(x) == len(y) == 22
    got, want = moments(x, y, ("dot", "dot"))[0], moments(x.contiguous(), y.contiguous(), ("dot", "dot"))[0]
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    empty = cross_moments(x[:0], y[:0], mean_x=x[0], mean_y=y[0])
    assert all(float(t.abs().sum()) == 0 for t in empty)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(
                moments(rows(300, 70, dtype=torch.float32), rows(300, 66, dtype=torch.float32), ("dot", "dot"))[0]
            )
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "euclidean"}, "metric must be one of dot, cosine, correlation, sqeuclidean"),
        ({"x": torch.zeros(3)}, r"x must be floating \(n, D\)"),
        ({"y": torch.ones(4, 2)}, "same stimuli, found 3 and 4 rows"),
        ({"mean_x": torch.zeros(3)}, r"mean_x must be \(2,\)"),
        ({"mean_y": None}, r"mean_y must be \(2,\) to go with y, found None"),
        ({"y": torch.tensor([[1.0, 2], [0, 0], [1, 1]])}, "row 1 of y has norm 0"),
        ({"x": torch.tensor([[1.0, 2], [1, 1], [float("nan"), 1]])}, "row 2 of x holds NaN or infinity"),
        ({"nan": "no"}, "nan must be"),
    ],
)
def test_bad_input(change, message):
    good = {"x": torch.ones(3, 2), "y": torch.ones(3, 2), "mean_x": torch.zeros(2), "mean_y": torch.zeros(2)}
    call = good | change
    with pytest.raises(BertftError, match=message):
        cross_moments(call.pop("x"), call.pop("y"), **call)


def test_tensors_of_another_device_are_refused_by_name():
    """A kernel reads addresses; an address of another device would crash the process."""
    x, mean = torch.randn(9, 5), torch.zeros(5, dtype=torch.float64)
    with pytest.raises(BertftError, match="mean_x must be on the device of x, cpu, found meta"):
        cross_moments(x, mean_x=mean.to("meta"))
    with pytest.raises(BertftError, match="y must be on the device of x, cpu, found meta"):
        cross_moments(x, x.to("meta"), mean_x=mean, mean_y=mean)
    total = cross_moments(x, mean_x=mean)
    with pytest.raises(BertftError, match="gram_x must be on the device of x, cpu, found meta"):
        cross_moments(x, mean_x=mean, out=total._replace(gram_x=total.gram_x.to("meta")))


@pytest.mark.parametrize("metric", [metric for metric in LINEAR if metric not in NORMALISED])
def test_a_space_without_dimensions_adds_nothing_but_the_number_of_rows(metric):
    x, empty, mean = rows(60, 3), rows(60, 0), torch.zeros(3, dtype=torch.float64)
    alone = cross_moments(x, mean_x=mean, metric=metric)
    both = cross_moments(x, empty, mean_x=mean, mean_y=mean[:0], metric=metric)
    assert torch.equal(both.gram_x, alone.gram_x)
    assert torch.equal(both.stats_x, alone.stats_x)
    assert both.cross.shape == (3, 0)
    assert both.gram_y.shape == (0, 0)
    assert both.stats_xy.tolist() == [0.0] * (2 * 3 + 4)
    assert both.stats_y.tolist() == [60.0] + [0.0] * 5


def test_cosine_of_a_space_without_dimensions_is_refused():
    mean = torch.zeros(3, dtype=torch.float64)
    with pytest.raises(BertftError, match=r"cosine needs rows of at least one number, found y of shape \(60, 0\)"):
        cross_moments(rows(60, 3), rows(60, 0), mean_x=mean, mean_y=mean[:0], metric="cosine")


@pytest.mark.parametrize(("dtype", "float64"), [(torch.float32, True), (torch.float64, False)])
def test_float64_sums_have_float64_gradients(dtype, float64):
    x, y = rows(40, 6, dtype=torch.float32), rows(40, 5, seed=1, dtype=torch.float32)
    found = []
    for kind, wide in ((dtype, float64), (torch.float64, True)):
        own = [t.to(kind, copy=True).requires_grad_() for t in (x, y)]
        total, _ = moments(*own, ("cosine", "sqeuclidean"), float64=wide)
        found.append(torch.autograd.grad(rsa_from_moments(total, compare="pearson"), own))
    for one, exact in zip(*found, strict=True):
        assert torch.equal(one, exact.to(dtype))

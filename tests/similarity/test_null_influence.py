"""Influences of texts on a null against the null with more of a text, and without it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from bertft.ops import pairwise_distance
from bertft.similarity.compare.null_values import values
from bertft.similarity.compare.plan import Plan
from bertft.similarity.traded_texts import TradedTexts

PLAN = Plan(("cosine", "sqeuclidean", "euclidean"), ("pearson", "cosine"), ("rsa", "cka"), float64=True)
TEXTS = 240


def spaces() -> tuple[Tensor, Tensor, Tensor]:
    """Return groups and two related spaces (n, 5) of texts of 2 and of 4 stimuli.

    The last stimuli of all texts point one way, by a length that differs from text to text and with that of the text.
    """
    g = torch.Generator().manual_seed(0)
    lengths = torch.tensor([2, 4]).repeat(TEXTS // 2)
    groups = torch.repeat_interleave(torch.arange(TEXTS), lengths)
    draw = lambda *size: torch.randn(*size, generator=g, dtype=torch.float64)
    ends = (0.3 * draw(TEXTS)).exp() * lengths
    x, y = (draw(len(groups), 5) + 0.5 * draw(TEXTS, 5)[groups] + 0.5 for _ in range(2))
    for space in (x, y):
        space[lengths.cumsum(0) - 1] += ends[:, None] * draw(5) / 2
    return groups, x, y + 0.4 * x


def matrices(measure: str, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if measure == "cka_debiased":
        return x @ x.mT, y @ y.mT
    metric = measure.split("_")[1]
    return pairwise_distance(x, metric=metric), pairwise_distance(y, metric=metric)


def null(measure: str, k: Tensor, l: Tensor, texts: TradedTexts, weights: Tensor) -> Tensor:  # noqa: E741
    """Return the null of a measure if text t occurs ``weights[t]`` times, from all pairs of pairs of stimuli.

    A stimulus of x stands beside those of y at the same place of the other texts of as many stimuli, by their weights.
    """
    w, place = weights[texts.owner], torch.cat([torch.arange(n) for n in torch.bincount(texts.owner).tolist()])
    cell = 10 * torch.bincount(texts.owner)[texts.owner] + place
    beside = (cell[:, None] == cell) & ~torch.eye(len(w), dtype=torch.bool)
    partners = beside * w / (beside * w).sum(1, keepdim=True)
    both = torch.outer(w, w).fill_diagonal_(0)
    both = both / both.sum()
    if measure == "cka_debiased":
        centred = lambda t: t - (w @ t / w.sum())[None] - (t @ w / w.sum())[:, None] + w @ t @ w / w.sum() ** 2
        k, l = centred(k), centred(l)  # noqa: E741
    elif measure.endswith("pearson"):
        k, l = k - (both * k).sum(), l - (both * l).sum()  # noqa: E741
    return (both * k * (partners @ l @ partners.mT)).sum() / ((both * k * k).sum() * (both * l * l).sum()).sqrt()


def influences(measure: str) -> tuple[Tensor, TradedTexts, Callable[[Tensor], Tensor]]:
    """Return the influence (S,) of each text on the null, the texts, and the null as a function of their weights."""
    groups, x, y = spaces()
    texts = TradedTexts(groups, 0)
    x, y = x[texts.kept], y[texts.kept]
    found = dict(values(PLAN, x, y, 0.0))[measure].influences
    assert found is not None
    totals = torch.zeros(TEXTS, dtype=torch.float64).index_add_(0, texts.owner, found(texts)[1]) / len(x)
    return totals, texts, partial(null, measure, *matrices(measure, x, y), texts)


MEASURES = [f"rsa_{m}_{c}" for m in PLAN.metrics for c in PLAN.compares] + ["cka_debiased"]


@pytest.mark.parametrize("measure", MEASURES)
def test_the_influence_of_a_text_on_a_null_is_the_change_with_its_weight(measure):
    """To first order in the 240 texts: the influence leaves out that pairs within a text trade places together."""
    totals, _, of_weights = influences(measure)
    weights = torch.ones(TEXTS, dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(of_weights(weights), weights)
    assert float((totals - slopes).abs().max()) < 12 / TEXTS * float(slopes.abs().max())


@pytest.mark.parametrize("measure", MEASURES)
def test_the_influence_of_a_text_on_a_null_is_the_change_without_it(measure):
    """A jackknife by deletion of the three texts that change most."""
    totals, _, of_weights = influences(measure)
    whole = torch.ones(TEXTS, dtype=torch.float64)
    most = totals.abs().topk(3).indices
    change = of_weights(whole) - torch.stack([of_weights(whole.index_fill(0, t, 0.0)) for t in most])
    assert torch.allclose(totals[most], change, rtol=0, atol=24 / TEXTS * float(change.abs().max()))


@pytest.mark.parametrize("measure", MEASURES)
def test_the_null_by_weights_is_the_mean_over_trades(measure):
    _, x, y = spaces()
    _, texts, of_weights = influences(measure)
    value = dict(values(PLAN, x[texts.kept], y[texts.kept], 0.0))[measure]
    drawn = torch.tensor([value(order) for order in texts.derangements(50)], dtype=torch.float64)
    whole = of_weights(torch.ones(TEXTS, dtype=torch.float64))
    assert abs(float(drawn.mean() - whole)) < 4 * float(drawn.std()) / 50**0.5 + 1 / TEXTS


def test_others_are_the_same_places_of_the_other_texts_of_a_class():
    groups = torch.repeat_interleave(torch.arange(11), torch.tensor([2] * 5 + [1] * 6))
    texts = TradedTexts(groups, 0)
    found = texts.others(torch.arange(16.0).square())
    assert texts.owner.tolist() == groups.tolist()
    assert found[:4].tolist() == [
        (4 + 16 + 36 + 64) / 4,
        (9 + 25 + 49 + 81) / 4,
        (16 + 36 + 64) / 4,
        (1 + 25 + 49 + 81) / 4,
    ]
    assert found[10].item() == (121 + 144 + 169 + 196 + 225) / 5
    common = texts.common(torch.arange(16.0))
    assert common.tolist() == [4.0, 5.0] * 5 + [12.5] * 6


def without_own_pairs(measure: str, x: Tensor, y: Tensor, texts: TradedTexts) -> float:
    """Return a measure over the pairs of stimuli of different texts, less the same over all pairs."""
    if measure == "cka_debiased":
        x, y = x - x.mean(0), y - y.mean(0)
    k, l = matrices(measure, x, y)  # noqa: E741
    found = []
    for pairs in (texts.owner[:, None] != texts.owner, ~torch.eye(len(x), dtype=torch.bool)):
        a, b = k[pairs], l[pairs]
        if measure.endswith("pearson"):
            a, b = a - a.mean(), b - b.mean()
        found.append(float(a @ b / (a.norm() * b.norm())))
    return found[0] - found[1]


@pytest.mark.parametrize("measure", [name for name in MEASURES if "euclidean" not in name or "sq" in name])
def test_shifts_leave_out_the_pairs_of_one_text(measure):
    g = torch.Generator().manual_seed(0)
    texts = TradedTexts(torch.repeat_interleave(torch.arange(40), torch.tensor([3, 5]).repeat(20)), 0)
    draw = lambda count: torch.randn(count, 5, generator=g, dtype=torch.float64)
    x, y = (draw(40)[texts.owner] + 0.7 * draw(160) + 0.2 for _ in range(2))
    y += 0.3 * x
    shifts = dict(values(PLAN, x, y, 0.0))[measure].shifts
    assert shifts is not None
    traded = [without_own_pairs(measure, x, y[order], texts) for order in texts.derangements(100)]
    expected = without_own_pairs(measure, x, y, texts), sum(traded) / len(traded)
    own, null = shifts(texts)
    assert own == pytest.approx(expected[0], rel=1e-9) and null == pytest.approx(expected[1], rel=0.02, abs=0.003)

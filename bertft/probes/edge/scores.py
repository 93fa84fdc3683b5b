"""From counts to scores: micro-F1, the class-1 figure, per-label F1, expected layer, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bertft.probes.edge.head import Input
from bertft.probes.edge.training import Counts
from bertft.probes.structural.scores import Score


def resamples_of(texts: int, count: int, seed: int) -> np.ndarray:
    """(B + 1, S) weights: 1 for every text, then ``count`` bootstrap draws of S texts."""
    draws = np.random.default_rng(seed).multinomial(texts, np.full(texts, 1 / texts), size=count)
    return np.concatenate([np.ones((1, texts)), draws])


def f1(hits: np.ndarray, predicted: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """2 hits / (predicted + gold); 0 where there is neither."""
    return 2 * hits / np.maximum(predicted + gold, 1)


def micro_f1(counts: Counts, weights: np.ndarray) -> np.ndarray:
    """(P, B) micro-F1 over targets and labels under text weights (B, S); unseen gold labels count as missed."""
    hits, predicted = (t.double().sum(2).numpy() @ weights.T for t in (counts.hits, counts.predicted))
    gold = (counts.gold.double().sum(1) + counts.missed).numpy() @ weights.T
    return f1(hits, predicted, gold)


def label_f1(counts: Counts, label: int, weights: np.ndarray) -> np.ndarray:
    """(P, B) F1 of one label of the inventory."""
    hits, predicted = (t[:, :, label].double().numpy() @ weights.T for t in (counts.hits, counts.predicted))
    return f1(hits, predicted, counts.gold[:, label].double().numpy() @ weights.T)


def expected_layer(inputs: Sequence[Input], scores: np.ndarray) -> np.ndarray | None:
    """sum_l l (s_l - s_(l-1)) / (s_L - s_0) (B,) over mixes up to l, s_0 the lexical layer; scores (P, B).

    Tenney et al. (2019, "BERT rediscovers the classical NLP pipeline"). None where the full mix (of the sample itself,
    column 0) is no better than the lexical layer: there is no gain to be divided among the layers.
    """
    position = {(i.kind, i.layer): p for p, i in enumerate(inputs)}
    if ("layer", 0) not in position:
        return None
    curve = [scores[position["layer", 0]]]
    while ("mix", len(curve)) in position:
        curve.append(scores[position["mix", len(curve)]])
    if len(curve) < 2 or curve[-1][0] <= curve[0][0]:
        return None
    gains = np.diff(np.stack(curve), axis=0)  # (L, B)
    total = gains.sum(0)
    layers = np.arange(1, len(curve))
    return np.divide(layers @ gains, total, out=np.full(total.shape, np.nan), where=total > 0)


def interval(values: np.ndarray, n: int) -> Score:
    """The first of ``values`` (B + 1,) with the 2.5 and 97.5 percentiles of the others that are numbers."""
    drawn = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (values[0], values[0])
    return Score(float(values[0]), float(min(low, values[0])), float(max(high, values[0])), n)

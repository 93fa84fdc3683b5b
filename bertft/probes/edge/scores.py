"""Scores of edge probes under weights of texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bertft.probes.edge.head import Input
from bertft.probes.edge.training import Counts


def f1(hits: np.ndarray, predicted: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Return 2 hits / (predicted + gold), or 0 without predictions and gold labels."""
    return 2 * hits / np.maximum(predicted + gold, 1)


def micro_f1(counts: Counts, weights: np.ndarray) -> np.ndarray:
    """Return micro-F1 (P, B) over targets and labels under text weights (B, S); unseen gold labels count as missed."""
    hits, predicted = (t.double().sum(2).numpy() @ weights.T for t in (counts.hits, counts.predicted))
    gold = (counts.gold.double().sum(1) + counts.missed).numpy() @ weights.T
    return f1(hits, predicted, gold)


def label_f1(counts: Counts, label: int, weights: np.ndarray) -> np.ndarray:
    """Return F1 (P, B) of one label of the inventory under text weights (B, S)."""
    hits, predicted = (t[:, :, label].double().numpy() @ weights.T for t in (counts.hits, counts.predicted))
    return f1(hits, predicted, counts.gold[:, label].double().numpy() @ weights.T)


def expected_layer(inputs: Sequence[Input], scores: np.ndarray) -> np.ndarray | None:
    """Return the expected layer (B,) of Tenney et al. (2019, "BERT rediscovers the classical NLP pipeline").

    It is sum_l l (s_l - s_(l-1)) / (s_L - s_0), with s_l the score of the mix up to layer l and s_0 that of layer 0.
    ``scores`` are (P, B), the sample itself in column 0. Returns None if the full mix of the sample is no better than
    layer 0, because there is no gain to attribute to layers; NaN for such resamples.
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

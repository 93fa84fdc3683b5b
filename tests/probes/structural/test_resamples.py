"""Resamples of structural scores, sentence by sentence."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, t

from bertft.probes.structural.scores import SentenceScores, estimates, resampled
from bertft.runs.intervals import bootstrap_weights

LENGTHS = [3, 5, 6, 6, 7, 9, 9, 9, 20, 21, 50, 51]  # single sentences at both ends, beside each other and alone


def planted(lengths=LENGTHS, seed: int = 0, layers: int = 2) -> SentenceScores:
    """Return random scores of sentences without punctuation; correlations only of 5 to 50 words."""
    rng, lengths = np.random.default_rng(seed), np.array(lengths)
    counted = (lengths >= 5) & (lengths <= 50)
    dspr, nspr = (np.where(counted, rng.uniform(-0.4, 0.6, (layers, len(lengths))), np.nan) for _ in range(2))
    edges = rng.integers(0, np.maximum(lengths, 1), (layers, len(lengths))).astype(float)
    root = rng.integers(0, 2, (layers, len(lengths))).astype(float)
    return SentenceScores(lengths, dspr, nspr, edges, (lengths - 1).astype(float), root)


def drawn_by_hand(values: np.ndarray, lengths: list[int], draws: np.ndarray) -> np.ndarray:
    """Return the mean over lengths of one layer in each resample (B,), before it is centred, as `_shares` describes."""
    kinds = sorted({n for n in lengths if 5 <= n <= 50})
    members = [[s for s, n in enumerate(lengths) if n == kind] for kind in kinds]
    means = [values[own].mean() for own in members]
    # Satterthwaite's degrees of freedom; a single sentence has none of its own, and counts as if it had one.
    variances = [1 / len(own) for own in members]
    freedom = sum(variances) ** 2 / sum(v**2 / max(len(own) - 1, 1) for v, own in zip(variances, members, strict=True))
    stretch = t.ppf(0.975, freedom) / norm.ppf(0.975)
    drawn = np.full(len(draws), np.mean(means))
    for k, own in enumerate(members):
        beside = [j for j in (k - 1, k + 1) if j in range(len(kinds))]
        if len(own) > 1:
            centre, scale = means[k], np.sqrt(len(own) / (len(own) - 1))
        elif beside:
            centre = np.mean([means[j] for j in beside])
            scale = 1 / np.sqrt(1 + sum(1 / len(members[j]) for j in beside) / len(beside) ** 2)
        else:
            centre, scale = means[k], 1.0
        for s in own:
            share = (values[s] - centre) * scale / len(own) / len(kinds)
            drawn += stretch * share * (draws[:, s] - 1)
    return drawn


@pytest.mark.parametrize("lengths", [LENGTHS, [5, 5, 6, 50, 50], [5, 6, 6], [5, 50], [8, 8, 8, 9, 9], [9, 4]])
def test_resamples_are_those_of_each_sentence(lengths):
    scores = planted(lengths, seed=len(lengths))
    drawn = resampled(scores, resamples=60, seed=7)
    draws = bootstrap_weights(len(lengths), 60, np.random.default_rng(7))
    for layer in range(2):
        for name in ("dspr", "nspr"):
            wanted = drawn_by_hand(getattr(scores, name)[layer], lengths, draws)
            value = drawn[name][layer, 0]
            assert value == pytest.approx(estimates(scores, np.ones((1, len(lengths))))[name][layer, 0])
            assert drawn[name][layer, 1:] == pytest.approx(np.clip(wanted - wanted.mean() + value, -1, 1), abs=1e-12)
        for name, above, below in (
            ("uuas", scores.edges[layer], scores.gold_edges),
            ("root_accuracy", scores.root[layer], np.ones(len(lengths))),
        ):
            wanted = [(own * above).sum() / (own * below).sum() for own in draws]
            value = above.sum() / below.sum()
            assert drawn[name][layer, 0] == pytest.approx(value)
            assert drawn[name][layer, 1:] == pytest.approx(np.clip(wanted - np.mean(wanted) + value, 0, 1), abs=1e-12)


def test_correlations_are_clipped_at_minus_one_and_shares_at_zero():
    low, rare = np.array([[-1.0, -1, -0.7, -1, -1]]), np.array([[0.0, 0, 0, 0, 1]])
    drawn = resampled(SentenceScores(np.array([5, 5, 5, 6, 6]), low, low, rare, np.ones(5), rare), seed=1)
    assert drawn["dspr"].min() == drawn["nspr"].min() == -1 and drawn["dspr"].max() > -0.93
    # The mean of the resamples is a little above the value here, so the centred ones would begin below 0.
    assert drawn["uuas"].min() == drawn["root_accuracy"].min() == 0


def test_sentences_without_a_correlation_have_no_resamples_of_one():
    drawn = resampled(planted([3, 4, 51]), resamples=5)
    assert (drawn["dspr"] == 0).all() and (drawn["nspr"] == 0).all() and drawn["uuas"].any()


def test_a_single_edge_or_sentence_counts_whole():
    one = np.ones((1, 2))
    scores = SentenceScores(np.array([2, 1]), one * np.nan, one * np.nan, np.array([[1.0, 0]]), np.array([1.0, 0]), one)
    found = estimates(scores, np.array([[1.0, 0], [0, 1]]))
    assert found["uuas"].tolist() == [[1.0, 0.0]] and found["root_accuracy"].tolist() == [[1.0, 1.0]]
    assert found["dspr"].tolist() == [[0.0, 0.0]]

"""Scores of edge probes at their limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bertft.probes.edge.head import Input
from bertft.probes.edge.scores import expected_layer, label_f1, micro_f1
from bertft.probes.edge.training import Counts

CURVE = [Input("layer", 0), Input("mix", 1), Input("mix", 2)]


def test_scores_add_up_labels_and_texts_under_their_weights():
    rng = np.random.default_rng(0)
    hits, predicted, gold = (rng.integers(0, 4, shape) for shape in ((2, 3, 4), (2, 3, 4), (3, 4)))
    counts = Counts(*map(torch.tensor, (hits, predicted, gold)), torch.tensor([2, 0, 1]))
    weights = np.array([[1.0, 1, 1], [0, 3, 0], [2, 0, 1]])
    for p in range(2):
        for b, own in enumerate(weights):
            below = (own @ (predicted[p].sum(1) + gold.sum(1) + np.array([2, 0, 1]))).sum()
            assert micro_f1(counts, weights)[p, b] == pytest.approx(2 * (own @ hits[p].sum(1)) / below)
            for k in range(4):
                below = max(own @ (predicted[p, :, k] + gold[:, k]), 1)
                assert label_f1(counts, k, weights)[p, b] == pytest.approx(2 * (own @ hits[p, :, k]) / below)


@pytest.mark.parametrize(
    ("curve", "wanted"),
    [
        ((0.5, 0.6, 0.9), (1 * 0.1 + 2 * 0.3) / 0.4),
        ((0.5, 0.4, 0.9), (1 * -0.1 + 2 * 0.5) / 0.4),  # a lower mix may be worse than layer 0
        ((0.5, 0.5, 0.75), 2.0),
        ((0.5, 0.9, 0.5), None),  # the top mix decides whether there is a gain
        ((0.5, 0.9, 0.4), None),
        ((0.5, 0.75), 1.0),  # an encoder of one block
        ((0.5, 0.5), None),
        ((0.5,), None),
    ],
)
def test_the_expected_layer_is_the_mean_of_the_layers_by_their_gains(curve, wanted):
    # In the other columns, resamples, the same curve the other way about.
    scores = np.stack([curve, [-value for value in curve], [0.25] * len(curve)], axis=1)
    found = expected_layer(CURVE[: len(curve)], scores)
    if wanted is None:
        assert found is None
    else:
        assert found[0] == pytest.approx(wanted) and np.isnan(found[1:]).all()


def test_a_resample_without_a_gain_has_no_expected_layer():
    scores = np.array([[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.25], [0.75, 0.25, 0.25, 0.125]])
    found = expected_layer(CURVE, scores)
    assert found[0] == 1.5 and np.isnan(found[1:]).all()  # gains of 1/4 and -1/4 add up to nothing to share out


def test_the_expected_layer_needs_layer_0_and_mixes_from_1_on():
    order = [Input("mix", 2), Input("layer", 2), Input("layer", 0), Input("mix", 1), Input("cat", 1), Input("mix", 4)]
    scores = np.array([[0.9], [0.1], [0.5], [0.6], [0.2], [0.99]])
    assert expected_layer(order, scores) == pytest.approx((1 * 0.1 + 2 * 0.3) / 0.4)  # mix 4 has no mix 3 before it
    without = [where for where in order if where != Input("layer", 0)]
    assert expected_layer([*without, Input("layer", 1)], np.ones((6, 1))) is None
    assert (
        expected_layer([Input("layer", 0), Input("layer", 1), Input("mix", 2)], np.array([[0.1], [0.2], [0.3]])) is None
    )

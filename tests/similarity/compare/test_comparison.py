"""Rows of measures of one space, with the intervals of their own influences."""

from __future__ import annotations

import pytest
import torch

from bertft.runs.intervals import clustered_interval, positive_interval
from bertft.similarity.augmented_rows import augment
from bertft.similarity.compare.plan import Plan
from bertft.similarity.influence import anisotropy_influence, dimension_influence
from bertft.similarity.moments import CrossMoments
from bertft.similarity.vectors import compare_vectors


@pytest.mark.parametrize("all_layers", [False, True])
def test_measures_of_one_space_have_the_interval_of_their_kind(all_layers):
    """All stimuli are in the sample, so that influences and sums are of the same rows."""
    generator = torch.Generator().manual_seed(0)
    spaces = {
        name: torch.randn(2, 60, 5, generator=generator, dtype=torch.float64) + shift
        for name, shift in (("base", 1.0), ("a", 0.5), ("b", 0.2))
    }
    groups = torch.arange(60) // 3
    plan = Plan(measures=("effective_dimension", "anisotropy"), all_layers=all_layers)
    tuned = {name: space for name, space in spaces.items() if name != "base"}
    rows = compare_vectors(spaces["base"], tuned, plan, groups=groups.tolist(), data="toy")
    found = {(row.model, row.measure, row.layer): row for row in rows if row.task == "similarity"}
    assert len(found) == 3 * 2 * 2
    for (model, measure, layer), row in found.items():
        metric = "cosine" if measure == "anisotropy" else "dot"
        space = spaces[model][layer]
        sums = CrossMoments(1, 1, metric).update(space[None], space[None])
        z = augment(space, sums.means(0, 0)[0], metric)
        influence_of, interval = (
            (anisotropy_influence, clustered_interval)
            if metric == "cosine"
            else (dimension_influence, positive_interval)
        )
        value = float(getattr(sums, measure)()[0])
        influence = influence_of(sums.moments(0, 0), z, 0)
        expected = interval(value, influence, groups, stimuli=60, sentences=20)
        assert (row.value, row.low, row.high) == pytest.approx(expected[:3], rel=1e-9), (model, measure, layer)
        assert (row.data, row.n, row.seed) == ("toy", 60, 0)

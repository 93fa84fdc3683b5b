"""Sentences on massive activations and dominant dimensions."""

from __future__ import annotations

import dataclasses

from bertft.report.left_out import left_out
from bertft.runs.rows import Row


def test_layers_with_massive_activations_and_dominant_dimensions_are_named():
    head = Row("dep", "sinks", "wiki", 0, "massive_stimuli", 0.0, n=5000, seed=1)
    rows = [dataclasses.replace(head, layer=k, value=float(v)) for k, v in enumerate((0, 30, 29))]
    share = dataclasses.replace(head, measure="largest_dimension_share", layer=2, value=0.61)
    rows += [share, dataclasses.replace(share, measure="largest_dimension", value=308.0)]
    massive, dimension = left_out([*rows, dataclasses.replace(head, model="base")])
    assert massive.startswith("dep on wiki: up to 30 of 5,000 stimuli are massive activations (layers 1, 2). ")
    assert dimension == (
        "dep on wiki: one dimension carries over a quarter of the variance in layers 2, at most 61% (layer 2, "
        "dimension 308)."
    )
    assert left_out([head]) == []

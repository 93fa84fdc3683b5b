"""Layouts of probes' weights, place by place."""

from __future__ import annotations

import pytest
import torch

from bertft.probes.structural.columns import Columns
from bertft.probes.vectors import Workspace

LAYERS, WIDTH, RANK = 3, 2, 2


@pytest.mark.parametrize("kinds", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("chosen", [[0, 1, 2], [2], [0, 2]])
def test_weights_side_by_side_are_given_back_to_their_places(kinds, chosen):
    weights = torch.arange(2.0 * LAYERS * WIDTH * RANK).view(2 * LAYERS, WIDTH, RANK)
    columns = Columns(LAYERS, Workspace())
    into = torch.full_like(weights, -1.0)
    for _ in range(2):  # the second time with numbers that were sent before
        taken = columns.take(weights, kinds, chosen)
        assert taken.shape == (len(chosen), WIDTH, len(kinds) * RANK)
        for place, layer in enumerate(chosen):
            wanted = torch.cat([weights[kind * LAYERS + layer] for kind in kinds], dim=1)
            assert torch.equal(taken[place], wanted)
        columns.give(10 * taken, into, kinds, chosen)
    own = [kind * LAYERS + layer for kind in kinds for layer in chosen]
    others = [probe for probe in range(2 * LAYERS) if probe not in own]
    assert torch.equal(into[own], 10 * weights[own]) and (into[others] == -1).all()

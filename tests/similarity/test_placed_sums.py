"""Sums of several layers, added together."""

from __future__ import annotations

import pytest
import torch

from bertft.similarity import placed_sums
from bertft.similarity.moments import CrossMoments


@pytest.mark.parametrize("room", [0, 8 * 16 * 2, 1 << 20])
def test_layers_added_together_have_the_sums_of_layers_added_alone(room, monkeypatch):
    monkeypatch.setattr(placed_sums, "TOGETHER", room)  # one layer, two layers and a rest, all five layers at a time
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(5, 60, 3, generator=g), torch.randn(5, 60, 4, generator=g)
    many = CrossMoments(5, 5, "dot").update(x[:, :40], y[:, :40]).update(x[:, 40:], y[:, 40:])
    for k in range(5):
        one = CrossMoments(1, 1, "dot")
        for rows in (slice(40), slice(40, 60)):
            one.update(x[k : k + 1, rows], y[k : k + 1, rows])
        for name in ("gram_x", "gram_y", "cross", "stats_xy"):
            assert torch.equal(many.state[name][k], one.state[name][0]), name

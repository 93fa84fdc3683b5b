"""Layouts of the weights of several probes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bertft.probes.vectors import Workspace


class Columns:
    """Conversion between the layouts of the schedule and of the losses.

    The schedule stacks all probes, (2 * L, D, R), distance before depth. The losses take those of a group (`groups_of`)
    side by side, (L', D, kinds * R).
    """

    def __init__(self, layers: int, workspace: Workspace) -> None:
        self.layers, self.workspace = layers, workspace
        self._known: dict[tuple[int, ...], Tensor] = {}

    def index(self, chosen: Sequence[int], device: torch.device) -> Tensor:
        """Return the numbers of layers, sent to ``device`` once."""
        key = tuple(chosen)  # the same from step to step: to send it anew would make the host wait
        if key not in self._known:
            self._known[key] = torch.tensor(key, device=device)
        return self._known[key]

    def take(self, weights: Tensor, kinds: Sequence[int], chosen: Sequence[int]) -> Tensor:
        """Return a group's part of the weights (2 * L, D, R), side by side."""
        _, width, rank = weights.shape
        parts = [weights[kind * self.layers :][: self.layers] for kind in kinds]
        if len(chosen) < self.layers:
            index = self.index(chosen, weights.device)
            parts = [part.index_select(0, index) for part in parts]
        shape = (len(chosen), width, len(kinds) * rank)
        return torch.cat(parts, dim=2, out=self.workspace.take("weights", *shape, device=weights.device))

    def give(self, gradients: Tensor, into: Tensor, kinds: Sequence[int], chosen: Sequence[int]) -> None:
        """Write a group's gradients (L', D, kinds * R) to their places in ``into`` (2 * L, D, R)."""
        for kind, own in zip(kinds, gradients.chunk(len(kinds), dim=2), strict=True):
            place = into[kind * self.layers :][: self.layers]
            if len(chosen) < self.layers:
                place.index_copy_(0, self.index(chosen, into.device), own)
            else:
                place.copy_(own)

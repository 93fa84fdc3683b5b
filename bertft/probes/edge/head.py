"""Stacked heads of edge probes.

Source: Tenney et al. 2019, as jiant v1 implements it.

For a span with words t, input vectors x_t and one head:
    e_t = a'(W'x_t + b),  alpha = softmax of e over the words of the span,  r = sum_t alpha_t (W'x_t + b)
    logits = O'dropout(LN(tanh(H'[r_1; r_2] + c))) + o
The weights alpha add up to one and the projection is linear, so r = W'(sum_t alpha_t x_t) + b and e_t = (Wa)'x_t up to
a constant that the softmax ignores. Therefore words are pooled first, and spans are projected instead of words
(`bertft.probes.edge.forward`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.probes.edge.forward import Pass, mix, numbers
from bertft.probes.edge.targets import SpanBatch

WIDTH = 256  # of the span vectors and the hidden layer
DROPOUT = 0.3


@dataclass(frozen=True)
class Input:
    """The input of a probe, by ``kind``: ``layer`` (k alone), ``mix`` (a learned mix of 0..k) or ``cat`` (0 and k)."""

    kind: Literal["layer", "mix", "cat"]
    layer: int


def all_inputs(layers: int, mixes: str = "all") -> list[Input]:
    """Return each layer alone, the top layer beside layer 0, and the mixes up to each layer from 1.

    With ``mixes`` of ``top`` the mix of all layers is the only one. Raises ``BertftError`` if it is neither.
    """
    if mixes not in ("all", "top"):
        raise BertftError(f"edge probes: mixes must be all or top, found {mixes}")
    singles = [Input("layer", k) for k in range(layers)]
    if layers < 2:
        return singles
    lowest = 1 if mixes == "all" else layers - 1
    return [*singles, Input("cat", layers - 1), *(Input("mix", k) for k in range(lowest, layers))]


class Heads:
    """The parameters of P heads in stacked tensors, and passes of any subset of them.

    A head has one *slot*, an input vector of width D, or two (``cat``). The tensors, in the order of the probes:

    - for each of Q slots: ``project`` (Q, roles, D, W);
    - for each probe: ``bias``, ``attend`` (P, roles, W), ``hidden`` (P, roles * W, W), ``hidden_bias``, ``norm``,
      ``shift`` (P, W), ``out`` (P, W, K), ``out_bias`` (P, K);
    - for each mix: ``scalars`` (m, L), ``gamma`` (m,).
    """

    def __init__(self, inputs: Sequence[Input], layers: int, dim: int, roles: int, labels: int, seed: int) -> None:
        self.inputs, self.layers, self.dim, self.roles = list(inputs), layers, dim, roles
        self.slots = [[(i.kind, 0), (i.kind, i.layer)] if i.kind == "cat" else [(i.kind, i.layer)] for i in inputs]
        mixes = [i for i in inputs if i.kind == "mix"]
        generator = torch.Generator().manual_seed(seed)

        def draw(fan_in: int, *shape: int) -> Tensor:  # PyTorch's initialisation of a linear layer
            return (torch.rand(*shape, generator=generator) * 2 - 1) / math.sqrt(fan_in)

        # All probes start from one draw. Those of a concatenation have inputs of twice the width; by the rule of the
        # initialisation their first weights are smaller by the square root of two.
        project, bias, attend = draw(dim, roles, dim, WIDTH), draw(dim, roles, WIDTH), draw(WIDTH, roles, WIDTH)
        hidden, hidden_bias = draw(roles * WIDTH, roles * WIDTH, WIDTH), draw(roles * WIDTH, WIDTH)
        out, out_bias = draw(WIDTH, WIDTH, labels), draw(WIDTH, labels)
        scale = [1 / math.sqrt(len(slots)) for slots in self.slots]
        p = len(self.inputs)
        self.tensors = {
            "project": torch.stack([project * s for s, slots in zip(scale, self.slots, strict=True) for _ in slots]),
            "bias": torch.stack([bias * s for s in scale]),
            "attend": attend.repeat(p, 1, 1),
            "hidden": hidden.repeat(p, 1, 1),
            "hidden_bias": hidden_bias.repeat(p, 1),
            "norm": torch.ones(p, WIDTH),
            "shift": torch.zeros(p, WIDTH),
            "out": out.repeat(p, 1, 1),
            "out_bias": out_bias.repeat(p, 1),
            "scalars": torch.zeros(len(mixes), layers),
            "gamma": torch.ones(len(mixes)),
        }

    def to(self, device: torch.device) -> Heads:
        """Move the parameters to ``device`` and return the heads."""
        self.tensors = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return self

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return self.tensors["norm"].device

    def rows(self, name: str, probe: int) -> slice:
        """Return the rows of a probe in a stacked tensor; an empty slice if it has none."""
        if name == "project":
            start = sum(map(len, self.slots[:probe]))
            return slice(start, start + len(self.slots[probe]))
        if name in ("scalars", "gamma"):
            start = sum(i.kind == "mix" for i in self.inputs[:probe])
            return slice(start, start + (self.inputs[probe].kind == "mix"))
        return slice(probe, probe + 1)

    def select(self, probes: Sequence[int], tensors: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return the stacked tensors of some probes; views if the probes are consecutive."""
        tensors = self.tensors if tensors is None else tensors
        first, last = probes[0], probes[-1]
        if list(probes) == list(range(first, last + 1)):
            return {name: t[self.rows(name, first).start : self.rows(name, last).stop] for name, t in tensors.items()}
        return {name: torch.cat([t[self.rows(name, p)] for p in probes]) for name, t in tensors.items()}

    def passed(
        self,
        tensors: dict[str, Tensor],
        probes: Sequence[int],
        x: Tensor,
        batch: SpanBatch,
        dropped: Tensor | None = None,
        **settings: Any,
    ) -> Pass:
        """Return the `bertft.probes.edge.forward.Pass` of ``probes``, with parameters ``tensors``, over a batch.

        ``x`` (L, T, D) are the words of the batch. ``dropped`` (N, W) multiplies the hidden layer. It is the same for
        all probes, so that a probe learns the same alone and beside others.
        """
        slots = [(layer, kind == "mix") for p in probes for kind, layer in self.slots[p]]
        return Pass(tensors, slots, self.owner(probes), x, batch, dropped, **settings)

    def owner(self, probes: Sequence[int]) -> Tensor:
        """Return the position in ``probes`` of the probe of each slot, (Q',)."""
        return numbers(tuple(i for i, p in enumerate(probes) for _ in self.slots[p]), self.device)

    def mix_weights(self, tensors: dict[str, Tensor], probe: int) -> Tensor:
        """Return softmax(s) (L,) of a mix, 0 above its highest layer."""
        row = tensors["scalars"][self.rows("scalars", probe)]
        return mix(row, [self.inputs[probe].layer])[0]

"""The edge probe of Tenney et al. (2019, jiant v1) for many inputs at once: one stack of heads, batched products.

For a span with words t, input vectors x_t and one head:
    e_t = a'(W'x_t + b),  alpha = softmax of e over the words of the span,  r = sum_t alpha_t (W'x_t + b)
    logits = O'dropout(LN(tanh(H'[r_1; r_2] + c))) + o
The weights alpha add up to one and the projection is linear, so r = W'(sum_t alpha_t x_t) + b and e_t = (Wa)'x_t up to
a constant that the softmax ignores: the words are pooled first and each *target* is projected, never each word.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bertft.probes.edge_data import SpanBatch

WIDTH = 256  # of the span vectors and of the hidden layer
DROPOUT = 0.3


@dataclass(frozen=True)
class Input:
    """What one probe reads: ``kind`` ``layer`` (k alone), ``mix`` (a learned mix of 0..k) or ``cat`` (0 and k)."""

    kind: str
    layer: int


def all_inputs(layers: int) -> list[Input]:
    """Every layer alone, top beside lexical, and mixes up to each layer from 1 (up to 0 there is nothing to mix)."""
    singles = [Input("layer", k) for k in range(layers)]
    if layers < 2:
        return singles
    return [*singles, Input("cat", layers - 1), *(Input("mix", k) for k in range(1, layers))]


class Heads:
    """The parameters of P heads in stacked tensors, and their forward pass for any subset of them.

    A probe owns one *slot*, an input vector of width D, or two (``cat``). Q slots in all, in the probes' order:
    ``project`` (Q, roles, D, W); everything else is a row a probe: ``bias``, ``attend`` (P, roles, W), ``hidden``
    (P, roles * W, W), ``hidden_bias``, ``norm``, ``shift`` (P, W), ``out`` (P, W, K), ``out_bias`` (P, K); and a row
    a mix: ``scalars`` (m, L), ``gamma`` (m,).
    """

    def __init__(self, inputs: Sequence[Input], layers: int, dim: int, roles: int, labels: int, seed: int) -> None:
        self.inputs, self.layers, self.dim, self.roles = list(inputs), layers, dim, roles
        self.slots = [[(i.kind, 0), (i.kind, i.layer)] if i.kind == "cat" else [(i.kind, i.layer)] for i in inputs]
        mixes = [i for i in inputs if i.kind == "mix"]
        generator = torch.Generator().manual_seed(seed)

        def draw(fan_in: int, *shape: int) -> Tensor:  # torch's own initialisation of a linear layer
            return (torch.rand(*shape, generator=generator) * 2 - 1) / math.sqrt(fan_in)

        # All probes start from one draw. The concatenation's, of twice the width, begins as the others divided by
        # the root of two, as that initialisation has it.
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

    def rows(self, name: str, probe: int) -> slice:
        """Where the probe's part of a stacked tensor lies; an empty slice if it has none."""
        if name == "project":
            start = sum(map(len, self.slots[:probe]))
            return slice(start, start + len(self.slots[probe]))
        if name in ("scalars", "gamma"):
            start = sum(i.kind == "mix" for i in self.inputs[:probe])
            return slice(start, start + (self.inputs[probe].kind == "mix"))
        return slice(probe, probe + 1)

    def select(self, probes: Sequence[int], tensors: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The stacked tensors of some probes alone; views, not copies, where these follow one another."""
        tensors = self.tensors if tensors is None else tensors
        first, last = probes[0], probes[-1]
        if list(probes) == list(range(first, last + 1)):
            return {name: t[self.rows(name, first).start : self.rows(name, last).stop] for name, t in tensors.items()}
        return {name: torch.cat([t[self.rows(name, p)] for p in probes]) for name, t in tensors.items()}

    def logits(
        self, tensors: dict[str, Tensor], probes: Sequence[int], x: Tensor, batch: SpanBatch, dropped: Tensor | None
    ) -> Tensor:
        """(P', N, K) of ``probes``, whose parameters are ``tensors``, for the targets of a batch.

        ``x`` (L, T, D) float32 are the words of the batch; ``dropped`` (N, W) multiplies the hidden layer, the same
        for all probes, so that a probe learns the same alone and beside others; None leaves it alone.
        """
        inputs = [self.inputs[p] for p in probes]
        owner = torch.tensor([i for i, p in enumerate(probes) for _ in self.slots[p]])
        slots = _Slots(inputs, [slot for p in probes for slot in self.slots[p]], x, tensors)
        projects = tensors["project"].unbind(1)  # whose gradient is written once, unlike that of a choice by index
        attending = [role for role in range(self.roles) if not bool((batch.sizes[role] == 1).all())]
        energies = {}
        if attending:  # of all roles in one pass over the words
            directions = [projects[r] @ tensors["attend"][owner, r].unsqueeze(-1) for r in attending]  # (Q, D, 1) each
            energy = _merge(slots.dot(torch.cat(directions, dim=-1)), owner, len(inputs))  # (P', T, roles)
            energies = dict(zip(attending, energy.unbind(-1), strict=True))
        parts = []
        for role, (project, bias) in enumerate(zip(projects, tensors["bias"].unbind(1), strict=True)):
            if role in energies:
                weights = _softmax_in_spans(energies[role], batch.tokens[role], batch.sizes[role])  # (P', J)
                pooled = slots.pool(weights[owner], batch.tokens[role], batch.sizes[role])
            else:
                pooled = slots.take(batch.tokens[role])
            parts.append(_merge(torch.bmm(pooled, project), owner, len(inputs)) + bias.unsqueeze(1))
        spans = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        hidden = torch.baddbmm(tensors["hidden_bias"].unsqueeze(1), spans, tensors["hidden"]).tanh()
        hidden = F.layer_norm(hidden, (WIDTH,)) * tensors["norm"].unsqueeze(1) + tensors["shift"].unsqueeze(1)
        if dropped is not None:
            hidden = hidden * dropped
        return torch.baddbmm(tensors["out_bias"].unsqueeze(1), hidden, tensors["out"])

    def mix_weights(self, tensors: dict[str, Tensor], probe: int) -> Tensor:
        """softmax(s) (L,) of a mix, 0 above its highest layer."""
        row = tensors["scalars"][self.rows("scalars", probe)]
        return _mix(row, [self.inputs[probe].layer])[0]


class _Slots:
    """The slots' input vectors: plain layers, which need no gradient, and mixes, which do. Nothing is copied twice."""

    def __init__(
        self, inputs: Sequence[Input], slots: Sequence[tuple[str, int]], x: Tensor, tensors: dict[str, Any]
    ) -> None:
        layers, words, dim = x.shape
        self.plain = [layer for kind, layer in slots if kind != "mix"]
        self.order = torch.tensor(
            [q for q, (kind, _) in enumerate(slots) if kind != "mix"]
            + [q for q, (kind, _) in enumerate(slots) if kind == "mix"]
        )
        self.back = self.order.argsort()
        follow = self.plain and self.plain == list(range(self.plain[0], self.plain[-1] + 1))
        self.fixed = x[self.plain[0] : self.plain[-1] + 1] if follow else x[self.plain]
        tops = [i.layer for i in inputs if i.kind == "mix"]
        self.mixed: Tensor | None = None
        if tops:
            weights = _mix(tensors["scalars"], tops) * tensors["gamma"].unsqueeze(1)
            self.mixed = (weights @ x.reshape(layers, words * dim)).view(len(tops), words, dim)

    def _both(self, parts: list[Tensor]) -> Tensor:
        joined = parts[0] if len(parts) == 1 else torch.cat(parts)
        return joined if bool((self.back == torch.arange(len(self.back))).all()) else joined[self.back]

    def _groups(self) -> list[tuple[Tensor, Tensor]]:
        """(slot numbers, vectors) of the plain and of the mixed slots, those that are there."""
        count = len(self.plain)
        groups = [(self.order[:count], self.fixed)] if count else []
        return groups if self.mixed is None else [*groups, (self.order[count:], self.mixed)]

    def take(self, tokens: Tensor) -> Tensor:
        """(Q, N, D): the vectors of single words."""
        return self._both([vectors.index_select(1, tokens) for _, vectors in self._groups()])

    def dot(self, direction: Tensor) -> Tensor:
        """(Q, T, r): each word's products with its slot's directions (Q, D, r)."""
        return self._both([torch.bmm(v, direction[q]) for q, v in self._groups()])

    def pool(self, weights: Tensor, tokens: Tensor, sizes: Tensor) -> Tensor:
        """(Q, N, D): the sum over each span's words, with weights (Q, J)."""
        parts = []
        starts = sizes.cumsum(0) - sizes
        for numbers, vectors in self._groups():
            count, words, dim = vectors.shape
            step = torch.arange(count).unsqueeze(1)
            parts.append(
                F.embedding_bag(
                    (tokens + step * words).flatten(),
                    vectors.reshape(count * words, dim),
                    (starts + step * len(tokens)).flatten(),
                    mode="sum",
                    per_sample_weights=weights[numbers].flatten(),
                ).view(count, len(sizes), dim)
            )
        return self._both(parts)


def _mix(scalars: Tensor, tops: Sequence[int]) -> Tensor:
    """softmax of the scalars (m, L) over layers 0..top of each row."""
    above = torch.arange(scalars.shape[1]) > torch.tensor(tops).unsqueeze(1)
    return scalars.masked_fill(above, -math.inf).softmax(-1)


def _merge(values: Tensor, owner: Tensor, probes: int) -> Tensor:
    """Add up the slots (Q, ...) of each probe: (P', ...)."""
    if len(owner) == probes:
        return values
    return values.new_zeros(probes, *values.shape[1:]).index_add(0, owner, values)


def _softmax_in_spans(energy: Tensor, tokens: Tensor, sizes: Tensor) -> Tensor:
    """Weights (P, J) of the words of each span from energies (P, T) of all words."""
    span = torch.arange(len(sizes)).repeat_interleave(sizes)
    e = energy.index_select(1, tokens)
    with torch.no_grad():  # the largest of each span, so that no exponential overflows
        top = e.new_full((len(e), len(sizes)), -math.inf).scatter_reduce(1, span.expand_as(e), e, "amax")
    w = (e - top.index_select(1, span)).exp()
    total = w.new_zeros(len(e), len(sizes)).index_add(1, span, w)
    return w / total.index_select(1, span)

"""Fused forward and backward pass of edge probes.

    hidden = tanh(sum_r H_r'(W_r' pooled_r + b_r) + c),  logits = O'(LN(hidden) * dropped) + o

Everything before tanh is a sum over the roles r of terms that depend on a span alone. Targets share spans: a mention is
in many pairs, a head has many dependents. So the term of a role is computed once for every distinct span of the batch
and then added to its targets. There is no nonlinearity between W_r and H_r. If there are more spans than
dimensions of an input vector, one product with C_r = W_r H_r replaces two.

The gradients are written out from the same sums. Only the pooling (attention and mixes, which cost little beside the
products) uses autograd, with its own leaves: the directions W_r a_r of the attention and the weights of the mixes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from bertft.probes.edge.targets import SpanBatch

EPS = 1e-5  # of PyTorch's layer normalisation


class Pass:
    """The ``logits`` (P, N, K) of P heads for N targets, and their gradients by `backward`.

    Args:
        tensors: parameters, stacked as in `bertft.probes.edge.head.Heads`.
        slots: the layer of each of Q slots and whether it is the top of a mix, in the order of ``tensors["project"]``.
        owner: (Q,) the head of each slot.
        x: (L, T, D) the words of the batch.
        batch: the targets.
        dropped: (N, W) factors of the normalised hidden layer, the same for all heads; None for no dropout.
        through: the result of `through` for these tensors, if it is known.
        learn: whether `backward` will be called.
    """

    def __init__(
        self,
        tensors: dict[str, Tensor],
        slots: Sequence[tuple[int, bool]],
        owner: Tensor,
        x: Tensor,
        batch: SpanBatch,
        dropped: Tensor | None = None,
        *,
        through: Sequence[Tensor] | None = None,
        learn: bool = False,
    ) -> None:
        self.tensors, self.owner, self.which, self.dropped = tensors, owner, batch.which, dropped
        self.heads, self.width = tensors["norm"].shape
        self.halves = tensors["hidden"].unflatten(1, (-1, self.width))  # (P, roles, W, W)
        self._pool(slots, x, batch, learn)
        self.through: list[Tensor | None] = []
        self.spans: list[Tensor | None] = []
        hidden, constant = None, tensors["hidden_bias"].unsqueeze(1)
        for role, own in enumerate(self.pooled):
            pooled, (project, half, bias) = own.detach(), self._role(role)
            span, direct = None, None if through is None else through[role]
            if direct is None and pooled.shape[1] > pooled.shape[2]:
                direct = torch.bmm(project, self._spread(half))
            if direct is None:
                span = self._merge(torch.bmm(pooled, project)).add_(bias)
                part = torch.bmm(span, half).add_(constant)
            else:
                part = self._merge(torch.bmm(pooled, direct)).add_(torch.baddbmm(constant, bias, half))
            which, constant = self.which[role], constant.new_zeros(())
            part = part if which is None else part.index_select(1, which)
            hidden = part if hidden is None else hidden.add_(part)
            self.through.append(direct)
            self.spans.append(span)
        assert hidden is not None
        self.hidden = hidden.tanh_()
        self.normed, self.mean, self.scale = torch.native_layer_norm(self.hidden, (self.width,), None, None, EPS)
        self.out = torch.addcmul(tensors["shift"].unsqueeze(1), self.normed, tensors["norm"].unsqueeze(1))
        if dropped is not None:
            self.out *= dropped
        self.logits = torch.baddbmm(tensors["out_bias"].unsqueeze(1), self.out, tensors["out"])

    def backward(self, slope: Tensor) -> dict[str, Tensor]:
        """Return the gradients of the parameters from ``slope``, that of the logits (P, N, K), which is overwritten."""
        own, found = self.tensors, {}
        found["out"], found["out_bias"] = torch.bmm(self.out.mT, slope), slope.sum(1)
        slope = torch.bmm(slope, own["out"].mT)
        if self.dropped is not None:
            slope *= self.dropped
        found["shift"], found["norm"] = slope.sum(1), (slope * self.normed).sum(1)
        slope *= own["norm"].unsqueeze(1)
        slope = torch.ops.aten.native_layer_norm_backward(
            slope, self.hidden, (self.width,), self.mean, self.scale, None, None, [True, False, False]
        )[0]
        slope = torch.ops.aten.tanh_backward(slope, self.hidden)
        found["hidden_bias"] = slope.sum(1)
        for name in ("project", "bias", "attend", "hidden"):
            found[name] = torch.empty_like(own[name])
        halves = found["hidden"].unflatten(1, (-1, self.width))
        upstream = []
        for role, pooled in enumerate(self.pooled):
            part, which = slope, self.which[role]
            if which is not None:
                part = summed(slope, which, pooled.shape[1])
            upstream.append(self._learn_role(role, part, found, halves[:, role]))
        self._learn_pooling(upstream, found)
        return found

    def _learn_role(self, role: int, slope: Tensor, found: dict[str, Tensor], half_found: Tensor) -> Tensor | None:
        """Write a role's gradients from ``slope``, that of its term of the hidden layer (P, U, W).

        Return the gradient of the pooled vectors, or None if they need none.
        """
        pooled, direct, span = self.pooled[role].detach(), self.through[role], self.spans[role]
        project, half, bias = self._role(role)
        into = found["project"][:, role]
        if direct is not None:
            spread, backwards = self._spread(slope), direct
            product = torch.bmm(pooled.mT, spread)  # the gradient of W_r H_r
            torch.bmm(product, self._spread(half).mT, out=into)
            total = slope.sum(1, keepdim=True)
            torch.baddbmm(self._merge(torch.bmm(project.mT, product)), bias.mT, total, out=half_found)
            found["bias"][:, role] = torch.bmm(total, half.mT).squeeze(1)
        else:
            assert span is not None
            torch.bmm(span.mT, slope, out=half_found)
            slope = torch.bmm(slope, half.mT)
            found["bias"][:, role] = slope.sum(1)
            spread, backwards = self._spread(slope), project
            torch.bmm(pooled.mT, spread, out=into)
        return torch.bmm(spread, backwards.mT) if self.pooled[role].requires_grad else None

    def _pool(self, slots: Sequence[tuple[int, bool]], x: Tensor, batch: SpanBatch, learn: bool) -> None:
        """Set ``pooled``, (Q, U, D) for the U distinct spans of each role, and the leaves they depend on."""
        own, roles = self.tensors, range(len(batch.sizes))
        self.attending = [role for role in roles if not batch.single[role]]
        tops = [layer for layer, mixed in slots if mixed]
        self.scalars, self.gamma = (own[name].detach().requires_grad_(learn) for name in ("scalars", "gamma"))
        self.directions: Tensor | None = None
        energies = {}
        with torch.set_grad_enabled(learn):
            words = _Slots(slots, x, mix(self.scalars, tops) * self.gamma.unsqueeze(1) if tops else None)
            if self.attending:  # the energies of all roles in one pass over the words
                ways = directions(own["project"], self._spread(own["attend"]), self.attending)
                self.directions = ways.detach().requires_grad_(learn)
                energy = self._merge(words.dot(self.directions))  # (P, T, attending roles)
                energies = dict(zip(self.attending, energy.unbind(-1), strict=True))
            self.pooled = []
            for role in roles:
                tokens, sizes = batch.tokens[role], batch.sizes[role]
                if role in energies:
                    weights = self._spread(softmax_in_spans(energies[role], tokens, sizes))
                    self.pooled.append(words.pool(weights, tokens, sizes))
                else:
                    self.pooled.append(words.take(tokens, batch.whole[role]))

    def _learn_pooling(self, upstream: list[Tensor | None], found: dict[str, Tensor]) -> None:
        """Add the gradients of attention and mixes, from ``upstream``, those of the pooled vectors."""
        learned = [(p, slope) for p, slope in zip(self.pooled, upstream, strict=True) if slope is not None]
        if learned:
            torch.autograd.backward([p for p, _ in learned], [slope for _, slope in learned])
        found["scalars"], found["gamma"] = (
            torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in (self.scalars, self.gamma)
        )
        found["attend"].zero_()
        if self.directions is not None:
            assert self.directions.grad is not None
            attend = self._spread(self.tensors["attend"])
            for role, slope in zip(self.attending, self.directions.grad.split(1, dim=-1), strict=True):  # (Q, D, 1)
                found["project"][:, role].baddbmm_(slope, attend[:, role].unsqueeze(1))
                project = self.tensors["project"][:, role]
                found["attend"][:, role] = self._merge(torch.bmm(slope.mT, project)).squeeze(1)

    def _role(self, role: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return W_r (Q, D, W), H_r (P, W, W) and b_r (P, 1, W)."""
        return self.tensors["project"][:, role], self.halves[:, role], self.tensors["bias"][:, role].unsqueeze(1)

    def _merge(self, values: Tensor) -> Tensor:
        """Sum the slots (Q, ...) of each head to (P, ...). A head has one or two, so the order makes no difference."""
        if len(self.owner) == self.heads:
            return values
        return values.new_zeros(self.heads, *values.shape[1:]).index_add(0, self.owner, values)

    def _spread(self, values: Tensor) -> Tensor:
        """Repeat the values of heads (P, ...) for their slots (Q, ...)."""
        return values if len(self.owner) == self.heads else values.index_select(0, self.owner)


def through(tensors: dict[str, Tensor], owner: Tensor) -> list[Tensor]:
    """Return C_r = W_r H_r (Q, D, W) of each role, for many batches with the same parameters."""
    width = tensors["norm"].shape[1]
    halves = tensors["hidden"].unflatten(1, (-1, width))[owner]
    return [torch.bmm(tensors["project"][:, role], halves[:, role]) for role in range(halves.shape[1])]


class _Slots:
    """The input vectors of slots: plain layers, which need no gradient, and mixes by ``mixing`` (m, L), which do."""

    def __init__(self, slots: Sequence[tuple[int, bool]], x: Tensor, mixing: Tensor | None) -> None:
        self.x, (layers, words, dim) = x, x.shape
        self.plain = [layer for layer, mixed in slots if not mixed]
        order = sorted(range(len(slots)), key=lambda q: slots[q][1])  # plain slots first
        self.order = numbers(tuple(order), x.device)
        self.back = None if order == list(range(len(slots))) else self.order.argsort()
        self.mixed = None if mixing is None else (mixing @ x.reshape(layers, words * dim)).view(-1, words, dim)

    def _layers(self) -> Tensor:
        """Return the layers of the plain slots, without a copy if they are consecutive."""
        first, last = self.plain[0], self.plain[-1]
        if self.plain == list(range(first, last + 1)):
            return self.x[first : last + 1]
        return self.x.index_select(0, numbers(tuple(self.plain), self.x.device))

    def _both(self, parts: list[Tensor]) -> Tensor:
        joined = parts[0] if len(parts) == 1 else torch.cat(parts)
        return joined if self.back is None else joined[self.back]

    def _groups(self) -> list[tuple[Tensor, Tensor]]:
        """Return the numbers and vectors of the plain slots and of the mixed slots, if there are any."""
        count = len(self.plain)
        groups = [(self.order[:count], self._layers())] if count else []
        return groups if self.mixed is None else [*groups, (self.order[count:], self.mixed)]

    def take(self, tokens: Tensor, whole: bool) -> Tensor:
        """Return the vectors (Q, U, D) of the words ``tokens``; with ``whole``, of all words in order."""
        if whole:
            return self._both([vectors for _, vectors in self._groups()])
        words, parts = self.x.shape[1], []
        if self.plain:  # by rows of all layers, so that layers that are not consecutive are not copied first
            rows = (numbers(tuple(self.plain), tokens.device).unsqueeze(1) * words + tokens).flatten()
            parts.append(self.x.flatten(0, 1).index_select(0, rows).unflatten(0, (len(self.plain), len(tokens))))
        if self.mixed is not None:
            parts.append(picked(self.mixed, tokens))
        return self._both(parts)

    def dot(self, direction: Tensor) -> Tensor:
        """Return the products (Q, T, r) of each word with the directions (Q, D, r) of each slot."""
        return self._both([torch.bmm(v, direction[q]) for q, v in self._groups()])

    def pool(self, weights: Tensor, tokens: Tensor, sizes: Tensor) -> Tensor:
        """Return the weighted sums (Q, U, D) over the words of each span, with weights (Q, J)."""
        parts = []
        starts, device = sizes.cumsum(0) - sizes, sizes.device
        plain = numbers(tuple(self.plain), device)
        tables = [(self.x, plain, self.order[: len(self.plain)])] if self.plain else []
        if self.mixed is not None:
            tables.append((self.mixed, torch.arange(len(self.mixed), device=device), self.order[len(self.plain) :]))
        for (
            vectors,
            chosen,
            slots,
        ) in tables:  # words are numbered across all layers of a table, so that no layer is copied
            parts.append(
                F.embedding_bag(
                    (tokens + chosen.unsqueeze(1) * vectors.shape[1]).flatten(),
                    vectors.flatten(0, 1),
                    (starts + torch.arange(len(chosen), device=device).unsqueeze(1) * len(tokens)).flatten(),
                    mode="sum",
                    per_sample_weights=weights[slots].flatten(),
                ).view(len(chosen), len(sizes), -1)
            )
        return self._both(parts)


@functools.lru_cache(maxsize=4096)
def numbers(values: tuple[int, ...], device: torch.device) -> Tensor:
    """Return these numbers on a device, cached, because a transfer waits for the GPU; do not change them."""
    return torch.tensor(values, dtype=torch.int64, device=device)


def directions(project: Tensor, attend: Tensor, roles: Sequence[int]) -> Tensor:
    """Return W_r a_r (Q, D, r) of some roles, from ``project`` (Q, roles, D, W) and ``attend`` (Q, roles, W)."""
    if project.is_cuda:
        chosen = numbers(tuple(roles), project.device)
        return torch.einsum("qrdw,qrw->qdr", project.index_select(1, chosen), attend.index_select(1, chosen))
    # Slot by slot: on a CPU a batched product with one column is several times slower.
    return torch.stack(
        [
            torch.stack([torch.mv(matrix[role], a[role]) for role in roles], dim=-1)
            for matrix, a in zip(project, attend, strict=True)
        ]
    )


def mix(scalars: Tensor, tops: Sequence[int]) -> Tensor:
    """Return the softmax (m, L) of the scalars (m, L) over the layers 0..top of each row, 0 above."""
    layers = torch.arange(scalars.shape[1], device=scalars.device)
    above = layers > numbers(tuple(tops), scalars.device).unsqueeze(1)
    return scalars.masked_fill(above, -math.inf).softmax(-1)


def softmax_in_spans(energy: Tensor, tokens: Tensor, sizes: Tensor) -> Tensor:
    """Return the weights (P, J) of the words of each span from the energies (P, T) of all words."""
    span = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes, output_size=len(tokens))
    e = picked(energy, tokens)
    with torch.no_grad():  # the largest of each span, so that no exponential overflows
        top = e.new_full((len(e), len(sizes)), -math.inf).scatter_reduce(1, span.expand_as(e), e, "amax")
    w = (e - top.index_select(1, span)).exp()
    return w / picked(summed(w, span, len(sizes)), span)


# On a GPU, index_add and the gradient of index_select add in an order that varies from run to run; advanced indexing
# adds in a fixed order. On a CPU the order is always fixed, and the first two are faster.


def picked(values: Tensor, index: Tensor) -> Tensor:
    """Return out[:, j] = values[:, index[j]], (P, T, ...) -> (P, J, ...)."""
    return values[:, index] if values.is_cuda else values.index_select(1, index)


def summed(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Return out[:, k] = sum of values[:, j] with index[j] = k, (P, J, ...) -> (P, count, ...)."""
    zeros = values.new_zeros(len(values), count, *values.shape[2:])
    if values.is_cuda:
        return torch.ops.aten.index_put_(zeros, [None, index], values, True)
    return zeros.index_add_(1, index, values)

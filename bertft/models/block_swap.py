"""Hybrids of two models: one block exchanged, the rest run from that block up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bertft.errors import BertftError
from bertft.models.batching import Encoded, pad, pad_inputs, pool_words, word_pieces
from bertft.models.blocks import blocks, embedding_modules
from bertft.models.devices import main_device
from bertft.models.hooks import listening, replaced_blocks

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder


class BlockSwap:
    """A base and a tuned encoder of one architecture, whose blocks can be exchanged one at a time.

    Part 0 is the embeddings, part k block k. Nothing changes in either model between calls.

    A hybrid runs from the exchanged block up, on the inputs of that block which are kept. Some models pass more than
    hidden states from block to block; the first batch shows it, and their hybrids then run as a whole.

    Raises:
        BertftError: The models differ in their class, number of blocks, or the shape of a weight, or one block serves
            several layers.
    """

    def __init__(self, base: Encoder, tuned: Encoder) -> None:
        self.base, self.tuned = base, tuned
        kinds = [(type(e.model).__name__, len(blocks(e.model)), e.dim) for e in (base, tuned)]
        shapes = [{n: tuple(p.shape) for n, p in _layers_of(e.model)} for e in (base, tuned)]
        if kinds[0] != kinds[1] or shapes[0] != shapes[1]:
            raise BertftError(
                "block swaps: expected two models of one architecture, found "
                + " and ".join(f"{kind} of {count} blocks and {width} dimensions" for kind, count, width in kinds)
                + (" with weights of other shapes" if kinds[0] == kinds[1] else "")
            )
        if blocks(base.model) is not blocks(base.model):  # a list made for the caller
            raise BertftError(
                f"block swaps: expected a block of its own for each layer, found one for several in {kinds[0][0]}"
            )
        self.parts = len(blocks(base.model)) + 1
        self._resumes: bool | None = None  # whether a pass can begin at a block

    def changed(self) -> list[int]:
        """Return the parts whose weights differ."""
        sides = [[embedding_modules(e.model), *([block] for block in blocks(e.model))] for e in (self.base, self.tuned)]
        return [
            part
            for part, (mine, theirs) in enumerate(zip(*sides, strict=True))
            if any(
                not torch.equal(a, b.to(a.device))
                for one, other in zip(mine, theirs, strict=True)
                for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
            )
        ]

    @torch.inference_mode()
    def tops(self, items: Sequence[Encoded], parts: Sequence[int]) -> Tensor:
        """Return the top layer's vectors of a batch, (2 + 2 len(parts), T, D).

        First those of the base and of the tuned model; then, for each part, of the base with the tuned part alone; then
        of the tuned model with the base's part alone.
        """
        inputs, pieces, offsets = self._prepared(items)
        found, kept = [], []
        for encoder in (self.base, self.tuned):
            layers: dict[int, Tensor] = {}
            _run(encoder.model, inputs, layers)
            found.append(layers[self.parts - 1])
            kept.append(layers)
        if self._resumes is None and self.parts > 2:
            self._resumes = self._equals_itself(kept[0], inputs)
        for host, guest, layers in ((self.base, self.tuned, kept[0]), (self.tuned, self.base, kept[1])):
            found += [self._swapped(host.model, guest.model, part, layers, inputs) for part in parts]
        return torch.stack([pool_words(hidden, pieces, offsets) for hidden in found]).to(self.base.device)

    def _prepared(self, items: Sequence[Encoded]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        device = main_device(self.base.model)
        inputs = pad_inputs([item.inputs for item in items], self.base.tokenizer)
        lengths = torch.tensor([item.count for item in items])
        pieces, offsets = word_pieces(pad([item.slots for item in items], -1), lengths)
        return {key: value.to(device) for key, value in inputs.items()}, pieces.to(device), offsets.to(device)

    def _swapped(
        self, host: nn.Module, guest: nn.Module, part: int, layers: dict[int, Tensor], inputs: dict[str, Tensor]
    ) -> Tensor:
        """Return the top hidden states (B, P, D) of ``host`` with one part of ``guest``; ``layers`` are the host's."""
        top: dict[int, Tensor] = {}
        if part == 0:
            with _embeddings_of(host, guest):
                _run(host, inputs, top, only_top=True)
        else:
            with self._from(host, part, layers), _block_of(host, guest, part):
                _run(host, inputs, top, only_top=True)
        return top[self.parts - 1]

    def _from(self, host: nn.Module, part: int, layers: dict[int, Tensor]) -> contextlib.AbstractContextManager[None]:
        """Begin passes of ``host`` at block ``part`` inside the context, if it can."""
        if part == 1 or not self._resumes:
            return contextlib.nullcontext()
        return replaced_blocks(host, part - 1, lambda: layers[part - 1])

    def _equals_itself(self, layers: dict[int, Tensor], inputs: dict[str, Tensor]) -> bool:
        """Return whether the base, run from its last block up, gives its own top layer."""
        top, found, model = self.parts - 1, dict[int, Tensor](), self.base.model
        with replaced_blocks(model, top - 1, lambda: layers[top - 1]):
            _run(model, inputs, found, only_top=True)
        mask = inputs["attention_mask"].bool()
        return torch.allclose(found[top][mask], layers[top][mask], rtol=1e-4, atol=1e-5)


def _layers_of(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of the embeddings and the blocks by name."""
    for i, module in enumerate([*embedding_modules(model), *blocks(model)]):
        yield from ((f"{i}.{name}", parameter) for name, parameter in module.named_parameters())


def _run(model: nn.Module, inputs: dict[str, Tensor], kept: dict[int, Tensor], *, only_top: bool = False) -> None:
    """Run the model and keep the hidden states (B, P, D) of its layers in ``kept``."""
    top = len(blocks(model))

    def keep(layer: int, hidden: Tensor) -> None:
        if layer == top or not only_top:
            kept[layer] = hidden

    with listening(model, top, keep) as whole:
        whole(**inputs)


@contextlib.contextmanager
def _block_of(host: nn.Module, guest: nn.Module, part: int) -> Iterator[None]:
    """Put block ``part`` of ``guest`` into ``host`` inside the context."""
    stack, other = blocks(host), blocks(guest)
    own = stack[part - 1]
    stack[part - 1] = other[part - 1]
    try:
        yield
    finally:
        stack[part - 1] = own


@contextlib.contextmanager
def _embeddings_of(host: nn.Module, guest: nn.Module) -> Iterator[None]:
    """Give ``host`` the weights of the embeddings of ``guest`` inside the context."""
    pairs: list[tuple[Any, Tensor]] = [
        (a, b.data)
        for one, other in zip(embedding_modules(host), embedding_modules(guest), strict=True)
        for a, b in zip(one.parameters(), other.parameters(), strict=True)
    ]
    own = [parameter.data for parameter, _ in pairs]
    try:
        for parameter, data in pairs:
            parameter.data = data
        yield
    finally:
        for (parameter, _), data in zip(pairs, own, strict=True):
            parameter.data = data

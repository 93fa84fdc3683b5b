"""Logit lens: a direction of the hidden space in the vocabulary.

A direction passes through the model's final normalisation and output embedding (nostalgebraist 2020). Encoders are
loaded without a head, so the output embedding is read from the model's files. Where these have none, the input
embedding takes its place, to which most models tie it. A head's own hidden layer, as of BERT's masked language model,
is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bertft.models.blocks import blocks
from bertft.models.weight_files import files_of

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder

HEADS = (
    "lm_head.weight",
    "lm_head.decoder.weight",
    "cls.predictions.decoder.weight",
    "embed_out.weight",
    "vocab_projector.weight",
    "generator_lm_head.weight",
    "decoder.weight",
)
"""Names of output embeddings in files of weights."""


@dataclass(frozen=True)
class LogitLens:
    """The output side of an encoder.

    Attributes:
        embedding: (V, D).
        source: its name in the model's files, or ``input embedding``.
        norm: the final normalisation, or None.
        top: the number of the layer that the model has already normalised.
        tokenizer: the encoder's.
    """

    embedding: Tensor
    source: str
    norm: nn.Module | None
    top: int
    tokenizer: Any

    @torch.inference_mode()
    def logits(self, direction: Tensor, layer: int) -> Tensor:
        """Return the logits (V,) float64, up to a positive factor, of a ``direction`` (D,) in ``layer``.

        The normalisation is odd but for its bias, which a direction does not have; half the difference of both signs
        cancels it. The top layer of a model that ends in a normalisation is normalised already.
        """
        d = direction.double() / direction.double().norm() * math.sqrt(len(direction))
        if self.norm is not None and layer < self.top:
            weight = next(self.norm.parameters())
            both = torch.stack([d, -d]).to(weight.device, weight.dtype)
            plus, minus = self.norm(both).cpu().double()
            d = (plus - minus) / 2
        return (self.embedding @ d.to(self.embedding.device, self.embedding.dtype)).cpu().double()

    def tokens(
        self, direction: Tensor, layer: int, count: int = 10
    ) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
        """Return the ``count`` tokens with the highest and with the lowest logits, without special tokens."""
        logits = self.logits(direction, layer)
        named = torch.zeros(len(logits), dtype=torch.bool)
        named[: len(self.tokenizer)] = True  # embeddings may be padded
        named[[i for i in self.tokenizer.all_special_ids if i < len(logits)]] = False
        places = named.nonzero()[:, 0]
        values, order = logits[places].sort(descending=True, stable=True)
        ordered = [(int(places[i]), float(value)) for i, value in zip(order[:count], values[:count], strict=True)]
        last = [(int(places[i]), float(value)) for i, value in zip(order.flip(0)[:count], values.flip(0), strict=False)]
        return self._decoded(ordered), self._decoded(last[:count])

    def _decoded(self, found: list[tuple[int, float]]) -> list[tuple[str, float]]:
        return [(str(self.tokenizer.decode([i])).strip() or repr(self.tokenizer.decode([i])), v) for i, v in found]


def logit_lens(encoder: Encoder) -> LogitLens | None:
    """Return the lens of an encoder; None if its embeddings have another width than its hidden states."""
    model: Any = encoder.model
    inputs = model.get_input_embeddings().weight.detach()
    found, source = inputs, "input embedding"
    if (files := files_of(getattr(model, "name_or_path", ""))) is not None:
        shape = (inputs.shape[0], encoder.dim)
        for name in HEADS:
            if files.shapes.get(name) == shape:
                found, source = files.read(name).to(inputs.device, inputs.dtype), name
                break
    if found.shape[1] != encoder.dim:
        return None
    return LogitLens(found, source, final_norm(model), len(blocks(model)), encoder.tokenizer)


def final_norm(model: nn.Module) -> nn.Module | None:
    """Return the normalisation whose output is that of the model, outside all blocks; None if there is none."""
    inside = {id(module) for module in blocks(model).modules()}
    seen: list[tuple[nn.Module, Tensor]] = []
    handles = [
        module.register_forward_hook(lambda m, args, output: seen.append((m, output)))
        for module in model.modules()
        if id(module) not in inside and "norm" in type(module).__name__.lower()
    ]
    training = model.training
    ids = torch.zeros(1, 2, dtype=torch.int64, device=next(model.parameters()).device)
    try:
        with torch.inference_mode():
            output = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return next((module for module, found in reversed(seen) if found is output or torch.equal(found, output)), None)

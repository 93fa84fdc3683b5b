"""Encoders that differ from a base by noise of the size of another's change.

Training moves weights in directions that matter for a task. Noise with the same Frobenius norm in every parameter tells
what the size of the change alone does to the representations.
"""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bertft.errors import BertftError
from bertft.models.blocks import blocks, truncate
from bertft.models.devices import in_float64
from bertft.models.encoder import Encoder
from bertft.runs.vocabulary import noise_of


def noise_encoders(base: Encoder, tuned: Mapping[str, Encoder], seed: int) -> dict[str, Encoder]:
    """Return `noise_encoder` of every tuned encoder, by name (`bertft.runs.vocabulary.noise_of`)."""
    return {noise_of(name): noise_encoder(base, encoder, seed, name) for name, encoder in tuned.items()}


def noise_encoder(base: Encoder, tuned: Encoder, seed: int, name: str) -> Encoder:
    """Return a copy of ``base`` with Gaussian noise that has the Frobenius norm of tuned - base in every parameter.

    The noise of a parameter depends on ``seed`` and the parameter's name alone. A parameter that did not change keeps
    its bits. If ``tuned`` has fewer blocks, so has the copy. Takes the memory of one encoder, and of three copies of
    the largest parameter in float64.

    Args:
        base: the encoder before fine-tuning.
        tuned: an encoder with parameters of the same names and shapes.
        seed: of the noise.
        name: the tuned encoder's name, for the copy's own and for errors.

    Raises:
        BertftError: The parameters of the encoders differ in name or shape.
    """
    model = copy.deepcopy(base.model)
    if len(blocks(tuned.model)) < len(blocks(model)):
        truncate(model, len(blocks(tuned.model)))
    changed = dict(tuned.model.named_parameters())
    own = dict(model.named_parameters())
    for key in (*own, *changed):
        shapes = [tuple(found[key].shape) if key in found else "nothing" for found in (own, changed)]
        if shapes[0] != shapes[1]:
            raise BertftError(
                f"noise: {name} must have the base encoder's weights, expected {key} of shape {shapes[0]}, "
                f"found {shapes[1]}"
            )
    with torch.no_grad():
        for key, parameter in own.items():
            _add_noise(parameter, changed[key], seed, key)
    return Encoder(model, base.tokenizer, noise_of(name))


def _add_noise(parameter: nn.Parameter, changed: Tensor, seed: int, key: str) -> None:
    """Add noise with the norm of ``changed`` - ``parameter`` in place."""
    changed = changed.detach().to(parameter.device)
    if torch.equal(changed, parameter.detach()):  # as embeddings beside an adapter: no copies in float64
        return
    before = in_float64(parameter)
    size = _norm(in_float64(changed) - before)
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {key}".encode()))  # it uses 32 bits of a seed
    noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    parameter.copy_(before + (noise * (size / _norm(noise))).to(before.device))


def _norm(values: Tensor) -> float:
    return math.sqrt(float(values.square().sum()))

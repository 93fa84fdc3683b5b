"""Noise of the size of a change."""

from __future__ import annotations

import pytest
import torch

from bertft.errors import BertftError
from bertft.models.blocks import truncate
from bertft.models.encoder import Encoder
from bertft.models.noise import noise_encoder, noise_encoders


def parameters(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().double() for name, tensor in encoder.model.named_parameters()}


@pytest.fixture
def base(tiny_model):
    return Encoder.from_pretrained(str(tiny_model))


def test_noise_has_the_norm_of_the_change_in_every_parameter(base, disturbed):
    tuned = disturbed(0, blocks=(1,))
    before = parameters(base)
    noise = noise_encoder(base, tuned, 3, "t")
    assert noise.name == "noise of t" and noise.tokenizer is base.tokenizer
    moved = 0
    for name, weight in parameters(noise).items():
        change, made = parameters(tuned)[name] - before[name], weight - before[name]
        if "layer.1." in name:
            assert float(made.norm()) == pytest.approx(float(change.norm()), rel=1e-5), name
            cosine = float((made * change).sum() / made.norm() / change.norm())
            assert abs(cosine) < 6 / change.numel() ** 0.5
            moved += 1
        else:
            assert torch.equal(weight, before[name])
    assert moved == 16 and all(torch.equal(parameters(base)[name], weight) for name, weight in before.items())


def test_noise_depends_on_the_seed_and_the_parameter_alone(base, disturbed):
    one, two = disturbed(0, blocks=(1,)), disturbed(0, blocks=(1, 2))
    first, again, other = (parameters(noise_encoder(base, one, seed, "t")) for seed in (1, 1, 2))
    wider = parameters(noise_encoder(base, two, 1, "t"))
    changed = [name for name in first if "layer.1." in name]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in changed)
    key = "encoder.layer.1.output.dense.weight"
    scale = [float((found[key] - parameters(base)[key]).norm()) for found in (first, wider)]
    made = [(found[key] - parameters(base)[key]) / size for found, size in zip((first, wider), scale, strict=True)]
    assert made[0] == pytest.approx(made[1], abs=1e-5)


def test_an_unchanged_encoder_gives_the_bits_of_the_base(base, tiny_model):
    noise = noise_encoders(base, {"same": Encoder.from_pretrained(str(tiny_model))}, 0)["noise of same"]
    assert all(torch.equal(weight, parameters(base)[name]) for name, weight in parameters(noise).items())


def test_noise_for_an_encoder_with_fewer_blocks_has_as_many(base, disturbed):
    tuned = disturbed(0)
    truncate(tuned.model, 2)
    noise = noise_encoder(base, tuned, 0, "t")
    assert noise.num_layers == 3 and base.num_layers == 4


def test_weights_of_another_shape_are_refused(base, disturbed):
    tuned = disturbed(0)
    tuned.model.embeddings.word_embeddings = torch.nn.Embedding(7, 32)
    with pytest.raises(BertftError, match=r"noise: t must have the base encoder's weights, expected emb.* \(7,"):
        noise_encoder(base, tuned, 0, "t")

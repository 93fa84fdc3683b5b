"""Blocks that are frozen, with the parameters that they read."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, save

from bertft.models.blocks import blocks, freeze
from bertft.models.hooks import Stopped, stopping_at
from bertft.models.loading import load_pretrained

IDS = torch.tensor([[5, 9, 11, 7, 6]])


def output_of(model, k: int) -> torch.Tensor:
    with torch.no_grad(), stopping_at(blocks(model)[k - 1]) as outputs, pytest.raises(Stopped):
        model(input_ids=IDS, attention_mask=torch.ones_like(IDS))
    return outputs[0][0] if isinstance(outputs[0], tuple) else outputs[0]


@pytest.mark.parametrize("family", [*FAMILIES, "mpnet"])
def test_output_of_frozen_blocks_does_not_change_in_training(family, tmp_path):
    model = load_pretrained(str(save(family, tmp_path)))[0].eval()
    freeze(model, 1)
    before = output_of(model, 1)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.requires_grad for parameter in blocks(model)[1].parameters())
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(torch.randn_like(parameter))
    assert torch.equal(output_of(model, 1), before)


@pytest.mark.parametrize(
    ("family", "name", "first"), [("mpnet", "relative_attention_bias", 1), ("gpt2", "wpe", 0), ("gpt2", "ln_f", 3)]
)
def test_only_what_a_frozen_layer_depends_on_is_frozen_with_it(family, name, first, tmp_path):
    model = load_pretrained(str(save(family, tmp_path)))[0].train()
    (own,) = (parameter for key, parameter in model.named_parameters() if f"{name}.weight" in key)
    state = torch.get_rng_state()
    for k in range(3):
        freeze(model, k)
        assert own.requires_grad == (k < first)
    assert model.training and all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)

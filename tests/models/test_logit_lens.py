"""The final normalisation and output embedding of a model, against their formulas."""

from __future__ import annotations

import pytest
import torch
from families import save
from safetensors.torch import load_file, save_file

from bertft.models.encoder import Encoder
from bertft.models.logit_lens import final_norm, logit_lens


@pytest.mark.parametrize(
    ("family", "name"),
    [("bert", None), ("deberta-v3", None), ("modernbert", "final_norm"), ("gpt2", "ln_f"), ("llama", "norm")],
)
def test_the_final_normalisation_is_that_of_the_output(family, name, tmp_path):
    model = Encoder.from_pretrained(str(save(family, tmp_path)), device="cpu").model
    assert final_norm(model) is (None if name is None else getattr(model, name))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_direction_passes_through_the_normalisation_below_the_top(family, tmp_path):
    encoder = Encoder.from_pretrained(str(save(family, tmp_path)), device="cpu")
    lens = logit_lens(encoder)
    table = encoder.model.get_input_embeddings().weight.detach().double()
    d = torch.randn(16, generator=torch.Generator().manual_seed(0)).double()
    norm = encoder.model.ln_f if family == "gpt2" else encoder.model.norm
    centred = d - d.mean() if family == "gpt2" else d
    expected = table @ (norm.weight.detach().double() * centred / centred.square().mean().sqrt())
    torch.testing.assert_close(lens.logits(5 * d, 1), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(lens.logits(d, 2), table @ d / d.square().mean().sqrt(), rtol=1e-4, atol=1e-5)
    high, low = lens.tokens(d, 2, 3)
    assert [v for _, v in high] == sorted((v for _, v in high), reverse=True) and low[0][1] < low[2][1] < high[2][1]


def test_an_output_embedding_in_the_files_is_used(tmp_path):
    folder = save("llama", tmp_path)
    weights = load_file(folder / "model.safetensors")
    head = torch.randn(weights["embed_tokens.weight"].shape, generator=torch.Generator().manual_seed(1))
    save_file({**weights, "lm_head.weight": head}, folder / "model.safetensors", {"format": "pt"})
    lens = logit_lens(Encoder.from_pretrained(str(folder), device="cpu"))
    assert lens.source == "lm_head.weight" and torch.equal(lens.embedding, head)
    wrong = {**weights, "lm_head.weight": head[:, :8].contiguous()}
    save_file(wrong, folder / "model.safetensors", {"format": "pt"})
    assert logit_lens(Encoder.from_pretrained(str(folder), device="cpu")).source == "input embedding"

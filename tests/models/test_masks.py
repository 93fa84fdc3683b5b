"""Masks that transformers takes unseen give the same vectors, to the bit."""

from __future__ import annotations

import pytest
import torch
import transformers
from families import SIZES

from bertft.models.masks import PLAIN, ready_mask

IDS = torch.tensor([[5, 6, 7, 8, 9], [5, 6, 7, 1, 1], [8, 9, 1, 1, 1]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])


@pytest.mark.parametrize("kind", sorted(PLAIN))
@torch.no_grad()
def test_a_ready_mask_gives_the_bits_of_the_mask(kind, monkeypatch):
    torch.manual_seed(0)
    sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32} if kind == "distilbert" else SIZES
    config = transformers.AutoConfig.for_model(kind, vocab_size=20, max_position_embeddings=40, **sizes)
    model = transformers.AutoModel.from_config(config).eval()
    expected = model(input_ids=IDS, attention_mask=MASK)[0]
    whole = model(input_ids=IDS, attention_mask=torch.ones_like(IDS))[0]
    ready, none = ready_mask(model, MASK, padded=True), ready_mask(model, MASK, padded=False)
    assert ready.shape == (3, 1, 5, 5) and none is None
    looks = []
    look = torch.Tensor.all
    monkeypatch.setattr(torch.Tensor, "all", lambda *a, **k: looks.append(1) or look(*a, **k))
    assert torch.equal(model(input_ids=IDS, attention_mask=ready)[0], expected)
    assert torch.equal(model(input_ids=IDS, attention_mask=none)[0], whole)
    assert not looks
    model(input_ids=IDS, attention_mask=MASK)
    assert looks  # what the ready mask avoids


def test_other_models_get_the_mask_as_it_is():
    config = transformers.AutoConfig.for_model("modernbert", vocab_size=20, num_hidden_layers=2, **{
        key: value for key, value in SIZES.items() if key != "num_hidden_layers"
    }, pad_token_id=1, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3)  # fmt: skip
    assert ready_mask(transformers.AutoModel.from_config(config), MASK, padded=True) is MASK

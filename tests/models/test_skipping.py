"""First tokens that are left out."""

from __future__ import annotations

import pytest
import torch

from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.models.skipping import first_tokens, is_causal

TEXTS = ["one dog sees a bird", "a", "two birds see one dog near a house"]


@pytest.fixture
def encoder(tiny_model):
    return Encoder.from_pretrained(str(tiny_model))


def decoder(encoder: Encoder, special_first: bool) -> Encoder:
    """Return a tiny GPT-2 with the tiny tokenizer, with or without its special tokens."""
    from tokenizers.processors import TemplateProcessing
    from transformers import GPT2Config, GPT2Model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2Model(GPT2Config(vocab_size=len(encoder.tokenizer), n_positions=16, n_embd=16, n_layer=2, n_head=2))
    if not special_first:
        encoder.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B")
    return Encoder(model, encoder.tokenizer)


def vectors(encoder: Encoder, texts, unit: str, **settings) -> list[torch.Tensor]:
    found: dict[int, list[torch.Tensor]] = {}
    for batch in encoder.stream(texts, unit=unit, **settings):
        for index, part in zip(batch.index.tolist(), batch.vectors.split(batch.lengths.tolist(), dim=1), strict=True):
            found.setdefault(index, []).append(part)
    return [torch.cat(found[i], dim=1) for i in sorted(found)]


@pytest.mark.parametrize("unit", ["token", "word"])
def test_the_first_vectors_are_left_out_and_the_others_keep_their_bits(encoder, unit):
    texts = TEXTS if unit == "token" else [text.split() for text in TEXTS]
    whole = vectors(encoder, texts, unit)
    encoder.skip_first = 1
    rest = vectors(encoder, texts, unit)
    assert [len(v[0]) - len(w[0]) for v, w in zip(whole, rest, strict=True)] == [1, 1, 1]
    for v, w in zip(whole, rest, strict=True):
        assert torch.equal(v[:, 1:], w)


def test_windows_leave_out_the_first_tokens_of_the_text_only(encoder):
    small = decoder(encoder, special_first=False)
    text = " ".join(["a", "dog", "sees", "a", "bird"] * 8)
    whole = vectors(small, [text], "token", window="split")[0]
    small.skip_first = 2
    rest = vectors(small, [text], "token", window="split")[0]
    assert rest.shape[1] == whole.shape[1] - 2 and torch.equal(rest, whole[:, 2:])


def test_auto_leaves_out_a_token_of_a_decoder_without_a_special_token_first(encoder):
    assert not is_causal(encoder) and first_tokens(encoder) == 0
    with_special = decoder(encoder, special_first=True)
    assert is_causal(with_special) and first_tokens(with_special) == 0
    assert first_tokens(decoder(encoder, special_first=False)) == 1


def test_auto_needs_four_ordinary_tokens(encoder, monkeypatch):
    monkeypatch.setattr(type(encoder.tokenizer), "__len__", lambda self: 6)
    with pytest.raises(BertftError, match=r"skip_first: .* has fewer than 4 ordinary tokens; give a number"):
        is_causal(encoder)

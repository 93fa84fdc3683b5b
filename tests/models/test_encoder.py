"""Streamed vectors against plain forward passes.

Freezing, truncating and reinitialising too.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bertft.data import synthetic
from bertft.errors import BertftError
from bertft.models.batching import length_sorted_batches, pool_words, word_pieces
from bertft.models.blocks import blocks, embedding_parameters, freeze, reinitialise, truncate
from bertft.models.encoder import Encoder


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> Encoder:
    return Encoder.from_pretrained(str(tiny_model), device="cpu")


@pytest.fixture(scope="module")
def sentences() -> list[tuple[str, ...]]:
    return [sentence.words for sentence in synthetic.sentences(40, seed=3)]


def gather(batches, count: int) -> dict[int, torch.Tensor]:
    """Return the vectors (L, n, D) of each example by its index."""
    found: dict[int, torch.Tensor] = {}
    for batch in batches:
        assert batch.lengths.dtype == batch.index.dtype == torch.int64
        for index, part in zip(batch.index.tolist(), batch.vectors.split(batch.lengths.tolist(), dim=1), strict=True):
            found[index] = torch.cat([found[index], part], dim=1) if index in found else part
    assert sorted(found) == list(range(count))
    return found


@torch.no_grad()
def plain(encoder: Encoder, words: tuple[str, ...]) -> tuple[torch.Tensor, list[int | None]]:
    """Return all layers (L, P, D) of one sentence from a plain forward pass, and the word of each piece."""
    encoding = encoder.tokenizer(list(words), is_split_into_words=True, return_tensors="pt")
    output = encoder.model(**encoding, output_hidden_states=True)
    return torch.stack(output.hidden_states)[:, 0], encoding.word_ids(0)


def test_word_vector_is_the_mean_of_its_pieces(encoder, sentences):
    found = gather(encoder.stream(sentences, batch_tokens=200), len(sentences))
    several = 0
    for i, words in enumerate(sentences):
        hidden, owner = plain(encoder, words)
        expected = torch.stack(
            [hidden[:, [p for p, w in enumerate(owner) if w == word]].mean(1) for word in range(len(words))], dim=1
        )
        several += len(owner) - 2 - len(words)
        torch.testing.assert_close(found[i], expected, rtol=1e-4, atol=2e-6)
    assert several > 50  # words of several pieces occur


def test_token_vectors_exclude_special_tokens_and_padding(encoder, sentences):
    found = gather(encoder.stream(sentences, unit="token", batch_tokens=300), len(sentences))
    for i, words in enumerate(sentences[:10]):
        hidden, _ = plain(encoder, words)
        torch.testing.assert_close(found[i], hidden[:, 1:-1], rtol=1e-4, atol=2e-6)


def test_texts_and_pairs_have_the_models_own_vectors(encoder):
    texts = ["a cat sat.", "the dogs, however, ran away from it."]
    found = gather(encoder.stream(texts, unit="token"), 2)
    pairs = gather(encoder.stream([(texts[0], texts[1])], unit="token"), 1)
    with torch.no_grad():
        for i, text in enumerate(texts):
            output = encoder.model(**encoder.tokenizer(text, return_tensors="pt"), output_hidden_states=True)
            torch.testing.assert_close(found[i][-1], output.last_hidden_state[0, 1:-1], rtol=1e-4, atol=2e-6)
        encoding = encoder.tokenizer(texts[0], texts[1], return_tensors="pt")
        kept = [p for p, part in enumerate(encoding.sequence_ids(0)) if part is not None]
        output = encoder.model(**encoding)
        torch.testing.assert_close(pairs[0][-1], output.last_hidden_state[0, kept], rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("layers", [[0], [2], [3], [1, 0], [3, 1]])
def test_only_blocks_up_to_the_highest_layer_run(encoder, sentences, layers):
    calls: list[int] = []
    hooks = [len(block._forward_hooks) for block in blocks(encoder.model)]
    handles = [
        block.register_forward_hook(lambda *_, i=i: calls.append(i)) for i, block in enumerate(blocks(encoder.model), 1)
    ]
    try:
        found = gather(encoder.stream(sentences[:5], layers=layers), 5)
    finally:
        for handle in handles:
            handle.remove()
    every = gather(encoder.stream(sentences[:5]), 5)
    for i in range(5):
        assert torch.equal(found[i], every[i][layers])
    assert max(calls, default=0) == max(layers)
    assert [len(block._forward_hooks) for block in blocks(encoder.model)] == hooks  # no hook is left


def test_stream_accepts_an_endless_iterator(encoder):
    def endless():
        while True:
            yield ("the", "cat", "sat")

    batch = next(iter(encoder.stream(endless(), batch_tokens=50, layers=[0])))
    assert batch.vectors.shape == (1, 3 * len(batch.index), 32)


def test_vectors_do_not_depend_on_the_order_of_the_input(encoder, sentences):
    forward = gather(encoder.stream(sentences, batch_tokens=128), len(sentences))
    backward = gather(encoder.stream(sentences[::-1], batch_tokens=500), len(sentences))
    for i in range(len(sentences)):
        torch.testing.assert_close(forward[i], backward[len(sentences) - 1 - i], rtol=1e-4, atol=2e-6)


def test_long_example_is_refused_or_split(encoder):
    long = tuple(["zyx"] * 100)  # three letters, three pieces
    with pytest.raises(BertftError, match="example 1 has 302 pieces, expected at most 128"):
        list(encoder.stream([("a",), long]))
    batches = list(encoder.stream([("a",), long], window="split"))
    assert sum(int(b.lengths.sum()) for b in batches) == 101
    found = gather(batches, 2)
    # a window has room for 126 pieces beside [CLS] and [SEP], which is 42 words
    first = gather(encoder.stream([long[:42]]), 1)[0]
    torch.testing.assert_close(found[1][:, :42], first, rtol=1e-4, atol=2e-6)


def test_word_longer_than_the_window_is_refused(encoder, monkeypatch):
    monkeypatch.setattr(encoder.tokenizer, "model_max_length", 16)
    assert sum(int(b.lengths.sum()) for b in encoder.stream([("a", "zyxzyx")], window="split")) == 2
    with pytest.raises(BertftError, match="example 0 has a word of more than 14 pieces"):
        list(encoder.stream([("a", "zyx" * 5)], window="split"))  # 15 letters, 15 pieces


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "letter"}, 'unit must be "word" or "token"'),
        ({"layers": [4]}, r"layers must be some of 0..3"),
        ({"layers": []}, r"layers must be some of 0..3"),
        ({"window": "cut"}, 'window must be "refuse" or "split"'),
    ],
)
def test_invalid_option_is_named(encoder, options, message):
    with pytest.raises(BertftError, match=message):
        encoder.stream([("a",)], **options)


def test_text_is_refused_as_words_and_beside_words(encoder):
    with pytest.raises(BertftError, match='unit="word" needs word sequences, example 1 is a text'):
        list(encoder.stream([("a", "b"), "a b"]))
    with pytest.raises(BertftError, match="expected examples of one kind"):
        list(encoder.stream([("a", "b", "c"), "a b"], unit="token"))


def test_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(BertftError, match=str(tmp_path)):
        Encoder.from_pretrained(str(tmp_path))


def test_batches_are_sorted_by_length_and_bounded():
    items = [[0] * n for n in (3, 9, 1, 9, 40, 2, 2)]
    batches = list(length_sorted_batches(items, 18))
    assert [[len(item) for item in batch] for batch in batches] == [[40], [9, 9], [3, 2, 2, 1]]


def test_pooling_has_value_and_gradient_of_a_mean():
    slots = torch.tensor([[-1, 0, 0, 1, -1], [-1, 0, 1, 1, 1]])
    pieces, offsets = word_pieces(slots, torch.tensor([2, 2]))
    assert pieces.tolist() == [1, 2, 3, 6, 7, 8, 9] and offsets.tolist() == [0, 2, 3, 4]
    hidden = torch.randn(2, 5, 4, requires_grad=True)
    words = pool_words(hidden, pieces, offsets)
    expected = torch.stack([hidden[0, 1:3].mean(0), hidden[0, 3], hidden[1, 1], hidden[1, 2:5].mean(0)])
    torch.testing.assert_close(words, expected)
    weight = torch.randn_like(words)
    (a,) = torch.autograd.grad((words * weight).sum(), hidden)
    (b,) = torch.autograd.grad((expected * weight).sum(), hidden)
    torch.testing.assert_close(a, b)


def fresh(tiny_model: Path):
    return Encoder.from_pretrained(str(tiny_model), device="cpu").model


@pytest.mark.parametrize("k", [-1, 0, 2, 3])
def test_freeze_stops_gradients_up_to_block_k(tiny_model, k):
    model = freeze(fresh(tiny_model), k)
    assert all(p.requires_grad is (k < 0) for p in embedding_parameters(model))
    for i, block in enumerate(blocks(model), start=1):
        assert all(p.requires_grad is (i > k) for p in block.parameters())


def test_truncated_model_keeps_its_layers_when_saved(tiny_model, encoder, sentences, tmp_path):
    model = truncate(fresh(tiny_model), 2)
    assert model.config.num_hidden_layers == 2 and encoder.model.config.num_hidden_layers == 3
    model.save_pretrained(tmp_path)
    encoder.tokenizer.save_pretrained(tmp_path)
    cut = Encoder.from_pretrained(str(tmp_path), device="cpu")
    assert cut.num_layers == 3
    a = gather(cut.stream(sentences[:3]), 3)
    b = gather(encoder.stream(sentences[:3], layers=[0, 1, 2]), 3)
    for i in range(3):
        torch.testing.assert_close(a[i], b[i])


@pytest.mark.parametrize("call", [lambda m: freeze(m, 4), lambda m: freeze(m, -2), lambda m: truncate(m, 4)])
def test_freeze_and_truncate_refuse_an_absent_block(tiny_model, call):
    with pytest.raises(BertftError, match=r"k must lie in .*\.\.3"):
        call(fresh(tiny_model))


def test_reinitialise_is_seeded_and_does_not_change_the_model(tiny_model):
    model = fresh(tiny_model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(5)
    a = reinitialise(model, 1).state_dict()
    torch.manual_seed(6)
    b, c = reinitialise(model, 1).state_dict(), reinitialise(model, 2).state_dict()
    weight = "encoder.layer.1.output.dense.weight"
    assert all(torch.equal(a[key], b[key]) for key in a) and a.keys() == before.keys()
    assert not torch.equal(a[weight], c[weight]) and not torch.equal(a[weight], before[weight])
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in before)


def test_what_is_tokenised_is_streamed_as_the_examples_are(encoder, sentences):
    texts = [" ".join(words) for words in sentences[:6]]
    for examples, unit in ((sentences[:6], "word"), (sentences[:6], "token"), (texts, "token")):
        encoded = encoder.tokenise(examples, unit)
        assert [item.index for item in encoded] == list(range(6))
        for order in ([0, 1, 2, 3, 4, 5], [5, 2, 0]):  # a place counts among those streamed
            found = gather(encoder.stream([encoded[i] for i in order], unit=unit), len(order))
            expected = gather(encoder.stream([examples[i] for i in order], unit=unit), len(order))
            assert all(torch.equal(found[i], expected[i]) for i in range(len(order)))
    with pytest.raises(BertftError, match="tokenised examples among others"):
        encoder.tokenise([encoded[0], texts[0]], "token")


def test_a_pair_is_never_cut_into_windows(encoder):
    long = " ".join(["word"] * 100)
    (pair,) = encoder.tokenise([(long, long)], "token")
    assert pair.whole and len(pair) > encoder.max_length
    with pytest.raises(BertftError, match=r"example 0 has .* pieces, expected at most"):
        list(encoder.stream([pair], unit="token", window="split"))


def test_encoders_read_alike_whatever_their_tokenizers_last_padded_to(encoder, tiny_model):
    other = Encoder.from_pretrained(str(tiny_model))
    assert other.tokenizer is not encoder.tokenizer and encoder.reads_like(other)
    other.tokenizer(["a", "a b"], padding=True, truncation=True, max_length=8)
    assert encoder.reads_like(other)
    other.tokenizer.add_tokens(["unheard"])
    assert not encoder.reads_like(other)


def test_an_encoder_shows_what_it_is(encoder):
    named = Encoder(encoder.model, encoder.tokenizer, name="<b>")
    count = sum(p.numel() for p in encoder.model.parameters())
    shown = f"Encoder('<b>': bert, 3 blocks of 32 dimensions, {count / 1e3:.3g}k parameters in float32 on cpu)"
    assert repr(named) == shown
    html = named._repr_html_()
    assert "&lt;b&gt;" in html and "<b>" not in html and "<td>bert</td><td>3</td><td>32</td>" in html

"""Windows, the choice of layers and stimuli, and streams side by side."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bertft.data.examples import Text
from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.similarity.compare.stimuli import (
    _windows,
    check_request,
    count_stimuli,
    cut,
    layer_counts,
    shared_layers,
    side_by_side,
    taken,
    token_at,
)


def test_a_window_ends_before_the_word_that_no_longer_fits_one_encoder():
    sizes = np.array([[2, 2, 2, 1], [1, 1, 4, 1]])  # pieces of each word for two encoders
    assert list(_windows(sizes, np.array([6, 6]))) == [(0, 3), (3, 4)]  # exactly full
    assert list(_windows(sizes, np.array([6, 5]))) == [(0, 2), (2, 4)]
    assert list(_windows(sizes, np.array([1, 1]))) == [(0, 1), (1, 2), (2, 3), (3, 4)]  # a word is never cut


def test_layers_are_those_that_every_encoder_has():
    base, deep, flat = (SimpleNamespace(num_layers=n) for n in (4, 7, 2))
    assert layer_counts(base, {"deep": deep, "flat": flat}) == {"deep": (4, 7), "flat": (4, 2)}
    assert layer_counts(base, {"deep": deep}, (0, 3)) == {"deep": (2, 2)}
    assert shared_layers(base, {"deep": deep, "flat": flat}) == {"deep": 4, "flat": 2}
    with pytest.raises(BertftError, match=r"layers must lie in 0\.\.1 for flat, found 2"):
        layer_counts(base, {"deep": deep, "flat": flat}, (0, 2))


def test_texts_are_taken_until_they_hold_the_stimuli():
    encoder = SimpleNamespace(skip_first=0)
    texts = [Text("a", "some words here")] * 300  # of three words each
    for words, count in ((1, 1), (3, 1), (4, 2), (768, 256), (769, 257), (None, 300), (5000, 300)):
        assert len(taken(encoder, iter(texts), tokens=words, unit="word")) == count


def test_words_are_counted_without_the_first_if_an_encoder_skips_it():
    encoder = SimpleNamespace(skip_first=1)
    texts = [Text("a", "some words here"), Text("b", "alone"), ["two", "words"]]
    assert count_stimuli(encoder, texts, "word") == [2, 0, 1]


def test_the_token_of_a_stimulus_is_named(tiny_model, monkeypatch):
    encoder = Encoder.from_pretrained(str(tiny_model))
    text = "the cat sleeps"
    pieces = encoder.tokenizer.tokenize(text)
    assert [token_at(encoder, text, "token", i) for i in range(len(pieces))] == pieces
    assert token_at(encoder, text, "token", len(pieces)) is None
    words = text.split()
    assert [token_at(encoder, words, "word", i) for i in range(4)] == [*words, None]
    encoder.skip_first = 1
    assert token_at(encoder, words, "word", 0) == "cat"
    encoder.skip_first = 0
    monkeypatch.setattr(Encoder, "max_length", len(pieces) + 2)
    assert token_at(encoder, text, "token", 0) == pieces[0]  # fits with both special tokens
    monkeypatch.setattr(Encoder, "max_length", len(pieces) + 1)
    assert token_at(encoder, text, "token", 0) is None


def test_requests_are_checked(tiny_model):
    base = Encoder.from_pretrained(str(tiny_model))
    check_request(base, {"t": base}, 4, "token")
    check_request(base, {"t": base}, None, "word")
    for request, words in (
        (({}, 4, "token"), "no encoder to compare with"),
        (({"t": base}, 3, "token"), "tokens must be at least 4, found 3"),
        (({"t": base}, 4, "letter"), "unit must be token or word, found 'letter'"),
    ):
        with pytest.raises(BertftError, match=words):
            check_request(base, *request)


def batch(index: list[int], lengths: list[int], start: float = 0.0) -> SimpleNamespace:
    """Return a batch in which the vector of stimulus j of text i is (start + i, j)."""
    rows = [(start + i, float(j)) for i, n in zip(index, lengths, strict=True) for j in range(n)]
    vectors = torch.tensor(rows).view(-1, 2)[None]
    return SimpleNamespace(index=torch.tensor(index), lengths=torch.tensor(lengths), vectors=vectors)


def joined(*streams):
    """Return (index, lengths) of what streams give side by side, after checking every vector."""
    found = []
    for index, lengths, spaces in side_by_side([iter(stream) for stream in streams]):
        found.append((index.tolist(), lengths.tolist()))
        for k, space in enumerate(spaces):
            assert torch.equal(space, batch(index.tolist(), lengths.tolist(), 100.0 * k).vectors)
    return found


def test_equal_batches_are_passed_on_and_others_wait_for_each_text():
    first = [batch([0, 1], [2, 1]), batch([2], [3]), batch([4, 3], [1, 2])]
    same = [batch([0, 1], [2, 1], 100), batch([2], [3], 100), batch([4, 3], [1, 2], 100)]
    assert joined(first) == joined(first, same) == [([0, 1], [2, 1]), ([2], [3]), ([4, 3], [1, 2])]
    one_by_one = [batch([i], [n], 100) for i, n in ((1, 1), (0, 2), (2, 3), (3, 2), (4, 1))]
    assert joined(first, one_by_one) == [([1], [1]), ([0], [2]), ([2], [3]), ([3], [2]), ([4], [1])]
    assert joined(first, [batch([4, 3, 2, 1, 0], [1, 2, 3, 1, 2], 100)]) == [
        ([0, 1], [2, 1]), ([2], [3]), ([4, 3], [1, 2])
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ([batch([0, 0, 1], [1, 1, 1], 100)], "a text is longer than the window"),
        ([batch([0, 1], [1, 1], 100)], "split a text into different numbers of stimuli"),
        ([batch([0], [2], 100)], "streams differ in their texts"),
        ([batch([0, 1, 2], [2, 1, 1], 100)], "streams differ in their texts"),
    ],
)
def test_streams_of_different_texts_are_refused(second, words):
    with pytest.raises(BertftError, match=words):
        joined([batch([0, 1], [2, 1])], second)


def test_an_example_is_cut_where_its_stimuli_end():
    index, lengths = torch.tensor([0, 1, 0]), torch.tensor([2, 3, 2])  # text 0 in two windows
    vectors = torch.arange(7.0).view(1, 7, 1)
    for left, kept, rows, rest in (
        ([4, 3], [2, 3, 2], [0, 1, 2, 3, 4, 5, 6], [0, 0]),  # all fit
        ([5, 3], [2, 3, 2], [0, 1, 2, 3, 4, 5, 6], [1, 0]),
        ([3, 1], [2, 1, 1], [0, 1, 2, 5], [0, 0]),
        ([1, 9], [1, 3, 0], [0, 2, 3, 4], [0, 6]),
        ([0, 0], [0, 0, 0], [], [0, 0]),
    ):
        remaining = torch.tensor(left)
        found, (space,) = cut(index, lengths, remaining, [vectors])
        assert found.tolist() == kept and space.flatten().tolist() == rows and remaining.tolist() == rest

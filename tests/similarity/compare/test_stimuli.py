"""Windows, and the choice of layers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from bertft.data.examples import Text
from bertft.errors import BertftError
from bertft.similarity.compare.stimuli import _windows, layer_counts, shared_layers, taken


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

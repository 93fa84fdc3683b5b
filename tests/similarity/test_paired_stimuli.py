"""Drawn stimuli of several encoders: counts, names, batches, and words in context."""

from __future__ import annotations

import pytest
import torch

from bertft.data.examples import Text
from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.similarity.paired_stimuli import Draw, Stimuli

WORDS = [f"{a}{b}" for a in "abcde" for b in "fghijklm"]  # forty different words


@pytest.fixture(scope="module")
def base(tiny_model):
    return Encoder.from_pretrained(str(tiny_model))


@pytest.mark.parametrize("unit", ["word", "token"])
def test_a_stimulus_stands_between_twelve_on_either_side(base, unit):
    stimuli = Stimuli("test", base, {"t": base}, [" ".join(WORDS), "x y z"], Draw(None, unit))
    text = stimuli.names.index("1")
    if unit == "word":
        shown = WORDS
    else:
        ids = base.tokenizer(" ".join(WORDS), add_special_tokens=False)["input_ids"]
        shown = [base.tokenizer.decode([piece]) for piece in ids]
    assert stimuli.counts[text] == len(shown) and len(stimuli) == len(shown) + stimuli.counts[1 - text]
    for at in (0, 1, 11, 12, 13, 20, len(shown) - 13, len(shown) - 12, len(shown) - 1):
        assert stimuli.word(text, at) == shown[at].strip()
        marked = [*shown[max(0, at - 12) : at], f"[{shown[at]}]", *shown[at + 1 : at + 13]]
        found = stimuli.context(text, at)
        assert found.startswith(marked[0][:1]) and f"[{shown[at]}]" in found.replace(" ##", "##")
        if unit == "word":
            assert found == " ".join(marked)


def test_texts_are_named_by_their_id_or_their_place(base):
    texts = [Text("first", "a b c"), "d e f g", Text("", "h i j")]
    stimuli = Stimuli("test", base, {"t": base}, texts, Draw(None))
    assert sorted(stimuli.names) == ["2", "3", "first"]
    words = Stimuli("test", base, {"t": base}, texts, Draw(None, "word"))
    assert dict(zip(words.names, words.counts, strict=True)) == {"first": 3, "2": 4, "3": 3}


def test_batches_have_the_drawn_stimuli_of_every_encoder(base, disturbed):
    tuned = disturbed()
    texts = [" ".join(WORDS[k : k + 5]) for k in range(0, 40, 5)]
    stimuli = Stimuli("test", base, {"t": tuned}, texts, Draw(22, "word", seed=3, batch_tokens=40))
    assert len(stimuli) == 22 and stimuli.counts == [5, 5, 5, 5, 2]
    found: dict[int, list[torch.Tensor]] = {}
    batches = list(stimuli.batches())
    assert len(batches) > 1
    for index, lengths, spaces in batches:
        parts = zip(*(space.split(lengths.tolist(), 1) for space in spaces), strict=True)
        found.update(zip(index.tolist(), parts, strict=True))
    for place, count in enumerate(stimuli.counts):
        words = texts[int(stimuli.names[place]) - 1].split()[:count]  # the last text is cut before it is read
        for encoder, vectors in zip((base, tuned), found[place], strict=True):
            (alone,) = encoder.stream([words], unit="word")
            torch.testing.assert_close(vectors, alone.vectors, rtol=1e-4, atol=1e-5)
    assert sum(stimuli.encoded(tuned)) == 22


def test_two_texts_are_enough_and_one_is_not(base):
    assert len(Stimuli("test", base, {"t": base}, ["a b", "c d"], Draw(None))) == 4
    with pytest.raises(BertftError, match="test: needs at least 2 texts for an interval, found 1"):
        Stimuli("test", base, {"t": base}, ["a b"], Draw(None))


def test_a_text_longer_than_the_window_becomes_several(base):
    long = [f"{a}{b}" for a in "abcdefgh" for b in "abcdefghijklmnopqrst"]
    stimuli = Stimuli("test", base, {"t": base}, [long, WORDS[:3]], Draw(None, "word"))
    assert len(stimuli) == 163 and sorted(set(stimuli.names)) == ["1", "2"] and stimuli.names.count("1") > 1
    parts = [own.parts for own, name in zip(stimuli.inputs, stimuli.names, strict=True) if name == "1"]
    assert [word for part in parts for word in part] == long

"""Text as the world has it: whatever the characters, vectors or one sentence, and never markup in the page."""

from __future__ import annotations

import json

import pytest
import torch

from bertft.data.conllu import read_conllu
from bertft.data.nli import read_nli
from bertft.data.text import read_text
from bertft.encoder import Encoder
from bertft.errors import BertftError
from bertft.report.trees import tree_svg

HOSTILE = {
    "control characters": "a\x00b\x07c\x1b[31m d\x7f",
    "no space in a megabyte": "x" * 1_000_000,
    "right to left": "\u202eשלום עالم\u202c ok",
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301",
    "markup": "<script>alert(1)</script> & <img src=x onerror=alert(2)>",
    "separators": "one\u2028two\u0085three\x0bfour",
    "private use": "\ue000\U0010ffff\ufffe",
}


@pytest.fixture(scope="module")
def encoder(tiny_model):
    return Encoder.from_pretrained(str(tiny_model))


@pytest.mark.parametrize("name", HOSTILE)
def test_any_text_has_finite_vectors(encoder, name):
    text = HOSTILE[name]
    for examples, unit in (([text, "the cat"], "token"), ([("the", text), ("cat", "saw")], "word")):
        count = 0
        for batch in encoder.stream(examples, unit=unit, window="split"):
            assert torch.isfinite(batch.vectors).all()
            count += batch.vectors.shape[1]
        assert count >= 2
        if unit == "word":
            assert count == 4  # a word keeps one vector, whatever its characters


def test_a_lone_surrogate_is_refused_by_name(encoder, tmp_path):
    for examples, unit in ((["bad \ud83d half"], "token"), ([("bad", "\ud83d")], "word")):
        with pytest.raises(BertftError, match="half a character"):
            list(encoder.stream(examples, unit=unit))
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"sentence1": "\ud83d", "sentence2": "b", "gold_label": "neutral"}), encoding="utf8")
    with pytest.raises(BertftError, match="line 1: sentence1 holds half a character"):
        read_nli(path)


def test_lines_end_at_newlines_alone(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join([*HOSTILE.values(), ""]), encoding="utf8")
    assert [text.text for text in read_text(path)] == [text.strip() for text in HOSTILE.values()]
    words = [text for text in HOSTILE.values() if "\t" not in text]
    rows = [f"{i}\t{w}\t_\tX\tX\t_\t{i - 1}\tdep\t_\t_" for i, w in enumerate(words, start=1)]
    (tmp_path / "trees.conllu").write_text("\n".join([*rows, "", ""]), encoding="utf8")
    (sentence,) = read_conllu(tmp_path / "trees.conllu")
    assert list(sentence.words) == words


def test_words_in_a_drawn_tree_are_no_markup():
    import xml.etree.ElementTree as ElementTree

    svg = tree_svg([HOSTILE["markup"], HOSTILE["control characters"], "a"], [0, 1, 2], [2, 0, 1], title="<b>")
    assert "<script" not in svg and "<img" not in svg and "<b>" not in svg
    ElementTree.fromstring(svg)  # control characters have no place in XML at all

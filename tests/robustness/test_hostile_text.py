"""Hostile text.

Any characters give vectors or an error of one sentence, and never markup in the page.
"""

from __future__ import annotations

import functools
import json

import families
import pytest
import torch

from bertft.cli.main import run
from bertft.data.readers.conllu import read_conllu
from bertft.data.readers.nli import read_nli
from bertft.data.readers.text import read_text
from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.report.draw.tree import tree_svg
from bertft.runs.rows import read_results

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
def models(tmp_path_factory):
    return functools.cache(lambda family: families.save(family, tmp_path_factory.mktemp(family)))


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


# No space; a vocabulary of bytes cuts it into some 55,000 pieces, WordPiece into one, [UNK].
ENDLESS = "".join("abcdefghijklmnopqrstuvwxyz"[(i * i + i // 7) % 26] for i in range(60_000))
TREE = [("dogs", 2), ("bark", 0), ("loudly", 2), ("now", 2), ("too", 2)]
REFUSED = (2, "word pieces with its special tokens, expected at most 128")


def _trees(last: str) -> str:
    words = [*TREE[:-1], (last, 2)]
    rows = [f"{i}\t{word}\t_\tX\tX\t_\t{head}\tdep\t_\t_" for i, (word, head) in enumerate(words, start=1)]
    return "\n".join([*rows, "", ""])


@pytest.mark.parametrize("family", ["roberta", "llama"])
@pytest.mark.parametrize(
    ("command", "file", "end"),
    [
        (["finetune", "--task", "dep", "--epochs", "1"], "trees.conllu", REFUSED),
        (["finetune", "--task", "mnli", "--epochs", "1"], "pairs.jsonl", (0, "1 of 4 pairs are longer than 128")),
        (["rsa", "--tokens", "400"], "text.txt", (0, "")),
        (["rsa", "--tokens", "20", "--unit", "word"], "text.txt", (2, "has a word of more than 12")),
        (["probe", "structural", "--epochs", "1"], "trees.conllu", REFUSED),
        (["probe", "structural", "--epochs", "1", "--window", "split"], "trees.conllu", (2, "a word of more than 12")),
    ],
    ids=["parsing", "inference", "rsa of pieces", "rsa of words", "probe", "probe that splits"],
)
def test_a_text_without_a_space_is_split_refused_or_truncated_with_a_warning(
    family, command, file, end, models, tmp_path, capsys
):
    pairs = [{"sentence1": text, "sentence2": "b", "gold_label": "neutral"} for text in ("a", "b", "c", ENDLESS)]
    contents = {
        "trees.conllu": _trees("too") * 3 + _trees(ENDLESS),
        "pairs.jsonl": "\n".join(map(json.dumps, pairs)),
        "text.txt": "\n".join(["dogs bark"] * 3 + [ENDLESS] + ["dogs bark loudly"] * 3),
    }
    path, model = tmp_path / file, str(models(family))
    path.write_text(contents[file], encoding="utf8")
    given = ["--base", model, "--tuned", f"same={model}", "--text", str(path)]
    if command[0] != "rsa":
        given = ["--model", model, "--train", str(path), "--dev", str(path)]
    capsys.readouterr()  # saving the model draws a progress bar
    code = run([*command, *given, "--out", str(tmp_path / "run"), "--quiet"])
    said = capsys.readouterr().err
    assert code == end[0] and end[1] in said, said
    assert len(said.splitlines()) == bool(end[1]) and len(said) < 400
    if command[0] == "rsa" and code == 0:  # the short texts have fewer pieces, so the long one counts
        rows = read_results(tmp_path / "run" / "results.csv")
        assert {row.n for row in rows if row.measure.startswith("rsa_")} == {400}


def test_a_lone_surrogate_is_refused_by_name(encoder, tmp_path):
    for examples, unit in ((["bad \ud83d half"], "token"), ([("bad", "\ud83d")], "word")):
        with pytest.raises(BertftError, match="half a character"):
            list(encoder.stream(examples, unit=unit))
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"sentence1": "\ud83d", "sentence2": "b", "gold_label": "neutral"}), encoding="utf8")
    with pytest.raises(BertftError, match="line 1: sentence1 contains half a character"):
        read_nli(path)


def test_lines_end_only_at_newlines(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join([*HOSTILE.values(), ""]), encoding="utf8")
    assert [text.text for text in read_text(path)] == [text.strip() for text in HOSTILE.values()]
    words = [text for text in HOSTILE.values() if "\t" not in text]
    rows = [f"{i}\t{w}\t_\tX\tX\t_\t{i - 1}\tdep\t_\t_" for i, w in enumerate(words, start=1)]
    (tmp_path / "trees.conllu").write_text("\n".join([*rows, "", ""]), encoding="utf8")
    (sentence,) = read_conllu(tmp_path / "trees.conllu")
    assert list(sentence.words) == words


def test_words_in_a_drawn_tree_are_escaped():
    import xml.etree.ElementTree as ElementTree

    svg = tree_svg([HOSTILE["markup"], HOSTILE["control characters"], "a"], [0, 1, 2], [2, 0, 1], title="<b>")
    assert "<script" not in svg and "<img" not in svg and "<b>" not in svg
    ElementTree.fromstring(svg)  # XML allows no control characters

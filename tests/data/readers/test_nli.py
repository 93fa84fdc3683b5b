"""Natural language inference files of MultiNLI and GLUE."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from bertft.data.examples import Pair
from bertft.data.readers.nli import read_nli, read_nli_counted
from bertft.errors import BertftError

GLUE = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse"
)
GLUE_TRAIN = f"{GLUE}\tsentence1\tsentence2\tlabel1\tgold_label\n"
GLUE_DEV = f"{GLUE}\tsentence1\tsentence2\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n"


def line(**changes: object) -> str:
    record = {"sentence1": "A.", "sentence2": "B.", "gold_label": "neutral", "pairID": "1n", "genre": "x", **changes}
    return json.dumps({k: v for k, v in record.items() if v is not ...}) + "\n"


def read(tmp_path: Path, text: str) -> tuple[list[Pair], int]:
    path = tmp_path / "a.jsonl"
    path.write_text(text, encoding="utf8")
    return read_nli_counted(path)


def test_json_lines_of_multinli_are_read(tmp_path: Path) -> None:
    text = line() + "\n" + line(gold_label="-") + line(sentence1="C\u2028D", gold_label="contradiction", pairID=...)
    pairs, skipped = read(tmp_path, text.replace("\\u2028", "\u2028"))
    assert skipped == 1
    assert pairs == [Pair("1n", "A.", "B.", "neutral"), Pair("4", "C\u2028D", "B.", "contradiction")]
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    assert read_nli(tmp_path / "b.jsonl.gz") == pairs


def test_exports_of_the_hub_are_read(tmp_path: Path) -> None:
    records = [{"premise": "A", "hypothesis": "B", "label": label} for label in (0, 1, 2, -1)]
    pairs, skipped = read(tmp_path, "".join(json.dumps(r) + "\n" for r in records))
    assert [p.label for p in pairs] == ["entailment", "neutral", "contradiction"]
    assert skipped == 1


def test_ids_have_several_names_of_which_the_first_counts(tmp_path: Path) -> None:
    names = ("pairID", "idx", "index", "id")
    for k, name in enumerate(names):
        fields = {other: 10 + place for place, other in enumerate(names[k:])}
        assert read(tmp_path, "  " + line(**{"pairID": ..., **fields}))[0][0].id == "10", name
    assert read(tmp_path, "\n" + line(pairID=None))[0][0].id == "2"  # its line


@pytest.mark.parametrize("label", ["-", "", "hidden", -1])
def test_pairs_without_a_label_are_dropped(tmp_path: Path, label: object) -> None:
    pairs, skipped = read(tmp_path, line(gold_label=label) + line())
    assert (len(pairs), skipped) == (1, 1)


def test_quotation_marks_in_glue_files_are_text(tmp_path: Path) -> None:
    text = GLUE_TRAIN + '0\t3c\t3n\tslate\t(\t)\t(\t)\tHe said "no.\tHe ""agreed.\tneutral\tneutral\n'
    assert read(tmp_path, text) == ([Pair("3n", 'He said "no.', 'He ""agreed.', "neutral")], 0)
    rows = ["entailment"] * 5 + ["entailment"], ["neutral"] * 2 + ["entailment"] * 2 + ["contradiction", "-"]
    text = GLUE_DEV + "".join(
        f"{i}\t3c\t3n\tslate\t(\t)\t(\t)\tA\tB\t" + "\t".join(r) + "\n" for i, r in enumerate(rows)
    )
    pairs, skipped = read(tmp_path, text)
    assert (len(pairs), skipped) == (1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (line() + line()[:30], "line 2: not valid JSON at column"),
        (line() + line(gold_label="maybe"), "line 2: unknown gold_label 'maybe', expected one of entailment, neutral"),
        (line(gold_label=3), "line 1: unknown gold_label '3'"),
        (line(gold_label=True), "line 1: unknown gold_label 'True'"),
        (line(gold_label=["neutral"]), "line 1: unknown gold_label"),
        (line(gold_label=1.0), "line 1: unknown gold_label '1.0'"),
        (line(sentence2=...), "line 1: expected a field sentence2 or hypothesis, found 'sentence1, gold_label"),
        (line(sentence2=None), "line 1: expected a string as sentence2, found nothing"),
        (line(sentence1="\ud800"), "line 1: sentence1 contains half a character"),
        (line() + "[1]\n", "line 2: expected a JSON object, found '[1]'"),
        (line(gold_label="-"), "expected labelled pairs, found 1 without a gold label"),
        ("", "expected labelled pairs, found none"),
        (
            "hello\n",
            "line 1: expected a JSON object or a header of tab-separated columns with sentence1, found 'hello'",
        ),
        (GLUE_TRAIN + "0\tA\tB\n", "line 2: expected 12 columns, found 3"),
        ("sentence1\tsentence2\tgold_label\nA\tB\tno\n", "line 2: unknown gold_label 'no'"),
        ("sentence1\tsentence2\nA\tB\n", "line 1: expected a JSON object or a header"),
    ],
)
def test_every_flaw_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BertftError) as error:
        read(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path / 'a.jsonl'}: {message}")
    assert "\n" not in str(error.value)

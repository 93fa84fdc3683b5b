"""Fuzzed inputs: data or a one-line error from every reader."""

from __future__ import annotations

import dataclasses
import datetime
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bertft.data import synthetic
from bertft.data.datasets import ROW_READERS
from bertft.data.readers.conllu import find_tree_flaw, read_conllu
from bertft.data.readers.nli import LABELS, read_nli
from bertft.data.readers.spans import read_spans
from bertft.data.readers.squad import read_squad
from bertft.data.readers.text import read_text
from bertft.errors import BertftError
from bertft.runs.rows import COLUMNS, Row, read_results, write_results
from bertft.study.reader import read_study

fuzz = settings(
    max_examples=150 if settings.default.derandomize else 300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
READERS: dict[str, Callable[[Path], list[object]]] = {
    "a.conllu": read_conllu,
    "a.jsonl": read_nli,
    "a.tsv": read_nli,
    "a.json": read_squad,
    "a.txt": read_text,
    "spans.jsonl": read_spans,
}
# files of bertft that people edit; they are not read as gzip
OWN: dict[str, Callable[[Path], object]] = {"results.csv": read_results, "study.yaml": read_study}


def attempt(folder: Path, name: str, data: bytes) -> Any:
    """Return what was read, or None after a one-line ``BertftError`` that names the file; anything else fails."""
    path = folder / name
    path.write_bytes(data)
    reader = (READERS | OWN)[name.removesuffix(".gz")]
    try:
        examples = reader(path)
    except BertftError as error:
        assert str(error).startswith(str(path))
        assert len(str(error).splitlines()) == 1
        return None
    assert examples or name == "results.csv"  # a table may have no rows
    return examples


STUDY = """name: s
model: builtin:minilm
seed: 3
tasks:
  mnli: {train: "builtin:synthetic?size=4", dev: "builtin:synthetic?size=4", epochs: 1, learning_rate: 1e-4}
stimuli: {plain: {source: "builtin:synthetic", kind: text, limit: 5}}
rsa: {tokens: 10, metric: cosine}
probes: {train: "builtin:synthetic", dev: "builtin:synthetic", rank: 4}
edge: {arcs: {train: "builtin:synthetic", dev: "builtin:synthetic", steps: 3}}
variants: {small: {rsa: {tokens: 5}}}
"""


def good(name: str) -> bytes:
    """Return a small valid file."""
    if name == "a.conllu":
        lines = []
        for s in synthetic.sentences(3, 0):
            rows = zip(s.words, s.upos, s.xpos, s.heads, s.relations, strict=True)
            lines += [f"{i}\t{w}\t_\t{u}\t{x}\t_\t{h}\t{r}\t_\t_" for i, (w, u, x, h, r) in enumerate(rows, start=1)]
            lines.append("")
        text = "\n".join(lines)
    elif name == "a.jsonl":
        pairs = synthetic.pairs(4, 0)
        rows = [{"sentence1": p.premise, "sentence2": p.hypothesis, "gold_label": p.label} for p in pairs]
        text = "\n".join(map(json.dumps, rows))
    elif name == "a.tsv":
        columns = ("index", "sentence1", "sentence2", "gold_label")
        cells = [(str(i), p.premise, p.hypothesis, p.label) for i, p in enumerate(synthetic.pairs(4, 0))]
        text = "\n".join(map("\t".join, [columns, *cells]))
    elif name == "results.csv":
        text = f'{",".join(COLUMNS)}\nbase,rsa,te""xt,0,x,0.5,0.25,,12,1\n"a,\nb",finetune,t,,f1,50.0,,,,\n'
    elif name == "study.yaml":
        text = STUDY
    elif name == "a.json":
        paragraphs = [
            {
                "context": q.context,
                "qas": [{"id": q.id, "question": q.question, "answers": [{"text": a.text, "answer_start": a.start}]}],
            }
            for q in synthetic.questions(4, 0)
            for a in q.answers
        ]
        text = json.dumps({"version": "1.1", "data": [{"title": "T", "paragraphs": paragraphs}]})
    elif name == "spans.jsonl":
        targets = [{"span1": [0, 2], "span2": [2, 3], "label": "a"}, {"span1": [3, 4], "span2": [0, 1], "label": ["b"]}]
        rows = [{"text": "the old cat slept", "targets": targets[i:]} for i in (0, 1)]
        text = "\n".join(map(json.dumps, rows))
    else:
        text = "one\ntwo\n\nthree"
    return text.encode()


PIECES = st.sampled_from(
    [b"\n", b"\t", b"\r\n", b"{", b'"', b"-1", b"[]", b",", b": ", b"null", b"nan", b"2026-01-01", b"\0"]
)


@pytest.mark.parametrize("name", [*READERS, *OWN])
@fuzz
@given(data=st.data())
def test_damaged_files(name: str, tmp_path: Path, data: st.DataObject) -> None:
    """A valid file with bytes removed, overwritten or inserted, and its gzip form truncated or altered."""
    content = bytearray(good(name))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(at, min(len(content), at + 40)))
        content[at:end] = data.draw(st.binary(max_size=6) | PIECES)
    attempt(tmp_path, name, bytes(content))
    if name in OWN:
        return
    packed = bytearray(gzip.compress(bytes(content), mtime=0))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(0, 255))
    attempt(tmp_path, f"{name}.gz", bytes(packed[: data.draw(st.integers(0, len(packed)))]))


@pytest.mark.parametrize("name", [*READERS, *OWN])
@fuzz
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(lambda s: s.encode("utf8", "surrogatepass")))
def test_any_bytes(name: str, tmp_path: Path, data: bytes) -> None:
    attempt(tmp_path, name, data)


cells = st.one_of(
    st.integers(-2, 6).map(str),
    st.sampled_from(["_", "1-2", "2.1", "", "#", "1.", "-", "٣", "1e3"]),
    st.text(max_size=4),
)


@fuzz
@given(rows=st.lists(st.lists(cells, min_size=9, max_size=11), max_size=5))
def test_any_conllu_cells(tmp_path: Path, rows: list[list[str]]) -> None:
    attempt(tmp_path, "a.conllu", "\n".join("\t".join(row) for row in rows).encode("utf8", "replace"))


@fuzz
@given(heads=st.lists(st.integers(0, 6), min_size=1, max_size=6))
def test_any_heads(tmp_path: Path, heads: list[int]) -> None:
    text = "".join(f"{i}\tw\t_\tX\tX\t_\t{head}\tdep\t_\t_\n" for i, head in enumerate(heads, start=1))
    found = attempt(tmp_path, "a.conllu", text.encode())
    assert (found is not None) == (find_tree_flaw(heads) is None)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 40) | st.floats() | st.text(max_size=5) | st.sampled_from(LABELS),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=6,
)


@fuzz
@given(records=st.lists(st.dictionaries(st.sampled_from(["sentence1", "premise", "label", "gold_label"]), values)))
def test_any_nli_record(tmp_path: Path, records: list[dict[str, object]]) -> None:
    rows = [json.dumps({"hypothesis": "h", "sentence1": "p", "gold_label": "neutral", **record}) for record in records]
    for pair in attempt(tmp_path, "a.jsonl", "\n".join(rows).encode()) or []:
        assert pair.label in LABELS


@fuzz
@given(data=st.data())
def test_any_squad_tree(tmp_path: Path, data: st.DataObject) -> None:
    """A valid tree with one value, at any depth, replaced."""
    tree = json.loads(good("a.json"))
    holder, key = {"root": tree}, "root"
    while data.draw(st.booleans()) and isinstance(holder[key], dict | list) and len(holder[key]):
        holder = holder[key]
        key = (
            data.draw(st.sampled_from(sorted(holder)))
            if isinstance(holder, dict)
            else data.draw(st.integers(0, len(holder) - 1))
        )
    root = {"root": tree}
    replaced = data.draw(values)
    if isinstance(holder, dict) and key == "root":
        root["root"] = replaced
    else:
        holder[key] = replaced
    for question in attempt(tmp_path, "a.json", json.dumps(root["root"]).encode()) or []:
        for answer in question.answers:
            assert question.context[answer.start : answer.start + len(answer.text)] == answer.text  # type: ignore


@fuzz
@given(data=st.data())
def test_any_span_record(tmp_path: Path, data: st.DataObject) -> None:
    """A valid record with one value, at any depth, replaced."""
    record = json.loads(good("spans.jsonl").splitlines()[0])
    target = record["targets"][0]
    holder: dict[str, object] = data.draw(st.sampled_from([record, target]))
    holder[data.draw(st.sampled_from(sorted([*holder, "info"])))] = data.draw(values)
    for text in attempt(tmp_path, "spans.jsonl", json.dumps(record).encode()) or []:
        for found in text.targets:
            for first, end in filter(None, (found.first, found.second)):
                assert 0 <= first < end <= len(text.words)


@fuzz
@given(
    rows=st.lists(
        st.lists(st.sampled_from(["", "a", "neutral", "-", "0", '"', "\r"]) | st.text(max_size=4), max_size=5)
    )
)
def test_any_tsv_cells(tmp_path: Path, rows: list[list[str]]) -> None:
    text = "\n".join("\t".join(row) for row in [["sentence1", "sentence2", "gold_label"], *rows])
    for pair in attempt(tmp_path, "a.tsv", text.encode("utf8", "surrogatepass")) or []:
        assert pair.label in LABELS


# Rows of data sets: the columns of sets on the hub, each with its value replaced or removed.
ROWS: dict[str, dict[str, object]] = {
    "dep": {"tokens": ["dogs", "bark"], "head": ["2", "0"], "deprel": ["nsubj", "root"], "upos": ["NOUN", "VERB"],
            "xpos": None, "sent_id": "x", "idx": "1"},
    "nli": {"premise": "a", "hypothesis": "b", "label": 1, "idx": 4},
    "qa": {"id": "q", "question": "who?", "context": "dogs bark", "answers": {"text": ["dogs"], "answer_start": [0]}},
    "text": {"text": "a line", "sentence": "another"},
    "spans": {"text": "the old cat", "targets": [{"span1": [0, 1], "span2": [1, 2], "label": "a"}]},
}  # fmt: skip


@pytest.mark.parametrize("kind", ROWS)
@fuzz
@given(data=st.data())
def test_any_row_of_a_data_set(kind: str, data: st.DataObject) -> None:
    row = json.loads(json.dumps(ROWS[kind]))
    for _ in range(data.draw(st.integers(0, 2))):
        holder, key = row, data.draw(st.sampled_from(sorted(row)))
        while isinstance(holder[key], dict | list) and len(holder[key]) and data.draw(st.booleans()):
            holder = holder[key]
            keys = sorted(holder) if isinstance(holder, dict) else range(len(holder))
            key = data.draw(st.sampled_from(keys))
        holder[key] = data.draw(values | st.sampled_from(["2", "_", "٣", "1" * 20, "\ud800", [[]], {}]))
    try:
        example = ROW_READERS[kind](row, "set: row 3", "3")
    except BertftError as error:
        assert str(error).startswith("set: row 3") and len(str(error).splitlines()) == 1
        return
    json.dumps(dataclasses.asdict(example) if example else None, ensure_ascii=False).encode("utf8")  # text is text
    if kind == "dep":
        assert find_tree_flaw(example.heads) is None and len(example.words) == len(example.heads)  # type: ignore


def test_a_line_break_in_a_key_of_a_study_does_not_break_the_error(tmp_path: Path) -> None:
    for tree in ({"probes": {"\r": None}}, {"tasks": {"a\nb": {"epochs": "x"}}}, {"a\nb": 1}):
        text = yaml.safe_dump(yaml.safe_load(STUDY) | tree)
        assert attempt(tmp_path, "study.yaml", text.encode()) is None


@fuzz
@given(data=st.data())
def test_any_value_in_a_study(tmp_path: Path, data: st.DataObject) -> None:
    tree = yaml.safe_load(STUDY)
    holder, key = tree, data.draw(st.sampled_from(sorted(tree)))
    while isinstance(holder[key], dict) and len(holder[key]) and data.draw(st.booleans()):
        holder = holder[key]
        key = data.draw(st.sampled_from(sorted(holder)))
    dates = st.sampled_from(
        [datetime.date(2026, 1, 1), b"bytes", {1: 2}, {None: 1}, ["a"], float("nan"), "a\0b", "~x/y"]
    )
    holder[data.draw(st.sampled_from([key, "seed", 7]))] = data.draw(values | dates)
    attempt(tmp_path, "study.yaml", yaml.safe_dump(tree, allow_unicode=True).encode("utf8", "surrogatepass"))


cell = st.none() | st.integers(-(2**70), 2**70)
number = st.floats(allow_nan=False, allow_infinity=False)


@fuzz
@given(
    rows=st.lists(st.tuples(*[st.text(max_size=6)] * 3, cell, st.text(max_size=6), number, number, number, cell, cell))
)
def test_any_table_of_results_reads_back_equal(tmp_path: Path, rows: list[tuple[Any, ...]]) -> None:
    table = [Row(*row) for row in rows]
    write_results(tmp_path / "results.csv", table)
    assert read_results(tmp_path / "results.csv") == table


@pytest.mark.parametrize("name", READERS)
def test_empty_files(name: str, tmp_path: Path) -> None:
    for content in (b"", b"\n", b"\n\n \n", b"[]", b"{}"):
        if content in (b"[]", b"{}") and name == "a.txt":
            continue  # text
        assert attempt(tmp_path, name, content) is None
        assert attempt(tmp_path, f"{name}.gz", gzip.compress(content)) is None


@pytest.mark.slow
def test_new_random_inputs() -> None:
    """Run this file again with more examples and another random seed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", __file__, "-p", "no:cacheprovider"],
        env={**os.environ, "BERTFT_FUZZ": "random"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:]

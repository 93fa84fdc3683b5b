"""Whatever the bytes, a reader gives data or one sentence."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bertft.data import synthetic
from bertft.data.conllu import find_tree_flaw, read_conllu
from bertft.data.nli import LABELS, read_nli
from bertft.data.spans import read_spans
from bertft.data.squad import read_squad
from bertft.data.text import read_text
from bertft.errors import BertftError

fuzz = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
READERS: dict[str, Callable[[Path], list[object]]] = {
    "a.conllu": read_conllu,
    "a.jsonl": read_nli,
    "a.json": read_squad,
    "a.txt": read_text,
    "spans.jsonl": read_spans,
}


def attempt(folder: Path, name: str, data: bytes) -> list[object] | None:
    """The examples, None after a ``BertftError`` of one line that names the file; anything else fails the test."""
    path = folder / name
    path.write_bytes(data)
    reader = READERS[name.removesuffix(".gz")]
    try:
        examples = reader(path)
    except BertftError as error:
        assert str(error).startswith(str(path))
        assert len(str(error).splitlines()) == 1
        return None
    assert examples
    return examples


def good(name: str) -> bytes:
    """A small valid file."""
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


@pytest.mark.parametrize("name", READERS)
@fuzz
@given(data=st.data())
def test_damaged_files(name: str, tmp_path: Path, data: st.DataObject) -> None:
    """A valid file with bytes cut out, overwritten or put in, and its gzip form cut or altered."""
    content = bytearray(good(name))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(at, min(len(content), at + 40)))
        content[at:end] = data.draw(st.binary(max_size=6) | st.sampled_from([b"\n", b"\t", b"\r\n", b"{", b'"', b"-1"]))
    attempt(tmp_path, name, bytes(content))
    packed = bytearray(gzip.compress(bytes(content), mtime=0))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(0, 255))
    attempt(tmp_path, f"{name}.gz", bytes(packed[: data.draw(st.integers(0, len(packed)))]))


@pytest.mark.parametrize("name", READERS)
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
        assert pair.label in LABELS  # type: ignore[attr-defined]


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
        for answer in question.answers:  # type: ignore[attr-defined]
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
        for found in text.targets:  # type: ignore[attr-defined]
            for first, end in filter(None, (found.first, found.second)):
                assert 0 <= first < end <= len(text.words)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", READERS)
def test_empty_files(name: str, tmp_path: Path) -> None:
    for content in (b"", b"\n", b"\n\n \n", b"[]", b"{}"):
        if content in (b"[]", b"{}") and name == "a.txt":
            continue  # text
        assert attempt(tmp_path, name, content) is None
        assert attempt(tmp_path, f"{name}.gz", gzip.compress(content)) is None

"""Loading of examples from every kind of source."""

from __future__ import annotations

import shutil
from pathlib import Path

import datasets
import huggingface_hub
import pytest

from bertft.data import location, synthetic
from bertft.data.examples import Answer, Pair, Question, Sentence
from bertft.data.readers.conllu import write_conllu
from bertft.data.sources import load
from bertft.errors import BertftError

UD = {
    "idx": ["w-1", "w-2"],
    "tokens": [["Don't", "Do", "n't", "go"], ["Go"]],
    "upos": [["_", "AUX", "PART", "VERB"], ["VERB"]],
    "xpos": [["_", "VB", "RB", "VB"], ["VB"]],
    "head": [["None", "3", "3", "0"], ["0"]],
    "deprel": [["_", "aux", "advmod", "root"], ["root"]],
}
NLI = {"premise": ["A", "B", "C"], "hypothesis": ["D", "E", "F"], "label": [0, 2, -1], "pairID": ["1e", "2c", "3n"]}
SQUAD = {
    "id": ["q1"],
    "title": ["T"],
    "context": ["Rome fell."],
    "question": ["What fell?"],
    "answers": [{"text": ["Rome"], "answer_start": [0]}],
}


def nli_table() -> datasets.Dataset:
    labels = datasets.ClassLabel(names=["entailment", "neutral", "contradiction"])
    return datasets.Dataset.from_dict(NLI).cast_column("label", labels)


def ud_table() -> datasets.Dataset:
    names = ["NOUN", "AUX", "_", "PART", "VERB"]
    rows = {**UD, "upos": [[names.index(u) for u in row] for row in UD["upos"]]}
    table = datasets.Dataset.from_dict(rows)
    return table.cast_column("upos", datasets.List(datasets.ClassLabel(names=names)))


def test_a_limit_samples_a_file_and_keeps_the_order(tmp_path: Path) -> None:
    path = tmp_path / "a.conllu.gz"
    made = synthetic.sentences(30, 0)
    write_conllu(path, made)
    assert load("dep", path) == load("dep", str(path), split="dev") == made
    few = load("dep", path, limit=7, seed=3)
    assert few == load("dep", path, limit=7, seed=3) != load("dep", path, limit=7, seed=4)
    assert [made.index(s) for s in few] == sorted(made.index(s) for s in few)
    assert load("dep", path, limit=99) == made


def test_synthetic_sources_take_their_options_from_the_name() -> None:
    assert load("dep", "builtin:synthetic?size=5&seed=2") == synthetic.sentences(5, 2)
    assert load("dep", "builtin:synthetic?size=5", seed=2) == synthetic.sentences(5, 2)
    assert load("nli", "builtin:synthetic?split=dev&size=5") == synthetic.pairs(5, 0, split="dev")
    assert load("qa", "builtin:synthetic?size=5", split="test") == synthetic.questions(5, 0, split="test")
    assert load("qa", "builtin:synthetic?size=5&events=2") == synthetic.questions(5, 0, events=2)
    assert len(load("text", "builtin:synthetic?split=dev")) == 200
    assert len(load("text", "builtin:synthetic?split=dev", limit=3)) == 3


@pytest.mark.parametrize(
    ("kind", "source", "options", "message"),
    [
        ("tree", "x.conllu", {}, "unknown kind of data 'tree', expected one of dep, nli, qa, text"),
        ("dep", "nope.conllu", {}, "nope.conllu: no such file"),
        ("dep", "a/b/c", {}, "a/b/c: no such file"),
        ("dep", "/nope", {}, "/nope: no such file"),
        ("dep", Path("nope"), {}, "nope: no such file"),
        ("dep", "a\0b", {}, "source: expected a path or a data set id"),
        ("dep", "x.conllu", {"limit": 0}, "limit: expected a positive number of examples or none, found '0'"),
        ("dep", "x.conllu", {"limit": True}, "limit: expected a positive number"),
        ("dep", "builtin:english", {}, "unknown built-in data 'builtin:english', expected builtin:synthetic"),
        ("dep", "builtin:synthetic?n=3", {}, "builtin:synthetic?n=3: unknown option 'n', expected split, size or seed"),
        (
            "dep",
            "builtin:synthetic?events=2",
            {},
            "builtin:synthetic?events=2: unknown option 'events', expected split, size or seed",
        ),
        ("qa", "builtin:synthetic?n=3", {}, "builtin:synthetic?n=3: unknown option 'n', expected split, size, seed or"),
        ("qa", "builtin:synthetic?events=two", {}, "builtin:synthetic?events=two: events: expected a whole number"),
        ("dep", "builtin:synthetic?size=many", {}, "builtin:synthetic?size=many: size: expected a whole number"),
        ("dep", "builtin:synthetic?size=0", {}, "builtin:synthetic?size=0: size: expected at least 1, found 0"),
        ("dep", "builtin:synthetic?seed=-1", {}, "builtin:synthetic?seed=-1: seed: expected a whole number"),
        ("dep", "builtin:synthetic", {"split": "training"}, "builtin:synthetic: unknown split 'training'"),
    ],
)
def test_a_bad_source_is_refused_in_one_sentence(
    kind: str, source: str | Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(BertftError) as error:
        load(kind, source, **options)  # type: ignore[arg-type]
    assert str(error.value).startswith(message)


def test_saved_data_sets_of_every_kind_are_read(tmp_path: Path) -> None:
    nli_table().save_to_disk(tmp_path / "nli")
    expected = [Pair("1e", "A", "D", "entailment"), Pair("2c", "B", "E", "contradiction")]
    assert load("nli", tmp_path / "nli") == expected
    datasets.DatasetDict({"train": ud_table(), "dev": ud_table().select([1])}).save_to_disk(tmp_path / "ud")
    first, second = load("dep", tmp_path / "ud")
    words, tags = ("Do", "n't", "go"), ("AUX", "PART", "VERB")
    assert first == Sentence("w-1", words, (3, 3, 0), ("aux", "advmod", "root"), tags, ("VB", "RB", "VB"))
    assert load("dep", str(tmp_path / "ud"), split="dev") == [second]
    datasets.Dataset.from_dict(SQUAD).save_to_disk(tmp_path / "squad")
    assert load("qa", tmp_path / "squad") == [Question("q1", "What fell?", "Rome fell.", (Answer("Rome", 0),))]
    datasets.Dataset.from_dict({"text": ["", " one ", "two\n"]}).save_to_disk(tmp_path / "text")
    assert [(t.id, t.text) for t in load("text", tmp_path / "text")] == [("1", "one"), ("2", "two")]


def test_a_bad_folder_is_refused_in_one_sentence(tmp_path: Path) -> None:
    def message(kind: str, table: dict[str, list[object]] | None = None, **options: object) -> str:
        folder = tmp_path / "folder"
        if table is not None:
            shutil.rmtree(folder, ignore_errors=True)
            datasets.Dataset.from_dict(table).save_to_disk(folder)
        with pytest.raises(BertftError) as error:
            load(kind, folder, **options)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)
        return str(error.value).removeprefix(f"{folder}: ")

    (tmp_path / "folder").mkdir()
    assert message("nli").startswith("expected a file or a folder written by datasets' save_to_disk")
    assert message("nli", {"text": ["a"]}) == "row 0: expected a field sentence1 or premise, found 'text'"
    assert message("dep", {"text": ["a"]}) == "row 0: expected a column tokens, found text"
    assert message("text", {"words": ["a"]}) == "row 0: expected a column text or sentence, found words"
    assert message("qa", {**SQUAD, "answers": [{"text": [], "answer_start": []}]}).startswith(
        "row 0: question 'q1' has"
    )
    wrong = {**SQUAD, "answers": [{"text": ["Rome"], "answer_start": [1]}]}
    assert message("qa", wrong) == "row 0: question 'q1': expected the answer 'Rome' at offset 1, found 'ome '"
    assert message("dep", {**UD, "head": [["None", "3", "3", "0"], ["1"]]}).startswith(
        "row 1: word 1: the sentence has no"
    )
    assert (
        message("dep", {**UD, "head": [["None", "3", "x", "0"], ["0"]]})
        == "row 0: expected an integer as head, found 'x'"
    )
    assert message("dep", {**UD, "head": [["3"], ["0"]]}).startswith("row 0: expected tokens, head, deprel")
    assert message("text", {"text": ["", " "]}) == "expected examples, found none in 2 rows"
    for path in (tmp_path / "folder").glob("*.arrow"):
        path.write_bytes(b"damaged")
    assert message("text").startswith("cannot be loaded as a saved data set (")
    datasets.DatasetDict({"train": ud_table()}).save_to_disk(tmp_path / "splits")
    with pytest.raises(BertftError, match="splits: no split 'dev', found train"):
        load("dep", tmp_path / "splits", split="dev")


def test_hub_ids_give_name_configuration_and_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fake(path: str, name: str | None = None, *, split: str, revision: str | None) -> datasets.Dataset:
        asked.append((path, name, split, revision))
        return nli_table()

    monkeypatch.setattr(datasets, "load_dataset", fake)
    monkeypatch.setattr(location, "hub_within_reach", lambda: True)
    assert [p.label for p in load("nli", "nyu-mll/multi_nli")] == ["entailment", "contradiction"]
    load("nli", "nyu-mll/glue:mnli", split="validation_matched")
    load("nli", "nyu-mll/glue@refs/convert/parquet:mnli")
    assert asked == [
        ("nyu-mll/multi_nli", None, "train", None),
        ("nyu-mll/glue", "mnli", "validation_matched", None),
        ("nyu-mll/glue", "mnli", "train", "refs/convert/parquet"),
    ]


def test_a_local_path_takes_precedence_over_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("squad").write_text("one\n")
    assert [t.text for t in load("text", "squad")] == ["one"]


def test_an_unreachable_hub_is_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def message() -> str:
        with pytest.raises(BertftError) as error:
            load("nli", "nobody/nothing:x")
        assert "\n" not in str(error.value)
        expected = "nobody/nothing:x: no such file, and not available as a hub data set, split train ("
        assert str(error.value).startswith(expected)
        return str(error.value).removeprefix(expected)

    def fail(*_: object, **__: object) -> None:
        raise KeyError("first\nsecond")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    assert message() == "the hub cannot be reached)"  # HF_HUB_OFFLINE is set for all tests
    (tmp_path / "nobody___nothing").mkdir()
    assert message() == "'first\\nsecond')"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr(location, "getproxies", dict)
    monkeypatch.setattr(location.socket, "getaddrinfo", lambda *_: fail_to_resolve())
    assert message() == "'first\\nsecond')"
    (tmp_path / "nobody___nothing").rmdir()
    assert message() == "the hub cannot be reached)"
    monkeypatch.setattr(location.socket, "getaddrinfo", lambda *_: [])
    assert message() == "'first\\nsecond')"


def fail_to_resolve() -> None:
    raise OSError("no such host")

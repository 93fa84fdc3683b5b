"""Saved data sets and data sets of the hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertft.data.examples import Example, Question, Sentence, Text
from bertft.data.files import check_text, first_line, shorten
from bertft.data.location import Source
from bertft.data.readers.conllu import find_tree_flaw
from bertft.data.readers.nli import pair_of
from bertft.data.readers.spans import span_text_of
from bertft.data.readers.squad import question_of
from bertft.data.sampling import sample
from bertft.errors import BertftError
from bertft.runs.extras import need
from bertft.runs.progress import downloading, waiting

if TYPE_CHECKING:
    import datasets

_SAVED = ("dataset_dict.json", "state.json")


def is_saved(path: Path) -> bool:
    """Return whether a folder was written by ``save_to_disk`` of ``datasets``."""
    return any((path / name).is_file() for name in _SAVED)


def load_folder(path: Path, split: str | None) -> datasets.Dataset:
    """Return the data set saved in a folder; ``split`` (default ``train``) chooses one if it holds several."""
    if not is_saved(path):
        raise BertftError(
            f"{path}: expected a file or a folder written by datasets' save_to_disk, found another folder"
        )
    need("data", f"{path}: a saved data set")
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # datasets and pyarrow raise a dozen unrelated types for a damaged folder
        raise BertftError(f"{path}: cannot be loaded as a saved data set ({first_line(error)})") from None
    if not isinstance(loaded, datasets.DatasetDict):
        return loaded
    split = split or "train"
    if split not in loaded:
        raise BertftError(f"{path}: no split {shorten(split)}, found {', '.join(map(str, loaded))}")
    return loaded[split]


def load_hub(source: Source, split: str, *, streaming: bool = False) -> Any:
    """Return a data set of the hub: a ``datasets.Dataset``, or an ``IterableDataset`` if ``streaming``."""
    name, cached = source.hub, source.cached()
    assert name is not None
    need("data", f"{name}: no such file; a data set of the hub")
    import datasets

    try:
        if not source.reachable():
            raise ConnectionError("the hub cannot be reached")
        if streaming:
            with waiting(f"open {name}"):
                return datasets.load_dataset(name.id, name.config, split=split, revision=name.revision, streaming=True)
        with waiting(f"read {name}") if cached else downloading(f"{name} from the Hugging Face hub"):
            return datasets.load_dataset(name.id, name.config, split=split, revision=name.revision)
    except Exception as error:  # network, hub, cache and format errors share no base class
        raise BertftError(
            f"{name}: no such file, and not available as a hub data set, split {split} ({first_line(error)})"
        ) from None


def rows_of(kind: str, table: datasets.Dataset, source: str, limit: int | None, seed: int) -> list[Example]:
    """Return ``limit`` rows of a table as examples, sampled with ``seed``; only the sampled rows are read."""
    import datasets

    kept = sample(range(len(table)), limit, seed)
    named = {name: f for name, f in table.features.items() if isinstance(_element(f), datasets.ClassLabel)}
    examples = []
    for i, row in zip(kept, table.select(kept), strict=True):
        for name, feature in named.items():
            row[name] = _class_names(row[name], _element(feature))
        if (example := ROW_READERS[kind](row, f"{source}: row {i}", str(i))) is not None:
            examples.append(example)
    if not examples:
        raise BertftError(f"{source}: expected examples, found none in {len(table)} rows")
    return examples


def stream_rows(kind: str, table: Iterable[dict[str, object]], source: str) -> Iterator[Example]:
    """Yield the rows of a table as examples, one at a time. A class label is replaced by its name."""
    features = getattr(table, "features", None) or {}
    names = {column: feature.int2str for column, feature in features.items() if hasattr(feature, "int2str")}
    rows = iter(table)
    for i in range(2**63):
        try:
            row = dict(next(rows))
        except StopIteration:
            return
        except Exception as error:  # network and format errors of the hub's streams share no base class
            raise BertftError(f"{source}: row {i} cannot be read ({first_line(error)})") from None
        for column, name_of in names.items():
            value = row[column]
            row[column] = name_of(value) if isinstance(value, int) and value >= 0 else value
        if (example := ROW_READERS[kind](row, f"{source}: row {i}", str(i))) is not None:
            yield example


def _element(feature: object) -> object:
    return getattr(feature, "feature", feature)


def _class_names(value: object, feature: datasets.ClassLabel) -> object:
    if isinstance(value, list):
        return [_class_names(v, feature) for v in value]
    return feature.names[value] if isinstance(value, int) and 0 <= value < feature.num_classes else value


def _column(row: Mapping[str, object], names: Sequence[str], where: str) -> object:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    raise BertftError(f"{where}: expected a column {' or '.join(names)}, found {', '.join(row)}")


def _dep_row(row: Mapping[str, object], where: str, identifier: str) -> Sentence:
    columns: list[Any] = [_column(row, (name,), where) for name in ("tokens", "head", "deprel", "upos")]
    if isinstance(columns[0], list):
        columns.append(row.get("xpos") or ["_"] * len(columns[0]))
    if not all(isinstance(c, list) and len(c) == len(columns[0]) for c in columns):
        raise BertftError(f"{where}: expected tokens, head, deprel, upos and xpos to be lists of one length")
    words, heads = list[str](), list[int]()
    relations, upos, xpos = list[str](), list[str](), list[str]()
    for word, head, relation, u, x in zip(*columns, strict=True):
        if str(head) in ("None", "_"):  # the line of a multiword token or of an empty node
            continue
        if not re.fullmatch(r"\d{1,9}", str(head), re.ASCII):
            raise BertftError(f"{where}: expected an integer as head, found {shorten(head)}")
        words.append(check_text(word, "token", where))
        heads.append(int(head))
        for column, cell, name in ((relations, relation, "deprel"), (upos, u, "upos"), (xpos, x, "xpos")):
            column.append(check_text(str(cell), name, where))
    if (flaw := find_tree_flaw(heads)) is not None:
        raise BertftError(f"{where}: word {flaw[0] + 1}: {flaw[1]}")
    identifier = check_text(str(row.get("sent_id") or row.get("idx") or identifier), "sent_id", where)
    return Sentence(identifier, tuple(words), tuple(heads), tuple(relations), tuple(upos), tuple(xpos))


def _qa_row(row: Mapping[str, object], where: str, identifier: str) -> Question:
    answers: Any = _column(row, ("answers",), where)
    if isinstance(answers, Mapping):  # two parallel lists instead of SQuAD's list of objects
        texts, starts = answers.get("text"), answers.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise BertftError(f"{where}: expected answers with lists text and answer_start of one length")
        answers = [{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True)]
    if not isinstance(answers, list):
        raise BertftError(f"{where}: expected answers, found {shorten(answers)}")
    context = check_text(_column(row, ("context",), where), "context", where)
    return question_of(check_text(str(row.get("id") or identifier), "id", where), row, context, answers, where)


def _text_row(row: Mapping[str, object], where: str, identifier: str) -> Text | None:
    text = check_text(_column(row, ("text", "sentence"), where), "text", where).strip()
    return Text(identifier, text) if text else None


ROW_READERS: dict[str, Callable[[Mapping[str, object], str, str], Example | None]] = {
    "dep": _dep_row,
    "nli": lambda row, where, identifier: pair_of(row, where, identifier),
    "qa": _qa_row,
    "text": _text_row,
    "spans": lambda row, where, identifier: span_text_of(row, identifier, where),
}
"""Readers of one row by kind, called with the row, the opening of an error's sentence, and a fallback id."""

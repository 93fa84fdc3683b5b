"""The command ``bertft diff`` and the function `bertft.diff`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from bertft.data.examples import Text
from bertft.data.location import encoder_name, pin
from bertft.data.streams import Stream, stream
from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.models.skipping import first_tokens
from bertft.report.figure import Figure, HeatMap
from bertft.report.findings import cost
from bertft.report.lines import Context, context
from bertft.report.page.answer import Answer, Said
from bertft.report.page.direction_words import read_ends
from bertft.report.write import write_report
from bertft.runs import process
from bertft.runs.digests import digest_of_json
from bertft.runs.folder import CONFIG, LOCK, RUN, RunFolder, timestamp
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row, Rows, merge_rows
from bertft.runs.settings import check
from bertft.runs.units import duration, size
from bertft.runs.versions import versions
from bertft.runs.vocabulary import BASE, RANDOM, is_noise
from bertft.study.analysis import check_folder, open_folder
from bertft.study.diff.cost import fits_only_in_turn, forecast
from bertft.study.diff.in_turn import FOLDER, released_base
from bertft.study.diff.models import Compared, base_and_tuned, compared, load_encoder
from bertft.study.diff.parts import PARTS, read_words
from bertft.study.diff.result import Difference
from bertft.study.diff.settings import DiffCommand
from bertft.study.diff.verdict import MOST, Found, answer, at_most
from bertft.study.inputs import pinned_models
from bertft.study.provenance import SOURCES

__all__ = ["base_and_tuned", "diff", "forecast", "is_diff", "redraw", "run_diff"]

Model: TypeAlias = str | os.PathLike[str] | Encoder
FIGURE = "rsa_by_layer"


def diff(
    base: Model,
    tuned: Model | Sequence[Model] | Mapping[str, Model] | None = None,
    text: str | Sequence[str] | None = None,
    *,
    tokens: int | None = 5000,
    unit: str = "token",
    dtype: str = "float32",
    seed: int = 1337,
    out: str | os.PathLike[str] | None = None,
    progress: Progress = SILENT,
) -> Difference:
    """Return what changed from ``base`` to ``tuned``: where, which words, which weights.

    Args:
        base: the model to compare with: a folder, a Hugging Face id, a PEFT adapter, or an `Encoder`. An adapter may
            stand alone: it is then compared with the base that it names.
        tuned: one model, several, or several by name.
        text: texts, or a source as in `bertft.data.load`; by default English prose that comes with Python.
        tokens: number of stimuli, drawn with ``seed`` in whole texts; None takes the whole text.
        unit: ``token``, or ``word`` for models with different tokenizers.
        dtype: precision in which models are loaded: float32, bfloat16 or float16.
        seed: of the order of texts and of the sample behind the intervals.
        out: run folder. It gets results.csv, config.yaml, figures and a page, and an interrupted diff resumes in it.
            Without it nothing is written.
        progress: receives steps and messages.

    Returns:
        Rows, a verdict in words, a figure; a notebook shows all three.

    Raises:
        BertftError: The models cannot be loaded, or cannot be compared on the text.
    """
    first, others = _named(base), {} if tuned is None else _named(tuned)
    loaded = {BASE: base} if isinstance(base, Encoder) else {}
    loaded |= {name: one for name, one in others.items() if isinstance(one, Encoder)}
    if loaded and others:
        start, compared_with = next(iter(_sources(first).values())), _sources(others)
    else:
        start, compared_with = base_and_tuned(_sources(first), _sources(others))
    chosen: dict[str, Any] = {"tokens": tokens, "unit": unit, "dtype": dtype, "seed": seed}
    own = None if text is None or isinstance(text, str) else _own_text(text)
    if text is not None:
        chosen["text"] = text if own is None else own.name
    command = DiffCommand(base=start, tuned=compared_with, **chosen)
    return run_diff(command, out, loaded=loaded, source=own, progress=progress)


def run_diff(
    command: DiffCommand,
    out: str | os.PathLike[str] | None,
    *,
    loaded: Mapping[str, Encoder] | None = None,
    source: Stream | None = None,
    progress: Progress = SILENT,
) -> Difference:
    """Run a diff, or resume it in the folder ``out``.

    ``loaded`` are encoders by name that need not be loaded, and ``source`` is a text in place of the command's.
    """
    begun = time.monotonic()
    check(command, "bertft diff")
    if reserved := [name for name in command.tuned if name in (BASE, RANDOM) or is_noise(name)]:
        raise BertftError(f"diff: {reserved.pop()!r} is reserved in the results; choose another name with NAME=model")
    given = loaded or {}
    hub = {name: model for name, model in command.tuned.items() if name not in given}
    command = dataclasses.replace(
        command,
        base=command.base if BASE in given else pin(command.base, "model"),
        tuned={**command.tuned, **pinned_models(hub)},
        text=command.text if source else pin(command.text),
    )
    if out is not None:
        check_folder(out, command.to_tree(), later=() if command.skip_first is not None else ("skip_first",))
    process.keep_steady()
    source = source or stream(_kind(command.text), command.text, split=command.split)
    if out is not None and not given and fits_only_in_turn(command):
        progress.say("the models do not fit into memory together: they run in turn (--in-turn)")
        command = dataclasses.replace(command, in_turn=True)
    if command.in_turn:
        if out is None or given:
            raise BertftError("--in-turn: needs a folder, --out, for the base's vectors, and models by name")
        return _in_turn(command, out, source, progress)
    tuned = {name: given.get(name) or load_encoder(model, command.dtype) for name, model in command.tuned.items()}
    base = given.get(BASE) or load_encoder(command.base, command.dtype)
    command = _skipping(command, base)
    folder = None if out is None else open_folder(out, command.to_tree())
    inputs = compared(command, base, tuned, source, out=None if folder is None else folder.path, progress=progress)
    if folder is None:
        rows = merge_rows(*(stage.work() for part in PARTS for stage in part.stages(inputs)))
        return _difference(inputs, rows, time.monotonic() - begun)
    with _claimed(folder):
        return _stages(folder, inputs, progress)


def _in_turn(command: DiffCommand, out: str | os.PathLike[str], source: Stream, progress: Progress) -> Difference:
    """Run a diff in which the base's weights leave the memory before a tuned encoder is loaded."""
    base = load_encoder(command.base, command.dtype)
    command = _skipping(command, base)
    folder = open_folder(out, command.to_tree())
    with _claimed(folder):
        finished = (folder.path / RUN).exists()
        recorded, released = released_base(
            command, base, source, PARTS, out=folder.path, finished=finished, progress=progress
        )
        tuned = {name: load_encoder(model, command.dtype) for name, model in command.tuned.items()}
        inputs = compared(command, recorded, tuned, source, out=folder.path, progress=progress, released=released)
        found = _stages(folder, inputs, progress)
        recorded.remove()
    return found


def _stages(folder: RunFolder, inputs: Compared, progress: Progress) -> Difference:
    """Run or resume the stages in the claimed folder, and write its table, record and page."""
    stages = [stage for part in PARTS for stage in part.stages(inputs)]
    rows = folder.run(stages, "diff", after=process.give_back, progress=progress)
    inputs.words = inputs.words or read_words(folder.path)
    inputs.ends = inputs.ends or read_ends(folder.path)
    seconds = folder.seconds(stages)
    found = _difference(inputs, rows, sum(seconds.values()), folder.path)
    folder.write_table(rows)
    record: dict[str, Any] = {"versions": versions(), "stages": [stage.name for stage in stages], "seconds": seconds}
    record[SOURCES] = inputs.sources
    record |= {"finished": folder.finished(stages) or timestamp(), "memory": process.fullest()}
    folder.write_record({**record, "unchanged": inputs.unchanged})
    redraw(folder.path, found, progress=progress)
    return found


def _difference(inputs: Compared, rows: list[Row], seconds: float, folder: Path | None = None) -> Difference:
    """Return the result with its verdict, which ends in the cost and the page."""
    found = Found(rows, context(inputs.command.to_tree(), rows), inputs.unchanged, inputs.words, inputs.ends)
    last = [Said("cost", _cost(found, seconds))]
    if folder is not None:
        last.append(Said("page", str((folder / "report.html").resolve())))
    return Difference(Rows(rows), [*_said(found), *last], found, folder)


def _said(found: Found) -> list[Said]:
    """Return the lines of all parts, so many that two more are at most `MOST`."""
    return at_most([line for part in PARTS for line in part.said(found)], MOST - 2)


def _cost(found: Found, seconds: float) -> str:
    stimuli = max((row.n or 0 for row in found.rows if row.task == "rsa"), default=0)
    unit, text = found.context.config["unit"], found.context.config["text"]
    work = f"{stimuli:,} {unit}s of {text}" if stimuli else "nothing had to be measured"
    return f"{work}; {duration(seconds)}, at most {size(process.fullest())} of memory."


def redraw(folder: Path, found: Difference | None = None, *, progress: Progress = SILENT) -> Path:
    """Write the page of a diff's run folder, from its files alone if ``found`` is None; return its path."""

    def top(rows: Sequence[Row], described: Context, record: Mapping[str, Any]) -> Answer:
        if found is not None:
            return answer(found.found, [line for line in found.said if line.term != "page"], FIGURE)
        read = Found(rows, described, dict(record.get("unchanged") or {}), read_words(folder), read_ends(folder))
        return answer(read, [*_said(read), Said("cost", cost(record))], FIGURE)

    def further(rows: Sequence[Row], described: Context) -> list[Figure | HeatMap]:
        return [figure for part in PARTS for figure in part.figures(rows, described)]

    return write_report(folder, further=further, answer=top, progress=progress)


def is_diff(folder: Path) -> bool:
    """Return whether a run folder is that of a diff."""
    try:
        config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(config, dict) and config.get("command") == "diff"


def _named(models: Model | Sequence[Model] | Mapping[str, Model]) -> dict[str, Model]:
    """Return models by name; raise ``BertftError`` if two have one name."""
    if isinstance(models, Mapping):
        return dict(models)
    found: dict[str, Model] = {}
    for one in [models] if isinstance(models, (str, os.PathLike, Encoder)) else models:
        name = encoder_name(one.name if isinstance(one, Encoder) else os.fspath(one))
        if name in found:
            raise BertftError(f"diff: two models are named {name!r}; give them as a mapping of names to models")
        found[name] = one
    return found


def _sources(models: Mapping[str, Model]) -> dict[str, str]:
    return {name: one.name if isinstance(one, Encoder) else os.fspath(one) for name, one in models.items()}


def _own_text(texts: Sequence[str]) -> Stream:
    """Return a stream of texts given in Python."""
    kept = [Text(str(number), one) for number, one in enumerate(texts, start=1) if one.strip()]
    return Stream(f"{len(kept)} texts", lambda: iter(kept), digest_of_json([text.text for text in kept]), len(kept))


def _skipping(command: DiffCommand, base: Encoder) -> DiffCommand:
    """Return the settings with the number of first tokens to leave out."""
    return command if command.skip_first is not None else dataclasses.replace(command, skip_first=first_tokens(base))


def _kind(text: str) -> str:
    return "dep" if ".conllu" in Path(text).name else "text"


@contextlib.contextmanager
def _claimed(folder: RunFolder) -> Iterator[None]:
    """Claim the folder; remove it again after an error of the user before the first result."""
    existed = folder.path.exists()
    try:
        with folder.claim():
            yield
    except BertftError:
        if not existed:
            shutil.rmtree(folder.path / FOLDER, ignore_errors=True)
        left = {entry.name for entry in folder.path.iterdir()} if folder.path.is_dir() else {""}
        if not existed and left <= {CONFIG, LOCK}:
            for name in left:
                (folder.path / name).unlink()
            folder.path.rmdir()
        raise

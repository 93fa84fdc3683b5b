"""Several runs side by side: where their similarities differ."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertft.errors import BertftError
from bertft.report.figure import Curve, Figure, Panel, interval, slot
from bertft.report.figures.by_layer import null_band
from bertft.report.findings import SCORES
from bertft.report.lines import Context, Line, apart, lines, point, score
from bertft.report.page.answer import MOST, Answer, Said, number_at
from bertft.report.page.figure_section import Cell, Table
from bertft.report.page.runs_section import RunsSection
from bertft.report.page.sources import Sources
from bertft.report.read import Run, read_run
from bertft.report.similar import HARDLY
from bertft.runs.versions import package_versions
from bertft.runs.vocabulary import MeasureName, is_noise

FIGURE = "similarity_by_run"
ABSENT = "–"  # a setting or a score that a run lacks


@dataclass(frozen=True)
class Shared:
    """What several runs have in common: a measure of similarity, and texts.

    Attributes:
        runs: by name, in the order of the command.
        measure: the first of the first run that all have.
        texts: those of no task if the runs share some, else any.
    """

    runs: Mapping[str, Run]
    measure: MeasureName
    texts: Sequence[str]

    def lines(self, text: str) -> list[tuple[str, Line]]:
        """Return the similarities on a text, each with the name of its run."""
        return [
            (name, line)
            for name, run in self.runs.items()
            for line in _similar(run)
            if line.data == text and line.name == self.measure
        ]

    def models(self, text: str) -> dict[str, list[tuple[str, Line]]]:
        """Return the similarities by encoder; those of encoders that only one run has share the name ""."""
        found: dict[str, list[tuple[str, Line]]] = {}
        for name, line in self.lines(text):
            found.setdefault(line.model, []).append((name, line))
        alone = [entry for own in found.values() if len(own) == 1 for entry in own]
        shared = {model: own for model, own in found.items() if len(own) > 1}
        return shared | ({"": alone} if alone else {})


def read_runs(folders: Sequence[str | os.PathLike[str]]) -> Shared:
    """Read run folders and return what they share.

    Raises:
        BertftError: A folder is no run, is given twice, or the runs share no measure of similarity or no text.
    """
    paths = [Path(folder) for folder in folders]
    resolved = [path.resolve() for path in paths]
    for place, path in enumerate(resolved):
        if path in resolved[:place]:
            raise BertftError(f"{paths[place]}: given twice; expected different run folders")
    runs = dict(zip(_names(resolved), map(read_run, paths), strict=True))
    for run in runs.values():
        if not _similar(run):
            raise BertftError(f"{run.folder}: has no similarity of layers to a base encoder, so it cannot be compared")
    first, *others = runs.values()
    measures, texts = (
        [list(dict.fromkeys(map(key, _similar(run)))) for run in runs.values()] for key in (_measure, _text)
    )
    for other, own in zip(others, measures[1:], strict=True):
        if not set(own) & set(measures[0]):
            raise _apart("measure of similarity", first, measures[0], other, own)
    for other, own in zip(others, texts[1:], strict=True):
        if not set(own) & set(texts[0]):
            raise _apart("text", first, texts[0], other, own)
    common = [[one for one in found[0] if all(one in own for own in found)] for found in (measures, texts)]
    for what, shared in zip(("measure of similarity", "text"), common, strict=True):
        if not shared:
            raise BertftError(f"report: the runs {', '.join(runs)} do not share one {what}")
    of_tasks = {text for run in runs.values() for text in run.context.own_text.values()}
    outside = [text for text in common[1] if text not in of_tasks]
    return Shared(runs, MeasureName.parse(common[0][0]), outside or common[1])


def figure(shared: Shared) -> Figure:
    """Return the similarity by layer and run: a panel for each text and encoder."""
    described, panels, drawn = labelled(shared), [], []
    for text in shared.texts:
        for model, own in sorted(shared.models(text).items(), key=_difference, reverse=True):
            curves = []
            for run, line in own:
                label = _label(run, line, model)
                curves.append(Curve(label, dataclasses.replace(line, model=label), slot(label, described)))
            drawn += [curve.line for curve in curves]
            title = f"{model}, on {text}" if model else f"on {text}"
            nulls = [null for _, line in own for null in _nulls(shared, line)]
            panels.append(Panel(title, shared.measure.axis, (*curves, *null_band(nulls))))
    grey = " Grey: the largest null." if any(len(p.curves) and p.curves[-1].label == "null" for p in panels) else ""
    caption = f"1 = the layer is unchanged by fine-tuning. {interval(drawn, 'sentence')}{grey}"
    return Figure(FIGURE, "Similarity of each layer to the base encoder, by run", caption, tuple(panels))


def labelled(shared: Shared) -> Context:
    """Return the labels of all curves in order, and all configurations by run."""
    labels = [
        _label(run, line, model)
        for text in shared.texts
        for model, own in shared.models(text).items()
        for run, line in own
    ]
    runs = [run for run in shared.runs if run in labels]
    configs = {run: dict(one.context.config) for run, one in shared.runs.items()}
    return Context(tuple(dict.fromkeys([*runs, *labels])), {}, {"runs": configs})


def record(shared: Shared) -> dict[str, Any]:
    """Return a record of all runs, with the sources of their texts and the last date."""
    sources: dict[str, dict[str, str]] = {}
    for run, one in shared.runs.items():
        of = Sources(one.context.config, one.record)
        for key in dict.fromkeys((row.task, row.data) for row in one.rows):
            sources.setdefault("/".join(key), {})[run] = of.of(*key)
    dates = [str(date) for one in shared.runs.values() if (date := one.record.get("finished"))]
    return {
        "versions": package_versions(["bertft"]),
        "finished": max(dates, default=None),
        "sources": {key: _by_run(own) for key, own in sources.items()},
    }


def answer(shared: Shared) -> Answer:
    """Return the first screen: where the runs differ most, and a number of each run."""
    text = shared.texts[0]
    groups = shared.models(text)
    table = []
    for model, own in groups.items():
        for run, line in own:
            at = line.lowest()
            name = f"{run}: {model or line.model}, {line.name.short}, layer {line.layers[at]} (lowest)"
            table.append(number_at(name, line, at))
    said = [*_sources(shared), *_bases(shared)]
    said.append(Said("settings", f"{len(setting_table(shared).rows)} differ; the table is below."))
    title = f"{len(shared.runs)} runs side by side"
    return Answer(title, _sentence(groups, text), said, table[:MOST], FIGURE)


def section(shared: Shared) -> RunsSection:
    """Return the tables of scores and of differing settings."""
    return RunsSection(list(shared.runs), score_table(shared), setting_table(shared))


def score_table(shared: Shared) -> Table:
    """Return the scores of the fine-tuned encoders: a row for each encoder, text and measure, a column per run."""
    found: dict[str, dict[str, Cell]] = {}
    for run, one in shared.runs.items():
        for row in one.rows:
            if row.task == "finetune" and row.layer is None and row.measure in SCORES:
                on = "" if row.data == row.model else f" on {row.data}"
                name = f"{row.model}: {MeasureName.parse(row.measure).short}{on}"
                value, _, ends = score(row).partition(" ")
                found.setdefault(name, {})[run] = Cell(value, ends)
    rows = [(name, [cells.get(run, Cell(ABSENT)) for run in shared.runs]) for name, cells in found.items()]
    return Table("Scores", "score", list(shared.runs), rows)


def setting_table(shared: Shared) -> Table:
    """Return the settings that are not the same in all runs."""
    flat = {run: dict(_flat(one.context.config)) for run, one in shared.runs.items()}
    rows = []
    for key in dict.fromkeys(key for settings in flat.values() for key in settings):
        values = [settings.get(key, ABSENT) for settings in flat.values()]
        if len(set(values)) > 1:
            rows.append((key, [Cell(value) for value in values]))
    return Table("Settings", "setting", list(shared.runs), rows)


_Gap = tuple[bool, float, str, str, Line, int, str, Line, int]


def _farthest(model: str, own: Sequence[tuple[str, Line]]) -> _Gap:
    """Return where two runs of an encoder differ most: clearly?, by how much, encoder, and run, line, place of both."""
    (a, one), (b, two) = own[0], own[-1]
    found: list[_Gap] = [(False, 0.0, model, a, one, 0, b, two, 0)]
    for (a, one), (b, two) in itertools.combinations(own, 2):
        for i, layer in enumerate(one.layers):
            j = two.at(layer)
            if j is not None:
                clear = apart(one, i, two, j) is not False
                found.append((clear, abs(one.values[i] - two.values[j]), model, a, one, i, b, two, j))
    return max(found, key=lambda entry: entry[:2])


def _difference(entry: tuple[str, Sequence[tuple[str, Line]]]) -> tuple[bool, bool, float]:
    """Return a key by which the encoder whose runs differ most is the largest, and no shared one the smallest."""
    return bool(entry[0]), *_farthest(*entry)[:2]


def _sentence(groups: Mapping[str, Sequence[tuple[str, Line]]], text: str) -> str:
    """Return the layer at which two runs differ most, or that no intervals tell them apart."""
    found = [_farthest(model, own) for model, own in groups.items() if model]
    if not found:
        run, line = min(groups[""], key=lambda entry: min(entry[1].values))
        at = line.lowest()
        return (
            f"The runs share no encoder. {line.model} of {run} moved most: its similarity to its base falls to "
            f"{point(line, at)} at layer {line.layers[at]} on {text}."
        )
    clear, gap, model, a, one, i, b, two, j = max(found, key=lambda entry: entry[:2])
    layer = one.layers[i]
    if gap < HARDLY:
        return f"The runs are the same: no similarity on {text} differs by {HARDLY} or more."
    if not clear:
        return (
            f"The intervals do not tell the runs apart at any layer on {text}: the largest difference is {gap:.3f} "
            f"({model}, layer {layer}: {point(one, i)} in {a}, {point(two, j)} in {b})."
        )
    return (
        f"The runs differ most for {model} at layer {layer} on {text}: its similarity to the base encoder is "
        f"{point(one, i)} in {a} and {point(two, j)} in {b}."
    )


def _sources(shared: Shared) -> Iterator[Said]:
    """Yield a line for a text that has other sources in other runs."""
    for text in shared.texts:
        own = {run: Sources(one.context.config, one.record).of("rsa", text) for run, one in shared.runs.items()}
        if len(set(own.values())) > 1:
            yield Said("text", f"{text} is {_by_run(own)}.")


def _bases(shared: Shared) -> Iterator[Said]:
    """Yield a line if the runs start from different encoders."""
    configs = {run: one.context.config for run, one in shared.runs.items()}
    own = {run: str(config.get("model") or config.get("base") or "unknown") for run, config in configs.items()}
    if len(set(own.values())) > 1:
        yield Said("base", f"{_by_run(own)}.")


def _flat(settings: Any, start: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            yield from _flat(value, f"{start}.{key}" if start else str(key))
    elif settings is not None and settings != "":
        yield start, " ".join(str(settings).split())


def _by_run(values: Mapping[str, str]) -> str:
    """Return a value that all runs share, or each with its run."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return ", ".join(f"{value} in {run}" for run, value in values.items())


def _label(run: str, line: Line, model: str) -> str:
    """Return the label of a curve: its run, with the encoder if that is not in the panel's title."""
    return run if model else f"{run}: {line.model}"


def _similar(run: Run) -> list[Line]:
    return [line for line in lines(run.rows, "rsa") if not line.name.derived and not is_noise(line.model)]


def _nulls(shared: Shared, line: Line) -> list[Line]:
    """Return the nulls of a similarity in any run."""
    null = dataclasses.replace(line.name, derived="null")
    found = (other for run in shared.runs.values() for other in lines(run.rows, "null"))
    return [other for other in found if (other.model, other.data, other.name) == (line.model, line.data, null)]


def _measure(line: Line) -> str:
    return line.measure


def _text(line: Line) -> str:
    return line.data


def _apart(what: str, first: Run, own: Sequence[str], other: Run, its: Sequence[str]) -> BertftError:
    return BertftError(
        f"{other.folder}: shares no {what} with {first.folder}: expected one of {', '.join(own)}, found "
        f"{', '.join(its)}"
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that tell them apart."""
    for count in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names

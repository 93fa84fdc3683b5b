"""The HTML page of a run.

The page is one file and fetches nothing. Text from outside enters it through the templates in ``templates``, which
escape it.
"""

from __future__ import annotations

import base64
import functools
import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml

from bertft.report.draw.dots import dot_panels
from bertft.report.draw.screen import map_panels, panels
from bertft.report.figure import Dots, Figure, HeatMap, Picture, shown_lines, slot
from bertft.report.findings import cost, headline
from bertft.report.lines import Context, score
from bertft.report.page.answer import Answer
from bertft.report.page.direction_words import DirectionSection
from bertft.report.page.example_trees import TreeSection
from bertft.report.page.figure_section import Drawn, figure_section
from bertft.report.page.moved_words import WordSection
from bertft.report.page.runs_section import RunsSection
from bertft.report.page.sources import Sources
from bertft.report.palette import DARK, DARK_PAGE, HOLLOW, LIGHT, LIGHT_PAGE
from bertft.runs.rows import Row
from bertft.runs.vocabulary import MeasureName

SYNTHETIC_DATA, ENGLISH = "builtin:synthetic", "builtin:english"
SYNTHETIC = "A built-in grammar made the texts, so numbers on them say nothing about English."
SYNTHETIC_BUT = (
    "A built-in grammar made the training data and every text except builtin:english, which is natural prose. Only "
    "numbers on that prose say something about English."
)


def render(
    rows: Sequence[Row],
    context: Context,
    drawn: Sequence[Drawn],
    record: Mapping[str, Any],
    words: WordSection | None = None,
    trees: TreeSection | None = None,
    answer: Answer | None = None,
    directions: DirectionSection | None = None,
    runs: RunsSection | None = None,
) -> str:
    """Return the page.

    ``drawn`` are the figures in order, ``record`` is the content of ``run.json``, ``words``, ``trees`` and
    ``directions`` are the sections of `moved_words`, `example_trees` and `direction_words`, ``runs`` is that of several
    runs. An ``answer`` comes first, beside the figure that it names. Findings follow it if it asks for them.
    """
    config = context.config
    title = (answer.title if answer else "") or str(config.get("name") or config.get("command") or "bertft run")
    variant = f" ({config['variant']})" if config.get("variant") else ""
    versions = record.get("versions") or {}
    plots = {one.figure.name: _panels(one.figure) for one in drawn}
    return (
        _templates()
        .get_template("page.html.j2")
        .render(
            light=LIGHT | LIGHT_PAGE,
            dark=DARK | DARK_PAGE,
            title=title + variant,
            description=str(config.get("description") or "").strip(),
            notices=_notices(config, record, answer),
            facts=_facts(context, record),
            answer=answer,
            first=next((figure_section(one) for one in drawn if answer and one.figure.name == answer.figure), None),
            findings=_findings(rows, context, record) if answer is None or answer.findings else [],
            toggles=_toggles(context, drawn),
            figures=[figure_section(one) for one in drawn if not (answer and one.figure.name == answer.figure)],
            directions=directions,
            words=words,
            trees=trees,
            runs=runs,
            measured=_measured(rows, Sources(config, record)),
            scores=_scores(rows),
            configuration=yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100),
            versions=versions,
            seconds=record.get("seconds") or {},
            footer=f"Made by bertft {versions.get('bertft', '')} {_date(record)}.",
            plots=plots,
            plotly=_plotly() if plots else "",
        )
    )


def _panels(figure: Picture) -> list[dict[str, Any]]:
    if isinstance(figure, HeatMap):
        return map_panels(figure)
    return dot_panels(figure) if isinstance(figure, Dots) else panels(figure)


def snippet(answer: Answer, png: bytes) -> str:
    """Return an answer with its figure as HTML for a notebook."""
    picture = base64.b64encode(png).decode()
    return _templates().get_template("snippet.html.j2").render(answer=answer, picture=picture)


def _templates() -> jinja2.Environment:
    """Return the templates, which escape every value and fail on a missing one."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    return environment


@functools.cache
def _plotly() -> str:
    """Return the source of plotly.js, which the page carries along: gzip in base64, a third of its size."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _names(value: object, data: str) -> bool:
    """Return whether a configuration names built-in data anywhere."""
    if isinstance(value, Mapping):
        return any(_names(entry, data) for entry in value.values())
    if isinstance(value, list):
        return any(_names(entry, data) for entry in value)
    return isinstance(value, str) and value.startswith(data)


def _notices(config: Mapping[str, Any], record: Mapping[str, Any], answer: Answer | None) -> list[dict[str, str]]:
    """Return the notices above the findings: synthetic text and, unless an ``answer`` says so, unfinished study."""
    notices = []
    if _names(config, SYNTHETIC_DATA):
        text = SYNTHETIC_BUT if _names(config, ENGLISH) else SYNTHETIC
        notices.append({"title": "Synthetic text.", "text": text})
    done, left = record.get("done") or [], record.get("left") or []
    if left and answer is None:
        stages = f"{len(done)} of {len(done) + len(left)} stages are done."
        text = f"{stages} Not yet done: {', '.join(left)}. Rerun the same command to resume the study."
        notices.append({"title": "Unfinished.", "text": text})
    return notices


def _date(record: Mapping[str, Any]) -> str:
    if record.get("finished"):
        return f"on {record['finished']}"
    return f"in a run started on {record['started']}" if record.get("started") else "on an unknown date"


def _facts(context: Context, record: Mapping[str, Any]) -> list[str]:
    """Return the facts below the title: encoder, encoders compared with it, seeds, time."""
    config = context.config
    base = config.get("model") or config.get("base")
    facts = []
    if base and not isinstance(base, Mapping):
        facts.append(f"Encoder: {base}")
    if base and context.tuned:
        facts.append(f"compared with: {', '.join(context.tuned)}")
    if isinstance(config.get("seed"), list):
        facts.append(f"seeds {', '.join(map(str, config['seed']))}")
    elif config.get("seed") is not None:
        facts.append(f"seed {config['seed']}")
    seconds = sum((record.get("seconds") or {}).values())
    if seconds:
        facts.append(f"{seconds / 60:.1f} minutes of work")
    return facts


def _findings(rows: Sequence[Row], context: Context, record: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the groups of findings and what the run cost."""
    groups = headline(rows, context)
    spent = cost(record)
    return [*groups, ("What it cost", [spent])] if groups and spent else groups


def _toggles(context: Context, drawn: Sequence[Drawn]) -> list[dict[str, Any]]:
    """Return a check box for each encoder of any figure; films have none, because their curves are moments."""
    figures = [one.figure for one in drawn if isinstance(one.figure, Figure) and not one.figure.film]
    used = {line.model for figure in figures for line in shown_lines(figure.panels)}
    return [
        {"model": model, "slot": slot(model, context), "hollow": slot(model, context) in HOLLOW}
        for model in context.models
        if model in used
    ]


def _measured(rows: Sequence[Row], sources: Sources) -> list[dict[str, str]]:
    """Return one row per analysis and text: the text's source, the measures and the number of items."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.task, row.data), []).append(row)
    table = []
    for (task, data), members in groups.items():
        counts = sorted({row.n for row in members if row.n is not None})
        n = "" if not counts else f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
        measures = ", ".join(dict.fromkeys(MeasureName.parse(row.measure).group for row in members))
        table.append({"task": task, "data": data, "source": sources.of(task, data), "measures": measures, "n": n})
    return table


def _scores(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Return the scores of the fine-tuned models."""
    return [
        {"model": row.model, "data": row.data, "measure": row.measure, "value": score(row)}
        for row in rows
        if row.task == "finetune"
    ]

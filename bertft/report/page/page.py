"""The HTML page of a run.

The page is one file and fetches nothing. Text from outside enters it through the templates in ``templates``, which
escape it.
"""

from __future__ import annotations

import base64
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
from bertft.report.page.sources import Sources
from bertft.report.palette import DARK, DARK_PAGE, HOLLOW, LIGHT, LIGHT_PAGE
from bertft.runs.rows import Row
from bertft.runs.vocabulary import MeasureName

SYNTHETIC_DATA = "builtin:synthetic"
SYNTHETIC = {
    "title": "Synthetic text.",
    "text": "bertft's built-in grammar made every sentence, inference pair and question below, so that the whole "
    "analysis runs on any machine in minutes. The numbers are real measurements of a real encoder, but the text is "
    "artificial: they say nothing about English. For findings, run a study on real corpora.",
}


def render(
    rows: Sequence[Row],
    context: Context,
    drawn: Sequence[Drawn],
    record: Mapping[str, Any],
    words: WordSection | None = None,
    trees: TreeSection | None = None,
    answer: Answer | None = None,
    directions: DirectionSection | None = None,
) -> str:
    """Return the page.

    ``drawn`` are the figures in order, ``record`` is the content of ``run.json``, ``words``, ``trees`` and
    ``directions`` are the sections of `moved_words`, `example_trees` and `direction_words`. An ``answer`` comes first,
    beside the figure that it names, and takes the place of the findings.
    """
    config = context.config
    title = answer.title if answer else str(config.get("name") or config.get("command") or "bertft run")
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
            notices=_notices(config, record),
            facts=_facts(context, record),
            answer=answer,
            first=next((figure_section(one) for one in drawn if answer and one.figure.name == answer.figure), None),
            findings=[] if answer else _findings(rows, context, record),
            toggles=_toggles(context, drawn),
            figures=[figure_section(one) for one in drawn if not (answer and one.figure.name == answer.figure)],
            directions=directions,
            words=words,
            trees=trees,
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


def _plotly() -> str:
    """Return the source of plotly.js, which the page carries along."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _synthetic(value: object) -> bool:
    """Return whether a configuration names the built-in data anywhere."""
    if isinstance(value, Mapping):
        return any(map(_synthetic, value.values()))
    if isinstance(value, list):
        return any(map(_synthetic, value))
    return isinstance(value, str) and value.startswith(SYNTHETIC_DATA)


def _notices(config: Mapping[str, Any], record: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the notices above the findings: synthetic text, unfinished study."""
    notices = [SYNTHETIC] if _synthetic(config) else []
    done, left = record.get("done") or [], record.get("left") or []
    if left:
        named = f": {', '.join(done)}" if done else ""
        stages = f"{len(done)} of {len(done) + len(left)} stages are done{named}."
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
    if context.tuned:
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

"""One self-contained HTML page: nothing is fetched, and every text from outside is escaped."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import yaml

from bertft.report.draw.screen import map_panels, panels
from bertft.report.figure import HeatMap
from bertft.report.figures.catalogue import Figure, slot
from bertft.report.findings import cost, headline
from bertft.report.lines import Context, point, score
from bertft.report.palette import DARK, DARK_PAGE, HOLLOW, LIGHT, LIGHT_PAGE
from bertft.runs.rows import Row

TEMPLATES = Path(__file__).parent / "templates"
SYNTHETIC = (
    "The text is synthetic. Every sentence, inference pair and question below was made by bertft's built-in grammar, "
    "to show the whole path on any machine in minutes. The numbers are real measurements of a real encoder on that "
    "artificial text; they say nothing about English. For findings, run a study on real corpora."
)


def render(
    rows: Sequence[Row],
    context: Context,
    drawn: Sequence[tuple[Figure, bytes, bytes]],
    record: Mapping[str, Any],
    maps: Sequence[tuple[HeatMap, bytes, bytes]] = (),
    trees: str = "",
) -> str:
    """The page. ``drawn`` and ``maps`` hold each figure with its PNG and SVG, ``record`` what ``run.json`` says,
    ``trees`` the sections of `moved_words` and `example_trees`."""
    config = context.config
    title = str(config.get("name") or config.get("command") or "bertft run")
    variant = f" ({config['variant']})" if config.get("variant") else ""
    style = Template((TEMPLATES / "page.css").read_text(encoding="utf8")).substitute(
        light=_tokens(LIGHT | LIGHT_PAGE), dark=_tokens(DARK | DARK_PAGE)
    )
    description = str(config.get("description") or "").strip()
    return Template((TEMPLATES / "page.html").read_text(encoding="utf8")).substitute(
        title=escape(title + variant),
        css=style,
        theme=(TEMPLATES / "theme.js").read_text(encoding="utf8"),
        description=f"<p>{escape(description)}</p>" if description else "",
        notice=(_notice("Synthetic.", SYNTHETIC) if _synthetic(config) else "") + _unfinished(record),
        facts=_facts(context, record),
        headline=_headline(rows, context, record, empty=not drawn and not maps),
        toggles=_toggles(context, drawn),
        figures="\n".join([*(_figure(*item) for item in drawn), *(_map(*item) for item in maps)]),
        trees=trees,
        measured=_measured(rows, context),
        configuration=_configuration(config, record),
        footer=escape(f"Made by bertft {_versions(record).get('bertft', '')} {_date(record)}."),
        scripts=_scripts([*(figure for figure, _, _ in drawn), *(figure for figure, _, _ in maps)]),
    )


def _tokens(colours: Mapping[str, str]) -> str:
    return "".join(f"  --{name}: {colour};\n" for name, colour in colours.items())


def _synthetic(config: Mapping[str, Any]) -> bool:
    return "builtin:synthetic" in json.dumps(config, default=str)


def _notice(title: str, text: str) -> str:
    return f'<p class="notice" role="note"><strong>{title}</strong> {escape(text)}</p>'


def _unfinished(record: Mapping[str, Any]) -> str:
    """What a study that was cut off has done so far and what it has not; nothing for a whole one."""
    done, left = record.get("done") or [], record.get("left") or []
    if not left:
        return ""
    named = f": {', '.join(done)}" if done else ""
    stages = f"{len(done)} of {len(done) + len(left)} stages are done{named}."
    return _notice("Unfinished.", f"{stages} Not yet: {', '.join(left)}. The study's own command goes on from here.")


def _date(record: Mapping[str, Any]) -> str:
    if record.get("finished"):
        return f"on {record['finished']}"
    return f"in a run begun on {record['started']}" if record.get("started") else "on an unknown date"


def _versions(record: Mapping[str, Any]) -> Mapping[str, str]:
    return record.get("versions") or {}


def _facts(context: Context, record: Mapping[str, Any]) -> str:
    config = context.config
    base = config.get("model") or config.get("base")
    facts = []
    if base and not isinstance(base, Mapping):
        facts.append(f"Encoder: {base}")
    if context.tuned:
        facts.append(f"compared: {', '.join(context.tuned)}")
    if isinstance(config.get("seed"), list):
        facts.append(f"seeds {', '.join(map(str, config['seed']))}")
    elif config.get("seed") is not None:
        facts.append(f"seed {config['seed']}")
    seconds = sum((record.get("seconds") or {}).values())
    if seconds:
        facts.append(f"{seconds / 60:.1f} minutes of work")
    return f'<p class="facts">{escape(" · ".join(facts))}</p>' if facts else ""


def _headline(rows: Sequence[Row], context: Context, record: Mapping[str, Any], *, empty: bool) -> str:
    groups = headline(rows, context)
    if not groups:
        return "" if not empty else "<p>There are no layer-by-layer results in this folder yet.</p>"
    if spent := cost(record):
        groups.append(("What it cost", [spent]))
    parts = []
    for title, sentences in groups:
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
        parts.append(f"<h3>{escape(title)}</h3><ul>{items}</ul>")
    intervals = '<p class="caption">Square brackets hold 95 % intervals.</p>'
    return f'<section class="findings" aria-label="Findings"><h2>Findings</h2>{"".join(parts)}{intervals}</section>'


def _toggles(context: Context, drawn: Sequence[tuple[Figure, bytes, bytes]]) -> str:
    figures = [figure for figure, _, _ in drawn if not figure.film]
    used = {curve.line.model for figure in figures for panel in figure.panels for curve in panel.curves}
    if len(used) < 2:
        return ""
    boxes = ""
    for model in (model for model in context.models if model in used):
        colour = slot(model, context)
        boxes += (
            f'<label><input type="checkbox" value="{escape(model)}" checked>'
            f'<span class="swatch{" hollow" if colour in HOLLOW else ""}" style="color:var(--{colour})"></span>'
            f"{escape(model)}</label>"
        )
    return f'<fieldset class="toggles"><legend>Show</legend>{boxes}</fieldset>'


def _figure(figure: Figure, png: bytes, svg: bytes) -> str:
    return _section(figure, png, svg, figure.caption, [panel.title for panel in figure.panels], _numbers(figure))


def _map(figure: HeatMap, png: bytes, svg: bytes) -> str:
    caption = f"{figure.label}. {figure.caption}"
    return _section(figure, png, svg, caption, [panel.title for panel in figure.panels], _map_numbers(figure))


def _section(figure: Figure | HeatMap, png: bytes, svg: bytes, caption: str, titles: Sequence[str], tables: str) -> str:
    """A figure's panels, drawn by the page's script or else as a picture, its downloads and its tables."""
    grid = {1: " one", 2: " two"}.get(min(figure.columns, len(titles)), "")
    plots = "".join(
        f'<div class="panel"><h3>{escape(title)}</h3>'
        f'<div class="plot" role="img" aria-label="{escape(f"{figure.title}, {title}; numbers below")}" '
        f'data-figure="{escape(figure.name)}" data-panel="{index}"></div></div>'
        for index, title in enumerate(titles)
    )
    return (
        f'<section><h2>{escape(figure.title)}</h2><p class="caption">{escape(caption)}</p>'
        f'{_film(figure)}<div class="panels{grid}">{plots}</div>'
        f'<noscript><img alt="{escape(figure.title)}" src="{_uri("image/svg+xml", svg)}"></noscript>'
        f"{_downloads(figure, png, svg)}"
        f"<details><summary>The numbers</summary>{tables}</details></section>"
    )


def _film(figure: Figure | HeatMap) -> str:
    """The slider and the button of a film; the page's script brings them to life."""
    if isinstance(figure, HeatMap) or not figure.film:
        return ""
    moments = [curve.label for curve in max(figure.panels, key=lambda panel: len(panel.curves)).curves]
    return (
        f'<p class="film" data-film="{escape(figure.name)}" data-moments="{escape(json.dumps(moments))}" hidden>'
        f'<button type="button">Play</button> <label>Moment <input type="range" min="0" '
        f'max="{len(moments) - 1}" value="{len(moments) - 1}"></label> <output></output></p>'
    )


def _downloads(figure: Figure | HeatMap, png: bytes, svg: bytes) -> str:
    files = (
        ("PNG", "png", "image/png", png),
        ("SVG", "svg", "image/svg+xml", svg),
        ("CSV", "csv", "text/csv", figure.to_csv().encode()),
    )
    links = "".join(
        f'<a download="{escape(figure.name)}.{suffix}" href="{_uri(kind, data)}">{label}</a>'
        for label, suffix, kind, data in files
    )
    return f'<p class="downloads">Download: {links}</p>'


def _numbers(figure: Figure) -> str:
    """One table a panel: a row a curve, a column a layer."""
    tables = []
    for panel in figure.panels:
        layers = sorted({layer for curve in panel.curves for layer in curve.line.layers})
        head = "".join(f'<th class="number" scope="col">{escape(figure.x)} {layer}</th>' for layer in layers)
        body = ""
        for curve in panel.curves:
            line = curve.line
            cells = ""
            for layer in layers:
                at = line.at(layer)
                value, _, interval = ("", "", "") if at is None else point(line, at).partition(" ")
                small = f"<br><small>{interval}</small>" if interval else ""
                cells += f'<td class="number">{value}{small}</td>'
            body += f'<tr><th scope="row">{escape(curve.label)}</th>{cells}</tr>'
        tables.append(
            f'<h3>{escape(panel.title)}: {escape(panel.ylabel)}</h3><div class="scroll" tabindex="0"><table>'
            f'<thead><tr><th scope="col">curve</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        )
    return "".join(tables)


def _map_numbers(figure: HeatMap) -> str:
    """One table a panel, its rows from above as they are drawn."""
    tables = []
    for panel in figure.panels:
        head = "".join(f'<th class="number" scope="col">{escape(name)}</th>' for name in panel.columns)
        body = "".join(
            f'<tr><th scope="row">{escape(name)}</th>'
            + "".join(f'<td class="number">{value:.3f}</td>' for value in values)
            + "</tr>"
            for name, values in zip(reversed(panel.rows), reversed(panel.values), strict=True)
        )
        tables.append(
            f"<h3>{escape(panel.title)}: {escape(figure.label)}</h3>"
            f'<p class="caption">Rows: {escape(figure.ylabel)}; columns: {escape(figure.xlabel)}.</p>'
            f'<div class="scroll" tabindex="0"><table><thead><tr><th scope="col">layer</th>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )
    return "".join(tables)


def _measured(rows: Sequence[Row], context: Context) -> str:
    """What every number rests on: analysis, text, its source and how many items."""
    sources, only = _sources(context.config), _of_command(context.config)
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.task, row.data), []).append(row)
    body = ""
    for (task, data), members in groups.items():
        counts = sorted({row.n for row in members if row.n is not None})
        n = "" if not counts else f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
        measures = ", ".join(dict.fromkeys(_family(row.measure) for row in members))
        if task == "along":  # whose rows name the task, and whose text is one for all
            of_text = sources.get(str((context.config.get("along") or {}).get("text")), "")
        else:
            of_text = sources.get(data, only)
        cells = [task, data, of_text, measures]
        body += (
            "<tr>" + "".join(f'<td class="wrap">{escape(c)}</td>' for c in cells) + f'<td class="number">{n}</td></tr>'
        )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("analysis", "text", "source", "measures"))
    head += '<th class="number" scope="col">n</th>'
    whole = ""
    single = [row for row in rows if row.task == "finetune"]
    if single:
        scores = "".join(
            f"<tr><td>{escape(row.model)}</td><td>{escape(row.data)}</td><td>{escape(row.measure)}</td>"
            f'<td class="number">{score(row)}</td></tr>'
            for row in single
        )
        columns = "".join(f'<th scope="col">{name}</th>' for name in ("model", "text", "measure"))
        columns += '<th class="number" scope="col">value</th>'
        whole = (
            "<details><summary>Scores of the fine-tuned models</summary>"
            f"<table><thead><tr>{columns}</tr></thead><tbody>{scores}</tbody></table></details>"
        )
    return (
        '<section><h2>What it was measured on</h2><div class="scroll" tabindex="0"><table>'
        f"<thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>{whole}</section>"
    )


def _family(measure: str) -> str:
    """One name for the measures that a heat map or a grouping of words makes many of."""
    return re.sub(r"_base\d+$", " by layers of both", measure.partition("=")[0])


def _sources(config: Mapping[str, Any]) -> dict[str, str]:
    found = {name: str(task.get("dev")) for name, task in (config.get("tasks") or {}).items()}
    found |= {name: str(stimuli.get("source")) for name, stimuli in (config.get("stimuli") or {}).items()}
    for name, edge in (config.get("edge") or {}).items():
        scored = f"measured on {edge['test']}" if edge.get("test") else "which it is measured on too"
        found[name] = f"train {edge.get('train')}, dev {edge.get('dev')}, {scored}"
    probes = config.get("probes")
    if isinstance(probes, Mapping):
        found[str(probes.get("name"))] = f"train {probes.get('train')}, measured on {probes.get('dev')}"
    return found


def _of_command(config: Mapping[str, Any]) -> str:
    """What a single command worked on: its text, or what it trained on and measured on."""
    if config.get("command") and config.get("dev"):
        scored = f"dev {config['dev']}, measured on {config['test']}" if config.get("test") else f"dev {config['dev']}"
        return f"train {config.get('train')}, {scored}"
    return str(config.get("text") or "")


def _configuration(config: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=100)
    versions = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="wrap">{escape(str(value))}</td></tr>'
        for name, value in _versions(record).items()
    )
    stages = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="number">{value:.1f} s</td></tr>'
        for name, value in (record.get("seconds") or {}).items()
    )
    times = f"<details><summary>Time of each stage</summary><table><tbody>{stages}</tbody></table></details>"
    return (
        f"<section><h2>Configuration and versions</h2><details><summary>config.yaml</summary><pre>{escape(text)}</pre>"
        f"</details><details><summary>Versions</summary><table><tbody>{versions}</tbody></table></details>"
        f"{times if stages else ''}</section>"
    )


def _scripts(drawn: Sequence[Figure | HeatMap]) -> str:
    if not drawn:
        return ""
    from plotly.offline import get_plotlyjs

    described = {f.name: map_panels(f) if isinstance(f, HeatMap) else panels(f) for f in drawn}
    data = json.dumps(described, allow_nan=False)
    data = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    code = (TEMPLATES / "page.js").read_text(encoding="utf8")
    return (
        f'<script type="application/json" id="figures">{data}</script>\n'
        f"<script>{get_plotlyjs()}</script>\n<script>{code}</script>"
    )


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"

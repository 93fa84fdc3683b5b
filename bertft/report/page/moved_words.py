"""Which words moved, as a section of the page: what ``bertft rsa --by`` writes, means by label and words in context."""

from __future__ import annotations

import csv
import math
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from pathlib import Path

from bertft.errors import BertftError

FILES = {  # as `bertft.similarity.words.moved` writes them; older ones lack the metric, which was cosine, and sentences.csv
    "local.csv": ["model", "data", "metric", "layer", "by", "label", "value", "low", "high", "n"],
    "words.csv": ["model", "data", "metric", "layer", "moved", "value", "word", "sentence", "context"],
    "sentences.csv": ["model", "data", "metric", "layer", "moved", "value", "n", "sentence", "text"],
}
SENTENCES = "sentences.csv"
NUMBERS = {"layer": int, "n": int, "value": float, "low": float, "high": float}
KINDS = {
    "upos": "part of speech",
    "xpos": "the treebank's own tag",
    "relation": "relation to the head",
    "depth": "depth in the tree (root 0)",
    "position": "position in the sentence (first 0)",
    "frequency": "frequency (log2 of the form's count here)",
}
DARKEST = 0.6  # how much of the shade lies under a word whose local RSA is 0 or less
SHOWN = 5  # words at either end of a layer; the file holds more
CAPTION = (
    "Local RSA of a word is the correlation of its similarities to all other words in the base encoder with those in "
    "the tuned one: 1 where it stands to the others as it did, lower the further it moved. Means over the words of a "
    "class, those that moved most on top; small: 95 % intervals over sentences."
)
Table = list[dict[str, str]]


def moved_words(folder: Path) -> str:
    """HTML of the section; empty where the run did not ask for it."""
    files = [name for name in FILES if (folder / name).is_file()]
    if set(FILES) - set(files) - {SENTENCES}:
        return ""
    means, words, *more = (_read(folder / name) for name in files)
    parts = [f'<section><h2>Which words moved</h2><p class="caption">{escape(CAPTION)}</p>']
    measured = list(dict.fromkeys(map(_measured, means)))
    for model, metric in measured:
        mine = [row for row in means if _measured(row) == (model, metric)]
        named = f" ({metric})" if len({kind for _, kind in measured}) > 1 else ""
        data = ", ".join(dict.fromkeys(row["data"] for row in mine))
        parts.append(f"<h3>{escape(model + named)}, on {escape(data)}</h3>")
        for place, kind in enumerate(dict.fromkeys(row["by"] for row in mine)):
            table = _by_label([row for row in mine if row["by"] == kind])
            unfolded = " open" if place == 0 else ""
            parts.append(f"<details{unfolded}><summary>By {escape(KINDS.get(kind, kind))}</summary>{table}</details>")
        for what, rows in zip(("words", "sentences"), (words, *more), strict=False):
            extremes = _extremes([row for row in rows if _measured(row) == (model, metric)])
            darker = ", the darker the more" if what == "words" else ""
            parts.append(
                f"<details><summary>The {what} that moved most and least{darker}</summary>{extremes}</details>"
            )
    links = "".join(
        f'<a download="{name}" href="data:text/csv;base64,{b64encode((folder / name).read_bytes()).decode()}">'
        f"{name}</a>"
        for name in files
    )
    return "".join(parts) + f'<p class="downloads">Download: {links}</p></section>'


def _measured(row: dict[str, str]) -> tuple[str, str]:
    return row["model"], row.get("metric", "cosine")


def _read(path: Path) -> Table:
    with path.open(encoding="utf8", newline="") as file:
        reader = csv.DictReader(file)
        table = list(reader)
    expected = [name for name in FILES[path.name] if name != "metric" or "metric" in (reader.fieldnames or ())]
    if reader.fieldnames != expected:
        found = ",".join(reader.fieldnames or ["nothing"])
        raise BertftError(f"{path}: line 1: expected the columns {','.join(expected)}, found {found}")
    for number, row in enumerate(table, start=2):
        if None in row or None in row.values():
            raise BertftError(f"{path}: row {number}: expected {len(expected)} cells")
        for name in NUMBERS.keys() & row.keys():
            try:
                if row[name] or name not in ("low", "high"):
                    NUMBERS[name](row[name])
            except ValueError:
                raise BertftError(f"{path}: row {number}: {name}: expected a number, found {row[name]!r}") from None
    return table


def _layers(rows: Table) -> list[int]:
    return sorted({int(row["layer"]) for row in rows})


def _by_label(rows: Table) -> str:
    """A row a label, a column a layer; numbers in their order, names by their mean over layers."""
    labels: dict[str, dict[int, dict[str, str]]] = {}
    for row in rows:
        labels.setdefault(row["label"], {})[int(row["layer"])] = row
    if all(label.isdecimal() for label in labels):
        order = sorted(labels, key=int)
    else:
        order = sorted(labels, key=lambda label: sum(float(row["value"]) for row in labels[label].values()))
    body = ""
    for label in order:
        cells = [label, f"{int(next(iter(labels[label].values()))['n']):,}"]
        found = [labels[label].get(layer) for layer in _layers(rows)]
        body += f'<tr><th scope="row">{escape(cells[0])}</th><td class="number">{cells[1]}</td>'
        body += "".join(f'<td class="number">{"" if row is None else _cell(row)}</td>' for row in found) + "</tr>"
    return _table(["class", "words", *(f"layer {layer}" for layer in _layers(rows))], body, numbers=1)


def _cell(row: dict[str, str]) -> str:
    interval = f"<br><small>[{float(row['low']):.3f}, {float(row['high']):.3f}]</small>" if row["low"] else ""
    return f"{float(row['value']):.3f}{interval}"


def _extremes(rows: Table) -> str:
    body = ""
    for layer in reversed(_layers(rows)):  # the last ones, which change most, on top
        for which in ("most", "least"):
            chosen = [row for row in rows if int(row["layer"]) == layer and row["moved"] == which][:SHOWN]
            for row in chosen:
                body += (
                    f'<tr><td>{layer}</td><td>{which}</td><td class="number">{float(row["value"]):.3f}</td>'
                    f'<td class="wrap">{_marked(row)}</td></tr>'
                )
    return _table(["layer", "moved", "local RSA", "in context"], body, numbers=4)


def _marked(row: dict[str, str]) -> str:
    """The context with its word, which stands in square brackets there, in bold and shaded by how far it moved.

    Of a sentence, its text.
    """
    if "text" in row:
        return escape(row["text"])
    before, _, after = row["context"].partition(f"[{row['word']}]")
    value = float(row["value"])
    shade = DARKEST * min(max(1 - value, 0), 1) if math.isfinite(value) else 0.0
    mark = f'<mark style="background:rgba(var(--shade),{shade:.2f})" title="local RSA {value:.3f}">'
    return f"{escape(before)}{mark}<strong>{escape(row['word'])}</strong></mark>{escape(after)}"


def _table(columns: Sequence[str], body: str, *, numbers: int) -> str:
    head = "".join(
        f'<th scope="col"{" class=number" if place >= numbers else ""}>{escape(name)}</th>'
        for place, name in enumerate(columns)
    )
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'

"""Picture of the README: what three tasks changed, layer by layer, and the words that parsing moved.

``python docs/pictures/front.py`` draws ``front.csv`` for a light and for a dark page.
``python docs/pictures/front.py RUN`` first makes that file: similarities of three seeds, of a random change and of
unrelated texts from ``experiments/results/minilm``, words from RUN, the run folder of a ``bertft diff`` of a parser on
the same text (docs/study.md has the commands).
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any, NamedTuple

from bertft.report.figure import csv_text
from bertft.report.palette import DARK, DARK_PAGE, LIGHT, LIGHT_PAGE, MARKERS, spread
from bertft.runs.rows import read_results
from bertft.runs.vocabulary import MeasureName, noise_of

HERE = Path(__file__).parent
CSV = HERE / "front.csv"
RESULTS = HERE.parents[1] / "experiments" / "results" / "minilm"
RSA = "rsa_cosine_pearson"
COLUMNS = ("curve", "layer", "word", "value", "low", "high", "n")
TASKS = {"dep": "parsing", "mnli": "inference", "squad": "question\nanswering"}
NOISE, NULL = "random change", "unrelated texts"
MOST, LEAST = "moved most", "moved least"
SHOWN = {MOST: 6, LEAST: 3}  # words
STYLE: dict[str, Any] = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,
}


class Point(NamedTuple):
    """One row of ``front.csv``; ``word`` is empty for the similarity of a layer."""

    curve: str
    layer: int
    word: str
    value: float
    low: float | None
    high: float | None
    n: int | None


def points_of(run: Path) -> list[Point]:
    """Return the numbers of the picture: similarities by layer, then words at the top layer of ``run``."""
    with (RESULTS / "fig2_rsa_rsa_by_layer.csv").open(encoding="utf8", newline="") as file:
        found = [_point(row["model"], row) for row in csv.DictReader(file)]
    names = {(noise_of("dep"), RSA): NOISE, ("dep", f"{RSA}_null"): NULL}
    with (RESULTS / "beyond_size.csv").open(encoding="utf8", newline="") as file:
        rows = [(names.get((row["model"], row["measure"])), row) for row in csv.DictReader(file)]
    found += [_point(name, row) for name, row in rows if name]
    local = [row for row in read_results(run / "results.csv") if (row.model, row.task) == ("dep", "local")]
    top = max(row.layer or 0 for row in local)
    forms = sorted((row for row in local if row.layer == top), key=lambda row: row.value)
    for name, chosen in ((MOST, forms[: SHOWN[MOST]]), (LEAST, forms[-SHOWN[LEAST] :])):
        for row in chosen:
            label = str(MeasureName.parse(row.measure).label)
            found.append(Point(name, top, label, row.value, row.low, row.high, row.n))
    return found


def _point(name: str, row: dict[str, str]) -> Point:
    low, high = (float(row[key]) if row[key] else None for key in ("low", "high"))
    n = int(row["n"]) if row["n"] else None
    return Point(name, int(row["layer"]), row.get("word", ""), float(row["value"]), low, high, n)


def read_points() -> list[Point]:
    """Return the rows of ``front.csv``."""
    with CSV.open(encoding="utf8", newline="") as file:
        return [_point(row["curve"], row) for row in csv.DictReader(file)]


def draw(points: list[Point], path: Path, *, dark: bool = False) -> None:
    """Draw similarity by layer at the left, words at the right."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours, page = (DARK, DARK_PAGE) if dark else (LIGHT, LIGHT_PAGE)
    inked = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor")
    style = {**STYLE, **dict.fromkeys(inked, page["text"]), "axes.facecolor": page["page"]}
    with matplotlib.rc_context(style):
        canvas = Figure(figsize=(7.2, 3.6), dpi=190, layout="constrained", facecolor=page["page"])
        FigureCanvasAgg(canvas)
        left, right = canvas.subplots(1, 2, width_ratios=(3, 2.2))
        _layers(left, points, colours, page["soft"])
        _words(right, points, colours["c0"], page["soft"])
        canvas.savefig(path, metadata={"Software": None})


def _layers(axes: Any, points: list[Point], colours: dict[str, str], soft: str) -> None:
    """Draw the similarity of each task by layer, with its interval; random change and unrelated texts in grey."""
    noise, null = ([p for p in points if p.curve == name] for name in (NOISE, NULL))
    layers = [p.layer for p in noise]
    axes.fill_between(layers, [p.value for p in null], [p.high for p in null], color=soft, alpha=0.5, linewidth=0)
    axes.plot(layers, [p.value for p in noise], color=soft, linestyle=(0, (5, 2)), linewidth=1.4)
    ends = []
    for at, task in enumerate(TASKS):
        own, colour = [p for p in points if p.curve == task], colours[f"c{at}"]
        axes.fill_between(layers, [p.low for p in own], [p.high for p in own], color=colour, alpha=0.22, linewidth=0)
        line = {"color": colour, "marker": MARKERS[f"c{at}"], "linewidth": 1.9, "markersize": 5}
        axes.plot(layers, [p.value for p in own], clip_on=False, **line)
        ends.append(own[-1].value)
    places = spread([*ends, noise[-1].value, null[-1].value], 0.1)
    labels = [*TASKS.values(), "random change\nof the same size", "unrelated texts"]
    for place, label, colour in zip(places, labels, [*(colours[f"c{k}"] for k in range(3)), soft, soft], strict=True):
        axes.text(layers[-1] + 0.25, place, label, va="center", color=colour, size=8.5, linespacing=0.95)
    axes.set_xlim(-0.1, layers[-1])
    axes.set_ylim(0, 1.03)
    axes.set_xticks(layers)
    axes.set_xlabel("layer (0 = embeddings)")
    axes.set_ylabel("RSA to the base (1 = the same)")
    axes.set_title("How much of each layer is left", loc="left", fontweight="bold", size=10)


def _words(axes: Any, points: list[Point], colour: str, soft: str) -> None:
    """Draw the words that parsing moved most, and in grey those that it moved least, each with its interval."""
    words = [p for p in points if p.word][::-1]
    for place, point in enumerate(words):
        shown = colour if point.curve == MOST else soft
        axes.plot([point.low, point.high], [place, place], color=shown, linewidth=1.8)
        axes.plot([point.value], [place], color=shown, marker=MARKERS["c0"], markersize=5)
    axes.set_yticks(range(len(words)), [p.word for p in words])
    axes.set_ylim(-0.6, len(words) - 0.4)
    axes.set_xlim(0, max(p.high or p.value for p in words) * 1.08)
    axes.set_xlabel(f"local RSA, layer {words[0].layer} (1 = the same)")
    axes.tick_params(axis="y", length=0)
    axes.set_title("Words that parsing moved", loc="left", fontweight="bold", size=10)


def main(run: str = "") -> None:
    """Write ``front.csv`` if a run folder is given, and both pictures."""
    if run:
        rows = [
            [round(cell, 5) if isinstance(cell, float) else cell for cell in point] for point in points_of(Path(run))
        ]
        CSV.write_text(csv_text([COLUMNS, *rows]), encoding="utf8")
    points = read_points()
    draw(points, HERE / "front_light.png")
    draw(points, HERE / "front_dark.png", dark=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

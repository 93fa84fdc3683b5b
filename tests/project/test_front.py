"""The front door: numbers of the README and of docs/study.md beside their tables; its picture; the comparison.

Numbers are searched as written, with their intervals.
"""

from __future__ import annotations

import csv
import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import bertft
from bertft.cli.app import app
from bertft.report.lines import Context, context, number
from bertft.report.page.answer import Said
from bertft.report.page.direction_words import read_ends
from bertft.runs.rows import COLUMNS, read_results
from bertft.study.diff.parts import PARTS, read_words
from bertft.study.diff.result import Difference
from bertft.study.diff.verdict import Found, at_most

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf8")
STUDY = (ROOT / "docs" / "study.md").read_text(encoding="utf8")
RESULTS = ROOT / "experiments" / "results"
FRONT = ROOT / "docs" / "pictures"
picture = runpy.run_path(str(FRONT / "front.py"))
RSA = "rsa_cosine_pearson"


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf8", newline="") as file:
        return list(csv.DictReader(file))


def found(table: str, model: str, layer: int, measure: str, **where: str) -> tuple[float, float, float]:
    """Return value and interval of the one row of a table of experiments/results."""
    wanted = {"model": model, "layer": "" if layer < -1 else str(layer), "measure": measure, **where}
    (row,) = [r for r in read(RESULTS / f"{table}.csv") if all(r[k] == v for k, v in wanted.items())]
    return float(row["value"]), float(row["low"]), float(row["high"])


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def table_under(text: str, heading: str) -> list[list[str]]:
    """Return head and rows of the first table after a heading, without the line of dashes."""
    lines = f"\n{text}".partition(f"\n{heading}\n")[2].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    stop = next((i for i, line in enumerate(lines) if i > start and not line.startswith("|")), len(lines))
    head, _, *rows = cells("\n".join(lines[start:stop]))
    return [head, *rows]


# What was found ----------------------------------------------------------------------------------------------------

# the claim of the README, then table, encoder, layer or k, measure, further columns, digits
CLAIMS = [
    (1, "minilm_full/fig1_structural_probes", "mnli", 3, "uuas_difference", {}, 3),
    (2, "minilm/fig1_structural_probes", "mnli", 3, "dspr_difference", {}, 3),
    (2, "minilm/fig1_structural_probes", "dep", 3, "dspr_difference", {}, 3),
    (3, "minilm/fig2_rsa_rsa_by_layer", "dep", 3, RSA, {}, 2),
    (3, "minilm/fig2_rsa_rsa_by_layer", "squad", 3, RSA, {}, 2),
    (3, "minilm/fig2_rsa_rsa_by_layer", "mnli", 3, RSA, {}, 2),
    (4, "minilm/fig3_freezing", "mnli", 3, "accuracy", {}, 3),
    (4, "minilm/fig3_freezing", "mnli", -1, "accuracy", {}, 3),
    (4, "minilm/fig3_freezing", "squad", 3, "f1", {}, 1),
    (4, "minilm/fig3_freezing", "squad", -1, "f1", {}, 1),
    (5, "minilm/fig4_truncation", "mnli", 3, "accuracy", {}, 3),
    (5, "minilm/fig4_truncation", "mnli", 6, "accuracy", {}, 3),
    (6, "minilm/fig5_domains", "squad", 6, f"{RSA}_difference", {"data": "squad - wikipedia"}, 3),
    (6, "minilm_full/fig5_domains", "mnli", 6, f"{RSA}_difference", {"data": "mnli - wikipedia"}, 3),
    (6, "minilm/fig5_domains", "dep", 6, f"{RSA}_difference", {"data": "dep - wikipedia"}, 3),
]


def claims() -> dict[int, str]:
    """Return the lines of the README's list of claims by number."""
    text = README.partition("\n## What was found\n")[2].partition("\n## ")[0]
    found = re.findall(r"^(\d)\. (.*?)(?=^\d\. |\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    return {int(number): " ".join(line.split()) for number, line in found}


def test_the_six_claims_have_the_numbers_of_their_tables():
    lines = claims()
    assert sorted(lines) == [1, 2, 3, 4, 5, 6]
    for claim, table, model, layer, measure, where, digits in CLAIMS:
        assert number(*found(table, model, layer, measure, **where), digits) in lines[claim], (claim, model, measure)


def test_every_interval_of_the_claims_is_checked():
    written = [text for line in claims().values() for text in re.findall(r"-?[\d.]+ \[[^\]]*\]", line)]
    known = {number(*found(table, model, layer, measure, **where), digits)
             for _, table, model, layer, measure, where, digits in CLAIMS}  # fmt: skip
    assert set(written) == known


@pytest.mark.parametrize("model", ["dep", "mnli", "squad"])
def test_the_table_of_the_study_has_the_numbers_of_its_files(model):
    _, *rows = table_under(STUDY, "## A study of real text")
    (row,) = [row for row in rows if row[0].startswith(f"{model}:")]
    by_layer = [found("minilm_full/fig2_rsa_rsa_by_layer", model, layer, RSA) for layer in range(7)]
    expected = [f"{value:.2f}" for value, _, _ in by_layer]
    assert row[2] == " ".join([*expected[:-1], number(*by_layer[-1], 2)])
    for measure, digits in {"dep": {"las_conll18": 1}, "mnli": {"accuracy": 3}, "squad": {"exact_match": 1, "f1": 1}}[
        model
    ].items():
        assert number(*found("minilm_full/models", model, -2, measure, data=model, seed=""), digits) in row[1]


# The picture -------------------------------------------------------------------------------------------------------


def test_the_pictures_are_drawn_from_the_table(tmp_path):
    points = picture["read_points"]()
    for name, dark in (("front_light.png", False), ("front_dark.png", True)):
        picture["draw"](points, tmp_path / name, dark=dark)
        assert (tmp_path / name).stat().st_size > 20_000
        assert (FRONT / name).stat().st_size < 300_000
    assert (tmp_path / "front_light.png").read_bytes() != (tmp_path / "front_dark.png").read_bytes()


def test_files_named_by_the_readme_as_html_exist():
    named = re.findall(r'(?:src|srcset)="([^"]+)"', README)
    assert len(named) == 2 and all((ROOT / name).is_file() for name in named)


def test_the_picture_has_the_numbers_of_the_results():
    points = {(p.curve, p.layer, p.word): (p.value, p.low, p.high) for p in picture["read_points"]()}
    for model in ("dep", "mnli", "squad"):
        for layer in range(7):
            assert points.pop((model, layer, "")) == found("minilm/fig2_rsa_rsa_by_layer", model, layer, RSA)
    for layer in range(7):
        assert points.pop(("random change", layer, "")) == found("minilm/beyond_size", "noise of dep", layer, RSA)
        value, _, high = points.pop(("unrelated texts", layer, ""))
        (row,) = [r for r in read(RESULTS / "minilm" / "beyond_size.csv")
                  if (r["model"], r["layer"], r["measure"]) == ("dep", str(layer), f"{RSA}_null")]  # fmt: skip
        assert (value, high) == (round(float(row["value"]), 5), round(float(row["high"]), 5))
    forms = {row.measure: row for row in read_results(FRONT / "diff" / "results.csv") if row.task == "local"
             and row.layer == 6}  # fmt: skip
    assert len(points) == 9
    for (_, layer, word), shown in points.items():
        row = forms[f"local_rsa_form={word}"]
        assert layer == 6 and shown == tuple(round(x, 5) for x in (row.value, row.low, row.high))
    order = sorted(forms.values(), key=lambda row: row.value)
    assert [f"local_rsa_form={word}" for _, _, word in points] == [r.measure for r in [*order[:6], *order[-3:]]]


def test_the_transcript_is_the_verdict_of_its_results():
    (block,) = re.findall(r"^```console\n\$ bertft diff (.*?)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert f"bertft diff {block[0]}" in STUDY  # with the commands that made the models
    folder = FRONT / "diff"
    rows = read_results(folder / "results.csv")
    config = {"base": "builtin:minilm", "tuned": {"dep": "runs/dep"}}
    told = Found(rows, context(config, rows), {}, read_words(folder), read_ends(folder))
    said = at_most([line for part in PARTS for line in part.said(told)], 10)
    assert block[1].split() == " ".join(Difference(rows, said, told).verdict).split()


# The comparison ----------------------------------------------------------------------------------------------------

COMPARED = (ROOT / "docs" / "compared.md").read_text(encoding="utf8")
ROWS = [
    "exact at a million tokens",
    "intervals",
    "unrelated texts score 0",
    "probes",
    "decoders",
    "results on one page",
    "speed",
    "tested against other code",
]


def wide(text: str) -> list[list[str]]:
    """Return the rows of the table of all tools."""
    start = text.index("| | bertft | ")
    return cells(text[start:].partition("\n\n")[0])


def test_the_comparison_of_the_readme_is_that_of_its_page():
    assert wide(README) == wide(COMPARED)
    head, _, *rows = wide(README)
    assert len(rows) == 8 and [row[0] for row in rows] == ROWS
    words = [cell for row in rows if row[0] != "speed" for cell in row[1:]]
    assert set(words) == {"yes", "partly", "no"} and len(head) == 8


@pytest.mark.parametrize("row", ROWS)
def test_every_cell_of_the_comparison_has_a_source(row):
    (head, _, *rows) = wide(COMPARED)
    (cells_of_row,) = [one[1:] for one in rows if one[0] == row]
    _, *sources = table_under(COMPARED, f"## {row.capitalize()}")
    assert [one[0] for one in sources] == head[1:]
    assert [one[1] for one in sources] == cells_of_row
    assert all(len(one[2]) > 8 for one in sources)


def test_every_peer_of_the_comparison_has_a_version():
    _, *versions = table_under(COMPARED, "# Compared with other tools")
    assert [row[0] for row in versions] == wide(COMPARED)[0][2:]
    assert all(re.search(r"\d\.\d+\.\d|at [0-9a-f]{7}\b", row[1]) for row in versions)
    dated = "30 November 2026"
    assert dated in COMPARED and dated in README


def test_the_speed_of_the_comparison_is_that_of_the_benchmarks():
    rows = cells((ROOT / "docs" / "benchmarks" / "benchmarks.md").read_text(encoding="utf8"))
    times = {
        row[2]: float(row[5])
        for row in rows
        if row[2] in ("pytorch-cka", "rsatoolbox") and row[1] == "1" and "n=5000, d=768" in row[0]
    }
    (cell,) = [row[1] for row in wide(COMPARED) if row[0] == "speed"]
    assert cell == f"CKA {times['pytorch-cka']:.0f}x, RSA {times['rsatoolbox']:.0f}x"
    assert all(f"{times[name]} times {name}" in COMPARED for name in times)


def test_the_page_of_the_installation_names_every_extra():
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf8")
    _, *rows = table_under(page, "# Installation")
    listed = (ROOT / "pyproject.toml").read_text(encoding="utf8").partition("[project.optional-dependencies]")[2]
    extras = re.findall(r"^(\w+) = \[", listed.partition("\n[")[0], re.MULTILINE)
    assert sorted(row[0].strip("`") for row in rows) == sorted(extras)


# llms.txt and links ------------------------------------------------------------------------------------------------

LLMS = (ROOT / "llms.txt").read_text(encoding="utf8")


def test_llms_txt_names_every_command_and_only_options_that_exist():
    tree = typer.main.get_command(app)
    options: dict[str, set[str]] = {}
    for name, command in tree.commands.items():
        inner = list(getattr(command, "commands", {}).values()) or [command]
        options[name] = set.intersection(*({option for p in one.params for option in p.opts} for one in inner))
    assert set(re.findall(r"`bertft ([a-z]+)", LLMS)) == set(options)
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", LLMS)) <= set().union(*options.values()) | {"--help"}
    assert all({"--json", "--quiet"} <= one for one in options.values())
    (said,) = re.findall(r"`--dry-run` \(([^)]*)\)", LLMS)
    assert {name for name, one in options.items() if "--dry-run" in one} == set(said.split(", "))


def test_llms_txt_tells_the_forms_of_json():
    assert f"(one number a row: {', '.join(COLUMNS)})" in " ".join(LLMS.split())
    result = Difference([], [Said("cost", "nothing")], Found([], Context(()), {}))
    told = re.search(r"`diff`: `(\{.*?\]\})`", LLMS)[1]
    assert re.findall(r'"(\w+)":', told) == list(json.loads(result.to_json()))


def test_llms_txt_names_what_exists():
    for target in re.findall(r"\]\(([^)]+)\)", LLMS):
        assert (ROOT / target).is_file(), target
    assert (ROOT / re.search(r"`(bertft/study/\S+\.json)`", LLMS)[1]).is_file()
    for name in re.findall(r"`bertft\.([\w.]+)\(", LLMS):
        value: Any = bertft
        for part in name.split("."):
            value = getattr(value, part)
        assert callable(value), name


def targets(page: Path) -> Iterator[Path]:
    """Yield the pages that ``page`` links to or lists in a toctree."""
    text = page.read_text(encoding="utf8")
    for target in re.findall(r"\]\(([^)\s#]+\.md)", text):
        if not target.startswith("http"):
            yield (page.parent / target).resolve()
    for block in re.findall(r"^```\{toctree\}\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            if line and not line.startswith(":"):
                entry = re.sub(r".*<(.*)>", r"\1", line.strip())
                yield from page.parent.glob(f"{entry}.md")


def test_every_page_can_be_reached_from_the_readme():
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in seen:
            seen.add(page)
            waiting += targets(page)
    made = ROOT / "docs" / "notebooks" / "runs"  # by executed notebooks, ignored by git
    assert {page for page in (ROOT / "docs").rglob("*.md") if made not in page.parents} <= seen

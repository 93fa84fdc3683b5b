"""The site's own parts: links, pages made from code, definitions."""

from __future__ import annotations

import re
import runpy
import sys
import types
from pathlib import Path

import pytest

from bertft.runs.catalogue import CATALOGUE, COMPARISONS, METRICS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
site = runpy.run_path(str(ROOT / ".ci" / "docs.py"))


@pytest.fixture
def made(monkeypatch):
    """Return the names of the modules that make pages."""
    monkeypatch.syspath_prepend(str(DOCS / "site"))
    found = runpy.run_path(str(DOCS / "site" / "generated_pages.py"))
    for name in ("command_pages", "figure_pages"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return found


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ("b.html", None),
        ("b.html#here", None),
        ("#own", None),
        ("folder/c.txt", None),
        ("https://aclanthology.org/2020.blackboxnlp-1.4/", None),
        ("b.html#there", "no such anchor"),
        ("#here", "no such anchor"),
        ("gone.html", "no such file"),
        ("folder/../gone.txt", "no such file"),
        ("https://localhost/x", "expected a host with a domain"),
        ("https:///x.org", "expected a host with a domain"),
        ("https://a.org_b/x", "expected a host with a domain"),
        ("/b.html", "expected a relative link or one to another site"),
        ("file:///b.html", "expected a relative link or one to another site"),
    ],
)
def test_a_link_that_leads_nowhere_is_named(tmp_path, link, fault):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "c.txt").write_text("c", encoding="utf8")
    (tmp_path / "a.html").write_text(f'<h1 id="own">a</h1><a href="{link}">x</a>', encoding="utf8")
    (tmp_path / "b.html").write_text('<p id="here">b</p>', encoding="utf8")
    found, count = site["broken_links"](tmp_path)
    assert (found, count) == ([f"a.html: {link}: {fault}"] if fault else [], 1)


def test_outputs_in_a_notebook_are_named(tmp_path):
    cell = '{"cell_type": "code", "execution_count": %s, "outputs": %s}'
    for name, count, outputs in (("clean", "null", "[]"), ("run", "3", "[]"), ("shown", "null", '[{"a": 1}]')):
        (tmp_path / f"{name}.ipynb").write_text('{"cells": [' + cell % (count, outputs) + "]}", encoding="utf8")
    assert [line.partition(".")[0] for line in site["kept_outputs"](tmp_path)] == ["run", "shown"]
    assert site["kept_outputs"](DOCS / "notebooks") == []


def test_every_public_package_is_in_the_reference(tmp_path):
    assert site["absent_packages"](DOCS / "reference") == []
    (tmp_path / "some.md").write_text("".join(f".. automodule:: {p}\n" for p in site["PACKAGES"][1:]), encoding="utf8")
    assert site["absent_packages"](tmp_path) == ["bertft: on no page of docs/reference"]


def test_links_of_a_readme_lead_to_pages_and_files(made):
    text = "[a](docs/zero.md#x) [b](experiments/README.md#y) ![c](experiments/r.png) [d](https://e.org/f) [g](#h)"
    assert made["rebased"](text, ".") == (
        "[a](zero.md#x) [b](experiments.md#y) ![c](../experiments/r.png) [d](https://e.org/f) [g](#h)"
    )
    picture = (
        '<picture>\n  <source media="(x)" srcset="docs/dark.png">\n  <img alt="a, b" src="docs/light.png">\n</picture>'
    )
    assert made["rebased"](picture, ".") == "![a, b](light.png){.only-light}\n![a, b](dark.png){.only-dark}"
    assert made["rebased"]("[a](../tests) [e](benchmarks) [b](../CONTRIBUTING.md) [c](../LICENSE)", "docs") == (
        "a (`tests`) e (`docs/benchmarks`) b (`CONTRIBUTING.md`) [c](../LICENSE)"
    )
    assert made["rebased"]("[a](../docs/zero.md) [b](results/r.png)", "experiments") == (
        "[a](zero.md) [b](../experiments/results/r.png)"
    )


def test_the_page_of_commands_has_every_option():
    sys.path.insert(0, str(DOCS / "site"))
    try:
        from command_pages import commands, leaves, plain
    finally:
        sys.path.pop(0)
    import typer

    from bertft.cli.app import app

    sections = dict(re.findall(r"^## `bertft (.*?)`\n(.*?)(?=^## |\Z)", commands(), re.MULTILINE | re.DOTALL))
    found = dict(leaves(typer.main.get_command(app)))
    assert set(sections) == {" ".join(names) for names in found} and len(found) >= 9
    for names, command in found.items():
        for param in command.params:
            for flag in param.opts if param.param_type_name == "option" else ():
                assert f"`{flag}`" in sections[" ".join(names)]
    assert plain("a [bold]b[/bold] | [c]\n  *d* <e>") == r"a b \| \[c\] \*d\* \<e\>"


def test_every_figure_has_a_caption_and_its_numbers():
    made = runpy.run_path(str(DOCS / "site" / "figure_pages.py"))
    page = made["gallery"](ROOT)
    for setting in made["SETTINGS"]:
        for path in (ROOT / "experiments" / "results" / setting).glob("*.png"):
            assert f"results/{setting}/{path.name})" in page
    tables = re.findall(r"<\.\./(experiments/.*?\.csv)>", page)
    assert len(tables) == page.count("###") and all((ROOT / table).is_file() for table in tables)
    shown = re.findall(r"/(\w+)\.png\)\n\n\{download\}`the numbers <.*/(\w+)\.csv>`", page)
    assert {("lora_weights", "lora_weights"), ("fig1_structural_probes_difference", "fig1_structural_probes")} <= {
        *shown
    }


# Definitions ---------------------------------------------------------------------------------------------------------


def test_every_measure_is_defined():
    page = (DOCS / "definitions.md").read_text(encoding="utf8")
    named = set(re.findall(r"`([a-z0-9_]+)`", page))
    families = {f"rsa_{metric}_{compare}" for metric in METRICS if metric in named for compare in COMPARISONS}
    assert families and set(COMPARISONS) <= named and "rsa_METRIC_COMPARISON" in page
    families |= {name for name in CATALOGUE if name.startswith(("swap_in_", "swap_out_")) and "swap_in_MEASURE" in page}
    families |= {f"direction_share_{j}" for j in range(1, 11)}
    known = {name.removesuffix("_kept") for name in CATALOGUE} - families
    assert not known - named


def test_the_table_of_invariances_is_the_tested_one():
    page = (DOCS / "definitions.md").read_text(encoding="utf8")
    rows = re.findall(r"^\| `(\w+)` \| ([a-z, ]+) \| ([a-z, ]+) \| [^|]+ \|$", page, re.MULTILINE)
    stated = {name: (set(x.split(", ")), set(y.split(", "))) for name, x, y in rows}
    measures = runpy.run_path(str(ROOT / "tests" / "similarity" / "test_invariances.py"))["MEASURES"]
    others = {"cka_debiased": "cka", "cka_biased": "cka biased", "mutual_knn": "knn"}
    of_one = ("effective_dimension", "anisotropy")
    for name, found in stated.items():
        if name.startswith("rsa_"):
            tested = [measures[f"{name.replace('_', ' ')} {compare}"][1:] for compare in COMPARISONS]
            assert all(found == tuple(each) for each in tested), name
        elif name in of_one:
            assert found == (measures[f"{name} of x"][1], measures[f"{name} of y"][2]), name
        else:
            assert found == tuple(measures[others.get(name, name)][1:]), name
    tested = {f"rsa_{metric}" for metric in METRICS} | {n for n in measures if " of " not in n and "rsa" not in n}
    assert set(stated) == {n for n in tested if n not in others.values()} | set(others) | set(of_one)


def test_a_block_of_one_line_gets_a_class():
    class Node:
        def __init__(self, tagname, text):
            self.tagname, self.text, self.classes = tagname, text, []

        def astext(self):
            return self.text

        def __getitem__(self, name):
            return getattr(self, name)

    blocks = [Node("literal_block", "bertft doctor\n"), Node("literal_block", "a\nb"), Node("paragraph", "a")]
    tree = types.SimpleNamespace(findall=lambda wanted: filter(wanted, blocks))
    runpy.run_path(str(DOCS / "site" / "one_line_blocks.py"))["mark"](None, tree)
    assert [block.classes for block in blocks] == [["one-line"], [], []]


def test_the_page_of_commands_lists_them_and_has_no_empty_column(made):
    page = made["PARTS"]["commands"](None)
    listed = re.findall(r"^\| \[`(bertft [a-z ]+)`\]\(#([a-z-]+)\) \| \S", page, re.MULTILINE)
    sections = re.findall(r"^## `(.+)`$", page, re.MULTILINE)
    assert len(sections) >= 9 and listed == [(name, name.replace(" ", "-")) for name in sections]
    for section in page.split("\n## ")[1:]:
        cells = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
        heads = cells[0]
        assert heads[-1] == "meaning" and ("default" in heads) == (len(heads) == 3)
        if "default" in heads:
            assert any(len(row) == 3 and row[1].strip() for row in cells[1:]), section[:40]

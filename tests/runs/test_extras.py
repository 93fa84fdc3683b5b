"""Packages that may be missing: what works without them, and the sentence that names the extra."""

from __future__ import annotations

import sys

import pytest

from bertft.cli.main import run
from bertft.errors import BertftError
from bertft.runs.extras import EXTRAS, need

TEXT = "builtin:synthetic?size=20"


@pytest.fixture
def without(monkeypatch):
    """Hide every module of the extras except those of some."""

    def hide(*kept: str) -> None:
        for extra, modules in EXTRAS.items():
            for module in () if extra in kept else modules:
                monkeypatch.setitem(sys.modules, module, None)

    return hide


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_missing_package_is_named_with_the_command_that_installs_it(without):
    need("data", "a table")
    without("report", "peft")
    need("report", "a page")
    with pytest.raises(BertftError, match=r"^a table needs the package datasets: pip install 'bertft\[data\]'$"):
        need("data", "a table")


def test_a_diff_is_printed_without_any_extra(without, here, tiny_model, capsys, monkeypatch):
    monkeypatch.setattr("bertft.study.diff.parts.NULL", 0)
    without()
    assert run(["diff", f"base={tiny_model}", f"same={tiny_model}", "--text", TEXT, "-q"]) == 0
    assert "unchanged" in capsys.readouterr().out and list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("extra", "arguments"),
    [
        ("report", ["diff", "{model}", "{model}", "--text", TEXT, "--out", "run"]),
        ("report", ["rsa", "--base", "{model}", "--tuned", "x={model}", "--text", TEXT, "--out", "run"]),
        ("report", ["study", "quickstart", "--out", "run"]),
        ("report", ["report", "{here}"]),
        ("data", ["diff", "{model}", "{model}", "--text", "nobody/nothing"]),
        ("data", ["rsa", "--base-vectors", "{here}/x.parquet", "--tuned-vectors", "{here}/x.parquet", "--out", "run"]),
        ("peft", ["diff", "{here}/adapter", "--text", TEXT]),
    ],
)
def test_a_command_that_needs_an_extra_names_it_and_leaves_nothing(extra, arguments, without, here, tiny_model, capsys):
    (here / "x.parquet").touch()
    (here / "adapter").mkdir()
    (here / "adapter" / "adapter_config.json").write_text("{}", encoding="utf8")
    before = sorted(here.rglob("*"))
    without(*(other for other in EXTRAS if other != extra))
    assert run([one.format(model=tiny_model, here=here) for one in arguments]) == 2
    shown = capsys.readouterr().err.splitlines()
    assert shown[-1].startswith("error: ") and shown[-1].endswith(f"pip install 'bertft[{extra}]'")
    assert sorted(here.rglob("*")) == before

"""Run folder written by an earlier version.

It opens, reports and resumes.

``old_run`` holds a whole small study of an encoder of 2 x 16, as the version before the packages were separated wrote
it: config, rows, markers, models and structural probes; figures, page, trees and edge probes are left out. ENCODER
stands for the encoder's path.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from bertft.report import write_report
from bertft.runs.rows import read_results
from bertft.study import read_study, run_study

OLD = Path(__file__).parent / "old_run"
STAGES = 15


class Lines:
    """A progress that keeps its messages."""

    def __init__(self):
        from bertft.runs.progress import SILENT

        self.said, self.step = [], SILENT.step

    def say(self, message):
        self.said.append(message)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the old run with the path of its encoder; a marker's key is the digest of its settings, as before."""
    shutil.copytree(OLD, tmp_path / "old")
    encoder = str((tmp_path / "old" / "encoder").resolve())
    run = tmp_path / "old" / "run"
    for path in [run / "config.yaml", *run.rglob("*.done.json")]:
        path.write_text(path.read_text(encoding="utf8").replace("ENCODER", encoder), encoding="utf8")
    for path in run.rglob("*.done.json"):
        mark = json.loads(path.read_text(encoding="utf8"))
        settings = json.dumps(mark["settings"], sort_keys=True)
        mark["key"] = hashlib.sha256(settings.encode()).hexdigest()
        path.write_text(json.dumps(mark), encoding="utf8")
    return run


def test_every_stage_of_an_old_run_is_done(folder, monkeypatch):
    monkeypatch.setattr("bertft.report.write.draw", lambda figure: (b"png", b"<svg/>"))  # a test below draws
    before = (folder / "results.csv").read_bytes()
    lines = Lines()
    page = run_study(read_study(folder), folder, progress=lines)
    assert lines.said[0].startswith(f"{STAGES} of {STAGES} stages were done before")
    assert (folder / "results.csv").read_bytes() == before
    assert "squad" in page.read_text(encoding="utf8")


@pytest.fixture
def no_report(monkeypatch):
    """Leave out figures and page, which another test makes."""
    monkeypatch.setattr("bertft.study.analysis.write_report", lambda folder, **options: folder / "report.html")


def test_an_old_run_keeps_its_draw_and_says_so(folder, no_report):
    config = read_study(folder)
    newer = dataclasses.replace(config, rsa=dataclasses.replace(config.rsa, draw="stream"))
    lines = Lines()
    run_study(newer, folder, progress=lines)
    assert lines.said[0] == f"{folder}: begun with rsa.draw: permutation, and resumed with it"
    assert lines.said[1].startswith(f"{STAGES} of {STAGES} stages were done before")


def test_an_old_run_is_reported_without_its_encoder(folder):
    shutil.rmtree(folder.parent / "encoder")
    page = write_report(folder)
    assert page.is_file() and (folder / "figures" / "rsa_by_layer.png").is_file()


def test_an_old_run_resumes_to_the_same_tokens_and_rows(folder, no_report):
    """One stage's marker is gone: the stage is done again, on the tokens that the earlier version drew."""
    (folder / "rsa" / "plain.done.json").unlink()
    old = read_results(folder / "rsa" / "plain.csv")
    lines = Lines()
    run_study(read_study(folder), folder, progress=lines)
    assert lines.said[0].startswith(f"{STAGES - 1} of {STAGES} stages were done before")
    new = read_results(folder / "rsa" / "plain.csv")
    assert [(r.key, r.n) for r in new] == [(r.key, r.n) for r in old]
    for row, before in zip(new, old, strict=True):
        assert row.value == pytest.approx(before.value, abs=2e-5)  # another machine's encoder; other tokens: 1e-2
        assert row.low == pytest.approx(before.low, abs=2e-4) if before.low is not None else row.low is None

"""Run folders: stages that run once, refusals, and the lock."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from bertft.errors import BertftError
from bertft.runs.folder import RunFolder, Stage
from bertft.runs.rows import Row

ROWS = [Row("m", "rsa", "t", 0, "x", 0.5)]


def test_stage_is_done_if_its_rows_and_marker_agree(tmp_path):
    folder = RunFolder(tmp_path / "run", "a: 1\n")
    stage = Stage("rsa/t", {"tokens": 5}, lambda: ROWS)
    with folder.claim():
        assert folder.done(stage) is None
        folder.finish(stage, ROWS, 1.5)
        assert folder.done(stage) == ROWS
        assert folder.done(dataclasses.replace(stage, depends={"tokens": 6})) is None
        assert folder.done(dataclasses.replace(stage, product="models/x")) is None
    table = tmp_path / "run" / "rsa" / "t.csv"
    table.write_text(table.read_text().replace("0.5", "0.6"))
    assert folder.done(stage) is None
    (tmp_path / "run" / "rsa" / "t.done.json").write_text("{", encoding="utf8")
    assert folder.done(stage) is None


def test_another_study_is_refused_without_touching_the_folder(tmp_path):
    with RunFolder(tmp_path / "run", "tasks:\n  dep: {epochs: 3}\n").claim():
        pass
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    other = RunFolder(tmp_path / "run", "tasks:\n  dep: {epochs: 2}\n")
    with pytest.raises(BertftError, match=r"another study \(tasks\.dep\.epochs is 3 there and 2 here\)"):
        other.check()
    with pytest.raises(BertftError, match="another study"), other.claim():
        pass
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    with pytest.raises(BertftError, match="x is set only here"):
        RunFolder(tmp_path / "run", "tasks:\n  dep: {epochs: 3}\nx: 1\n").check()
    (tmp_path / "run" / "config.yaml").write_text("- 1\n", encoding="utf8")
    with pytest.raises(BertftError, match=r"its config\.yaml holds no settings"):
        other.check()


def test_config_of_the_same_settings_in_other_yaml_is_the_same_study(tmp_path):
    with RunFolder(tmp_path, "# by hand\nseed: 1\ntasks: {dep: {train: 'a', epochs: 3}}\n").claim():
        pass
    written = "tasks:\n  dep:\n    epochs: 3\n    train: a\nseed: 1\n"
    with RunFolder(tmp_path, written).claim():
        assert (tmp_path / "config.yaml").read_text(encoding="utf8") == written


def test_folder_without_a_study_and_a_file_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf8")
    with pytest.raises(BertftError, match="not empty and holds no study"):
        RunFolder(tmp_path, "a: 1\n").check()
    with pytest.raises(BertftError, match="expected a folder, found a file"):
        RunFolder(tmp_path / "notes.txt", "a: 1\n").check()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    (tmp_path / "run" / "models").mkdir(parents=True)
    RunFolder(tmp_path / "run", "a: 1\n").check()  # models made beforehand may wait there


def test_second_process_cannot_claim_a_folder(tmp_path):
    out = tmp_path / "run"
    code = f"from bertft.runs.folder import RunFolder\nwith RunFolder({str(out)!r}, 'a: 1').claim(): pass"
    with RunFolder(out, "a: 1").claim():
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "another bertft process is using this folder" in done.stderr
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("mark", ['{"seconds": null, "finished": "x"}', '{"seconds": "long"}', "[]", "{"])
def test_a_marker_without_usable_times_is_skipped(tmp_path, mark):
    folder, stages = RunFolder(tmp_path, ""), [Stage(name, {}, lambda: ROWS) for name in ("good", "bad")]
    folder.finish(stages[0], ROWS, 1.234)
    (tmp_path / "bad.done.json").write_text(mark, encoding="utf8")
    assert folder.seconds(stages) == {"good": 1.23}
    assert folder.finished(stages[:1]) is not None

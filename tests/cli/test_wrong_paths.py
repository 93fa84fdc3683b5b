"""A path that cannot be right is refused before torch is imported, which takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bertft.cli.main import run

ROOT = Path(__file__).parents[2]
# Runs the commands on stdin one after the other; prints the code of each, its report and the libraries then imported.
PROGRAM = """
import contextlib, io, json, sys
from bertft.cli.main import run
for arguments in json.load(sys.stdin):
    with contextlib.redirect_stderr(io.StringIO()) as shown:
        code = run(arguments)
    print(json.dumps([code, shown.getvalue(), sorted({"torch", "transformers", "scipy"} & set(sys.modules))]))
"""

TEXT = ["--train", "builtin:synthetic", "--dev", "builtin:synthetic"]
TRAIN = ["--task", "mnli", *TEXT, "--out", "run"]
PROBE = [*TEXT, "--out", "run"]
NO_MODEL = "error: 'no/such/folder': no such model folder, and not a hub id"
NO_HUB = (
    "error: model runs/nothing: no such folder, and not available from the Hugging Face hub "
    "(no connection to the hub, and not in its cache)"
)
NO_TEXT = "error: gone.txt: no such file"
FILE = "error: --out file: expected a folder, found a file"
WRONG = [
    (["diff", "tiny", "no/such/folder"], NO_MODEL),
    (["diff", "tiny", "runs/nothing"], NO_HUB),
    (["diff", "tiny", "empty"], "error: empty: not a model folder, expected a config.json in it"),
    (["diff", "tiny", "file"], "error: file: expected a model folder or a hub id, found a file"),
    (["diff", "tiny", "tiny", "--text", "gone.txt"], NO_TEXT),
    (["diff", "tiny", "tiny", "--out", "file"], FILE),
    (["rsa", "--base", "tiny", "--tuned", "no/such/folder", "--text", "builtin:english", "--out", "run"], NO_MODEL),
    (["rsa", "--base", "tiny", "--tuned", "tiny", "--text", "gone.txt", "--out", "run"], NO_TEXT),
    (["rsa", "--base", "tiny", "--tuned", "tiny", "--text", "builtin:english", "--out", "file"], FILE),
    (["finetune", "--model", "no/such/folder", *TRAIN], NO_MODEL),
    (["finetune", "--model", "tiny", *TRAIN, "--train", "gone.txt"], NO_TEXT),
    (["finetune", "--model", "tiny", *TRAIN, "--out", "file"], FILE),
    (["ablate", "freeze", "--model", "no/such/folder", *TRAIN], NO_MODEL),
    (["probe", "structural", "--model", "no/such/folder", *PROBE], NO_MODEL),
    (["probe", "structural", "--model", "tiny", *PROBE, "--dev", "gone.txt"], NO_TEXT),
    (["probe", "edge", "--model", "no/such/folder", *PROBE], NO_MODEL),
    (["probe", "edge", "--model", "tiny", *PROBE, "--test", "gone.txt"], NO_TEXT),
    (["study", "quickstart", "--out", "file"], FILE),
    (["report", "no/such/folder"], "error: no/such/folder: no such run folder"),
]


@pytest.fixture
def here(tmp_path, tiny_model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").symlink_to(tiny_model)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("", encoding="utf8")
    return tmp_path


def test_a_wrong_path_is_refused_before_torch_is_imported(here, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    commands = json.dumps([arguments for arguments, _ in WRONG])
    done = subprocess.run([sys.executable, "-c", PROGRAM], input=commands, capture_output=True, text=True, check=True)
    for (arguments, sentence), line in zip(WRONG, done.stdout.splitlines(), strict=True):
        assert json.loads(line) == [2, sentence + "\n", []], arguments
    assert not (here / "run").exists()


def test_the_model_of_a_new_study_is_looked_for(here, capsys):
    assert run(["study", "quickstart", "--model", "no/such/folder", "--out", "run", "-q"]) == 2
    assert NO_MODEL in capsys.readouterr().err and not (here / "run").exists()


def test_a_finished_study_needs_its_model_no_more(here, monkeypatch):
    (here / "run").mkdir()
    (here / "run" / "run.json").write_text("{}", encoding="utf8")
    reached = []
    monkeypatch.setattr("bertft.study.run.run_study", lambda *given, **named: reached.append(given))
    monkeypatch.setattr("bertft.study.run.verdict", lambda page: [])
    assert run(["study", "quickstart", "--model", "no/such/folder", "--out", "run", "-q"]) == 0
    assert len(reached) == 1


def test_the_table_of_errors_quotes_what_is_printed():
    page = (ROOT / "docs" / "walk.md").read_text(encoding="utf8")
    for sentence in (NO_MODEL, NO_HUB, FILE.replace("file:", "notes.txt:"), NO_TEXT.replace("gone.txt", "note.txt")):
        assert f"`{sentence.removeprefix('error: ')}`" in page

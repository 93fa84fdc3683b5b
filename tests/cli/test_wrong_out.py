"""A wrong ``--out`` of ``rsa`` and ``diff`` is refused before a model is loaded."""

from __future__ import annotations

import os

import pytest
import yaml

from bertft.cli.main import run

MODELS = {"rsa": ["--base", "base", "--tuned", "tuned"], "diff": ["base", "tuned"]}
HELD = {"command": "diff", "base": "base", "tuned": {"tuned": "tuned"}, "text": "builtin:synthetic", "tokens": 5000,
        "unit": "token", "dtype": "float32", "seed": 1337}  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return the working folder; models are only names, and loading one is a failure."""

    def load(name, **settings):
        raise AssertionError(f"{name} is loaded")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bertft.models.encoder.load_pretrained", load)
    monkeypatch.setattr("bertft.study.paths.check_model", lambda name: None)
    monkeypatch.setattr("bertft.study.rsa_command.pin", lambda name, *kind: name)
    monkeypatch.setattr("bertft.study.diff.run.pin", lambda name, *kind: name)
    for module in ("rsa_command", "diff.run"):
        monkeypatch.setattr(f"bertft.study.{module}.pinned_models", lambda models: models)
    return tmp_path


def compare(command: str, out: str, *options: str) -> int:
    return run([command, *MODELS[command], "--text", "builtin:synthetic", "--out", out, "-q", *options])


def hold(folder, **settings) -> None:
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({**HELD, **settings}), encoding="utf8")


FAULTS = {
    "a file": ("file", "--out file: expected a folder, found a file"),
    "a folder below a file": ("file/run", "--out file/run: expected a folder, found the file "),
    "another run": ("another", "--out another: the folder holds another study (seed is 7 there and 1337 here"),
    "a folder of other things": ("things", "--out things: the folder is not empty and holds no study"),
    "not writable": ("barred/run", "barred: Permission denied"),
}


@pytest.mark.parametrize("fault", [*FAULTS])
@pytest.mark.parametrize("command", [*MODELS])
def test_a_wrong_out_is_refused_before_a_model_is_loaded(here, capsys, monkeypatch, command, fault):
    (here / "file").write_text("", encoding="utf8")
    hold(here / "another", seed=7, **({} if command == "diff" else {"command": "rsa"}))
    for folder in ("things", "barred"):
        (here / folder).mkdir()
    (here / "things" / "notes.txt").write_text("", encoding="utf8")
    access = os.access
    monkeypatch.setattr("os.access", lambda place, mode: place != here / "barred" and access(place, mode))
    before = sorted(here.rglob("*"))
    out, sentence = FAULTS[fault]
    sentence = sentence.replace("seed is 7 there and 1337 here", "") if command == "rsa" else sentence
    assert compare(command, out) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and sentence in shown.err, shown.err
    assert sorted(here.rglob("*")) == before


def test_a_setting_that_the_models_decide_is_no_reason_to_refuse(here, capsys):
    hold(here / "run", skip_first=1)
    with pytest.raises(AssertionError, match="is loaded"):
        compare("diff", "run")
    assert compare("diff", "run", "--skip-first", "0") == 2
    assert "skip_first is set only there" in capsys.readouterr().err

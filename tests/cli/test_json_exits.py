"""What every command with ``--json`` leaves on stdout, exit by exit: JSON its results or the sentence of the error."""

from __future__ import annotations

import errno
import json
import logging
import sys
import warnings
from typing import Any

import pytest
import typer
import yaml

from bertft.cli.app import app
from bertft.cli.main import run
from bertft.errors import BertftError
from bertft.runs.rows import Row, read_results, write_results

TRAINING = ["--train", "builtin:synthetic?size=8", "--dev", "builtin:synthetic?split=dev&size=8"]
TASK = dict(zip(("train", "dev"), TRAINING[1::2], strict=True)) | {"epochs": 1, "batch_size": 8}
TEXT = ["--text", "builtin:synthetic?size=20", "--tokens", "60"]
FINETUNE = ["--model", "MODEL", "--task", "mnli", *TRAINING, "--epochs", "1"]
PAIR = ["--base", "MODEL", "--tuned", "same=MODEL", *TEXT]

# the arguments of each command, and the function that does its work
COMMANDS = {
    "study": (["study", "study.yaml"], "bertft.study.run.run_study"),
    "finetune": (["finetune", *FINETUNE], "bertft.study.analyses.finetuning.run_finetune"),
    "ablate": (["ablate", "truncate", *FINETUNE, "-k", "1"], "bertft.study.analyses.ablation.sweep"),
    "rsa": (["rsa", *PAIR], "bertft.study.rsa_command.run_rsa"),
    "diff": (["diff", "MODEL", "same=MODEL", *TEXT], "bertft.study.diff.run.run_diff"),
    "structural": (
        ["probe", "structural", "--model", "MODEL", *TRAINING, "--rank", "2", "--epochs", "1"],
        "bertft.study.analyses.structural.run_structural",
    ),
    "edge": (
        ["probe", "edge", "--model", "MODEL", *TRAINING, "--steps", "2", "--interval", "1"],
        "bertft.study.analyses.edge.run_edge",
    ),
    "report": (["report", "made"], "bertft.runs.rows.read_results"),
    "doctor": (["doctor"], "bertft.cli.doctor.report"),
}
FOLDERLESS = ("diff", "report", "doctor")  # no --out, or none that is needed
ENDS = {
    "refused": (BertftError("made: holds another study"), 2, "error: made: holds another study"),
    "interrupted": (KeyboardInterrupt(), 130, "interrupted; finished work is kept. To resume: bertft"),
    "out of memory": (MemoryError(), 2, "error: out of memory"),
    "disk full": (OSError(errno.ENOSPC, "No space left on device", "x"), 2, "error: no space left"),
}


@pytest.fixture
def here(tmp_path, monkeypatch, tiny_model):
    monkeypatch.chdir(tmp_path)
    study = {"name": "s", "model": str(tiny_model), "tasks": {"dep": TASK}, "rsa": {"tokens": 60}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf8")
    (tmp_path / "made").mkdir()
    rows = [Row("a", "rsa", 'te"xt', 0, "x", 0.1 + 0.2, 0.1, None, 5, 1), Row("ä", "finetune", "t", None, "f1", 50.0)]
    write_results(tmp_path / "made" / "results.csv", rows)
    return tmp_path


def arguments(name: str, model: object, *further: str) -> list[str]:
    given = [word.replace("MODEL", str(model)) for word in COMMANDS[name][0]]
    return [*given, *([] if name in FOLDERLESS else ["--out", "run"]), "--json", *further]


def parsed(text: str) -> Any:
    """Return the value of strict JSON, which has no NaN."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def noisy(ending: BaseException):
    """Return a function that warns and logs as libraries do, and raises ``ending``."""

    def work(*_: object, **__: object) -> None:
        warnings.warn_explicit("plain PyTorch serves", RuntimeWarning, "x.py", 1, module="bertft.ops.native.cpu")
        warnings.warn_explicit("deprecated", FutureWarning, "y.py", 1, module="transformers.x")
        logging.getLogger("bertft.models").info("a line of the log")
        logging.getLogger("transformers").error("a line of a library")
        raise ending

    return work


def leaves(command: Any, *names: str):
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from leaves(inner, *names, name)
    elif any("--json" in param.opts for param in command.params):
        yield names


def test_the_table_has_every_command_with_json():
    known = {tuple(words[: 1 + (words[0] == "probe")]) for words, _ in COMMANDS.values()}
    assert known == set(leaves(typer.main.get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_json_holds_the_rows_of_the_table_and_nothing_else(name, capfd, here, tiny_model, monkeypatch):
    monkeypatch.setattr("bertft.study.diff.parts.NULL", 0)  # most of the time of so small a diff
    monkeypatch.setattr("bertft.report.write.draw", lambda figure: (b"png", b"<svg/>"))  # drawing has its own tests
    if name == "doctor":
        monkeypatch.setattr("bertft.cli.doctor.report", lambda: {"versions": {"bertft": "9"}})
    further = ["--out", "run"] if name == "diff" else []
    assert run(arguments(name, tiny_model, *further)) == 0
    shown = capfd.readouterr()
    found = parsed(shown.out)
    if name == "doctor":
        assert found == {"versions": {"bertft": "9"}}
        return
    rows = [Row(**row) for row in (found["rows"] if name == "diff" else found)]
    assert rows == read_results(here / ("made" if name == "report" else "run") / "results.csv") and rows


def test_a_diff_that_fails_a_condition_prints_its_json(capfd, here, tiny_model):
    assert run(arguments("diff", tiny_model, "--fail-if-unchanged")) == 1
    assert parsed(capfd.readouterr().out)["changed"] == {"same": False}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_ends_early_prints_its_sentence_as_json(name, end, capfd, here, tiny_model, monkeypatch):
    error, code, message = ENDS[end]
    monkeypatch.setattr(COMMANDS[name][1], noisy(error))
    assert run(arguments(name, tiny_model)) == code
    shown = capfd.readouterr()
    said = parsed(shown.out)["error"]
    assert said in shown.err.splitlines()[-1] and message.removeprefix("error: ") in said
    assert message in shown.err.splitlines()[-1]
    assert "warning: plain PyTorch serves" in shown.err and "deprecated" not in shown.err


@pytest.mark.parametrize("name", COMMANDS)
def test_a_fault_of_bertft_leaves_stdout_empty(name, capfd, here, tiny_model, monkeypatch):
    monkeypatch.setattr(COMMANDS[name][1], noisy(ZeroDivisionError("a fault")))
    with pytest.raises(ZeroDivisionError):
        run(arguments(name, tiny_model))
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("wrong", [["--no-such-option"], ["one", "argument", "too", "many"]])
def test_wrong_usage_prints_its_sentence_as_json(name, wrong, capfd, here, tiny_model):
    assert run(arguments(name, "no/such/model", *wrong)) == 2
    shown = capfd.readouterr()
    assert shown.err == f"error: {parsed(shown.out)['error']}\n"


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"study", "report", "doctor"}))
def test_bad_input_prints_its_sentence_as_json(name, capfd, here):
    assert run(arguments(name, "no/such/model")) == 2
    shown = capfd.readouterr()
    last = shown.err.splitlines()[-1]
    assert last == f"error: {parsed(shown.out)['error']}" and "no/such/model" in last


def test_a_report_without_results_prints_its_sentence_as_json(capfd, here):
    (here / "made" / "results.csv").write_text("model,task\n", encoding="utf8")
    assert run(["report", "made", "--json"]) == 2
    shown = capfd.readouterr()
    assert shown.err == f"error: {parsed(shown.out)['error']}\n" and shown.err.startswith("error: made/results.csv: ")


def test_a_reader_that_closes_stdout_gets_exit_code_1(here, monkeypatch):
    def closed(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(sys.stdout, "write", closed)
    monkeypatch.setattr("os.dup2", lambda *_: None)
    assert run(["report", "made", "--json"]) == 1

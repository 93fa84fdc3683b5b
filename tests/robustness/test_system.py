"""Damaged files, jumping clocks and exhausted memory."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
import torch

from bertft.cli.main import BAD_INPUT, run
from bertft.ops.native import build
from bertft.runs.folder import RunFolder, Stage
from bertft.runs.rows import Row, read_results

ROWS = [Row("m", "rsa", "t", layer, "x", 0.5) for layer in range(2000)]
DATA = ["--train", "builtin:synthetic", "--dev", "builtin:synthetic"]  # found, and never read
MODEL = ["--model", "builtin:minilm", *DATA, "--out", "run"]
TRAINING = ["finetune", "--task", "mnli", *MODEL]
# command: (the function that does its work, arguments, options that its message about memory names)
WORK = {
    "study": (
        "bertft.study.run.run_study",
        ["study", "quickstart", "--out", "run"],
        ["batch_size", "max_train", "--set"],
    ),
    "finetune": ("bertft.study.analyses.finetuning.finetune", TRAINING, ["--batch-size", "--max-train"]),
    "ablate": (
        "bertft.study.analyses.ablation.sweep_stages",
        ["ablate", "freeze", *TRAINING[1:]],
        ["--batch-size", "--max-train"],
    ),
    "rsa": (
        "bertft.study.rsa_command.run_rsa",
        ["rsa", "--base", "builtin:minilm", "--tuned", "builtin:minilm", "--text", "builtin:english", "--out", "run"],
        ["--tokens", "--sample"],
    ),
    "structural": (
        "bertft.study.analyses.structural.run_structural",
        ["probe", "structural", *MODEL],
        ["--rank", "--max-train"],
    ),
    "edge": ("bertft.study.analyses.edge.run_edge", ["probe", "edge", *MODEL], ["--batch-size", "--max-train"]),
    "report": ("bertft.study.redraw.write_page", ["report", "."], []),
}
NO_MEMORY = (
    MemoryError("Unable to allocate 3.00 GiB for an array with shape (20000, 20000)"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:126] DefaultCPUAllocator: can't allocate memory: you tried to ..."),
)


@pytest.mark.parametrize("name", WORK)
def test_out_of_memory_names_options_that_the_command_has(name, capsys, monkeypatch, tmp_path):
    import typer

    from bertft.cli.app import app

    place, command, less = WORK[name]
    monkeypatch.chdir(tmp_path)
    options: set[str] = set()
    here = typer.main.get_command(app)
    for word in command:
        here = getattr(here, "commands", {}).get(word, here)
        options = {option for param in here.params for option in param.opts}
    for error in NO_MEMORY:

        def work(*_, error=error, **__):
            raise error

        monkeypatch.setattr(place, work)
        assert run([*command, "--quiet"]) == BAD_INPUT
        said = capsys.readouterr().err
        assert said.startswith("error: out of memory; finished work is kept. ") and len(said.splitlines()) == 1
        assert all(word in said for word in less)
        assert set(re.findall(r"--[\w-]+", said)) <= options
        assert ("Or start a new run with" in said) == bool(less)


def test_settings_named_by_the_advice_on_memory_exist():
    settings = ["tasks.dep.batch_size=3", "tasks.dep.max_train=5", "rsa.tokens=7", "probes.rank=2"]
    from bertft.cli.main import _SMALLER_STUDY
    from bertft.study.reader import read_study

    study = read_study("quickstart", settings=settings)
    dep = study.tasks["dep"]
    assert (dep.batch_size, dep.max_train, study.rsa.tokens, study.probes.rank) == (3, 5, 7, 2)
    assert all(setting.removeprefix("tasks.dep.").split("=")[0] in _SMALLER_STUDY for setting in settings)


def test_other_errors_of_a_library_are_not_hidden(monkeypatch, tmp_path):
    def work(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr("bertft.study.redraw.write_page", work)
    with pytest.raises(RuntimeError, match="a bug"):
        run(["report", str(tmp_path)])


# Damaged files ----------------------------------------------------------------------------------------------------


def _flip(path: Path, at: float) -> None:
    """Flip one bit of the byte at the share ``at`` of a file's length."""
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["flipped", "truncated", "emptied"])
def test_a_damaged_kernel_library_is_rebuilt(tmp_path, how):
    built = []

    def write(folder: Path, output: Path) -> None:
        built.append(output)
        rule = "rule copy\n  command = cp $in $out\n"
        (folder / "source").write_text("machine code" * 99, encoding="utf8")
        (folder / "build.ninja").write_text(f"{rule}build {output}: copy source\n", encoding="utf8")

    library = tmp_path / "bertft_cpu-key.so"
    assert build.build_once(library, write) == library
    good = library.read_bytes()
    build.build_once(library, write)
    assert len(built) == 1
    if how == "flipped":
        _flip(library, 0.5)
    else:
        os.truncate(library, 50 if how == "truncated" else 0)
    build.build_once(library, write)
    assert len(built) == 2 and library.read_bytes() == good
    (tmp_path / "bertft_cpu-key.sha256").unlink()  # as after an earlier version
    build.build_once(library, write)
    assert len(built) == 2


# Clocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-3e8, 3e8])
def test_a_clock_that_jumps_keeps_finished_stages(tmp_path, monkeypatch, jump):
    folder, stage = RunFolder(tmp_path / "run", "a: 1\n"), Stage("rsa/t", {"tokens": 5}, lambda: ROWS[:3])
    with folder.claim():
        folder.finish(stage, ROWS[:3], 1.0)
    now = time.time() + jump
    monkeypatch.setattr(time, "time", lambda: now)
    for path in (tmp_path / "run").rglob("*"):
        os.utime(path, (now, now))
    with folder.claim():
        assert folder.done(stage) == ROWS[:3]
        other = Stage("rsa/u", {"tokens": 5}, lambda: ROWS[3:5])
        folder.finish(other, ROWS[3:5], -1.0)
        assert folder.done(other) == ROWS[3:5] and folder.done(stage) == ROWS[:3]
        folder.write_table(ROWS[:5])
    assert read_results(tmp_path / "run" / "results.csv") == ROWS[:5]

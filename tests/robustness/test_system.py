"""What the machine does to a run: files that rot, clocks that jump, memory that ends."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
import torch

from bertft.cli.main import BAD_INPUT, run
from bertft.errors import BertftError
from bertft.ops.native import build
from bertft.runs.checkpoint import Checkpoint
from bertft.runs.folder import RunFolder, Stage
from bertft.runs.rows import Row, read_results
from bertft.similarity import CrossMoments

TRAINING = ["finetune", "--task", "mnli", "--model", "m", "--train", "t", "--dev", "d", "--out", "run"]
ROWS = [Row("m", "rsa", "t", layer, "x", 0.5) for layer in range(2000)]


# Where a command works, what it says on the way to it, and what it could do with less of.
WORK = {
    "study": ("bertft.study.run.run_study", ["study", "quickstart", "--out", "run"], ["batch_size", "max_train", "--set"]),
    "finetune": ("bertft.models.finetuning.run.finetune", TRAINING, ["--batch-size", "--max-train"]),
    "ablate": ("bertft.study.analyses.ablation.sweep_stages", ["ablate", "freeze", *TRAINING[1:]], ["--batch-size", "--max-train"]),
    "rsa": ("bertft.cli.rsa_runs.run_rsa", ["rsa", "--base", "b", "--tuned", "t", "--text", "x", "--out", "run"],
            ["--tokens", "--sample"]),
    "structural": ("bertft.cli.probe_runs.run_structural",
                   ["probe", "structural", "--model", "m", "--train", "t", "--dev", "d", "--out", "run"],
                   ["--rank", "--max-train"]),
    "edge": ("bertft.cli.probe_runs.run_edge",
             ["probe", "edge", "--model", "m", "--train", "t", "--dev", "d", "--out", "run"],
             ["--batch-size", "--max-train"]),
    "report": ("bertft.report.write_report", ["report", "."], []),
}  # fmt: skip
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
        assert said.startswith("error: out of memory: ") and len(said.splitlines()) == 1
        assert all(word in said for word in less)
        assert set(re.findall(r"--[\w-]+", said)) <= options
        assert ("less at a time" in said) == bool(less)


def test_the_settings_that_the_advice_on_memory_names_are_a_studys():
    settings = ["tasks.dep.batch_size=3", "tasks.dep.max_train=5", "rsa.tokens=7", "probes.rank=2"]
    from bertft.cli.main import _SMALLER_STUDY
    from bertft.study.run import read_study

    study = read_study("quickstart", settings=settings)
    assert (study.tasks["dep"].batch_size, study.tasks["dep"].max_train, study.rsa.tokens, study.probes.rank) == (
        3,
        5,
        7,
        2,
    )
    assert all(setting.removeprefix("tasks.dep.").split("=")[0] in _SMALLER_STUDY for setting in settings)


def test_any_other_error_of_a_library_is_not_hidden(monkeypatch, tmp_path):
    def work(folder, **_):
        raise RuntimeError("a bug")

    monkeypatch.setattr("bertft.report.write_report", work)
    with pytest.raises(RuntimeError, match="a bug"):
        run(["report", str(tmp_path)])


# Files that rot ----------------------------------------------------------------------------------------------------


def _flip(path: Path, at: float) -> None:
    """One bit of a file's byte at the share ``at`` of its length."""
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("at", [0.0, 0.02, 0.5, 1.0])
def test_damaged_sums_are_refused_by_name(tmp_path, at):
    path = tmp_path / "sums.safetensors"
    x = torch.randn(2, 20, 8, generator=torch.Generator().manual_seed(0))
    CrossMoments(2, 2).update(x, x + 0.1).save(path)
    CrossMoments.load(path)
    _flip(path, at)
    with pytest.raises(BertftError, match=r"sums\.safetensors"):
        CrossMoments.load(path)


def test_truncated_sums_are_refused_by_name(tmp_path):
    path = tmp_path / "sums.safetensors"
    x = torch.randn(2, 20, 8, generator=torch.Generator().manual_seed(0))
    CrossMoments(2, 2).update(x, x + 0.1).save(path)
    data = path.read_bytes()
    for length in (0, 7, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(BertftError, match=r"sums\.safetensors"):
            CrossMoments.load(path)


@pytest.mark.parametrize("part", ["stream.json", "stream-1.safetensors"])
@pytest.mark.parametrize("how", ["flipped", "truncated", "gone"])
def test_a_damaged_checkpoint_of_a_stream_is_refused_by_name(tmp_path, part, how):
    Checkpoint(tmp_path, {"a": 1}).save({"x": torch.arange(100.0)}, {"batch": 3})
    assert Checkpoint(tmp_path, {"a": 1}).load() is not None
    path = tmp_path / part
    if how == "flipped":
        _flip(path, 0.99 if part.endswith("safetensors") else 0.0)
    elif how == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.unlink()
    if part == "stream.json" and how == "gone":
        assert Checkpoint(tmp_path, {"a": 1}).load() is None  # it begins anew
        return
    with pytest.raises(BertftError, match=r"stream\.json"):
        Checkpoint(tmp_path, {"a": 1}).load()


@pytest.mark.parametrize("how", ["flipped", "truncated", "emptied"])
def test_a_damaged_kernel_library_is_built_anew(tmp_path, how):
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
    (tmp_path / "bertft_cpu-key.lock").write_text("", encoding="utf8")  # one that an earlier version left
    build.build_once(library, write)
    assert len(built) == 2


# Clocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-3e8, 3e8])
def test_a_clock_that_jumps_undoes_nothing(tmp_path, monkeypatch, jump):
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

"""Locks of folders, and the sweep of unfinished files."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from bertft.errors import BertftError
from bertft.models.finetuning.config import FinetuneConfig
from bertft.models.finetuning.run import finetune
from bertft.runs.files import sweep_unfinished
from bertft.runs.folder import RunFolder
from bertft.runs.locks import claimed, is_held


def test_a_second_claim_is_refused_and_leaves_nothing(tmp_path):
    out = tmp_path / "made" / "for" / "out"
    lock = out.parent / ".out.lock"
    with claimed(out):
        assert is_held(lock)
        with pytest.raises(BertftError, match=r"for/out: another bertft process is writing it"), claimed(out):
            pass
        assert is_held(lock)  # the refused claim does not release it
        with claimed(out.with_name("other")):
            pass
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyError), claimed(tmp_path / "out"):
        (tmp_path / "kept").touch()
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_the_lock_file_of_a_killed_process_blocks_nobody(tmp_path):
    (tmp_path / ".out.lock").touch()
    assert not is_held(tmp_path / ".out.lock")
    with claimed(tmp_path / "out"):
        assert is_held(tmp_path / ".out.lock")
    assert not list(tmp_path.iterdir())


def test_the_sweep_skips_folders_of_other_processes(tmp_path):
    rests = [tmp_path / name for name in ("models/.dep.part/x", "models/.dep.training/.note.1.part", ".table.2.part")]
    for rest in rests:
        rest.parent.mkdir(parents=True, exist_ok=True)
        rest.touch()
    with claimed(tmp_path / "models" / "dep"):
        sweep_unfinished(tmp_path)
        assert [rest.exists() for rest in rests] == [True, True, False]
    sweep_unfinished(tmp_path)
    assert not any(rest.exists() for rest in rests)


def test_the_sweep_skips_locked_stores_but_not_its_own_folder(tmp_path):
    busy, idle = (tmp_path / "models" / name / ".layer3.part" for name in "ab")
    for rest in (busy, idle):
        rest.parent.mkdir(parents=True)
        rest.touch()
    with FileLock(busy.parent / ".lock"), RunFolder(tmp_path, "").claim():
        assert busy.exists() and not idle.exists()
    with RunFolder(tmp_path, "").claim():
        assert not busy.exists()


def test_is_held_does_not_make_the_lock_look_taken(tmp_path, monkeypatch):
    probing = FileLock(tmp_path / ".out.lock")  # as `is_held` does, for less than a moment
    monkeypatch.setattr(time, "sleep", lambda _: probing.release())
    with probing:
        assert not is_held(tmp_path / ".out.lock")
    with probing, claimed(tmp_path / "out"):
        monkeypatch.undo()
        assert is_held(tmp_path / ".out.lock")


def test_is_held_creates_no_lock_file(tmp_path):
    assert not is_held(tmp_path / ".out.lock")
    assert not list(tmp_path.iterdir())


def test_a_lock_file_removed_while_it_was_being_locked_is_locked_anew(tmp_path, monkeypatch):
    """A process that opened the file before its holder removed it must not hold a file without a name."""
    first, opened = contextlib.ExitStack(), os.open
    first.enter_context(claimed(tmp_path / "out"))

    def end_the_first_after_opening(*arguments, **settings):
        file = opened(*arguments, **settings)
        first.close()
        return file

    monkeypatch.setattr(os, "open", end_the_first_after_opening)
    with claimed(tmp_path / "out"):
        monkeypatch.undo()
        assert is_held(tmp_path / ".out.lock")


FIRST = """
import json, sys
from bertft.models.finetuning.config import FinetuneConfig
from bertft.models.finetuning.run import finetune
from bertft.runs.progress import SILENT


class Waiting:
    say = SILENT.say

    def step(self, description, *rest, **more):
        if description.startswith("fine-tune"):
            print("training", flush=True)
            sys.stdin.readline()
        return SILENT.step(description, *rest, **more)


finetune(FinetuneConfig(**json.loads(sys.argv[1])), progress=Waiting())
"""


def test_a_second_process_cannot_fine_tune_into_the_same_folder(tiny_model, tmp_path):
    out = tmp_path / "models" / "mnli"
    config = FinetuneConfig(
        "mnli", str(tiny_model), "builtin:synthetic?size=8", "builtin:synthetic?split=dev&size=4", str(out),
        epochs=1, batch_size=4, max_length=32,
    )  # fmt: skip
    command = [sys.executable, "-c", FIRST, json.dumps(dataclasses.asdict(config))]
    here = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=here, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "training\n"
        assert sorted(path.name for path in out.parent.iterdir()) == [".mnli.lock", ".mnli.training"]
        with pytest.raises(BertftError, match=r"models/mnli: another bertft process is writing it"):
            finetune(dataclasses.replace(config, seed=2))  # with other settings it would have started over
        (out.parent / ".mnli.part").mkdir()  # as while the first process writes its result
        with RunFolder(tmp_path, "").claim():  # a study around it
            assert sorted(path.name for path in out.parent.iterdir()) == [".mnli.lock", ".mnli.part", ".mnli.training"]
        first.communicate("\n", timeout=60)
    assert first.returncode == 0 and [path.name for path in out.parent.iterdir()] == ["mnli"]
    stamp = (out / "bertft.json").stat().st_mtime_ns
    assert finetune(config).metrics and (out / "bertft.json").stat().st_mtime_ns == stamp

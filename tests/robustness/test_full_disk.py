"""Full and read-only disks.

A command fails in one sentence, and resumes once there is room.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from bertft.cli.main import BAD_INPUT, run
from bertft.ops.native import build
from bertft.runs.rows import Row, write_results
from bertft.similarity.compare import encoders as stream

TRAIN, DEV = "builtin:synthetic?size=16", "builtin:synthetic?split=dev&size=12"
# command: (arguments, file size limits in bytes, each of which stops it once)
COMMANDS = {
    # stopped in: the weights, the optimizer's state (torch.save)
    "finetune": (["finetune", "--task", "mnli", "--train", TRAIN, "--dev", DEV, "--epochs", "2", "--batch-size", "8",
                  "--learning-rate", "1e-2"], (100_000, 300_000)),
    # the checkpoint of the stream, the table, the page
    "rsa": (["rsa", "--text", "builtin:synthetic?size=40", "--tokens", "200"], (20_000, 500, 1_000_000)),
    # the description of the vectors, the vectors, the page
    "structural": (["probe", "structural", "--train", TRAIN, "--dev", DEV, "--epochs", "2", "--rank", "4"],
                   (100, 60_000, 1_000_000)),
    # the vectors, the heads, the page
    "edge": (["probe", "edge", "--train", TRAIN, "--dev", DEV, "--steps", "4", "--interval", "2"],
             (60_000, 300_000, 1_000_000)),
    # the output of frozen blocks, a checkpoint, the page
    "ablate": (["ablate", "freeze", "--task", "mnli", "--train", TRAIN, "--dev", DEV, "--epochs", "1", "-k", "2"],
               (30_000, 100_000, 1_000_000)),
}  # fmt: skip


@contextlib.contextmanager
def files_of_at_most(size: int):
    """Limit the size of written files, so that writing fails as on a full disk, but at a known byte.

    Python ignores SIGXFSZ, so that the write returns an error.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def whole(tiny_model, tmp_path_factory):
    """Return a function ``whole(name)`` for the numbers of an uninterrupted command."""

    @functools.cache
    def of(name: str) -> dict[str, object]:
        folder = tmp_path_factory.mktemp("whole") / "run"
        assert run([*of_command(name, tiny_model), "--out", str(folder)]) == 0
        return numbers(folder)

    return of


@pytest.fixture
def disk(tmp_path):
    """Return a function ``disk(options)`` that mounts a file system in memory, or remounts it with other options."""
    place = tmp_path / "disk"

    def mount(options: str) -> Path:
        again = place.is_mount()
        place.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"remount,{options}" if again else options, "none", str(place)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("no file system can be mounted here")
        return place

    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs Linux and root, to mount a file system")
    yield mount
    if place.is_mount():
        subprocess.run(["umount", "--lazy", str(place)], check=True)  # a traceback may keep one of its files open


def of_command(name: str, model: Path) -> list[str]:
    words, _ = COMMANDS[name]
    models = ["--base", str(model), "--tuned", f"same={model}"] if name == "rsa" else ["--model", str(model)]
    return [*words, *models, "--quiet"]


def one_sentence(shown: str) -> None:
    lines = shown.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: no space left on the disk"), shown
    assert lines[0].endswith("; free some space, then rerun the command")


def numbers(folder: Path) -> dict[str, object]:
    """Return the bytes of the table, and of every tensor of the weights."""
    found: dict[str, object] = {"table": (folder / "results.csv").read_bytes()}
    for path in folder.rglob("*.safetensors"):
        found[str(path.relative_to(folder))] = {name: a.tobytes() for name, a in load_file(path).items()}
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_stopped_by_a_full_disk_resumes_to_the_same_numbers(
    name, whole, tiny_model, tmp_path, capsys, monkeypatch
):
    whole = whole(name)
    capsys.readouterr()
    monkeypatch.setattr(stream, "EVERY", 0.0)  # a checkpoint after every batch
    command = of_command(name, tiny_model)
    for size in COMMANDS[name][1]:
        with files_of_at_most(size):
            code = run([*command, "--out", str(tmp_path / "run")])
        said = capsys.readouterr()
        assert code == BAD_INPUT and said.out == "", (size, said)
        one_sentence(said.err)
    assert run([*command, "--out", str(tmp_path / "run")]) == 0
    assert numbers(tmp_path / "run") == whole
    left = {path.name for path in (tmp_path / "run").rglob(".*")}
    assert left <= {".lock"}, left


@pytest.mark.parametrize("name", ["finetune", "rsa", "structural", "ablate"])
def test_a_command_on_a_full_file_system_resumes_with_more_room(name, whole, tiny_model, capsys, disk):
    whole, command = whole(name), of_command(name, tiny_model)
    capsys.readouterr()
    for size in ("16k", "400k"):
        folder = disk(f"size={size}")
        assert run([*command, "--out", str(folder / "run")]) == BAD_INPUT
        said = capsys.readouterr()
        lines = said.err.splitlines()
        assert said.out == "" and len(lines) == 1 and lines[0].startswith("error: "), (size, said)
        assert "no space left on the disk" in lines[0] or "MiB free" in lines[0]
    folder = disk("size=64m")
    assert run([*command, "--out", str(folder / "run")]) == 0
    assert numbers(folder / "run") == whole


@pytest.mark.parametrize("name", ["finetune", "rsa", "structural", "edge", "ablate"])
def test_a_command_on_a_read_only_file_system_fails_in_one_sentence(name, tiny_model, capsys, disk):
    folder = disk("ro")
    assert run([*of_command(name, tiny_model), "--out", str(folder / "run")]) == BAD_INPUT
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert said.out == "" and len(lines) == 1 and lines[0].startswith("error: "), said
    assert str(folder) in lines[0] and lines[0].endswith("Read-only file system")


def test_a_full_disk_keeps_the_old_table_and_leaves_no_other_file(tmp_path):
    rows = [Row("m", "rsa", "t", layer, "x", 0.5) for layer in range(2000)]
    path = tmp_path / "results.csv"
    write_results(path, rows[:2])
    before = path.read_bytes()
    with files_of_at_most(4096), pytest.raises(OSError, match="File too large"):
        write_results(path, rows)
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == ["results.csv"]


def test_a_full_disk_fails_a_build_with_its_reason_and_leaves_no_file(tmp_path):
    def write(folder: Path, output: Path) -> None:
        rule = "rule make\n  command = head -c 2000 /dev/zero > $out\n"
        (folder / "build.ninja").write_text(f"{rule}build {output}: make\n", encoding="utf8")

    library = tmp_path / "cache" / "bertft_cpu-key.so"
    for size, words in ((10, "cannot be written .File too large"), (1000, "compiling the kernels failed")):
        with files_of_at_most(size), pytest.raises(build.BuildError, match=words):
            build.build_once(library, write)
        assert [path.name for path in library.parent.iterdir()] == ["bertft_cpu-key.lock"]
    assert build.build_once(library, write).stat().st_size == 2000

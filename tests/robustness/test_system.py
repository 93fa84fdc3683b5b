"""What the machine does to a run: full and read-only disks, files that rot, clocks that jump, memory that ends."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bertft.cli import BAD_INPUT, run
from bertft.errors import BertftError
from bertft.ops import build
from bertft.results import Row, read_results, write_results
from bertft.run_folder import RunFolder, Stage
from bertft.similarity import CrossMoments
from bertft.similarity.checkpoint import Checkpoint

ROOT = Path(__file__).parents[2]
ROWS = [Row("m", "rsa", "t", layer, "x", 0.5) for layer in range(2000)]


def _limited(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Python with files of at most 4096 bytes: what a full disk does, at a known place."""
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
    command = [sys.executable, "-c", f"import sys\n{limit}{code}", *map(str, arguments)]
    # coverage, which would count this process too, has more to write than that
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)


def test_a_full_disk_leaves_the_old_table_and_no_rest(tmp_path):
    path = tmp_path / "results.csv"
    write_results(path, ROWS[:2])
    before = path.read_bytes()
    code = """
from bertft.results import Row, write_results
write_results(sys.argv[1], [Row("m", "rsa", "t", layer, "x", 0.5) for layer in range(2000)])
"""
    done = _limited(code, path)
    assert "File too large" in done.stderr
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == ["results.csv"]


# `bertft report` with a table in place of the page: drawing takes seconds and writes as the table does.
REPORT = """
import sys
import bertft.report
from pathlib import Path
from bertft.cli import run
from bertft.results import Row, write_results
def work(folder, **_):
    write_results(folder / "run" / "results.csv", [Row("m", "rsa", "t", i, "x", 0.5) for i in range(3000)])
bertft.report.write_report = work
sys.exit(run(["report", sys.argv[1]]))
"""


def test_a_full_disk_is_one_sentence(tmp_path):
    done = _limited(REPORT, tmp_path)
    assert done.returncode == BAD_INPUT
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert list((tmp_path / "run").iterdir()) == []


def _mounted(options: str, folder: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    """A command that sees a file system of memory at ``folder``, mounted in a name space of its own."""
    if sys.platform != "linux" or shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("needs Linux, unshare and root, to mount a file system")
    folder.mkdir()
    script = f'mount -t tmpfs -o {options} none "$0" || exit 77; exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, str(folder), *command],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    if done.returncode == 77 or done.stderr.startswith("unshare"):
        pytest.skip("no file system can be mounted here")
    return done


@pytest.mark.parametrize(("options", "words"), [("ro", "Read-only file system"), ("size=12k", "No space left")])
def test_a_read_only_or_full_file_system_is_one_sentence(tmp_path, options, words):
    done = _mounted(options, tmp_path / "disk", [sys.executable, "-c", REPORT, str(tmp_path / "disk")])
    assert done.returncode == BAD_INPUT, done.stderr
    assert words in done.stderr and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 3.00 GiB for an array with shape (20000, 20000)"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:126] DefaultCPUAllocator: can't allocate memory: you tried to ..."
        ),
    ],
)
def test_out_of_memory_says_what_to_ask_less_of(capsys, monkeypatch, tmp_path, error):
    def work(folder, **_):
        raise error

    monkeypatch.setattr("bertft.report.write_report", work)
    assert run(["report", str(tmp_path)]) == BAD_INPUT
    said = capsys.readouterr().err
    assert said.startswith("error: out of memory: ") and "--batch-size" in said and len(said.splitlines()) == 1


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

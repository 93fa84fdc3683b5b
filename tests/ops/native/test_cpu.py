"""Builds of the kernels.

One for all processes, never left broken, repeated after any change.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bertft.errors import BertftError
from bertft.ops.native import build, cpu, dispatch
from bertft.ops.native.loader import Loader

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def tree(tmp_path):
    """Make a small source tree that compiles in a fraction of a second."""
    root = tmp_path / "a folder with $pecial: names" / "csrc"
    (root / "cpu").mkdir(parents=True)
    (root / "bind_cpu.cpp").write_text('extern "C" int answer() { return 42; }\n')
    (root / "cpu" / "one.cpp").write_text('#include "one.h"\nint one() { return ONE; }\n')
    (root / "cpu" / "one.h").write_text("#define ONE 1\n")
    return root


@pytest.fixture
def compiler(tmp_path):
    """Make a compiler that logs its runs in ``runs`` and waits while a file named ``wait`` exists."""
    script = tmp_path / "cxx"
    real = shutil.which("c++") or shutil.which("g++")
    wait = f'while [ -e "{tmp_path}/wait" ]; do sleep 0.05; done'
    script.write_text(f'#!/bin/sh\necho run >> "{tmp_path}/runs"\n{wait}\nexec {real} "$@"\n')
    script.chmod(0o755)
    return str(script)


@pytest.fixture
def fresh(monkeypatch):
    """Replace the loader by a new one without hooks, as in a new process."""
    monkeypatch.setattr(cpu, "_kernels", Loader(cpu._load))
    return monkeypatch


def runs(tmp_path):
    return len((tmp_path / "runs").read_text().split())


def wait_until(condition, seconds=30):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "took too long"
        time.sleep(0.02)


def _build_once(cache, root, compiler, results):
    results.put(str(build.build(cache, "key", root, compiler)))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_eight_processes_build_once(tmp_path, tree, compiler):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    (tmp_path / "wait").touch()
    workers = [
        context.Process(target=_build_once, args=(tmp_path / "cache", tree, compiler, results)) for _ in range(8)
    ]
    for worker in workers:
        worker.start()
    wait_until((tmp_path / "runs").exists)
    (tmp_path / "wait").unlink()
    paths = {results.get(timeout=30) for _ in workers}
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 8
    assert len(paths) == 1 and Path(paths.pop()).is_file()
    assert runs(tmp_path) == 3, "two files and a link"
    assert {p.suffix for p in (tmp_path / "cache").iterdir()} == {".so", ".sha256", ".lock"}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_killed_build_does_not_block_the_next(tmp_path, tree, compiler):
    context = multiprocessing.get_context("fork")
    (tmp_path / "wait").touch()
    victim = context.Process(target=_build_once, args=(tmp_path / "cache", tree, compiler, context.Queue()))
    victim.start()
    wait_until((tmp_path / "runs").exists)
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
    assert [p for p in (tmp_path / "cache").iterdir() if p.name.startswith("build-")]
    (tmp_path / "wait").unlink()
    library = build.build(tmp_path / "cache", "key", tree, compiler)
    assert library.is_file()
    assert {p.suffix for p in (tmp_path / "cache").iterdir()} == {".so", ".sha256", ".lock"}
    before = runs(tmp_path)
    assert build.build(tmp_path / "cache", "key", tree, compiler) == library and runs(tmp_path) == before


def test_a_failed_build_gives_the_reason_and_leaves_no_files(tmp_path, tree):
    (tree / "cpu" / "one.cpp").write_text("int one() { return nothing_of_that_name; }\n")
    with pytest.raises(build.BuildError, match="nothing_of_that_name"):
        build.build(tmp_path / "cache", "key", tree, build.find_compiler())
    assert {p.suffix for p in (tmp_path / "cache").iterdir()} == {".lock"}


def test_the_key_changes_with_everything_that_matters(tmp_path, tree, compiler, monkeypatch):
    keys = [build.build_key(tree, compiler)]
    assert build.build_key(tree, compiler) == keys[0]

    def changed():
        keys.append(build.build_key(tree, compiler))

    (tree / "cpu" / "one.h").write_text("#define ONE 2\n")
    changed()
    (tree / "cpu" / "two.cpp").write_text("")
    changed()
    Path(compiler).write_text(Path(compiler).read_text() + "\n# upgraded\n")
    changed()
    monkeypatch.setenv("CXXFLAGS", "-O2")
    changed()
    monkeypatch.setenv("BERTFT_SANITIZE", "address")
    changed()
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    changed()
    monkeypatch.setattr(build, "cpu_features", lambda: ("another CPU", frozenset({"avx512f"})))
    changed()
    assert len(set(keys)) == len(keys)
    (tree / "notes.txt").write_text("no source")
    (tree / "bind_cuda.h").write_text("a source of the GPU's library")
    assert build.build_key(tree, compiler) == keys[-1]


def test_cache_folder(monkeypatch):
    monkeypatch.setenv("BERTFT_CACHE", "/somewhere")
    assert build.cache_folder() == Path("/somewhere")
    monkeypatch.delenv("BERTFT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert build.cache_folder() == Path("/elsewhere/bertft")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert build.cache_folder() == Path.home() / ".cache" / "bertft"


def test_a_missing_compiler_warns_once_and_falls_back_to_the_reference(fresh):
    fresh.setenv("CXX", "no-such-compiler")
    fresh.delenv("BERTFT_KERNELS", raising=False)
    with pytest.warns(RuntimeWarning, match="no C.. compiler .no-such-compiler") as caught:
        assert not cpu.load()
    assert len(caught) == 1
    assert not cpu.load(), "and no second warning"
    status = cpu.status()
    assert status["kernels"] == "reference" and "no-such-compiler" in status["reason"]
    assert not dispatch.serves(torch.zeros(1))


def test_a_cache_that_cannot_be_written(fresh, tmp_path):
    (tmp_path / "file").touch()
    fresh.setenv("BERTFT_CACHE", str(tmp_path / "file" / "cache"))
    fresh.delenv("BERTFT_KERNELS", raising=False)
    with pytest.warns(RuntimeWarning, match="cannot be written.*set BERTFT_CACHE"):
        assert not cpu.load()


def test_a_build_tool_that_does_not_start(tmp_path, monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda *_, **__: str(tmp_path / "ninja"))
    with pytest.raises(build.BuildError, match=r"the build tool .*ninja cannot be started \(No such file"):
        build.build_once(tmp_path / "cache" / "bertft_cpu-0.so", lambda folder, output: None)


def test_choice_of_kernels(fresh):
    fresh.setenv("BERTFT_KERNELS", "reference")
    assert not cpu.load() and "BERTFT_KERNELS" in cpu.status()["reason"]
    fresh.setattr(cpu, "_kernels", Loader(cpu._load))
    fresh.setenv("BERTFT_KERNELS", "fast")
    with pytest.raises(BertftError, match="must be auto, reference or compiled, not 'fast'"):
        cpu.load()
    fresh.setenv("BERTFT_KERNELS", "compiled")
    fresh.setenv("CXX", "no-such-compiler")
    with pytest.raises(BertftError, match="no-such-compiler"):
        cpu.load()


def test_hooks_run_when_the_ops_exist(fresh):
    calls = []
    fresh.setattr(cpu, "_kernels", Loader(lambda: {"loaded": True}))
    cpu.on_load(lambda: calls.append("before"))
    assert calls == []
    assert cpu.load() and cpu.load()
    cpu.on_load(lambda: calls.append("after"))
    assert calls == ["before", "after"]


# Processor seconds, so that a busy machine does not matter.
SCRIPT = """
import time, torch
start = time.process_time()
from bertft.ops.native import cpu
assert cpu.load(), cpu.status()
print(time.process_time() - start, cpu.status()["capability"])
"""


def test_later_loads_take_less_than_a_third_of_a_second():
    assert cpu.load(), cpu.status()["reason"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert float(done.stdout.split()[0]) < 0.3


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of x86-64")
def test_the_kernels_compile_for_avx512(tmp_path, monkeypatch):
    """Compiles without optimisation, which uses the same instructions. Only such a machine can run them."""
    monkeypatch.setenv("CXXFLAGS", "-march=x86-64-v4 -O0")
    library = build.build(tmp_path, "v4", build.source_root(), build.find_compiler())
    assert b"avx512" in library.read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of x86-64")
@pytest.mark.parametrize(
    ("flags", "capability"),
    [
        ("-march=x86-64 -DBERTFT_NO_BLAS", "generic loops"),
        ("-DBERTFT_VECTOR_BYTES=64", "blas"),  # the width of AVX-512, in two halves on other machines
    ],
)
def test_other_instruction_sets(flags, capability, tmp_path):
    """Runs the kernels' tests of values and gradients on a build for another machine."""
    env = os.environ | {"CXXFLAGS": flags, "BERTFT_KERNELS": "compiled"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=ROOT, env=env, check=True)
    assert capability in done.stdout
    kinds = "values or gradient or strides or brute_force or ranks or lists_are or against_itself or agrees"
    tests = ["tests/ops", "-k", f"({kinds}) and not compiled", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *tests], capture_output=True, text=True, cwd=ROOT, env=env, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]

"""Cache of compiled kernels.

Many processes build it once; it is never stale, and a build that died does not block it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import gpu_build
import pytest

BUILDER = """
import os, sys, time
import gpu_build

def build(target, scratch):
    with open(scratch.parent / "builds.log", "a", encoding="utf-8") as log:
        log.write("x")
    (scratch / "out").write_text("half", encoding="utf-8")
    if sys.argv[1] == "die":
        os._exit(9)
    time.sleep(0.2)
    (scratch / "out").write_text("built", encoding="utf-8")

assert gpu_build._cached("kernel.so", build).read_text(encoding="utf-8") == "built"
"""


def builders(cache: Path, *manners: str) -> list[int]:
    """Exit codes of processes that want the same file at the same time."""
    environment = {**os.environ, "BERTFT_CACHE": str(cache), "PYTHONPATH": str(gpu_build.HERE)}
    running = [subprocess.Popen([sys.executable, "-c", BUILDER, manner], env=environment) for manner in manners]
    return [process.wait(timeout=120) for process in running]


def test_four_processes_build_once(tmp_path):
    assert builders(tmp_path, *["finish"] * 4) == [0] * 4
    assert (tmp_path / "cuda_on_cpu" / "builds.log").read_text(encoding="utf-8") == "x"


def test_a_killed_build_blocks_nobody(tmp_path):
    assert builders(tmp_path, "die") == [9]
    assert builders(tmp_path, "finish") == [0]


def test_unused_files_are_forgotten(tmp_path):
    for name, days in (("old.so", 20), ("new.so", 1)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - days * 86400,) * 2)
    (tmp_path / "dead.so.x").mkdir()
    os.utime(tmp_path / "dead.so.x", (0, 0))
    gpu_build._forget_unused(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new.so"]


def test_a_compiler_error_is_quoted(tmp_path):
    source = tmp_path / "broken.cu"
    source.write_text('#include "gpu.h"\nextern "C" int broken(int n) { return m; }\n', encoding="utf-8")
    with pytest.raises(gpu_build.BuildError, match=r".m. was not declared"):
        gpu_build.kernel_library(source, "plain")


def test_a_file_without_launchers_is_refused(tmp_path):
    source = tmp_path / "empty.cu"
    source.write_text('#include "gpu.h"\nint helper(int n) { return n; }\n', encoding="utf-8")
    with pytest.raises(gpu_build.BuildError, match="no launcher found"):
        gpu_build.kernel_library(source, "plain")


def test_launchers_are_found_however_they_are_written(tmp_path):
    source = tmp_path / "three.cu"
    source.write_text(
        '#include <cstdio>\n#define MAKE(name) extern "C" int name##_f32(const float* x, long n) { return x[n] > 0; }\n'
        'extern "C" int\nplain(float* out,\n  int n) { return n; }\nMAKE(a) MAKE(b)\n'
        'extern "C" int only_declared(int n);\n',
        encoding="utf-8",
    )
    assert gpu_build.launchers(source, []) == {"plain": ["out", "n"], "a_f32": ["x", "n"], "b_f32": ["x", "n"]}

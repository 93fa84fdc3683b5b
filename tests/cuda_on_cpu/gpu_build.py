"""Cached compilation of CUDA sources with g++.

The runtime that executes them is compiled too. Results are cached per user.

Cache: ``cuda_on_cpu`` in ``$BERTFT_CACHE``, else in ``bertft`` of ``$XDG_CACHE_HOME`` (``~/.cache``). A file's name
holds a digest of everything that went into it, so nothing is ever stale; processes that want the same file at once
wait for one of them to build it; a build that was killed leaves nothing that blocks or breaks the next one; files
unused for two weeks are deleted.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType

from filelock import FileLock

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"
RUNTIME_MODULE = "cuda_on_cpu_runtime"
# Asked here, by one thread: the first question to sysconfig is not safe from others asked at the same time (3.11).
SOABI = sysconfig.get_config_var("SOABI") or ""

COMMON = ["-std=c++20", "-g1", "-gdwarf-4", "-fPIC", "-pipe"]
KERNEL = [
    *COMMON,
    "-fvisibility=hidden",
    "-fno-gnu-unique",
    "-fno-strict-aliasing",  # as nvcc compiles device code: vector loads through reinterpret_cast are the norm
    "-ffp-contract=off",
    "-Wno-unknown-pragmas",
    "-Wno-attributes",
]
MODES = {
    "plain": ["-O1", "-fsanitize=alignment"],  # a misaligned vector load would end the process
    # g++'s instrumentation without a sanitizer's library: runtime/hooks.cpp answers it
    "checked": [
        "-O1",
        "-fsanitize=thread,alignment,bounds,signed-integer-overflow,integer-divide-by-zero,shift",
        "--param=tsan-instrument-func-entry-exit=0",
    ],
    # requests are counted instead of checked; a vector stays whole, so that its load is one access
    "counting": ["-O1", "-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0", "-fno-tree-sra"],
}


class BuildError(RuntimeError):
    """A compiler's complaint, with the command that provoked it."""


def compiler() -> list[str]:
    """Return the command of the C++ compiler: ``$CXX``, which may have several words, else g++."""
    return shlex.split(os.environ.get("CXX", "")) or ["g++"]


def unavailable() -> str | None:
    """Return why kernels cannot be executed on this machine, or None if they can."""
    if not sys.platform.startswith("linux"):
        return f"the CUDA executor needs Linux, this is {sys.platform}"
    if shutil.which(compiler()[0]) is None:
        return f"the CUDA executor needs a C++ compiler, {compiler()[0]} is not installed"
    if "clang" in _compiler_version():
        return f"the CUDA executor needs GCC's instrumentation, {compiler()[0]} is clang"
    return None


def cache_folder() -> Path:
    """Return the folder of compiled files; create it if it is missing."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bertft"
    folder = Path(os.environ.get("BERTFT_CACHE") or user) / "cuda_on_cpu"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@functools.cache
def runtime() -> ModuleType:
    """Return the executor's runtime as an imported module; build it at first use."""
    spec = importlib.util.spec_from_file_location(RUNTIME_MODULE, runtime_library())
    module = importlib.util.module_from_spec(spec)
    sys.modules[RUNTIME_MODULE] = module
    spec.loader.exec_module(module)
    return module


def runtime_library() -> Path:
    """Return the file of the executor's runtime, a Python module and the library that kernels are linked with."""
    sources = sorted((HERE / "runtime").glob("*.cpp"))
    headers = [*(HERE / "runtime").glob("*.h"), HERE / "device" / "runtime_api.h", HERE / "device" / "language.h"]
    import pybind11

    def build(target: Path, scratch: Path) -> None:
        core = [path for path in sources if path.name != "module.cpp"]
        include = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}"]
        binding = [*COMMON, "-O0", "-g0", "-fvisibility=hidden", f"-DEXECUTOR_MODULE={RUNTIME_MODULE}", *include]
        commands = [
            [*compiler(), *COMMON, "-O2", "-c", *map(str, core)],
            [*compiler(), *binding, "-c", str(HERE / "runtime" / "module.cpp")],
        ]
        running = [subprocess.Popen(c, cwd=scratch, stderr=subprocess.PIPE, text=True) for c in commands]
        for process, command in zip(running, commands, strict=True):
            _, complaint = process.communicate()
            if process.returncode:
                raise BuildError(f"{' '.join(command)}\n{complaint}")
        objects = sorted(str(path) for path in scratch.glob("*.o"))
        _compile([*compiler(), "-shared", f"-Wl,-soname,{target.name}", *objects, "-ldl", "-o", str(scratch / "out")])

    key = _digest([*sources, *headers], [pybind11.__version__, SOABI, *COMMON])
    return _cached(f"{RUNTIME_MODULE}-{key}.so", build)


def kernel_library(source: Path, mode: str, defines: Mapping[str, object] | None = None) -> Path:
    """Compiles one kernel file for ``mode`` (a key of MODES) and returns the shared library."""
    flags = [*KERNEL, *MODES[mode], *(f"-D{name}={value}" for name, value in sorted((defines or {}).items()))]
    include = [f"-I{CSRC}", f"-I{HERE / 'device'}", f"-I{source.parent}"]
    library = str(runtime_library())
    headers = [
        path for folder in {CSRC, CSRC / "cuda", HERE / "device", source.parent} for path in folder.glob("*.h*")
    ] + [path for folder in {CSRC, CSRC / "cuda", source.parent} for path in folder.glob("*.cuh")]

    def build(target: Path, scratch: Path) -> None:
        found = launchers(source, [*flags, *include])
        if not found:
            raise BuildError(f'{source}: no launcher found (a function defined as extern "C" int NAME(...))')
        table = ", ".join(f'EXECUTOR_LAUNCHER({name}, "{",".join(words)}")' for name, words in found.items())
        unit, result = scratch / "unit.cpp", str(scratch / "unit.o")
        unit.write_text(f'#include "{source}"\n#include "bind.h"\nEXECUTOR_TABLE({table})\n', encoding="utf-8")
        _compile([*compiler(), *flags, *include, "-c", str(unit), "-o", result])
        # linked without the -fsanitize flags, which would look for the sanitizers' own libraries
        _compile([*compiler(), "-shared", "-Wl,-Bsymbolic", result, library, "-o", str(scratch / "out")])

    key = _digest([source, *headers], [*flags, library])
    return _cached(f"{source.stem}-{mode}-{key}.so", build)


def launchers(source: Path, flags: Iterable[str]) -> dict[str, list[str]]:
    """{name: parameter names} of the functions with C linkage that ``source`` itself defines, by hand or by a macro."""
    text = _compile([*compiler(), *flags, "-x", "c++", "-E", str(source)])
    own, kept = False, []
    for line in text.splitlines():
        if marker := re.match(r'# \d+ "([^"]*)"', line):
            own = Path(marker[1]) == source
        elif own:
            kept.append(line)
    code = "\n".join(kept)
    found = {}
    for name, parameters in re.findall(r'extern\s+"C"\s+int\s+(\w+)\s*\(([^)]*)\)\s*\{', code):
        words = [re.findall(r"\w+", parameter) for parameter in parameters.split(",")]
        found[name] = [w[-1] for w in words if w]
    return found


def _compile(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


@functools.cache
def _compiler_version() -> str:
    return _compile([*compiler(), "--version"])


def _digest(files: Iterable[Path], words: Iterable[str]) -> str:
    digest = hashlib.sha256(_compiler_version().encode())
    for path in sorted(set(files)):
        digest.update(f"{path}\0".encode() + path.read_bytes() + b"\0")
    for word in words:
        digest.update(f"{word}\0".encode())
    return digest.hexdigest()[:20]


def _cached(name: str, build: Callable[[Path, Path], None]) -> Path:
    """Return the file ``name`` of the cache; if it is missing, ``build(target, scratch folder)`` makes scratch/out."""
    folder = cache_folder()
    target = folder / name
    if not target.exists():
        with FileLock(folder / f"{name}.lock"):
            if not target.exists():
                scratch = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=folder))
                try:
                    build(target, scratch)
                    os.replace(scratch / "out", target)
                finally:
                    shutil.rmtree(scratch)
                _forget_unused(folder)
    os.utime(target)
    return target


def _forget_unused(folder: Path, days: float = 14.0) -> None:
    for path in folder.iterdir():
        try:
            if time.time() - path.stat().st_mtime < days * 86400:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        except FileNotFoundError:  # another process was faster
            pass

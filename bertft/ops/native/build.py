"""Compilation of the kernels with ninja.

A library is compiled once for each key of everything that goes into it.

Environment:
    BERTFT_CACHE     folder of compiled libraries (default ``$XDG_CACHE_HOME/bertft`` or ``~/.cache/bertft``)
    BERTFT_SANITIZE  sanitizers to compile with, such as ``address,undefined``
    CXX, CXXFLAGS    compiler and further flags
    MAX_JOBS         files compiled at once
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock

_LOG = logging.getLogger("bertft.ops")  # the command line shows it (bertft/cli/console.py)

PACKAGE = Path(__file__).resolve().parents[2]
SHARED = ("bad_row.h", "check.h", "metric_codes.h")  # headers of both bindings

TAKES = {"cpu": "about 20 s of one core", "cuda": "some minutes"}  # to compile everything


class BuildError(Exception):
    """Failure to compile the kernels here; the message gives the reason in one sentence."""


# Inputs of a build -----------------------------------------------------------------------------------------------


def source_root() -> Path:
    """Return ``csrc`` of the working tree, or its copy in an installed wheel (``bertft/_csrc``)."""
    for folder in (PACKAGE / "_csrc", PACKAGE.parent / "csrc"):
        if (folder / "bind_cpu.cpp").is_file():
            return folder
    raise BuildError(f"the kernels' sources are neither in {PACKAGE / '_csrc'} nor in {PACKAGE.parent / 'csrc'}")


def sources(root: Path) -> list[Path]:
    """Return the files of the CPU library, headers included, in a fixed order."""
    return sorted(
        [
            root / "bind_cpu.cpp",
            *root.glob("bind_rows.h"),
            *(file for name in SHARED for file in root.glob(name)),
            *root.glob("cpu/*.cpp"),
            *root.glob("cpu/*.h"),
        ]
    )


def find_compiler() -> str:
    """Return the command ``$CXX`` (such as ``g++-13`` or ``ccache g++``), or the path of c++, g++ or clang++."""
    wanted = os.environ.get("CXX")
    for name in [wanted] if wanted else ["c++", "g++", "clang++"]:
        program, *rest = shlex.split(name)
        if path := shutil.which(program):
            return shlex.join([path, *rest])
    raise BuildError(f"there is no C++ compiler ({wanted or 'c++, g++ or clang++'} is not on the path)")


def native_flags() -> list[str]:
    """Return the flags that compile for the CPU of this machine."""
    native = {"x86_64": ["-march=native"], "AMD64": ["-march=native"], "aarch64": ["-mcpu=native"]}
    return native.get(platform.machine(), [])


def compile_flags(target: Sequence[str] | None = None) -> list[str]:
    """Return the flags of every compilation, for this CPU or with those of a ``target``; they are part of the key."""
    flags = ["-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno", "-Wall"]
    flags += ["-Wno-psabi"]  # vector types never cross a library boundary here
    flags += native_flags() if target is None else target
    flags += ["-DTORCH_TARGET_VERSION=0x020a000000000000"]
    if sanitize := os.environ.get("BERTFT_SANITIZE"):
        flags += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all", "-g", "-O1"]
    return flags + shlex.split(os.environ.get("CXXFLAGS", ""))


@functools.cache
def cpu_features() -> tuple[str, frozenset[str]]:
    """Return (model, instruction sets) of this CPU as the system reports them; the sets may be empty."""
    model, features = platform.processor() or platform.machine(), frozenset[str]()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n", 1)[0]
    except OSError:
        return model, features
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            model = value.strip()
        elif name.strip() in ("flags", "Features"):
            features = frozenset(value.split())
    return model, features


def digest(files: list[Path], root: Path) -> str:
    """Return the SHA-256, in hex, of files' names below ``root`` and of their content."""
    found = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        found.update(f"{file.relative_to(root)} {len(content)}\n".encode() + content)
    return found.hexdigest()


def build_key(root: Path, compiler: str) -> str:
    """Return the hex key of the library, which changes with sources, torch, compiler, flags and CPU, and nothing else.

    The programs of the compiler's command are identified by resolved path, size and modification time, because asking
    them for a version would take longer than loading the library.
    """
    import torch

    programs = [Path(path).resolve() for word in shlex.split(compiler) if (path := shutil.which(word))]
    model, features = cpu_features()
    parts = [
        digest(sources(root), root),
        torch.__version__,
        str(Path(torch.__file__).parent),
        compiler,
        *(f"{program} {program.stat().st_size} {program.stat().st_mtime_ns}" for program in programs),
        *compile_flags(),
        model,
        *sorted(features),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def cache_folder() -> Path:
    """Return the folder of compiled libraries."""
    if override := os.environ.get("BERTFT_CACHE"):
        return Path(override)
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(base, "bertft") if base else Path.home() / ".cache" / "bertft"


# Building --------------------------------------------------------------------------------------------------------


def ninja_command(*words: object) -> str:
    """Return a command line for a rule of build.ninja."""
    return " ".join(shlex.quote(str(word)) for word in words).replace("$", "$$")


def ninja_path(file: Path) -> str:
    """Return a file's path for a build line of build.ninja."""
    return str(file).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def write_ninja(
    folder: Path, root: Path, compiler: str, output: Path, *, flags: Sequence[str] = (), movable: bool = False
) -> None:
    """Write ``folder/build.ninja``, which compiles every source of ``root`` and links ``output``.

    ``flags`` default to those of this CPU. A ``movable`` library (Linux only) holds no path of this machine: it takes
    the torch that its process has loaded.
    """
    import torch

    home, command, path = Path(torch.__file__).parent, ninja_command, ninja_path
    compiling = command(*shlex.split(compiler), *(flags or compile_flags()))
    place = [f"-Wl,-rpath,{home / 'lib'}"]
    if movable and sys.platform == "linux":
        compiling += " " + command(f"-ffile-prefix-map={home}=torch", f"-ffile-prefix-map={root}=csrc")
        # some builds of torch export parts of libstdc++, which others lack
        place = ["-Wl,--as-needed", "-Wl,-s", "-lstdc++"]
    link = command("-shared", f"-L{home / 'lib'}", *place, "-ltorch_cpu", "-ltorch", "-lc10", "-ldl")
    lines = [
        "rule compile",
        f"  command = {compiling} {command('-isystem', home / 'include')} -MD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "rule link",
        f"  command = {compiling} $in {link} -o $out",
    ]
    objects = []
    for file in sources(root):
        if file.suffix == ".cpp":
            objects.append(f"{file.stem}.o")
            lines.append(f"build {objects[-1]}: compile {path(file)}")
    lines.append(f"build {path(output)}: link {' '.join(objects)}")
    (folder / "build.ninja").write_text("\n".join(lines) + "\n", encoding="utf-8")


def run_ninja(folder: Path) -> None:
    """Run the build described in ``folder``; raise BuildError with the compiler's own message."""
    ninja = shutil.which("ninja") or shutil.which("ninja", path=str(Path(sys.executable).parent))
    if ninja is None:  # the package may be installed without its script on the path
        try:
            ninja = str(Path(importlib.import_module("ninja").BIN_DIR) / "ninja")
        except (ImportError, AttributeError):
            raise BuildError("the build tool ninja is missing (pip install ninja)") from None
    jobs = ["-j", os.environ["MAX_JOBS"]] if os.environ.get("MAX_JOBS") else []
    try:
        done = subprocess.run([ninja, "-C", str(folder), *jobs], capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"the build tool {ninja} cannot be started ({error.strerror})") from error
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if "error" in line] or done.stdout.splitlines()[-1:]
        raise BuildError(f"compiling the kernels failed: {(lines or [done.stderr.strip()])[0]}")


def build(cache: Path, key: str, root: Path, compiler: str) -> Path:
    """Return the CPU library for ``key`` in ``cache``, compiling it if it is not there."""
    library = cache / f"bertft_cpu-{key}.so"
    return build_once(library, lambda folder, output: write_ninja(folder, root, compiler, output))


def build_once(library: Path, write: Callable[[Path, Path], None]) -> Path:
    """Return ``library``, built if it is missing or damaged by the build.ninja that ``write(folder, output)`` writes.

    One process compiles and the others wait for its lock, which the system drops when that process ends. The library
    appears by a rename, so a build killed half-way leaves only a temporary folder, which the next build removes.
    The library's digest is kept beside it: a library damaged since then is built again, not loaded.
    """
    if _intact(library):
        return library
    try:
        return _build_once(library, write)
    except OSError as error:
        reason = f"the cache folder {library.parent} cannot be written ({error.strerror}); set BERTFT_CACHE"
        raise BuildError(reason) from error


def _build_once(library: Path, write: Callable[[Path, Path], None]) -> Path:
    cache, name = library.parent, library.stem
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{name}.lock"):
        if _intact(library):
            return library
        kind, _, key = name.removeprefix("bertft_").rpartition("-")
        _LOG.info("compiling the %s kernels, once: %s", kind.upper(), TAKES.get(kind, "a moment"))
        for left in cache.glob(f"build-{key}-*"):
            shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f"build-{key}-", dir=cache))
        try:
            write(folder, folder / "library.so")
            run_ninja(folder)
            digest = folder / "library.sha256"
            digest.write_text(hashlib.sha256((folder / "library.so").read_bytes()).hexdigest(), encoding="utf-8")
            library.unlink(missing_ok=True)  # a damaged one: it must not stand beside the new digest
            os.replace(digest, library.with_suffix(".sha256"))
            os.replace(folder / "library.so", library)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return library


def _intact(library: Path) -> bool:
    """Return whether ``library`` exists and has the digest kept beside it, if one is: older caches have none."""
    if not library.is_file():
        return False
    try:
        built = library.with_suffix(".sha256").read_text(encoding="utf-8")
    except OSError:
        built = ""
    return not built or hashlib.sha256(library.read_bytes()).hexdigest() == built

"""Kernel libraries that come with the package.

A wheel may hold the CPU kernels compiled: one library per set of CPU features in ``bertft/_prebuilt``, the fastest
first in its ``manifest.json``. They use torch's stable ABI and no Python, so that one library serves every torch from
2.10 on and every Python. `bertft.ops.native.wheel` builds them.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from bertft.ops.native.build import PACKAGE, BuildError, cpu_features, digest, native_flags, sources

FOLDER = PACKAGE / "_prebuilt"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Target:
    """A kind of CPU: the compiler's flags for it, and the features that a CPU must have, as the system names them."""

    name: str
    flags: tuple[str, ...]
    features: frozenset[str]


_V3 = frozenset({"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"})
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
PORTABLE = {  # by machine, the fastest first; the levels are those of the x86-64 psABI
    "x86_64": (Target("avx512", ("-march=x86-64-v4",), _V4), Target("avx2", ("-march=x86-64-v3",), _V3)),
    "aarch64": (Target("neon", ("-march=armv8-a",), frozenset({"asimd"})),),
}


def this_cpu() -> Target:
    """Return the target of a build for CPUs with every feature of this one."""
    return Target("native", tuple(native_flags()), cpu_features()[1])


def entry(target: Target, library: Path) -> dict[str, object]:
    """Return the manifest's entry of a library."""
    content = hashlib.sha256(library.read_bytes()).hexdigest()
    return {"file": library.name, "features": sorted(target.features), "sha256": content}


def manifest(root: Path, entries: list[dict[str, object]]) -> dict[str, object]:
    """Return the manifest of libraries that were compiled from ``root`` for this kind of machine."""
    return {"sources": digest(sources(root), root), "machine": platform.machine(), "libraries": entries}


def find(root: Path) -> Path | None:
    """Return the fastest library that was compiled from the sources ``root`` and that this CPU can run, or None.

    Raises BuildError if that library is missing or damaged: loading a truncated one would end the process.
    """
    try:
        found = json.loads((FOLDER / MANIFEST).read_text(encoding="utf-8"))
        libraries = [(one["file"], set(one["features"]), one["sha256"]) for one in found["libraries"]]
        fits = found["machine"] == platform.machine() and found["sources"] == digest(sources(root), root)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BuildError(f"the list of prebuilt kernels {FOLDER / MANIFEST} cannot be read ({error})") from None
    if not fits or os.environ.get("BERTFT_SANITIZE"):
        return None
    for file, features, built in libraries:
        if features <= cpu_features()[1]:
            return _checked(FOLDER / file, built)
    return None


def _checked(library: Path, built: str) -> Path:
    try:
        content = library.read_bytes()
    except OSError as error:
        raise BuildError(f"the prebuilt library {library} cannot be read ({error.strerror})") from None
    if hashlib.sha256(content).hexdigest() != built:
        raise BuildError(f"the prebuilt library {library} is damaged (its digest is not the one in {MANIFEST})")
    return library

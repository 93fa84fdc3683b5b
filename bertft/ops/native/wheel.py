"""The kernel library compiled with the package.

It is built by ``BERTFT_AOT=1 pip install --no-build-isolation .``
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from pathlib import Path

from bertft.ops.native.build import (
    PACKAGE,
    cpu_features,
    digest,
    find_compiler,
    run_ninja,
    source_root,
    sources,
    write_ninja,
)

LIBRARY = PACKAGE / "_kernels_aot.so"


def manifest(root: Path) -> dict[str, object]:
    """Return all that a library compiled here and now from ``root`` depends on."""
    return {
        "sources": digest(sources(root), root),
        "machine": platform.machine(),
        "features": sorted(cpu_features()[1]),
    }


def matches(root: Path) -> bool:
    """Return whether the package's library was built from these sources for a CPU like this one."""
    try:
        found = json.loads(LIBRARY.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (
        LIBRARY.is_file()
        and not os.environ.get("BERTFT_SANITIZE")
        and found["sources"] == digest(sources(root), root)
        and found["machine"] == platform.machine()
        and set(found["features"]) <= cpu_features()[1]
    )


def options() -> dict[str, object]:
    """Return the keyword arguments for ``setuptools.setup`` that compile the kernels into the wheel.

    The wheel then fits CPUs with every feature of the one it was built on. The build needs a compiler, ninja and torch.
    One library works with every torch from 2.10 on, because it uses the stable ABI.
    """
    from setuptools import Extension
    from setuptools.command.build_ext import build_ext

    class BuildKernels(build_ext):
        def build_extension(self, ext: Extension) -> None:
            home = PACKAGE if self.inplace else Path(self.build_lib).resolve() / "bertft"
            home.mkdir(parents=True, exist_ok=True)
            root = source_root()
            with tempfile.TemporaryDirectory() as folder:
                write_ninja(Path(folder), root, find_compiler(), Path(folder) / "library.so")
                run_ninja(Path(folder))
                shutil.copy(Path(folder) / "library.so", home / LIBRARY.name)
            beside = home / LIBRARY.with_suffix(".json").name
            beside.write_text(json.dumps(manifest(root)), encoding="utf-8")

        def get_ext_filename(self, fullname: str) -> str:
            return str(Path("bertft", LIBRARY.name))

    return {"ext_modules": [Extension("bertft._kernels_aot", [])], "cmdclass": {"build_ext": BuildKernels}}

"""Compilation of the CPU kernels into a wheel, for setup.py."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bertft.ops.native.build import (
    BuildError,
    compile_flags,
    find_compiler,
    run_ninja,
    source_root,
    write_ninja,
)
from bertft.ops.native.prebuilt import FOLDER, MANIFEST, PORTABLE, Target, entry, manifest, this_cpu

CHOICES = ("1", "portable")


def targets(choice: str, machine: str) -> Sequence[Target]:
    """Return what ``BERTFT_AOT`` asks for: ``1`` this CPU, ``portable`` every kind of CPU that a wheel serves."""
    if choice not in CHOICES:
        raise BuildError(f"BERTFT_AOT must be {' or '.join(CHOICES)}, not {choice!r}")
    if choice == "1":
        return [this_cpu()]
    if machine not in PORTABLE:
        raise BuildError(f"BERTFT_AOT=portable: expected one of {', '.join(PORTABLE)}, found the machine {machine}")
    return PORTABLE[machine]


def compile_into(home: Path, root: Path, wanted: Sequence[Target]) -> None:
    """Compile the kernels in ``root`` for each target into the folder ``home``, and write its manifest."""
    home.mkdir(parents=True, exist_ok=True)
    entries = []
    for target in wanted:
        library = home / f"{target.name}.so"
        with tempfile.TemporaryDirectory() as folder:
            flags = compile_flags(target.flags)
            write_ninja(Path(folder), root, find_compiler(), Path(folder) / "library.so", flags=flags, movable=True)
            run_ninja(Path(folder))
            shutil.copy(Path(folder) / "library.so", library)
        entries.append(entry(target, library))
    (home / MANIFEST).write_text(json.dumps(manifest(root, entries), indent=1) + "\n", encoding="utf-8")


def options(wanted: Sequence[Target]) -> dict[str, object]:
    """Return the keyword arguments for ``setuptools.setup`` that compile the kernels into the wheel.

    The build needs a compiler, ninja and torch. The wheel's tag names a platform but no Python: the libraries use none.
    """
    from setuptools import Extension
    from setuptools.command.bdist_wheel import bdist_wheel
    from setuptools.command.build_ext import build_ext

    class BuildKernels(build_ext):
        def build_extension(self, ext: Extension) -> None:
            compile_into(Path(self.build_lib).resolve() / "bertft" / FOLDER.name, source_root(), wanted)

        def get_ext_filename(self, fullname: str) -> str:
            return str(Path("bertft", FOLDER.name, MANIFEST))

        def copy_extensions_to_source(self) -> None:  # of an editable installation
            shutil.copytree(Path(self.build_lib, "bertft", FOLDER.name), FOLDER, dirs_exist_ok=True)

    class AnyPython(bdist_wheel):
        def get_tag(self) -> tuple[str, str, str]:
            return "py3", "none", super().get_tag()[2]

    return {
        "ext_modules": [Extension("bertft._prebuilt", [])],
        "cmdclass": {"build_ext": BuildKernels, "bdist_wheel": AnyPython},
    }

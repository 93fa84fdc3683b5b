"""Loading of the CPU kernels, compiled if need be.

A library that came with the package is used if this CPU can run it (`bertft.ops.native.prebuilt`). Otherwise one is
compiled once per user at first use (ninja and torch's stable ABI headers: seconds) and cached under a key of everything
that goes into it: sources, torch, compiler, flags and CPU. Without a compiler, or if the build fails, one warning gives
the reason and the plain PyTorch of `bertft.ops.reference` is used.

Environment:
    BERTFT_KERNELS   ``reference`` never uses compiled kernels; ``compiled`` raises instead of falling back
    and those of `bertft.ops.native.build`
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from bertft.errors import BertftError
from bertft.ops.native import prebuilt
from bertft.ops.native.build import (
    BuildError,
    build,
    build_key,
    cache_folder,
    compile_flags,
    find_compiler,
    source_root,
)
from bertft.ops.native.loader import Loader, load_ops


def on_load(hook: Callable[[], None]) -> None:
    """Call ``hook`` once the compiled ops exist: at once, or when `load` first succeeds. Ops register in it."""
    _kernels.on_load(hook)


def load() -> bool:
    """Return whether the compiled kernels are in use; the first call finds or compiles, and loads them.

    If that fails, one RuntimeWarning gives the reason (none with ``BERTFT_KERNELS=reference``), and the reference is
    used for the life of the process.
    """
    return _kernels.load()


# torch.compile calls `load` while it traces and treats the answer as a constant. The decorator
# torch.compiler.assume_constant_result sets the same mark, but imports all of torch._dynamo, which takes a second.
load._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _load() -> dict[str, object]:
    choice = os.environ.get("BERTFT_KERNELS", "auto")
    if choice not in ("auto", "reference", "compiled"):
        raise BertftError(f"BERTFT_KERNELS must be auto, reference or compiled, not {choice!r}")
    state: dict[str, object] = {"loaded": False, "kernels": "reference", "cache": str(cache_folder())}
    if choice == "reference":
        return state | {"reason": "BERTFT_KERNELS=reference asks for plain PyTorch"}
    try:
        found, fault = _find_and_load()
    except BuildError as error:
        if choice == "compiled":
            raise BertftError(f"BERTFT_KERNELS=compiled, but {error}") from error
        warnings.warn(f"bertft runs on plain PyTorch, slower: {error}", RuntimeWarning, stacklevel=4)
        return state | {"reason": str(error)}
    if fault:
        warnings.warn(f"bertft compiled its kernels here, because {fault}", RuntimeWarning, stacklevel=4)
    return state | found


def find_or_build() -> tuple[Path, dict[str, object]]:
    """Return the library for this CPU, compiled if need be, and entries of `status`; raise BuildError. Loads none."""
    root, compiler = source_root(), find_compiler()
    key = build_key(root, compiler)
    there = (cache_folder() / f"bertft_cpu-{key}.so").is_file()
    library = build(cache_folder(), key, root, compiler)
    reason = "found in the cache" if there else "compiled at first use"
    about = {"reason": reason, "key": key, "compiler": compiler, "flags": " ".join(compile_flags())}
    return library, {"kernels": "compiled", **about}


def _find_and_load() -> tuple[dict[str, object], str]:
    """Load a library; return entries of `status`, and the fault of a prebuilt library that a compiled one replaced."""
    import torch

    if os.name != "posix":
        raise BuildError("compiled kernels need Linux or macOS")
    started = time.perf_counter()
    library, found, fault = _load_prebuilt()
    if library is None:
        try:
            library, found = find_or_build()
            load_ops(library)
        except BuildError as error:
            raise BuildError(f"{fault}, and {error}" if fault else str(error)) from error
    capability, seconds = torch.ops.bertft.cpu_capability(), time.perf_counter() - started
    found |= {"loaded": True, "library": str(library), "capability": capability, "seconds": seconds}
    return found, fault


def _load_prebuilt() -> tuple[Path | None, dict[str, object], str]:
    """Load the package's library for this CPU; return it, entries of `status`, and its fault if it has one."""
    try:
        if library := prebuilt.find(source_root()):
            load_ops(library)
            return library, {"kernels": "prebuilt", "reason": f"the package's library for {library.stem} fits"}, ""
    except BuildError as error:
        return None, {}, str(error)
    return None, {}, ""


def status() -> dict[str, object]:
    """Return which kernels are in use and why; loads them if need be.

    Keys: ``loaded``, ``kernels`` ("prebuilt", "compiled" or "reference"), ``reason``, ``cache``; with kernels also
    ``library``, ``capability``, ``seconds`` and, unless they came with the package, ``key``, ``compiler``, ``flags``.
    """
    load()
    assert _kernels.state is not None
    return dict(_kernels.state)


_kernels = Loader(_load)

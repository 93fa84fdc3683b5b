"""Loading of the CPU kernels, compiled if need be.

The library is compiled once per user at first use (ninja and torch's stable ABI headers: seconds) and cached under a
key of everything that goes into it: sources, torch, compiler, flags and CPU. A library compiled ahead of time
(``BERTFT_AOT=1 pip install --no-build-isolation .``) is preferred if it fits. Without a compiler, or if the build
fails, one warning gives the reason and the plain PyTorch of `bertft.ops.reference` is used.

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
from bertft.ops.native import wheel
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
        return state | _find_and_load()
    except BuildError as error:
        if choice == "compiled":
            raise BertftError(f"BERTFT_KERNELS=compiled, but {error}") from error
        warnings.warn(f"bertft runs on plain PyTorch, slower: {error}", RuntimeWarning, stacklevel=4)
        return state | {"reason": str(error)}


def find_or_build() -> tuple[Path, dict[str, object]]:
    """Return the library to load, compiled if need be, and entries of `status`; raise BuildError. Loads nothing."""
    root = source_root()
    if wheel.matches(root):
        return wheel.LIBRARY, {"reason": "compiled ahead of time with the package"}
    compiler = find_compiler()
    key = build_key(root, compiler)
    there = (cache_folder() / f"bertft_cpu-{key}.so").is_file()
    library = build(cache_folder(), key, root, compiler)
    reason = "found in the cache" if there else "compiled at first use"
    return library, {"reason": reason, "key": key, "compiler": compiler, "flags": " ".join(compile_flags())}


def _find_and_load() -> dict[str, object]:
    import torch

    if os.name != "posix":
        raise BuildError("compiled kernels need Linux or macOS")
    started = time.perf_counter()
    library, found = find_or_build()
    load_ops(library)
    return found | {
        "loaded": True,
        "kernels": "compiled",
        "library": str(library),
        "capability": torch.ops.bertft.cpu_capability(),
        "seconds": time.perf_counter() - started,
    }


def status() -> dict[str, object]:
    """Return which kernels are in use and why; loads them if need be.

    Keys: ``loaded``, ``kernels`` ("compiled" or "reference"), ``reason``, ``cache``; with compiled kernels also
        ``library``,
    ``capability``, ``seconds`` and, unless they came with the package, ``key``, ``compiler``, ``flags``.
    """
    load()
    assert _kernels.state is not None
    return dict(_kernels.state)


_kernels = Loader(_load)

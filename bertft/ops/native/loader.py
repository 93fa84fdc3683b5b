"""Loading of a kernel library once per process.

Registration hooks run once it is loaded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from bertft.ops.native.build import BuildError


class Loader:
    """A library that is loaded at first use.

    ``find()`` finds or compiles the library, loads it, and returns entries of a status: ``loaded``, ``reason`` and
    more. ``state`` is that status, None before the first `load`. Thread-safe; later calls of `load` cost a lookup.
    """

    def __init__(self, find: Callable[[], dict[str, object]]) -> None:
        self.state: dict[str, object] | None = None
        self._find, self._hooks, self._lock = find, list[Callable[[], None]](), threading.RLock()

    def on_load(self, hook: Callable[[], None]) -> None:
        """Call ``hook`` once the library is loaded: at once, or when `load` first succeeds."""
        with self._lock:
            self._hooks.append(hook)
            if self.state is not None and self.state["loaded"]:
                hook()

    def load(self) -> bool:
        """Return whether the library is in use."""
        if self.state is None:
            with self._lock:
                if self.state is None:
                    self.state = self._find()
                    if self.state["loaded"]:
                        for hook in self._hooks:
                            hook()
        return bool(self.state["loaded"])


def load_ops(library: Path) -> None:
    """Register the ops of a compiled library with torch; raise BuildError if it does not load."""
    import torch

    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        raise BuildError(f"the compiled library {library} does not load ({error})") from error

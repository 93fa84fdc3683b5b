"""How long work reports that it is alive, without printing anything itself.

Every driver takes ``progress: Progress = SILENT``. The command line hands in a ``rich`` implementation.
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol


class Step(Protocol):
    """One bar. A context manager; ``advance`` moves it by ``n`` units, ``note`` replaces the text at its end."""

    def __enter__(self) -> Step: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def advance(self, n: float = 1) -> None: ...

    def note(self, text: str) -> None: ...


class Progress(Protocol):
    """Hands out bars and takes one-line messages."""

    def step(self, description: str, total: float | None = None, unit: str = "it") -> Step: ...

    def say(self, message: str) -> None: ...


class _SilentStep:
    def __enter__(self) -> _SilentStep:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        return None

    def advance(self, n: float = 1) -> None:
        return None

    def note(self, text: str) -> None:
        return None


class _Silent:
    def step(self, description: str, total: float | None = None, unit: str = "it") -> Step:
        return _SilentStep()

    def say(self, message: str) -> None:
        return None


SILENT: Progress = _Silent()

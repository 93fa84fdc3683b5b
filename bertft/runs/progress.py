"""How long work reports that it is alive, without printing anything itself.

Every driver takes ``progress: Progress = SILENT``. The command line hands in a ``rich`` implementation. Work that no
driver hands it to, because it is done once a process wherever it is first needed (compiling, downloading, loading),
asks for the `Screen` that is shown at the moment, if any: `announce`, `waiting`, `downloading`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
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


class Screen(Progress, Protocol):
    """A `Progress` that draws on the user's terminal; ``aside`` clears it inside, for another library's own bars."""

    def aside(self) -> AbstractContextManager[object]: ...


_screens: list[Screen] = []


@contextlib.contextmanager
def showing(screen: Screen) -> Iterator[None]:
    """Inside, ``screen`` is what the user sees."""
    _screens.append(screen)
    try:
        yield
    finally:
        _screens.remove(screen)


def announce(message: str) -> None:
    """A line to the user who watches; nothing where nobody does."""
    if _screens:
        _screens[-1].say(message)


@contextlib.contextmanager
def waiting(description: str) -> Iterator[None]:
    """A bar without an end around work of some seconds; nothing where nobody watches."""
    progress = _screens[-1] if _screens else SILENT
    with progress.step(description):
        yield


@contextlib.contextmanager
def downloading(what: str) -> Iterator[bool]:
    """A line that ``what`` is fetched, and the terminal for the bars of the library that fetches it.

    Gives whether anybody watches.
    """
    if not _screens:
        yield False
        return
    announce(f"downloading {what}")
    with _screens[-1].aside():
        yield True

"""Progress reports, printed only by the command line.

A function that works for long takes ``progress: Progress = SILENT``; the command line passes one that draws. Work that
happens once per process, wherever it is first needed, has no such argument: `waiting` and `downloading` use the
`Screen` of the command line, if there is one, and a message goes to a logger below ``bertft``.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from types import TracebackType
from typing import Protocol

_log = logging.getLogger("bertft.runs")


class Step(Protocol):
    """One bar, as a context manager."""

    def __enter__(self) -> Step: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def advance(self, n: float = 1) -> None:
        """Move the bar by ``n`` units."""
        ...

    def note(self, text: str) -> None:
        """Replace the text at the end of the bar."""
        ...


class Progress(Protocol):
    """A source of bars that also takes messages."""

    def step(self, description: str, total: float | None = None, unit: str = "it") -> Step:
        """Return a bar of ``total`` units, or one without an end."""
        ...

    def say(self, message: str) -> None:
        """Show one line."""
        ...


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
"""Shows nothing."""


class Screen(Progress, Protocol):
    """A `Progress` on the user's terminal."""

    def aside(self) -> AbstractContextManager[object]:
        """Hide the bars inside, so that another library can draw its own."""
        ...


_screen: ContextVar[Screen | None] = ContextVar("screen", default=None)


@contextlib.contextmanager
def showing(screen: Screen) -> Iterator[None]:
    """Make ``screen`` the one that `waiting` and `downloading` use inside."""
    token = _screen.set(screen)
    try:
        yield
    finally:
        _screen.reset(token)


@contextlib.contextmanager
def waiting(description: str) -> Iterator[None]:
    """Show a bar without an end around some seconds of work, if there is a screen."""
    with (_screen.get() or SILENT).step(description):
        yield


@contextlib.contextmanager
def downloading(what: str) -> Iterator[bool]:
    """Log that ``what`` is downloaded and hide the bars inside; yield whether there is a screen."""
    _log.info("downloading %s", what)
    screen = _screen.get()
    with screen.aside() if screen else contextlib.nullcontext():
        yield screen is not None

"""Ctrl-C that a library has swallowed.

Python raises KeyboardInterrupt wherever the signal finds it, and C code that only asks whether an object has an
attribute clears every exception, this one too. The command would go on to its end. `listening` remembers the signal,
and `Attentive` raises it again at the next sign of progress.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import TracebackType

from bertft.runs.progress import Progress, Step

_asked: list[int] = []  # the signals since the last one that was raised again


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Remember SIGINT inside, unless another handler than Python's own is set."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def note(number: int, frame: object) -> None:
        _asked.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _asked.clear()


def raise_again() -> None:
    """Raise a remembered interruption, once.

    Raises:
        KeyboardInterrupt: A signal came and the command still runs.
    """
    if _asked:
        _asked.clear()
        raise KeyboardInterrupt


class Attentive:
    """``progress``, each sign of which raises an interruption that was swallowed before it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def step(self, description: str, total: float | None = None, unit: str = "it") -> Step:
        """Return a bar; see `Progress`."""
        raise_again()
        return _AttentiveStep(self._progress.step(description, total, unit))

    def say(self, message: str) -> None:
        """Show one line."""
        self._progress.say(message)


class _AttentiveStep:
    def __init__(self, step: Step) -> None:
        self._step = step

    def __enter__(self) -> Step:
        self._step.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._step.__exit__(kind, error, trace)

    def advance(self, n: float = 1) -> None:
        raise_again()
        self._step.advance(n)

    def note(self, text: str) -> None:
        self._step.note(text)

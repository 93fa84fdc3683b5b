"""Progress on the terminal: bars with rate and time left on stderr, or a line now and then where that is none."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from bertft.runs.progress import Step, showing

HEARTBEAT = 30.0  # seconds between two lines about one piece of work where no bar can be drawn


class ConsoleProgress:
    """A ``bertft.runs.progress.Progress`` that draws. Use it as a context manager, so that the bars go away at the end."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            _Amount(),
            _Rate(),
            TimeElapsedColumn(),
            _Left(),
            TextColumn("{task.fields[note]}", markup=False, style="dim"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._shown = contextlib.ExitStack()

    def __enter__(self) -> ConsoleProgress:
        self._bars.start()
        self._shown.enter_context(showing(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.close()
        self._bars.stop()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Takes the bars away inside, so that another library can draw its own."""
        self._bars.stop()
        try:
            yield
        finally:
            self._bars.start()

    def step(self, description: str, total: float | None = None, unit: str = "it") -> Step:
        return _Bar(self, self._bars, description, total, unit)

    def say(self, message: str) -> None:
        self.console.print(message, markup=False, soft_wrap=True)


class _Bar:
    """One bar; when it closes, one line says what was done, how fast and in what time."""

    def __init__(
        self, owner: ConsoleProgress, bars: Progress, description: str, total: float | None, unit: str
    ) -> None:
        self._owner, self._bars = owner, bars
        self._description, self._total, self._unit = description, total, unit
        self._done, self._note, self._start, self._said = 0.0, "", 0.0, 0.0
        self._task: TaskID | None = None

    def __enter__(self) -> _Bar:
        self._start = self._said = time.monotonic()
        self._task = self._bars.add_task(self._description, total=self._total, unit=self._unit, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
        seconds = time.monotonic() - self._start
        if error is None and seconds >= 2:
            rate = f", {short(self._done / seconds)} {self._unit}/s" if self._done and self._unit != "stage" else ""
            note = f", {self._note}" if self._note else ""
            self._owner.say(f"  {self._description}: {clock(seconds)}{rate}{note}")

    def advance(self, n: float = 1) -> None:
        self._done += n
        if self._task is not None:
            self._bars.advance(self._task, n)
        now = time.monotonic()
        if not self._owner.console.is_terminal and now - self._said >= HEARTBEAT and self._unit != "stage":
            self._said = now
            self._owner.say(f"  {self._description}: {self._so_far(now - self._start)}")

    def _so_far(self, seconds: float) -> str:
        amount = f"{short(self._done)} {self._unit} in {clock(seconds)}"
        if not self._total or not self._done:
            return amount
        left = seconds * (self._total - self._done) / self._done
        return f"{short(self._done)}/{short(self._total)} {self._unit} in {clock(seconds)}, {clock(left)} left"

    def note(self, text: str) -> None:
        self._note = text
        if self._task is not None:
            self._bars.update(self._task, note=text)


class _Amount(ProgressColumn):
    def render(self, task: Task) -> Text:
        total = f"/{short(task.total)}" if task.total is not None else ""
        return Text(f"{short(task.completed)}{total} {task.fields['unit']}", style="cyan")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{short(speed)}/s", style="magenta")


class _Left(ProgressColumn):
    def render(self, task: Task) -> Text:
        left = task.time_remaining
        return Text("" if left is None else f"{clock(left)} left", style="green")


def short(number: float) -> str:
    """3 significant digits for small numbers, thousands as k, millions as M."""
    for size, letter in ((1e6, "M"), (1e4, "k")):
        if abs(number) >= size:
            return f"{number / (1e3 if letter == 'k' else 1e6):.3g}{letter}"
    return f"{number:.0f}" if float(number).is_integer() or number >= 100 else f"{number:.2g}"


def clock(seconds: float) -> str:
    """``5 s``, ``1 min 05 s``, ``1 h 01 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s"

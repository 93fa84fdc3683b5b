"""Progress bars on stderr, or plain lines without a terminal."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from bertft.runs.progress import Step, showing
from bertft.runs.units import clock, short, size

if TYPE_CHECKING:
    from bertft.study.estimate import Estimate
    from bertft.study.timing import StageCost

HEARTBEAT = 30.0  # seconds between two lines on one piece of work, without a terminal


class ConsoleProgress:
    """A `Progress` that draws bars on the terminal. Leaving its context removes them."""

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
        self._shown.enter_context(_log_to(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.close()
        self._bars.stop()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Hide the bars inside, so that another library can draw its own."""
        self._bars.stop()
        try:
            yield
        finally:
            self._bars.start()

    def step(self, description: str, total: float | None = None, unit: str = "it") -> Step:
        """Return a bar of ``total`` units, or one without an end."""
        return _Bar(self, self._bars, description, total, unit)

    def say(self, message: str) -> None:
        """Print one line above the bars."""
        self.console.print(message, markup=False, soft_wrap=True)


class _Shown(logging.Handler):
    """A handler that prints messages above the bars."""

    def __init__(self, progress: ConsoleProgress) -> None:
        super().__init__(logging.INFO)
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self._progress.say(record.getMessage())


@contextlib.contextmanager
def _log_to(progress: ConsoleProgress) -> Iterator[None]:
    """Show bertft's log from level INFO inside."""
    log, handler = logging.getLogger("bertft"), _Shown(progress)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


class _Bar:
    """One bar; a line with its time and rate replaces it at the end."""

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


def shown(estimate: Estimate, as_json: bool) -> str:
    """Return what a dry run prints: a table of stages, their sum, and what the machine lacks, or JSON."""
    if as_json:
        return json.dumps(estimate.to_tree(), indent=1)
    rows = [("stage", "time", "disk", "memory", "work"), *map(_row, estimate.stages)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for stage, *numbers, work in rows:
        cells = [stage.ljust(widths[0]), *(n.rjust(w) for n, w in zip(numbers, widths[1:], strict=True)), work]
        lines.append("  ".join(cells))
    return "\n".join([*lines, "", *_summary(estimate)])


def _row(cost: StageCost) -> tuple[str, str, str, str, str]:
    time = clock(cost.seconds)
    if cost.done:
        return cost.stage, time, "", "", "done before"
    limit = "at most " if cost.at_most else ""
    memory = size(cost.memory) + (f" + {size(cost.gpu)} of the GPU" if cost.gpu else "")
    return cost.stage, limit + time, size(cost.kept + cost.scratch), memory, cost.work


def _summary(estimate: Estimate) -> list[str]:
    left = sum(not cost.done for cost in estimate.stages)
    if not left:
        return ["Every stage is done; the same command without --dry-run draws the page again."]
    early = " (less where probes stop early)" if any(c.at_most for c in estimate.stages if not c.done) else ""
    lines = [
        f"{left} of {len(estimate.stages)} stages to do: about {clock(estimate.seconds)} on this machine if nothing "
        f"else runs on it{early}.",
        f"Disk: {size(estimate.kept)} in the end, {size(estimate.disk)} at most while it runs; "
        f"{size(estimate.free)} free.",
        f"Memory: about {size(estimate.peak)}" + (f" of {size(estimate.memory)}." if estimate.memory else "."),
    ]
    if estimate.peak_gpu:
        lines.append(f"The GPU's memory: about {size(estimate.peak_gpu)} of {size(estimate.gpu)}.")
    if estimate.disk > estimate.free:
        lines.append("The disk is too small for it: choose another --out, or make room.")
    if 0 < estimate.memory < estimate.peak:
        lines.append("The memory is too small for it: choose a smaller batch_size, max_length or model.")
    if 0 < estimate.gpu < estimate.peak_gpu:
        lines.append("The GPU's memory is too small for it: choose a smaller batch_size, max_length or model.")
    return [*lines, "Nothing was written."]

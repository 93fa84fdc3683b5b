"""A run folder: one study at a time, stages that are done once, and a table that is never half-written."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertft.errors import BertftError
from bertft.runs.locks import MOMENT
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import (
    Row,
    appearing_folder,
    merge_rows,
    read_results,
    sweep_unfinished,
    write_results,
    write_text_atomically,
)

CONFIG, RESULTS, RUN, LOCK = "config.yaml", "results.csv", "run.json", ".lock"


@dataclass(frozen=True)
class Stage:
    """One piece of work that ends in rows.

    ``name`` is its place in the folder without a suffix (``rsa/wikipedia``); ``depends`` holds every setting its rows
    depend on, as plain JSON; ``product`` is a file that must still exist for the stage to count as done.
    """

    name: str
    depends: dict[str, Any]
    work: Callable[[], list[Row]]
    product: str | None = None

    @property
    def key(self) -> str:
        """Digest of ``depends``: equal keys, equal rows."""
        return hashlib.sha256(json.dumps(self.depends, sort_keys=True).encode()).hexdigest()


class RunFolder:
    """``out`` with its ``config.yaml``. ``config`` is the text that says which study the folder holds."""

    def __init__(self, out: str | os.PathLike[str], config: str) -> None:
        self.path = Path(out)
        self.config = config

    def check(self) -> None:
        """Refuse, writing nothing, a folder that holds another study or anything else.

        A folder ``models`` may be there already: fine-tuning takes those that were made with the study's settings, and
        refuses others.
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise BertftError(f"--out {self.path}: expected a folder, found a file")
        held = self.path / CONFIG
        if held.is_file():
            difference = _difference(held.read_text(encoding="utf8", errors="replace"), self.config)
            if difference is not None:
                raise BertftError(
                    f"--out {self.path}: the folder holds another study ({difference}); "
                    "choose another folder, or remove this one first"
                )
        elif any(entry.name not in (LOCK, "models") for entry in self.path.iterdir()):
            raise BertftError(f"--out {self.path}: the folder is not empty and holds no study; choose another folder")

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """Make the folder, lock it against a second process, and write its config.

        The lock is the operating system's: it ends with the process, however that ends.
        """
        from filelock import FileLock, Timeout

        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / LOCK, timeout=MOMENT)
        try:
            lock.acquire(poll_interval=MOMENT / 2)  # again after a moment, as `bertft.runs.locks.claimed`
        except Timeout:
            raise BertftError(f"--out {self.path}: another bertft process is at work in this folder") from None
        try:
            self.check()
            sweep_unfinished(self.path)
            write_text_atomically(self.path / CONFIG, self.config)
            yield
        finally:
            lock.release()

    def done(self, stage: Stage) -> list[Row] | None:
        """The rows of a stage that an earlier run finished with the same settings, or None."""
        table, marker = self.path / f"{stage.name}.csv", self.path / f"{stage.name}.done.json"
        try:
            mark = json.loads(marker.read_text(encoding="utf8"))
            intact = mark["key"] == stage.key and mark["rows_sha256"] == _digest(table)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not intact or (stage.product and not (self.path / stage.product).exists()):
            return None
        return read_results(table)

    def finish(self, stage: Stage, rows: Sequence[Row], seconds: float) -> None:
        """Write a stage's rows, then the marker that says they are complete."""
        table = self.path / f"{stage.name}.csv"
        write_results(table, rows)
        mark = {
            "key": stage.key,
            "rows_sha256": _digest(table),
            "seconds": round(seconds, 3),
            "host": socket.gethostname(),
            "finished": timestamp(),
            "settings": stage.depends,
        }
        write_text_atomically(self.path / f"{stage.name}.done.json", json.dumps(mark, indent=1) + "\n")

    def run(
        self,
        stages: Sequence[Stage],
        title: str,
        *,
        table: bool = True,
        after: Callable[[], None] = lambda: None,
        progress: Progress = SILENT,
    ) -> list[Row]:
        """Do, in order, the stages that are not done, and return all their rows; `results.csv` (``table``) grows with
        every stage, and ``after`` is called when one has been done. The folder must be claimed.
        """
        finished: dict[str, list[Row]] = {s.name: held for s in stages if (held := self.done(s)) is not None}
        if finished:
            progress.say(f"{len(finished)} of {len(stages)} stages were done before: {', '.join(finished)}")
        rows: list[Row] = []
        with progress.step(title, total=len(stages), unit="stage") as bar:
            for stage in stages:
                bar.note(stage.name)
                if stage.name not in finished:
                    begun = time.monotonic()
                    finished[stage.name] = stage.work()
                    self.finish(stage, finished[stage.name], time.monotonic() - begun)
                    after()
                rows += finished[stage.name]
                if table:
                    self.write_table(rows)
                bar.advance()
        return rows

    def adopt(self, stages: Sequence[Stage], other: str | os.PathLike[str], within: str = "") -> list[str]:
        """Take over from the run folder ``other`` the stages that it finished with the same settings.

        ``within`` is the folder inside this one that corresponds to ``other``: stage ``<within>/<name>`` here is
        ``<name>`` there. Files are linked, or copied where that cannot be; ``other`` is left as it is. Returns the
        names of the stages taken. The folder must be claimed.
        """
        theirs = RunFolder(other, "")
        taken = []
        for stage in stages:
            if not stage.name.startswith(within) or self.done(stage) is not None:
                continue
            name = stage.name[len(within) :].lstrip("/")
            product = stage.product and stage.product[len(within) :].lstrip("/")
            if theirs.done(dataclasses.replace(stage, name=name, product=product)) is None:
                continue
            found = [theirs.path / name] if (theirs.path / name).exists() else []
            found += theirs.path.glob(f"{name}.*")
            for path in sorted(found, key=lambda path: path.name.endswith(".done.json")):  # the marker last
                _link(path, (self.path / stage.name).parent / path.name)
            taken.append(stage.name)
        return taken

    def seconds(self, stages: Sequence[Stage]) -> dict[str, float]:
        """How long each finished stage took."""
        found = {}
        for stage in stages:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                found[stage.name] = round(float(self._mark(stage)["seconds"]), 2)
        return found

    def finished(self, stages: Sequence[Stage]) -> str | None:
        """When the last of the stages was finished (UTC), however often its results were written since."""
        found = []
        for stage in stages:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                found.append(str(self._mark(stage)["finished"]))
        return max(found, default=None)

    def _mark(self, stage: Stage) -> Any:
        return json.loads((self.path / f"{stage.name}.done.json").read_text(encoding="utf8"))

    def write_table(self, rows: Sequence[Row]) -> None:
        """Write ``results.csv``: every stage's rows so far."""
        write_results(self.path / RESULTS, merge_rows(rows))

    def write_record(self, record: dict[str, Any]) -> None:
        """Write ``run.json``: versions, times, whatever is true of this run rather than of the study."""
        write_text_atomically(self.path / RUN, json.dumps(record, indent=1) + "\n")


def timestamp() -> str:
    """The time now, UTC, as records hold it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _link(source: Path, target: Path) -> None:
    """``source``, a file or a folder of files, at ``target`` too."""
    if source.is_dir():
        if not target.exists():
            with appearing_folder(target) as fresh:
                shutil.copytree(source, fresh, copy_function=_link_file)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    _link_file(source, target)


def _link_file(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _difference(held: str, wanted: str) -> str | None:
    """The first setting in which two YAML texts differ, in words, or None: neither order nor spelling makes one."""
    import yaml

    if held == wanted:
        return None
    try:
        old, new = yaml.safe_load(held), yaml.safe_load(wanted)
    except yaml.YAMLError:
        return "its config.yaml is not valid YAML"
    if type(old) is not type(new):
        return "its config.yaml holds no settings"
    return _first_difference(old, new, "")


def _first_difference(old: Any, new: Any, where: str) -> str | None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(k for k in old if k not in new)]:
            place = f"{where}.{key}" if where else str(key)
            if (key in old) != (key in new):
                return f"{place} is set only {'there' if key in old else 'here'}"
            found = _first_difference(old[key], new[key], place)
            if found:
                return found
        return None
    return None if old == new else f"{where} is {old!r} there and {new!r} here"

"""Run folders with stages that run once."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bertft.errors import BertftError
from bertft.runs.differences import first_difference
from bertft.runs.digests import digest_of, digest_of_json
from bertft.runs.files import appearing_folder, sweep_unfinished, write_text_atomically
from bertft.runs.locks import MOMENT
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row, merge_rows, read_results, write_results

T = TypeVar("T")

CONFIG, RESULTS, RUN, LOCK = "config.yaml", "results.csv", "run.json", ".lock"


@dataclass(frozen=True)
class Stage:
    """A piece of work that returns rows.

    Attributes:
        name: path of its table in the folder, without suffix (``rsa/wikipedia``).
        depends: every setting that its rows depend on, as plain JSON.
        work: returns the rows.
        product: a file that must exist for the stage to count as done.
    """

    name: str
    depends: dict[str, Any]
    work: Callable[[], list[Row]]
    product: str | None = None

    @property
    def key(self) -> str:
        """SHA-256 digest of ``depends``: equal keys mean equal rows."""
        return digest_of_json(self.depends)


class RunFolder:
    """The folder ``out`` of one study, which the YAML text ``config`` describes."""

    def __init__(self, out: str | os.PathLike[str], config: str) -> None:
        self.path = Path(out)
        self.config = config

    def check(self) -> None:
        """Raise ``BertftError`` if the folder holds another study or anything else; write nothing.

        A folder ``models`` is allowed: fine-tuning takes models of the same settings and refuses others.
        """
        check_place(self.path)
        if not self.path.exists():
            return
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
        """Make and lock the folder and write its config; raise ``BertftError`` if another process holds the lock.

        The lock is the operating system's. It ends with the process, even a killed one.
        """
        from filelock import FileLock, Timeout

        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / LOCK, timeout=MOMENT)
        try:
            lock.acquire(poll_interval=MOMENT / 2)  # retry, as `bertft.runs.locks.claimed` does
        except Timeout:
            raise BertftError(f"--out {self.path}: another bertft process is using this folder") from None
        try:
            self.check()
            sweep_unfinished(self.path)
            write_text_atomically(self.path / CONFIG, self.config)
            yield
        finally:
            lock.release()

    def done(self, stage: Stage) -> list[Row] | None:
        """Return the rows of a stage that was finished with the same settings, or None."""
        table, marker = self.path / f"{stage.name}.csv", self.path / f"{stage.name}.done.json"
        try:
            mark = json.loads(marker.read_text(encoding="utf8"))
            intact = mark["key"] == stage.key and mark["rows_sha256"] == digest_of(table)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not intact or (stage.product and not (self.path / stage.product).exists()):
            return None
        return read_results(table)

    def finish(self, stage: Stage, rows: Sequence[Row], seconds: float) -> None:
        """Write a stage's rows, then the marker that commits them."""
        table = self.path / f"{stage.name}.csv"
        write_results(table, rows)
        mark = {
            "key": stage.key,
            "rows_sha256": digest_of(table),
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
        """Run the stages that are not done, in order, and return the rows of all. The folder must be claimed.

        Args:
            stages: all stages.
            title: of the progress bar.
            table: whether to rewrite ``results.csv`` after every stage.
            after: called after every stage that ran.
            progress: where to report.
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
        """Take stages that the run folder ``other`` finished with the same settings; return their names.

        Stage ``<within>/<name>`` here is ``<name>`` there. Files are hard-linked, or copied where links are not
        possible; ``other`` is not changed. The folder must be claimed.
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
            for path in sorted(found, key=lambda path: path.name.endswith(".done.json")):  # commit last
                _link(path, (self.path / stage.name).parent / path.name)
            taken.append(stage.name)
        return taken

    def seconds(self, stages: Sequence[Stage]) -> dict[str, float]:
        """Return the seconds of each finished stage."""
        return {name: round(seconds, 2) for name, seconds in self._marked(stages, "seconds", float).items()}

    def finished(self, stages: Sequence[Stage]) -> str | None:
        """Return when the last stage was finished (UTC), not when its results were last written."""
        return max(self._marked(stages, "finished", str).values(), default=None)

    def _marked(self, stages: Sequence[Stage], key: str, kind: Callable[[Any], T]) -> dict[str, T]:
        """Return the entry ``key`` of the markers of finished stages, as ``kind``; skip unusable markers."""
        found = {}
        for stage in stages:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                mark = json.loads((self.path / f"{stage.name}.done.json").read_text(encoding="utf8"))
                found[stage.name] = kind(mark[key])
        return found

    def write_table(self, rows: Sequence[Row]) -> None:
        """Write ``results.csv``."""
        write_results(self.path / RESULTS, merge_rows(rows))

    def write_record(self, record: dict[str, Any]) -> None:
        """Write ``run.json``: versions, times and other facts of this run."""
        write_text_atomically(self.path / RUN, json.dumps(record, indent=1) + "\n")


def check_place(out: str | os.PathLike[str]) -> None:
    """Raise ``BertftError`` unless files can be created in ``out``, or in the nearest folder above that exists."""
    path = Path(out)
    if path.exists() and not path.is_dir():
        raise BertftError(f"--out {path}: expected a folder, found a file")
    place = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not place.is_dir():
        raise BertftError(f"--out {path}: expected a folder, found the file {place}")
    if not os.access(place, os.W_OK | os.X_OK):
        barred = errno.EROFS if os.statvfs(place).f_flag & os.ST_RDONLY else errno.EACCES
        raise BertftError(f"--out {path}: cannot write in {place}: {os.strerror(barred)}")


def timestamp() -> str:
    """Return the current time (UTC) in the format of records."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _link(source: Path, target: Path) -> None:
    """Hard-link or copy ``source``, a file or a folder, to ``target``."""
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


def _difference(held: str, wanted: str) -> str | None:
    """Return the first setting in which two YAML texts differ, in words, or None; order and style do not count."""
    import yaml

    if held == wanted:
        return None
    try:
        old, new = yaml.safe_load(held), yaml.safe_load(wanted)
    except yaml.YAMLError:
        return "its config.yaml is not valid YAML"
    if type(old) is not type(new):
        return "its config.yaml holds no settings"
    return first_difference(old, new)

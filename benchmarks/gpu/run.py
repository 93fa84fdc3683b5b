"""Sections of measurements within time limits, and their results."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bertft.errors import BertftError

Result = dict[str, Any]


class WrongResult(Exception):
    """Error of a result beyond its tolerance; it is not timed."""


@dataclass
class Item:
    """One measurement: its name, the seconds that it should take, and a function that returns its result."""

    name: str
    seconds: float
    run: Callable[[], Result]


@dataclass
class Section:
    """Measurements that share a time limit; ``items`` makes them when their turn comes."""

    name: str
    limit: float
    items: Callable[[], Iterable[Item]]


@dataclass
class Record:
    """Results of a run so far, written after each section as ``gpu.json`` and ``gpu.md``."""

    folder: Path
    about: Result
    budget: float
    say: Callable[[str], None] = print
    clock: Callable[[], float] = time.monotonic
    results: list[Result] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.began = self.clock()

    @property
    def wrong(self) -> int:
        """Number of results beyond their tolerance."""
        return sum("wrong" in result for result in self.results)

    def add(self, section: Section) -> None:
        """Run a section, keep its results, and write everything so far."""
        began = self.clock()
        for item in section.items():
            now = self.clock()
            left = min(section.limit - (now - began), self.budget - (now - self.began))
            result: Result = {"section": section.name, "item": item.name}
            if item.seconds > left:
                result["skipped"] = f"takes {item.seconds:.0f} s, {max(left, 0):.0f} s left"
            else:
                result |= self._measured(item)
            self.results.append(result)
            self.say(f"  {section.name}: {item.name}: {line(result)}")
        self.write()

    def _measured(self, item: Item) -> Result:
        try:
            return item.run()
        except WrongResult as error:
            return {"wrong": str(error)}
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            return {"failed": "out of memory"}
        except (RuntimeError, ImportError, OSError, ValueError, TypeError, AttributeError, BertftError) as error:
            return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}

    def write(self) -> None:
        """Write both files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        whole = {**self.about, "seconds": round(self.clock() - self.began, 1), "results": self.results}
        (self.folder / "gpu.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        (self.folder / "gpu.md").write_text(markdown(self.about, self.results), encoding="utf-8")


def line(result: Result) -> str:
    """Return a result as one line."""
    for key in ("skipped", "failed", "wrong"):
        if key in result:
            return f"{key}: {result[key]}"
    if "contenders" in result:
        return "; ".join(_contender(name, found) for name, found in result["contenders"].items())
    return ", ".join(f"{key} {value}" for key, value in result.items() if key not in ("section", "item"))


def _contender(name: str, found: Result) -> str:
    if "failed" in found:
        return f"{name} failed ({found['failed']})"
    error = f", error {found['error']:.0e}" if "error" in found else ""
    return f"{name} {found['ms']:.3g} ms{error}"


def markdown(about: Result, results: list[Result]) -> str:
    """Return a table per section, with ratios to the first contender of each item."""
    lines = [", ".join(f"{key} {value}" for key, value in about.items()), ""]
    for section in dict.fromkeys(result["section"] for result in results):
        lines += [f"## {section}", "", "| item | contender | ms | of ours | of the card's rate | error |"]
        lines.append("|---|---|---:|---:|---:|---:|")
        for result in results:
            if result["section"] == section:
                lines += _rows(result)
        lines.append("")
    return "\n".join(lines)


def _rows(result: Result) -> list[str]:
    if "contenders" not in result:
        return [f"| {result['item']} | {line(result)} | | | | |"]
    ours, rows = next(iter(result["contenders"].values())), []
    for name, found in result["contenders"].items():
        if "failed" in found:
            rows.append(f"| {result['item']} | {name} | {found['failed']} | | | |")
            continue
        ratio = f"{found['ms'] / ours['ms']:.2f}x" if ours.get("ms") else ""
        share = f"{found['share']:.0%}" if "share" in found else ""
        error = f"{found['error']:.0e}" if "error" in found else ""
        rows.append(f"| {result['item']} | {name} | {found['ms']:.3g} | {ratio} | {share} | {error} |")
    return rows

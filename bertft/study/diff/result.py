"""The result of a diff."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bertft.report.draw.paper import canvas, draw
from bertft.report.figure import Figure
from bertft.report.figures.by_layer import by_layer
from bertft.report.lines import lines
from bertft.report.page.answer import Said, in_columns
from bertft.report.page.page import snippet
from bertft.runs.rows import Rows, results_as_json, to_pandas
from bertft.study.diff.verdict import Found, answer, is_changed, lowest


@dataclass(frozen=True)
class Difference:
    """What changed between a base and tuned encoders.

    A notebook shows the answer, a figure and the numbers. ``print`` shows the verdict.

    Attributes:
        rows: the results, as `bertft.Row`.
        said: the lines of the verdict, at most twelve.
        found: the rows with what the verdict needs beside them.
        folder: the run folder, or None if nothing was written.
    """

    rows: Rows
    said: Sequence[Said]
    found: Found
    folder: Path | None = None

    @property
    def verdict(self) -> list[str]:
        """The verdict, line by line; a key word stands on the first line of several."""
        return in_columns(self.said)

    @property
    def changed(self) -> dict[str, bool]:
        """Whether each tuned encoder changed, by name."""
        return {name: is_changed(self.found, name) for name in self.found.tuned}

    @property
    def lowest(self) -> dict[str, float]:
        """The similarity of each tuned encoder's most changed layer to the base, by name."""
        return {name: lowest(self.found, name) for name in self.found.tuned}

    @cached_property
    def figure(self) -> Figure:
        """The similarity of each layer to the base."""
        chosen = [line for line in lines(self.rows, "rsa") if line == self.found.similarity(line.model)]
        return by_layer(chosen, self.found.context, main=True, nulls=lines(self.rows, "null"))

    def to_pandas(self) -> Any:
        """Return the rows as a ``pandas.DataFrame`` (`bertft.to_pandas`)."""
        return to_pandas(self.rows)

    def to_json(self) -> str:
        """Return the verdict, whether each encoder changed, and the rows, as JSON."""
        about = {"changed": self.changed, "lowest": self.lowest, "verdict": self.verdict}
        rows = json.loads(results_as_json(self.rows))
        return json.dumps({**about, "rows": rows}, indent=1, ensure_ascii=False)

    def plot(self) -> Any:
        """Return the similarity of each layer as a ``matplotlib`` figure."""
        return canvas(self.figure)

    def _repr_html_(self) -> str:
        return snippet(answer(self.found, self.said, self.figure.name), draw(self.figure)[0])

    def __repr__(self) -> str:
        return "\n".join(self.verdict)

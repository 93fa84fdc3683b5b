"""The part of a diff that compares weights."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from bertft.errors import BertftError
from bertft.models.weight_change import FILE, MatrixChange, weight_changes, write_matrices
from bertft.models.weight_distance import weight_distance
from bertft.report.figure import Figure, HeatMap
from bertft.report.lines import Context, Line, lines
from bertft.report.page.answer import Said
from bertft.runs.folder import Stage
from bertft.runs.rows import Row
from bertft.study.analyses.weights import INTRUDERS, MEASURE, SPECTRA, Weights, spectra_rows
from bertft.study.diff.further import Part
from bertft.study.diff.in_turn import distance_to_files, files_of_base
from bertft.study.diff.models import Compared
from bertft.study.diff.verdict import SHOWN, Found

LARGEST = 2048 * 30_000  # numbers of the largest matrix whose spectrum is taken


def percent(share: float) -> str:
    """Return a share in percent with two digits after the point."""
    return f"{100 * share:.2f} %"


class WeightsMoved(Part):
    """Rows ``relative_weight_distance`` of the embeddings (layer 0) and every block; none where shapes differ.

    The stage ``weights/spectra`` adds the rows of `bertft.study.analyses.weights.spectra_rows`, without the largest
    matrices.
    """

    name, order, tasks = "weights", 70, ("weights",)

    def stages(self, inputs: Compared) -> list[Stage]:
        """Return the stages ``weights/blocks`` and, if an encoder changed, ``weights/spectra``."""
        found = [Stage("weights/blocks", {**inputs.depends, "measure": MEASURE}, lambda: self.work(inputs))]
        if inputs.tuned:
            depends = {**inputs.depends, "largest": LARGEST}
            found.append(Stage(SPECTRA, depends, lambda: self.spectra(inputs), product=FILE))
        return found

    def work(self, inputs: Compared) -> list[Row]:
        """Return the distances |W' - W| / |W|, in Frobenius norms over all parameters of a block."""
        rows = []
        for name in inputs.command.tuned:
            if name in inputs.unchanged:
                distances = [0.0] * inputs.base.num_layers
            else:
                try:
                    distances = _distances(inputs, name)
                except BertftError:  # another architecture, or a larger vocabulary
                    inputs.progress.say(f"{name}: its weights have other shapes and are not compared")
                    continue
            rows += [
                Row(name, "weights", "weights", layer, MEASURE, value, seed=inputs.command.seed)
                for layer, value in enumerate(distances)
            ]
        return rows

    def said(self, found: Found) -> list[Said]:
        """Return the blocks whose weights moved most, and how many intruder dimensions they have."""
        said = []
        for line in lines(found.rows, "weights"):
            if line.model not in found.tuned or line.measure != MEASURE or max(line.values) == 0:
                continue
            start = f"{line.model}: " if len(found.tuned) > 1 else ""
            order = sorted(range(1, len(line.values)), key=lambda i: -line.values[i])[:SHOWN]
            most = ", ".join(f"block {line.layers[i]} {percent(line.values[i])}" for i in order)
            text = f"{start}moved most in {most}; embeddings {percent(line.values[0])}{_intruders(found, line)}."
            said.append(Said("weights", text, rank=1))
        return said

    def spectra(self, inputs: Compared) -> list[Row]:
        """Return the rows of the matrices of each block, and write their table."""
        changes: dict[str, list[MatrixChange]] = {}
        with inputs.progress.step("spectra of the change of weights", total=len(inputs.tuned)) as step:
            for name, encoder in inputs.tuned.items():
                with contextlib.suppress(BertftError):  # the other stage says so
                    base = files_of_base(inputs.released).folder if inputs.released else inputs.base.model
                    changes[name] = list(weight_changes(base, encoder.model, largest=LARGEST))
                step.advance()
        if inputs.out is not None:
            write_matrices(changes, inputs.out)
        return spectra_rows(changes, inputs.command.seed)

    def figures(self, rows: Sequence[Row], context: Context) -> Sequence[Figure | HeatMap]:
        """Return the distances by block."""
        return Weights().figures(rows, context)


def _distances(inputs: Compared, name: str) -> list[float]:
    if inputs.released:
        return distance_to_files(files_of_base(inputs.released), inputs.tuned[name].model)
    return weight_distance(inputs.base.model, inputs.tuned[name].model)


def _intruders(found: Found, line: Line) -> str:
    counts = found.beside(line, INTRUDERS)
    if counts is None:
        return ""
    if max(counts.values) == 0:
        return "; no intruder dimensions"
    at = counts.highest()
    return (
        f"; {sum(counts.values):.0f} intruder dimensions, most in block {counts.layers[at]} ({counts.values[at]:.0f})"
    )

"""Forecast of a diff from the models' configurations."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import torch
from torch import nn

from bertft.data.location import data_name
from bertft.errors import BertftError
from bertft.models.loading import load_skeleton
from bertft.runs.process import memory_of_machine, resident
from bertft.runs.settings import check
from bertft.similarity import Plan
from bertft.similarity.placed_sums import bytes_of_sums
from bertft.study.analyses.rsa import BATCH_PIECES
from bertft.study.analyses.weights import SPECTRA
from bertft.study.analysis import check_folder
from bertft.study.diff.deeper import TOKENS, exchanged
from bertft.study.diff.models import DTYPES
from bertft.study.diff.parts import METRIC, NULL, TRADED, WORDS
from bertft.study.diff.settings import DiffCommand
from bertft.study.diff.weights import LARGEST
from bertft.study.estimate import Estimate, estimate_of
from bertft.study.rsa_cost import LIBRARIES, ROUND, Shape, flops_of, shape_of
from bertft.study.timing import StageCost, placed

PIECES = 1.5  # of a word, on average
COPIES = 5  # of the largest matrix in float64, while its spectrum is taken
SLOWER = 3.0  # than one large product, by which speed is measured, are the small ones of an encoder
TRADING = 128  # multiplications that the time of one pair of stimuli amounts to, as they trade places
SPECTRUM = 10  # multiplications for each entry of a matrix and each of its shorter side


def forecast(command: DiffCommand, out: str | os.PathLike[str] | None = None) -> Estimate:
    """Return the cost of a diff as it would run: in turn if the models fit into memory only so (with a folder)."""
    in_turn = command.in_turn or (out is not None and fits_only_in_turn(command))
    return estimate_diff(dataclasses.replace(command, in_turn=in_turn), out)


def estimate_diff(command: DiffCommand, out: str | os.PathLike[str] | None = None) -> Estimate:
    """Return the cost of `bertft.study.diff.run.run_diff`, before any weights or texts are loaded.

    Times follow from the number of multiplications and the measured speed of one product, and are right to a factor of
    about three. Raises ``BertftError`` for settings, models and a folder that the run would refuse.
    """
    check(command, "bertft diff")
    if out is not None:
        check_folder(out, command.to_tree(), later=() if command.skip_first is not None else ("skip_first",))
    models = [load_skeleton(name, dtype=DTYPES[command.dtype]) for name in (command.base, *command.tuned.values())]
    forecast = _Forecast(command, [shape_of(model) for model in models], _largest(models))
    stages = [forecast.rsa(), forecast.words(), forecast.directions()]
    if not command.in_turn:
        stages.append(forecast.causes())
    kept = sum(stage.scratch for stage in stages)  # written before the first stage, removed after the last
    stages = [dataclasses.replace(stage, scratch=kept) for stage in (*stages, forecast.spectra(models))]
    return estimate_of(stages, Path("." if out is None else out))


def fits_only_in_turn(command: DiffCommand) -> bool:
    """Return whether main memory holds one model after the other, but not both; False for models of no known size."""
    memory = memory_of_machine()
    if torch.cuda.is_available() or command.in_turn or not memory:
        return False
    try:
        both, one = (estimate_diff(dataclasses.replace(command, in_turn=turn)).peak for turn in (False, True))
    except BertftError:  # the run reports it
        return False
    return one < memory < both


class _Forecast:
    """Costs of the stages of a diff; ``shapes`` are those of the base and the tuned encoders."""

    def __init__(self, command: DiffCommand, shapes: list[Shape], largest: int) -> None:
        self.command, self.base, self.tuned, self.largest = command, shapes[0], shapes[1:], largest
        self.stimuli = command.tokens or ROUND
        self.item = DTYPES[command.dtype].itemsize
        self.rate = flops_of(DTYPES[command.dtype]) / SLOWER
        self.layers, self.width = self.base.num_layers, self.base.dim
        of_tuned = sum(shape.weights for shape in self.tuned)
        self.weights = max(self.base.weights, of_tuned) if command.in_turn else self.base.weights + of_tuned
        self.held, self.data = resident() + LIBRARIES, data_name(command.text)

    def rsa(self) -> StageCost:
        """Return the cost of the similarities, with noise encoders and nulls."""
        noise = [] if self.command.in_turn else self.tuned
        shapes, plan = [self.base, *self.tuned, *noise], Plan(metrics=(METRIC,))
        rows = [shape.num_layers * shape.dim * self.item for shape in shapes]
        sums = sum(len(plan.preparations) * self._sums(shape) for shape in shapes[1:])
        sample = min(plan.sample, self.stimuli) * sum(rows)
        last = sample + max(rows) * min(plan.sample, self.stimuli) + 8 * self.width**2 * 8
        extra = sum(shape.weights for shape in noise) + sums + sample + max(self._batch(rows), last)
        products = sum(4 * shape.dim**2 * shape.num_layers * len(plan.preparations) for shape in shapes[1:])
        null = len(self.tuned) * self.layers * 2 * NULL * TRADING * min(TRADED, self.stimuli) ** 2
        seconds = self.stimuli * (self._forward(shapes) + products) + null
        return self._stage(f"rsa/{self.data}", f"{self.command.unit}s", self.stimuli, seconds, extra, self.stimuli)

    def words(self) -> StageCost:
        """Return the cost of local RSA: two passes, and each word against sums."""
        shapes, pieces = [self.base, *self.tuned], WORDS * PIECES
        seconds = 2 * pieces * self._forward(shapes)
        seconds += WORDS * sum(12 * shape.dim**2 * shape.num_layers for shape in self.tuned)
        extra = sum(map(self._sums, self.tuned)) + self._batch(self._rows(shapes))
        return self._stage("words/moved", "words", WORDS, seconds, extra, pieces)

    def directions(self) -> StageCost:
        """Return the cost of the directions of the change."""
        shapes, stimuli = [self.base, *self.tuned], min(TOKENS, self.stimuli)
        products = sum((2 * stimuli + 30 * s.dim) * s.dim**2 * s.num_layers for s in self.tuned)
        sums = sum(shape.num_layers * shape.dim**2 * 8 for shape in self.tuned)
        sample = 2 * stimuli * sum(shape.num_layers * shape.dim * 4 for shape in self.tuned)
        extra = sums + sample + 3 * stimuli * self.width * 8 + self._batch(self._rows(shapes))
        seconds = stimuli * self._forward(shapes) + products
        return self._stage(f"directions/{self.data}", f"{self.command.unit}s", stimuli, seconds, extra, stimuli)

    def causes(self) -> StageCost:
        """Return the cost of exchanging every block in both directions."""
        stimuli, hybrids = min(exchanged(self.layers), self.stimuli), 2 * self.layers + 2
        sums = 2 * hybrids * int(1.5 * self.width**2) * 8
        sample = 3 * stimuli * hybrids * self.width * self.item
        batch = self._batch(self._rows([self.base, self.tuned[0]])) + BATCH_PIECES * hybrids * self.width * self.item
        passes = (self.layers + 2) * self._forward([self.base]) + hybrids * 2 * 6 * self.width**2
        seconds = len(self.tuned) * stimuli * passes
        return self._stage(f"causes/{self.data}", f"{self.command.unit}s", stimuli, seconds, sums + sample + batch)

    def spectra(self, models: list[nn.Module]) -> StageCost:
        """Return the cost of the spectra of all matrices."""
        shapes = [p.shape for p in models[0].parameters() if p.ndim == 2 and p.numel() <= LARGEST]
        seconds = len(self.tuned) * sum(SPECTRUM * rows * columns * min(rows, columns) for rows, columns in shapes)
        return self._stage(SPECTRA, "matrices", len(shapes), seconds, COPIES * self.largest * 8)

    def _stage(self, name: str, of: str, amount: float, work: float, extra: float, kept: float = 0) -> StageCost:
        """Return a stage of so many multiplications, with ``extra`` bytes beside the models.

        ``kept`` is the number of the base's vectors that a run in turn keeps for it on the disk.
        """
        disk = kept * self.layers * self.width * self.item if self.command.in_turn else 0
        memory = placed(self.held, int(self.weights + extra))
        said = f"{amount:,.0f} {of}, {len(self.tuned) + 1} models{' in turn' if self.command.in_turn else ''}"
        return StageCost(name, said, work / self.rate, 0, int(disk), *memory)

    def _sums(self, shape: Shape) -> int:
        both = min(self.layers, shape.num_layers)
        return bytes_of_sums((both, both), (self.width, shape.dim))

    def _rows(self, shapes: list[Shape]) -> list[int]:
        return [shape.num_layers * shape.dim * self.item for shape in shapes]

    def _batch(self, rows: list[int]) -> int:
        """Return the bytes of a batch in all layers of all encoders, and within a block."""
        return BATCH_PIECES * (sum(rows) + max(rows) + 4 * self.base.inner * self.item)

    def _forward(self, shapes: list[Shape]) -> float:
        return 2.0 * sum(shape.multiplied for shape in shapes)


def _largest(models: list[nn.Module]) -> int:
    """Return the numbers of the largest matrix whose spectrum is taken."""
    sizes = [p.numel() for p in models[0].parameters() if p.ndim == 2 and p.numel() <= LARGEST]
    return max(sizes, default=0)

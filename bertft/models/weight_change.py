"""Spectra of the change of weights, matrix by matrix.

For a base matrix W (m, n), m outputs, and the tuned one W', with dW = W' - W and s_1 >= s_2 >= ... its singular values:

    relative   |dW|_F / |W|_F
    rank       (sum s^2)^2 / sum s^4, the effective rank of dW (participation ratio of s^2)
    share j    s_j^2 / sum s^2
    intruders  how many of the first 10 left singular vectors of W' have a cosine below 0.5 in absolute value with
               every left singular vector of W (Shuttleworth et al. 2024)

Everything is float64. Up to `LARGE` on the smaller side, singular values and vectors come from the Gram matrix of that
side: exact, to 1e-8 of the largest. Larger matrices take a randomised SVD (Halko et al. 2011) with `PROBES` vectors and
`POWERS` power iterations. An intruder is then compared with the first `PROBES` left singular vectors of W only, so that
the count is an upper bound, and sum s^4 beyond the range that was found is estimated (Meyer et al. 2021).
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bertft.errors import BertftError
from bertft.models.devices import device_of
from bertft.models.weight_files import ModelWeights, WeightFiles, Weights, paired_names
from bertft.runs.files import write_text_atomically

LARGE = 2048  # larger matrices, by their smaller side, take a randomised SVD
PROBES, POWERS = 256, 4
RANKED, COSINE = 10, 0.5  # left singular vectors that are tested, and the cosine below which one is an intruder
SHARES = 5  # singular values of dW whose share is kept
FILE = "matrices.csv"

_BLOCK = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")
_EMBEDDING = re.compile(r"(?:^|\.)(?:\w*embed\w*|wte|wpe|tok_embeddings)(?:\.|$)")


@dataclass(frozen=True)
class MatrixChange:
    """The change of one matrix; the module's docstring defines the numbers.

    ``layer`` is the block, counted from 1, 0 for the embeddings, or None elsewhere. ``rank`` is None and ``shares`` is
    empty if the matrix did not change.
    """

    name: str
    layer: int | None
    shape: tuple[int, int]
    relative: float
    rank: float | None
    shares: tuple[float, ...]
    intruders: int
    randomised: bool


def weight_changes(
    base: nn.Module | str | os.PathLike[str],
    tuned: nn.Module | str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    largest: int | None = None,
) -> Iterator[MatrixChange]:
    """Yield the change of every matrix that both models have, in the order of the base.

    Args:
        base: a model, or a folder of safetensors files, of which one matrix at a time is read.
        tuned: likewise.
        device: where to compute, by default the current GPU if there is one, else the CPU.
        largest: numbers of the largest matrix; larger ones are left out. None leaves out none.

    Raises:
        BertftError: The models share no matrix, a matrix differs in shape, or a folder cannot be read.
    """
    first, second = opened(base, "base"), opened(tuned, "tuned")
    pairs = [both for both in paired_names(first, second) if len(first.shapes[both[0]]) == 2]
    if not pairs:
        raise BertftError(f"weights: {first.name} and {second.name} have no matrix in common")
    for name, other in pairs:
        shapes = first.shapes[name], second.shapes[other]
        if shapes[0] != shapes[1]:
            raise BertftError(
                f"weights: {name} has the shape {shapes[0]} in {first.name} and {shapes[1]} in {second.name}"
            )
    place = device_of(device)
    for name, other in pairs:
        if largest is not None and math.prod(first.shapes[name]) > largest:
            continue
        w, v = first.read(name).to(place), second.read(other).to(place)
        if name in first.transposed:
            w, v = w.mT, v.mT
        yield matrix_change(w.double(), v.double(), name)


def opened(model: nn.Module | str | os.PathLike[str], name: str) -> Weights:
    """Return the weights of a model in memory, or of a folder."""
    return ModelWeights(model, name) if isinstance(model, nn.Module) else WeightFiles(model)


def matrix_change(w: Tensor, v: Tensor, name: str = "") -> MatrixChange:
    """Return the change from ``w`` to ``v`` (m, n) float64."""
    rows, columns = w.shape
    change = v - w
    moved, size = float(change.norm()), float(w.norm())
    randomised = min(rows, columns) > LARGE
    layer = layer_of(name)
    if moved == 0.0:
        return MatrixChange(name, layer, (rows, columns), 0.0, None, (), 0, randomised)
    squares, fourth = squared_singular_values(change)
    shares = (squares[:SHARES] / moved**2).clamp(max=1.0).tolist()
    return MatrixChange(
        name,
        layer,
        (rows, columns),
        moved / size if size else math.inf,
        moved**4 / fourth,
        tuple(shares),
        intruders(w, v),
        randomised,
    )


def layer_of(name: str) -> int | None:
    """Return the block of a weight, counted from 1, or 0 for embeddings, by its name; None for any other weight."""
    if found := _BLOCK.search(name):
        return int(found[1]) + 1
    return 0 if _EMBEDDING.search(name) else None


def squared_singular_values(a: Tensor) -> tuple[Tensor, float]:
    """Return the squares of the singular values of a (m, n), largest first, and the sum of their squares."""
    if min(a.shape) <= LARGE:
        values = torch.linalg.eigvalsh(_gram(a)).flip(0).clamp(min=0)
        return values, float(values.square().sum())
    u, s = _randomised(a)
    squares = s.square()
    rest = _probes(a.shape[0], 64, a)  # Hutch++: the trace of (A A')^2 outside the range of u
    rest = rest - u @ (u.mT @ rest)
    outside = float((a @ (a.mT @ rest)).square().sum()) / rest.shape[1]
    inside = float((a @ (a.mT @ u)).square().sum())
    return squares, inside + outside


def intruders(w: Tensor, v: Tensor, ranked: int = RANKED, cosine: float = COSINE) -> int:
    """Return how many of the first ``ranked`` left singular vectors of v are intruders with respect to w."""
    base, _ = left_vectors(w)
    mine, values = left_vectors(v, ranked)
    mine = mine[:, values[:ranked] > 1e-7 * values[0]] if len(values) and values[0] > 0 else mine[:, :0]
    if mine.shape[1] == 0 or base.shape[1] == 0:
        return 0
    return int(((base.mT @ mine).abs().amax(0) < cosine).sum())


def left_vectors(a: Tensor, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Return left singular vectors (m, k) and singular values (k,) of a (m, n), largest first.

    ``k`` is ``count``, by default the smaller side, or `PROBES` of a large matrix. Of a matrix with more rows than
    columns, vectors of singular values below 1e-7 of the largest are left out.
    """
    if min(a.shape) > LARGE:
        u, s = _randomised(a)
        return u[:, :count], s[:count]
    values, vectors = torch.linalg.eigh(_gram(a))
    values, vectors = values.flip(0)[:count].clamp(min=0).sqrt(), vectors.flip(1)[:, :count]
    if a.shape[0] <= a.shape[1]:
        return vectors, values
    kept = values > 1e-7 * values[0]
    return (a @ vectors[:, kept]) / values[kept], values[kept]


def _gram(a: Tensor) -> Tensor:
    return a @ a.mT if a.shape[0] <= a.shape[1] else a.mT @ a


def _randomised(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first `PROBES` left singular vectors and singular values, by subspace iteration from a fixed seed."""
    q = torch.linalg.qr(a @ _probes(a.shape[1], PROBES, a))[0]
    for _ in range(POWERS):
        q = torch.linalg.qr(a @ torch.linalg.qr(a.mT @ q)[0])[0]
    u, s, _ = torch.linalg.svd(q.mT @ a, full_matrices=False)
    return q @ u, s


def _probes(rows: int, count: int, like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, count, generator=generator, dtype=torch.float64).to(like.device)


@dataclass(frozen=True)
class BlockChange:
    """The matrices of one block: the means of their ranks and of their first shares, and the sum of their intruders."""

    layer: int
    matrices: int
    rank: float | None
    share: float | None
    intruders: int


def by_block(changes: Sequence[MatrixChange]) -> list[BlockChange]:
    """Return the summary of the embeddings (0) and of each block; matrices that did not change have no rank."""
    found = []
    for layer in sorted({change.layer for change in changes if change.layer is not None}):
        own = [change for change in changes if change.layer == layer]
        ranks = [change.rank for change in own if change.rank is not None]
        firsts = [change.shares[0] for change in own if change.shares]
        found.append(
            BlockChange(
                layer,
                len(own),
                sum(ranks) / len(ranks) if ranks else None,
                sum(firsts) / len(firsts) if firsts else None,
                sum(change.intruders for change in own),
            )
        )
    return found


def write_matrices(found: Mapping[str, Sequence[MatrixChange]], out: Path) -> None:
    """Write the table ``matrices.csv`` of the changes of each encoder into ``out``."""
    head = ["model", "layer", "matrix", "rows", "columns", "relative_change", "effective_rank"]
    table: list[list[object]] = [[*head, *(f"share_{j + 1}" for j in range(SHARES)), "intruders", "randomised"]]
    for name, changes in found.items():
        for c in changes:
            shares = [*c.shares, *[""] * (SHARES - len(c.shares))]
            rank = "" if c.rank is None else c.rank
            layer = "" if c.layer is None else c.layer
            table.append([name, layer, c.name, *c.shape, c.relative, rank, *shares, c.intruders, c.randomised])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    write_text_atomically(out / FILE, text.getvalue())

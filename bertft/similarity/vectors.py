"""Comparison of vectors that are already there, in files or in memory."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bertft.data.files import shorten
from bertft.data.vectors.files import VectorFile, open_vectors
from bertft.errors import BertftError
from bertft.ops.rows import as_tensor
from bertft.runs.checkpoint import Checkpoint
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Rows
from bertft.similarity.compare.checkpoints import asked_to_stop, checkpointed
from bertft.similarity.compare.comparison import Comparison
from bertft.similarity.compare.plan import Plan
from bertft.similarity.compare.workers import ALONE

EVERY = 60.0  # least seconds between checkpoints
CHUNK = 64_000_000  # bytes of a chunk of one space in float32
LEAST, MOST = 64, 8192  # stimuli of a chunk

Vectors = str | os.PathLike[str] | VectorFile | Tensor | np.ndarray
PairBy = Literal["ids", "rows"]


def compare_vectors(
    base: Vectors,
    tuned: Vectors | Mapping[str, Vectors],
    plan: Plan = Plan(),  # noqa: B008 - frozen
    *,
    ids: Mapping[str, Sequence[Any]] | None = None,
    groups: Sequence[Any] | None = None,
    pair_by: PairBy = "ids",
    data: str = "vectors",
    checkpoint: Checkpoint | None = None,
    progress: Progress = SILENT,
) -> Rows:
    """Compare each layer of ``base`` with the same layer of ``tuned``, over all stimuli, as `compare_stream` does.

    Args:
        base: vectors (L, n, D), or a file of them (`bertft.data.vectors.files`), which is read in chunks.
        tuned: vectors (L, n, E) of the same stimuli, or several by name; a single one is called ``tuned``.
        plan: the similarities to measure; its ``layers`` choose among the layers' numbers.
        ids: the ids (n,) of the stimuli of ``base`` and of each tuned space, by name, else those of the files.
        groups: (n,) the group of each stimulus, such as its text, else those of the base's file; by default each is its
            own. The stimuli of a group are consecutive and not independent: intervals are clustered by it.
        pair_by: ``ids`` refuses files whose ids are missing or not equal in one order, ``rows`` does not read them.
        data: name of the stimuli in the rows.
        checkpoint: where to save the state, and to resume from, as in `compare_stream`.
        progress: receives the step.

    Returns:
        Rows in the order of the plan.

    Raises:
        BertftError: if files cannot be read, ids or groups do not fit, or vectors are not finite or have no direction.
    """
    listed = tuned if isinstance(tuned, Mapping) else {"tuned": tuned}
    if not listed or "base" in listed:
        raise BertftError(f"compare_vectors: expected tuned vectors under names other than base, found {list(listed)}")
    spaces = {name: _opened(own, name) for name, own in {"base": base, **listed}.items()}
    numbers, count = _layers(spaces, plan), _check_counts(spaces)
    if pair_by == "ids":
        _check_ids(spaces, ids or {})
    labels = spaces["base"].groups if groups is None else groups
    pass_ = _Pass(spaces, numbers, _grouped(labels, count), plan, labels)
    if saved := checkpoint.load() if checkpoint else None:
        pass_.restore(*saved)
        progress.say(f"{data}: resuming after {pass_.done} stimuli")
    step = progress.step(f"compare {data}", total=count, unit="stimuli")
    with step as bar, asked_to_stop() as asked, torch.inference_mode():
        bar.advance(pass_.done)
        for seen in checkpointed(pass_, pass_.batches(), checkpoint, EVERY, asked):
            bar.advance(seen)
    return Rows(pass_.comparison.rows(data, progress=progress))


class _InMemory:
    """Vectors (L, n, D) in memory, as an open file."""

    def __init__(self, vectors: Tensor, name: str) -> None:
        if vectors.ndim == 2:
            vectors = vectors[None]
        if vectors.ndim != 3 or not vectors.dtype.is_floating_point:
            raise BertftError(
                f"compare_vectors: {name} must be float of shape (L, n, D), found {vectors.dtype} of shape "
                f"{tuple(vectors.shape)}"
            )
        self.vectors, self.path = vectors, name
        self.numbers = tuple(range(len(vectors)))
        self.count, self.width = vectors.shape[1:]
        self.ids: Sequence[Any] | None = None
        self.groups: Sequence[Any] | None = None

    def chunk(self, start: int, stop: int, places: Sequence[int]) -> Tensor:
        return self.vectors[list(places), start:stop]


_Space = VectorFile | _InMemory


def _opened(vectors: Vectors, name: str) -> _Space:
    if isinstance(vectors, VectorFile):
        return vectors
    if isinstance(vectors, (Tensor, np.ndarray)):
        return _InMemory(as_tensor(vectors), name)
    return open_vectors(vectors)


def _layers(spaces: Mapping[str, _Space], plan: Plan) -> tuple[int, ...]:
    """Return the layers' numbers to compare; those of all spaces must be equal unless the plan chooses some."""
    first = spaces["base"]
    for space in spaces.values():
        if plan.layers and (absent := set(plan.layers) - set(space.numbers)):
            raise BertftError(f"{space.path}: expected layer {min(absent)} (--layers), found {_some(space.numbers)}")
        if not plan.layers and space.numbers != first.numbers:
            expected, found = _some(first.numbers), _some(space.numbers)
            raise BertftError(f"{space.path}: expected the layers {expected} of {first.path}, found {found}")
    return plan.layers or first.numbers


def _some(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) if len(numbers) < 9 else f"{numbers[0]}, ..., {numbers[-1]} ({len(numbers)})"


def _check_counts(spaces: Mapping[str, _Space]) -> int:
    first = spaces["base"]
    for space in spaces.values():
        if space.count != first.count:
            raise BertftError(f"{space.path}: expected {first.count} stimuli as in {first.path}, found {space.count}")
    return first.count


def _check_ids(spaces: Mapping[str, _Space], given: Mapping[str, Sequence[Any]]) -> None:
    """Raise BertftError unless all spaces have the same ids in one order, each once."""
    if all(isinstance(space, _InMemory) for space in spaces.values()) and not given:
        return  # rows of arrays are paired by their caller
    own = [(space.path, given.get(name, space.ids)) for name, space in spaces.items()]
    (first, ids), *others = own
    for path, found in own:
        if found is None:
            raise BertftError(
                f"{path}: expected an id for each stimulus (ids), found none; --pair-by rows pairs stimuli by position"
            )
        if len(found) != spaces["base"].count:
            raise BertftError(f"{path}: expected {spaces['base'].count} ids, found {len(found)}")
    seen: dict[Any, int] = {}
    for row, name in enumerate(ids or ()):
        if seen.setdefault(name, row) != row:
            raise BertftError(f"{first}: expected each id once, found {shorten(name)} in rows {seen[name]} and {row}")
    for path, found in others:
        for row, (mine, theirs) in enumerate(zip(ids or (), found or (), strict=True)):
            if mine != theirs:
                raise BertftError(
                    f"{path}: expected the ids of {first} in their order, found {shorten(theirs)} instead of "
                    f"{shorten(mine)} in row {row}"
                )


def _grouped(labels: Sequence[Any] | None, count: int) -> np.ndarray:
    """Return the number (n,) int64 of each stimulus's group, from 0 in order."""
    if labels is None:
        return np.arange(count)
    if len(labels) != count:
        raise BertftError(f"compare_vectors: expected {count} groups, one for each stimulus, found {len(labels)}")
    first: dict[Any, int] = {}
    numbers = np.empty(count, dtype=np.int64)
    for row, label in enumerate(labels):
        number = first.setdefault(label, len(first))
        if row and number < numbers[row - 1]:
            found = f"{shorten(label)} again in row {row}"
            raise BertftError(f"compare_vectors: expected a group's stimuli in consecutive rows, found {found}")
        numbers[row] = number
    return numbers


class _Pass:
    """The position in the stimuli, and the comparison so far."""

    def __init__(
        self,
        spaces: Mapping[str, _Space],
        numbers: tuple[int, ...],
        groups: np.ndarray,
        plan: Plan,
        labels: Sequence[Any] | None,
    ) -> None:
        self.spaces, self.groups, self.labels = list(spaces.values()), groups, labels
        self.places = [[space.numbers.index(number) for number in numbers] for space in self.spaces]
        plan = plan if numbers == tuple(range(len(numbers))) else dataclasses.replace(plan, layers=numbers)
        counts = {name: (len(numbers), len(numbers)) for name in spaces if name != "base"}
        self.comparison, self.team, self.done = Comparison(plan, counts), ALONE, 0
        widest = max(space.width for space in self.spaces)
        self.size = min(MOST, max(LEAST, CHUNK // (4 * len(numbers) * widest)))

    def batches(self) -> Iterator[int]:
        """Feed the remaining stimuli to the comparison; yield the number of each chunk."""
        count = len(self.groups)
        while self.done < count:
            start, stop = self.done, min(count, self.done + self.size)
            index, lengths = np.unique(self.groups[start:stop], return_counts=True)
            pairs = zip(self.spaces, self.places, strict=True)
            spaces = [space.chunk(start, stop, places) for space, places in pairs]
            self.comparison.update(torch.from_numpy(index), torch.from_numpy(lengths), spaces, self._name)
            self.done = stop
            self.comparison.sentences = int(self.groups[stop - 1]) + 1
            yield stop - start

    def _name(self, group: int) -> str:
        row = int(np.searchsorted(self.groups, group))
        return f"stimulus {row}" if self.labels is None else f"group {shorten(self.labels[row])} (from row {row})"

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and JSON values for `restore`."""
        tensors, limit = self.comparison.state()
        return tensors, {"done": self.done, "sentences": self.comparison.sentences, "limit": limit}

    def restore(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Resume from a `state`."""
        self.done, self.comparison.sentences = record["done"], record["sentences"]
        self.comparison.restore(tensors, record["limit"])

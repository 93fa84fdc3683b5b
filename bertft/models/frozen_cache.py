"""The frozen part of an encoder, run once: what block k gives out is kept for every example and read back.

With the embeddings and blocks 1..k frozen, block k's output of an example never changes: frozen parts run in evaluation
mode. `Prefix` computes it at the first need, starting from the nearest lower block that the folder already holds, and
training then runs blocks k + 1.. alone. The folder is shared by every run on the same base model and the same inputs,
whatever its seed, head or learning rate:

    <folder>/<digest of the model>/<digest of the inputs>/layer<k>.npy      (P, D), all pieces of all inputs in order
                                                          layer<k>.sha256   of that file, checked at every opening

The vectors are those of the uncached run up to the rounding that depends on how a batch is padded.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bertft.models.batching import length_sorted_batches, pad_inputs
from bertft.models.blocks import Reached, blocks, stand_in, stopping_at
from bertft.models.devices import device_of
from bertft.runs.digests import digest_of
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import write_text_atomically

HIDDEN = "prefix"
"""The batch's entry that holds block k's output, (B, P, D)."""


@dataclass(slots=True)
class Held:
    """A task's feature beside block k's output of its inputs: ``hidden`` (P, D), a view of the memory map."""

    feature: Any
    hidden: np.ndarray

    def __len__(self) -> int:
        return len(self.feature)


def collate(task: Any, features: Sequence[Any], tokenizer: Any) -> dict[str, Tensor]:
    """``task.collate`` of features or of `Held` ones, whose vectors become the entry `HIDDEN`, zero where padded."""
    if not isinstance(features[0], Held):
        return task.collate(features, tokenizer)
    batch = task.collate([held.feature for held in features], tokenizer)
    hidden = torch.zeros(*batch["input_ids"].shape, features[0].hidden.shape[1])
    for row, held in enumerate(features):
        hidden[row, : len(held)] = torch.from_numpy(np.array(held.hidden))
    return {**batch, HIDDEN: hidden}


class Prefix:
    """Embeddings and blocks 1..k (k >= 1) of ``model``, whose digest is ``fingerprint``, kept in ``folder``.

    While `attached`, the model lacks those blocks (`state_dict` too) and takes their output from `feed`.
    """

    def __init__(
        self,
        model: nn.Module,
        k: int,
        tokenizer: Any,
        folder: str | os.PathLike[str],
        fingerprint: str,
        progress: Progress = SILENT,
    ) -> None:
        self.model, self.k, self.tokenizer, self.progress = model, k, tokenizer, progress
        self.folder = Path(folder) / fingerprint[:16]
        self._fed: list[Tensor] = []
        self._attached = False

    def feed(self, hidden: Tensor) -> None:
        """What the next forward pass takes for block k's output."""
        self._fed[:] = [hidden]

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Inside, ``model`` runs its blocks above k alone."""
        with stand_in(self.model, self.k, self._fed.pop):
            self._attached = True
            try:
                yield
            finally:
                self._attached = False
        self.model.to(next(self.model.parameters()).device)  # blocks that were away while the model moved

    def hold(self, features: Sequence[Any]) -> list[Held]:
        """Every feature (with ``inputs`` and ``len``) beside its vectors, computed now where they are not kept yet."""
        if not features:
            return []
        table = self._table(features)
        stops = np.cumsum([len(feature) for feature in features])
        return [Held(f, table[stop - len(f) : stop]) for f, stop in zip(features, stops.tolist(), strict=True)]

    def _table(self, features: Sequence[Any]) -> np.ndarray:
        from filelock import FileLock

        digest = hashlib.sha256(json.dumps([f.inputs for f in features], sort_keys=True).encode()).hexdigest()
        folder = self.folder / digest[:16]
        path = folder / f"layer{self.k}.npy"
        if not _is_intact(path):
            if path.exists():
                self.progress.say(f"{path}: damaged; it is made anew")
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):
                if not _is_intact(path):
                    self._fill(folder, features)
        return np.load(path, mmap_mode="r")

    @torch.no_grad()  # in inference mode a model that moves to a GPU could not be trained after
    def _fill(self, folder: Path, features: Sequence[Any]) -> None:
        """Write ``layer<k>.npy``: under another name first, so that a cut-off run leaves nothing that looks whole."""
        if self._attached:  # the blocks are away: an evaluation's inputs come when training has begun
            raise RuntimeError("Prefix.hold: inputs must be held before the prefix is attached")
        below = next((j for j in range(self.k - 1, 0, -1) if _is_intact(folder / f"layer{j}.npy")), 0)
        start = np.load(folder / f"layer{below}.npy", mmap_mode="r") if below else None
        stops = np.cumsum([len(feature) for feature in features]).tolist()
        part = folder / f".layer{self.k}.part"
        config: Any = self.model.config
        shape = (stops[-1], int(config.hidden_size))
        table = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=shape)
        _take_room(part)
        device = device_of()
        training = self.model.training
        self.model.eval().to(device)
        items = [_Numbered(feature, stop - len(feature), stop) for feature, stop in zip(features, stops, strict=True)]
        label = f"blocks {below + 1} to {self.k}, once"
        with (
            self.progress.step(label, total=len(items), unit="features") as step,
            stand_in(self.model, below, self._fed.pop) if below else contextlib.nullcontext(),
            stopping_at(blocks(self.model)[self.k - 1]) as found,
        ):
            for group in length_sorted_batches(items, 4096):
                batch = pad_inputs([item.feature.inputs for item in group], self.tokenizer)
                if start is not None:
                    hidden = torch.zeros(*batch["input_ids"].shape, shape[1])
                    for row, item in enumerate(group):
                        hidden[row, : len(item)] = torch.from_numpy(np.array(start[item.start : item.stop]))
                    self.feed(hidden.to(device))
                with contextlib.suppress(Reached):
                    self.model(**{name: value.to(device) for name, value in batch.items()})
                output = found.pop()
                vectors = (output[0] if isinstance(output, tuple) else output).float().cpu().numpy()
                for row, item in enumerate(group):
                    table[item.start : item.stop] = vectors[row, : len(item)]
                step.advance(len(group))
        self.model.train(training)
        table.flush()
        del table
        path = folder / f"layer{self.k}.npy"
        write_text_atomically(path.with_suffix(".sha256"), digest_of(part) + "\n")
        os.replace(part, path)


def _take_room(path: Path) -> None:
    """Have the disk set aside what a file of holes will need; raises OSError where it cannot.

    A write into a memory map that finds the disk full ends the process by a signal.
    """
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _is_intact(path: Path) -> bool:
    """Whether a table is there with the bytes that were written; one of an earlier version without a digest counts."""
    note = path.with_suffix(".sha256")
    return path.exists() and (not note.exists() or note.read_text(encoding="utf8").strip() == digest_of(path))


@dataclass(slots=True)
class _Numbered:
    feature: Any
    start: int
    stop: int

    def __len__(self) -> int:
        return len(self.feature)

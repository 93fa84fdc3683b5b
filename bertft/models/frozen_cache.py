"""Cache of the output of frozen blocks.

With the embeddings and blocks 1..k frozen, block k's output of an example never changes, because frozen blocks run in
evaluation mode. `FrozenCache` computes it at the first need, starting from the nearest lower block that is already
cached, and training then runs only the blocks above k. Runs on the same base model and the same inputs share the
folder, whatever their seed, head or learning rate:

    <folder>/<digest of the model>/<digest of the inputs>/layer<k>.npy      float32 (P, D): all pieces of all inputs
                                                          layer<k>.sha256   of that file, checked whenever it is opened

The vectors equal those of the uncached run up to rounding, which depends on how a batch is padded.
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
from filelock import FileLock
from torch import Tensor, nn

from bertft.models.batching import length_sorted_batches, pad_inputs
from bertft.models.blocks import blocks
from bertft.models.devices import device_of
from bertft.models.hooks import Stopped, replaced_blocks, stopping_at
from bertft.runs.digests import digest_of
from bertft.runs.files import write_text_atomically
from bertft.runs.progress import SILENT, Progress

HIDDEN = "prefix"
"""Name of the batch's entry with block k's output, (B, P, D)."""


@dataclass(slots=True)
class CachedExample:
    """A task's feature with block k's output of its inputs: ``hidden`` (P, D), a view of the memory map."""

    feature: Any
    hidden: np.ndarray

    def __len__(self) -> int:
        return len(self.feature)


def collate(task: Any, features: Sequence[Any], tokenizer: Any) -> dict[str, Tensor]:
    """Return ``task.collate`` of ``features``.

    If they are `CachedExample`, the entry `HIDDEN` holds their vectors, with zeros as padding.
    """
    if not isinstance(features[0], CachedExample):
        return task.collate(features, tokenizer)
    batch = task.collate([example.feature for example in features], tokenizer)
    hidden = torch.zeros(*batch["input_ids"].shape, features[0].hidden.shape[1])
    for row, example in enumerate(features):
        hidden[row, : len(example)] = torch.from_numpy(np.array(example.hidden))
    return {**batch, HIDDEN: hidden}


class FrozenCache:
    """The cached output of the embeddings and blocks 1..k (k >= 1) of a model.

    While the cache is `attached`, the model lacks those blocks (so does its ``state_dict``) and takes their output from
    `feed`.

    Args:
        model: the encoder with all its blocks.
        k: the highest frozen block.
        tokenizer: the encoder's.
        folder: where the cache is, shared by many models and inputs.
        fingerprint: digest of the model.
        progress: reports the work.
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
        """Set block k's output (B, P, D) for the next forward pass."""
        self._fed[:] = [hidden]

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Run only the blocks above k inside the context."""
        with replaced_blocks(self.model, self.k, self._fed.pop):
            self._attached = True
            try:
                yield
            finally:
                self._attached = False
        self.model.to(next(self.model.parameters()).device)  # the frozen blocks did not move with the model

    def cached(self, features: Sequence[Any]) -> list[CachedExample]:
        """Return each feature (with ``inputs`` and ``len``) with its vectors, which are computed if they are missing.

        Vectors can only be computed before the cache is `attached`.
        """
        if not features:
            return []
        table = self._table(features)
        stops = np.cumsum([len(feature) for feature in features])
        return [CachedExample(f, table[stop - len(f) : stop]) for f, stop in zip(features, stops.tolist(), strict=True)]

    def _table(self, features: Sequence[Any]) -> np.ndarray:
        """Return the memory map of block k's output (P, D) of all features; compute it if missing or damaged."""
        digest = hashlib.sha256(json.dumps([f.inputs for f in features], sort_keys=True).encode()).hexdigest()
        folder = self.folder / digest[:16]
        path = folder / f"layer{self.k}.npy"
        if not _is_intact(path):
            if path.exists():
                self.progress.say(f"{path}: damaged; it is made anew")
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):
                if not _is_intact(path):  # another process may have computed it while this one waited
                    self._fill(folder, features)
        return np.load(path, mmap_mode="r")

    def _fill(self, folder: Path, features: Sequence[Any]) -> None:
        """Write ``layer<k>.npy``: under a temporary name first, so that an interrupted run leaves no partial table."""
        if self._attached:
            raise RuntimeError("FrozenCache.cached: inputs must be cached before the cache is attached")
        below = next((j for j in range(self.k - 1, 0, -1) if _is_intact(folder / f"layer{j}.npy")), 0)
        lower = np.load(folder / f"layer{below}.npy", mmap_mode="r") if below else None
        stops = np.cumsum([len(feature) for feature in features]).tolist()
        items = [_Placed(feature, stop - len(feature), stop) for feature, stop in zip(features, stops, strict=True)]
        part = folder / f".layer{self.k}.part"
        config: Any = self.model.config
        shape = (stops[-1], int(config.hidden_size))
        table = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=shape)
        _allocate(part)
        training = self.model.training
        self.model.eval().to(device_of())
        label = f"blocks {below + 1} to {self.k}, once"
        with (
            self.progress.step(label, total=len(items), unit="features") as step,
            replaced_blocks(self.model, below, self._fed.pop) if below else contextlib.nullcontext(),
            stopping_at(blocks(self.model)[self.k - 1]) as outputs,
        ):
            for group in length_sorted_batches(items, 4096):
                self._run(group, lower)
                output = outputs.pop()
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

    @torch.no_grad()  # not inference_mode: a model moved to a GPU within it could not be trained afterwards
    def _run(self, group: list[_Placed], lower: np.ndarray | None) -> None:
        """Run the model on a batch, from the table of a lower block if there is one, until a hook stops it."""
        batch = pad_inputs([item.feature.inputs for item in group], self.tokenizer)
        device = next(self.model.parameters()).device
        if lower is not None:
            hidden = torch.zeros(*batch["input_ids"].shape, lower.shape[1])
            for row, item in enumerate(group):
                hidden[row, : len(item)] = torch.from_numpy(np.array(lower[item.start : item.stop]))
            self.feed(hidden.to(device))
        with contextlib.suppress(Stopped):
            self.model(**{name: value.to(device) for name, value in batch.items()})


def _allocate(path: Path) -> None:
    """Allocate the disk space of a sparse file; raise OSError if the disk is full.

    A write to a memory map that finds the disk full would end the process by a signal.
    """
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _is_intact(path: Path) -> bool:
    """Return whether a table exists and has its digest; a table of an earlier version, without a digest, counts too."""
    note = path.with_suffix(".sha256")
    return path.exists() and (not note.exists() or note.read_text(encoding="utf8").strip() == digest_of(path))


@dataclass(slots=True)
class _Placed:
    """A feature and its rows ``start:stop`` of the table."""

    feature: Any
    start: int
    stop: int

    def __len__(self) -> int:
        return len(self.feature)

"""Cache of the output of frozen blocks.

With the embeddings and blocks 1..k frozen, block k's output of an example never changes, because frozen blocks run in
evaluation mode. `FrozenCache` computes it at the first need, starting from the nearest lower block that is already
cached, and training then runs only the blocks above k. Runs on the same base model and the same inputs share the
folder, whatever their seed, head or learning rate:

    <folder>/<digest of the model>/<digest of the inputs>/layer<k>.safetensors

An artefact (`bertft.runs.artefacts`) with one tensor, ``hidden``, float32 (P, D): all pieces of all inputs in order.
It is read by memory map, and its digest is checked whenever it is opened.

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

from bertft.errors import BertftError
from bertft.models.batching import length_sorted_batches, pad_inputs
from bertft.models.blocks import blocks
from bertft.models.devices import device_of
from bertft.models.hooks import Stopped, replaced_blocks, stopping_at
from bertft.runs.artefacts import Artefact
from bertft.runs.files import UNFINISHED
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
        self.folder, self.fingerprint = Path(folder) / fingerprint[:16], fingerprint
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
        inputs = hashlib.sha256(json.dumps([f.inputs for f in features], sort_keys=True).encode()).hexdigest()
        artefact = self._artefact(inputs, self.k)
        table = _read(artefact)
        if table is None:
            artefact.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(artefact.path.parent / ".lock"):
                table = _read(artefact)  # another process may have computed it while this one waited
                if table is None:
                    if artefact.path.exists():
                        self.progress.say(f"{artefact.path}: damaged; it is recomputed")
                    self._fill(inputs, features)
                    table = _read(artefact)
        if table is None:
            raise BertftError(f"{artefact.path}: damaged while it was written; check the disk")
        return table

    def _artefact(self, inputs: str, layer: int) -> Artefact:
        settings = {"model": self.fingerprint, "inputs": inputs, "layer": layer}
        return Artefact(self.folder / inputs[:16] / f"layer{layer}.safetensors", settings)

    def _fill(self, inputs: str, features: Sequence[Any]) -> None:
        """Compute and save block k's output of all features, from the nearest cached block below."""
        if self._attached:
            raise RuntimeError("FrozenCache.cached: inputs must be cached before the cache is attached")
        artefact = self._artefact(inputs, self.k)
        for leftover in artefact.path.parent.glob(f".{artefact.path.name}.*{UNFINISHED}"):  # of a killed process
            leftover.unlink()
        tables = ((layer, _read(self._artefact(inputs, layer))) for layer in range(self.k - 1, 0, -1))
        below, lower = next(((layer, table) for layer, table in tables if table is not None), (0, None))
        stops = np.cumsum([len(feature) for feature in features]).tolist()
        items = [_Placed(feature, stop - len(feature), stop) for feature, stop in zip(features, stops, strict=True)]
        config: Any = self.model.config
        training = self.model.training
        self.model.eval().to(device_of())
        label = f"blocks {below + 1} to {self.k}, once"
        with (
            artefact.filled("hidden", (stops[-1], int(config.hidden_size))) as table,
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


def _read(artefact: Artefact) -> np.ndarray | None:
    """Return the memory map of a table, or None if the file is missing or damaged."""
    contents = artefact.load()
    return None if contents is None else contents.tensors["hidden"].numpy()


@dataclass(slots=True)
class _Placed:
    """A feature and its rows ``start:stop`` of the table."""

    feature: Any
    start: int
    stop: int

    def __len__(self) -> int:
        return len(self.feature)

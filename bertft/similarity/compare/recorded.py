"""Vectors of an encoder on disk, batch by batch, in place of the encoder.

A `Recorder` keeps every batch that it encodes. A `Recorded` encoder has no weights and gives the same batches again, to
the bit, in whatever order. Two models that do not fit into memory together are compared one after the other this way.

Each batch is a safetensors file that `bertft.data.vectors.files` reads: ``vectors`` (layers, T, D). Its name is a
digest of the batch's inputs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.models.encoder import Batch, Encoder
from bertft.models.pieces import Prepared, sent
from bertft.runs.ahead import ahead
from bertft.runs.artefacts import Artefact
from bertft.runs.digests import digest
from bertft.runs.progress import Step
from bertft.similarity.compare.reading import Kinship, Reader
from bertft.similarity.compare.stream import USUAL, sizes_for
from bertft.similarity.compare.workers import ALONE

FORMAT = "bertft.batch/1"


class Recorder(Encoder):
    """An encoder that keeps the vectors of its batches in ``folder``, and does not run where it finds them there.

    ``settings`` are all that the vectors depend on beside the batches. Files of other settings, and damaged ones, are
    replaced.
    """

    def __init__(self, encoder: Encoder, folder: Path, settings: Mapping[str, Any]) -> None:
        super().__init__(encoder.model, encoder.tokenizer, encoder.name)
        self.skip_first = encoder.skip_first
        self.folder, self.settings = folder, dict(settings)

    def encode(self, batch: Prepared, layers: Sequence[int]) -> Batch:
        """Return the vectors of a batch, kept or new."""
        artefact = _artefact(self, batch, layers)
        if (found := artefact.load()) is not None:
            return Batch(found.tensors["vectors"].to(self.device), batch.lengths, batch.index)
        encoded = super().encode(batch, layers)
        artefact.save({"vectors": encoded.vectors})
        return encoded

    def record_stream(
        self, texts: Iterable[Any], layers: Sequence[int], *, tokens: int | None, unit: str, step: Step
    ) -> None:
        """Keep the batches of `compare_stream` with encoders that read alike and batches of `USUAL` pieces."""
        options = {"unit": unit, "batch_tokens": USUAL, "window": "split"}
        reader = Reader([self], options, ALONE, tokens, Kinship.of([self]), buffer=0, taken=0)
        wanted = layers or range(self.num_layers)
        for buffer in ahead(reader.parts(iter(texts), sizes_for([self], tokens).buffer), reader.prepare):
            for batch in sent(buffer.batches[0] if buffer.batches else [], self.device):
                self.encode(batch, wanted)
                step.advance(batch.vectors)

    def released(self) -> Recorded:
        """Return the encoder without its weights, whose memory is free from now on."""
        return Recorded(self)


class Recorded(Encoder):
    """An encoder whose weights are gone; its vectors are those that a `Recorder` kept."""

    def __init__(self, recorder: Recorder) -> None:
        self._device, self._layer_devices = recorder.device, recorder.layer_devices
        super().__init__(recorder.model.to("meta"), recorder.tokenizer, recorder.name)
        self.skip_first = recorder.skip_first
        self.folder, self.settings = recorder.folder, recorder.settings

    @property
    def device(self) -> torch.device:
        """Device of the vectors, that of the encoder before."""
        return self._device

    @property
    def layer_devices(self) -> list[torch.device]:
        """Device of each layer before."""
        return self._layer_devices

    def encode(self, batch: Prepared, layers: Sequence[int]) -> Batch:
        """Return the kept vectors of a batch; raise ``BertftError`` if there are none, or if they are damaged."""
        found = _artefact(self, batch, layers).load(refuse=True)
        if found is None:
            raise BertftError(
                f"{self.folder}: a batch of {self.name} is missing; remove the folder, then rerun the command"
            )
        return Batch(found.tensors["vectors"].to(self._device), batch.lengths, batch.index)

    def remove(self) -> None:
        """Remove the kept vectors."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _artefact(encoder: Recorder | Recorded, batch: Prepared, layers: Sequence[int]) -> Artefact:
    """Return the file of a batch in these layers."""
    tensors: dict[str, Tensor] = {f"inputs.{name}": tensor for name, tensor in batch.inputs.items()}
    tensors["pieces"] = batch.pieces
    if batch.offsets is not None:
        tensors["offsets"] = batch.offsets
    key = digest({name: tensor.cpu() for name, tensor in tensors.items()}, str(list(layers)))
    return Artefact(encoder.folder / f"{key[:32]}.safetensors", encoder.settings, format=FORMAT)

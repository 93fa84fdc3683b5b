"""Word vectors of every layer over a corpus, extracted once, in memory or memory-mapped."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.runs.progress import SILENT, Progress

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder

# Vectors above this many bytes are memory-mapped where a folder is given.
IN_MEMORY = 256 << 20


class Vectors(Protocol):
    """What probes read: vectors of the words of S sentences, some sentences at a time.

    ``lengths`` (S,) words of each; ``batch`` gives (L, T', D) float32, layer by layer in memory: the words of the
    sentences asked for, one after the other, in the layers asked for (default all). With ``room`` they are in its
    memory, until the next batch from there.
    """

    lengths: np.ndarray

    @property
    def layers(self) -> int: ...

    @property
    def width(self) -> int: ...

    def batch(self, sentences: Sequence[int], layers: Tensor | None = None, *, room: Room | None = None) -> Tensor: ...


class Room:
    """Memory that is kept from step to step, by name: fresh pages cost more than what is written into them."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def take(
        self, name: str, *shape: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Uninitialised memory of this shape; it overwrites what was taken under that name before."""
        size, kept = math.prod(shape), self._kept.get(name)
        if kept is None or len(kept) < size or kept.dtype != dtype or kept.device != torch.device(device):
            kept = self._kept[name] = torch.empty(size + size // 4, dtype=dtype, device=device)
        return kept[:size].view(shape)


class WordVectors:
    """``vectors`` (T, L, D), all words of all sentences in order; ``starts`` (S + 1,) where each sentence begins.

    Sentence-major, so that a batch of random sentences reads few long runs of the file.
    """

    def __init__(self, vectors: Tensor, lengths: Sequence[int] | np.ndarray) -> None:
        self.vectors = vectors
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])

    @property
    def layers(self) -> int:
        """L, the number of layers."""
        return self.vectors.shape[1]

    @property
    def width(self) -> int:
        """D, the size of a vector."""
        return self.vectors.shape[2]

    def batch(self, sentences: Sequence[int], layers: Tensor | None = None, *, room: Room | None = None) -> Tensor:
        """(L, T', D) float32: the words of ``sentences`` in the given layers (default all)."""
        rows = np.concatenate([np.arange(self.starts[i], self.starts[i + 1]) for i in sentences]) * self.layers
        chosen = np.arange(self.layers) if layers is None else layers.numpy()
        # Row by row of (T * L, D): gathering and turning are one copy of whole rows, widening is another.
        device = self.vectors.device
        numbers = torch.from_numpy((rows + chosen[:, None]).ravel()).to(device)
        shape = (len(chosen), len(rows), self.width)
        room = room or Room()
        stored = room.take("stored", len(numbers), self.width, dtype=self.vectors.dtype, device=device)
        torch.index_select(self.vectors.view(-1, self.width), 0, numbers, out=stored)
        narrow = stored.dtype != torch.float32
        wide = room.take("words", *stored.shape, device=device).copy_(stored) if narrow else stored
        return wide.view(shape)


class _Sent:
    """Vectors that are sent to a device a batch at a time."""

    def __init__(self, vectors: Vectors, device: torch.device) -> None:
        self.vectors, self.device, self.lengths = vectors, device, vectors.lengths

    @property
    def layers(self) -> int:
        return self.vectors.layers

    @property
    def width(self) -> int:
        return self.vectors.width

    def batch(self, sentences: Sequence[int], layers: Tensor | None = None, *, room: Room | None = None) -> Tensor:
        return self.vectors.batch(sentences, layers, room=room).to(self.device)


def on_device(vectors: Vectors, device: torch.device) -> Vectors:
    """The same vectors with batches on ``device``: kept there where they leave a quarter of a GPU's memory free, else
    sent batch by batch."""
    if device.type == "cpu":
        return vectors
    if isinstance(vectors, WordVectors) and vectors.vectors.device == device:
        return vectors
    free, total = torch.cuda.mem_get_info(device)
    if isinstance(vectors, WordVectors) and free - vectors.vectors.nbytes >= total // 4:
        return WordVectors(vectors.vectors.to(device), vectors.lengths)
    return _Sent(vectors, device)


def size_of(words: int, layers: int, width: int, dtype: torch.dtype = torch.float16) -> int:
    """Bytes that the vectors of ``words`` words take."""
    return words * layers * width * torch.finfo(dtype).bits // 8


def extract(
    encoder: Encoder,
    sentences: Sequence[Sequence[str]],
    *,
    kept: Sequence[np.ndarray] | None = None,
    path: str | os.PathLike[str] | None = None,
    dtype: torch.dtype = torch.float16,
    window: str = "refuse",
    batch_tokens: int = 4096,
    progress: Progress = SILENT,
) -> WordVectors:
    """Vectors of all layers of the words of ``sentences`` (mean of a word's pieces), kept as ``dtype``.

    ``kept`` lists for each sentence the numbers of the words that are wanted, ascending; default all. float16 halves
    the size and moves probe scores by less than half the width of their intervals (`docs/probing.md`); bfloat16, of 8
    bits, is not offered.
    Vectors of more than 256 MiB go to a memory-mapped file at ``path`` where one is given; the caller removes it.
    """
    check_dtype(dtype)
    lengths = kept_lengths(sentences, kept)
    shape = (int(lengths.sum()), encoder.num_layers, encoder.dim)
    if path is not None and size_of(*shape, dtype) > IN_MEMORY:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        size, free = size_of(*shape, dtype), shutil.disk_usage(Path(path).parent).free
        if size > free:
            raise BertftError(
                f"{path}: the word vectors take {size >> 20} MiB, expected that much free, found {free >> 20}"
            )
        count = shape[0] * shape[1] * shape[2]
        vectors = torch.from_file(os.fspath(path), shared=True, size=count, dtype=dtype).view(shape)
    else:
        vectors = torch.empty(shape, dtype=dtype)
    store = WordVectors(vectors, lengths)
    seen = np.zeros(len(sentences), dtype=np.int64)  # words that have come, of each sentence
    filled = store.starts[:-1].copy()
    stream: Any = encoder.stream(sentences, unit="word", window=window, batch_tokens=batch_tokens, progress=progress)
    for batch in stream:
        packed = batch.vectors.transpose(0, 1).to("cpu", dtype)
        stop = 0
        for index, length in zip(batch.index.tolist(), batch.lengths.tolist(), strict=True):
            start, stop = stop, stop + length
            part = packed[start:stop]
            if kept is not None:
                own = kept[index]
                part = part[own[(own >= seen[index]) & (own < seen[index] + length)] - seen[index]]
            vectors[filled[index] : filled[index] + len(part)] = part
            filled[index] += len(part)
            seen[index] += length
        if not bool(torch.isfinite(packed).all()):
            raise BertftError(f"{encoder.name}: a word's vector is not finite or beyond the range of {dtype}")
    wanted = np.array([len(words) for words in sentences])
    if not np.array_equal(seen, wanted):
        sentence = int(np.flatnonzero(seen != wanted)[0])
        raise BertftError(
            f"{encoder.name}: expected {wanted[sentence]} word vectors of sentence {sentence}, found {seen[sentence]}"
        )
    return store


class StreamedVectors:
    """Vectors that are never stored: ``batch`` runs the encoder on the sentences asked for. float32."""

    def __init__(
        self,
        encoder: Encoder,
        sentences: Sequence[Sequence[str]],
        *,
        kept: Sequence[np.ndarray] | None = None,
        window: str = "refuse",
    ) -> None:
        self.encoder, self.sentences, self.kept, self.window = encoder, sentences, kept, window
        self.lengths = kept_lengths(sentences, kept)

    @property
    def layers(self) -> int:
        return self.encoder.num_layers

    @property
    def width(self) -> int:
        return self.encoder.dim

    def batch(self, sentences: Sequence[int], layers: Tensor | None = None, *, room: Room | None = None) -> Tensor:
        """(L, T', D): the words of ``sentences`` in the given layers (default all)."""
        own = None if self.kept is None else [self.kept[i] for i in sentences]
        chosen = [self.sentences[i] for i in sentences]
        found = extract(self.encoder, chosen, kept=own, dtype=torch.float32, window=self.window)
        return found.batch(range(len(chosen)), layers, room=room)


def kept_lengths(sentences: Sequence[Sequence[str]], kept: Sequence[np.ndarray] | None) -> np.ndarray:
    """(S,) how many vectors each sentence has."""
    return np.array([len(words) for words in (sentences if kept is None else kept)], dtype=np.int64)


def check_dtype(dtype: torch.dtype) -> None:
    """Refuse storage that is not float16 or float32."""
    if dtype not in (torch.float16, torch.float32):
        reason = ": its 8 bits of precision move similarities and probe scores, float16's 11 do not"
        raise BertftError(
            f"features: dtype must be float16 or float32, found {str(dtype).removeprefix('torch.')}"
            + (reason if dtype == torch.bfloat16 else "")
        )

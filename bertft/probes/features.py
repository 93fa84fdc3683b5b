"""Word vectors of every layer over a corpus, extracted once, in memory or memory-mapped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.progress import SILENT, Progress

if TYPE_CHECKING:
    from bertft.encoder import Encoder

# Vectors above this many bytes are memory-mapped where a folder is given.
IN_MEMORY = 256 << 20


class WordVectors:
    """``vectors`` (T, L, D), all words of all sentences in order; ``starts`` (S + 1,) where each sentence begins.

    Sentence-major, so that a batch of random sentences reads few long runs of the file.
    """

    def __init__(self, vectors: Tensor, lengths: Sequence[int]) -> None:
        self.vectors = vectors
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])

    @property
    def layers(self) -> int:
        return self.vectors.shape[1]

    @property
    def width(self) -> int:
        return self.vectors.shape[2]

    def rows(self, sentences: Sequence[int]) -> Tensor:
        """Row numbers (T',) of the words of ``sentences``, one sentence after the other."""
        return torch.from_numpy(np.concatenate([np.arange(self.starts[i], self.starts[i + 1]) for i in sentences]))

    def batch(self, sentences: Sequence[int], layers: Tensor | None = None) -> Tensor:
        """(L, T', D) strided, in the stored dtype: the words of ``sentences`` in the given layers (default all)."""
        picked = self.vectors.index_select(0, self.rows(sentences))
        if layers is not None and len(layers) < self.layers:
            picked = picked.index_select(1, layers)
        return picked.transpose(0, 1)


def size_of(words: int, layers: int, width: int, dtype: torch.dtype = torch.float16) -> int:
    """Bytes that the vectors of ``words`` words take."""
    return words * layers * width * torch.finfo(dtype).bits // 8


def extract(
    encoder: Encoder,
    sentences: Sequence[Sequence[str]],
    *,
    path: str | os.PathLike[str] | None = None,
    dtype: torch.dtype = torch.float16,
    window: str = "refuse",
    batch_tokens: int = 4096,
    progress: Progress = SILENT,
) -> WordVectors:
    """Vectors of all layers of the words of ``sentences`` (mean of a word's pieces), kept as ``dtype``.

    float16 halves the size and moves probe scores by far less than their intervals; bfloat16 is not offered because
    it does not. Vectors of more than 256 MiB go to a memory-mapped file at ``path`` where one is given; the caller
    removes it.
    """
    if dtype not in (torch.float16, torch.float32):
        raise BertftError(f"extract: dtype must be float16 or float32, found {dtype}")
    lengths = [len(words) for words in sentences]
    shape = (sum(lengths), encoder.num_layers, encoder.dim)
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
    filled = store.starts[:-1].copy()
    stream: Any = encoder.stream(sentences, unit="word", window=window, batch_tokens=batch_tokens, progress=progress)
    for batch in stream:
        packed = batch.vectors.transpose(0, 1).to("cpu", dtype)
        stop = 0
        for index, length in zip(batch.index.tolist(), batch.lengths.tolist(), strict=True):
            start, stop = stop, stop + length
            vectors[filled[index] : filled[index] + length] = packed[start:stop]
            filled[index] += length
        if not bool(torch.isfinite(packed).all()):
            raise BertftError(f"{encoder.name}: a word's vector is not finite or beyond the range of {dtype}")
    if not np.array_equal(filled, store.starts[1:]):
        sentence = int(np.flatnonzero(filled != store.starts[1:])[0])
        raise BertftError(
            f"{encoder.name}: expected {lengths[sentence]} word vectors of sentence {sentence}, "
            f"found {int(filled[sentence] - store.starts[sentence])}"
        )
    return store

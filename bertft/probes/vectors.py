"""Word vectors of all layers of an encoder."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from bertft.data.alignment import align_words
from bertft.errors import BertftError
from bertft.runs.progress import SILENT, Progress

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder

IN_MEMORY = 256 << 20  # bytes above which vectors are memory-mapped, if a path is given


class Vectors(Protocol):
    """Vectors of the words of S sentences, which probes read in batches of sentences.

    ``lengths`` (S,) are the words of each sentence.
    """

    lengths: np.ndarray

    @property
    def layers(self) -> int:
        """The number of layers L."""
        ...

    @property
    def width(self) -> int:
        """The number of dimensions D."""
        ...

    def batch(
        self, sentences: Sequence[int], layers: Tensor | None = None, *, workspace: Workspace | None = None
    ) -> Tensor:
        """Return the words of ``sentences``, one sentence after the other, in ``layers`` (default: all).

        The result is (L', T', D) float32, contiguous. With a ``workspace`` it is valid until the next batch that uses
        the same one.
        """
        ...


class Workspace:
    """Memory that is reused from step to step, because fresh pages cost more than writing into them."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def take(
        self, name: str, *shape: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Return uninitialised memory of this shape; it replaces the memory taken before under the same name."""
        size, kept = math.prod(shape), self._kept.get(name)
        if kept is None or len(kept) < size or kept.dtype != dtype or kept.device != torch.device(device):
            kept = self._kept[name] = torch.empty(size + size // 4, dtype=dtype, device=device)
        return kept[:size].view(shape)


class WordVectors:
    """Stored vectors (T, L, D) of all words of all sentences in order.

    ``starts`` (S + 1,) are the first rows of the sentences. The layout is sentence-major, so that a batch of random
    sentences reads a few long runs of a file.
    """

    def __init__(self, vectors: Tensor, lengths: Sequence[int] | np.ndarray) -> None:
        self.vectors = vectors
        self.lengths = np.asarray(lengths, dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])

    @property
    def layers(self) -> int:
        """The number of layers, L."""
        return self.vectors.shape[1]

    @property
    def width(self) -> int:
        """The size of a vector, D."""
        return self.vectors.shape[2]

    def batch(
        self, sentences: Sequence[int], layers: Tensor | None = None, *, workspace: Workspace | None = None
    ) -> Tensor:
        """Return the words of ``sentences`` in ``layers`` (default: all), (L', T', D) float32."""
        rows = np.concatenate([np.arange(self.starts[i], self.starts[i + 1]) for i in sentences]) * self.layers
        chosen = np.arange(self.layers) if layers is None else layers.numpy()
        # Rows of (T * L, D) are gathered and transposed in one copy; the conversion to float32 is another.
        device = self.vectors.device
        numbers = sent(torch.from_numpy((rows + chosen[:, None]).ravel()), device)
        shape = (len(chosen), len(rows), self.width)
        workspace = workspace or Workspace()
        stored = workspace.take("stored", len(numbers), self.width, dtype=self.vectors.dtype, device=device)
        torch.index_select(self.vectors.view(-1, self.width), 0, numbers, out=stored)
        narrow = stored.dtype != torch.float32
        wide = workspace.take("words", *stored.shape, device=device).copy_(stored) if narrow else stored
        return wide.view(shape)


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor of the CPU on ``device``.

    A copy to a GPU starts from pinned memory, so that the host does not wait for earlier work of the device.
    """
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class _SentVectors:
    """Vectors that are sent to a device batch by batch."""

    def __init__(self, vectors: Vectors, device: torch.device) -> None:
        self.vectors, self.device, self.lengths = vectors, device, vectors.lengths

    @property
    def layers(self) -> int:
        return self.vectors.layers

    @property
    def width(self) -> int:
        return self.vectors.width

    def batch(
        self, sentences: Sequence[int], layers: Tensor | None = None, *, workspace: Workspace | None = None
    ) -> Tensor:
        return self.vectors.batch(sentences, layers, workspace=workspace).to(self.device)


def on_device(vectors: Vectors, device: torch.device) -> Vectors:
    """Return the vectors with batches on ``device``.

    They are copied to a GPU if this leaves a quarter of its memory free; otherwise they are sent batch by batch.
    """
    if device.type == "cpu":
        return vectors
    if isinstance(vectors, WordVectors) and vectors.vectors.device == device:
        return vectors
    free, total = torch.cuda.mem_get_info(device)
    if isinstance(vectors, WordVectors) and free - vectors.vectors.nbytes >= total // 4:
        return WordVectors(vectors.vectors.to(device), vectors.lengths)
    return _SentVectors(vectors, device)


def size_of(words: int, layers: int, width: int, dtype: torch.dtype = torch.float16) -> int:
    """Return the bytes of the vectors of ``words`` words."""
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
    """Return the vectors of the words of ``sentences`` in all layers; a word's vector is the mean of its pieces.

    Args:
        encoder: the encoder.
        sentences: the words of each sentence.
        kept: for each sentence the numbers of the words to keep, ascending; default: all.
        path: file for a memory map of vectors of more than 256 MiB; the caller removes it.
        dtype: float16 or float32. float16 halves the size and changes probe scores by less than half the width of their
            intervals (`docs/probing.md`).
        window: ``refuse`` sentences longer than the encoder's window, or ``split`` them into consecutive windows.
        batch_tokens: most pieces in a batch.
        progress: receives progress.

    Raises:
        BertftError: if the disk is too small, a sentence too long, or a vector not finite in ``dtype``.
    """
    check_dtype(dtype)
    lengths = kept_lengths(sentences, kept)
    vectors = _allocated((int(lengths.sum()), encoder.num_layers, encoder.dim), dtype, path)
    store = WordVectors(vectors, lengths)
    seen = np.zeros(len(sentences), dtype=np.int64)  # words received of each sentence
    filled = store.starts[:-1].copy()
    stream: Any = encoder.stream(sentences, unit="word", window=window, batch_tokens=batch_tokens, progress=progress)
    for batch in stream:
        packed = batch.vectors.transpose(0, 1).to("cpu", dtype)
        for index, part in zip(batch.index.tolist(), packed.split(batch.lengths.tolist()), strict=True):
            first, length = seen[index], len(part)
            if kept is not None:
                own = kept[index]
                part = part[own[(own >= first) & (own < first + length)] - first]
            vectors[filled[index] : filled[index] + len(part)] = part
            filled[index] += len(part)
            seen[index] += length
        if not bool(torch.isfinite(packed).all()):
            raise BertftError(f"{encoder.name}: a word's vector is not finite or beyond the range of {dtype}")
    _check_complete(encoder, sentences, seen)
    return store


def _check_complete(encoder: Encoder, sentences: Sequence[Sequence[str]], seen: np.ndarray) -> None:
    wanted = np.array([len(words) for words in sentences])
    if not np.array_equal(seen, wanted):
        sentence = int(np.flatnonzero(seen != wanted)[0])
        raise BertftError(
            f"{encoder.name}: expected {wanted[sentence]} word vectors of sentence {sentence}, found {seen[sentence]}"
        )


def _allocated(shape: tuple[int, int, int], dtype: torch.dtype, path: str | os.PathLike[str] | None) -> Tensor:
    """Return uninitialised memory for vectors (T, L, D): a memory map at ``path`` if they are large."""
    size = size_of(*shape, dtype)
    if path is None or size <= IN_MEMORY:
        return torch.empty(shape, dtype=dtype)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(Path(path).parent).free
    if size > free:
        raise BertftError(
            f"{path}: the word vectors take {size >> 20} MiB, expected that much free, found {free >> 20}"
        )
    return torch.from_file(os.fspath(path), shared=True, size=math.prod(shape), dtype=dtype).view(shape)


class StreamedVectors:
    """Vectors that are never stored: each batch runs the encoder, in float32."""

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
        """The number of layers L."""
        return self.encoder.num_layers

    @property
    def width(self) -> int:
        """The number of dimensions D."""
        return self.encoder.dim

    def batch(
        self, sentences: Sequence[int], layers: Tensor | None = None, *, workspace: Workspace | None = None
    ) -> Tensor:
        """Return the words of ``sentences`` in ``layers`` (default: all), (L', T', D) float32."""
        own = None if self.kept is None else [self.kept[i] for i in sentences]
        chosen = [self.sentences[i] for i in sentences]
        found = extract(self.encoder, chosen, kept=own, dtype=torch.float32, window=self.window)
        return found.batch(range(len(chosen)), layers, workspace=workspace)


def kept_lengths(sentences: Sequence[Sequence[str]], kept: Sequence[np.ndarray] | None) -> np.ndarray:
    """Return the number of vectors of each sentence, (S,)."""
    return np.array([len(words) for words in (sentences if kept is None else kept)], dtype=np.int64)


def check_dtype(dtype: torch.dtype) -> None:
    """Refuse a dtype other than float16 and float32."""
    if dtype not in (torch.float16, torch.float32):
        reason = ": its 8 bits of precision move similarities and probe scores, float16's 11 do not"
        raise BertftError(
            f"features: dtype must be float16 or float32, found {str(dtype).removeprefix('torch.')}"
            + (reason if dtype == torch.bfloat16 else "")
        )


def check_lengths(
    window: str, encoders: Iterable[Encoder], corpora: Mapping[str, Sequence[Any]], progress: Progress = SILENT
) -> None:
    """Refuse sentences longer than the window of one of the encoders, unless ``window`` is ``split``.

    Call it before any work is done on the other sentences. ``corpora`` are examples with ``id`` and ``words``, by the
    name that the error message gives them.
    """
    if window == "split":
        return
    chosen = list(encoders)
    with progress.step("check the lengths", total=len(chosen) * len(corpora), unit="corpora") as bar:
        for encoder in chosen:
            for name, examples in corpora.items():
                names = [f"{example.id} of the {name} data" for example in examples]
                align_words(encoder.tokenizer, [e.words for e in examples], encoder.max_length, names=names)
                bar.advance()

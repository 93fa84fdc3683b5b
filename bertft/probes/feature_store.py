"""Word vectors extracted once and read by memory map.

```
folder/<key>/vectors.bin     (T, L, D) in float16 or float32, row by row, all words of all sentences in order
             about.json      encoder, code, data and shape: everything that the key is a digest of
             journal.jsonl   one line for each finished part of the file: its number and the CRC-32 of its bytes
```
A part is flushed to the disk before its line is written, so a process that was killed is resumed after the last line.
Parts are encoded independently, so the vectors are the same bit for bit. The key depends on the encoder's weights, its
tokenizer, the words, the versions of the libraries and the source code that makes a vector. A change of
any of them gives another key, so stale vectors are never used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bertft.data.alignment import align_words
from bertft.errors import BertftError
from bertft.models.fingerprint import SOURCES, code_digest, fingerprint
from bertft.probes.vectors import StreamedVectors, Vectors, WordVectors, check_dtype, extract, kept_lengths
from bertft.runs.digests import digest_of_json
from bertft.runs.files import write_text_atomically
from bertft.runs.progress import SILENT, Progress

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder

PART = 512  # sentences in a part
# Modules that make a vector, besides those of the encoder.
OWN_SOURCES = ("probes/vectors.py", "probes/feature_store.py")


class FeatureStore:
    """The source of word vectors.

    Args:
        folder: where vectors are kept; None keeps them in memory while they are used.
        dtype: float16 or float32. float16 changes similarities of BERT's vectors by about 5e-5, far less than any
            interval; bfloat16, which would change them by 8e-4, is refused.
        window: ``refuse`` sentences longer than the encoder's window, or ``split`` them into consecutive windows.
        stream: store nothing and run the encoder for every batch, in float32: slow, but without a file.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        dtype: torch.dtype = torch.float16,
        window: str = "refuse",
        stream: bool = False,
    ) -> None:
        check_dtype(dtype)
        self.folder = None if folder is None else Path(folder)
        self.dtype, self.window, self.stream = dtype, window, stream

    def vectors(
        self,
        encoder: Encoder,
        sentences: Sequence[Sequence[str]],
        *,
        kept: Sequence[np.ndarray] | None = None,
        names: Sequence[str] | None = None,
        progress: Progress = SILENT,
    ) -> Vectors:
        """Return the vectors of ``sentences``, extracting those that are not stored yet.

        Args:
            encoder: the encoder.
            sentences: the words of each sentence.
            kept: for each sentence the numbers of the words to keep, ascending; default: all.
            names: names of the sentences in error messages.
            progress: receives the size of the file first, then progress.

        Raises:
            BertftError: if the disk is too small or a sentence too long; no vectors are written then.
        """
        if self.window == "refuse":
            align_words(encoder.tokenizer, sentences, encoder.max_length, names=names)
        if self.stream:
            return StreamedVectors(encoder, sentences, kept=kept, window=self.window)
        if self.folder is None:
            return extract(encoder, sentences, kept=kept, dtype=self.dtype, window=self.window, progress=progress)
        from filelock import FileLock

        about = self._about(encoder, sentences, kept)
        place = self.folder / digest_of_json(about)[:20]
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / ".lock"):  # a second process waits, and then reads
            store = _Entry(place, about, kept_lengths(sentences, kept), self.dtype)
            missing = store.missing(progress)
            if missing:
                store.prepare(len(missing), progress)
                with progress.step(f"extract {encoder.name}", total=len(missing), unit="parts") as step:
                    for part in missing:
                        chosen = slice(part * PART, (part + 1) * PART)
                        own = None if kept is None else kept[chosen]
                        found = extract(encoder, sentences[chosen], kept=own, dtype=self.dtype, window=self.window)
                        store.write(part, found.vectors)
                        step.advance()
            return store.open()

    def _about(
        self, encoder: Encoder, sentences: Sequence[Sequence[str]], kept: Sequence[np.ndarray] | None
    ) -> dict[str, Any]:
        words = hashlib.sha256()
        for i, sentence in enumerate(sentences):
            words.update(json.dumps([list(sentence), None if kept is None else kept[i].tolist()]).encode())
        total = int(kept_lengths(sentences, kept).sum())
        return {
            "format": "bertft.features/1", "encoder": fingerprint(encoder),
            "code": code_digest((*SOURCES, *OWN_SOURCES)),
            "data": words.hexdigest(), "sentences": len(sentences), "window": self.window,
            "shape": [total, encoder.num_layers, encoder.dim], "dtype": str(self.dtype).removeprefix("torch."),
        }  # fmt: skip


class _Entry:
    """The folder of one key; ``about`` are its settings, ``lengths`` the words of each sentence."""

    def __init__(self, place: Path, about: dict[str, Any], lengths: np.ndarray, dtype: torch.dtype) -> None:
        self.place, self.about, self.lengths, self.dtype = place, about, lengths, dtype
        self.file, self.journal = place / "vectors.bin", place / "journal.jsonl"
        starts = np.concatenate([[0], np.cumsum(lengths)])
        row = about["shape"][1] * about["shape"][2] * torch.finfo(dtype).bits // 8
        edges = [*range(0, len(lengths), PART), len(lengths)]
        self.edges = [int(starts[i]) * row for i in edges]  # in bytes

    def missing(self, progress: Progress) -> list[int]:
        """Return the parts that are missing or damaged."""
        parts = range(len(self.edges) - 1)
        if not self.file.exists() or self.file.stat().st_size != self.edges[-1]:
            self.journal.unlink(missing_ok=True)
            return list(parts)
        written = self._written()
        damaged = []
        with self.file.open("rb") as file:
            for part in [p for p in parts if p in written]:
                file.seek(self.edges[part])
                if zlib.crc32(file.read(self.edges[part + 1] - self.edges[part])) != written[part]:
                    damaged.append(part)
        if damaged:
            progress.say(f"{self.file}: {len(damaged)} damaged part(s) are extracted again")
        return [p for p in parts if p not in written or p in damaged]

    def _written(self) -> dict[int, int]:
        """Return the checksum of each part in the journal, ignoring a truncated last line."""
        found: dict[int, int] = {}
        if self.journal.exists():
            for line in self.journal.read_text(encoding="utf8").splitlines():
                try:
                    part, checksum = json.loads(line)
                except ValueError:
                    continue
                found[int(part)] = int(checksum)
        return found

    def prepare(self, missing: int, progress: Progress) -> None:
        """Create the file in its full size.

        Raises:
            BertftError: if the disk is too small.
        """
        size = self.edges[-1]
        parts = len(self.edges) - 1
        done = f", {parts - missing} of {parts} parts are there" if missing < parts else ""
        words, layers, width = self.about["shape"]
        progress.say(
            f"features: {size / 1e6:,.1f} MB ({words:,} words x {layers} layers x {width}, {self.about['dtype']})"
            f" in {self.place}{done}"
        )
        here = self.file.stat().st_blocks * 512 if self.file.exists() else 0
        free = shutil.disk_usage(self.place).free
        if size - here > free:
            raise BertftError(f"{self.file}: the vectors take {size >> 20} MiB, found {free >> 20} MiB free")
        write_text_atomically(self.place / "about.json", json.dumps(self.about, indent=1) + "\n")
        with self.file.open("ab") as file:
            file.truncate(size)

    def write(self, part: int, vectors: Tensor) -> None:
        """Write one part, flush it to the disk, and then add its line to the journal."""
        data = vectors.contiguous().view(torch.uint8).numpy().data  # not copied: a copy takes as long as the disk
        with self.file.open("r+b") as file:
            file.seek(self.edges[part])
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        cut = self.journal.exists() and not self.journal.read_bytes().endswith(b"\n")
        with self.journal.open("a", encoding="utf8") as file:
            file.write(("\n" if cut else "") + json.dumps([part, zlib.crc32(data)]) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def open(self) -> WordVectors:
        shape = self.about["shape"]
        count = shape[0] * shape[1] * shape[2]
        mapped = torch.from_file(os.fspath(self.file), shared=False, size=count, dtype=self.dtype)
        return WordVectors(mapped.view(shape), self.lengths)

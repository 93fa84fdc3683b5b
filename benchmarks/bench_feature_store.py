"""The feature store beside plain NumPy.

Both write the same bytes, and read them in batches of random sentences. Only the store's own work is timed, without the
encoder: the journal, checksums, a flush for each part, and the transposition of batches. All reads come from the
system's page cache, as in the training of probes.
"""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import torch

from benchmarks.harness import OURS, BandwidthLimit, Contender
from benchmarks.stimuli import sentence_lengths
from bertft.probes.feature_store import PART, _Entry
from bertft.probes.vectors import Workspace
from bertft.runs.progress import SILENT

SENTENCES, LAYERS, DIM, BATCH = 1024, 7, 384, 20


@pytest.fixture(scope="module")
def material():
    """Return lengths of sentences as in a treebank, and float16 vectors of their words."""
    lengths = sentence_lengths(SENTENCES, seed=0)
    generator = torch.Generator().manual_seed(0)
    return np.asarray(lengths), torch.randn(int(sum(lengths)), LAYERS, DIM, generator=generator).half()


def written(folder, lengths: np.ndarray, vectors: torch.Tensor) -> _Entry:
    """Return a new store of ``vectors``, written part by part as during extraction."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    entry = _Entry(folder, {"shape": list(vectors.shape), "dtype": "float16"}, lengths, vectors.dtype)
    entry.prepare(len(entry.edges) - 1, SILENT)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    for part in range(len(entry.edges) - 1):
        own = slice(starts[part * PART], starts[min((part + 1) * PART, len(lengths))])
        entry.write(part, vectors[own])
    return entry


def test_write(run_race, material, tmp_path):
    lengths, vectors = material

    def plain():
        path = tmp_path / "plain.bin"
        path.unlink(missing_ok=True)
        with path.open("wb") as file:
            vectors.numpy().tofile(file)
            os.fsync(file.fileno())
        return path

    def error(result) -> float:
        found = np.fromfile(result.file if isinstance(result, _Entry) else result, np.float16)
        return float(np.abs(found - vectors.numpy().ravel()).max())

    run_race(
        "feature store",
        f"write {vectors.nbytes / 1e6:.0f} MB of vectors and flush them to the disk",
        [
            Contender(OURS, lambda: written(tmp_path / "store", lengths, vectors)),
            Contender("NumPy, tofile", plain),
        ],
        BandwidthLimit(2 * vectors.nbytes),
        error=error,
        tolerance=0.0,
        rounds=5,
    )


def test_read(run_race, material, tmp_path):
    lengths, vectors = material
    entry = written(tmp_path / "store", lengths, vectors)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    order = np.random.default_rng(0).permutation(len(lengths))
    batches = [order[i : i + BATCH].tolist() for i in range(0, len(order), BATCH)]

    def mapped():
        store, workspace = entry.open(), Workspace()
        for members in batches:
            yield store.batch(members, workspace=workspace)

    def loaded():
        whole = np.fromfile(entry.file, np.float16).reshape(vectors.shape)
        for members in batches:
            rows = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in members])
            yield np.ascontiguousarray(whole[rows].swapaxes(0, 1), dtype=np.float32)

    def through(read):
        return sum(float(batch[0, 0, 0]) for batch in read())

    for members, ours, plain in zip(batches, mapped(), loaded(), strict=True):  # all of them, once
        expected = torch.cat([vectors[starts[i] : starts[i + 1]] for i in members]).transpose(0, 1).float()
        assert torch.equal(ours, expected) and torch.equal(torch.from_numpy(plain), expected)
    truth = sum(float(vectors[starts[members[0]], 0, 0]) for members in batches)
    run_race(
        "feature store",
        f"read {vectors.nbytes / 1e6:.0f} MB as float32 batches (L, T, D) of {BATCH} random sentences",
        [
            Contender(OURS, lambda: through(mapped)),
            Contender("NumPy, fromfile and indexing", lambda: through(loaded)),
        ],
        BandwidthLimit(3 * vectors.nbytes),  # float16 read, float32 written
        error=lambda found: abs(found - truth),
        tolerance=1e-6,
        rounds=5,
    )

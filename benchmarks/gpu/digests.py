"""Digests of distances as the executor of the CUDA kernels computes them, with the bits of the tensor cores.

``python -m benchmarks.gpu.digests`` writes ``digests.json`` on the CPU. The benchmark computes the same on a card. If
the bits differ, the model of the cores (tests/cuda_on_cpu) is wrong for this card, or the kernel is.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("digests.json")
N, D = 130, 768  # tails of a tile of 128 x 128
METRICS = ("dot", "cosine", "correlation", "sqeuclidean", "euclidean")
CAPABILITIES = (80, 90)  # later cards are taken for H100s


def rows() -> np.ndarray:
    """Return rows (1, N, D) float32, by whole numbers so that every version of NumPy draws the same."""
    draw = np.random.default_rng(0).integers(-(1 << 20), 1 << 20, (1, N, D))
    mean = np.random.default_rng(1).integers(-(1 << 21), 1 << 21, D)
    return ((draw + mean) / (1 << 19)).astype(np.float32)


def digest(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def capability_of(major: int) -> int:
    """Return the capability whose digests hold for a card of compute capability ``major``.x."""
    return 80 if major == 8 else 90


def stored() -> dict[str, Any]:
    """Return the digests in the file: ``rows``, and ``<capability> <precision> <metric>``."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def computed() -> Iterator[tuple[str, str]]:
    """Yield the digests by the executor."""
    sys.path[:0] = [str(Path(__file__).parents[2] / "tests" / "cuda_on_cpu")]
    from gpu_executor import Device
    from test_split_gram import distances

    x = rows()
    yield "rows", digest(x)
    for capability in CAPABILITIES:
        for precision, parts in (("float32", 2), ("fast", 1)):
            for metric in METRICS:
                device = Device(compute_capability=capability)
                out, count = distances(x, None, metric, "plain", parts=parts, device=device)
                assert not count.any(), f"{metric}: near rows are recomputed by differences, not by products"
                yield f"{capability} {precision} {metric}", digest(out)


if __name__ == "__main__":
    FILE.write_text(json.dumps(dict(computed()), indent=1) + "\n", encoding="utf-8")
    print(f"{FILE}: {len(stored())} digests")

"""Check an installed bertft, outside the checkout.

python .ci/installed.py KERNELS [REASON]    KERNELS: prebuilt, compiled or reference

The results of every kind of kernel must be those of plain PyTorch. KERNELS that are not in use, or a REASON that the
one warning does not give, are errors.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import torch

import bertft
from bertft import ops
from bertft.ops import reference
from bertft.ops.native import cpu


def results(source) -> dict[str, torch.Tensor]:
    """Return one result for each kernel, by the functions of the module ``source``."""
    made = torch.Generator().manual_seed(0)
    x, y = (torch.randn(3, 70, 33, dtype=torch.float64, generator=made) for _ in range(2))
    weight, lengths = torch.randn(3, 33, 5, dtype=torch.float64, generator=made), torch.tensor([40, 30])
    distances = torch.randint(1, 9, (40 * 40 + 30 * 30,), generator=made).double()
    return {
        "pairwise_distance": source.pairwise_distance(x, y, metric="euclidean"),
        "sums over stimuli": source.rdm_correlation(x, y, metric="cosine"),
        "tiles of matrices": source.rdm_correlation(x, y, metric="euclidean"),
        "distance_probe_loss": source.distance_probe_loss(x, weight, distances, lengths),
        "depth_probe_loss": source.depth_probe_loss(x, weight, distances[:70], lengths),
    }


def main() -> None:
    kernels, reason = sys.argv[1], "".join(sys.argv[2:])
    checkout, home = Path(__file__).resolve().parents[1], Path(bertft.__file__).resolve().parent
    assert home.parent != checkout, f"expected an installation, found the checkout {checkout}"
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = results(ops)
    own = [str(one.message) for one in caught if "bertft" in str(one.message)]
    status = cpu.status()
    assert status["kernels"] == kernels, status
    assert len(own) == (kernels == "reference") and reason in "".join(own), own
    for name, expected in results(reference).items():
        torch.testing.assert_close(found[name], expected, msg=lambda text, name=name: f"{name}: {text}")
    seconds = time.perf_counter() - started
    print(f"{kernels} kernels of {home}: {len(found)} results as expected, torch {torch.__version__}, {seconds:.1f} s")
    print("".join(own) or status["reason"])


if __name__ == "__main__":
    main()

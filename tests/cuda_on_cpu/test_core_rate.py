"""csrc/cuda/core_rate.cu, executed on the CPU.

The kernel measures what its comments claim; time itself is not modelled.
"""

from __future__ import annotations

import numpy as np
import pytest
from accuracy import MODES
from gpu_executor import Device, KernelError, Kernels, Uninitialised


@pytest.mark.parametrize("mode", MODES)
def test_both_parts_run_and_are_timed(mode):
    cycles, sink = np.zeros(2, np.int64), np.zeros(512, np.float32)
    Kernels("core_rate.cu", mode).core_rate_launch(Uninitialised(cycles), Uninitialised(sink))
    assert (cycles > 0).all()
    # eight sums of 2 x 64 products of 16 columns in four registers; the first register then takes 2 x 64 steps of FFMA
    factor = np.float64(np.float32(1) + np.float32(1e-6) * np.float32(511))
    first = 2048 * factor**128 + factor * (factor**128 - 1) / (factor - 1)
    assert abs(sink[511] / (8 * (3 * 2048 + first)) - 1) < 1e-5
    assert sink[0] == 8 * (4 * 2048 + 128)


def test_which_cards_can_run_the_core():
    for capability, limit, expected in ((90, 227, 1), (80, 163, 1), (86, 99, 1), (75, 227, 0), (90, 60, 0)):
        device = Device(compute_capability=capability, shared_limit=limit << 10)
        kernels, yes = Kernels("core_rate.cu", "plain", device=device), np.zeros(1, np.int32)
        kernels.split_core_serves(yes)
        assert yes[0] == expected
    with pytest.raises(KernelError):
        Kernels("core_rate.cu", "plain", device=Device(compute_capability=75)).core_rate_launch(
            np.zeros(2, np.int64), np.zeros(512, np.float32)
        )

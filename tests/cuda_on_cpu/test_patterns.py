"""Smallest legal and illegal uses of CUDA primitives.

Barriers, warps, atomics, shared memory and launches; the kernels are in planted/patterns.cu.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gpu_executor import ORDERS, Device, KernelError, Kernels

SOURCE = Path(__file__).parent / "planted" / "patterns.cu"
T = np.arange(64)

LEGAL = {
    "syncwarp_orders": (T ^ 3 ^ 1) + 1,
    "half_warp_shuffle": (T // 16 * 16 * 16 + 120),
    "shared_words": 63 - T,
    "votes": np.full(64, 22 * 1000 + 16 + 100),
    "atomic_total": np.where(T == 0, 3 * (64 * 65 // 2), 0),
    "last_block_adds": np.select([T == 0, T < 6, T == 63], [15, T, 5], 0),
}
# launcher: (what is reported, whether plain mode sees it too)
ILLEGAL = {
    "last_block_without_fence": ("RACE .* another block", False),
    "shuffle_is_no_barrier": ("RACE on shared 's'", False),
    "syncwarp_of_other_lanes": ("RACE on shared 's'|UNINITIALISED", False),
    "blocks_race": ("RACE on 'out', byte 0.* another block", False),
    "atomic_and_plain": ("RACE on 'out', byte 0.* atomic", False),
    "two_barriers": ("divergent barrier", True),
    "lanes_never_meet": ("deadlock.*missing lanes", True),
    "static_shared_too_large": ("52000 bytes exceeds 48 KB", True),
    "product_overflows": ("SIGNED OVERFLOW in a product", False),
    "inner_index": ("INDEX outside", False),
    "copy_of_six_bytes": ("cp.async of 6 bytes", True),
    "unwritten_lane": ("names lanes beyond", True),
    "block_too_large": ("launch refused: block size", True),
    "shared_not_allowed": ("needs cudaFuncSetAttribute", True),
    "shared_beyond_device": ("above the device limit", True),
    "misaligned_vector": ("MISALIGNED", True),
    "host_refusal": ("run_host_refusal returned 1", True),
}


@pytest.fixture(scope="module", params=["plain", "checked"])
def kernels(request) -> Kernels:
    return Kernels(SOURCE, request.param)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", LEGAL)
def test_legal(kernels, name, order):
    out = np.zeros(64, np.float32)
    for seed in range(3):
        out[:] = 0
        kernels.call(f"run_{name}", out, order=order, seed=seed)
        np.testing.assert_array_equal(out, LEGAL[name])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ILLEGAL)
def test_illegal(kernels, name, order):
    text, plain = ILLEGAL[name]
    if kernels.mode == "plain" and not plain:
        pytest.skip("only the checker can see this one")
    with pytest.raises(KernelError, match=text):
        kernels.call(f"run_{name}", np.zeros(64, np.float32), order=order, seed=2)


def test_the_next_call_starts_clean(kernels):
    with pytest.raises(KernelError):
        kernels.run_two_barriers(np.zeros(64, np.float32))
    kernels.run_votes(np.zeros(64, np.float32))


def test_a_smaller_device_refuses_more():
    small = Kernels(SOURCE, "checked", device=Device(shared_limit=100 << 10))
    with pytest.raises(KernelError, match="above the device limit") as fault:
        small.run_shared_beyond_device(np.zeros(64, np.float32))
    assert fault.value.code == 1


def test_arguments_are_checked(kernels):
    with pytest.raises(TypeError, match=r"takes 1 arguments \(float32\*\), got 2"):
        kernels.run_votes(np.zeros(64, np.float32), 3)
    with pytest.raises(TypeError, match=r"expected float32\*, got an array of float64"):
        kernels.run_votes(np.zeros(64))
    with pytest.raises(TypeError, match="C-contiguous"):
        kernels.run_votes(np.zeros(128, np.float32)[::2])
    with pytest.raises(AttributeError, match="no launcher 'run_nothing'"):
        kernels.run_nothing()

"""Driver of the executor.

Arguments of a launcher, results, and memory that may not be touched.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gpu_executor import Device, KernelError, Kernels, Misaligned, Uninitialised

SOURCE = Path(__file__).parent / "planted" / "driver.cu"


@pytest.fixture(scope="module", params=["plain", "checked"])
def kernels(request) -> Kernels:
    return Kernels(SOURCE, request.param)


def test_results_come_back(kernels):
    x, y = np.arange(40, dtype=np.float32), np.zeros(40, np.float32)
    kernels.scale(x, Uninitialised(y), 40, 2.5)
    np.testing.assert_array_equal(y, 2.5 * x)
    assert kernels.switches > 0
    assert (kernels.accesses > 0) == (kernels.mode == "checked")


def test_one_array_for_two_parameters_is_one_buffer(kernels):
    x = np.arange(40, dtype=np.float32)
    kernels.scale(x, x, 40, 2.0)
    np.testing.assert_array_equal(x, 2 * np.arange(40))


def test_all_kinds_of_scalars(kernels):
    out = np.zeros(1)
    kernels.many(out, 0.5, 0.25, -(2**40), 200, True, -1, 2, 3, 4.5, 5.125, 6, None)
    assert out[0] == 0.5 + 0.25 - 2**40 + 200 + 1 - 1 + 2 + 3 + 4.5 + 5.125 + 6 + 1000
    with pytest.raises(OverflowError):
        kernels.many(out, 0.5, 0.25, 2**40, 300, True, -1, 2, 3, 4.5, 5.125, 6, None)


@pytest.mark.parametrize(("index", "text"), [(8, "write.* 'y'"), (-1, "write.* 'y'"), (100, "write.* 'y'")])
def test_writes_beside_an_array(kernels, index, text):
    y = np.zeros(8, np.float32)
    with pytest.raises(KernelError, match=f"OUT OF BOUNDS {text}"):
        kernels.write_at(y, index)
    assert not y.any()


def test_writes_to_const_are_refused(kernels):
    with pytest.raises(KernelError, match="WRITE to read-only 'x'"):
        kernels.write_to_const(np.zeros(8, np.float32))


def test_nothing_comes_back_after_a_fault(kernels):
    x, y = np.ones(33, np.float32), np.zeros(32, np.float32)
    with pytest.raises(KernelError, match="OUT OF BOUNDS"):
        kernels.scale(x, y, 33, 1.0)
    assert not y.any()


def test_alignment(kernels):
    x, y = np.arange(8, dtype=np.float32), np.zeros(8, np.float32)
    kernels.copy_vectors(x, y)
    np.testing.assert_array_equal(x, y)
    with pytest.raises(KernelError, match="MISALIGNED"):
        kernels.copy_vectors(Misaligned(x), y)
    kernels.scale(Misaligned(x), Misaligned(y, 3), 8, 1.0)


def test_uninitialised_memory(kernels):
    x, y = np.ones(8, np.float32), np.ones(8, np.float32)
    if kernels.mode == "plain":
        kernels.scale(Uninitialised(x), y, 8, 1.0)
        assert np.isnan(y).all()
    else:
        with pytest.raises(KernelError, match="UNINITIALISED read of 'x', byte 0: no kernel has written it"):
            kernels.scale(Uninitialised(x), y, 8, 1.0)


def test_memset(kernels):
    y = np.ones(8, np.float32)
    kernels.clear(y, 16)
    assert y.tolist() == [0] * 4 + [1] * 4
    with pytest.raises(KernelError, match="clear: cudaMemset of 36 bytes outside"):
        kernels.clear(y, 36)


def test_the_device_is_what_the_test_says():
    kernels = Kernels(SOURCE, "checked", device=Device(multiprocessors=7, compute_capability=75))
    count, major = np.zeros(1, np.int32), np.zeros(1, np.int32)
    kernels.device_figures(count, major)
    assert (count[0], major[0]) == (7, 7)

"""Register layouts against CUTLASS's tables, tf32 rounding.

The layouts are those of the executor's tensor-core instructions. Kernel and executor could share one misreading of the
PTX manual; CUTLASS's tables run on GPUs every day.
"""

from __future__ import annotations

from pathlib import Path

import cute_layouts
import numpy as np
import pytest
from gpu_executor import KernelError, Kernels

LANES = 32
# launcher: CuTe's name, M, N, K, 16-bit type of the operands or None
MMA = {
    "run_tf32": ("SM80_16x8x8_F32TF32TF32F32_TN", 16, 8, 8, None),
    "run_bf16": ("SM80_16x8x16_F32BF16BF16F32_TN", 16, 8, 16, "bfloat16"),
    "run_f16": ("SM80_16x8x16_F32F16F16F32_TN", 16, 8, 16, "float16"),
    "run_f64": ("SM80_8x8x4_F64F64F64F64_TN", 8, 8, 4, None),
}

needs_cutlass = pytest.mark.skipif(
    cute_layouts.headers() is None, reason="CUTLASS's headers are not installed (pip install nvidia-cutlass)"
)


@pytest.fixture(scope="module", params=["plain", "checked"])
def kernels(request) -> Kernels:
    return Kernels(Path(__file__).parent / "instructions.cu", request.param)


def fragments(matrix: np.ndarray, layout: cute_layouts.Layout) -> np.ndarray:
    """(lanes, values): each lane's share of a matrix, whose elements CuTe counts down the columns."""
    flat = matrix.ravel(order="F")
    return np.array([[flat[layout(lane, v)] for v in range(layout.values)] for lane in range(LANES)])


def registers(values: np.ndarray, kind: str | None) -> np.ndarray:
    """Operands as the instruction takes them: two 16-bit values to a register, the first in the lower half."""
    if kind is None:
        return values.astype(np.float64) if values.dtype == np.float64 else values.view(np.uint32)
    bits = values.astype(np.float16).view(np.uint16) if kind == "float16" else values.view(np.uint32) >> 16
    return (bits[:, 0::2].astype(np.uint32)) | (bits[:, 1::2].astype(np.uint32) << 16)


@needs_cutlass
@pytest.mark.parametrize("launcher", MMA)
def test_mma_layout(kernels, launcher):
    struct, M, N, K, kind = MMA[launcher]
    layouts = cute_layouts.traits("mma_traits_sm80.hpp", struct)
    dtype = np.float64 if launcher == "run_f64" else np.float32
    draw = np.random.default_rng(0).integers
    a, b = (draw(-8, 9, shape).astype(dtype) for shape in ((M, K), (N, K)))  # small integers: exact in every type
    c = draw(-8, 9, (M, N)).astype(dtype)
    d = fragments(c, layouts["CLayout"])
    kernels.call(
        launcher,
        np.ascontiguousarray(registers(fragments(a, layouts["ALayout"]), kind)),
        np.ascontiguousarray(registers(fragments(b, layouts["BLayout"]), kind)),
        d,
    )
    np.testing.assert_array_equal(d, fragments(c + a @ b.T, layouts["CLayout"]))


@needs_cutlass
@pytest.mark.parametrize(("struct", "transposed"), [("SM75_U32x4_LDSM_N", 0), ("SM75_U16x8_LDSM_T", 1)])
def test_ldmatrix_layout(kernels, struct, transposed):
    layouts = cute_layouts.traits("copy_traits_sm75.hpp", struct)
    rows, out = np.arange(LANES * 8, dtype=np.uint16), np.zeros((LANES, 4), np.uint32)
    kernels.run_ldmatrix(rows, out, transposed)
    source, target = layouts["SrcLayout"], layouts["DstLayout"]
    # both map (lane, bit) to one common bit number; the source lane holds its row of 8 values of 16 bits
    element = {source(lane, 16 * e): rows[8 * lane + e] for lane in range(LANES) for e in range(8)}
    expected = [[element[target(lane, 16 * e)] for e in range(8)] for lane in range(LANES)]
    np.testing.assert_array_equal(out.view(np.uint16), expected)


def test_tf32_rounds_to_nearest_ties_away(kernels):
    step = 2.0**-10  # of tf32 at 1
    x = np.array([1, 1 + step, 1 + step / 2, 1 + step / 2 - 2.0**-23, -1 - step / 2, np.inf, -np.inf, 0], np.float32)
    bits = np.zeros(len(x), np.uint32)
    kernels.run_tf32_bits(x, bits, len(x))
    expected = [1, 1 + step, 1 + step, 1, -1 - step, np.inf, -np.inf, 0]
    np.testing.assert_array_equal(bits.view(np.float32), np.array(expected, np.float32))


def test_low_bits_of_a_tf32_operand_are_ignored(kernels):
    a, b, d = (
        np.full((LANES, 4), 0x3F801FFF, np.uint32),
        np.full((LANES, 2), 0x3F800000, np.uint32),
        np.zeros((LANES, 4), np.float32),
    )
    kernels.run_tf32(a, b, d)
    np.testing.assert_array_equal(d, np.full((LANES, 4), 8, np.float32))


def test_the_tables_are_read_as_cute_means_them():
    layout = cute_layouts._parse(
        "Layout<Shape <Shape < _4,_8>,Shape <_2, _2>>,\n Stride<Stride<_16,_1>,Stride<_8,_64>>>"
    )
    assert layout.values == 4
    assert [layout(0, v) for v in range(4)] == [0, 8, 64, 72]
    assert [layout(t, 0) for t in (1, 4, 31)] == [16, 1, 55]
    with pytest.raises(ValueError, match="not a layout of constants"):
        cute_layouts._parse("Layout<Shape<X, _2>>")


def test_a_warp_instruction_needs_the_whole_warp():
    kernels = Kernels(Path(__file__).parent / "instructions.cu", "checked")
    with pytest.raises(KernelError, match="block size"):
        kernels.run_tf32_bits(np.zeros(0, np.float32), np.zeros(0, np.uint32), 0)

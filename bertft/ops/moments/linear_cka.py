"""Linear CKA of all layers, as a similarity or a loss."""

from __future__ import annotations

from torch import Tensor

from bertft.errors import BertftError
from bertft.ops.moments.formulas import cka_from_moments
from bertft.ops.moments.layer_pairs import compare_layers
from bertft.ops.precision import check_precision
from bertft.ops.rows import check_matrix, check_nan


def linear_cka(
    x: Tensor,
    y: Tensor | None = None,
    *,
    debiased: bool = True,
    float64: bool = False,
    nan: str = "raise",
    precision: str = "float32",
) -> Tensor:
    """Return ``out[l, m]``, the linear CKA of x[l] and y[m].

    CKA is HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)) of the kernels X X' and Y Y'. It is 1 for spaces that are equal up
    to rotation, one scale and a shift. Value and gradient take n d^2 work and d^2 memory, never an N x N matrix. A
    loss: ``1 - linear_cka(hidden[None], base[None]).squeeze()``.

    Args:
        x: (L, N, D) float64, float32, bfloat16 or float16; any strides.
        y: (M, N, E), other vectors of the same N stimuli. None compares the layers of x with one another.
        debiased: use the unbiased estimator of HSIC (Song et al. 2012), which needs 4 stimuli and is near 0, sometimes
            below, for unrelated spaces. Otherwise use the plain one (Kornblith et al. 2019), which is in 0..1 and grows
            as N falls.
        float64: compute in float64 throughout, as for float64 input, instead of summing float32 products in float64.
        nan: raise `BadRow` for rows that are not finite, or propagate NaN.
        precision: ``float32``, ``fast`` or ``float64``, as ``float64`` (`bertft.ops.precision`): those of the sums of
            `cross_moments`. Errors: 1e-6; 5e-4 / sqrt N where tensor cores serve, else as float32; 1e-12.

    Returns:
        (L, M) float64; NaN or noise where all vectors of a layer are equal. Symmetric without y. Differentiable once.
    """
    check = check_nan(nan, op="linear_cka")
    precision = check_precision(precision, op="linear_cka", float64=float64)
    check_matrix(x, "(L, N, D)", (3,), op="linear_cka", name="x")
    if y is not None:
        check_matrix(y, "(M, N, E)", (3,), op="linear_cka", name="y")
        if y.shape[1] != x.shape[1] or y.device != x.device:
            raise BertftError(
                "linear_cka: x and y must hold the same stimuli on one device, "
                f"found {x.shape[1]} on {x.device} and {y.shape[1]} on {y.device}"
            )
    if debiased and x.shape[1] < 4:
        raise BertftError(f"linear_cka: debiased needs at least 4 stimuli, found {x.shape[1]}; or debiased=False")
    return compare_layers(
        x,
        y,
        ("dot", "dot"),
        lambda moments, *_: cka_from_moments(moments, debiased=debiased),
        op="linear_cka",
        precision=precision,
        check=check,
    )

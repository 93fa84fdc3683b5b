"""Linear centred kernel alignment of all layers of two models: a similarity, or a loss."""

from __future__ import annotations

from torch import Tensor

from bertft.errors import BertftError
from bertft.ops.moments.formulas import cka_from_moments
from bertft.ops.moments.layer_pairs import compare_layers
from bertft.ops.rows import check_matrix, check_nan


def linear_cka(
    x: Tensor, y: Tensor | None = None, *, debiased: bool = True, float64: bool = False, nan: str = "raise"
) -> Tensor:
    """``out[l, m]`` = linear CKA of x[l] and y[m]: HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)) of the kernels X X', Y Y'.

    1 for spaces that are equal up to rotation, one scale and a shift. In n d^2 work and d^2 memory, forward and
    gradient: no N x N matrix. As a loss, ``1 - linear_cka(hidden[None], base[None]).squeeze()``.

    Args:
        x: (L, N, D) float64, float32, bfloat16 or float16; any strides.
        y: (M, N, E), other vectors of the same N stimuli; None compares the layers of x with one another.
        debiased: the unbiased estimator of HSIC (Song et al. 2012), near 0 for unrelated spaces and sometimes below,
            at least 4 stimuli; else the plain one (Kornblith et al. 2019), within 0..1, which grows as N falls.
        float64: compute in float64 throughout, as for float64 input, instead of float32 products summed in float64.
        nan: raise for rows that are not finite, or propagate NaN.

    Returns:
        (L, M) float64; NaN or noise where all vectors of a layer are equal. Without y symmetric. Differentiable once.
    """
    check = check_nan(nan, op="linear_cka")
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
        float64=float64,
        check=check,
    )

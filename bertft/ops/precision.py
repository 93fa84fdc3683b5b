"""Precisions of matrix products.

===========  ===========================================================================================================
precision    products
===========  ===========================================================================================================
``float32``  to float32's accuracy; the default. On GPUs with fast tensor cores from rows split into two float16 parts
             (docs/gpu.md), elsewhere in float32; an op that sums more than float32 holds does so in float64
``fast``     of rows rounded to float16, summed in float32, on GPUs with fast tensor cores: a third of the work. On the
             CPU, and wherever such cores do not serve (``BERTFT_CORE``, small inputs, manhattan), it equals ``float32``
``float64``  in float64 everywhere, as for float64 input
===========  ===========================================================================================================

The errors that ops state are those on vectors of encoders with a large common mean, of 768 dimensions, without or with
dimensions that vary 30 and 60 times as much as others: two times what the model of the tensor cores gives, or more.
"""

from __future__ import annotations

from typing import Literal

from bertft.errors import BertftError

Precision = Literal["float32", "fast", "float64"]
PRECISIONS: tuple[Precision, ...] = ("float32", "fast", "float64")


def check_precision(precision: str, *, op: str, float64: bool = False) -> Precision:
    """Return ``precision``, or float64 if the older argument ``float64`` asks for it.

    Raises BertftError for an unknown precision, and for ``fast`` together with ``float64``.
    """
    if precision not in PRECISIONS:
        raise BertftError(f"{op}: precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    if float64 and precision == "fast":
        raise BertftError(f"{op}: float64=True contradicts precision='fast'")
    return "float64" if float64 else precision


def rsa_error(stimuli: int, *, linear: bool = False) -> float:
    """Return the error of a correlation of dissimilarity matrices of n ``stimuli`` in precision ``fast``.

    It is 3e-3 / n over pairs: the model of the tensor cores gives 3e-5 at 50 stimuli, 1e-5 at 200 and 2e-7 at 2,000,
    because the roundings of entries average out over n (n - 1) / 2 of them. From sums in linear time it is
    5e-4 / sqrt(n): 1e-5 at 200, 2e-6 at 2,000 and 3e-6 at 8,000 (debiased CKA likewise).
    """
    n = max(1, stimuli)
    return 5e-4 / n**0.5 if linear else 3e-3 / n

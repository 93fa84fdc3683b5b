"""Bad rows: fields reported, and the sentence made from them.

Kernels and the reference report the same fields.
"""

from __future__ import annotations

import math

import pytest
import torch

from bertft.errors import BadRow
from bertft.ops import cross_moments, linear_cka, pairwise_distance, rdm_correlation
from bertft.ops.native import cpu, dispatch
from bertft.ops.rows import raising_bad_row


@pytest.fixture(autouse=True, params=["kernels", "reference"])
def kernels(request, monkeypatch):
    assert cpu.load(), cpu.status()["reason"]
    if request.param == "reference":
        monkeypatch.setattr(dispatch, "serves", lambda tensor: False)


def spaces():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 3, 6, 4, generator=generator)
    y[1, 3] = 0
    return x, y


@pytest.mark.parametrize(
    ("call", "op", "layer"),
    [
        (lambda x, y: pairwise_distance(x, y, metric="cosine"), "pairwise_distance", 1),
        (lambda x, y: rdm_correlation(x, y, route="linear"), "rdm_correlation", 1),
        (lambda x, y: rdm_correlation(x, y, route="tiles"), "rdm_correlation", 1),
        (
            lambda x, y: cross_moments(x[1], y[1], mean_x=torch.zeros(4), mean_y=torch.zeros(4)),
            "cross_moments",
            None,
        ),
    ],
)
def test_a_bad_row_has_fields(call, op, layer):
    with pytest.raises(BadRow) as caught:
        call(*spaces())
    bad = caught.value
    assert (bad.op, bad.side, bad.row, bad.layer, bad.reason) == (op, "y", 3, layer, "no_norm")


def test_a_row_that_is_not_finite_has_that_reason():
    x, y = spaces()
    x[2, 5, 0] = math.nan
    with pytest.raises(BadRow) as caught:
        linear_cka(x, y)
    bad = caught.value
    assert (bad.op, bad.side, bad.row, bad.layer, bad.reason) == ("linear_cka", "x", 5, 2, "not_finite")
    assert str(bad) == "linear_cka: row 5 of x in layer 2 holds NaN or infinity"


def test_other_errors_of_a_kernel_pass_through():
    def kernel():
        raise RuntimeError("a parallel loop failed")

    with pytest.raises(RuntimeError, match=r"^a parallel loop failed$"):
        raising_bad_row(kernel)

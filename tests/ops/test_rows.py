"""Bad rows: fields reported, and the sentence made from them.

Kernels and the reference report the same fields.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bertft.errors import BadRow
from bertft.ops import cross_moments, linear_cka, pairwise_distance, rdm_correlation, reference
from bertft.ops.metrics import METRICS
from bertft.ops.native import cpu, dispatch
from bertft.ops.rows import as_tensor, check_rows, raising_bad_row


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


@pytest.mark.parametrize("factor", [1e-150, 1.0, 1e150])
def test_a_row_is_constant_to_1e_13_of_its_norm(factor):
    rows = torch.ones(2, 100, dtype=torch.float64)  # of norm 10
    rows[1, 0] += 1.1e-12
    check_rows(rows[1:] * factor, "correlation", op="test")
    check_rows(rows * factor, "cosine", op="test")
    rows[1, 0] = 1 + 8e-13
    with pytest.raises(BadRow) as caught:
        check_rows(rows[1:] * factor, "correlation", op="test")
    assert (caught.value.row, caught.value.layer, caught.value.reason) == (0, None, "no_norm")


def test_other_errors_of_a_kernel_pass_through():
    def kernel():
        raise RuntimeError("a parallel loop failed")

    with pytest.raises(RuntimeError, match=r"^a parallel loop failed$"):
        raising_bad_row(kernel)


@pytest.mark.parametrize("metric", METRICS)
def test_distances_of_pairs_are_those_of_the_matrix(metric):
    x = spaces()[0][0].double()
    i, j = torch.tensor([0, 3, 5, 5]), torch.tensor([1, 2, 0, 5])
    torch.testing.assert_close(
        reference.paired_distance(x, i, j, metric), reference.pairwise_distance(x, x, metric=metric)[i, j]
    )


def test_condensed_matrices_keep_their_batches():
    matrices = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    assert torch.equal(reference.condense(matrices)[1, 2], matrices[1, 2][[0, 0, 0, 1, 1, 2], [1, 2, 3, 2, 3, 3]])


@pytest.mark.parametrize("change", ["order of bytes", "negative strides", "read only", "odd strides"])
def test_arrays_that_torch_cannot_share_are_copied(change):
    array = np.arange(12, dtype="f4").reshape(3, 4)
    given = {
        "order of bytes": array.astype(">f4"),
        "negative strides": array[::-1, ::-1],
        "read only": array.copy(),
        "odd strides": np.zeros(3, np.dtype({"names": ["a"], "formats": ["4f4"], "offsets": [1], "itemsize": 18}))["a"],
    }[change]
    if change == "read only":
        given.flags.writeable = False
    if change == "odd strides":
        given[:] = array
    assert np.array_equal(as_tensor(given).numpy(), given)

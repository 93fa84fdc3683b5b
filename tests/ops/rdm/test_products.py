"""Sums over all pairs by products of blocks of rows.

As on a GPU, against float64.
"""

from __future__ import annotations

import pytest
import torch

from bertft.errors import BertftError
from bertft.ops import reference
from bertft.ops.metrics import METRICS
from bertft.ops.rdm import products as rdm_products

PRODUCTS = [metric for metric in METRICS if metric != "manhattan"]


def draw(*shape, seed=0):
    """Return rows with a large common mean, like those of encoders."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=random) + 3 * torch.randn(*shape[:1], 1, shape[-1], generator=random)


def central(sums, products, pairs):
    """Return covariances, which do not depend on the shift."""
    return products / pairs - torch.outer(sums, sums) / pairs**2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1 << 29, 3000])
@pytest.mark.parametrize("metric", PRODUCTS)
def test_sums_are_those_of_float64(metric, size, dtype):
    n = 83
    x, y = draw(2, n, 21), draw(3, n, 17, seed=1)
    y[:2, :, :17] += x[:, :, :17]
    for other, metric_y in ((None, metric), (y, metric), (y, "euclidean")):
        wide = None if other is None else other.double()
        exact = reference.rdm_moments(x.double(), wide, metric, metric_y)
        found = rdm_products.rdm_moments(x, other, metric, metric_y, dtype, check=True, size=size)
        pairs = n * (n - 1) // 2
        wanted, got = central(*exact[:2], pairs), central(*found[:2], pairs)
        scale = wanted.diagonal().sqrt()
        tolerance = 1e-6 if dtype == torch.float32 else 1e-12
        assert float(((got - wanted) / torch.outer(scale, scale)).abs().max()) < tolerance
        mean = [sums / pairs + shifts for sums, _, shifts in (exact, found)]
        torch.testing.assert_close(mean[1], mean[0], rtol=tolerance, atol=0)
        # The shift must be near the mean, or cancellation would cost float32 its digits.
        assert float((found[0] / pairs).abs().div(scale).max()) < (1.0 if "euclidean" in (metric, metric_y) else 1e-4)


def test_few_and_no_rows():
    for n in (0, 1, 2):
        sums, products, _ = rdm_products.rdm_moments(draw(2, n, 5), None, "dot", "dot", torch.float64, check=True)
        assert sums.shape == (2,) and products.shape == (2, 2)
        assert n == 2 or not products.any()


@pytest.mark.parametrize(
    ("metric", "change", "sentence"),
    [
        ("cosine", lambda x: x[1, 4].zero_(), "row 4 of y in layer 1 has norm 0"),
        ("cosine", lambda x: x[1, 4].fill_(float("nan")), "row 4 of y in layer 1 holds NaN or infinity"),
        ("correlation", lambda x: x[0, 2].fill_(0.3), "row 2 of y in layer 0 has norm 0"),
        ("dot", lambda x: x[1, 0, 3].fill_(float("nan")), "row 0 of y in layer 1 holds NaN or infinity"),
    ],
)
def test_bad_rows_are_named(metric, change, sentence):
    x, y = draw(2, 9, 5), draw(2, 9, 5)
    change(y)
    with pytest.raises(BertftError, match=sentence):
        rdm_products.rdm_moments(x, y, metric, metric, torch.float32, check=True)


@pytest.mark.parametrize("metric", ["dot", "cosine", "correlation"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, 1.0])
def test_rows_that_are_all_bad_are_named_too(metric, value):
    """Rows of zeros have no norm under cosine, and constant ones none under correlation."""
    x = torch.full((1, 3, 2), value)
    good = (value == 1.0 and metric == "cosine") or (metric == "dot" and value in (0.0, 1.0))
    for spaces in ((x, None), (torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(0)), x)):
        ask = lambda spaces=spaces: rdm_products.rdm_moments(*spaces, metric, metric, torch.float32, check=True)
        if good:
            ask()
        else:
            with pytest.raises(BertftError, match=f"row 0 of {'x' if spaces[1] is None else 'y'}"):
                ask()


def test_rows_far_from_their_mean_direction_are_not_refused():
    x = draw(2, 12, 8) * 1e-3 + 7  # nearly constant, but with a direction under correlation
    exact = reference.rdm_moments(x.double(), None, "correlation", "correlation")
    found = rdm_products.rdm_moments(x, None, "correlation", "correlation", torch.float32, check=True)
    wanted, got = (central(*sums[:2], 66) for sums in (exact, found))
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=0)


@pytest.mark.parametrize("metric", ["cosine", "correlation", "euclidean"])
def test_nearly_parallel_rows_keep_their_digits(metric):
    """With a mean cosine of 0.99, rows differ in the last digits of float32."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, 300, 256, generator=random) + 10 * torch.randn(1, 1, 256, generator=random)
    x[1] += x[0]
    exact = reference.rdm_correlation(x.double(), metric=metric)
    sums, products, _ = rdm_products.rdm_moments(x, None, metric, metric, torch.float32, check=True)
    covariance = central(sums, products, 300 * 299 // 2)
    found = covariance / torch.outer(covariance.diagonal().sqrt(), covariance.diagonal().sqrt())
    torch.testing.assert_close(found, exact, rtol=0, atol=2e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_rows_of_other_types(dtype):
    x = draw(2, 40, 9).to(dtype)
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    exact = reference.rdm_moments(x.double(), None, "correlation", "correlation")
    found = rdm_products.rdm_moments(x, None, "correlation", "correlation", kind, check=True)
    wanted, got = (central(*sums[:2], 780) for sums in (exact, found))
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=0)

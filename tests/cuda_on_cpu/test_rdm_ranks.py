"""Spearman and rho_a of csrc/cuda/rdm_correlation.cu.

The kernel is executed on the CPU and ranks by bins.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accuracy import MODES, ORDERS
from binned_ranks import (
    binned_ranks,
    binning_deviation,
    border_distance,
    divisions,
    positions,
    product_bound,
    rounding_bound,
)
from gpu_executor import Device, Kernels
from rdm import correlate, exact_torch, layers, plain_torch

from bertft.ops import reference

COMPARISONS = ("spearman", "rho_a")
BINS = (65, 4096, 1 << 16)
RANK_ROUNDING = 2.0**-25 * 12**0.5  # ranks in units of P, within 1/2 and rounded twice, beside their deviation 12^-1/2


def entries(x: np.ndarray, metric: str) -> list[np.ndarray]:
    """Return the values that the kernel ranks in float64: distances, or similarities if the metric is 1 minus one."""
    matrices = reference.pairwise_distance(torch.tensor(x, dtype=torch.float64), metric=metric, condensed=True).numpy()
    if (x == np.round(x)).all() and metric != "euclidean":
        matrices = np.round(matrices)  # of integers: equal ones are equal
    return list(matrices if metric in ("dot", "manhattan", "euclidean") else -matrices)


def of_ranks(a: np.ndarray, b: np.ndarray, compare: str) -> float:
    """Return the correlation of ranks as they are."""
    how = "pearson" if compare == "spearman" else "rho_a of ranks"
    return float(reference.compare_matrices(torch.tensor(a), torch.tensor(b), how))


def compare_with_formula(kernels, x, dtype, metric, compare, bins, **options):
    """Compare the kernel's correlations of layers with themselves with those of `binned_ranks`."""
    out, _ = correlate(kernels, x, None, dtype, metric, compare, bins=bins, **options)
    kind, values = np.dtype(dtype).type, entries(x, metric)
    ranks, bound = [binned_ranks(v, bins) for v in values], [rounding_bound(v, bins, kind) for v in values]
    for v in values:  # else rounding may put a value into the next bin, and neither side is wrong
        distance = 3 * np.finfo(kind).eps * divisions(bins) if kind is np.float32 else 1e-9
        assert border_distance(v, bins) > distance
    for i in range(len(x)):
        for j in range(len(x)):
            expected, allowed = of_ranks(ranks[i], ranks[j], compare), bound[i] + bound[j] + product_bound(kind)
            assert abs(out[i, j] - expected) <= allowed, (i, j, out[i, j] - expected, allowed)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ORDERS)
def test_double_follows_the_formula(mode, order):
    (x, _), _ = layers((2, None, 70, 12, 12), "float64")
    for metric, compare in (("cosine", "spearman"), ("euclidean", "rho_a"), ("manhattan", "spearman")):
        for bins in BINS:
            compare_with_formula(Kernels("rdm_correlation.cu", mode), x, "float64", metric, compare, bins, order=order)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("path", ["plain", "split"])
def test_float_follows_the_formula(mode, order, path):
    """Of integers, so that values are exact in float32 (the mean is one of 64 rows) and only ranks are rounded.

    The seed is the first that leaves no value on the border of a bin.
    """
    x = np.random.default_rng(222).integers(0, 8, (2, 70, 7)).astype(np.float32)
    for metric, compare in (("dot", "spearman"), ("sqeuclidean", "rho_a"), ("manhattan", "spearman")):
        if (metric, path) == ("manhattan", "split"):
            continue
        for bins in BINS:
            kernels = Kernels("rdm_correlation.cu", mode)
            compare_with_formula(kernels, x, "float32", metric, compare, bins, order=order, path=path)


def compare_with_exact(kernels, case, metric, metric_y, compare, bins, **options):
    """Ranks by bins against exact ranks of exact values.

    Allowed are five standard deviations of what binning adds (one draw in two million is further off), twice the error
    of plain PyTorch's float32 values, and the roundings of ranks and products.
    """
    (x, exact_x), (y, exact_y) = layers(case)
    out, _ = correlate(kernels, x, y, "float32", metric, compare, metric_y, bins=bins, **options)
    exact = exact_torch(exact_x, exact_y, metric, compare, metric_y)
    plain = plain_torch(exact_x, exact_y, torch.float32, metric, compare, metric_y)
    deviations = [
        np.array([binning_deviation(v, bins) for v in entries(side, name)])
        for side, name in ((exact_x, metric), (exact_y, metric_y))
    ]
    rounding = product_bound(np.float32) + 2 * RANK_ROUNDING
    allowed = 5 * np.hypot(deviations[0][:, None], deviations[1]) + 2 * np.abs(plain - exact).max() + rounding
    assert (np.abs(out - exact) <= allowed).all(), (np.abs(out - exact), allowed)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", ORDERS)
def test_float_against_exact_ranks(mode, order):
    kernels = Kernels("rdm_correlation.cu", mode)
    for compare in COMPARISONS:
        for bins in BINS:
            compare_with_exact(kernels, (2, 1, 70, 12, 9), "cosine", "cosine", compare, bins, order=order)
        compare_with_exact(kernels, (2, 1, 70, 12, 9), "cosine", "dot", compare, BINS[-1], order=order)


@pytest.mark.slow
def test_400_stimuli():
    """Where 79,800 pairs crowd 60,480 bins."""
    kernels = Kernels("rdm_correlation.cu", "plain")
    compare_with_exact(kernels, (1, 2, 400, 16, 16), "cosine", "cosine", "spearman", BINS[-1])


def test_ties_get_their_mid_rank():
    """Of few integers; the mean of 40 rows is no float32, so that equal values come out unequal by a rounding."""
    x = np.random.default_rng(5).integers(0, 3, (2, 40, 2)).astype(np.float32)
    for metric in ("sqeuclidean", "manhattan", "dot"):
        out, _ = correlate(Kernels("rdm_correlation.cu", "checked"), x, None, "float32", metric, "spearman")
        exact = exact_torch(x.astype(np.float64), None, metric, "spearman")
        assert np.abs(out - exact).max() <= product_bound(np.float32) + 2 * RANK_ROUNDING


def test_layers_that_do_not_fit_are_ranked_in_groups():
    """However many layers are compared, and bins counted, at once: ranks are the same, the order of products is not."""
    ample = Kernels("rdm_correlation.cu", "checked")
    scarce = Kernels("rdm_correlation.cu", "checked", device=Device(shared_limit=19 << 10))
    for case in ((5, None, 70, 8, 8), (4, 3, 20, 9, 5)):
        (x, _), (y, _) = layers(case)
        whole, groups = (
            correlate(kernels, x, y, "float32", "cosine", "spearman", bins=4096)[0] for kernels in (ample, scarce)
        )
        assert np.abs(groups - whole).max() <= 2 * product_bound(np.float32)


@pytest.mark.parametrize("path", ["plain", pytest.param("split", marks=pytest.mark.slow)])
def test_tiles_that_do_not_fit_are_ranked_in_groups(path):
    """Entries are then made three times: for the range, the histogram and the ranks."""
    kernels = Kernels("rdm_correlation.cu", "plain")
    (x, _), (y, _) = layers((2, 1, 300, 40, 33))
    whole, _ = correlate(kernels, x, y, "float32", "cosine", "spearman", bins=4096, path=path)
    groups, _ = correlate(
        kernels, x, y, "float32", "cosine", "spearman", bins=4096, path=path, entries_bytes=4 * 3 << 16
    )
    assert np.abs(groups - whole).max() <= 2 * product_bound(np.float32)


def test_a_crowded_bin_is_counted_exactly():
    """Fractions that sum to more than 4,096 do not fit into a bin's word of 32 bits: carries are counted beside it."""
    x = np.random.default_rng(9).standard_normal((2, 150, 4))
    x[:, 0] += 60  # one far row stretches the range: all others fall into few bins
    for v in entries(x, "sqeuclidean"):
        at = positions(v, 65)
        assert np.bincount(at.astype(int), at % 1).max() > 2**12
    compare_with_formula(Kernels("rdm_correlation.cu", "checked"), x, "float64", "sqeuclidean", "spearman", 65)

"""Small faults in the kernels on tensor cores.

The tests' own criteria must notice each of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from accuracy import METRICS
from faults import faulty_sources, with_fault
from gpu_build import CSRC
from gpu_executor import KernelError, Kernels, Uninitialised
from rdm import correlate, exact_torch, layers
from split import exact_distances, split, sums
from test_counters import FAULTS as OF_REQUESTS
from test_split_gradient import FAULTS as OF_GRADIENTS
from test_split_matrix import FAULTS as OF_MATRICES

# what is wrong: file, lines as they are, lines with the fault, what notices it (a scenario below)
FAULTS = {
    "no barrier before a stage is read": (
        "split_tile.cuh",
        "    __syncthreads();  // everybody's copies of this stage are there",
        "    // everybody's copies of this stage are there",
        "distances",
    ),
    "a stage is not waited for": (
        "split_tile.cuh", "__pipeline_wait_prior(STAGES - 2)", "__pipeline_wait_prior(STAGES - 1)", "distances"
    ),
    "no barrier before sums replace the ring": (
        "split_tile.cuh", "  __syncthreads();  // the last stage has been read\n", "", "distances"
    ),
    "pieces added instead of exchanged": (
        "split_tile.cuh", "stage + (b ^ high)", "stage + (b + high)", "distances"
    ),
    "high parts for low ones": ("split_tile.cuh", "low = (4 + 2 * k) << 3", "low = 2 * k << 3", "distances"),
    "sums stay in the core": (
        "split_tile.cuh",
        (
            "bertft_mma_m16n8k16_f16_first(inside[m], a_lo[m], b_hi);",
            "          for (int e = 0; e < 4; ++e) v[m][2 * pair + side][e] += inside[m][e];",
        ),
        (
            "{ for (int e = 0; e < 4; ++e) inside[m][e] = v[m][2 * pair + side][e];"
            " bertft_mma_m16n8k16_f16(inside[m], a_lo[m], b_hi); }",
            "          for (int e = 0; e < 4; ++e) v[m][2 * pair + side][e] = inside[m][e];",
        ),
        "accuracy",
    ),
    "the mirror image is not written": (
        "split_gram.cu", "if (r < rows && i < j) to[j * s.m + i] = finish(v, form);", "", "distances"
    ),
    "a column too many": (
        "split_gram.cu", "at_most(s.m - j0, kColumns<W>)", "at_most(s.m - j0 + 1, kColumns<W>)", "distances"
    ),
    "near rows are not listed": ("split_gram.cu", "v >= kNear * both ? v : -1.f", "v", "near rows"),
    "the list has no end": ("split_gram.cu", "ask && at < near.capacity", "ask", "crowded list"),
    "the power of two of another row": (
        "split_gram.cu", "form.alpha * scale_i[r], right", "form.alpha * scale_i[0], right", "distances"
    ),
    "the shift of another layer": (
        "rdm_entries.cuh", "shifted ? side.shift[layer] : 0.f", "shifted ? side.shift[0] : 0.f", "correlations"
    ),
    "layers of y from those of x": ("rdm_moments.cuh", "first_y + g.y0 + a - g.nx", "g.y0 + a - g.nx", "correlations"),
    "a slice is overwritten while it is read": (
        "rdm_moments.cuh", "    __syncthreads();  // and has been read\n", "", "correlations"
    ),
    "the first sums are kept at every group of tiles": ("rdm_moments.cuh", "anew ? 0 : mine[e]", "0", "groups"),
    "eight rows twice": ("split_moments.cu", "across<kBoth>(lane % 16,", "across<kBoth>(lane % 8,", "sums"),
    "a range of rows too long": (
        "split_moments.cu", "min(static_cast<long long>(kRange), padded", "min(kRange + 32ll, padded", "sums"
    ),
    "high parts of other columns": (
        "split_tile.cuh", "stage + (a ^ (2 * k << 3)) + m", "stage + (a ^ (k << 3)) + m", "fast distances"
    ),
    "only the last columns of high parts": (
        "split_tile.cuh", "          if (k == 0)\n", "          if (k < 3)\n", "fast distances"
    ),
    "rows of high parts twice": (
        "split_moments.cu", "kStep = 16 * kLines<kHigh>", "kStep = 8 * kLines<kHigh>", "fast sums"
    ),
    "the second half of a wide tile is its first": (
        "split_tile.cuh", "W == kWide && col + 1 < blocks ? col + 1 : col", "col", "wide distances"
    ),
    "half a wide tile goes to another group": (
        "rdm_entries.cuh", "bj == blocks || tile < 0 || tile >= to.count", "bj == blocks", "wide groups"
    ),
    "carries are lost": ("rdm_ranks.cuh", "1u + (carry << kCountBits)", "1u", "crowded bin"),
}  # fmt: skip


def distances(source, x, metric, capacity=64, parts=2):
    rows, (batch, n, d) = Kernels("split_rows.cu", "checked"), x.shape
    found, out = split(rows, x, metric, parts=parts), np.full((batch, n, n), np.nan, np.float32)
    lists = np.empty(batch, np.int32), np.empty((batch, capacity, 2), np.int32)
    Kernels(source, "checked").split_gram_launch(
        x, None, found.memory, None, found.mean_square, out, *map(Uninitialised, lists), capacity, 0,
        METRICS.index(metric), batch, n, n, d, 0, parts,
    )  # fmt: skip
    return out


def relative_error(source, x, metric="sqeuclidean", **options):
    exact = exact_distances(x.astype(np.float64), None, metric)
    error = np.abs(distances(source, x, metric, **options) - exact)
    return np.nan_to_num(error, nan=np.inf), exact


def rows(n=130, d=140):
    random = np.random.default_rng(0)
    return (random.standard_normal((1, n, d)) * 10.0 ** random.uniform(-1, 1, (n, 1)) + 3).astype(np.float32)


def notices_distances(source) -> bool:
    error, exact = relative_error(source, rows())
    return error.max() > 3e-7 * exact.max()


def notices_fast_distances(source) -> bool:
    error, exact = relative_error(source, rows(), parts=1)
    return error.max() > 1e-3 * exact.max()


def notices_fast_sums(source) -> bool:
    u = np.random.default_rng(0).standard_normal((200, 20)).astype(np.float32)
    exact = u.T.astype(np.float64) @ u
    return not np.abs(sums(Kernels(source, "plain"), u, parts=1)[0] - exact).max() <= 1e-3 * np.abs(exact).max()


def notices_accuracy(source) -> bool:
    """Of long rows in which two dimensions dominate (test_split_gram.py)."""
    x = np.random.default_rng(3).standard_normal((1, 130, 768)).astype(np.float32)
    x[..., 3], x[..., 500] = x[..., 3] * 30 + 40, x[..., 500] * 60 - 25
    error, exact = relative_error(source, x)
    return error.max() > 4e-7 * exact.max()


def notices_near_rows(source) -> bool:
    x = rows()
    x[0, 129] = x[0, 0] * (1 + 1e-4)
    error, exact = relative_error(source, x)
    return error[0, 0, 129] > 1e-5 * exact[0, 0, 129]


def notices_crowded_list(source) -> bool:
    distances(source, np.tile(rows()[:, :2], (1, 65, 1)), "sqeuclidean")
    return False


def off(source, case, compare, bound, metric="cosine", **options) -> bool:
    (x, exact_x), (y, exact_y) = layers(case)
    mode = options.pop("mode", "checked")
    out, _ = correlate(Kernels(source, mode), x, y, "float32", metric, compare, path="split", **options)
    return not np.abs(out - exact_torch(exact_x, exact_y, metric, compare)).max() <= bound


def notices_correlations(source) -> bool:
    return off(source, (2, 3, 40, 20, 33), "cosine", 1e-6, metric="dot")


def notices_groups(source) -> bool:
    return off(source, (1, 1, 150, 20, 20), "pearson", 1e-6, mode="plain", entries_bytes=2 << 16)


def notices_wide_distances(source) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BERTFT_TILE", "wide")
        return notices_distances(source)


def notices_wide_groups(source) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BERTFT_TILE", "wide")
        return off(source, (1, 1, 150, 20, 20), "pearson", 1e-6, entries_bytes=2 << 16)


def notices_crowded_bin(source) -> bool:
    x = np.random.default_rng(9).standard_normal((2, 150, 4)).astype(np.float32)
    x[:, 0] += 60
    whole = correlate(Kernels("rdm_correlation.cu", "plain"), x, None, "float32", "sqeuclidean", "spearman", bins=65)
    found = correlate(Kernels(source, "plain"), x, None, "float32", "sqeuclidean", "spearman", bins=65)
    return not np.array_equal(whole[0], found[0])


def notices_sums(source) -> bool:
    u = np.random.default_rng(0).standard_normal((1100, 20)).astype(np.float32)
    found, _ = sums(Kernels(source, "plain"), u)
    exact = u.T.astype(np.float64) @ u
    return not np.abs(found - exact).max() <= 1e-6 * np.abs(exact).max()


def source_of(scenario: str) -> str:
    if scenario in ("correlations", "groups", "wide groups", "crowded bin"):
        return "rdm_correlation.cu"
    return "split_moments.cu" if scenario in ("sums", "fast sums") else "split_gram.cu"


def noticed(source: Path, scenario: str) -> bool:
    try:
        return globals()[f"notices_{scenario.replace(' ', '_')}"](source)
    except KernelError:
        return True


@pytest.mark.slow
@pytest.mark.parametrize("scenario", sorted({fault[3] for fault in FAULTS.values()}))
def test_nothing_is_noticed_without_a_fault(scenario):
    assert not noticed(CSRC / "cuda" / source_of(scenario), scenario)


@pytest.mark.parametrize(
    "fault", [fault for faults in (FAULTS, OF_GRADIENTS, OF_MATRICES, OF_REQUESTS) for fault in faults.values()]
)
def test_faults_have_their_place(fault):
    assert with_fault(*fault[:3])


@pytest.mark.planted
@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_noticed(name, tmp_path):
    *fault, scenario = FAULTS[name]
    assert noticed(faulty_sources(tmp_path, *fault) / source_of(scenario), scenario)

"""Routes to compare dissimilarity matrices, chosen by cost.

===========  ============================================================================================
route        what it does
===========  ============================================================================================
``linear``   n d^2 work by sums over stimuli; dot, cosine, correlation and sqeuclidean under pearson and
             cosine; differentiable
``tiles``    n^2 d work with one tile of a matrix in memory; everything but kendall. Ranks are those of
             bins, with the error that `Route` states. Without a kernel ranks are exact, with two matrices
             in memory that are recomputed for each pair of layers
``exact``    exact ranks with all L + M matrices in memory, at 8 bytes per rank (13 layers of 5,000
             stimuli: 1.3 GB, of 20,000: 21 GB), and several times one matrix while it sorts
``sampled``  kendall on a sample of pairs of stimuli, or on all pairs where there are no more
===========  ============================================================================================
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops import parts, reference, tensor_cores
from bertft.ops.metrics import COMPARISONS, LINEAR, METRICS, RANKS
from bertft.ops.moments.formulas import PairSums, compare_sums, rsa_from_moments
from bertft.ops.moments.layer_pairs import compare_layers
from bertft.ops.moments.layout import Moments
from bertft.ops.native import cuda, dispatch
from bertft.ops.pairwise_distance import pairwise_distance
from bertft.ops.precision import rsa_error
from bertft.ops.rdm import products as rdm_products
from bertft.ops.rows import check_rows, raising_bad_row

ROUTES = ("linear", "tiles", "exact", "sampled")
EXACT_RANKS = 1024  # up to here, all pairs of a layer are half a million numbers, which sort fast


class Route(NamedTuple):
    """Route of a computed comparison, with its reason, cost and error."""

    name: str  # linear, tiles, exact or sampled
    reason: str  # in words
    linear: float  # floating-point operations of that route, infinite if it is impossible
    tiles: float
    dtype: torch.dtype  # of rows and products; sums are float64
    error: float | None = None  # typical, not worst case, of rank binning or of fast products; sampled: standard error
    bound: float | None = None  # worst-case error of rank binning
    pairs: int | None = None  # sampled: pairs of stimuli used
    fast: bool = False  # products of rows rounded to float16


def costs(x: Tensor, y: Tensor | None) -> tuple[float, float]:
    """Return the floating-point operations of the linear-time route and of the tiles."""
    (L, n, d), (M, _, e) = x.shape, (x if y is None else y).shape
    if y is None:
        return float(L * L) * n * d * d, float(n) * n * (L * d + L * L)
    return float(n) * (L * d * d + M * e * e + 2.0 * L * M * d * e), float(n) * n * (L * d + M * e + L * M * 2)


def choose_route(
    x: Tensor, y: Tensor | None, metrics: tuple[str, str], compare: str, wanted: str, precision: str
) -> Route:
    """Return the cheapest possible route, or the ``wanted`` one; raise BertftError if that is impossible."""
    moments = compare in ("pearson", "cosine")
    can = {
        "linear": moments and all(metric in LINEAR for metric in metrics),
        "tiles": compare != "kendall",
        "exact": compare != "kendall",
        "sampled": compare == "kendall",
    }
    linear, tiles = costs(x, y)
    linear = linear if can["linear"] else float("inf")
    tiles = tiles if can["tiles"] else float("inf")
    wide = precision == "float64" or torch.float64 in (x.dtype, x.dtype if y is None else y.dtype)
    dtype = torch.float64 if wide else torch.float32
    grad = torch.is_grad_enabled() and (x.requires_grad or (y is not None and y.requires_grad))
    if wanted != "auto":
        if not can[wanted]:
            raise BertftError(
                f"rdm_correlation: route={wanted!r} does not support {compare} of {' and '.join(metrics)}"
            )
        name, reason = wanted, "as asked"
    elif compare == "kendall":
        name, reason = "sampled", "pairs of pairs are too many to enumerate"
    elif compare in RANKS and x.shape[1] <= EXACT_RANKS:
        name, reason = "exact", f"no more than {EXACT_RANKS} stimuli: exact ranks cost little"
    elif grad or linear <= tiles:
        name = "linear"
        reason = "a gradient is needed" if grad else f"{linear:.2g} operations against {tiles:.2g} by tiles"
    else:
        name = "tiles"
        reason = f"{tiles:.2g} operations against {linear:.2g} in linear time" if can["linear"] else "no linear form"
    if grad and (name != "linear" or not can["linear"]):
        raise BertftError(
            f"rdm_correlation: {compare} of {' and '.join(sorted(set(metrics)))} by route {name!r} has no gradient; "
            "only pearson and cosine of dot, cosine, correlation or sqeuclidean by route 'linear' do"
        )
    fast = precision == "fast" and not wide and name in ("linear", "tiles") and _on_cores(x, y, metrics, name)
    return Route(
        name, reason, linear, tiles, dtype, rsa_error(x.shape[1], linear=name == "linear") if fast else None, fast=fast
    )


def run_route(
    route: Route,
    x: Tensor,
    y: Tensor | None,
    metrics: tuple[str, str],
    compare: str,
    *,
    check: bool,
    samples: int,
    seed: int,
) -> tuple[Tensor, Route]:
    """Return the comparison (L, M) by ``route``, and the route with the errors of the comparison."""
    if route.name == "sampled":
        return _sampled(route, x, y, metrics, check, samples, seed)
    if route.name == "linear":
        return _linear(route, x, y, metrics, compare, check), route
    if route.name == "exact":
        return _exact(route, x, y, metrics, compare, check, keep=True), route
    if compare in RANKS and not _served(x, y):  # only kernels bin ranks
        return _exact(route, x, y, metrics, compare, check, keep=False), route._replace(name="exact")
    return _tiles(route, x, y, metrics, compare, check)


def _served(x: Tensor, y: Tensor | None) -> bool:
    """Return whether a kernel takes x and y; the GPU's would take a y without dimensions for a missing one."""
    return dispatch.serves(x) and (y is None or y.shape[-1] > 0)


def _on_cores(x: Tensor, y: Tensor | None, metrics: tuple[str, str], name: str) -> bool:
    """Return whether the route's products are taken by tensor cores, from which alone ``fast`` gains."""
    serve = tensor_cores.serve(x, y) or (name == "tiles" and parts.serve(x, y))
    return serve and rdm_products.serves(metrics)


def _linear(route: Route, x: Tensor, y: Tensor | None, metrics: tuple[str, str], compare: str, check: bool) -> Tensor:
    """Compare through the sums of `cross_moments`."""

    def statistic(moments: Moments, mean_x: Tensor, mean_y: Tensor) -> Tensor:
        kinds: dict[str, Any] = {"metric": metrics[0], "metric_y": metrics[1], "compare": compare}
        return rsa_from_moments(moments, **kinds, mean_x=mean_x, mean_y=mean_y)

    precision = "float64" if route.dtype == torch.float64 else "fast" if route.fast else "float32"
    return compare_layers(x, y, metrics, statistic, op="rdm_correlation", precision=precision, check=check)


def _tiles(
    route: Route, x: Tensor, y: Tensor | None, metrics: tuple[str, str], compare: str, check: bool
) -> tuple[Tensor, Route]:
    codes = (METRICS.index(metrics[0]), METRICS.index(metrics[1]))
    x, y = x.detach(), None if y is None else y.detach()
    served, ranks, L, n = _served(x, y), compare in RANKS, len(x), x.shape[1]
    on_core = route.dtype == torch.float32 and served and tensor_cores.serve(x, y)
    if x.is_cuda and compare not in RANKS and rdm_products.serves(metrics) and not on_core:
        sums, products, shifts = rdm_products.rdm_moments(x, y, *metrics, route.dtype, check=check, fast=route.fast)
    elif served and x.is_cuda:
        return _tiles_on_gpu(route, x, y, codes, compare, check), route
    elif served:
        op, wide = torch.ops.bertft.rdm_moments, route.dtype == torch.float64
        sums, products, shifts, within = raising_bad_row(lambda: op(x, y, *codes, ranks, wide, check))
    else:
        for layers, metric, name in ((x, metrics[0], "x"), (y, metrics[1], "y")):
            for k, layer in enumerate([] if layers is None or not check else layers):
                check_rows(layer, metric, op="rdm_correlation", name=name, layer=k)
        sums, products, shifts = reference.rdm_moments(x, y, *metrics)
        route = route._replace(dtype=torch.float64)
    pairs = sums.new_tensor(n * (n - 1) / 2)
    second = slice(0, L) if y is None else slice(L, None)
    square = products.diagonal()
    if compare == "rho_a":
        # ranks are centred and divided by the number of pairs P: 12 sum (P r)(P s) / (P^3 - P)
        out = 12 * products[:L, second] * pairs / (pairs * pairs - 1)
        out = out if n > 1 else out * torch.nan
    else:
        first_sums, second_sums = sums[:L, None], sums[None, second]
        pair = PairSums(pairs, first_sums, second_sums, square[:L, None], products[:L, second], square[None, second])
        how = "cosine" if compare == "cosine" else "pearson"
        out = compare_sums(pair, compare=how, offset=(shifts[:L, None], shifts[None, second]))
    if not ranks or out.numel() == 0:
        return out, route
    error: dict[str, Any] = _binning_error(within[:L, None], within[None, second], out, pairs)
    return out, route._replace(**error)


def _tiles_on_gpu(
    route: Route, x: Tensor, y: Tensor | None, codes: tuple[int, int], compare: str, check: bool
) -> Tensor:
    """Compare all layers of both sides, a group of tiles of pairs at a time, with no whole matrix in memory."""
    if route.dtype == torch.float64 or (y is not None and y.dtype != x.dtype):
        x, y = x.to(route.dtype), None if y is None else y.to(route.dtype)
    op, best = torch.ops.bertft.rdm_tiles, -1  # split rows on tensor cores where the card's pay, else FFMA
    return raising_bad_row(lambda: op(x, y, *codes, COMPARISONS.index(compare), best, check, route.fast))


def _register_on_gpu() -> None:
    """Register the shape rule of the op that only a GPU has."""

    def fake(x, y, metric_x, metric_y, compare, path, check, fast=False):
        return x.new_empty(len(x), len(x if y is None else y), dtype=torch.float64)

    torch.library.register_fake("bertft::rdm_tiles", fake)


cuda.on_load(_register_on_gpu)


def _binning_error(v: Tensor, w: Tensor, rho: Tensor, pairs: Tensor) -> dict[str, float]:
    """Return the error of a rank correlation whose ranks are mid-ranks of bins.

    v and w are the shares of the two rank variances inside bins: 1 / bins^2 where bins hold the same number of entries.
    Ranks are r = R + e with the mid-rank R and e of mean 0 in a bin, so the correlation is off by cov(e, S), cov(R, f)
    and cov(e, f), and by the variances. In the worst case e is aligned with all variation of S inside bins of R, hence

        bound = (sqrt v + sqrt w) sqrt(1 - rho^2) + sqrt(v w) + |rho| (v + w) / 2

    or about 2 / bins. If the other side is independent of the order inside bins, cov(e, S) is a smooth slope times v,
    plus a random sum over the pairs: error = 2 (v + w) + 4 sqrt((v + w) / pairs), about 4 / bins^2 for very many pairs.
    """
    rest = torch.sqrt((1 - rho * rho).clamp(min=0))
    bound = (v.sqrt() + w.sqrt()) * rest + (v * w).sqrt() + rho.abs() * (v + w) / 2
    error = 2 * (v + w) + 4 * torch.sqrt((v + w) / pairs)
    return {"error": float(error.max()), "bound": float(bound.max())}


def _exact(
    route: Route, x: Tensor, y: Tensor | None, metrics: tuple[str, str], compare: str, check: bool, *, keep: bool
) -> Tensor:
    """Compare condensed matrices.

    With ``keep`` all of them are in memory at once, otherwise two at a time, recomputed for each pair of layers.
    """

    def entries(layers: Tensor, k: int, metric: str, name: str) -> Tensor:
        rows = layers[k].detach()
        if check:
            check_rows(rows, metric, op="rdm_correlation", name=name, layer=k)
        found = pairwise_distance(rows.to(route.dtype), metric=metric, condensed=True, nan="propagate")
        if compare not in RANKS:
            return found
        return reference.average_ranks(found) if found.isfinite().all() else found * torch.nan

    first = lambda k: entries(x, k, metrics[0], "x")
    second = first if y is None else lambda m: entries(y, m, metrics[1], "y")
    if keep:
        first = functools.cache(first)
        second = first if y is None else functools.cache(second)
    how = {"spearman": "pearson", "rho_a": "rho_a of ranks"}.get(compare, compare)
    out = x.new_zeros(len(x), len(x if y is None else y), dtype=torch.float64)
    for k in range(out.shape[0]):
        a = first(k)
        for m in range(k if y is None else 0, out.shape[1]):
            out[k, m] = reference.compare_matrices(a, a if y is None and m == k else second(m), how)
            if y is None:
                out[m, k] = out[k, m]
    return out


def _sampled(
    route: Route, x: Tensor, y: Tensor | None, metrics: tuple[str, str], check: bool, samples: int, seed: int
) -> tuple[Tensor, Route]:
    """Return Kendall's tau-b over a sample of pairs of stimuli, with entries in float64."""
    from scipy.stats import kendalltau

    n = x.shape[1]
    total = n * (n - 1) // 2
    if samples < 2:
        raise BertftError(f"rdm_correlation: samples must be at least 2, not {samples}")
    if check:
        check_rows(x, metrics[0], op="rdm_correlation")
        if y is not None:
            check_rows(y, metrics[1], op="rdm_correlation", name="y")
    if total <= samples:
        i, j = torch.triu_indices(n, n, 1)
    else:
        generator = torch.Generator().manual_seed(seed)
        i = torch.randint(0, n, (samples,), generator=generator)
        j = (i + torch.randint(1, n, (samples,), generator=generator)) % n
    a = [reference.paired_distance(layer.detach(), i, j, metrics[0]).numpy() for layer in x.cpu()]
    b = a if y is None else [reference.paired_distance(layer.detach(), i, j, metrics[1]).numpy() for layer in y.cpu()]
    out = torch.tensor([[kendalltau(s, t).statistic for t in b] for s in a], dtype=torch.float64)
    error = 0.0 if total <= samples else 2 / (3 * len(i) ** 0.5)
    return out.reshape(len(a), len(b)), route._replace(error=error, pairs=len(i), dtype=torch.float64)

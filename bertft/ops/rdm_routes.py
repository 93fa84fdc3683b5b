"""The ways to compare dissimilarity matrices, and the choice between them by cost."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops import extension, extension_cuda, reference
from bertft.ops.cross_moments import cross_moments, provisional_mean
from bertft.ops.metrics import LINEAR, METRICS
from bertft.ops.moment_formulas import PairSums, compare_sums, rsa_from_moments, self_pair
from bertft.ops.moments import Moments, held
from bertft.ops.pairwise_distance import pairwise_distance
from bertft.ops.rows import check_rows, with_sentence

COMPARISONS = ("pearson", "cosine", "spearman", "rho_a", "kendall")
ROUTES = ("linear", "tiles", "exact", "sampled")
RANKS = ("spearman", "rho_a")
EXACT_RANKS = 1024  # stimuli up to which all pairs of a layer are half a million numbers and fast to sort


class Route(NamedTuple):
    """How a comparison was computed."""

    name: str  # linear, tiles, exact or sampled
    reason: str  # in words
    linear: float  # floating-point operations of either way, infinite where it cannot serve
    tiles: float
    dtype: torch.dtype  # of rows and products; sums are float64
    error: float | None = None  # what binning of ranks adds where nature has not conspired; sampled: standard error
    bound: float | None = None  # what binning of ranks can add at worst
    pairs: int | None = None  # sampled: pairs of stimuli that were used


def costs(x: Tensor, y: Tensor | None) -> tuple[float, float]:
    """Floating-point operations of the linear-time route and of the tiles."""
    (L, n, d), (M, _, e) = x.shape, (x if y is None else y).shape
    if y is None:
        return float(L * L) * n * d * d, float(n) * n * (L * d + L * L / 2 * 2)
    return float(n) * (L * d * d + M * e * e + 2.0 * L * M * d * e), float(n) * n * (L * d + M * e + L * M * 2)


def choose_route(
    x: Tensor, y: Tensor | None, metrics: tuple[str, str], compare: str, wanted: str, float64: bool
) -> Route:
    """The cheapest route that can serve, or the one that is wanted; BertftError where that one cannot."""
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
    wide = float64 or torch.float64 in (x.dtype, x.dtype if y is None else y.dtype)
    dtype = torch.float64 if wide else torch.float32
    grad = torch.is_grad_enabled() and (x.requires_grad or (y is not None and y.requires_grad))
    if wanted != "auto":
        if not can[wanted]:
            raise BertftError(f"rdm_correlation: route={wanted!r} does not serve {compare} of {' and '.join(metrics)}")
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
    return Route(name, reason, linear, tiles, dtype)


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
    """The comparison (L, M) by ``route``, and the route with what only the run could tell."""
    if route.name == "sampled":
        return _sampled(route, x, y, metrics, check, samples, seed)
    if route.name == "linear":
        return _linear(route, x, y, metrics, compare, check), route
    if route.name == "exact" or not extension.serves(x):
        return _exact(route, x, y, metrics, compare, check), route._replace(name="exact")
    return _tiles(route, x, y, metrics, compare, check)


def _linear(route: Route, x: Tensor, y: Tensor | None, metrics: tuple[str, str], compare: str, check: bool) -> Tensor:
    """Through the sums of `cross_moments`, pair by pair of layers: d^2 memory."""
    options: dict[str, Any] = {"float64": route.dtype == torch.float64, "nan": "raise" if check else "propagate"}
    mean_x = [provisional_mean(layer, metrics[0]) for layer in x]
    of_x: dict[int, tuple[Tensor, Tensor]] = {}
    if y is None:
        other, mean_y, of_y = x, mean_x, of_x
    else:
        other, mean_y, of_y = y, [provisional_mean(layer, metrics[1]) for layer in y], {}

    def space(
        layers: Tensor, k: int, mean: Tensor, metric: str, name: str, known: dict[int, tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        if k not in known:
            call = lambda: cross_moments(layers[k], mean_x=mean, metric=metric, **options)
            sums = with_sentence(call, op="rdm_correlation", x=f"{name} in layer {k}")
            known[k] = held(sums.gram_x), held(sums.stats_x)
        return known[k]

    def pair(k: int, m: int) -> Moments:
        sides = (x, k, mean_x[k], metrics[0], "x", of_x), (other, m, mean_y[m], metrics[1], "y", of_y)
        if y is None and k == m:
            return self_pair(*space(*sides[0]))
        fresh = y is not None and k not in of_x and m not in of_y  # both spaces' own sums in the same call
        means: dict[str, Any] = {"mean_x": mean_x[k], "mean_y": mean_y[m], "metric": metrics[0], "metric_y": metrics[1]}
        call = lambda: cross_moments(x[k], other[m], **means, grams=fresh, **options)
        sums = with_sentence(call, op="rdm_correlation", x=f"x in layer {k}", y=f"y in layer {m}")
        if fresh:
            of_x[k], of_y[m] = (held(sums.gram_x), held(sums.stats_x)), (held(sums.gram_y), held(sums.stats_y))
            return sums
        return Moments(*space(*sides[0]), sums.cross, sums.stats_xy, *space(*sides[1]))

    if not len(x) or not len(other):
        return x.new_zeros(len(x), len(other), dtype=torch.float64)
    found: dict[tuple[int, int], Tensor] = {}
    for k, m in sorted(itertools.product(range(len(x)), range(len(other))), key=lambda at: at[0] != at[1]):
        if y is None and m < k:
            continue
        means = {"mean_x": mean_x[k], "mean_y": mean_y[m]}
        found[k, m] = rsa_from_moments(pair(k, m), metric=metrics[0], metric_y=metrics[1], compare=compare, **means)
    at = lambda k, m: found[(k, m) if y is not None or k <= m else (m, k)]
    return torch.stack([torch.stack([at(k, m) for m in range(len(other))]) for k in range(len(x))])


def _tiles(
    route: Route, x: Tensor, y: Tensor | None, metrics: tuple[str, str], compare: str, check: bool
) -> tuple[Tensor, Route]:
    codes = (METRICS.index(metrics[0]), METRICS.index(metrics[1]))
    x, y = x.detach(), None if y is None else y.detach()
    if x.is_cuda:
        return _tiles_on_gpu(route, x, y, codes, compare, check), route
    ranks, L = compare in RANKS, len(x)
    op = torch.ops.bertft.rdm_moments
    sums, products, shifts, within = with_sentence(lambda: op(x, y, *codes, ranks, route.dtype == torch.float64, check))
    n = x.shape[1]
    pairs = sums.new_tensor(n * (n - 1) / 2)
    second = slice(0, L) if y is None else slice(L, None)
    square = products.diagonal()
    if compare == "rho_a":
        # ranks are centred and divided by the number of pairs P: 12 sum (P r)(P s) / (P^3 - P)
        out = 12 * products[:L, second] * pairs / (pairs * pairs - 1)
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
    """All layers of both sides in one pass over tiles of pairs, no matrix in memory."""
    if route.dtype == torch.float64 or (y is not None and y.dtype != x.dtype):
        x, y = x.to(route.dtype), None if y is None else y.to(route.dtype)
    path = 1 if torch.cuda.get_device_capability(x.device) >= (8, 0) else 0  # three-term tf32: float32 accuracy
    op = torch.ops.bertft.rdm_tiles
    return with_sentence(lambda: op(x, y, *codes, COMPARISONS.index(compare), path, check))


def _register_on_gpu() -> None:
    """Shape rule of the op that only a GPU has."""

    def fake(x, y, metric_x, metric_y, compare, path, check):
        return x.new_empty(len(x), len(x if y is None else y), dtype=torch.float64)

    torch.library.register_fake("bertft::rdm_tiles", fake)


extension_cuda.on_load(_register_on_gpu)


def _binning_error(v: Tensor, w: Tensor, rho: Tensor, pairs: Tensor) -> dict[str, float]:
    """Error of a rank correlation whose ranks are mid-ranks of bins.

    v and w are the shares of the two rank variances inside bins: 1 / bins^2 where bins hold the same number of entries.
    Ranks are r = R + e with R the mid-rank and e of mean 0 in a bin, so the correlation is off by cov(e, S), cov(R, f)
    and cov(e, f), and by the variances. At worst e is aligned with all that S varies inside bins of R, hence

        bound = (sqrt v + sqrt w) sqrt(1 - rho^2) + sqrt(v w) + |rho| (v + w) / 2

    or about 2 / bins. Where the other side does not know the order inside bins, cov(e, S) is a smooth slope times v and
    a random sum over the pairs: error = 2 (v + w) + 4 sqrt((v + w) / pairs), about 4 / bins^2 for very many pairs.
    """
    rest = torch.sqrt((1 - rho * rho).clamp(min=0))
    bound = (v.sqrt() + w.sqrt()) * rest + (v * w).sqrt() + rho.abs() * (v + w) / 2
    error = 2 * (v + w) + 4 * torch.sqrt((v + w) / pairs)
    return {"error": float(error.max()), "bound": float(bound.max())}


def _exact(route: Route, x: Tensor, y: Tensor | None, metrics: tuple[str, str], compare: str, check: bool) -> Tensor:
    """Every matrix in memory, condensed."""

    def condensed(x: Tensor, metric: str, name: str) -> Tensor:
        rows, nan = x.detach().to(route.dtype), "raise" if check else "propagate"
        call = lambda: pairwise_distance(rows, metric=metric, condensed=True, nan=nan)
        out = with_sentence(call, op="rdm_correlation", x=name)
        if compare not in RANKS or len(out) == 0:
            return out
        return torch.stack([reference.average_ranks(m) if m.isfinite().all() else m * torch.nan for m in out])

    a = condensed(x, metrics[0], "x")
    b = a if y is None else condensed(y, metrics[1], "y")
    how = {"spearman": "pearson", "rho_a": "rho_a of ranks"}.get(compare, compare)
    rows = [torch.stack([reference.compare_matrices(s, t, how) for t in b]) if len(b) else a.new_zeros(0) for s in a]
    return torch.stack(rows) if rows else a.new_zeros(0, len(b), dtype=torch.float64)


def _sampled(
    route: Route, x: Tensor, y: Tensor | None, metrics: tuple[str, str], check: bool, samples: int, seed: int
) -> tuple[Tensor, Route]:
    """Kendall's tau-b over a sample of pairs of stimuli, entries in float64."""
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

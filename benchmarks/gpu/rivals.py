"""The same results by PyTorch, by cuBLAS over float16 parts, and by other libraries where they are installed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.gpu.card import tf32
from benchmarks.peers import have
from bertft.ops import parts, provisional_mean, reference
from bertft.ops.rdm import products as rdm_products

Contender = Callable[..., Tensor]


def plain_distance(x: Tensor, metric: str) -> Tensor:
    """Return the distances as one writes them in PyTorch."""
    if metric in ("cosine", "correlation"):
        x = x - x.mean(-1, keepdim=True) if metric == "correlation" else x
        z = torch.nn.functional.normalize(x, dim=-1)
        return 1 - z @ z.mT
    if metric == "dot":
        return x @ x.mT
    d = torch.cdist(x, x, p=1.0 if metric == "manhattan" else 2.0)
    return d * d if metric == "sqeuclidean" else d


def distances(metric: str, *, compiled: bool) -> dict[str, Contender]:
    """Return rivals of `bertft.ops.pairwise_distance` of x with itself."""
    found: dict[str, Contender] = {"torch": lambda x: plain_distance(x, metric)}
    if metric != "manhattan":
        found["torch tf32"] = with_tf32(found["torch"])
        found["cuBLAS by parts"] = lambda x: by_parts(x, metric)
    if compiled:
        found["torch.compile"] = lazily_compiled(lambda x: plain_distance(x, metric))
    if have("cuvs") and metric != "dot":
        found["cuVS"] = lambda x: cuvs_distance(x, metric)
    if have("pykeops") and metric == "sqeuclidean":
        found["KeOps, row sums only"] = keops_distance
    return found


def with_tf32(call: Contender) -> Contender:
    """Return ``call`` with tf32 products."""

    def run(*inputs: Tensor) -> Tensor:
        with tf32():
            return call(*inputs)

    return run


def lazily_compiled(call: Contender) -> Contender:
    """Return ``call`` under torch.compile; on the CPU as it is, because a rehearsal must be quick."""
    made: list[Contender] = []

    def run(x: Tensor) -> Tensor:
        if not x.is_cuda:
            return call(x)
        if not made:
            made.append(torch.compile(call))
        return made[0](x)

    return run


def by_parts(x: Tensor, metric: str) -> Tensor:
    """Return the distances of the fallback without a compiler; in a rehearsal those of the reference."""
    if not x.is_cuda:
        return reference.pairwise_distance(x, metric=metric)
    return parts.distance(x, None, metric, condensed=False)


def cuvs_distance(x: Tensor, metric: str) -> Tensor:
    """Return the distances by cuVS, a layer at a time."""
    from cuvs.distance import pairwise_distance

    name = "cityblock" if metric == "manhattan" else metric
    return torch.stack([torch.as_tensor(pairwise_distance(layer, layer, metric=name), device=x.device) for layer in x])


def keops_distance(x: Tensor) -> Tensor:
    """Return squared distances by KeOps; beyond 2,048 rows their sums by row, because KeOps does not store matrices."""
    from pykeops.torch import LazyTensor

    square = ((LazyTensor(x[:, :, None, :]) - LazyTensor(x[:, None, :, :])) ** 2).sum(-1)
    if x.shape[1] > 2048:
        return square.sum(2)
    return square @ torch.eye(x.shape[1], device=x.device).expand(len(x), -1, -1).contiguous()


def correlations() -> dict[str, Contender]:
    """Return rivals of `bertft.ops.rdm_correlation` by cosine and Pearson."""
    found = {"torch": plain_correlations, "torch tf32": with_tf32(plain_correlations)}
    return found | {"cuBLAS by parts": correlations_by_parts}


def plain_correlations(x: Tensor, y: Tensor) -> Tensor:
    """Return the correlations from whole matrices, made layer by layer and multiplied once."""
    n = x.shape[1]
    i, j = torch.triu_indices(n, n, 1, device=x.device)
    flat = []
    for layer in (*x, *y):
        z = torch.nn.functional.normalize(layer, dim=-1)
        values = (z @ z.mT)[i, j].double()
        values = values - values.mean()
        flat.append(values / values.norm())
    stack = torch.stack(flat)
    return stack[: len(x)] @ stack[len(x) :].mT


def correlations_by_parts(x: Tensor, y: Tensor) -> Tensor:
    """Return them by the fallback without a compiler; in a rehearsal by plain PyTorch."""
    if not x.is_cuda:
        return plain_correlations(x, y)
    sums, products, _ = rdm_products.sums_by_parts(x, y, "cosine", "cosine")
    pairs = x.shape[1] * (x.shape[1] - 1) / 2
    covariance = products - torch.outer(sums, sums) / pairs
    size = covariance.diagonal().sqrt()
    return (covariance / torch.outer(size, size))[: len(x), len(x) :]


def sums() -> dict[str, Contender]:
    """Return rivals of `bertft.ops.cross_moments`: its three products of rows that are prepared within the time."""

    def three(x: Tensor, y: Tensor) -> Tensor:
        u, v = (torch.nn.functional.normalize(t, dim=-1) - provisional_mean(t).float() for t in (x, y))
        _, _, cross = u.mT @ u, v.mT @ v, u.mT @ v
        return cross

    return {"torch, its three products": three, "torch tf32": with_tf32(three)}

"""Losses of structural probes, with fused gradients.

Source: Hewitt and Manning 2019.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops import probe_gradient, reference
from bertft.ops.autograd import register, without_graph
from bertft.ops.full_precision import full_precision
from bertft.ops.native import cpu, dispatch
from bertft.ops.precision import Precision, check_precision
from bertft.ops.probe_checks import check_probe, explain_not_finite
from bertft.ops.probe_gradient import BOTH, eager


def distance_probe_loss(
    h: Tensor,
    weight: Tensor,
    distances: Tensor,
    lengths: Tensor,
    *,
    check_finite: bool = True,
    precision: Precision = "float32",
) -> Tensor:
    """Return ``out[l] = mean over sentences of 1/n^2 sum_ij | |B_l'(h_li - h_lj)|^2 - distances_ij |``.

    Distances are squared, without a root. All ordered pairs of a sentence count, including the diagonal. Sentences of
    length 0 do not count. The subgradient at equality is 0, and the gradient is finite at zero distance. Loss and
    gradients take one pass over the words, with two matrix products and at most n x n numbers of one sentence per
    thread.

    Args:
        h: (L, T, D), or (T, D) for the same vectors in every layer: the words of all sentences, one sentence after the
            other. float64, float32, bfloat16 or float16; any strides.
        weight: (L, D, R), the matrix B of each layer.
        distances: (sum n_s^2,), the n x n tree distances of each sentence, row by row, one sentence after the other.
            uint8 is used without a copy; any other integer or floating type is converted.
        lengths: (S,) integers, the number of words of each sentence, on the CPU. They sum to T.
        check_finite: raise BertftError if a loss is not finite, naming the layer and the first bad row of h. If False,
            and inside ``torch.compile``, NaN passes through. True waits for a GPU.
        precision: ``float32``; ``fast``, products of float16 numbers on GPUs whose tensor cores serve (docs/gpu.md),
            float32 elsewhere; or ``float64``, computed in float64 and returned in the type below. On vectors of 768
            dimensions ``fast`` errs by 1e-4 of the loss and by 1e-3 of the largest entry of the gradient, 1e-2 where
            vectors have a common mean of 40 times their spread; ``float32`` by 1e-6 of either.

    Returns:
        (L,), float64 if h or weight is float64, else float32 (halves are accumulated in float32). Differentiable once,
        in h and weight. 0 if no sentence has a word.
    """
    return _probe_loss(h, weight, distances, None, lengths, check_finite, 0, precision)


def depth_probe_loss(
    h: Tensor,
    weight: Tensor,
    depths: Tensor,
    lengths: Tensor,
    *,
    check_finite: bool = True,
    precision: Precision = "float32",
) -> Tensor:
    """Return ``out[l] = mean over sentences of 1/n sum_i | |B_l'h_i|^2 - depths_i |`` as (L,).

    Norms are squared, without a root. ``depths`` (T,) holds the depth of each word in its tree, with 0 for the root, in
    any integer or floating type. Other arguments, dtypes and errors are those of `distance_probe_loss`.
    """
    return _probe_loss(h, weight, None, depths, lengths, check_finite, 1, precision)


def probe_loss(
    h: Tensor,
    weight_distance: Tensor,
    weight_depth: Tensor,
    distances: Tensor,
    depths: Tensor,
    lengths: Tensor,
    *,
    check_finite: bool = True,
) -> Tensor:
    """Return the distance and the depth loss of the same vectors as (L, 2), from one pair of matrix products.

    The two weights, (L, D, R) and (L, D, R'), may differ in rank. Other arguments are those of `distance_probe_loss`
    and `depth_probe_loss`.
    """
    if weight_distance.dim() != 3 or weight_depth.dim() != 3 or weight_distance.shape[:2] != weight_depth.shape[:2]:
        raise BertftError(
            "probe_loss: weight_distance and weight_depth must be (L, D, R) with the same L and D, "
            f"found {tuple(weight_distance.shape)} and {tuple(weight_depth.shape)}"
        )
    weight = torch.cat([weight_distance, weight_depth], dim=2)
    return _probe_loss(h, weight, distances, depths, lengths, check_finite, BOTH, rank=weight_distance.shape[2])


def probe_loss_and_gradient(
    h: Tensor,
    weight: Tensor,
    distances: Tensor | None,
    depths: Tensor | None,
    lengths: Tensor,
    *,
    distance_rank: int | None = None,
    check_finite: bool = True,
) -> tuple[Tensor, Tensor]:
    """Return losses (L, 2) and the gradient (L, D, R) of their sum in weight: a training step without autograd.

    Autograd costs about 0.2 ms and two more passes over the gradient per step, which is as much as the work itself for
    few or small layers. The first ``distance_rank`` columns of weight (L, D, R) probe distance, the others depth. If
    exactly one of ``distances`` and ``depths`` is None, all columns probe the other one, ``distance_rank`` is not
    needed, and the missing loss is 0. Other arguments are those of `distance_probe_loss`. Nothing returned requires a
    gradient.
    """
    if distance_rank is None:
        if (distances is None) == (depths is None):
            raise BertftError("probe_loss: distance_rank is needed unless exactly one of distances and depths is given")
        distance_rank = 0 if distances is None else weight.shape[-1]
    if not 0 <= distance_rank <= weight.shape[-1] or (distances is None and distance_rank > 0):
        raise BertftError(f"probe_loss: distance_rank {distance_rank} does not match the given weight and targets")
    if depths is None and distance_rank < weight.shape[-1]:
        raise BertftError(f"probe_loss: depths are needed for the columns of weight from {distance_rank} on")
    if not dispatch.serves(h):
        check_probe(h, weight, distances, depths, lengths)
        with torch.enable_grad():
            leaf = weight.detach().requires_grad_()
            args = _prepare(h.detach(), leaf, distances, depths, lengths)
            loss = _reference(*args, distance_rank)
            (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        loss = loss.detach()
    else:
        # The kernel itself refuses arguments that do not fit. Only dtypes are checked here, and the rest after it has
        # refused: on small layers the checks would take a tenth of the time.
        if not (h.dtype in _FLOATS and weight.dtype in _FLOATS and lengths.dtype == torch.int64):
            check_probe(h, weight, distances, depths, lengths)
        try:
            args = _prepare(h, weight, distances, depths, lengths)
            with full_precision(h):
                loss, gradient, _ = without_graph("probe_loss", *args[:2], distance_rank, *args[2:], True, False, False)
        except (RuntimeError, IndexError):
            check_probe(h, weight, distances, depths, lengths)
            raise
        gradient = gradient if gradient.dtype == weight.dtype else gradient.to(weight.dtype)
    if check_finite:
        _check_finite(loss, args)
    return loss, gradient


def _probe_loss(
    h: Tensor,
    weight: Tensor,
    distances: Tensor | None,
    depths: Tensor | None,
    lengths: Tensor,
    check_finite: bool,
    kind: int,
    precision: Precision = "float32",
    rank: int = 0,
) -> Tensor:
    """Return one ``kind`` of loss (L,), 0 distance or 1 depth, from all columns of weight, or both (L, 2).

    ``rank`` is that of the distance probe in a weight of both.
    """
    if _fit_the_kernel(h, weight, distances, depths, lengths, precision):
        try:
            return _quick(h, weight, distances, depths, lengths, check_finite, kind, rank)
        except (RuntimeError, IndexError):
            pass  # the checks below find the sentence about what the kernel refused, which it rarely does
    if precision != "float32":
        check_precision(precision, op="probe_loss")
    check_probe(h, weight, distances, depths, lengths)
    if precision == "float64" and torch.float64 not in (h.dtype, weight.dtype):
        return _probe_loss(
            h.double(), weight.double(), distances, depths, lengths, check_finite, kind, rank=rank
        ).float()
    args = _prepare(h, weight, distances, depths, lengths)
    if kind != BOTH:
        rank = weight.shape[2] if kind == 0 else 0
    loss = _loss(args, kind, rank, precision == "fast")
    if check_finite:
        _check_finite(loss, args)
    return loss


def _fit_the_kernel(
    h: Tensor, weight: Tensor, distances: Tensor | None, depths: Tensor | None, lengths: Tensor, precision: str
) -> bool:
    """Return whether types and devices are such that the CPU's kernel checks the rest."""
    return (
        h.is_cpu
        and weight.is_cpu
        and lengths.is_cpu
        and (distances is None or distances.is_cpu)
        and (depths is None or depths.is_cpu)
        and lengths.dtype is torch.int64
        and weight.dtype in _NOTHING
        and (h.dtype is weight.dtype or h.dtype in _HALVES)
        and not (h.dim() == 2 and h.requires_grad)  # a gradient for each layer, to be summed
        and (precision == "float32" or precision == "fast")  # the same on a CPU
        and not torch.compiler.is_compiling()
        and dispatch.serves(h)
    )


def _quick(
    h: Tensor,
    weight: Tensor,
    distances: Tensor | None,
    depths: Tensor | None,
    lengths: Tensor,
    check: bool,
    kind: int,
    rank: int,
) -> Tensor:
    """Return the loss of arguments that `_fit_the_kernel`, in the least Python.

    Python costs as much as the kernel on small layers, and a tenth of it on large ones. RuntimeError or IndexError:
    the kernel refuses the arguments, or ``check`` a loss that is not finite.
    """
    dtype = weight.dtype
    if distances is None:
        distances = _NOTHING[dtype]
    elif distances.dtype is not torch.uint8 and distances.dtype is not dtype:
        distances = distances.to(dtype)
    if depths is None:
        depths = _NOTHING[dtype]
    elif depths.dtype is not dtype:
        depths = depths.to(dtype)
    with_weight, with_h = weight.requires_grad, h.requires_grad
    if (with_weight or with_h) and torch.is_grad_enabled():
        return eager(h, weight, rank, distances, depths, lengths, with_weight, with_h, False, kind, check)
    op = (h, weight, rank, distances, depths, lengths, False, False, False, kind, check)
    return without_graph("probe_loss", *op)[0]


def _loss(args: Prepared, kind: int, rank: int, fast: bool) -> Tensor:
    h, weight, distances, depths, lengths = args
    grad = torch.is_grad_enabled()
    with_weight, with_h = grad and weight.requires_grad, grad and h.requires_grad
    if not dispatch.serves(h):
        loss = _reference(*args, rank)
        return loss if kind == BOTH else loss[:, kind]
    op_args = (h, weight, rank, distances, depths, lengths, with_weight, with_h, fast, kind, False)
    if torch.compiler.is_compiling():
        return torch.ops.bertft.probe_loss(*op_args)[0]
    with full_precision(h):
        return eager(*op_args) if with_weight or with_h else without_graph("probe_loss", *op_args)[0]


Prepared = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
_HALVES = frozenset((torch.bfloat16, torch.float16))
_FLOATS = frozenset((torch.float32, torch.float64, torch.bfloat16, torch.float16))


def _prepare(h: Tensor, weight: Tensor, distances: Tensor | None, depths: Tensor | None, lengths: Tensor) -> Prepared:
    """Return h, weight, distances, depths and lengths in the kernel's shapes and dtypes."""
    dtype = torch.float64 if h.dtype == torch.float64 or weight.dtype == torch.float64 else torch.float32
    if h.dim() == 2 and (h.requires_grad or not h.is_cpu or torch.compiler.is_compiling()):
        h = h.expand(weight.shape[0], *h.shape)  # the CPU's kernel takes (T, D), but has a gradient for each layer
    if h.dtype not in (torch.bfloat16, torch.float16) or dtype == torch.float64:
        h = _cast(h, dtype)
    weight = _cast(weight, dtype)
    distances = _nothing(weight) if distances is None else distances
    distances = distances if distances.dtype == torch.uint8 else _cast(distances, dtype)
    depths = _nothing(weight) if depths is None else _cast(depths, dtype)
    return h, weight, distances, depths, _cast(lengths, torch.int64)


_NOTHING = {dtype: torch.empty(0, dtype=dtype) for dtype in (torch.float32, torch.float64)}


def _nothing(like: Tensor) -> Tensor:
    """Return a tensor without elements in place of targets that are not given."""
    return _NOTHING[like.dtype] if like.is_cpu and not torch.compiler.is_compiling() else like.new_empty(0)


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == dtype else tensor.to(dtype)  # .to costs a microsecond even if it does nothing


def _reference(
    h: Tensor, weight: Tensor, distances: Tensor, depths: Tensor, lengths: Tensor, distance_rank: int
) -> Tensor:
    if h.dim() == 2:
        h = h.expand(weight.shape[0], *h.shape)
    distance, depth = weight.tensor_split([distance_rank], dim=2)
    zero = weight.new_zeros(weight.shape[0])
    return torch.stack(
        [
            reference.distance_probe_loss(h, distance, distances, lengths) if distance.shape[2] else zero,
            reference.depth_probe_loss(h, depth, depths, lengths) if depth.shape[2] else zero,
        ],
        dim=1,
    )


def _check_finite(loss: Tensor, args: Prepared) -> None:
    if torch.compiler.is_compiling():
        return
    values = loss.tolist()
    if not math.isfinite(sum(values) if loss.dim() == 1 else sum(map(sum, values))):
        h, weight, distances, depths, _ = args
        explain_not_finite("probe_loss", loss, h=h, weight=weight, distances=distances, depths=depths)


def _register() -> None:
    register("probe_loss", probe_gradient.fake, probe_gradient.setup_context, probe_gradient.backward)


cpu.on_load(_register)

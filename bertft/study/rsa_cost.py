"""Forecast of ``bertft rsa`` from the models' configurations."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from bertft.data.location import data_name
from bertft.models.blocks import blocks
from bertft.models.devices import device_of
from bertft.models.loading import load_skeleton
from bertft.runs.process import resident
from bertft.similarity import Plan
from bertft.similarity.compare.stimuli import layer_counts
from bertft.similarity.placed_sums import bytes_of_sums
from bertft.study.analyses.rsa import BATCH_PIECES
from bertft.study.estimate import Estimate, estimate_of
from bertft.study.rsa_command import DTYPES, RsaCommand
from bertft.study.timing import StageCost, placed, seconds_of, weights_of

LIBRARIES = 150_000_000  # bytes of tokenizers, kernels and the page's libraries, which a dry run does not load
ROUND = 1_000_000  # stimuli that the forecast counts in a text of unknown length


class Shape(NamedTuple):
    """Sizes of a model; `layer_counts` reads ``num_layers``."""

    num_layers: int
    dim: int
    weights: int  # bytes
    multiplied: int  # weights of the blocks, each of which takes part in one multiplication for a token
    inner: int  # the widest vector within a block


def estimate_rsa(command: RsaCommand, out: Path) -> Estimate:
    """Return the cost of `bertft.study.rsa_command.run_rsa`, before any weights or texts are loaded.

    Memory is that of all encoders at once. Times follow from the number of multiplications and the measured speed of
    one product, and are right to a factor of about two. Raises ``BertftError`` for settings and models that the run
    would refuse.
    """
    plan, dtype = command.checked(), DTYPES[command.dtype]
    base, *tuned = (shape_of(load_skeleton(name, dtype=dtype)) for name in (command.base, *command.tuned.values()))
    pairs: Any = layer_counts(base, dict(zip(command.tuned, tuned, strict=True)), plan.layers)  # type: ignore[arg-type]
    item, stimuli = dtype.itemsize, command.tokens or ROUND
    rows = [len(plan.layers or range(shape.num_layers)) * shape.dim * item for shape in (base, *tuned)]
    sums = sum(_sums(plan, both, (base.dim, shape.dim)) for both, shape in zip(pairs.values(), tuned, strict=True))
    sample = min(plan.sample, stimuli) * sum(rows) if plan.intervals or plan.over_pairs else 0
    widest = max(base.dim, *(shape.dim for shape in tuned))
    batch = BATCH_PIECES * (sum(rows) + max(rows) + 4 * max(shape.inner for shape in (base, *tuned)) * item)
    products = 2 * widest**2 * 8 + 3 * widest**2 * (8 if plan.float64 else 4)
    weights = sum(shape.weights for shape in (base, *tuned))
    on_gpu = torch.cuda.is_available()
    last = sample + max(rows) * min(plan.sample, stimuli) + 8 * widest**2 * 8  # the sample in order, and its measures
    held = resident() + LIBRARIES + sample
    if on_gpu:
        memory = placed(held + last, weights + sums + batch + products)
    else:
        memory = placed(held, weights + sums + max(batch + products, last))
    seconds = _seconds(dtype, stimuli, (base, *tuned), plan)
    amount = f"{command.tokens:,} {command.unit}s" if command.tokens else f"time of the first {ROUND:,} {command.unit}s"
    stage, work = f"rsa/{data_name(command.text)}", f"{amount}, {len(tuned) + 1} encoders"
    return estimate_of([StageCost(stage, work, seconds, 0, sums + sample, *memory)], out)


def shape_of(model: nn.Module) -> Shape:
    """Return the sizes of a model, loaded or not."""
    config: Any = model.config
    stack = blocks(model)
    inside = sum(p.numel() for block in stack for p in block.parameters())
    return Shape(
        len(stack) + 1,
        int(config.hidden_size),
        weights_of(model),
        inside,
        max((max(p.shape) for block in stack for p in block.parameters()), default=int(config.hidden_size)),
    )


def _sums(plan: Plan, layers: tuple[int, int], widths: tuple[int, int]) -> int:
    """Return the bytes of all sums with one tuned encoder."""
    if plan.all_layers:
        return len(plan.preparations) * bytes_of_sums(layers, widths, "all")
    return len(plan.preparations) * bytes_of_sums((min(layers), min(layers)), widths)


def _seconds(dtype: torch.dtype, stimuli: int, shapes: tuple[Shape, ...], plan: Plan) -> float:
    """Return the seconds of the forward passes and the sums, by the speed of a product on the encoders' device."""
    forward = sum(2 * shape.multiplied for shape in shapes)
    sums = sum(4 * shape.dim**2 * len(plan.layers or range(shape.num_layers)) for shape in shapes[1:])
    return stimuli * (forward + sums * len(plan.preparations)) / flops_of(dtype)


def flops_of(dtype: torch.dtype) -> float:
    """Return the operations a second of a product of matrices on the encoders' device, timed."""
    device, rate = device_of(), 0.0
    for size in (256, 1024, 4096):  # larger ones only where the smaller is done at once
        factor = torch.ones(size, size, dtype=dtype, device=device)
        took = seconds_of(partial(torch.matmul, factor, factor))
        rate = max(rate, 2 * size**3 / took)
        if took > 0.005:
            break
    return rate

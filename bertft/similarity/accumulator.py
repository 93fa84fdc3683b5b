"""Sums over stimuli of two spaces' layers: taken chunk by chunk, merged, added up over processes, saved and resumed.

They are additive, and their size does not depend on the number of stimuli.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.ops.metrics import LINEAR
from bertft.ops.moments.cross_moments import Moments, cross_moments, provisional_mean
from bertft.ops.moments.layout import held
from bertft.ops.native import cpu as extension
from bertft.runs.sums_file import read_sums, write_sums
from bertft.similarity import measures
from bertft.similarity.arrays import as_tensor
from bertft.similarity.augmented_rows import pack, translation, unpack

if TYPE_CHECKING:
    from typing_extensions import Self

_SUMS = Moments._fields
_NAMES = ("mean_x", "mean_y", *_SUMS)
NOISE = "noise"  # its name among the sums that are kept
FEW = 128  # dimensions up to which the CPU's kernel takes float64 products of any rows (kSmall in csrc)
_EMPTY = "similarity: needs at least 3 stimuli, found 0"


class Sums:
    """What `bertft.similarity.CrossMoments` accumulates; it documents the parameters."""

    def __init__(
        self,
        layers_x: int,
        layers_y: int,
        metric: str | tuple[str, str] = "cosine",
        pairs: str = "diagonal",
        *,
        float64: bool = False,
    ) -> None:
        metrics = (metric, metric) if isinstance(metric, str) else tuple(metric)
        for name in metrics:
            if name not in LINEAR:
                raise BertftError(f"CrossMoments: metric must be one of {', '.join(LINEAR)}, found {name!r}")
        if pairs not in ("diagonal", "all"):
            raise BertftError(f"CrossMoments: pairs must be 'diagonal' or 'all', found {pairs!r}")
        if layers_x < 1 or layers_y < 1 or (pairs == "diagonal" and layers_x != layers_y):
            raise BertftError(
                f"CrossMoments: expected at least one layer on each side, and as many on both for pairs='diagonal', "
                f"found {layers_x} and {layers_y}"
            )
        self.layers_x, self.layers_y, self.pairs, self.float64 = layers_x, layers_y, pairs, float64
        self.metric_x, self.metric_y = metrics
        self.noise = measures.NOISE  # share of the largest variance below which a direction may be rounding alone
        self._settled: dict[str, Tensor] = {}  # on the CPU: see `_state`
        self._moving: dict[str, Tensor] = {}  # on a GPU: the same, ahead of `_settled` while it takes stimuli

    def __len__(self) -> int:
        """n, the number of stimuli so far."""
        latest = self._moving or self._settled
        return round(float(latest["stats_x"][0, -6])) if latest else 0

    @property
    def _state(self) -> dict[str, Tensor]:
        """Means (L, D), (M, E), and the six sums, layers stacked in front; on the CPU, fetched from the GPU if need be.

        The GPU's own are then dropped: what comes next may change these.
        """
        if self._moving:
            self._settled.update({name: tensor.cpu() for name, tensor in self._moving.items()})
            self._moving = {}
        return self._settled

    @_state.setter
    def _state(self, state: dict[str, Tensor]) -> None:
        self._settled, self._moving = state, {}

    def _beside(self, device: torch.device) -> dict[str, Tensor]:
        """`_state` on ``device``: sums of a chunk are too many bytes to send each time. On the CPU where they would
        take more than a quarter of a GPU's free memory."""
        if device.type == "cpu":
            return self._state
        if self._moving and self._moving["mean_x"].device != device:
            self._state  # noqa: B018 - fetches them
        if not self._moving:
            if sum(tensor.nbytes for tensor in self._settled.values()) > torch.cuda.mem_get_info(device)[0] // 4:
                return self._settled
            self._moving = {name: tensor.to(device) for name, tensor in self._settled.items()}
        return self._moving

    # Accumulating ---------------------------------------------------------------------------------------------------

    def update(self, x: Tensor | np.ndarray, y: Tensor | np.ndarray) -> Self:
        """Add stimuli: x (L, n, D) and y (M, n, E), row i of both the same stimulus; tensors or arrays of any float.

        A row that is not finite, or has no direction where the metric needs one, is an error that names layer and row;
        the sums then hold some layers of the chunk and not others, and must not be used.
        """
        x, y = as_tensor(x), as_tensor(y)
        self._check(x, y)
        if x.shape[1] == 0:
            return self
        self.start(x, y)
        self.noise = max(self.noise, self._noise_of(x, y))
        state = self._beside(x.device)
        mean_x, mean_y = state["mean_x"].to(x.device), state["mean_y"].to(x.device)
        both: dict[str, Any] = {"metric": self.metric_x, "metric_y": self.metric_y, "float64": self.float64}
        if self.pairs == "diagonal":
            for k in range(self.layers_x):
                with _naming(k):
                    total = self._of_pair(state, k, k)
                    means: dict[str, Any] = {"mean_x": mean_x[k], "mean_y": mean_y[k]}
                    if held(total.cross).device == x.device:
                        cross_moments(x[k], y[k], **means, **both, out=total)
                    else:
                        _add(total, cross_moments(x[k], y[k], **means, **both))
            return self
        for side, rows, mean, metric in (("x", x, mean_x, self.metric_x), ("y", y, mean_y, self.metric_y)):
            for k, row in enumerate(rows):
                with _naming(k, side):
                    one = cross_moments(row, mean_x=mean[k], metric=metric, float64=self.float64)
                for name, own in ((f"gram_{side}", one.gram_x), (f"stats_{side}", one.stats_x)):
                    state[name][k] += held(own).to(state[name].device)
        for k in range(self.layers_x):
            for m in range(self.layers_y):
                part = cross_moments(x[k], y[m], mean_x=mean_x[k], mean_y=mean_y[m], grams=False, **both)
                _add(self._of_pair(state, k, m), part)
        return self

    def _noise_of(self, x: Tensor, y: Tensor) -> float:
        """What the vectors' own precision and that of their products leave (`bertft.similarity.measures`)."""
        found = max(measures.NOISE_OF_VECTORS.get(t.dtype, measures.NOISE) for t in (x, y))
        exact = self.float64 or torch.float64 in (x.dtype, y.dtype) or not extension.serves(x)
        if exact or (x.device.type == "cpu" and max(x.shape[-1], y.shape[-1]) <= FEW):
            return found
        return max(found, measures.NOISE_OF_FLOAT32_SUMS)

    def start(self, x: Tensor, y: Tensor) -> Self:
        """Fix the provisional means by the first of these rows, adding none; of no effect once they are fixed.

        Accumulators that start from the same rows agree to the last bits however the stimuli are divided among them.
        """
        if not self._settled:
            self._check(x, y)
            self._allocate(
                torch.stack([provisional_mean(layer, self.metric_x).cpu() for layer in x]),
                torch.stack([provisional_mean(layer, self.metric_y).cpu() for layer in y]),
            )
        return self

    def _allocate(self, mean_x: Tensor, mean_y: Tensor) -> None:
        (_, d), (_, e) = mean_x.shape, mean_y.shape
        lead = (self.layers_x,) if self.pairs == "diagonal" else (self.layers_x, self.layers_y)
        shapes = {
            "gram_x": (self.layers_x, d, d),
            "stats_x": (self.layers_x, 3 * d + 6),
            "cross": (*lead, d, e),
            "stats_xy": (*lead, 2 * d + 2 * e + 4),
            "gram_y": (self.layers_y, e, e),
            "stats_y": (self.layers_y, 3 * e + 6),
        }
        self._state = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes.items()}
        self._state.update(mean_x=mean_x, mean_y=mean_y)

    def _check(self, x: Tensor, y: Tensor) -> None:
        for side, t, layers in (("x", x, self.layers_x), ("y", y, self.layers_y)):
            width = self._settled[f"mean_{side}"].shape[1] if self._settled else None
            fits = t.ndim == 3 and t.shape[0] == layers and width in (None, t.shape[-1])
            if not fits or not t.dtype.is_floating_point:
                raise BertftError(
                    f"CrossMoments.update: {side} must be float of shape ({layers}, n, {width or 'D'}), "
                    f"found {t.dtype} of shape {tuple(t.shape)}"
                )
        if x.device != y.device:
            raise BertftError(f"CrossMoments.update: x and y must be on one device, found {x.device} and {y.device}")
        if x.shape[1] != y.shape[1]:
            raise BertftError(
                f"CrossMoments.update: x and y must hold the same stimuli, found {x.shape[1]} and {y.shape[1]} rows"
            )

    # Merging --------------------------------------------------------------------------------------------------------

    def merge(self, other: Sums) -> Self:
        """Add another accumulator's stimuli, whatever means its sums are about."""
        if self.config != other.config:
            raise BertftError(f"CrossMoments.merge: expected {self.config}, found {other.config}")
        if not other._state:
            return self
        if not self._state:
            self._allocate(other._state["mean_x"].clone(), other._state["mean_y"].clone())
        if self.widths != other.widths:
            raise BertftError(f"CrossMoments.merge: expected widths {self.widths}, found {other.widths}")
        self.noise = max(self.noise, other.noise)
        for name, sums in other._about(self._state["mean_x"], self._state["mean_y"]).items():
            self._state[name] += sums
        return self

    def _about(self, mean_x: Tensor, mean_y: Tensor) -> dict[str, Tensor]:
        """The six sums about other means: augmented rows change by a linear map T, their moments G to T G T'."""
        old_x, old_y = self._state["mean_x"], self._state["mean_y"]
        if torch.equal(mean_x, old_x) and torch.equal(mean_y, old_y):
            return {name: self._state[name] for name in _SUMS}
        moved: dict[str, list[Tensor]] = {name: [] for name in _SUMS}
        tx = [translation(a, b, self.metric_x) for a, b in zip(old_x, mean_x, strict=True)]
        ty = [translation(a, b, self.metric_y) for a, b in zip(old_y, mean_y, strict=True)]
        for k, m in self._pairs():
            xx, yy, xy = pack(self.moments(k, m))
            new = unpack(tx[k] @ xx @ tx[k].T, ty[m] @ yy @ ty[m].T, tx[k] @ xy @ ty[m].T)
            for name, value in zip(_SUMS, new, strict=True):
                if (m == 0 or not name.endswith("_x") or self.pairs == "diagonal") and (
                    k == 0 or not name.endswith("_y") or self.pairs == "diagonal"
                ):
                    moved[name].append(held(value))
        return {name: torch.stack(values).view(self._state[name].shape) for name, values in moved.items()}

    def all_reduce(self, group: Any = None) -> Self:
        """Sum over the processes of torch.distributed; every process ends with the sums of all stimuli.

        A process without stimuli takes part. All use the means of the first process that has any. Where the group's
        backend is NCCL, the sums go through this process's current GPU.
        """
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()):
            raise BertftError("CrossMoments.all_reduce: torch.distributed is not initialised, launch with torchrun")
        mine = (self.config, self.widths if self._state else None)
        gathered: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(gathered, (*mine, self.noise), group=group)
        others = [found[:2] for found in gathered]
        self.noise = max(found[2] for found in gathered)
        filled = [rank for rank, (_, widths) in enumerate(others) if widths is not None]
        if not filled:
            return self
        expected = (self.config, others[filled[0]][1])
        for rank, (config, widths) in enumerate(others):
            if (config, widths or expected[1]) != expected:
                raise BertftError(
                    f"CrossMoments.all_reduce: expected {expected[0]} of widths {expected[1]} in every process, "
                    f"process {rank} has {config} of widths {widths}"
                )
        if not self._state:
            d, e = expected[1]
            self._allocate(
                torch.zeros(self.layers_x, d, dtype=torch.float64), torch.zeros(self.layers_y, e, dtype=torch.float64)
            )
        source = filled[0] if group is None else dist.get_global_rank(group, filled[0])
        by_gpu = dist.get_backend(group) == "nccl"  # which takes no tensors of the CPU

        def exchanged(tensor: Tensor, operation: Callable[[Tensor], object]) -> Tensor:
            there = tensor.cuda() if by_gpu else tensor.clone()  # never in place: it may be of inference mode
            operation(there)
            return there.cpu()

        mean_x, mean_y = (
            exchanged(self._state[name], lambda t: dist.broadcast(t, source, group=group))
            for name in ("mean_x", "mean_y")
        )
        if mine[1] is not None:
            self._state.update(self._about(mean_x, mean_y))
        self._state.update(mean_x=mean_x, mean_y=mean_y)
        for name in _SUMS:
            self._state[name] = exchanged(self._state[name], lambda t: dist.all_reduce(t, group=group))
        return self

    # Saving ---------------------------------------------------------------------------------------------------------

    @property
    def config(self) -> dict[str, Any]:
        """What two accumulators must share to be merged."""
        return {
            "layers": [self.layers_x, self.layers_y],
            "metric": [self.metric_x, self.metric_y],
            "pairs": self.pairs,
            "float64": self.float64,
        }

    @property
    def widths(self) -> tuple[int, int]:
        """D and E; (0, 0) before the first update."""
        return (self._settled["mean_x"].shape[1], self._settled["mean_y"].shape[1]) if self._settled else (0, 0)

    @property
    def state(self) -> dict[str, Tensor]:
        """Means, sums and `noise` by name, on the CPU; empty before the first update. ``restore`` takes them back.

        The very tensors, which the next update of rows on the CPU changes.
        """
        return {**self._state, NOISE: torch.tensor(self.noise, dtype=torch.float64)} if self._state else {}

    def restore(self, state: dict[str, Tensor]) -> Self:
        """Go on from the ``state`` of an accumulator of the same configuration."""
        if set(state) - {NOISE} not in (set(), set(_NAMES)):
            raise BertftError(f"CrossMoments.restore: expected {', '.join(_NAMES)}, found {', '.join(sorted(state))}")
        self._state = {name: tensor for name, tensor in state.items() if name != NOISE}
        coarse = measures.NOISE if self.float64 else measures.NOISE_OF_FLOAT32_SUMS  # older ones do not say
        self.noise = float(state[NOISE]) if NOISE in state else coarse if state else measures.NOISE
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the sums as safetensors, through a temporary name; the configuration is in the file's metadata."""
        write_sums(path, self.state, self.config)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, expect: Sums | None = None) -> Self:
        """Read what ``save`` wrote; with ``expect``, refuse sums of another configuration."""
        state, config = read_sums(path, _NAMES, NOISE)
        if expect is not None and expect.config != config:
            raise BertftError(f"{path}: expected sums of {expect.config}, found {config}")
        moments = cls(
            config["layers"][0],
            config["layers"][1],
            metric=tuple(config["metric"]),
            pairs=config["pairs"],
            float64=config["float64"],
        )
        return moments.restore(state)

    # One pair of layers ---------------------------------------------------------------------------------------------

    def moments(self, layer_x: int, layer_y: int) -> Moments:
        """The sums of one pair of layers, as `bertft.ops.moments.formulas` takes them (views, not copies)."""
        if not self._settled:
            raise BertftError(_EMPTY)
        return self._of_pair(self._state, layer_x, layer_y)

    def _of_pair(self, s: dict[str, Tensor], layer_x: int, layer_y: int) -> Moments:
        pair = layer_x if self.pairs == "diagonal" else (layer_x, layer_y)
        of_x, of_y = (s["gram_x"][layer_x], s["stats_x"][layer_x]), (s["gram_y"][layer_y], s["stats_y"][layer_y])
        return Moments(*of_x, s["cross"][pair], s["stats_xy"][pair], *of_y)

    def means(self, layer_x: int, layer_y: int) -> tuple[Tensor, Tensor]:
        """The provisional means (D,), (E,) that the sums of these layers are about."""
        return self._state["mean_x"][layer_x], self._state["mean_y"][layer_y]

    def _pairs(self) -> list[tuple[int, int]]:
        if self.pairs == "diagonal":
            return [(k, k) for k in range(self.layers_x)]
        return [(k, m) for k in range(self.layers_x) for m in range(self.layers_y)]


@contextmanager
def _naming(layer: int, side: str = "x") -> Iterator[None]:
    """Errors name the layer, and the space where the sums were taken of y alone."""
    try:
        yield
    except BertftError as error:
        raise BertftError(f"layer {layer}: {error}".replace(" of x ", f" of {side} ")) from None


def _add(total: Moments, part: Moments) -> None:
    for sums, new in zip(total, part, strict=True):
        if new is not None:
            held(sums).add_(new.to(held(sums).device))

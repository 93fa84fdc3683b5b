"""Additive sums over stimuli of two spaces' layers.

They are taken chunk by chunk, merged, summed over processes, saved and resumed. Their size does not depend on the
number of stimuli.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bertft.errors import BadRow, BertftError
from bertft.ops.metrics import LINEAR
from bertft.ops.moments.cross_moments import cross_moments, provisional_mean
from bertft.ops.moments.layout import Moments, present
from bertft.ops.moments.packed import packed, unpacked
from bertft.ops.native import dispatch
from bertft.ops.precision import check_precision
from bertft.ops.rows import as_tensor
from bertft.runs.sums_file import read_sums, write_sums
from bertft.similarity import measures
from bertft.similarity.augmented_rows import pack, translation, unpack
from bertft.similarity.placed_sums import GRAMS, PlacedSums, Squares, add_sums, as_kept, bytes_of_sums, shapes_of_sums

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

    State = Mapping[str, Tensor | Sequence[Tensor]]

_SUMS = Moments._fields
_NAMES = ("mean_x", "mean_y", *_SUMS)
NOISE = "noise"  # its name in a saved state
SLICE = 8192  # rows after which the CPU kernel adds its products to the sums (kChunk kChunksPerFlush in csrc)
FEW = 128  # dimensions up to which the CPU kernel multiplies rows of any type in float64 (kSmall in csrc)
_EMPTY = "similarity: needs at least 3 stimuli, found 0"


class Sums:
    """The sums behind `bertft.similarity.CrossMoments`, which documents the parameters."""

    def __init__(
        self,
        layers_x: int,
        layers_y: int,
        metric: str | tuple[str, str] = "cosine",
        pairs: str = "diagonal",
        *,
        float64: bool = False,
        precision: str = "float32",
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
        self.precision = check_precision(precision, op="CrossMoments", float64=float64)
        self.layers_x, self.layers_y, self.pairs, self.float64 = layers_x, layers_y, pairs, self.precision == "float64"
        self.metric_x, self.metric_y = metrics
        self.noise = measures.NOISE  # share of the largest variance below which a direction may be rounding alone
        self._devices: list[torch.device] | None = None  # of each layer's sums, if not that of the rows
        self.nan = "raise"  # or "propagate" for rows that are checked elsewhere (`cross_moments`)
        self._sums = PlacedSums()  # means (L, D) and (M, E), and the six sums with layers stacked in front

    def __len__(self) -> int:
        """Return n, the number of stimuli so far."""
        return round(float(self._sums.first("stats_x")[-6])) if self._sums else 0

    # Accumulating ---------------------------------------------------------------------------------------------------

    def update(self, x: Tensor | np.ndarray, y: Tensor | np.ndarray) -> Self:
        """Add stimuli.

        Args:
            x: (L, n, D), a tensor or array of any floating type.
            y: (M, n, E); row i of x and y belongs to the same stimulus.

        Returns:
            The accumulator itself.

        Raises:
            BadRow: A row is not finite, or has norm 0 under a metric that needs its direction. Some layers of the chunk
                may have been added by then, so the accumulator must not be used any more.
            BertftError: Shapes, types or devices do not fit.
        """
        x, y = as_tensor(x), as_tensor(y)
        self._check(x, y)
        if x.shape[1] == 0:
            return self
        self.start(x, y)
        self.noise = max(self.noise, self._noise_of(x, y))
        devices = self._devices or [x.device] * max(self.layers_x, self.layers_y)
        for begin in range(0, x.shape[1], SLICE):
            rows, state = slice(begin, begin + SLICE), self._sums.on(devices)
            if self.pairs == "diagonal":
                self._add_diagonal(state, x[:, rows], y[:, rows], begin)
            else:
                self._add_all(state, x[:, rows], y[:, rows], begin)
        return self

    def place(self, devices: Sequence[torch.device]) -> Self:
        """Keep the sums of layer k on ``devices[k]`` from now on, for models that are spread over several GPUs."""
        if self.pairs == "diagonal":
            self._devices = list(devices)
        return self

    def _add_diagonal(self, state: State, x: Tensor, y: Tensor, begin: int) -> None:
        squares, widths, kinds = Squares(state), (x.shape[-1], y.shape[-1]), self._kinds
        for k, layer in enumerate(zip(x, y, *(state[name] for name in _NAMES), strict=True)):
            where = x.device if self._devices is None else self._devices[k]
            rows = layer[0].to(where), layer[1].to(where)
            means: dict[str, Any] = {"mean_x": layer[2].to(where), "mean_y": layer[3].to(where)}
            total = dict(zip(_SUMS, layer[4:], strict=True))
            with _in_layer(k, begin):
                if total["cross"].device != where:
                    part = cross_moments(rows[0], rows[1], **means, **kinds)
                    for name, sums in part._asdict().items():
                        add_sums(total[name], sums, name)
                    continue
                whole = squares.take(k, where, widths)  # the kernels fill both triangles
                cross_moments(rows[0], rows[1], **means, **kinds, out=Moments(**{**total, **whole}))
        squares.add()

    def _add_all(self, state: State, x: Tensor, y: Tensor, begin: int) -> None:
        mean_x, mean_y = ([mean.to(x.device) for mean in state[name]] for name in ("mean_x", "mean_y"))
        for side, rows, mean, metric in (("x", x, mean_x, self.metric_x), ("y", y, mean_y, self.metric_y)):
            for k, row in enumerate(rows):
                kinds: dict[str, Any] = {
                    "mean_x": mean[k],
                    "metric": metric,
                    "precision": self.precision,
                    "nan": self.nan,
                }
                with _in_layer(k, begin, side):
                    one = cross_moments(row, **kinds)
                for name, own in ((f"gram_{side}", one.gram_x), (f"stats_{side}", one.stats_x)):
                    add_sums(state[name][k], present(own), name)
        for k, m in self._pairs():
            means: dict[str, Any] = {"mean_x": mean_x[k], "mean_y": mean_y[m], **self._kinds}
            part = cross_moments(x[k], y[m], grams=False, **means)
            for name, own in (("cross", part.cross), ("stats_xy", part.stats_xy)):
                add_sums(state[name][k][m], present(own), name)

    @property
    def _kinds(self) -> dict[str, Any]:
        return {"metric": self.metric_x, "metric_y": self.metric_y, "precision": self.precision, "nan": self.nan}

    def _noise_of(self, x: Tensor, y: Tensor) -> float:
        """Return the floor set by the precision of the vectors and of their products (`bertft.similarity.measures`)."""
        found = max(measures.NOISE_OF_VECTORS.get(t.dtype, measures.NOISE) for t in (x, y))
        exact = self.float64 or torch.float64 in (x.dtype, y.dtype) or not dispatch.serves(x)
        if exact or (x.device.type == "cpu" and max(x.shape[-1], y.shape[-1]) <= FEW):
            return found
        return max(found, measures.NOISE_OF_FLOAT32_SUMS)

    def start(self, x: Tensor, y: Tensor) -> Self:
        """Fix the provisional means by the first of these rows without adding any; does nothing once they are fixed.

        Accumulators that start from the same rows agree to rounding of float64, however the stimuli are divided among
        them.
        """
        if not self._sums:
            self._check(x, y)
            self._allocate(
                torch.stack([provisional_mean(layer, self.metric_x).cpu() for layer in x]),
                torch.stack([provisional_mean(layer, self.metric_y).cpu() for layer in y]),
            )
        return self

    def _allocate(self, mean_x: Tensor, mean_y: Tensor) -> None:
        widths = mean_x.shape[1], mean_y.shape[1]
        shapes = shapes_of_sums((self.layers_x, self.layers_y), widths, self.pairs)
        sums = {name: torch.zeros(shapes[name], dtype=torch.float64) for name in _SUMS}
        self._sums = PlacedSums({**sums, "mean_x": mean_x, "mean_y": mean_y})

    def _check(self, x: Tensor, y: Tensor) -> None:
        for side, t, layers in (("x", x, self.layers_x), ("y", y, self.layers_y)):
            width = len(self._sums.first(f"mean_{side}")) if self._sums else None
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
        """Add another accumulator's stimuli; its provisional means may differ."""
        if self.config != other.config:
            raise BertftError(f"CrossMoments.merge: expected {self.config}, found {other.config}")
        if not other._sums:
            return self
        if not self._sums:
            means = other._sums.settle()
            self._allocate(means["mean_x"].clone(), means["mean_y"].clone())
        if self.widths != other.widths:
            raise BertftError(f"CrossMoments.merge: expected widths {self.widths}, found {other.widths}")
        self.noise = max(self.noise, other.noise)
        mine = self._sums.settle()
        for name, sums in other.about(mine["mean_x"], mine["mean_y"]).items():
            mine[name] += sums
        return self

    def about(self, mean_x: Tensor, mean_y: Tensor) -> dict[str, Tensor]:
        """Return the six sums about other provisional means (L, D) and (M, E).

        Moving the mean maps augmented rows by a matrix T and their moments G to T G T'.
        """
        state = self._sums.settle()
        old_x, old_y = state["mean_x"], state["mean_y"]
        if torch.equal(mean_x, old_x) and torch.equal(mean_y, old_y):
            return {name: state[name] for name in _SUMS}
        moved: dict[str, list[Tensor]] = {name: [] for name in _SUMS}
        tx = [translation(a, b, self.metric_x) for a, b in zip(old_x, mean_x, strict=True)]
        ty = [translation(a, b, self.metric_y) for a, b in zip(old_y, mean_y, strict=True)]
        for k, m in self._pairs():
            xx, yy, xy = pack(self.moments(k, m))
            new = unpack(tx[k] @ xx @ tx[k].T, ty[m] @ yy @ ty[m].T, tx[k] @ xy @ ty[m].T)
            for name, value in zip(_SUMS, new, strict=True):
                seen = self.pairs == "all" and (m if name.endswith("_x") else k if name.endswith("_y") else 0) > 0
                if not seen:  # sums of a single layer come with each of its pairs
                    moved[name].append(packed(present(value)) if name in GRAMS else present(value))
        return {name: torch.stack(values).view(state[name].shape) for name, values in moved.items()}

    def all_reduce(self, group: Any = None) -> Self:
        """Sum over the processes of torch.distributed, so that every process has the sums of all stimuli.

        Every process of ``group`` must call it, with stimuli or without. All take over the provisional means of the
        first process that has stimuli. With the NCCL backend the sums pass through this process's current GPU.

        Raises:
            BertftError: torch.distributed is not initialised, or the processes' accumulators do not fit together.
        """
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()):
            raise BertftError("CrossMoments.all_reduce: torch.distributed is not initialised, launch with torchrun")
        had_stimuli = bool(self._sums)
        gathered: list[Any] = [None] * dist.get_world_size(group)
        dist.all_gather_object(gathered, (self.config, self.widths, self.noise), group=group)
        self.noise = max(noise for _, _, noise in gathered)
        filled = [rank for rank, (_, widths, _) in enumerate(gathered) if widths != (0, 0)]
        if not filled:
            return self
        self._fit(gathered, filled[0])
        state = self._sums.settle()
        source = filled[0] if group is None else dist.get_global_rank(group, filled[0])
        by_gpu = dist.get_backend(group) == "nccl"  # which takes no tensors of the CPU

        def exchanged(tensor: Tensor, operation: Callable[[Tensor], object]) -> Tensor:
            there = tensor.cuda() if by_gpu else tensor.clone()  # not in place: it may be an inference tensor
            operation(there)
            return there.cpu()

        means = {
            name: exchanged(state[name], lambda t: dist.broadcast(t, source, group=group))
            for name in ("mean_x", "mean_y")
        }
        if had_stimuli:
            state.update(self.about(**means))
        state.update(means)
        for name in _SUMS:
            state[name] = exchanged(state[name], lambda t: dist.all_reduce(t, group=group))
        return self

    def _fit(self, gathered: list[tuple[dict[str, Any], tuple[int, int], float]], first: int) -> None:
        """Check that all processes' accumulators fit that of process ``first``, and allocate one without stimuli."""
        expected = (self.config, gathered[first][1])
        for rank, (config, widths, _) in enumerate(gathered):
            if config != expected[0] or widths not in (expected[1], (0, 0)):
                raise BertftError(
                    f"CrossMoments.all_reduce: expected {expected[0]} of widths {expected[1]} in every process, "
                    f"process {rank} has {config} of widths {widths}"
                )
        if not self._sums:
            d, e = expected[1]
            zeros = lambda layers, width: torch.zeros(layers, width, dtype=torch.float64)
            self._allocate(zeros(self.layers_x, d), zeros(self.layers_y, e))

    # Saving ---------------------------------------------------------------------------------------------------------

    @property
    def config(self) -> dict[str, Any]:
        """Settings that two accumulators must share to be merged."""
        return {
            "layers": [self.layers_x, self.layers_y],
            "metric": [self.metric_x, self.metric_y],
            "pairs": self.pairs,
            "float64": self.float64,
            **({"precision": "fast"} if self.precision == "fast" else {}),  # files of older versions lack it
        }

    @property
    def widths(self) -> tuple[int, int]:
        """D and E; (0, 0) before the first update."""
        if not self._sums:
            return (0, 0)
        return (len(self._sums.first("mean_x")), len(self._sums.first("mean_y")))

    @property
    def nbytes(self) -> int:
        """Bytes of the sums; 0 before the first update."""
        return bytes_of_sums((self.layers_x, self.layers_y), self.widths, self.pairs) if self._sums else 0

    @property
    def state(self) -> dict[str, Tensor]:
        """Means, sums and `noise` by name, on the CPU, for `restore`; empty before the first update.

        These are not copies: the next update with rows on the CPU changes them.
        """
        return {**self._sums.settle(), NOISE: torch.tensor(self.noise, dtype=torch.float64)} if self._sums else {}

    def restore(self, state: dict[str, Tensor]) -> Self:
        """Resume from the `state` of an accumulator of the same configuration, of this or an earlier version."""
        if set(state) - {NOISE} not in (set(), set(_NAMES)):
            raise BertftError(f"CrossMoments.restore: expected {', '.join(_NAMES)}, found {', '.join(sorted(state))}")
        self._sums = PlacedSums({name: as_kept(name, tensor) for name, tensor in state.items() if name != NOISE})
        coarse = measures.NOISE if self.float64 else measures.NOISE_OF_FLOAT32_SUMS  # older files lack it
        self.noise = float(state[NOISE]) if NOISE in state else coarse if state else measures.NOISE
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the sums atomically as a safetensors file, with the configuration in its metadata."""
        write_sums(path, self.state, self.config)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, expect: Sums | None = None) -> Self:
        """Read a file written by `save`; raise BertftError if its configuration is not that of ``expect``."""
        state, config = read_sums(path, _NAMES, NOISE)
        if expect is not None and expect.config != config:
            raise BertftError(f"{path}: expected sums of {expect.config}, found {config}")
        moments = cls(
            config["layers"][0],
            config["layers"][1],
            metric=tuple(config["metric"]),
            pairs=config["pairs"],
            float64=config["float64"],
            precision=config.get("precision", "float32"),
        )
        return moments.restore(state)

    # One pair of layers ---------------------------------------------------------------------------------------------

    def moments(self, layer_x: int, layer_y: int) -> Moments:
        """Return the sums of one pair of layers, for `bertft.ops.moments.formulas`; symmetric ones as new matrices."""
        if not self._sums:
            raise BertftError(_EMPTY)
        s = self._sums.settle()
        pair = layer_x if self.pairs == "diagonal" else (layer_x, layer_y)
        gram_x, gram_y = unpacked(s["gram_x"][layer_x]), unpacked(s["gram_y"][layer_y])
        return Moments(
            gram_x, s["stats_x"][layer_x], s["cross"][pair], s["stats_xy"][pair], gram_y, s["stats_y"][layer_y]
        )

    def means(self, layer_x: int, layer_y: int) -> tuple[Tensor, Tensor]:
        """Return the provisional means (D,) and (E,) of the sums of these layers."""
        state = self._sums.settle()
        return state["mean_x"][layer_x], state["mean_y"][layer_y]

    def _pairs(self) -> list[tuple[int, int]]:
        if self.pairs == "diagonal":
            return [(k, k) for k in range(self.layers_x)]
        return [(k, m) for k in range(self.layers_x) for m in range(self.layers_y)]


@contextmanager
def _in_layer(layer: int, begin: int, side: str | None = None) -> Iterator[None]:
    """Make a `BadRow` of rows from ``begin`` on name its layer, and ``side`` if the block takes rows of one side."""
    try:
        yield
    except BadRow as bad:
        raise dataclasses.replace(
            bad, op="CrossMoments.update", side=side or bad.side, layer=layer, row=begin + bad.row
        ) from None

"""Massive activations: stimuli that would decide every sum alone.

Decoders put enormous activations on a few tokens: on the first one of a text, or on its first delimiters. Sun et al.
(2024) call an activation massive from 1,000 times the median magnitude of the hidden state on. They find few, and find
that those persist through most layers. So a stimulus x is massive in a layer if

    size         |x - m|^2 exceeds a limit, at first `TIMES` times the layer's median. One activation of Sun's size has
                 this squared norm among 4,550 ordinary, normal ones, and one of 500 times the median among 1,140.
    gap          what is beyond the limit stands apart: while more stimuli lie in the decade below the limit than beyond
                 it, the limit is tenfold. Heavy tails thus have no massive stimuli.
    persistence  this holds in at least one layer in ten and in two, or in one if at most two are compared. Without it,
                 all commas are massive in the first block of Gemma 3 270M, 7 % of its tokens, and in no other block.

Mean m, median and limit are those of the first batch of the text, the same in every process, and then stay fixed. The
mean leaves out what is far from it, so that it is that of ordinary stimuli even if one in five is massive.

A stimulus that is massive in any layer of any encoder compared goes into sums of its own, with all its layers. All
layers of all encoders are thus compared on the same stimuli, and both sums together are those of all stimuli.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bertft.runs.rows import Row
from bertft.similarity.moments import CrossMoments

TIMES = 100.0  # the layer's median of |x - m|^2
DECADE = 10.0
LASTING = 0.1  # share of the layers in which a massive stimulus is beyond the limit
FAR = 4.0  # times the median: not counted in the mean
LISTED = 1000  # most stimuli that are listed with their place
TASK = "sinks"  # of the rows
BLOCK = 1 << 18  # numbers whose distances are taken at a time on the CPU
QUARTER = 0.25  # share of a layer's variance from which a dimension is named

Tables = dict[str, dict[str, CrossMoments]]  # sums by name of the tuned encoder and metric


class Place(NamedTuple):
    """Where a massive stimulus is: its text, its number among the text's stimuli, the encoder, and the layers."""

    text: int
    stimulus: int
    encoder: int
    first_layer: int
    last_layer: int


class Beyond(NamedTuple):
    """Which rows of each encoder's layers are massive, (L, T) bool each, and whether any is, on its way to the CPU."""

    massive: list[Tensor]
    flag: Tensor
    copied: torch.cuda.Event | None

    def layers(self) -> list[Tensor] | None:
        """Return the rows on the CPU, or None if none is massive."""
        if self.copied is not None:
            self.copied.synchronize()
        return [layers.cpu() for layers in self.massive] if self.flag else None


class Massive:
    """Thresholds of every encoder's layers, and the sums, counts and places of the stimuli beyond them.

    Args:
        encoders: names of the encoders, the base first.
        sums: empty accumulators, by name of the tuned encoder and metric.
    """

    def __init__(self, encoders: Sequence[str], sums: Tables) -> None:
        self.encoders, self.sums = list(encoders), sums
        self.centres: list[Tensor] = []  # (L, D) of each encoder
        self.limits: list[Tensor] = []  # (L,) largest |x - m| of an ordinary stimulus
        self.counts: list[Tensor] = []  # (L,) int64 massive stimuli
        self.places: list[Place] = []
        self.off = False  # in a run that an older version began without thresholds

    def __len__(self) -> int:
        """Return the number of stimuli that are massive in any layer of any encoder."""
        return len(next(iter(next(iter(self.sums.values())).values())))

    def fit(self, spaces: Sequence[Tensor]) -> None:
        """Fix the thresholds by the rows (L, T, D) of each encoder; does nothing once they are fixed."""
        if self.limits or self.off or not spaces[0].shape[1]:
            return
        for space in spaces:
            fitted = [_threshold(layer) for layer in space]
            self.centres.append(torch.stack([centre for centre, _ in fitted]))
            self.limits.append(torch.tensor([limit for _, limit in fitted], dtype=torch.float64))
            self.counts.append(torch.zeros(len(space), dtype=torch.int64))

    def layers_of(self, spaces: Sequence[Tensor]) -> list[Tensor] | None:
        """Return which rows of each encoder's layers are massive, (L, T) bool each, or None if none is."""
        found = self.beyond(spaces)
        return None if found is None else found.layers()

    def beyond(self, spaces: Sequence[Tensor]) -> Beyond | None:
        """Return which rows are massive, without waiting for a GPU; None without thresholds."""
        if not self.limits:
            return None
        found: list[Tensor] = []
        for space, centre, limit in zip(spaces, self.centres, self.limits, strict=True):
            away = _distances(space, centre.to(space.device))
            far = (away > limit.to(away)[:, None]) & (away < math.inf)
            found.append(far & (far.sum(0) >= _least_layers(len(far))))
        flag, copied = torch.stack([layers.any().to(found[0].device) for layers in found]).any(), None
        if flag.is_cuda:
            copied, device = torch.cuda.Event(), flag.device
            flag = flag.to("cpu", non_blocking=True)
            copied.record(torch.cuda.current_stream(device))
        return Beyond(found, flag, copied)

    def note(self, layers: Sequence[Tensor], index: Tensor, lengths: Tensor) -> Tensor:
        """Count the massive rows of a batch (`layers_of`) of texts; return which are massive anywhere, (T,) bool."""
        starts = lengths.cumsum(0) - lengths
        owner = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        for encoder, massive in enumerate(layers):
            self.counts[encoder] += massive.sum(1)
            for row in massive.any(0).nonzero().flatten().tolist():
                if len(self.places) < LISTED:
                    where = massive[:, row].nonzero().flatten().tolist()
                    text = int(owner[row])
                    place = int(index[text]), row - int(starts[text])
                    self.places.append(Place(*place, encoder, where[0], where[-1]))
        return torch.stack([massive.any(0) for massive in layers]).any(0)

    def state(self) -> dict[str, Tensor]:
        """Return tensors for `restore`."""
        tensors: dict[str, Tensor] = {}
        for i, (centre, limit, count) in enumerate(zip(self.centres, self.limits, self.counts, strict=True)):
            tensors |= {f"centre/{i}": centre.cpu(), f"limit/{i}": limit, f"count/{i}": count}
        if self.places:
            tensors["places"] = torch.tensor(self.places, dtype=torch.int64)
        for name, table in self.sums.items():
            for metric, moments in table.items():
                tensors.update({f"sums/{name}/{metric}/{key}": tensor for key, tensor in moments.state.items()})
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Resume from a `state`. Without one, as in a checkpoint of an older version, nothing will be massive."""
        self.off = not tensors
        read = lambda kind: [tensors[f"{kind}/{i}"] for i in range(len(self.encoders))] if tensors else []
        self.centres, self.limits, self.counts = read("centre"), read("limit"), read("count")
        self.places = [Place(*place) for place in tensors["places"].tolist()] if "places" in tensors else []
        for name, table in self.sums.items():
            for metric, moments in table.items():
                head = f"sums/{name}/{metric}/"
                moments.restore({key.removeprefix(head): t for key, t in tensors.items() if key.startswith(head)})

    def add_up(self) -> None:
        """Sum over the processes of torch.distributed; all must call it."""
        import torch.distributed as dist

        for table in self.sums.values():
            for moments in table.values():
                moments.all_reduce()
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, (self.counts, self.places))
        if counts := [counts for counts, _ in parts if counts]:
            self.counts = [torch.stack(layers).sum(0) for layers in zip(*counts, strict=True)]
        self.places = sorted(place for _, places in parts for place in places)[:LISTED]

    def rows(self, data: str, n: int, seed: int) -> list[Row]:
        """Return ``massive_stimuli`` of every encoder and layer of ``n`` stimuli, if there are any."""
        if not len(self):
            return []
        return [
            Row(name, TASK, data, layer, "massive_stimuli", float(count), n=n, seed=seed)
            for name, counts in zip(self.encoders, self.counts, strict=True)
            for layer, count in enumerate(counts.tolist())
        ]


def _distances(space: Tensor, centre: Tensor) -> Tensor:
    """Return the distance (L, T) of each row of ``space`` (L, T, D) from its layer's ``centre`` (L, D).

    On the CPU by blocks of rows, whose differences stay in a near cache: those of a whole layer would take new memory
    from the system for each layer. On a GPU by layers.
    """
    layers, count, dim = space.shape
    if space.device.type != "cpu":
        each = zip(space, centre, strict=True)
        return torch.stack([torch.linalg.vector_norm(layer - mean, dim=1) for layer, mean in each])
    rows = max(1, BLOCK // (layers * dim))
    blocks = (space[:, begin : begin + rows] for begin in range(0, max(1, count), rows))
    return torch.cat([torch.linalg.vector_norm(block - centre[:, None], dim=2) for block in blocks], dim=1)


def _least_layers(layers: int) -> int:
    """Return in how many of ``layers`` layers a massive stimulus is beyond the limit."""
    return min(max(2, math.ceil(LASTING * layers)), max(1, layers - 1))


def _threshold(rows: Tensor) -> tuple[Tensor, float]:
    """Return the mean of ordinary rows (T, D) and the largest ordinary distance from it; infinite without spread."""
    rows = rows.double() if rows.dtype == torch.float64 else rows.float()
    centre = rows.mean(0)
    for _ in range(2):
        squares = (rows - centre).square().sum(1)
        near = squares <= FAR * squares.median()
        centre = rows[near].mean(0)
    squares = (rows - centre).square().sum(1)
    median = float(squares.median())
    if not (math.isfinite(median) and median > 0):
        return centre, math.inf
    limit = TIMES * median
    while int(((squares > limit / DECADE) & (squares <= limit)).sum()) > int((squares > limit).sum()):
        limit *= DECADE
    return centre, math.sqrt(limit)


def dimension_rows(sums: Tables, data: str, n: int, seed: int) -> list[Row]:
    """Return the dimension of every layer that carries more than a quarter of the layer's variance.

    ``largest_dimension_share`` is its share, ``largest_dimension`` its number from 0. They are of the raw vectors:
    sums of a metric that changes rows give none.
    """
    found: dict[tuple[str, int], list[Row]] = {}
    for name, table in sums.items():
        moments = next((m for metric, m in table.items() if metric in ("dot", "sqeuclidean")), None)
        if moments is None:
            continue
        for side, model in enumerate(("base", name)):
            layers = (moments.layers_x, moments.layers_y)[side]
            for layer in range(layers):
                other = layer if moments.pairs == "diagonal" else 0
                m = moments.moments(*((layer, other) if side == 0 else (other, layer)))
                gram, space = ((m.gram_x, m.x), (m.gram_y, m.y))[side]
                assert gram is not None
                variance = gram.diagonal() - space.s.square() / space.n
                share, dimension = (variance / variance.sum()).max(0)
                if float(share) > QUARTER:
                    head = (model, TASK, data, layer)
                    found[model, layer] = [
                        Row(*head, "largest_dimension_share", float(share), n=n, seed=seed),
                        Row(*head, "largest_dimension", float(dimension), n=n, seed=seed),
                    ]
    return [row for rows in found.values() for row in rows]

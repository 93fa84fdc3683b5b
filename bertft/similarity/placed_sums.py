"""Sums that live beside the rows they are added from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bertft.ops.moments.packed import add_packed, packed, packed_size

GRAMS = ("gram_x", "gram_y")  # symmetric, kept packed (`bertft.ops.moments.packed`)

CPU = torch.device("cpu")
TOGETHER = 1 << 20  # bytes of whole symmetric matrices that are added to the packed sums in one call


class PlacedSums:
    """Tensors by name with layers in front, on the CPU or, layer by layer, on the GPUs that add rows to them.

    The sums of a layer take too many bytes to move from a GPU at each update, so that they stay there until they are
    needed on the CPU.
    """

    def __init__(self, tensors: Mapping[str, Tensor] | None = None) -> None:
        self._settled = dict(tensors or {})
        self._ahead: dict[str, list[Tensor]] = {}
        self._asked: list[torch.device] = []  # the devices that the layers ahead were wanted on

    def __bool__(self) -> bool:
        return bool(self._settled or self._ahead)

    @property
    def on_gpu(self) -> bool:
        """Whether any of the sums are on a GPU."""
        return bool(self._ahead)

    def first(self, name: str) -> Tensor:
        """Return the first layer's tensor of this name, wherever it is."""
        return (self._ahead or self._settled)[name][0]

    def settle(self) -> dict[str, Tensor]:
        """Return the sums on the CPU, fetched from the GPUs if they are there.

        Drops the GPUs' tensors, because the caller may change those returned.
        """
        while self._ahead:
            name, layers = next(iter(self._ahead.items()))
            self._settled[name] = torch.stack([layer.cpu() for layer in layers])
            del self._ahead[name]
        return self._settled

    def on(self, devices: Sequence[torch.device]) -> Mapping[str, Tensor | list[Tensor]]:
        """Return the sums to which rows of layer k on ``devices[k]`` are added, by name and layer.

        Those are on the CPU if the device is, or if the layers of one GPU would take more than a quarter of its free
        memory. Sums of more layers than ``devices`` are on the last one.
        """
        if self._ahead and self._asked == list(devices):
            return self._ahead
        self.settle()
        self._asked = list(devices)
        used = {device for device in devices if device != CPU and self._fits(device, devices)}
        if not used:
            return self._settled
        own = [device if device in used else CPU for device in devices]
        for name in list(self._settled):
            layers = self._settled.pop(name)
            self._ahead[name] = [layer.to(own[min(k, len(own) - 1)]) for k, layer in enumerate(layers)]
        return self._ahead

    def _fits(self, device: torch.device, devices: Sequence[torch.device]) -> bool:
        layers = [k for k, own in enumerate(devices) if own == device]
        needed = sum(tensor[k].nbytes for tensor in self._settled.values() for k in layers if k < len(tensor))
        return needed <= torch.cuda.mem_get_info(device)[0] // 4


def shapes_of_sums(layers: tuple[int, int], widths: tuple[int, int], pairs: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the six sums and the two means of ``layers`` (L, M) of ``widths`` (D, E), all float64."""
    (first, second), (d, e) = layers, widths
    lead = (first,) if pairs == "diagonal" else layers
    return {
        "gram_x": (first, packed_size(d)),
        "stats_x": (first, 3 * d + 6),
        "cross": (*lead, d, e),
        "stats_xy": (*lead, 2 * d + 2 * e + 4),
        "gram_y": (second, packed_size(e)),
        "stats_y": (second, 3 * e + 6),
        "mean_x": (first, d),
        "mean_y": (second, e),
    }


def bytes_of_sums(layers: tuple[int, int], widths: tuple[int, int], pairs: str = "diagonal") -> int:
    """Return the bytes that the sums of `bertft.similarity.CrossMoments` take, from their first update on."""
    total = 0
    for shape in shapes_of_sums(layers, widths, pairs).values():
        entries = 8
        for size in shape:
            entries *= size
        total += entries
    return total


class Squares:
    """Whole symmetric matrices, which kernels fill, on their way to the packed sums of a ``state``.

    Small matrices cost calls, not additions: those of consecutive layers on the CPU are added in one call as long as
    they fit in `TOGETHER` bytes. Sums on GPUs are separate tensors and get theirs one by one.
    """

    def __init__(self, state: Mapping[str, Tensor | Sequence[Tensor]]) -> None:
        self._state = state
        self._room: dict[torch.device, list[Tensor]] = {}  # (G, D, D) and (G, E, E), used again and again
        self._where, self._first, self._count = CPU, 0, 0  # of the layers that wait

    def take(self, layer: int, where: torch.device, widths: tuple[int, int]) -> dict[str, Tensor]:
        """Return zeros (D, D) and (E, E) on ``where`` for the products of ``layer``; layers come in ascending order."""
        if where not in self._room:
            room = max(1, TOGETHER // (8 * max(widths) ** 2)) if where == CPU else 1
            room = min(room, len(self._state["cross"]))
            self._room[where] = [
                torch.empty((room, width, width), dtype=torch.float64, device=where) for width in widths
            ]
        matrices = self._room[where]
        if where != self._where or layer != self._first + self._count or self._count == len(matrices[0]):
            self.add()
        if not self._count:
            self._where, self._first = where, layer
            for matrix in matrices:
                matrix.zero_()
        self._count += 1
        return {name: matrix[self._count - 1] for name, matrix in zip(GRAMS, matrices, strict=True)}

    def add(self) -> None:
        """Add the matrices that wait."""
        if not self._count:
            return
        layers = slice(self._first, self._first + self._count)
        for name, matrices in zip(GRAMS, self._room[self._where], strict=True):
            totals, squares = self._state[name][layers], matrices[: self._count]
            if isinstance(totals, Tensor):
                add_packed(totals, squares)
            else:
                for total, square in zip(totals, squares, strict=True):
                    add_packed(total, square)
        self._count = 0


def add_sums(total: Tensor, part: Tensor | None, name: str) -> None:
    """Add a chunk's sums of this name to the kept ones, wherever those are."""
    if part is not None and name in GRAMS:
        add_packed(total, part.to(total.device))
    elif part is not None:
        total.add_(part.to(total.device))


def as_kept(name: str, tensor: Tensor) -> Tensor:
    """Return a state's tensor in today's form; earlier versions kept whole symmetric matrices (L, D, D)."""
    return torch.stack([packed(layer) for layer in tensor]) if name in GRAMS and tensor.ndim == 3 else tensor

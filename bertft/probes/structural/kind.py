"""Kinds of structural probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bertft.errors import BertftError
from bertft.runs.vocabulary import Probe


@dataclass(frozen=True)
class ProbeKind:
    """A linear probe of some rank, an orthogonal probe, or a probe with an RBF kernel of some rank."""

    kind: Literal["linear", "orthogonal", "rbf"]
    rank: int | None = None

    def __post_init__(self) -> None:
        if (self.kind == "orthogonal") != (self.rank is None):
            raise BertftError(f"structural probes: expected a rank unless orthogonal, found {self.kind}, {self.rank}")

    @property
    def setting(self) -> int | str:
        """The entry ``rank`` in the settings of kept probes."""
        if self.rank is None:
            return "orthogonal"
        return self.rank if self.kind == "linear" else f"{self.rank}, RBF kernel"

    def named(self, kinds: Sequence[ProbeKind]) -> Probe | None:
        """Return the part of names that tells this kind from the others of ``kinds``: None for a sole linear one."""
        if self.kind != "linear":
            return Probe(self.kind)
        return Probe("linear", self.rank) if sum(other.kind == "linear" for other in kinds) > 1 else None


def requested(ranks: Sequence[int], orthogonal: bool, rbf: bool) -> list[ProbeKind]:
    """Return linear probes of each rank, then orthogonal ones, then RBF-kernel ones of the highest rank."""
    kinds = [ProbeKind("linear", rank) for rank in dict.fromkeys(ranks)]
    if orthogonal:
        kinds.append(ProbeKind("orthogonal"))
    if rbf:
        kinds.append(ProbeKind("rbf", max(ranks)))
    return kinds

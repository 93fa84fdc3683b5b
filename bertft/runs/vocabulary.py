"""Names of measures, analyses and encoders in results tables.

A measure's name in ``results.csv`` has these parts; only the base is required:

    [mix_|cat_] [control_] base [_derived] [_rank8|_orthogonal|_rbf] [_base3]

with ``derived`` one of selectivity, difference, difference_p, p, error, null, null_max, calibrated and with_massive.

`MeasureName.parse` splits a name into its parts, and ``str`` joins them again. Three bases are irregular:

- ``f1[nsubj]``: base ``label_f1``, label ``nsubj``.
- ``local_rsa_upos=NOUN``: base ``local_rsa``, label ``NOUN``, grouping ``upos``. ``local_rsa_NOUN`` names no grouping.
- ``selectivity`` and ``class_1_selectivity``: the selectivity of ``micro_f1`` and of ``class_1_f1``.

Any other name is an unknown base. It has no bounds, and the name is its own title.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from bertft.errors import BertftError
from bertft.runs.catalogue import CATALOGUE, Kind, Measure

__all__ = [
    "BASE",
    "CATALOGUE",
    "NOISE",
    "OWN_TEXT",
    "PAIRED",
    "RANDOM",
    "Measure",
    "MeasureName",
    "Probe",
    "is_noise",
    "noise_of",
    "operands",
    "pair",
    "pairs_of_models",
]

BASE, RANDOM = "base", "random"  # reserved names of encoders
NOISE = "noise of "  # begins the reserved names of encoders with random changes
OWN_TEXT = "own_text"  # analysis: difference between two texts
PAIRED = ("difference", "along")  # analyses whose ``model`` is no encoder: a pair, a moment of the training

Derived = Literal[
    "selectivity", "difference", "difference_p", "p", "error", "null", "null_max", "calibrated", "with_massive"
]


@dataclass(frozen=True)
class Probe:
    """The kind of a structural probe, if a run trains several kinds or ranks."""

    kind: Literal["linear", "orthogonal", "rbf"]
    rank: int | None = None

    def __post_init__(self) -> None:
        if (self.kind == "linear") != (self.rank is not None):
            raise BertftError(f"measure: expected a rank for linear probes only, found {self.kind}, rank {self.rank}")

    def __str__(self) -> str:
        return f"rank{self.rank}" if self.kind == "linear" else self.kind


@dataclass(frozen=True)
class MeasureName:
    """The parts of a measure's name.

    Attributes:
        base: An entry of `CATALOGUE`.
        input: The input of an edge probe: one layer (None), the mix of layers 0..k (``mix``), or layer 0 beside layer k
            (``cat``).
        control: The same probe on control labels or control trees.
        derived: A value computed from scores (``selectivity``, ``difference``, ``difference_p``), the p-value of a
            permutation test (``p``), the error of an estimate (``error``), the value when texts trade places
            (``null``), its maximum over layers (``null_max``), the value on the scale from that null to 1
            (``calibrated``), or the value with massive activations (``with_massive``).
        probe: The kind of a structural probe.
        base_layer: The layer of the base encoder, in comparisons of all layers with all.
        label: One class of words or targets.
        grouping: The property that groups words into classes (``upos``, ``relation``, ...).

    Raises:
        BertftError: No name expresses these parts.
    """

    base: str
    input: Literal["mix", "cat"] | None = None
    control: bool = False
    derived: Derived | None = None
    probe: Probe | None = None
    base_layer: int | None = None
    label: str | None = None
    grouping: str | None = None

    def __post_init__(self) -> None:
        parts = self.control or self.derived or self.probe or self.base_layer is not None
        if self.base not in _LABELLED:
            valid = self.label is None and self.grouping is None
        elif self.label is None:
            valid = not parts and self.input is None and self.grouping is None
        elif self.base == "label_f1":
            valid = not parts and self.grouping is None
        else:
            text = self.label if self.grouping is None else self.grouping
            written = f"local_rsa_{self.label}"
            clear = "=" not in text and (self.grouping is not None or written not in CATALOGUE)
            valid = not parts and self.input is None and clear
        if not valid:
            raise BertftError(f"measure: no name expresses these parts together: {self!r}")

    @classmethod
    def parse(cls, name: str) -> MeasureName:
        """Return the parts of ``name``. A name outside the grammar becomes an unknown base."""
        return _parse(name)

    @classmethod
    def rsa(cls, metric: str, compare: str) -> MeasureName:
        """Return RSA of ``metric`` dissimilarities compared by ``compare``."""
        return cls(f"rsa_{metric}_{compare}")

    @classmethod
    def neighbours(cls, k: int) -> MeasureName:
        """Return the share of mutual ``k`` nearest neighbours."""
        return cls(f"mutual_knn_{k}")

    @classmethod
    def direction_share(cls, j: int) -> MeasureName:
        """Return the share of the ``j``-th direction of a change, counted from 1."""
        return cls(f"direction_share_{j}")

    @classmethod
    def swapped(cls, way: str, measure: str) -> MeasureName:
        """Return a ``measure`` of the top layer with one block exchanged: ``way`` is ``swap_in`` or ``swap_out``."""
        return cls(f"{way}_{measure}")

    def __str__(self) -> str:
        start = f"{self.input}_" if self.input else ""
        if self.label is not None and self.base == "label_f1":
            return f"{start}f1[{self.label}]"
        if self.label is not None:
            return f"local_rsa_{self.label}" if self.grouping is None else f"local_rsa_{self.grouping}={self.label}"
        start += "control_" if self.control else ""
        if self.derived == "selectivity" and self.base in _SELECTIVITY:
            middle = _SELECTIVITY[self.base]
        else:
            middle = f"{self.base}_{self.derived}" if self.derived else self.base
        end = f"_{self.probe}" if self.probe else ""
        return f"{start}{middle}{end}" + ("" if self.base_layer is None else f"_base{self.base_layer}")

    @property
    def measure(self) -> Measure:
        """Return the entry of the base; an unknown base gets one without bounds."""
        if self.base in CATALOGUE:
            return CATALOGUE[self.base]
        return Measure(self.base, "space", "share" if re.fullmatch(_NEIGHBOURS, self.base) else "quantity")

    @property
    def kind(self) -> Kind:
        """Return the kind of the value: the base's kind unless the value is derived."""
        if self.derived is None or self.derived in _OF_THE_SAME_KIND:
            return self.measure.kind
        return "p_value" if self.derived in ("p", "difference_p") else "quantity"

    @property
    def bounds(self) -> tuple[float, float]:
        """Return the smallest and largest possible value. Differences have no bounds worth enforcing."""
        same = self.derived is None or self.derived in _OF_THE_SAME_KIND
        return self.measure.bounds if same else (-math.inf, math.inf)

    @property
    def percent(self) -> bool:
        """Return whether the value runs from 0 to 100."""
        return self.measure.percent

    @property
    def plain(self) -> MeasureName:
        """Return the base with its ``input``, without control, derivation, probe and label."""
        return MeasureName(self.base, input=self.input)

    @property
    def group(self) -> str:
        """Return one name shared by all layers of the base encoder, or by all labels of a grouping."""
        if self.base_layer is not None:
            return f"{replace(self, base_layer=None)} by layers of both"
        return str(self) if self.grouping is None else f"local_rsa_{self.grouping}"

    @property
    def title(self) -> str:
        """Return the title of a panel."""
        return self.measure.title or self.measure.name

    @property
    def short(self) -> str:
        """Return the name for sentences."""
        return self.measure.short or self.title

    @property
    def axis(self) -> str:
        """Return the label of an axis."""
        return self.measure.axis or self.measure.name


_SELECTIVITY = {"micro_f1": "selectivity", "class_1_f1": "class_1_selectivity"}  # irregular names
_LABELLED = ("label_f1", "local_rsa")  # bases of one class of targets or words
_OF_THE_SAME_KIND = ("null", "null_max", "with_massive")  # derived values that are values of the base


_NEIGHBOURS = r"mutual_knn_[1-9]\d*"  # of any number of neighbours
_REGULAR = "|".join(name for name in CATALOGUE if name not in _LABELLED)
_GRAMMAR = re.compile(
    rf"(?:(?P<input>mix|cat)_)?(?P<control>control_)?"
    rf"(?:(?P<irregular>{'|'.join(_SELECTIVITY.values())})"
    rf"|(?P<base>{_REGULAR}|{_NEIGHBOURS})(?:_(?P<derived>{'|'.join(get_args(Derived))}))?)"
    rf"(?:_(?:rank(?P<rank>\d+)|(?P<probe>orthogonal|rbf)))?(?:_base(?P<base_layer>\d+))?"
)
_LABEL_F1 = re.compile(r"(?:(?P<input>mix|cat)_)?f1\[(?P<label>.*)\]", re.DOTALL)
_LOCAL_RSA = re.compile(r"local_rsa_(?:(?P<grouping>[^=]*)=)?(?P<label>.*)", re.DOTALL)


@functools.lru_cache(maxsize=4096)
def _parse(name: str) -> MeasureName:
    parsed = _parts(name)
    return parsed if parsed is not None and str(parsed) == name else MeasureName(name)  # "uuas_rank08" is no rank


def _parts(name: str) -> MeasureName | None:
    parts: dict[str, Any]
    if found := _GRAMMAR.fullmatch(name):
        parts = found.groupdict()
        if irregular := parts.pop("irregular"):
            parts["base"] = next(base for base, written in _SELECTIVITY.items() if written == irregular)
            parts["derived"] = "selectivity"
        parts["control"] = bool(parts["control"])
        if (rank := parts.pop("rank")) is not None:
            parts["probe"] = Probe("linear", int(rank))
        elif parts["probe"] is not None:
            parts["probe"] = Probe(parts["probe"])
        if parts["base_layer"] is not None:
            parts["base_layer"] = int(parts["base_layer"])
        return MeasureName(**parts)
    if found := _LABEL_F1.fullmatch(name):
        parts = found.groupdict()
        return MeasureName("label_f1", **parts)
    if found := _LOCAL_RSA.fullmatch(name):
        parts = found.groupdict()
        return MeasureName("local_rsa", **parts)
    return None


def noise_of(model: str) -> str:
    """Return the name of the encoder that differs from the base by noise of the size of ``model``'s change."""
    return f"{NOISE}{model}"


def is_noise(model: str) -> bool:
    """Return whether ``model`` is a name that `noise_of` gives."""
    return model.startswith(NOISE)


def pairs_of_models(models: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each two of ``models`` whose difference is of interest: noise differs from its own encoder only."""
    for first, second in itertools.combinations(models, 2):
        apart = not (is_noise(first) or is_noise(second))
        if apart or first == noise_of(second) or second == noise_of(first):
            yield first, second


PAIR = " - "


def pair(first: str, second: str) -> str:
    """Return the name of a difference, first minus second, of two encoders or texts."""
    return f"{first}{PAIR}{second}"


def operands(name: str, known: Collection[str] = ()) -> tuple[str, str]:
    """Return the two names that `pair` joined. Names that contain `` - `` themselves must be among ``known``."""
    parts = name.split(PAIR)
    splits = [(PAIR.join(parts[:i]), PAIR.join(parts[i:])) for i in range(1, len(parts))]
    both = (split for split in splits if set(split) <= set(known))
    return next(both, splits[0] if splits else (name, ""))

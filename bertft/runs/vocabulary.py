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
DIRECTIONS = 10  # most directions of a change that have rows, and singular values of a matrix

Kind = Literal["share", "correlation", "distance", "count", "quantity", "p_value"]
Derived = Literal[
    "selectivity", "difference", "difference_p", "p", "error", "null", "null_max", "calibrated", "with_massive"
]
Family = Literal["RSA", "CKA", "space", "words", "change", "structural", "edge", "task", "training"]

# `bertft.ops.metrics` has the same names, but stands on the same floor as this package.
METRICS = ("dot", "cosine", "correlation", "sqeuclidean", "euclidean", "manhattan")
COMPARISONS = {
    "pearson": "Pearson r",
    "cosine": "cosine",
    "spearman": "Spearman ρ",
    "rho_a": "rho_a",
    "kendall": "kendall",
}


@dataclass(frozen=True)
class Measure:
    """One entry of the catalogue.

    ``title`` heads a panel, ``short`` is for sentences, ``axis`` labels an axis. ``kind`` determines the bounds. A
    share runs from 0 to 1, or from 0 to 100 if ``percent``.
    """

    name: str
    family: Family
    kind: Kind
    title: str = ""
    short: str = ""
    axis: str = ""
    percent: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        """Return the smallest and largest possible value, infinite unless a measure is bounded on both sides."""
        if self.kind == "share":
            return 0.0, 100.0 if self.percent else 1.0
        return (-1.0, 1.0) if self.kind == "correlation" else (-math.inf, math.inf)


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


def _entries() -> Iterator[Measure]:
    """Yield every measure that any analysis writes."""
    for metric in METRICS:
        for compare, words in COMPARISONS.items():
            axis = f"RSA similarity ({words} of {metric} RDMs)"
            yield Measure(f"rsa_{metric}_{compare}", "RSA", "correlation", "RSA", "RSA", axis)
    cka = "linear CKA, debiased (1 = same geometry)"
    yield Measure("cka_debiased", "CKA", "correlation", "CKA", "CKA", cka)
    yield Measure("cka_rbf", "CKA", "correlation", "CKA", "CKA")
    yield Measure("cka_biased", "CKA", "share", "CKA", "CKA", "linear CKA as first published (biased)")
    for name in ("cca", "svcca", "pwcca", "procrustes"):
        yield Measure(name, "space", "share")
    yield Measure("shape_distance", "space", "distance")
    yield Measure("linear_r2", "space", "quantity")
    yield Measure("effective_dimension", "space", "count")
    yield Measure("anisotropy", "space", "quantity")
    yield Measure("massive_stimuli", "space", "count")
    yield Measure("largest_dimension_share", "space", "share")
    yield Measure("largest_dimension", "space", "count")
    yield Measure("local_rsa", "words", "correlation", "local RSA")
    yield Measure("local_rsa_correlation", "words", "correlation", "correlation of local RSA")
    yield from _of_changes()
    yield from _of_probes()
    yield from _of_training()


def _of_probes() -> Iterator[Measure]:
    """Yield the measures of structural and edge probes."""
    lengths = "(Spearman, mean of lengths 5–50)"
    yield Measure("dspr", "structural", "correlation", "Tree distances", "DSpr", f"DSpr {lengths}")
    yield Measure("uuas", "structural", "share", "Tree edges", "UUAS", "UUAS (share of gold edges)")
    yield Measure("nspr", "structural", "correlation", "Tree depths", "NSpr", f"NSpr {lengths}")
    root = "root accuracy"
    yield Measure("root_accuracy", "structural", "share", "Root", root, f"{root} (share of sentences)")
    yield Measure("micro_f1", "edge", "share", "micro-F1", axis="micro-F1")
    yield Measure("class_1_f1", "edge", "share", "F1 of class 1")
    yield Measure("label_f1", "edge", "share", "F1 of one label")
    yield Measure("description_bits", "edge", "count")
    yield Measure("compression", "edge", "quantity")
    yield Measure("expected_layer", "edge", "quantity")
    yield Measure("centre_of_gravity", "edge", "quantity")


def _of_training() -> Iterator[Measure]:
    """Yield the scores of tasks and the measures of their training."""
    for score in (
        Measure("las_conll18", "task", "share", "LAS", axis="LAS (CoNLL 2018)", percent=True),
        Measure("uas_conll18", "task", "share", "UAS", percent=True),
        Measure("las_nopunct", "task", "share", percent=True),
        Measure("uas_nopunct", "task", "share", percent=True),
        Measure("f1", "task", "share", "F1", axis="F1", percent=True),
        Measure("exact_match", "task", "share", "exact match", percent=True),
        Measure("accuracy", "task", "share", "accuracy"),
    ):
        yield score
        yield replace(score, name=f"{score.name}_kept", axis="")  # trained on cached output of the frozen blocks
    yield Measure("trained_parameters", "training", "count")
    yield Measure("relative_weight_distance", "training", "distance")
    for name in ("cpu_seconds", "cpu_seconds_kept", "cpu_seconds_filling", "time_ratio"):
        yield Measure(name, "training", "quantity")


def _of_changes() -> Iterator[Measure]:
    """Yield the measures of the change from one encoder to another."""
    yield Measure("mean_shift_share", "change", "share", "Mean shift", axis="share of the change")
    yield Measure("direction_rank", "change", "quantity", "Effective rank", axis="directions")
    for j in range(1, DIRECTIONS + 1):
        title = "First direction" if j == 1 else f"Direction {j}"
        yield Measure(f"direction_share_{j}", "change", "share", title, axis="share of the variance of the change")
    yield Measure("weight_change_rank", "change", "quantity", "Effective rank", axis="effective rank of W' - W")
    share = "share of |W' - W|²"
    yield Measure("weight_change_share_1", "change", "share", "First singular value", axis=share)
    yield Measure("intruder_dimensions", "change", "count", "Intruder dimensions", axis="intruders among the first 10")
    similarities = [f"rsa_{metric}_pearson" for metric in METRICS] + ["cka_debiased"]
    for way, title in (("swap_in", "One tuned block in the base"), ("swap_out", "One base block in the tuned encoder")):
        for name in similarities:
            kind = "CKA" if name.startswith("cka") else "RSA"
            yield Measure(
                f"{way}_{name}", "change", "correlation", f"{title}: {kind}", axis=f"{kind} of the top layers"
            )


CATALOGUE = {measure.name: measure for measure in _entries()}
"""Every measure by name, in the order of their panels."""

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

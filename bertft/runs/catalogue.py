"""Catalogue of measures: family, kind, bounds and labels by the base of their names."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

DIRECTIONS = 10  # most directions of a change that have rows, and singular values of a matrix

Kind = Literal["share", "correlation", "distance", "count", "quantity", "p_value"]
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

"""The analyses of a study, one module each."""

from __future__ import annotations

from typing import Any

from bertft.study.analyses.ablation import Ablation
from bertft.study.analyses.causes import Causes
from bertft.study.analyses.directions import Directions
from bertft.study.analyses.edge import Edge
from bertft.study.analyses.finetuning import Finetuning
from bertft.study.analyses.rsa import Rsa
from bertft.study.analyses.structural import Structural
from bertft.study.analyses.weights import Weights
from bertft.study.analyses.words import Words
from bertft.study.analysis import Analysis

__all__ = ["ANALYSES"]

ANALYSES: list[Analysis[Any]] = sorted(
    [Finetuning(), Rsa(), Words(), Structural(), Edge(), Ablation(), Weights(), Directions(), Causes()],
    key=lambda analysis: analysis.order,
)
"""Every analysis that a study may ask for, in the order in which they run."""

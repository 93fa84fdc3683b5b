"""Sentences on massive activations and on dimensions that carry a layer's variance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bertft.runs.rows import Row

TASK = "sinks"


def left_out(rows: Sequence[Row]) -> list[str]:
    """Return a sentence for each encoder and text with massive activations, then with a dominant dimension."""
    own = [row for row in rows if row.task == TASK]
    return [*_massive(own), *_dimensions(own)]


def _massive(rows: Sequence[Row]) -> list[str]:
    sentences = []
    for (model, data), found in _by_text(rows, "massive_stimuli").items():
        layers = [row for row in found if row.value]
        if not layers:
            continue
        most = max(layers, key=lambda row: row.value)
        sentences.append(
            f"{model} on {data}: up to {most.value:,.0f} of {most.n:,} stimuli are massive activations (layers "
            f"{_numbers(layers)}). All measures leave them out; <measure>_with_massive counts them in."
        )
    return sentences


def _dimensions(rows: Sequence[Row]) -> list[str]:
    which = {(row.model, row.data, row.layer): row.value for row in rows if row.measure == "largest_dimension"}
    sentences = []
    for (model, data), found in _by_text(rows, "largest_dimension_share").items():
        most = max(found, key=lambda row: row.value)
        sentences.append(
            f"{model} on {data}: one dimension carries over a quarter of the variance in layers {_numbers(found)}, "
            f"at most {most.value:.0%} (layer {most.layer}, dimension {which[model, data, most.layer]:.0f})."
        )
    return sentences


def _by_text(rows: Iterable[Row], measure: str) -> dict[tuple[str, str], list[Row]]:
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.measure == measure:
            found.setdefault((row.model, row.data), []).append(row)
    return found


def _numbers(rows: Iterable[Row]) -> str:
    return ", ".join(str(row.layer) for row in rows)

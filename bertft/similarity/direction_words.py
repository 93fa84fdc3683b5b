"""Tables of directions: words and vocabulary at both ends."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from bertft.models.logit_lens import LogitLens
from bertft.runs.files import write_text_atomically
from bertft.similarity.directions import MEAN, LayerDirections

FILES = ("directions.csv", "direction_tokens.csv")
"""The files of `write_directions`."""


def write_directions(
    found: Mapping[str, Sequence[LayerDirections]],
    out: Path,
    data: str,
    lens: LogitLens | None = None,
    *,
    extremes: int = 10,
) -> None:
    """Write the tables of `directions_of_change` into ``out``.

    ``directions.csv`` has the words at both ends of each direction in their texts, ``direction_tokens.csv`` the
    vocabulary at both ends (`LogitLens`), and the output embedding that was used. The direction ``mean`` is the mean
    shift. Without a ``lens`` the second table is empty. ``value`` is the projection of one stimulus, ``mean`` that of
    all sampled stimuli with its word, and ``count`` their number.
    """
    words: list[list[object]] = [
        ["model", "data", "layer", "direction", "share", "low", "high", "end", "value", "word", "text", "context",
         "count", "mean"]
    ]  # fmt: skip
    tokens: list[list[object]] = [["model", "data", "layer", "direction", "end", "value", "token", "embedding"]]
    for name, layers in found.items():
        for one in layers:
            shares = dict(enumerate(one.shares, start=1))
            if one.mean_shift_share is not None:
                shares[MEAN] = one.mean_shift_share
            for e in one.ends:
                share = shares[e.direction]
                head = [name, data, one.layer, _number(e.direction), share.value, share.low, share.high]
                words.append([*head, e.end, e.value, e.word, e.text, e.context, e.count, e.mean])
            if lens is not None:
                tokens += [
                    [name, data, one.layer, _number(number), end, value, token, lens.source]
                    for number, end, value, token in tokens_of(one, lens, extremes)
                ]
    for file, table in zip(FILES, (words, tokens), strict=True):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(table)
        write_text_atomically(out / file, text.getvalue())


def tokens_of(one: LayerDirections, lens: LogitLens, count: int = 10) -> list[tuple[int, str, float, str]]:
    """Return (direction, end, logit, token) of the vocabulary at both ends of the mean shift and of each direction."""
    axes = dict(enumerate(one.vectors, start=1))
    if one.mean.any():
        axes = {MEAN: one.mean / one.mean.norm(), **axes}
    return [
        (number, end, value, token)
        for number, axis in axes.items()
        for end, listed in zip(("high", "low"), lens.tokens(axis, one.layer, count), strict=True)
        for token, value in listed
    ]


def _number(direction: int) -> object:
    return "mean" if direction == MEAN else direction

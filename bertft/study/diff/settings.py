"""Settings of ``bertft diff``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any

from bertft.runs.settings import Count, Settings, Within
from bertft.study.config import LATER, LoadedAs, Unit

ENGLISH = "builtin:english"  # as in `bertft.data.english`, without importing it for `--help`


@dataclass(frozen=True, kw_only=True)
class DiffOptions(Settings):
    """Options of ``bertft diff``, beside the encoders."""

    text: str = ENGLISH
    tokens: str = "5000"
    unit: Unit = "token"
    skip_first: str = "auto"
    dtype: LoadedAs = "float32"
    split: str | None = None
    in_turn: bool = False
    seed: int = 1337


@dataclass(frozen=True, kw_only=True)
class DiffCommand(Settings):
    """Settings of one diff.

    Attributes:
        base: the encoder to compare with.
        tuned: the encoders to compare, by name.
        text: source of the text, or a description of texts given in Python.
        tokens: number of stimuli, None for the whole text.
        unit: token or word.
        skip_first: tokens to leave out at the beginning of every text, None to choose by the base encoder.
        dtype: of the encoders' weights.
        split: of a data set.
        in_turn: keep the base's vectors on disk and load one model after the other.
        seed: of the order in which texts are drawn, and of the sample behind the intervals.
    """

    base: str
    tuned: dict[str, str]
    text: str = ENGLISH
    tokens: Annotated[int, Within(ge=4)] | None = 5000
    unit: Unit = "token"
    skip_first: Count | None = field(default=None, metadata=LATER)
    dtype: LoadedAs = "float32"
    split: str | None = field(default=None, metadata=LATER)
    in_turn: bool = field(default=False, metadata=LATER)
    seed: int = 1337

    def to_tree(self) -> dict[str, Any]:
        """Return the settings as ``config.yaml`` holds them."""
        tree = {"command": "diff", **dataclasses.asdict(self), "tokens": self.tokens or "all"}
        tree["skip_first"] = self.skip_first or None  # omitted at its default
        tree["in_turn"] = self.in_turn or None
        return {name: value for name, value in tree.items() if value is not None}

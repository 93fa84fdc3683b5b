"""The file ``massive.json``: places and tokens of massive activations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bertft.models.encoder import Encoder
from bertft.runs.files import write_text_atomically
from bertft.similarity import Plan
from bertft.similarity.compare.stimuli import token_at
from bertft.similarity.sinks import Place

MASSIVE = "massive.json"


def write_massive(
    massive: Sequence[Place],
    base: Encoder,
    names: Sequence[str],
    texts: Iterable[Any],
    about: tuple[Plan, str, int],
    out: Path,
) -> None:
    """Write ``massive.json``, the places and tokens of massive activations, if there are any.

    Args:
        massive: the places, as `bertft.similarity.compare_stream` lists them.
        base: the encoder that reads the tokens.
        names: of the encoders, the base first.
        texts: the texts in the order in which they were compared.
        about: the plan, the unit, and the number of tokens left out at the beginning of each text.
        out: the run folder.
    """
    if not massive:
        return
    plan, unit, skipped = about
    wanted = {place.text for place in massive}
    found = {i: text for i, text in zip(range(max(wanted) + 1), texts, strict=False) if i in wanted}
    table = [
        {
            "encoder": names[place.encoder], "text": place.text,
            "layers": [plan.number(layer) for layer in (place.first_layer, place.last_layer)],
            "position": place.stimulus + skipped,
            "token": token_at(base, found[place.text], unit, place.stimulus),
        }
        for place in massive
    ]  # fmt: skip
    lines = ",\n".join(f" {json.dumps(entry, ensure_ascii=False)}" for entry in table)
    write_text_atomically(out / MASSIVE, f"[\n{lines}\n]\n")

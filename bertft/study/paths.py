"""Check of a command's paths before anything is imported or loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable

from bertft.data.sources import check_source
from bertft.models.names import check_model
from bertft.runs.folder import check_place


def check_paths(models: Iterable[str], texts: Iterable[str], out: str | os.PathLike[str] | None) -> None:
    """Raise ``BertftError`` for a run folder that cannot be, a missing text and a model that there is not.

    Imports neither torch nor transformers, so that a mistyped path is refused at once.
    """
    if out is not None:
        check_place(out)
    for text in texts:
        check_source(text)
    for model in models:
        check_model(model)

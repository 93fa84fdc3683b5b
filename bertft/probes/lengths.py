"""Sentences longer than an encoder's window, found before anything is done with the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bertft.runs.progress import SILENT, Progress

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder


def check_lengths(
    window: str, encoders: Iterable[Encoder], corpora: Mapping[str, Sequence[Any]], progress: Progress = SILENT
) -> None:
    """Refuse a sentence longer than the window of one of the encoders, unless ``window`` says to ``split`` it.

    ``corpora`` hold examples with an ``id`` and ``words``, by the name that the ``BertftError`` gives them.
    """
    from bertft.data.alignment import align_words

    if window == "split":
        return
    chosen = list(encoders)
    with progress.step("check the lengths", total=len(chosen) * len(corpora), unit="corpora") as bar:
        for encoder in chosen:
            for name, examples in corpora.items():
                names = [f"{example.id} of the {name} data" for example in examples]
                align_words(encoder.tokenizer, [e.words for e in examples], encoder.max_length, names=names)
                bar.advance()

"""Agreement of two tuned encoders on which words they move.

It is the correlation over words of how far each encoder has moved them from the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from bertft.errors import BertftError
from bertft.runs.intervals import correlation_interval
from bertft.runs.progress import SILENT, Progress
from bertft.similarity.words.moved import local_of_words

if TYPE_CHECKING:
    from bertft.data.examples import Sentence
    from bertft.models.encoder import Encoder

MOVED = 1e-5  # standard deviation of local RSA below which a layer has not moved; rounding in float32 is near 1e-7


class Agreement(NamedTuple):
    """Pearson correlation over the ``n`` words of a text in a layer, with its 95 % interval."""

    layer: int
    value: float
    low: float
    high: float
    n: int


def words_agree(
    base: Encoder,
    first: Encoder,
    second: Encoder,
    sentences: Sequence[Sentence],
    *,
    metric: str = "cosine",
    resamples: int = 1000,
    seed: int = 0,
    progress: Progress = SILENT,
) -> list[Agreement]:
    """Return how alike ``first`` and ``second`` are in which words of ``sentences`` they moved away from ``base``.

    Each word has a local RSA (`bertft.similarity.words.local_rsa`) between the base and either encoder. The two are
    correlated over all words, layer by layer. A layer that either encoder left unchanged, such as a frozen one, has no
    such correlation and is left out. Intervals are percentiles of a bootstrap over sentences.
    """
    if len(sentences) < 2:
        raise BertftError(f"words: needs at least 2 sentences for an interval, found {len(sentences)}")
    texts = [sentence.words for sentence in sentences]
    both = {"first": first, "second": second}
    moved = local_of_words(base, both, texts, metric=metric, title="words that moved alike", progress=progress)
    groups = torch.repeat_interleave(torch.tensor([len(words) for words in texts]))
    found = []
    for layer, (x, y) in enumerate(zip(*moved.values(), strict=False)):  # those that all three have
        if min(float(x.std()), float(y.std())) > MOVED:
            found.append(Agreement(layer, *correlation_interval(x, y, groups, resamples, seed), len(x)))
    return found

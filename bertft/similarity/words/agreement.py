"""Do two tuned encoders move the same words? Correlation over words of how far each has moved from the base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from bertft.errors import BertftError
from bertft.runs.progress import SILENT, Progress
from bertft.similarity.words.moved import local_of_words

if TYPE_CHECKING:
    from bertft.data.examples import Sentence
    from bertft.models.encoder import Encoder

MOVED = 1e-5  # standard deviation of local RSA below which a layer has not moved: float32 vectors' rounding is at 1e-7


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
    """How alike ``first`` and ``second`` are in which words of ``sentences`` they moved away from ``base``.

    Each word has a local RSA (`bertft.similarity.words.local_rsa`) to the base in either encoder; the two are correlated over all
    words, layer by layer. Layers that either encoder left as they were (frozen ones, say) have no such correlation and
    are left out. Intervals are percentiles of a bootstrap over sentences.
    """
    if len(sentences) < 2:
        raise BertftError(f"words: needs at least 2 sentences for an interval, found {len(sentences)}")
    texts = [sentence.words for sentence in sentences]
    both = {"first": first, "second": second}
    moved = local_of_words(base, both, texts, metric=metric, told="words that moved alike", progress=progress)
    groups = torch.repeat_interleave(torch.tensor([len(words) for words in texts]))
    found = []
    for layer, (x, y) in enumerate(zip(*moved.values(), strict=False)):  # those that all three have
        if min(float(x.std()), float(y.std())) > MOVED:
            found.append(Agreement(layer, *correlation(x, y, groups, resamples, seed), len(x)))
    return found


def correlation(x: Tensor, y: Tensor, groups: Tensor, resamples: int, seed: int) -> tuple[float, float, float]:
    """Pearson correlation of x (R,) and y (R,), and the ends of its 95 % interval over the ``groups`` (R,) of items.

    A resample draws as many groups as there are, each with all its items; its correlation follows from sums a group.
    """
    x, y = x - x.mean(), y - y.mean()
    columns = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], dim=1)
    count = int(groups.max()) + 1
    totals = torch.zeros(count, 6, dtype=columns.dtype).index_add_(0, groups, columns)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(count, (resamples, count), generator=generator)
    weights = torch.zeros(resamples + 1, count, dtype=columns.dtype)
    weights[0] = 1
    weights[1:].scatter_add_(1, drawn, torch.ones_like(drawn, dtype=columns.dtype))
    n, sx, sy, sxx, syy, sxy = (weights @ totals).unbind(1)
    values = (n * sxy - sx * sy) / ((n * sxx - sx * sx) * (n * syy - sy * sy)).sqrt()
    low, high = torch.quantile(values[1:], torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return float(values[0]), low, high

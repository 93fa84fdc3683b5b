"""Words that moved most and least between two encoders.

The local RSA of every word gives means by label and by sentence, and the extremes in context.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bertft.data.examples import Sentence, Text
from bertft.runs.files import write_text_atomically
from bertft.runs.progress import SILENT, Progress
from bertft.runs.shown import Cells, as_html, as_text, interval, number
from bertft.similarity.compare.stimuli import in_windows, shared_layers, side_by_side
from bertft.similarity.moments import CrossMoments
from bertft.similarity.words.labels import as_words, labels_of
from bertft.similarity.words.local_rsa import LabelMean, local_rsa, mean_by_label

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder


@dataclass(frozen=True)
class Word:
    """One word in its sentence, marked by ``[...]``, and its local RSA in one layer."""

    layer: int
    value: float
    word: str
    sentence: str
    context: str


@dataclass(frozen=True)
class MovedSentence:
    """A sentence and the mean local RSA of its ``n`` words in one layer."""

    layer: int
    value: float
    sentence: str
    n: int
    text: str


@dataclass(frozen=True)
class Moved:
    """Means and extremes of local RSA.

    Attributes:
        by: means of each label and layer, by kind of label.
        most: the words that moved most.
        least: the words that moved least.
        sentences_most: the sentences that moved most.
        sentences_least: the sentences that moved least.
    """

    by: dict[str, list[LabelMean]]
    most: list[Word]
    least: list[Word]
    sentences_most: list[MovedSentence]
    sentences_least: list[MovedSentence]

    def __repr__(self) -> str:
        return "\n\n".join(as_text(table) for table in self._tables())

    def _repr_html_(self) -> str:
        return "".join(as_html(table) for table in self._tables())

    def _tables(self) -> Iterator[Cells]:
        """Yield the last layer's means by label, lowest first, and the words at both ends."""
        last = max((word.layer for word in self.most), default=0)
        for kind, means in self.by.items():
            own = sorted((mean for mean in means if mean.layer == last), key=lambda mean: mean.value)
            cells = [[str(m.label), number(m.value), interval(m.low, m.high), f"{m.n:,}"] for m in own]
            yield f"local RSA by {kind} at layer {last} (1 = not moved)", [kind, "value", "95 % interval", "n"], cells
        for which, words in (("most", self.most), ("least", self.least)):
            cells = [[number(word.value), word.context] for word in words if word.layer == last]
            yield f"words that moved {which} at layer {last}", ["value", "in context"], cells


FILES = ("local.csv", "words.csv", "sentences.csv")
"""The files of `write_moved`, which the report draws."""


def write_moved(found: Mapping[str, Mapping[str, Moved]], out: Path, data: str) -> None:
    """Write the tables of each metric and encoder into ``out``.

    ``local.csv`` has means by label, ``words.csv`` the words that moved most and least in context, ``sentences.csv``
    the sentences.
    """
    means: list[list[object]] = [["model", "data", "metric", "layer", "by", "label", "value", "low", "high", "n"]]
    words: list[list[object]] = [["model", "data", "metric", "layer", "moved", "value", "word", "sentence", "context"]]
    whole: list[list[object]] = [["model", "data", "metric", "layer", "moved", "value", "n", "sentence", "text"]]
    for metric, encoders in found.items():
        for name, moved in encoders.items():
            head = [name, data, metric]
            for kind, table in moved.by.items():
                means += [[*head, r.layer, kind, r.label, r.value, r.low, r.high, r.n] for r in table]
            for which, listing in (("most", moved.most), ("least", moved.least)):
                words += [[*head, w.layer, which, w.value, w.word, w.sentence, w.context] for w in listing]
            for which, texts in (("most", moved.sentences_most), ("least", moved.sentences_least)):
                whole += [[*head, s.layer, which, s.value, s.n, s.sentence, s.text] for s in texts]
    for file, rows in zip(FILES, (means, words, whole), strict=True):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        write_text_atomically(out / file, text.getvalue())


def words_that_moved(
    base: Encoder,
    tuned: Mapping[str, Encoder],
    sentences: Sequence[Sentence | Text],
    by: Sequence[str] = ("upos",),
    *,
    metric: str = "cosine",
    float64: bool = False,
    extremes: int = 20,
    batch_tokens: int = 4096,
    progress: Progress = SILENT,
) -> dict[str, Moved]:
    """Return means and extremes of the local RSA of all words, between ``base`` and each tuned encoder.

    Takes two passes: sums first, then each word against them (`bertft.similarity.words.local_rsa`).

    Args:
        base: the encoder before fine-tuning.
        tuned: encoders by name.
        sentences: a text's words are separated by white space. Sentences longer than an encoder's window run in
            windows.
        by: the kinds of label (`bertft.similarity.words.labels`) whose means are taken, with 95 % intervals clustered
            by sentence.
        metric: as in `CrossMoments`.
        float64: as in `CrossMoments`.
        extremes: number of words and sentences per layer at either end.
        batch_tokens: tokens in a batch, padding included.
        progress: receives the step.

    Raises:
        BertftError: The sentences lack a label, or it is unknown.
    """
    labels, whole = labels_of(by, sentences), [as_words(sentence) for sentence in sentences]
    found = local_of_words(
        base, tuned, [sentence.words for sentence in whole], metric=metric, float64=float64,
        batch_tokens=batch_tokens, title="words that moved", progress=progress,
    )  # fmt: skip
    groups = torch.repeat_interleave(torch.tensor([len(sentence.words) for sentence in whole]))
    return {
        name: Moved(
            {kind: mean_by_label(values, of_words, groups) for kind, of_words in labels.items()},
            _extremes(values, groups, whole, extremes, most=True),
            _extremes(values, groups, whole, extremes, most=False),
            _extreme_sentences(values, groups, whole, extremes, most=True),
            _extreme_sentences(values, groups, whole, extremes, most=False),
        )
        for name, values in found.items()
    }


def local_of_words(
    base: Encoder,
    tuned: Mapping[str, Encoder],
    whole: Sequence[Sequence[str]],
    *,
    metric: str,
    title: str,
    float64: bool = False,
    batch_tokens: int = 4096,
    progress: Progress = SILENT,
) -> dict[str, Tensor]:
    """Return the local RSA (L, R) float64 of all words of the texts ``whole``, in order, for each tuned encoder.

    L is the number of layers that it shares with the base. ``title`` names the step that ``progress`` shows.
    """
    layers = shared_layers(base, tuned)
    sums = {name: CrossMoments(count, count, metric, float64=float64) for name, count in layers.items()}
    texts = [part for _, part in in_windows(whole, [base, *tuned.values()])]
    starts = torch.tensor([0, *map(len, texts)]).cumsum(0)
    total = int(starts[-1])
    found = {name: torch.full((count, total), math.nan, dtype=torch.float64) for name, count in layers.items()}

    def batches() -> Iterator[tuple[Tensor, Tensor, list[Tensor]]]:
        return side_by_side([e.stream(texts, batch_tokens=batch_tokens) for e in (base, *tuned.values())])

    def places(index: Tensor, lengths: Tensor) -> Tensor:
        pairs = zip(index.tolist(), lengths.tolist(), strict=True)
        return torch.cat([torch.arange(int(starts[i]), int(starts[i]) + n) for i, n in pairs])

    with progress.step(title, total=2 * total, unit="words") as step, torch.inference_mode():
        for _, lengths, spaces in batches():
            for name, space in zip(tuned, spaces[1:], strict=True):
                sums[name].update(spaces[0][: layers[name]], space[: layers[name]])
            step.advance(int(lengths.sum()))
        for index, lengths, spaces in batches():
            where = places(index, lengths)
            for name, space in zip(tuned, spaces[1:], strict=True):
                x, y = spaces[0][: layers[name]].cpu(), space[: layers[name]].cpu()
                found[name][:, where] = local_rsa(sums[name], x, y)
            step.advance(int(lengths.sum()))
    return found


def _extremes(values: Tensor, groups: Tensor, sentences: Sequence[Sentence], count: int, *, most: bool) -> list[Word]:
    """Return the words with the lowest (``most``) or highest local RSA of each layer."""
    listed = []
    starts = torch.bincount(groups).cumsum(0) - torch.bincount(groups)
    for layer, row in enumerate(values):
        for i in row.argsort(descending=not most, stable=True)[:count].tolist():
            sentence = sentences[int(groups[i])]
            at = i - int(starts[groups[i]])
            marked = [f"[{word}]" if place == at else word for place, word in enumerate(sentence.words)]
            context = " ".join(marked[max(0, at - 12) : at + 13])
            listed.append(Word(layer, float(row[i]), sentence.words[at], sentence.id, context))
    return listed


def _extreme_sentences(
    values: Tensor, groups: Tensor, sentences: Sequence[Sentence], count: int, *, most: bool
) -> list[MovedSentence]:
    """Return the sentences with the lowest (``most``) or highest mean local RSA of each layer."""
    sizes = torch.bincount(groups, minlength=len(sentences))
    filled = sizes.nonzero()[:, 0]
    means = values.new_zeros(len(values), len(sentences)).index_add_(1, groups, values)[:, filled] / sizes[filled]
    listed = []
    for layer, row in enumerate(means):
        for i in row.argsort(descending=not most, stable=True)[:count].tolist():
            sentence = sentences[int(filled[i])]
            text = " ".join(sentence.words)
            listed.append(MovedSentence(layer, float(row[i]), sentence.id, len(sentence.words), text))
    return listed

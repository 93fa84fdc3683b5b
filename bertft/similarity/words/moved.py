"""Which words of a text moved: local RSA of every word, means by label and by sentence, the extremes in context."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bertft.data.examples import Sentence, Text
from bertft.errors import BertftError
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import write_text_atomically
from bertft.similarity.compare.encoders import in_windows
from bertft.similarity.compare.stimuli import shared_layers, side_by_side
from bertft.similarity.moments import CrossMoments
from bertft.similarity.words.local_rsa import LabelMean, local_rsa, mean_by_label

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder


def _depths(sentence: Sentence) -> list[int]:
    """Edges from each word up to the root, which has 0."""
    depths = []
    for word in range(len(sentence.heads)):
        depth, head = 0, sentence.heads[word]
        while head:
            depth, head = depth + 1, sentence.heads[head - 1]
        depths.append(depth)
    return depths


LABELS: dict[str, Callable[[Sentence, Counter[str]], Sequence[Any]]] = {
    "upos": lambda s, _: s.upos,
    "xpos": lambda s, _: s.xpos,
    "relation": lambda s, _: [relation.partition(":")[0] for relation in s.relations],
    "depth": lambda s, _: [min(depth, 10) for depth in _depths(s)],
    "position": lambda s, _: [min(i, 50) for i in range(len(s.words))],
    "frequency": lambda s, counts: [int(math.log2(counts[word.lower()])) for word in s.words],
}
"""How words can be grouped: ``relation`` without subtype; ``depth`` in the tree, 10 and above as 10; ``position``
in the sentence from 0, 50 and above as 50; ``frequency``, the whole part of log2 of the form's count in this text.
Beside these ``feats:KEY`` and ``misc:KEY``, the entry of that key in CoNLL-U's column, `ABSENT` where there is none."""
OF_WORDS = ("position", "frequency")  # what needs no tree
COLUMNS = ("feats", "misc")
ABSENT = "_"


def is_label(name: str) -> bool:
    """Whether words can be grouped by ``name``."""
    column, colon, key = name.partition(":")
    return name in LABELS or bool(colon and key and column in COLUMNS)


def labels_of(by: Sequence[str], sentences: Sequence[Sentence | Text]) -> dict[str, list[Any]]:
    """The labels of every word, sentence after sentence, for each of ``by``.

    Raises BertftError for an unknown one, for one that the sentences do not carry, as plain text carries no tree, and
    for a key that no word has.
    """
    table = {}
    words = [as_words(sentence) for sentence in sentences]
    counts = Counter(word.lower() for sentence in words for word in sentence.words)
    for name in by:
        if not is_label(name):
            raise BertftError(f"words: by must be some of {', '.join(LABELS)}, feats:KEY, misc:KEY, found {name!r}")
        found: list[Any] = []
        for sentence in words:
            labels = LABELS[name](sentence, counts) if name in LABELS else _entries(sentence, name)
            if len(labels) != len(sentence.words):
                raise BertftError(
                    f"words: the text does not carry {name!r} (sentence {sentence.id}); give a CoNLL-U file"
                )
            found += labels
        if name not in LABELS and set(found) == {ABSENT}:
            raise BertftError(f"words: no word of the text carries {name!r}")
        table[name] = found
    return table


def as_words(text: Sentence | Text) -> Sentence:
    """A sentence as it is; a text cut at white space, without a tree."""
    return text if isinstance(text, Sentence) else Sentence(text.id, tuple(text.text.split()), (), (), (), ())


def _entries(sentence: Sentence, name: str) -> list[str]:
    """``feats:Number``: of ``Case=Nom|Number=Sing`` it is ``Sing``."""
    column, _, key = name.partition(":")
    cells = ([entry.partition("=") for entry in cell.split("|")] for cell in getattr(sentence, column))
    return [next((value for found, _, value in cell if found == key), ABSENT) for cell in cells]


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
    """``by[label kind]`` holds the means of each label and layer.

    ``most`` and ``least`` are the words that moved so, ``sentences_most`` and ``sentences_least`` the sentences.
    """

    by: dict[str, list[LabelMean]]
    most: list[Word]
    least: list[Word]
    sentences_most: list[MovedSentence]
    sentences_least: list[MovedSentence]


FILES = ("local.csv", "words.csv", "sentences.csv")
"""What `write_moved` writes, and the report draws."""


def write_moved(found: Mapping[str, Mapping[str, Moved]], out: Path, data: str) -> None:
    """Into ``out``, of each metric and encoder: means by label (``local.csv``), the words that moved most and least in
    their contexts (``words.csv``), and the sentences (``sentences.csv``)."""
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
    """Local RSA (`bertft.similarity.words.local_rsa`) of every word of ``sentences`` between ``base`` and each tuned encoder.

    Two passes: sums first (``metric``, ``float64`` as in `CrossMoments`), then each word against them. ``by`` names
    the `LABELS` whose means are taken, with 95 % intervals clustered by sentence. ``extremes`` words and sentences a
    layer are listed at either end. A text's words are what stands between white space; what is longer than an
    encoder's window is run in windows. Raises BertftError for labels as ``labels_of`` does.
    """
    labels, whole = labels_of(by, sentences), [as_words(sentence) for sentence in sentences]
    found = local_of_words(
        base, tuned, [sentence.words for sentence in whole], metric=metric, float64=float64,
        batch_tokens=batch_tokens, told="words that moved", progress=progress,
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
    told: str,
    float64: bool = False,
    batch_tokens: int = 4096,
    progress: Progress = SILENT,
) -> dict[str, Tensor]:
    """Local RSA (L, R) float64 of all words of the texts ``whole``, one after the other, for each tuned encoder.

    L is how many layers it shares with the base. ``told`` is the name of the step that ``progress`` shows.
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

    with progress.step(told, total=2 * total, unit="words") as step, torch.inference_mode():
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
    """The words with the lowest (``most`` moved) or highest local RSA of each layer."""
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
    """The sentences with the lowest (``most`` moved) or highest mean local RSA of each layer; none without words."""
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

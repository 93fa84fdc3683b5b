"""Which words of a treebank moved: local RSA of every word, its means by label, and the extremes in context."""

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

from bertft.errors import BertftError
from bertft.progress import SILENT, Progress
from bertft.results import write_text_atomically
from bertft.similarity.compare import shared_layers, side_by_side
from bertft.similarity.local import LabelMean, local_rsa, mean_by_label
from bertft.similarity.moments import CrossMoments

if TYPE_CHECKING:
    from bertft.data.examples import Sentence
    from bertft.encoder import Encoder


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
in the sentence from 0, 50 and above as 50; ``frequency``, the whole part of log2 of the form's count in this text."""


@dataclass(frozen=True)
class Word:
    """One word in its sentence, marked by ``[...]``, and its local RSA in one layer."""

    layer: int
    value: float
    word: str
    sentence: str
    context: str


@dataclass(frozen=True)
class Moved:
    """``by[label kind]`` holds the means of each label and layer; ``most`` and ``least`` the words that moved so."""

    by: dict[str, list[LabelMean]]
    most: list[Word]
    least: list[Word]


FILES = ("local.csv", "words.csv")
"""What `write_moved` writes, and the report draws."""


def write_moved(found: Mapping[str, Moved], out: Path, data: str) -> None:
    """Into ``out`` the means by label (``local.csv``) and the extremes in context (``words.csv``) of each encoder."""
    means: list[list[object]] = [["model", "data", "layer", "by", "label", "value", "low", "high", "n"]]
    words: list[list[object]] = [["model", "data", "layer", "moved", "value", "word", "sentence", "context"]]
    for name, moved in found.items():
        for kind, table in moved.by.items():
            means += [[name, data, r.layer, kind, r.label, r.value, r.low, r.high, r.n] for r in table]
        for which, listing in (("most", moved.most), ("least", moved.least)):
            words += [[name, data, w.layer, which, w.value, w.word, w.sentence, w.context] for w in listing]
    for file, rows in zip(FILES, (means, words), strict=True):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        write_text_atomically(out / file, text.getvalue())


def words_that_moved(
    base: Encoder,
    tuned: Mapping[str, Encoder],
    sentences: Sequence[Sentence],
    by: Sequence[str] = ("upos",),
    *,
    metric: str = "cosine",
    extremes: int = 20,
    batch_tokens: int = 4096,
    progress: Progress = SILENT,
) -> dict[str, Moved]:
    """Local RSA (`bertft.similarity.local`) of every word of ``sentences`` between ``base`` and each tuned encoder.

    Two passes: sums first, then each word against them. Means by label carry 95 % intervals clustered by sentence.
    ``extremes`` words a layer are listed at either end. Raises BertftError for unknown labels and sentences longer than
    a window.
    """
    for name in by:
        if name not in LABELS:
            raise BertftError(f"words: by must be some of {', '.join(LABELS)}, found {name!r}")
    layers = shared_layers(base, tuned)
    sums = {name: CrossMoments(count, count, metric) for name, count in layers.items()}
    counts = Counter(word.lower() for sentence in sentences for word in sentence.words)
    starts = torch.tensor([0, *(len(sentence.words) for sentence in sentences)]).cumsum(0)
    total = int(starts[-1])
    found = {name: torch.full((count, total), math.nan, dtype=torch.float64) for name, count in layers.items()}

    def batches() -> Iterator[tuple[Tensor, Tensor, list[Tensor]]]:
        texts = [sentence.words for sentence in sentences]
        return side_by_side([e.stream(texts, batch_tokens=batch_tokens) for e in (base, *tuned.values())])

    def places(index: Tensor, lengths: Tensor) -> Tensor:
        pairs = zip(index.tolist(), lengths.tolist(), strict=True)
        return torch.cat([torch.arange(int(starts[i]), int(starts[i]) + n) for i, n in pairs])

    with progress.step("words that moved", total=2 * total, unit="words") as step, torch.inference_mode():
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

    groups = torch.repeat_interleave(torch.arange(len(sentences)), starts.diff())
    labels = {name: [label for s in sentences for label in LABELS[name](s, counts)] for name in by}
    return {
        name: Moved(
            {kind: mean_by_label(values, labels[kind], groups) for kind in by},
            _extremes(values, groups, starts, sentences, extremes, most=True),
            _extremes(values, groups, starts, sentences, extremes, most=False),
        )
        for name, values in found.items()
    }


def _extremes(
    values: Tensor, groups: Tensor, starts: Tensor, sentences: Sequence[Sentence], count: int, *, most: bool
) -> list[Word]:
    """The words with the lowest (``most`` moved) or highest local RSA of each layer."""
    listed = []
    for layer, row in enumerate(values):
        for i in row.argsort(descending=not most, stable=True)[:count].tolist():
            sentence = sentences[int(groups[i])]
            at = i - int(starts[groups[i]])
            marked = [f"[{word}]" if place == at else word for place, word in enumerate(sentence.words)]
            context = " ".join(marked[max(0, at - 12) : at + 13])
            listed.append(Word(layer, float(row[i]), sentence.words[at], sentence.id, context))
    return listed

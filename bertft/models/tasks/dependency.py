"""Dependency parsing with a biaffine parser.

Dozat and Manning, "Deep Biaffine Attention for Neural Dependency Parsing", ICLR 2017. A word is the mean of its pieces
in the last layer. Arcs and labels are scored by biaffine forms of separate projections; the root is a learned vector.
Trained by cross-entropy on gold heads and decoded as the maximum spanning arborescence with a single root.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bertft.data.alignment import align_words
from bertft.data.examples import Sentence
from bertft.errors import BertftError
from bertft.models.batching import pad, pad_inputs, pool_words, word_inputs, word_pieces
from bertft.models.tasks.arborescence import decode_tree
from bertft.models.tasks.base import Head, Score, Window

ARC_DIM = 500
LABEL_DIM = 128
DROPOUT = 0.33
IGNORED = -100  # the target that cross-entropy skips: a relation absent from training


class Parse(NamedTuple):
    """A predicted tree: for each word its head, counted from 1 with 0 for the root, and its relation."""

    heads: tuple[int, ...]
    relations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Feature:
    inputs: dict[str, list[int]]
    slots: list[int]
    heads: tuple[int, ...]
    relations: list[int]

    def __len__(self) -> int:
        return len(self.slots)


class Biaffine(nn.Module):
    """Biaffine forms ``score[..., r] = [x, 1]' U_r [y, 1]`` with ``weight`` U (R, D + 1, D + 1), initially zero."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, dim + 1, dim + 1))

    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """Score every x with every y: (B, N, D), (B, M, D) -> (B, N, M), for one output."""
        return _with_one(x) @ self.weight[0] @ _with_one(y).transpose(1, 2)

    def matched(self, x: Tensor, y: Tensor) -> Tensor:
        """Score x[t] with y[t]: (T, D), (T, D) -> (T, R)."""
        outputs, side, _ = self.weight.shape
        left = _with_one(x) @ self.weight.permute(1, 0, 2).reshape(side, outputs * side)
        return torch.einsum("trj,tj->tr", left.view(-1, outputs, side), _with_one(y))


class DependencyHead(Head):
    """Scorers of arcs and labels over packed word vectors."""

    def __init__(self, dim: int, relations: Sequence[str]) -> None:
        super().__init__()
        self.relations = list(relations)
        self.root_label = self.relations.index("root") if "root" in self.relations else None
        self.root = nn.Parameter(torch.randn(dim) * 0.02)
        self.dropout = nn.Dropout(DROPOUT)
        self.arc_dependent, self.arc_head = _projection(dim, ARC_DIM), _projection(dim, ARC_DIM)
        self.label_dependent, self.label_head = _projection(dim, LABEL_DIM), _projection(dim, LABEL_DIM)
        self.arc = Biaffine(ARC_DIM, 1)
        self.label = Biaffine(LABEL_DIM, len(self.relations))

    def forward(
        self,
        output: Any,
        *,
        pieces: Tensor,
        offsets: Tensor,
        places: Tensor,
        heads: Tensor,
        relations: Tensor,
    ) -> dict[str, Tensor]:
        """Return the loss: mean cross-entropy of gold heads over words, plus that of labels over known relations."""
        words = self._words(output, pieces, offsets)
        scores = self._arc_scores(words, places)
        inside = places[:, 1:] > 0
        arcs = nn.functional.cross_entropy(scores[inside], heads[inside])
        dependent = places[:, 1:][inside]
        head = places.gather(1, heads)[inside]
        # A batch whose labels are all unknown has no label loss.
        labels = nn.functional.cross_entropy(
            self._label_scores(words, dependent, head), relations[inside], ignore_index=IGNORED, reduction="sum"
        ) / (relations[inside] != IGNORED).sum().clamp(min=1)
        return {"loss": arcs + labels}

    def predict(
        self, output: Any, *, pieces: Tensor, offsets: Tensor, places: Tensor, **targets: Tensor
    ) -> list[Parse]:
        """Return the best tree of every sentence, with the best label of each of its arcs."""
        words = self._words(output, pieces, offsets)
        scores = self._arc_scores(words, places).log_softmax(-1).double().cpu().numpy()
        inside = places[:, 1:] > 0
        lengths = inside.sum(1).tolist()
        trees = [decode_tree(row[:n, : n + 1]) for row, n in zip(scores, lengths, strict=True)]
        heads = pad([tree.tolist() for tree in trees], 0).to(places.device)
        label_scores = self._label_scores(words, places[:, 1:][inside], places.gather(1, heads)[inside])
        if self.root_label is not None:
            # Only the child of the root, and always it, has the relation "root".
            at_root = heads[inside] == 0
            is_root = torch.arange(len(self.relations), device=places.device) == self.root_label
            label_scores = label_scores.masked_fill(at_root[:, None] != is_root, -torch.inf)
        labels = iter(label_scores.argmax(1).tolist())
        return [Parse(tuple(tree.tolist()), tuple(self.relations[next(labels)] for _ in tree)) for tree in trees]

    def _words(self, output: Any, pieces: Tensor, offsets: Tensor) -> Tensor:
        """Return the vectors of the root and of the packed words, (1 + T, D)."""
        words = pool_words(output[0], pieces, offsets)
        return self.dropout(torch.cat([self.root.to(words.dtype)[None], words]))

    def _arc_scores(self, words: Tensor, places: Tensor) -> Tensor:
        """Return scores (B, W, W + 1) of word by head, root first; -inf for padding and a word as its own head."""
        dependents = nn.functional.embedding(places[:, 1:], self.arc_dependent(words))
        heads = nn.functional.embedding(places, self.arc_head(words))
        scores = self.arc.pairs(dependents, heads)
        width = places.shape[1]
        barred = torch.eye(width, dtype=torch.bool, device=places.device)[1:] | (places == 0)[:, None, :]
        barred[:, :, 0] = False
        return scores.masked_fill(barred, -torch.inf)

    def _label_scores(self, words: Tensor, dependent: Tensor, head: Tensor) -> Tensor:
        dependents, heads = self.label_dependent(words), self.label_head(words)
        embed = nn.functional.embedding
        return self.label.matched(embed(dependent, dependents), embed(head, heads))


class DependencyTask:
    """The task ``dep``; see `bertft.models.tasks.base.Task`."""

    name = "dep"
    kind = "dep"
    select = "las_conll18"
    max_length = 512

    def spec(self, train: Sequence[Sentence]) -> dict[str, Any]:
        """Return the relations of the training data."""
        return {"relations": sorted({relation for sentence in train for relation in sentence.relations})}

    def head(self, model: Any, spec: Mapping[str, Any]) -> DependencyHead:
        """Return a new head for the encoder ``model``."""
        return DependencyHead(model.config.hidden_size, spec["relations"])

    def features(
        self,
        tokenizer: Any,
        examples: Sequence[Sentence],
        spec: Mapping[str, Any],
        window: Window,
        *,
        training: bool,
    ) -> list[_Feature]:
        """Return one feature per sentence; raise BertftError for a sentence longer than the window."""
        number = {relation: i for i, relation in enumerate(spec["relations"])}
        aligned = align_words(tokenizer, [s.words for s in examples], window.max_length, names=[s.id for s in examples])
        return [
            _Feature(word_inputs(tokenizer, ids), words, s.heads, [number.get(r, IGNORED) for r in s.relations])
            for ids, words, s in zip(aligned.ids, aligned.words, examples, strict=True)
        ]

    def collate(self, features: Sequence[_Feature], tokenizer: Any) -> dict[str, Tensor]:
        """Return a batch; ``places`` (B, 1 + W) are the rows of the root (0) and the words among the packed vectors."""
        lengths = torch.tensor([len(f.heads) for f in features])
        pieces, offsets = word_pieces(pad([f.slots for f in features], -1), lengths)
        width = int(lengths.max())
        column = torch.arange(width + 1)
        first = torch.cumsum(lengths, 0) - lengths
        places = torch.where((column > 0) & (column <= lengths[:, None]), first[:, None] + column, 0)
        return {
            **pad_inputs([f.inputs for f in features], tokenizer),
            "pieces": pieces,
            "offsets": offsets,
            "places": places,
            "heads": pad([f.heads for f in features], 0),
            "relations": pad([f.relations for f in features], IGNORED),
        }

    def decode(self, examples: Sequence[Sentence], features: Sequence[Any], outputs: Sequence[Parse]) -> list[Parse]:
        """Return the outputs: a sentence has one feature."""
        return list(outputs)

    def score(self, examples: Sequence[Sentence], predictions: Sequence[Parse]) -> dict[str, Score]:
        """Return `attachment_scores`."""
        return attachment_scores(examples, predictions)


def attachment_scores(gold: Sequence[Sentence], predicted: Sequence[Parse]) -> dict[str, Score]:
    """Return labelled and unlabelled attachment scores in [0, 100] over gold words, by two conventions.

    - ``las_conll18``, ``uas_conll18``: as in the CoNLL 2018 shared task. Every word counts, also punctuation; labels
      are compared up to the first ``:``.
    - ``las_nopunct``, ``uas_nopunct``: without words whose gold UPOS is PUNCT; labels are compared in full.
    """
    counts: dict[str, list[int]] = {key: [] for key in ("uas", "las", "all", "uas_np", "las_np", "all_np")}
    for sentence, parse in zip(gold, predicted, strict=True):
        if len(parse.heads) != len(sentence.words):
            raise BertftError(f"sentence {sentence.id}: expected {len(sentence.words)} heads, found {len(parse.heads)}")
        arc = np.array(sentence.heads) == np.array(parse.heads)
        full = np.array([g == p for g, p in zip(sentence.relations, parse.relations, strict=True)])
        cut = np.array(
            [_universal(g) == _universal(p) for g, p in zip(sentence.relations, parse.relations, strict=True)]
        )
        kept = np.array([tag != "PUNCT" for tag in sentence.upos])
        found = (arc, arc & cut, np.ones_like(arc), arc & kept, arc & full & kept, kept)
        for key, values in zip(counts, found, strict=True):
            counts[key].append(int(values.sum()))
    array = {key: np.array(values, dtype=np.float64) for key, values in counts.items()}
    return {
        "las_conll18": Score(100 * array["las"], array["all"]),
        "uas_conll18": Score(100 * array["uas"], array["all"]),
        "las_nopunct": Score(100 * array["las_np"], array["all_np"]),
        "uas_nopunct": Score(100 * array["uas_np"], array["all_np"]),
    }


def _universal(relation: str) -> str:
    return relation.split(":", 1)[0]


def _projection(dim: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, width), nn.LeakyReLU(0.1), nn.Dropout(DROPOUT))


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_ones(*x.shape[:-1], 1)], dim=-1)


TASK = DependencyTask()

"""Extractive question answering over overlapping windows.

As ``BertForQuestionAnswering`` (Devlin et al. 2019): one linear layer gives every piece a start and an end score. A
window that lacks the answer, or part of it, is trained to point at its first piece. The answer is the span of at most
30 pieces with the highest sum of start and end score over all windows of the passage. Scored by the rules of the
official SQuAD v1.1 script: exact match and F1 after normalisation, best over the accepted answers.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bertft.data.examples import Question
from bertft.errors import BertftError
from bertft.models.batching import pad, pad_inputs
from bertft.models.tasks.base import Head, Score, Window
from bertft.models.tasks.pairs import encode_pairs, model_inputs
from bertft.models.tasks.squad_metric import exact_match, f1

MAX_QUESTION = 64  # pieces, as in BERT
MAX_ANSWER = 30  # pieces


class Span(NamedTuple):
    """The best span of one window: its score and its characters ``[start, end)`` of the passage."""

    score: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Feature:
    """One window of a question's passage.

    ``starts`` and ``ends`` are the characters ``[start, end)`` of each piece of the passage, -1 for other pieces.
    ``target`` holds the first and last piece of the answer.
    """

    example: int
    inputs: dict[str, list[int]]
    starts: list[int]
    ends: list[int]
    target: tuple[int, int]

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])


class QaHead(Head):
    """Scorer of start and end over pieces."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(dim, 2)
        nn.init.normal_(self.score.weight, std=0.02)
        nn.init.zeros_(self.score.bias)

    def forward(self, output: Any, *, targets: Tensor, starts: Tensor, ends: Tensor) -> dict[str, Tensor]:
        """Return the loss: mean cross-entropy of start and end over the first piece and those of the passage."""
        allowed = starts >= 0
        allowed[:, 0] = True
        scores = self.score(output[0]).masked_fill(~allowed[..., None], -torch.inf)
        loss = nn.functional.cross_entropy
        return {"loss": (loss(scores[..., 0], targets[:, 0]) + loss(scores[..., 1], targets[:, 1])) / 2}

    def predict(self, output: Any, *, starts: Tensor, ends: Tensor, **targets: Tensor) -> list[Span]:
        """Return the best span of every window; the earliest of equal ones."""
        scores = self.score(output[0]).float().masked_fill((starts < 0)[..., None], -torch.inf)
        best, end_of = _best_end(scores[..., 1])
        total = scores[..., 0] + best
        value, first = total.max(1)
        last = end_of.gather(1, first[:, None])
        spans = torch.stack([starts.gather(1, first[:, None])[:, 0], ends.gather(1, last)[:, 0]], 1).tolist()
        return [Span(score, *span) for score, span in zip(value.tolist(), spans, strict=True)]


def _best_end(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for every piece i of (B, P), the highest end score of pieces i .. i + MAX_ANSWER - 1 and its piece."""
    padded = nn.functional.pad(scores, (0, MAX_ANSWER - 1), value=-torch.inf)
    best, where = padded.unfold(1, MAX_ANSWER, 1).max(2)
    return best, (where + torch.arange(scores.shape[1], device=scores.device)).clamp(max=scores.shape[1] - 1)


class QaTask:
    """The task ``squad``; see `bertft.models.tasks.base.Task`."""

    name = "squad"
    kind = "qa"
    select = "f1"
    max_length = 384

    def spec(self, train: Sequence[Question]) -> dict[str, Any]:
        """Return nothing: the head has no label set."""
        return {}

    def head(self, model: Any, spec: Mapping[str, Any]) -> QaHead:
        """Return a new head for the encoder ``model``."""
        return QaHead(model.config.hidden_size)

    def features(
        self, tokenizer: Any, examples: Sequence[Question], spec: Mapping[str, Any], window: Window, *, training: bool
    ) -> list[_Feature]:
        """Return the windows of every question, in order; longer questions than 64 pieces are cut, with a warning."""
        if not examples:
            return []
        room = window.max_length - tokenizer.num_special_tokens_to_add(pair=True)
        longest = min(MAX_QUESTION, room // 2)
        if (missing := _least_room(window.stride) - room) > 0:
            raise BertftError(
                f"finetune: expected max_length of at least {window.max_length + missing} pieces for a stride of"
                f" {window.stride}, found {window.max_length}"
            )
        encodings = encode_pairs(
            tokenizer,
            _cut_questions(tokenizer, [e.question for e in examples], longest),
            [e.context for e in examples],
            max_length=window.max_length,
            strategy="only_second",
            stride=window.stride,
        )
        return [
            _window(owner, model_inputs(tokenizer, own), own.offsets, own.sequence_ids, examples[owner])
            for owner, whole in enumerate(encodings)
            for own in (whole, *whole.overflowing)
        ]

    def collate(self, features: Sequence[_Feature], tokenizer: Any) -> dict[str, Tensor]:
        """Return a batch with ``starts`` and ``ends`` (B, P) as in the features, and ``targets`` (B, 2) in pieces."""
        return {
            **pad_inputs([f.inputs for f in features], tokenizer),
            "starts": pad([f.starts for f in features], -1),
            "ends": pad([f.ends for f in features], -1),
            "targets": torch.tensor([f.target for f in features]),
        }

    def decode(self, examples: Sequence[Question], features: Sequence[_Feature], outputs: Sequence[Span]) -> list[str]:
        """Return the text of each question's best span over all its windows."""
        best: list[Span | None] = [None] * len(examples)
        for feature, span in zip(features, outputs, strict=True):
            so_far = best[feature.example]
            if so_far is None or span.score > so_far.score:
                best[feature.example] = span
        return [e.context[s.start : s.end] if s is not None else "" for e, s in zip(examples, best, strict=True)]

    def score(self, examples: Sequence[Question], predictions: Sequence[str]) -> dict[str, Score]:
        """Return ``exact_match`` and ``f1`` in [0, 100]."""
        answers = [[answer.text for answer in example.answers] for example in examples]
        ones = np.ones(len(examples))
        pairs = list(zip(predictions, answers, strict=True))
        exact = np.array([100.0 * exact_match(p, golds) for p, golds in pairs])
        overlap = np.array([100.0 * f1(p, golds) for p, golds in pairs])
        return {"exact_match": Score(exact, ones), "f1": Score(overlap, ones)}


def best_constant_answer(questions: Sequence[Question], *, words: int = 12) -> tuple[str, float]:
    """Return a baseline that answers every question with the same words i to j of its passage.

    Returns the best span over all i <= j < ``words``, as ``"words 1-3"``, and its F1 in [0, 100] on ``questions``.
    """
    sums: defaultdict[tuple[int, int], float] = defaultdict(float)
    for question in questions:
        tokens = question.context.split()[:words]
        answers = [answer.text for answer in question.answers]
        for i in range(len(tokens)):
            for j in range(i, len(tokens)):
                sums[i, j] += f1(" ".join(tokens[i : j + 1]), answers)
    (first, last), total = max(sums.items(), key=lambda item: (item[1], -item[0][0], -item[0][1]))
    return f"words {first + 1}-{last + 1}", 100.0 * total / len(questions)


def _least_room(stride: int) -> int:
    """Return the fewest pieces of question and passage for which a window advances.

    A question takes at most half of them, up to `MAX_QUESTION`, and the passage more than ``stride``.
    """
    return max(2, stride + min(stride, MAX_QUESTION) + 1)


def _cut_questions(tokenizer: Any, questions: list[str], longest: int) -> list[str]:
    """Return the questions, each cut after ``longest`` pieces. Leading blanks are stripped: they shift offsets."""
    questions = [question.lstrip() for question in questions]
    encoding = tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True, truncation=False)
    if cut := sum(len(offsets) > longest for offsets in encoding["offset_mapping"]):
        warnings.warn(
            f"squad: {cut:,} of {len(questions):,} questions are longer than {longest} pieces and were truncated",
            RuntimeWarning,
            stacklevel=3,
        )
    return [
        question if len(offsets) <= longest else question[: offsets[longest - 1][1]]
        for question, offsets in zip(questions, encoding["offset_mapping"], strict=True)
    ]


def _window(
    owner: int, inputs: dict[str, list[int]], offsets: list[tuple[int, int]], parts: list[int | None], example: Question
) -> _Feature:
    inside = [part == 1 for part in parts]
    starts = [offset[0] if keep else -1 for offset, keep in zip(offsets, inside, strict=True)]
    ends = [offset[1] if keep else -1 for offset, keep in zip(offsets, inside, strict=True)]
    return _Feature(owner, inputs, starts, ends, _target(starts, ends, example))


def _target(starts: list[int], ends: list[int], example: Question) -> tuple[int, int]:
    """Return the pieces of the first answer's first and last character; (0, 0) if the window lacks either."""
    if not example.answers:
        return (0, 0)
    answer = example.answers[0]
    begin, stop = answer.start, answer.start + len(answer.text)
    first = next((i for i, (s, e) in enumerate(zip(starts, ends, strict=True)) if s <= begin < e), 0)
    last = next((i for i, (s, e) in enumerate(zip(starts, ends, strict=True)) if s < stop <= e), 0)
    return (first, last) if first and last else (0, 0)


TASK = QaTask()

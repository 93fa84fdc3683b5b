"""The four kinds of example every reader yields and every task takes."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence with its dependency tree.

    ``heads[i]`` is the 1-based position of word ``i``'s head, 0 for the root. ``relations``, ``upos`` and ``xpos``
    have one entry a word. Multiword-token lines and empty nodes are not words. ``feats`` and ``misc`` are CoNLL-U's
    columns of these names as they stand there, one entry a word, or empty where the source has none.
    """

    id: str
    words: tuple[str, ...]
    heads: tuple[int, ...]
    relations: tuple[str, ...]
    upos: tuple[str, ...]
    xpos: tuple[str, ...]
    feats: tuple[str, ...] = field(default=(), compare=False, repr=False)
    misc: tuple[str, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Pair:
    """A premise, a hypothesis and one of ``entailment``, ``neutral``, ``contradiction``."""

    id: str
    premise: str
    hypothesis: str
    label: str


@dataclass(frozen=True, slots=True)
class Answer:
    """``context[start : start + len(text)] == text``, in characters."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Question:
    """A question on a passage with its accepted answers."""

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """One line or document of running text."""

    id: str
    text: str

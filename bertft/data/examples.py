"""Examples of a corpus, and their input to an encoder.

Readers yield them, and tasks take them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, cast, runtime_checkable

from bertft.errors import BertftError

UNITS = ("token", "word")
"""Units that get a vector of their own: a word piece (``token``) or a word (``word``)."""


@dataclass(frozen=True, slots=True)
class Input:
    """An encoder's input from one example, with its kind declared.

    - ``words``: ``parts`` are words, each cut into pieces on its own;
    - ``text``: ``parts`` is one running text;
    - ``pair``: ``parts`` are two texts, joined by the tokenizer's separator. A pair is never cut into windows.
    """

    kind: Literal["words", "text", "pair"]
    parts: Sequence[str]

    @classmethod
    def words(cls, words: Sequence[str], unit: str = "word") -> Input:
        """Return the input of a word sequence, the same for either ``unit``."""
        _check(unit)
        return cls("words", tuple(words))

    @classmethod
    def text(cls, text: str, unit: str = "token") -> Input:
        """Return the input of a running text: the text itself, or for ``unit="word"`` its words at white space."""
        _check(unit)
        return cls("words", tuple(text.split())) if unit == "word" else cls("text", (text,))

    @classmethod
    def pair(cls, first: str, second: str, unit: str = "token") -> Input:
        """Return the input of two texts: a pair, or for ``unit="word"`` the words of both at white space."""
        _check(unit)
        return cls("words", (*first.split(), *second.split())) if unit == "word" else cls("pair", (first, second))


def _check(unit: str) -> None:
    if unit not in UNITS:
        raise BertftError(f"unit: expected {' or '.join(UNITS)}, found {unit!r}")


@runtime_checkable
class Example(Protocol):
    """One example of a corpus; every class below and `bertft.data.readers.spans.SpanText` is one."""

    @property
    def id(self) -> str:
        """The example's name in its corpus, which errors quote."""
        ...

    def input(self, unit: str) -> Input:
        """Return the encoder's input from the example for vectors of a ``unit``, ``token`` or ``word``."""
        ...


RawInput: TypeAlias = Input | Example | str | Sequence[str]
"""An input in the public interface: an example, a text, a word sequence or a tuple of two texts."""


def inputs_of(examples: Sequence[RawInput], unit: str) -> list[Input]:
    """Return the inputs of ``examples`` for vectors of a ``unit``, ``token`` or ``word``.

    Examples declare their own input and a string is a running text. A sequence of strings is a word sequence, unless
    the unit is ``token`` and every one of ``examples`` is a tuple of two strings: those are pairs of texts.
    """
    pairs = unit == "token" and all(isinstance(example, tuple) and len(example) == 2 for example in examples)
    declaring: dict[type, bool] = {}
    return [_input_of(example, unit, pairs, declaring) for example in examples]


def _input_of(example: RawInput, unit: str, pairs: bool, declaring: dict[type, bool]) -> Input:
    """Return one input; ``declaring`` remembers which types are examples, for the check takes 5 us an object."""
    if isinstance(example, Input):
        return example
    if isinstance(example, str):
        return Input.text(example, unit)
    kind = type(example)
    if kind not in declaring:
        declaring[kind] = isinstance(example, Example)
    if declaring[kind]:
        return cast("Example", example).input(unit)
    words = cast("Sequence[str]", example)
    return Input.pair(words[0], words[1], unit) if pairs else Input.words(words, unit)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence with its dependency tree.

    ``heads[i]`` is the 1-based position of word ``i``'s head, 0 for the root. ``relations``, ``upos`` and ``xpos``
    have one entry per word. Multiword-token lines and empty nodes are not words. ``feats`` and ``misc`` are the CoNLL-U
    columns of these names, unparsed, with one entry per word, or empty if the source has none.
    """

    id: str
    words: tuple[str, ...]
    heads: tuple[int, ...]
    relations: tuple[str, ...]
    upos: tuple[str, ...]
    xpos: tuple[str, ...]
    feats: tuple[str, ...] = field(default=(), compare=False, repr=False)
    misc: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def input(self, unit: str) -> Input:
        """Return the words."""
        return Input.words(self.words, unit)


@dataclass(frozen=True, slots=True)
class Pair:
    """A premise, a hypothesis and a label: ``entailment``, ``neutral`` or ``contradiction``."""

    id: str
    premise: str
    hypothesis: str
    label: str

    def input(self, unit: str) -> Input:
        """Return premise and hypothesis as a pair of texts, or for ``unit="word"`` the words of both."""
        return Input.pair(self.premise, self.hypothesis, unit)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer by its characters: ``context[start : start + len(text)] == text``."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a passage, with its accepted answers."""

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]

    def input(self, unit: str) -> Input:
        """Return question and passage as a pair of texts, or for ``unit="word"`` the words of both."""
        return Input.pair(self.question, self.context, unit)


@dataclass(frozen=True, slots=True)
class Text:
    """One line or document of running text."""

    id: str
    text: str

    def input(self, unit: str) -> Input:
        """Return the text, or for ``unit="word"`` its words at white space."""
        return Input.text(self.text, unit)

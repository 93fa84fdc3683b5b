"""Labels by which words are grouped."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from bertft.data.examples import Sentence, Text
from bertft.errors import BertftError

FORM = "form"  # the label of words of a plain text
OF_WORDS = ("position", "frequency", FORM)  # labels that need no tree
COMMON, RARE = 10, "(rarer words)"  # occurrences from which a form is a label of its own; the label of all others
COLUMNS = ("feats", "misc")  # of CoNLL-U, whose entries are labels too
ABSENT = "_"  # the label of a word without the entry


def _depths(sentence: Sentence) -> list[int]:
    """Return the number of edges from each word up to the root, which has 0."""
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
    FORM: lambda s, counts: [form if counts[form] >= COMMON else RARE for word in s.words if (form := word.lower())],
}
"""Labels of each word, from a sentence and the counts of lower-case forms in the text.

``relation`` omits the subtype. ``depth`` is that in the tree, at most 10. ``position`` counts from 0 in the sentence,
up to 50. ``frequency`` is the integer part of log2 of the form's count. ``form`` is the lower-case form if the text has
it at least 10 times, else `RARE`. Further labels are ``feats:KEY`` and
``misc:KEY``: the entry of that key in CoNLL-U's column, or `ABSENT`.
"""


def is_label(name: str) -> bool:
    """Return whether words can be grouped by ``name``."""
    column, colon, key = name.partition(":")
    return name in LABELS or bool(colon and key and column in COLUMNS)


def labels_of(by: Sequence[str], sentences: Sequence[Sentence | Text]) -> dict[str, list[Any]]:
    """Return the labels of every word, sentence after sentence, for each of ``by``.

    Raises BertftError for an unknown label, for one that the sentences lack (plain text has no trees), and for a key
    that no word has.
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
                    f"words: the text does not have {name!r} (sentence {sentence.id}); give a CoNLL-U file"
                )
            found += labels
        if name not in LABELS and set(found) == {ABSENT}:
            raise BertftError(f"words: no word of the text has {name!r}")
        table[name] = found
    return table


def as_words(text: Sentence | Text) -> Sentence:
    """Return a sentence unchanged, and a text as a sentence cut at white space, without a tree."""
    return text if isinstance(text, Sentence) else Sentence(text.id, tuple(text.text.split()), (), (), (), ())


def _entries(sentence: Sentence, name: str) -> list[str]:
    """Return the entry of each word: for ``feats:Number`` and the cell ``Case=Nom|Number=Sing`` it is ``Sing``."""
    column, _, key = name.partition(":")
    cells = ([entry.partition("=") for entry in cell.split("|")] for cell in getattr(sentence, column))
    return [next((value for found, _, value in cell if found == key), ABSENT) for cell in cells]

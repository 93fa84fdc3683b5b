"""Built-in English: the prose of Python's documentation.

Every interpreter carries the topics of ``help()`` in `pydoc_data.topics`. They are read at run time; bertft holds no
copy. The text therefore differs a little between versions of Python.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator

from bertft.data.examples import Text
from bertft.errors import BertftError

ENGLISH = "builtin:english"
SHORTEST, LONGEST = 6, 40  # words of a sentence
_END = re.compile(r"(?<=[.?!])\s+(?=[A-Z\"])")
_ABBREVIATED = re.compile(r"(?:\be\.g|\bi\.e|\betc|\bvs|\bcf)\.$")
_HEADING = re.compile(r"^[*=~^\-]{3,}$", re.MULTILINE)
_NOT_PROSE = ("::=", ">>>", "http", "->", "\\", "|")
_WORD = re.compile(r"[A-Za-z'’\-]+[,.;:?!)]*|\"[^\"]+\"[,.;:?!)]*|\([A-Za-z'\-]+")


def english() -> list[Text]:
    """Return the sentences of 6 to 40 words in the running text of Python's documentation topics, each once.

    Headings, grammar, code, lists and indented text are left out. The id is ``<topic>:<number of the sentence>``.

    Raises:
        BertftError: if this Python comes without the topics, as some stripped-down installations do.
    """
    try:
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        raise BertftError(f"{ENGLISH}: needs pydoc_data.topics, which this Python lacks; give another text") from None
    found: dict[str, Text] = {}
    for topic in sorted(topics):
        for number, sentence in enumerate(_sentences(topics[topic]), start=1):
            found.setdefault(sentence, Text(f"{topic}:{number}", sentence))
    return list(found.values())


def _sentences(topic: str) -> Iterator[str]:
    """Yield the sentences of a topic's paragraphs."""
    for block in re.split(r"\n\s*\n", topic):
        lines = block.strip("\n").splitlines()
        if not lines or any(line[:1] in " *" for line in lines) or _HEADING.search(block):
            continue
        for sentence in _cut(" ".join(" ".join(lines).split())):
            if _is_prose(sentence):
                yield sentence


def _cut(paragraph: str) -> Iterator[str]:
    """Cut a paragraph after its sentences, but not after an abbreviation."""
    kept = ""
    for part in _END.split(paragraph):
        kept = f"{kept} {part}".strip()
        if not _ABBREVIATED.search(kept):
            yield kept
            kept = ""


def _is_prose(sentence: str) -> bool:
    words = sentence.split()
    if not SHORTEST <= len(words) <= LONGEST or any(sign in sentence for sign in _NOT_PROSE):
        return False
    plain = sum(_WORD.fullmatch(word) is not None for word in words)
    return sentence[-1] in ".?!" and sentence[0].isupper() and plain >= 0.8 * len(words)

"""Built-in English: sentences of Python's documentation."""

from __future__ import annotations

import pydoc_data.topics
import sys

import pytest

from bertft.data.english import ENGLISH, LONGEST, SHORTEST, english
from bertft.data.sources import load
from bertft.data.streams import stream
from bertft.errors import BertftError

TOPIC = """The "pass" statement
********************

   pass_stmt ::= "pass"

This statement does nothing, e.g. "pass" is a null operation that
spans two lines.  It is useful as a placeholder for code.  Too short.

   >>> pass  # this indented text is code and not at all prose

* This item of a list has enough words to be a sentence.

The form "a -> b" has an arrow and is left out of the text.
"""


def test_only_sentences_of_running_text_are_kept(monkeypatch):
    monkeypatch.setattr(pydoc_data.topics, "topics", {"pass": TOPIC, "again": TOPIC})
    assert [(text.id, text.text) for text in english()] == [
        ("again:1", 'This statement does nothing, e.g. "pass" is a null operation that spans two lines.'),
        ("again:2", "It is useful as a placeholder for code."),
    ]


def test_the_text_of_this_python_suffices_for_the_default_number_of_tokens():
    texts = [text.text for text in load("text", ENGLISH)]
    assert len(texts) == len(set(texts)) and sum(len(text.split()) for text in texts) > 8000
    assert all(SHORTEST <= len(text.split()) <= LONGEST for text in texts)
    assert not [text for text in texts if text[0].islower() or text[-1] not in ".?!"]


def test_the_digest_of_a_stream_changes_with_the_text(monkeypatch):
    before = stream("text", ENGLISH)
    assert len(list(before)) == before.count
    monkeypatch.setattr(pydoc_data.topics, "topics", {"pass": TOPIC})
    assert stream("text", ENGLISH).digest != before.digest


def test_a_python_without_topics_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(BertftError, match=r"builtin:english: needs pydoc_data\.topics, which this Python lacks"):
        load("text", ENGLISH)

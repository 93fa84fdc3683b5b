"""Inputs that each class of example declares."""

from __future__ import annotations

import pytest

from bertft.data import synthetic
from bertft.data.examples import Example, Input, Pair, Question, Sentence, Text, inputs_of
from bertft.data.readers.spans import SpanText
from bertft.errors import BertftError

WORDS = ("two", "words")
EXAMPLES = {
    "sentence": (Sentence("1", WORDS, (2, 0), ("a", "root"), ("X", "X"), ("X", "X")), Input("words", WORDS)),
    "spans": (SpanText("1", WORDS, ()), Input("words", WORDS)),
    "text": (Text("1", "two  words"), Input("text", ("two  words",))),
    "pair": (Pair("1", "a b", "c", "neutral"), Input("pair", ("a b", "c"))),
    "question": (Question("1", "a b", "c", ()), Input("pair", ("a b", "c"))),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_declares_its_input(name):
    example, expected = EXAMPLES[name]
    assert isinstance(example, Example)
    assert example.input("token") == expected
    assert inputs_of([example], "token") == [expected]


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_has_words(name):
    example, _ = EXAMPLES[name]
    expected = ("a", "b", "c") if name in ("pair", "question") else WORDS
    assert inputs_of([example], "word") == [Input("words", expected)]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_unknown_unit_is_refused(name):
    with pytest.raises(BertftError, match="unit: expected token or word, found 'sentence'"):
        EXAMPLES[name][0].input("sentence")


def test_every_synthetic_example_is_an_example():
    makers = (synthetic.sentences, synthetic.pairs, synthetic.questions, synthetic.texts)
    assert all(isinstance(make(1, 0)[0], Example) for make in makers)


@pytest.mark.parametrize(
    ("raw", "unit", "expected"),
    [
        (["two words"], "token", [Input("text", ("two words",))]),
        (["two words"], "word", [Input("words", WORDS)]),
        ([WORDS], "word", [Input("words", WORDS)]),
        ([WORDS], "token", [Input("pair", WORDS)]),
        ([list(WORDS)], "token", [Input("words", WORDS)]),
        ([WORDS, ("three", "more", "words")], "token", [Input.words(WORDS), Input.words(("three", "more", "words"))]),
        ([Input.words(WORDS)], "token", [Input("words", WORDS)]),
        ([], "token", []),
    ],
)
def test_raw_inputs_are_read_as_documented(raw, unit, expected):
    assert inputs_of(raw, unit) == expected

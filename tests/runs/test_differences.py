"""The first difference of two settings, in words."""

from __future__ import annotations

import pytest

from bertft.runs.differences import first_difference

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 1}}, None),
        ({"a": 1, "b": 2}, {"b": 3, "a": 4}, "b is 2 there and 3 here"),  # in the order of the new ones
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, "a.b.c is 1 there and 2 here"),
        ({"a": {"b": 1}}, {"a": 1}, "a is {'b': 1} there and 1 here"),
        ({"a": [1]}, {"a": {"b": 1}}, "a is [1] there and {'b': 1} here"),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, "a.c is set only there"),
        ({"a": {}}, {"a": {"b": None}}, "a.b is set only here"),
        ({"a": "t"}, {"a": "u"}, "a is 't' there and 'u' here"),
        ({"a": DIGEST}, {"a": None}, "a is 01234567... there and None here"),
        ({"a": DIGEST[:-1]}, {"a": 0.5}, f"a is '{DIGEST[:-1]}' there and 0.5 here"),
        (1, 2, " is 1 there and 2 here"),
    ],
)
def test_the_first_difference_is_named(old, new, words):
    assert first_difference(old, new) == words

"""Pictures of gold and predicted trees."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from bertft.errors import BertftError
from bertft.report.draw.tree import _levels, tree_svg


def test_predicted_edges_are_solid_if_gold_has_them():
    picture = tree_svg(["a<b", "c", "d"], [2, 0, 2], [2, 0, 1], "a title")
    root = ET.fromstring(picture)
    space = "{http://www.w3.org/2000/svg}"
    assert [t.text for t in root.iter(f"{space}text")] == ["a title", "a<b", "c", "d"]
    paths = list(root.iter(f"{space}path"))
    assert len(paths) == 4 and [p.get("stroke-dasharray") is not None for p in paths] == [False, False, False, True]
    assert len(list(root.iter(f"{space}circle"))) == 2
    assert picture == tree_svg(["a<b", "c", "d"], [2, 0, 2], [2, 0, 1], "a title")


def test_overlapping_edges_have_different_levels():
    levels = _levels({(0, 1), (1, 2), (0, 2), (1, 3)})
    assert levels[0, 1] == levels[1, 2] == 0 and len({levels[1, 2], levels[0, 2], levels[1, 3]}) == 3


def test_different_lengths_are_an_error():
    with pytest.raises(BertftError, match="3 words, 2 gold heads"):
        tree_svg(["a", "b", "c"], [0, 1], [0, 1, 1])

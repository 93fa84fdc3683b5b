"""The picture of a gold and a predicted tree."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from bertft.errors import BertftError
from bertft.report.draw.tree import _levels, tree_svg


def test_arcs_say_which_edges_were_found():
    picture = tree_svg(["a<b", "c", "d"], [2, 0, 2], [2, 0, 1], "a title")
    root = ET.fromstring(picture)
    space = "{http://www.w3.org/2000/svg}"
    assert [t.text for t in root.iter(f"{space}text")] == ["a title", "a<b", "c", "d"]
    paths = list(root.iter(f"{space}path"))
    assert len(paths) == 4 and [p.get("stroke-dasharray") is not None for p in paths] == [False, False, False, True]
    assert len(list(root.iter(f"{space}circle"))) == 2
    assert picture == tree_svg(["a<b", "c", "d"], [2, 0, 2], [2, 0, 1], "a title")


def test_edges_that_overlap_lie_apart():
    levels = _levels({(0, 1), (1, 2), (0, 2), (1, 3)})
    assert levels[0, 1] == levels[1, 2] == 0 and len({levels[1, 2], levels[0, 2], levels[1, 3]}) == 3


def test_lengths_must_agree():
    with pytest.raises(BertftError, match="3 words, 2 gold heads"):
        tree_svg(["a", "b", "c"], [0, 1], [0, 1, 1])

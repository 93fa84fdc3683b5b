"""Pictures of gold and predicted trees."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from bertft.errors import BertftError
from bertft.report.draw.tree import Tree, _levels, tree_svg


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


def test_a_tree_is_drawn_in_a_notebook_and_printed_as_a_list():
    tree = Tree(["the", "<b>", "sat\x1b[31m", "down"], [2, 3, 0, 3], title="a title")
    html = tree._repr_html_()
    picture = ET.fromstring(html)
    space = "{http://www.w3.org/2000/svg}"
    assert len(list(picture.iter(f"{space}path"))) == 3 and len(list(picture.iter(f"{space}circle"))) == 1
    assert [t.text for t in picture.iter(f"{space}text")] == ["a title", "the", "<b>", "sat\ufffd[31m", "down"]
    assert repr(tree).splitlines() == ["a title", "sat\ufffd[31m", "  <b>", "    the", "  down"]


def test_predicted_heads_are_drawn_below():
    both = ET.fromstring(Tree(["a", "b"], [0, 1], [2, 0])._repr_html_())
    assert len(list(both.iter("{http://www.w3.org/2000/svg}circle"))) == 2


@pytest.mark.parametrize(
    ("heads", "predicted", "sentence"),
    [
        ([0, 1], [], "tree: expected a head for each of 3 words, found 2 heads and 0 predicted ones"),
        ([0, 1, 1], [0], "tree: expected a head for each of 3 words, found 3 heads and 1 predicted ones"),
        ([0, 4, 1], [], "tree: expected heads from 0 to 3, found 4"),
        ([0, 1, 1], [0, -1, 1], "tree: expected heads from 0 to 3, found -1"),
    ],
)
def test_heads_that_fit_no_word_are_refused(heads, predicted, sentence):
    with pytest.raises(BertftError, match=f"^{sentence}$"):
        Tree(["a", "b", "c"], heads, predicted)


def test_words_whose_heads_form_a_circle_are_not_printed_for_ever():
    assert repr(Tree(["a", "b", "c"], [0, 3, 2])) == "a"

"""Targets of structural probes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse.csgraph import shortest_path

from bertft.data.examples import Sentence
from bertft.errors import BertftError
from bertft.probes.structural.trees import control_trees, packed_trees, punctuation, tree


def sentence(heads, upos=None, xpos=None) -> Sentence:
    n = len(heads)
    tags = tuple(upos or ["X"] * n)
    return Sentence("s1", ("w",) * n, tuple(heads), ("dep",) * n, tags, tuple(xpos or ["_"] * n))


def random_heads(n: int, rng: np.random.Generator) -> list[int]:
    order = rng.permutation(n)
    heads = [0] * n
    for position in range(1, n):
        heads[order[position]] = int(order[rng.integers(position)]) + 1
    return heads


@pytest.mark.parametrize("n", [1, 2, 3, 7, 40])
def test_distances_are_shortest_paths(n):
    rng = np.random.default_rng(n)
    for _ in range(5):
        heads = random_heads(n, rng)
        edges = np.zeros((n, n))
        for word, head in enumerate(heads):
            if head:
                edges[word, head - 1] = 1
        distances, depths = tree(sentence(heads))
        assert np.array_equal(distances, shortest_path(edges, directed=False))
        assert np.array_equal(depths, distances[heads.index(0)])


def test_packing_falls_back_to_16_bits():
    chain = sentence(range(300))
    distances, depths = packed_trees([sentence([0]), chain])
    assert distances[1].dtype == np.int16 and distances[1].max() == 299 and depths[1][-1] == 299
    assert packed_trees([sentence([0, 1])])[0][0].dtype == np.uint8


@pytest.mark.parametrize("tag", ["DT", "IN", "JJ", "NN", "NNS", "NNP", "PRP", "RB", "VB", "VBD", "VBP", "VBZ"])
def test_one_tag_of_a_word_makes_the_tags_those_of_penn(tag):
    assert punctuation([sentence([0, 1], ["X", "X"], [tag, "."])])[1] == "xpos"


def test_punctuation_by_penn_tags_else_universal():
    penn = sentence([0, 1, 1], ["NOUN", "PUNCT", "SYM"], ["NN", "-LRB-", "$"])
    masks, column = punctuation([penn])
    assert masks[0].tolist() == [False, True, False] and column == "xpos"
    masks, column = punctuation([sentence([0, 1, 1], ["NOUN", "PUNCT", "SYM"])])
    assert masks[0].tolist() == [False, True, True] and column == "upos"


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([0, 0], "one root, found 2"),
        ([2, 1], "one root, found 0"),
        ([0, 3, 2], "cycle of 2 words"),
        ([0, 5], "word 2 of 2 has the head 5"),
        ([0, 2], "word 2 of 2 has the head 2"),
        ([], "one root, found 0"),
    ],
)
def test_heads_that_form_no_tree_are_refused(heads, message):
    with pytest.raises(BertftError, match=f"sentence s1: .*{message}"):
        tree(sentence(heads))


def test_control_trees_stay_those_of_earlier_runs():
    words = ("the", "cat", "sees", "a", "dog", "and", "the", "old", "dog", "runs")
    plain = Sentence("s", words, (0,) * 10, ("dep",) * 10, ("X",) * 10, ("_",) * 10)
    seeds = [control_trees([plain, plain], seed) for seed in (0, 1)]
    assert [first == second for first, second in seeds] == [True, True]
    assert [s.heads for s, _ in seeds] == [(0, 1, 1, 1, 4, 1, 6, 1, 8, 1), (0, 1, 1, 1, 4, 5, 6, 7, 8, 9)]
    assert seeds[0][0].words == words

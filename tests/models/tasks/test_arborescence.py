"""The tree decoder, against brute force over all trees."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertft.errors import BertftError
from bertft.models.tasks.arborescence import decode_tree, is_single_root_tree


def trees(n: int) -> list[tuple[int, ...]]:
    """Return all single-root trees over n words, checked by following every word to the root."""
    found = []
    for heads in itertools.product(range(n + 1), repeat=n):
        if heads.count(0) != 1:
            continue
        for word in range(1, n + 1):
            seen = set()
            while word and word not in seen:
                seen.add(word)
                word = heads[word - 1]
            if word:
                break
        else:
            found.append(heads)
    return found


TREES = {n: trees(n) for n in range(1, 6)}


def test_brute_force_finds_as_many_trees_as_cayleys_formula():
    # Cayley: n^(n-1) rooted labelled trees.
    assert [len(TREES[n]) for n in range(1, 6)] == [1, 2, 9, 64, 625]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("root_bonus", [-5.0, 0.0, 5.0])
def test_best_tree_equals_brute_force(n, scale, root_bonus):
    generator = np.random.default_rng(n)
    for _ in range(30):
        scores = generator.normal(size=(n, n + 1)) * scale
        scores[:, 0] += root_bonus * scale
        heads = decode_tree(scores)
        assert tuple(heads) in set(TREES[n])
        best = max(sum(scores[i, h] for i, h in enumerate(tree)) for tree in TREES[n])
        assert scores[np.arange(n), heads].sum() == pytest.approx(best, rel=1e-12)


def test_the_scores_of_a_word_as_its_own_head_do_not_matter():
    scores = np.random.default_rng(0).normal(size=(6, 7))
    heads = decode_tree(scores)
    for value in (-np.inf, np.inf, 1e9):
        scores[np.arange(6), np.arange(1, 7)] = value
        assert (decode_tree(scores) == heads).all()


def test_the_scores_are_not_modified():
    scores = np.random.default_rng(0).normal(size=(6, 7))
    before = scores.copy()
    decode_tree(scores)
    assert (scores == before).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.integers(0, n), min_size=n, max_size=n)))
def test_is_single_root_tree(heads):
    assert is_single_root_tree(np.array(heads)) == (tuple(heads) in set(TREES[len(heads)]))


def test_long_sentences_of_confident_scores():
    # Log-probabilities of a confident parser span hundreds of nats; the penalty of a root must not drown them.
    generator = np.random.default_rng(1)
    scores = generator.normal(size=(120, 121)) * 60
    heads = decode_tree(scores)
    assert is_single_root_tree(heads)
    # No single change of a head to another tree is better.
    total = scores[np.arange(120), heads].sum()
    for word in range(120):
        for head in range(1, 121):
            other = heads.copy()
            other[word] = head
            if head != word + 1 and is_single_root_tree(other):
                assert scores[np.arange(120), other].sum() <= total + 1e-9


def test_scores_of_a_wrong_shape_are_refused():
    with pytest.raises(BertftError, match=r"expected scores of shape \(n, n \+ 1\), found \(3, 3\)"):
        decode_tree(np.zeros((3, 3)))

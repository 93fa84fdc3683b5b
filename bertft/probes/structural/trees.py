"""Targets of structural probes: tree distances and depths."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from bertft.data.examples import Sentence
from bertft.errors import BertftError
from bertft.probes.structural.scores import LONGEST, SHORTEST

PENN_PUNCTUATION = frozenset(["''", ",", ".", ":", "``", "-LRB-", "-RRB-"])
UNIVERSAL_PUNCTUATION = frozenset(["PUNCT", "SYM"])
# Tags that tell a treebank with Penn tags from one with another tag set or none.
PENN_WORDS = frozenset(["DT", "IN", "JJ", "NN", "NNS", "NNP", "PRP", "RB", "VB", "VBD", "VBP", "VBZ"])


def tree(sentence: Sentence) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances (n, n) and depths (n,) of the words of a tree, int16.

    A distance is the number of edges between two words, a depth that between a word and the root.

    Raises:
        BertftError: unless the heads form one tree with one root.
    """
    n = len(sentence.heads)
    children: list[list[int]] = [[] for _ in range(n + 1)]
    for word, head in enumerate(sentence.heads):
        if not 0 <= head <= n or head == word + 1:
            raise BertftError(f"sentence {sentence.id}: word {word + 1} of {n} has the head {head}")
        children[head].append(word)
    if n == 0 or len(children[0]) != 1:
        raise BertftError(f"sentence {sentence.id}: expected a tree with one root, found {len(children[0])} roots")
    distances = np.zeros((n, n), dtype=np.int16)
    depths = np.zeros(n, dtype=np.int16)
    order = [children[0][0]]
    for word in order:  # heads before dependents: a word is one edge further from every earlier word than its head is
        for child in children[word + 1]:
            known = order
            distances[child, known] = distances[known, child] = distances[word, known] + 1
            depths[child] = depths[word] + 1
            order.append(child)
    if len(order) != n:
        raise BertftError(f"sentence {sentence.id}: expected a tree, found a cycle of {n - len(order)} words or more")
    return distances, depths


def packed_trees(sentences: Sequence[Sentence]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the distances (n * n,), row by row, and depths (n,) of each sentence; uint8 if all fit, else int16."""
    trees = [tree(sentence) for sentence in sentences]
    fits = all(distances.max() < 256 for distances, _ in trees)
    dtype = np.uint8 if fits else np.int16
    return [d.ravel().astype(dtype) for d, _ in trees], [depths.astype(dtype) for _, depths in trees]


def punctuation(sentences: Sequence[Sentence]) -> tuple[list[np.ndarray], str]:
    """Return masks (n,) of the words that are punctuation, and the column they follow from: ``xpos`` or ``upos``.

    Penn tags are used if the treebank has them, with Hewitt and Manning's list, else the universal tags PUNCT and SYM.
    """
    tags = {tag for sentence in sentences for tag in sentence.xpos}
    column, marks = ("xpos", PENN_PUNCTUATION) if tags & PENN_WORDS else ("upos", UNIVERSAL_PUNCTUATION)
    return [np.array([tag in marks for tag in getattr(s, column)], dtype=bool) for s in sentences], column


def check_scorable(sentences: Sequence[Sentence]) -> None:
    """Refuse dev data with fewer than 2 sentences that can be scored; an interval needs 2."""
    skip, _ = punctuation(sentences)
    fitting = sum(
        SHORTEST <= len(s.words) <= LONGEST and int((~own).sum()) >= 2 for s, own in zip(sentences, skip, strict=True)
    )
    if fitting < 2:
        raise BertftError(
            f"structural probes: expected at least 2 dev sentences of {SHORTEST} to {LONGEST} words, "
            f"at least 2 of them not punctuation, found {fitting} of {len(sentences)}"
        )


def control_trees(sentences: Sequence[Sentence], seed: int) -> list[Sentence]:
    """Return the sentences with control trees, after Hewitt and Liang's (2019) control task for dependency edges.

    The first word is the root. Every other word is attached to the first word or to the word before it, by one draw
    for each word type (the form as written) with ``seed``, the same in every corpus. The tree depends on the words
    alone, so a probe that reproduces it has memorised words and learned no syntax.
    """

    def hangs_from_first(word: str) -> bool:
        return bool(hashlib.sha256(f"{seed} {word}".encode()).digest()[0] & 1)

    return [
        dataclasses.replace(
            s, heads=tuple(0 if i == 0 else 1 if hangs_from_first(word) else i for i, word in enumerate(s.words))
        )
        for s in sentences
    ]

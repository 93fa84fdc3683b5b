"""Probes at the exact limits of what is scored, counted or refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bertft.data.examples import Sentence
from bertft.errors import BertftError
from bertft.probes.edge.head import Input
from bertft.probes.edge.scores import expected_layer, f1
from bertft.probes.structural.predicted_trees import write_trees
from bertft.probes.structural.rbf import train_rbf
from bertft.probes.structural.scores import (
    SentenceScores,
    estimates,
    resampled,
    score_sentences,
    spanning_trees,
    spearman,
    summarise,
)
from bertft.probes.structural.training import Corpus, Trees
from bertft.probes.structural.trees import check_scorable, control_trees, packed_trees, tree
from bertft.probes.vectors import WordVectors


def chain(n: int, upos: tuple[str, ...] = ()) -> Sentence:
    """Return a sentence in which every word hangs from the one before it."""
    return Sentence(
        "s", tuple(f"w{i}" for i in range(n)), tuple(range(n)), ("dep",) * n, upos or ("X",) * n, ("X",) * n
    )


@pytest.fixture
def scores():
    """Return the scores of a sentence each of 4, 5, 50 and 51 words in two layers."""
    lengths = np.array([4, 5, 50, 51])
    values = np.array([[0.9, 0.2, 0.4, 0.9], [0.9, 0.3, 0.1, 0.9]])
    ones = np.ones((2, 4))
    return SentenceScores(lengths, values, values / 2, ones, np.array([1.0, 1, 2, 0]), ones * [1, 0, 1, 0])


def test_means_are_over_sentences_of_5_to_50_words(scores):
    found = estimates(scores, np.ones((1, 4)))
    assert found["dspr"][:, 0] == pytest.approx([0.3, 0.2]) and found["nspr"][:, 0] == pytest.approx([0.15, 0.1])
    assert found["uuas"][:, 0] == pytest.approx([1, 1]) and found["root_accuracy"][:, 0] == pytest.approx([0.5, 0.5])
    weighted = estimates(scores, np.array([[1.0, 0, 3, 0], [2.0, 0, 0, 0]]))
    assert weighted["dspr"][0] == pytest.approx([0.4, 0]) and weighted["uuas"][0] == pytest.approx([4 / 7, 1])
    assert weighted["root_accuracy"][0] == pytest.approx([1, 1])
    alone = estimates(scores, np.array([[1.0, 0, 0, 0], [0.0, 0, 0, 0]]))  # one sentence with one edge, and none
    assert alone["root_accuracy"][0] == pytest.approx([1, 0]) and alone["uuas"][0] == pytest.approx([1, 0])


def test_rows_count_the_sentences_behind_each_measure(scores):
    for layer, own in enumerate(summarise(scores, resamples=20)):
        assert {name: score.n for name, score in own.items()} == {
            "dspr": 2, "nspr": 2, "uuas": 3, "root_accuracy": 4
        }  # fmt: skip
        assert own["dspr"].value == pytest.approx([0.3, 0.2][layer])
    drawn = resampled(scores, resamples=500, seed=1)
    moved = drawn["dspr"][0, 1:]
    assert drawn["dspr"].shape == (2, 501) and moved.std() > 0 and moved.mean() == pytest.approx(0.3, abs=1e-12)


@pytest.mark.parametrize("n", [4, 5, 50, 51])
def test_correlations_are_taken_of_5_to_50_words(n):
    points = torch.randn(1, n, 3, generator=torch.Generator().manual_seed(0))
    distances, depths = packed_trees([chain(n)])
    found = score_sentences(points, points.square().sum(2), distances, depths, [np.zeros(n, dtype=bool)])
    assert np.isfinite(found.dspr).all() == np.isfinite(found.nspr).all() == (5 <= n <= 50)
    assert found.gold_edges.tolist() == [n - 1]


def test_two_words_have_an_edge_and_one_has_none():
    assert spanning_trees(torch.zeros(1, 2, 2)).tolist() == [[[False, True], [True, False]]]
    assert not spanning_trees(torch.zeros(1, 1, 1)).any()
    points = torch.tensor([[[0.0], [1.0], [5.0]]])
    distances, depths = packed_trees([chain(3)])
    for skipped, edges in (((1, 0, 0), 1), ((1, 1, 0), 0), ((1, 1, 1), 0), ((0, 0, 0), 2)):
        mask = np.array(skipped, dtype=bool)
        found = score_sentences(points, points[..., 0], distances, depths, [mask])
        assert found.gold_edges.tolist() == [edges] and found.edges.tolist() == [[edges]]


def test_a_constant_side_has_no_correlation():
    x = torch.tensor([[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]])
    assert spearman(x, x.flip(1)).tolist() == [-1, 0] and spearman(x[1:], x[:1]).tolist() == [0]


@pytest.mark.parametrize(("n", "dtype"), [(256, np.uint8), (257, np.int16)])
def test_trees_are_packed_in_bytes_up_to_a_distance_of_255(n, dtype):
    distances, depths = packed_trees([chain(3), chain(n)])
    assert {own.dtype for own in (*distances, *depths)} == {np.dtype(dtype)}
    assert distances[1].max() == depths[1].max() == n - 1


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ((0, 3), "word 2 of 2 has the head 3"),
        ((0, -1), "word 2 of 2 has the head -1"),
        ((0, 2), "word 2 of 2 has the head 2"),
        ((2, 1), "expected a tree with one root, found 0 roots"),
        ((0, 0), "expected a tree with one root, found 2 roots"),
        ((), "expected a tree with one root, found 0 roots"),
        ((0, 3, 2), "found a cycle of 2 words or more"),
    ],
)
def test_heads_out_of_range_and_cycles_are_refused(heads, message):
    with pytest.raises(BertftError, match=message):
        tree(Sentence("s", ("w",) * len(heads), heads, (), (), ()))


def test_dev_data_need_two_sentences_with_two_words_each_that_count():
    marks = ("X", "X", "PUNCT", "PUNCT", "SYM")
    check_scorable([chain(5), chain(50)])
    check_scorable([chain(5, marks), chain(5, marks)])
    for sentences, found in (
        ([chain(5)], 1),
        ([chain(4), chain(50)], 1),
        ([chain(5), chain(51)], 1),
        ([chain(5), chain(5, ("X", *("PUNCT",) * 4))], 1),
    ):
        with pytest.raises(BertftError, match=f"found {found} of {len(sentences)}"):
            check_scorable(sentences)


def test_a_control_tree_hangs_each_word_from_the_first_or_the_one_before():
    (found,) = control_trees([chain(200)], seed=3)
    assert found.heads[:2] == (0, 1) and all(head in (1, i) for i, head in enumerate(found.heads) if i > 1)
    assert 0.3 < np.mean([head == 1 for head in found.heads[2:]]) < 0.7
    assert found.words == chain(200).words and found != control_trees([chain(200)], seed=4)[0]


@pytest.mark.parametrize(("rank", "epochs"), [(0, 1), (1, 0)])
def test_a_kernel_has_a_rank_and_is_trained(rank, epochs):
    sentences = [chain(5), chain(6)]
    vectors = WordVectors(torch.randn(11, 1, 4), np.array([5, 6]))
    corpus = Corpus(vectors, Trees(sentences))
    with pytest.raises(BertftError, match=f"must be positive, found {rank} and {epochs}"):
        train_rbf(corpus, corpus, rank=rank, epochs=epochs)
    probes = train_rbf(corpus, corpus, rank=1, epochs=1)
    assert probes.weights.shape == (2, 1, 4, 1) and probes.widths.shape == (2, 1) and (probes.widths > 0).all()


def test_the_expected_layer_needs_a_gain_over_layer_0():
    inputs = [Input("layer", 0), Input("mix", 1), Input("mix", 2)]
    assert expected_layer(inputs, np.array([[0.5], [0.7], [0.5]])) is None
    assert (
        expected_layer(inputs[:1], np.array([[0.5]])) is None and expected_layer(inputs[1:], np.zeros((2, 1))) is None
    )
    assert expected_layer(inputs[:2], np.array([[0.5], [0.7]])).tolist() == [1]
    scores = np.array([[0.5, 0.5, 0.6], [0.7, 0.5, 0.5], [0.75, 0.5, 0.5]])  # resamples without a gain or with a loss
    found = expected_layer(inputs, scores)
    assert found[0] == pytest.approx((0.2 + 2 * 0.05) / 0.25) and math.isnan(found[1]) and math.isnan(found[2])


def test_f1_of_nothing_is_0():
    found = f1(np.array([0.0, 1.0, 1.0]), np.array([0.0, 1.0, 2.0]), np.array([0.0, 0.0, 1.0]))
    assert found == pytest.approx([0, 2, 2 / 3])


def test_predicted_trees_are_written_beside_the_gold_heads(tmp_path):
    first = Sentence(
        "a", ("Dogs", "bark", "."), (2, 0, 2), ("nsubj", "root", "punct"), ("N", "V", "P"), ("x", "y", "z")
    )
    second = Sentence("b", ("Yes",), (0,), ("root",), ("I",), ("u",))
    points, depths = torch.tensor([[0.0], [1.0], [3.0], [9.0]]), torch.tensor([1.0, 2.0, 3.0, 0.0])
    write_trees(tmp_path / "out.conllu", [first, second], points, depths, layer=7)
    assert (tmp_path / "out.conllu").read_text("utf8").split("\n") == [
        "# generator = bertft structural probe",
        "# layer = 7",
        "# sent_id = a",
        "# text = Dogs bark .",
        "1\tDogs\t_\tN\tx\t_\t0\troot\t_\tGoldHead=2",
        "2\tbark\t_\tV\ty\t_\t1\tdep\t_\tGoldHead=0",
        "3\t.\t_\tP\tz\t_\t2\tdep\t_\tGoldHead=2",
        "",
        "# sent_id = b",
        "# text = Yes",
        "1\tYes\t_\tI\tu\t_\t0\troot\t_\tGoldHead=0",
        "",
        "",
    ]

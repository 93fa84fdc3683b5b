"""Matrices as arrays, and conversion to and from rsatoolbox."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform

from bertft.errors import BertftError
from bertft.similarity.dissimilarities import Rdms, compare_rdms, from_rsatoolbox, rdms, to_rsatoolbox

LAYERS, N, D = 3, 12, 7
WORDS = {"word": [f"w{i}" for i in range(N)], "sentence": [i // 4 for i in range(N)]}


@pytest.fixture(scope="module")
def rsatoolbox():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("rsatoolbox")


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(LAYERS, N, D)) + 3


@pytest.mark.parametrize(
    ("metric", "scipy"), [("cosine", "cosine"), ("manhattan", "cityblock"), ("sqeuclidean", "sqeuclidean")]
)
def test_numpy_in_and_out(vectors, metric, scipy):
    found = rdms(vectors, metric, stimuli=WORDS)
    assert found.values.dtype == np.float64 and found.channels == D and found.spaces == {"layer": [0, 1, 2]}
    np.testing.assert_allclose(found.values, [pdist(x, scipy) for x in vectors], atol=1e-12)
    np.testing.assert_array_equal(found.square(), [squareform(v) for v in found.values])
    same = rdms(torch.tensor(vectors), metric)
    np.testing.assert_array_equal(same.values, found.values)


@pytest.mark.parametrize(
    ("metric", "method", "measure"),
    [("sqeuclidean", "euclidean", "squared euclidean"), ("correlation", "correlation", "correlation")],
)
def test_matrices_equal_rsatoolbox(rsatoolbox, vectors, metric, method, measure):
    ours = to_rsatoolbox(rdms(vectors, metric, stimuli=WORDS))
    dataset = rsatoolbox.data.Dataset(vectors[1], obs_descriptors=WORDS)
    theirs = rsatoolbox.rdm.calc_rdm(dataset, method=method, descriptor="word")
    order = [list(ours.pattern_descriptors["word"]).index(word) for word in theirs.pattern_descriptors["word"]]
    assert ours.dissimilarity_measure == theirs.dissimilarity_measure == measure and ours.n_cond == N
    np.testing.assert_allclose(ours.get_matrices()[1][np.ix_(order, order)], theirs.get_matrices()[0], atol=1e-12)
    assert list(ours.rdm_descriptors["layer"]) == [0, 1, 2]
    assert list(ours.pattern_descriptors["sentence"]) == WORDS["sentence"]


@pytest.mark.parametrize("metric", ["cosine", "correlation", "sqeuclidean", "euclidean", "manhattan"])
def test_conversion_to_rsatoolbox_and_back(rsatoolbox, vectors, metric):
    there = rdms(vectors, metric, spaces={"layer": [0, 6, 12]}, stimuli=WORDS)
    back = from_rsatoolbox(to_rsatoolbox(there), channels=D)
    np.testing.assert_allclose(back.values, there.values, rtol=1e-15)
    assert (back.metric, back.channels, back.spaces, back.stimuli) == (metric, D, {"layer": [0, 6, 12]}, WORDS)


def test_comparisons_equal_rsatoolbox(rsatoolbox, vectors):
    a = rdms(vectors, "correlation")
    b = rdms(vectors + np.random.default_rng(1).normal(size=vectors.shape), "correlation")
    for ours, theirs in (
        ("pearson", "corr"), ("cosine", "cosine"), ("spearman", "spearman"), ("rho_a", "rho-a"), ("kendall", "tau-b"),
    ):  # fmt: skip
        expected = rsatoolbox.rdm.compare(to_rsatoolbox(a), to_rsatoolbox(b), method=theirs)
        np.testing.assert_allclose(compare_rdms(a, b, ours), expected, atol=1e-12)


def test_a_foreign_measure_keeps_its_name(rsatoolbox):
    theirs = rsatoolbox.rdm.RDMs(np.arange(6.0)[None], dissimilarity_measure="crossnobis")
    found = from_rsatoolbox(theirs)
    assert found.metric == "crossnobis" and found.spaces == {} and found.values.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert to_rsatoolbox(found).dissimilarity_measure == "crossnobis"


def test_refusals(rsatoolbox, vectors, monkeypatch):
    some = rdms(vectors)
    for match, call in (
        ("metric must be one of cosine", lambda: rdms(vectors, "dot")),
        (r"\(L, N, D\), N > 1, found torch.float64 of \(7,\)", lambda: rdms(vectors[0, 0])),
        ("found torch.int64", lambda: rdms(np.ones((4, 3), dtype=np.int64))),
        ("NaN", lambda: rdms(vectors * np.nan)),
        (r"found shape \(1, 5\)", lambda: Rdms(np.ones((1, 5)), "cosine")),
        ("stimuli 'word' must have 12 entries, found 2", lambda: rdms(vectors, stimuli={"word": ["a", "b"]})),
        ("spaces 'layer' must have 3 entries, found 1", lambda: rdms(vectors, spaces={"layer": [0]})),
        ("found 12 and 5", lambda: compare_rdms(some, rdms(vectors[:, :5]))),
        ("compare must be one of", lambda: compare_rdms(some, some, "tau")),
        ("needs the number of channels", lambda: to_rsatoolbox(Rdms(np.ones((1, 6)), "sqeuclidean"))),
        ("expected rsatoolbox.rdm.RDMs, found ndarray", lambda: from_rsatoolbox(vectors)),
        ("channels must be positive, found 0", lambda: from_rsatoolbox(to_rsatoolbox(some), channels=0)),
        (
            "1 of 6 dissimilarities are not finite",
            lambda: from_rsatoolbox(rsatoolbox.rdm.RDMs(np.array([[np.nan, 1, 2, 3, 4, 5]]))),
        ),
    ):
        with pytest.raises(BertftError, match=match) as caught:
            call()
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "rsatoolbox", None)
    with pytest.raises(BertftError, match="needs the package rsatoolbox"):
        to_rsatoolbox(some)

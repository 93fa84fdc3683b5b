"""Similarity at the exact limits of what is taken, refused or counted."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bertft.data.examples import Sentence
from bertft.errors import BertftError
from bertft.ops.native import dispatch
from bertft.similarity import sinks
from bertft.similarity.compare.nulls import upper_bound
from bertft.similarity.compare.plan import Plan
from bertft.similarity.dissimilarities import Rdms, compare_rdms, rdms
from bertft.similarity.influence import augmented_rows, cka_with_influence
from bertft.similarity.moments import CrossMoments
from bertft.similarity.reservoir import Reservoir, _priorities
from bertft.similarity.sinks import Massive, _least_layers, _threshold, dimension_rows
from bertft.similarity.traded_texts import TradedTexts, both_ends, classes
from bertft.similarity.vectors import compare_vectors
from bertft.similarity.words.labels import labels_of


def drawn(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 6)])
def test_condensed_matrices_have_two_or_more_stimuli(shape):
    assert Rdms(np.ones(shape), "cosine").count == {1: 2, 3: 3, 6: 4}[shape[1]]


@pytest.mark.parametrize("shape", [(6,), (0, 6), (1, 0), (1, 2), (2, 4), (1, 1, 6)])
def test_values_of_another_shape_are_no_matrices(shape):
    with pytest.raises(BertftError, match="expected condensed values"):
        Rdms(np.ones(shape), "cosine")


def test_two_stimuli_have_one_dissimilarity_and_one_has_none():
    pair = rdms(np.array([[3.0, 4.0], [0.0, 0.0]]), "euclidean")
    assert pair.values.tolist() == [[5.0]] and pair.spaces == {"layer": [0]} and pair.stimuli == {}
    assert pair.square().tolist() == [[[0, 5], [5, 0]]] and pair.channels == 2
    named = rdms(np.ones((2, 2, 3)), "euclidean", spaces={"name": ["a", "b"]}, stimuli={"word": ["x", "y"]})
    assert named.spaces == {"name": ["a", "b"]} and named.stimuli == {"word": ["x", "y"]}
    with pytest.raises(BertftError, match=r"N > 1"):
        rdms(np.ones((2, 1, 3)))


def test_matrices_are_compared_each_with_each():
    a, b = rdms(drawn(2, 6, 4).numpy()), rdms(drawn(3, 6, 5, seed=1).numpy())
    found = compare_rdms(a, b)
    assert found.shape == (2, 3)
    expected = [[np.corrcoef(p, q)[0, 1] for q in b.values] for p in a.values]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("layers", [(0, 1), (1, 0), (0, 0), (1, 2)])
def test_sums_have_a_layer_on_each_side_and_as_many_on_both_for_a_diagonal(layers):
    with pytest.raises(BertftError, match=f"found {layers[0]} and {layers[1]}"):
        CrossMoments(*layers)
    if 0 in layers:
        with pytest.raises(BertftError, match="at least one layer on each side"):
            CrossMoments(*layers, pairs="all")
    else:
        assert len(CrossMoments(*layers, pairs="all")) == 0


def test_empty_sums_have_no_widths_bytes_or_state():
    empty = CrossMoments(1, 1)
    assert (empty.widths, empty.nbytes, empty.state, len(empty)) == ((0, 0), 0, {}, 0)
    assert CrossMoments(1, 1).restore({}).noise == 1e-10
    assert CrossMoments(1, 1).update(drawn(1, 0, 3), drawn(1, 0, 3)).widths == (0, 0)


@pytest.mark.parametrize(
    ("widths", "dtype", "float64", "served", "noise"),
    [
        ((128, 128), torch.float32, False, True, 1e-10),
        ((129, 128), torch.float32, False, True, 1e-7),
        ((128, 129), torch.float32, False, True, 1e-7),
        ((129, 129), torch.float32, True, True, 1e-10),
        ((129, 129), torch.float32, False, False, 1e-10),
        ((129, 129), torch.float64, False, True, 1e-10),
        ((129, 129), torch.float16, True, True, 1e-7),
        ((4, 4), torch.bfloat16, False, True, 1e-5),
    ],
)
def test_the_noise_floor_follows_from_vectors_and_products(widths, dtype, float64, served, noise, monkeypatch):
    if not served:
        monkeypatch.setattr(dispatch, "serves", lambda tensor: False)
    x, y = (drawn(1, 5, width).to(dtype) for width in widths)
    assert CrossMoments(1, 1, float64=float64).update(x, y).noise == noise


def test_sums_of_older_files_have_the_coarser_floor_unless_they_were_of_float64():
    x = drawn(1, 9, 3, dtype=torch.float32)
    for float64, noise in ((False, 1e-7), (True, 1e-10)):
        sums = CrossMoments(1, 1, float64=float64).update(x, x)
        older = {name: tensor for name, tensor in sums.state.items() if name != "noise"}
        assert CrossMoments(1, 1, float64=float64).restore(older).noise == noise


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("pairs", ["diagonal", "all"])
def test_sums_about_one_other_mean_are_those_of_all_stimuli(pairs, side):
    spaces = [drawn(2, 20, 4), drawn(2, 20, 3, seed=1)]
    first = CrossMoments(2, 2, pairs=pairs).update(*(t[:, :10] for t in spaces))
    second = CrossMoments(2, 2, pairs=pairs)
    start = [t[:, :10] for t in spaces]
    start[side] = spaces[side][:, 10:]
    second.start(*start).update(*(t[:, 10:] for t in spaces))
    equal = [torch.equal(first.state[name], second.state[name]) for name in ("mean_x", "mean_y")]
    assert equal == [side == 1, side == 0]
    whole = CrossMoments(2, 2, pairs=pairs).update(*spaces)
    torch.testing.assert_close(first.merge(second).rsa(), whole.rsa(), rtol=0, atol=1e-12)
    torch.testing.assert_close(first.cka(), whole.cka(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("xx", "yy"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 2.0), (2.0, -1.0)])
def test_a_space_without_variance_has_no_cka(xx, yy):
    ones = torch.ones(3, dtype=torch.float64)
    value, influence = cka_with_influence((0.5, ones), (xx, ones), (yy, ones))
    assert math.isnan(value) and influence.isnan().all()


def test_few_values_have_their_largest_as_bound():
    assert [upper_bound(np.arange(count)[::-1]) for count in (1, 18, 19, 20, 100)] == [0, 17, 18, 19, 95]


def kept(capacity: int, lengths: list[int], order: list[int]) -> list[int]:
    """Return the sentences kept of those with priorities 0, 1, ... in ``order``, offered one by one."""
    best = np.argsort(_priorities(0, np.arange(len(lengths))))
    sample = Reservoir(capacity)
    for rank in order:
        ids, n = torch.tensor([int(best[rank])]), lengths[rank]
        sample.offer(ids, torch.tensor([n]), torch.full((1, n, 2), float(rank)))
    groups, (vectors,) = sample.contents()
    found = sorted(int(rank) for rank in vectors[0, :, 0].unique())
    assert sample.stimuli == len(groups) == sum(lengths[rank] for rank in found)
    assert sample.best_of(sample.listing()) == {int(best[rank]) for rank in found}
    return found


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_a_sample_is_filled_exactly_and_has_two_sentences_at_least(order):
    assert kept(10, [4, 3, 3, 1], order) == [0, 1, 2]
    assert kept(9, [4, 3, 3, 1], order) == [0, 1]  # not the fourth, which would fit: it comes after one that does not
    assert kept(11, [4, 3, 3, 1], order) == [0, 1, 2, 3]
    assert kept(1, [4, 3, 3, 1], order) == [0, 1]


def test_a_sentence_without_stimuli_is_not_sampled():
    sample = Reservoir(10)
    sample.offer(torch.tensor([0, 1, 2]), torch.tensor([2, 0, 1]), drawn(1, 3, 2))
    assert sample.ids == [0, 2] and sample.counts == [2, 1]


def test_a_state_is_restored_with_or_without_a_limit():
    for capacity, limited in ((10, False), (4, True)):
        sample = Reservoir(capacity, 3)
        for k in range(4):
            sample.offer(torch.tensor([k]), torch.tensor([2]), drawn(2, 2, 3, seed=k))
        tensors, limit = sample.state()
        assert (limit is not None) == limited
        again = Reservoir(capacity, 3).restore({name: t.clone() for name, t in tensors.items()}, limit)
        for one in (sample, again):
            one.offer(torch.tensor([9, 10]), torch.tensor([1, 2]), drawn(2, 3, 3, seed=9))
        assert again.ids == sample.ids and again.counts == sample.counts and again.state()[1] == sample.state()[1]
        assert torch.equal(again.contents()[1][0], sample.contents()[1][0])


def test_massive_stimuli_are_beyond_the_limit_in_a_tenth_of_the_layers_and_two():
    assert [_least_layers(n) for n in (1, 2, 3, 4, 19, 20, 21, 30, 31)] == [1, 1, 2, 2, 2, 2, 3, 3, 4]


def test_rows_without_spread_or_without_a_finite_one_have_no_limit():
    for rows in (torch.ones(5, 3), torch.full((5, 3), math.nan), torch.full((5, 3), 3e38)):
        assert _threshold(rows)[1] == math.inf
    assert _threshold(drawn(50, 3))[0].dtype == torch.float64
    assert _threshold(drawn(50, 3, dtype=torch.bfloat16))[0].dtype == torch.float32


def test_thresholds_wait_for_rows_and_then_stay():
    massive = Massive(["base", "t"], {"t": {"dot": CrossMoments(2, 2, "dot")}})
    empty, rows = [torch.zeros(2, 0, 3)] * 2, [drawn(2, 40, 3), drawn(2, 40, 3, seed=1)]
    assert massive.layers_of(rows) is None
    massive.fit(empty)
    assert massive.limits == [] and massive.layers_of(rows) is None
    massive.fit(rows)
    before = [limit.clone() for limit in massive.limits]
    massive.fit([5 * t for t in rows])
    assert all(map(torch.equal, before, massive.limits)) and massive.layers_of(rows) is None
    far = [t.clone() for t in rows]
    far[1][:, 7] = 1e4
    found = massive.layers_of(far)
    assert not found[0].any() and found[1].nonzero().tolist() == [[0, 7], [1, 7]]
    far[1][:, 7] = math.inf  # refused elsewhere, and never massive
    assert massive.layers_of(far) is None


def test_massive_stimuli_are_listed_up_to_a_number(monkeypatch):
    monkeypatch.setattr(sinks, "LISTED", 2)
    massive = Massive(["base"], {"t": {"dot": CrossMoments(2, 2, "dot")}})
    massive.counts = [torch.zeros(2, dtype=torch.int64)]
    layers = torch.tensor([[False, True, True, False, True], [False, True, False, False, True]])
    anywhere = massive.note([layers], torch.tensor([8, 4]), torch.tensor([2, 3]))
    assert anywhere.tolist() == [False, True, True, False, True] and massive.counts[0].tolist() == [3, 2]
    assert massive.places == [(8, 1, 0, 0, 1), (4, 0, 0, 0, 0)]


def test_a_class_has_five_texts_of_at_least_one_stimulus():
    assert classes(torch.tensor([2, 2, 2, 2])) == [] and len(TradedTexts(torch.arange(4), 0)) == 0
    assert classes(torch.tensor([2] * 5)) == [(2, [0, 1, 2, 3, 4])]
    assert classes(torch.tensor([0, 2, 2, 2, 2, 2, 0])) == [(2, [1, 2, 3, 4, 5])]
    assert classes(torch.tensor([3, 3, 3, 3, 3, 2, 2, 2, 2, 2])) == [(3, [0, 1, 2, 3, 4]), (2, [5, 6, 7, 8, 9])]
    assert classes(torch.tensor([4, 4, 4, 4, 3, 2, 2, 2, 2, 1])) == [(3, [0, 1, 2, 3, 4]), (1, [5, 6, 7, 8, 9])]
    assert classes(torch.tensor([3, 3, 3, 3, 2, 2])) == [(2, [0, 1, 2, 3, 4, 5])]


def test_a_cut_keeps_both_ends():
    found = [both_ends(torch.arange(5), length).tolist() for length in range(1, 6)]
    assert found == [[0], [0, 4], [0, 1, 4], [0, 1, 3, 4], [0, 1, 2, 3, 4]]


def test_a_form_is_a_label_from_ten_occurrences_on():
    def sentence(words: list[str]) -> Sentence:
        return Sentence("s", tuple(words), (), (), (), ())

    found = labels_of(("form", "frequency", "position"), [sentence(["The"] * 9 + ["dog"] * 10), sentence(["x"] * 52)])
    assert found["form"][:19] == ["(rarer words)"] * 9 + ["dog"] * 10 and found["form"][19:] == ["x"] * 52
    assert found["frequency"][:19] == [3] * 19 and found["frequency"][19:] == [5] * 52
    assert found["position"] == [*range(19), *range(51), 50]
    with pytest.raises(BertftError, match="the text does not have 'upos'"):
        labels_of(("upos",), [sentence(["a"])])
    for name in ("feats", "feats:", ":Number", "head:Number"):
        with pytest.raises(BertftError, match="words: by must be some of"):
            labels_of((name,), [SimpleNamespace(words=())][:0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_rows_behind_influences_have_the_precision_of_the_vectors(dtype):
    x = drawn(1, 9, 3, dtype=dtype)
    z, w = augmented_rows(CrossMoments(1, 1).update(x, x), 0, x[0], x[0])
    assert z.dtype == w.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_a_dimension_is_named_from_above_a_quarter_of_the_variance():
    x = torch.cat([torch.eye(4), -torch.eye(4)]).double()[None]  # a quarter each
    sums = {"t": {"dot": CrossMoments(1, 1, "dot").update(x, x * torch.tensor([1.0, 1.01, 1.0, 1.0]))}}
    (share, number) = dimension_rows(sums, "toy", 8, 5)
    assert (share.model, share.measure, share.n, share.seed) == ("t", "largest_dimension_share", 8, 5)
    assert share.value == pytest.approx(1.0201 / 4.0201) and (number.measure, number.value) == ("largest_dimension", 1)
    assert (share.task, share.data, share.layer) == (number.task, number.data, number.layer) == ("sinks", "toy", 0)
    assert dimension_rows({"t": {"cosine": CrossMoments(1, 1).update(x, x)}}, "toy", 8, 5) == []


def test_spaces_of_different_depth_have_measures_of_their_own():
    x, y = drawn(3, 30, 4), drawn(1, 30, 4, seed=1)
    sums = CrossMoments(3, 1, pairs="all").update(x, y)
    mirrored = CrossMoments(1, 3, pairs="all").update(y, x)
    own = CrossMoments(3, 3).update(x, x)
    for measure in ("effective_dimension", "anisotropy"):
        (first, second), (third, fourth) = getattr(sums, measure)(), getattr(mirrored, measure)()
        torch.testing.assert_close(first, getattr(own, measure)()[0], rtol=1e-12, atol=0)
        assert torch.equal(first, fourth) and torch.equal(second, third) and second.shape == (1,)
    named = {
        row.model: row
        for row in dimension_rows({"t": {"dot": CrossMoments(3, 1, "dot", "all").update(x, y)}}, "d", 30, 0)
    }
    assert set(named) == {"base", "t"}


def test_priorities_are_those_of_splitmix64():
    """Steele, Lea and Flood 2014, in plain integers; its finaliser is taken twice."""

    def expected(seed: int, key: int) -> float:
        z = (key + (seed % 2**32 + 1) * 0x9E3779B97F4A7C15) % 2**64
        for _ in range(2):
            z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
            z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
            z ^= z >> 31
        return (z >> 11) / 2**53

    keys = [0, 1, 2, 12345, 2**40]
    for seed in (0, 7, 2**32 - 1, 2**32 + 7):
        assert _priorities(seed, np.array(keys)).tolist() == [expected(seed, key) for key in keys]


def test_vectors_of_all_layers_are_compared_with_all():
    x, y = drawn(2, 30, 4), drawn(3, 30, 5, seed=1)
    with pytest.raises(BertftError, match="expected the layers 0, 1 of base, found 0, 1, 2"):
        compare_vectors(x, y)
    rows = compare_vectors(x, y[:2], Plan(measures=("cka",), all_layers=True, intervals=False), data="toy")
    rows = [row for row in rows if row.task != "sinks"]
    found = {(row.task, row.measure, row.layer): row.value for row in rows}
    cka = CrossMoments(2, 2, "dot", "all").update(x, y[:2]).cka()
    expected = {("heatmap", f"cka_debiased_base{k}", m): float(cka[k, m]) for k in (0, 1) for m in (0, 1)}
    expected |= {("rsa", "cka_debiased", k): float(cka[k, k]) for k in (0, 1)}
    assert found == pytest.approx(expected, abs=1e-12)
    assert {(row.model, row.data, row.n, row.low, row.high) for row in rows} == {("tuned", "toy", 30, None, None)}


def test_one_space_and_one_layer_may_be_given_without_a_name():
    x, y = drawn(30, 4), drawn(30, 3, seed=1)
    rows = compare_vectors(x, y, Plan(("sqeuclidean",)))
    assert rows == compare_vectors(x[None].numpy(), {"tuned": y[None]}, Plan(("sqeuclidean",)))
    assert {(row.model, row.layer, row.n) for row in rows if row.task == "rsa"} == {("tuned", 0, 30)}
    for tuned in ({}, {"base": y}):
        with pytest.raises(BertftError, match="under names other than base"):
            compare_vectors(x, tuned)
    for wrong in (x[:0, 0], x.long(), x[None, None]):
        with pytest.raises(BertftError, match=r"base must be float of shape \(L, n, D\)"):
            compare_vectors(wrong, y)


def test_groups_are_numbered_in_order_and_cluster_the_intervals():
    x = drawn(1, 30, 4)
    y = x + 0.5 * drawn(1, 30, 4, seed=1)
    letters = [chr(97 + k // 3) for k in range(30)]
    rows = compare_vectors(x, y, groups=letters)
    assert rows == compare_vectors(x, y, groups=np.arange(30) // 3) and rows != compare_vectors(x, y)
    assert compare_vectors(x, y, groups=range(30)) == compare_vectors(x, y)
    for groups, words in (
        (letters[1:], "expected 30 groups"),
        ("ab" * 15, "consecutive rows, found 'a' again in row 2"),
    ):
        with pytest.raises(BertftError, match=words):
            compare_vectors(x, y, groups=groups)

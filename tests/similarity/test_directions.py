"""Directions of a change: exact PCA, intervals, words and vocabulary."""

from __future__ import annotations

import csv
import types

import numpy as np
import pytest
import torch

from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.models.logit_lens import logit_lens
from bertft.runs.catalogue import DIRECTIONS
from bertft.runs.intervals import Interval, clustered_error, share_interval
from bertft.runs.vocabulary import MeasureName
from bertft.similarity.direction_words import FILES, tokens_of, write_directions
from bertft.similarity.directions import (
    Change,
    ChangeSums,
    End,
    LayerDirections,
    change_of_moments,
    check_widths,
    directions_of_change,
    directions_of_layer,
    rows_of_directions,
)
from bertft.similarity.moments import CrossMoments
from bertft.similarity.paired_stimuli import Draw

# Variances of the change along its principal directions; the first two are apart from the rest.
SPECTRUM = torch.tensor([4.0, 1.5, *[0.3] * 10], dtype=torch.float64)
SHIFT = torch.tensor([0.0] * 11 + [1.2], dtype=torch.float64)


def sample(sentences: int, generator: torch.Generator, scale: float = 1.0):
    """Return x and y (1, T, 12) and the sentence of each stimulus; half the variance is that of sentences."""
    lengths = torch.randint(5, 16, (sentences,), generator=generator)
    groups = torch.repeat_interleave(torch.arange(sentences), lengths)

    def normal(rows: int) -> torch.Tensor:
        return torch.randn(rows, 12, generator=generator, dtype=torch.float64)

    common, own = normal(sentences)[groups], normal(len(groups))
    change = (common + own) * (SPECTRUM / 2).sqrt() + SHIFT
    x = 3 * normal(len(groups)) + 2
    return x[None], (x + scale * change)[None], groups


def truth(x: torch.Tensor, y: torch.Tensor):
    """Return E|d|^2, the mean, eigenvalues and eigenvectors (D, k) by NumPy, of x and y (1, T, D)."""
    d = (y[0] - x[0]).numpy()
    values, vectors = np.linalg.eigh(np.cov(d.T, bias=True))
    return (d**2).sum(1).mean(), d.mean(0), values[::-1], vectors[:, ::-1]


@pytest.mark.parametrize("kept", ["changes", "moments"])
def test_the_principal_directions_equal_brute_force(kept):
    x, y, groups = sample(40, torch.Generator().manual_seed(0))
    sums, moments = ChangeSums(), CrossMoments(1, 1, "dot", float64=True)
    for chunk in torch.arange(x.shape[1]).split(77):
        sums.update(x[:, chunk], y[:, chunk])
        moments.update(x[:, chunk], y[:, chunk])
    change = sums.changes()[0] if kept == "changes" else change_of_moments(moments, 0)
    found = directions_of_layer(change, groups, (y - x)[0], sentences=40, k=3)
    total, mean, values, vectors = truth(x, y)
    assert found.total == pytest.approx(total, rel=1e-8)
    np.testing.assert_allclose(found.mean, mean, atol=1e-8)
    np.testing.assert_allclose(found.eigenvalues, values, atol=1e-8)
    np.testing.assert_allclose((found.vectors.numpy() * vectors.T[:3]).sum(1) ** 2, 1, atol=1e-8)
    assert [e.value for e in found.shares] == pytest.approx(values[:3] / values.sum(), abs=1e-8)
    assert found.rank.value == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-8)
    assert found.mean_shift_share.value == pytest.approx((mean**2).sum() / total, rel=1e-8)
    projected = ((y - x)[0].numpy() - mean) @ found.vectors.numpy().T
    assert ((projected**3).sum(0) > 0).all()


def test_sums_of_one_stimulus_at_a_time_are_those_of_all():
    x, y = torch.randn(2, 2, 7, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    whole, single = ChangeSums(), ChangeSums()
    whole.update(x, y)
    for k in range(7):
        single.update(x[:, k : k + 1], y[:, k : k + 1])
    assert single.n == 7
    for one, other in zip(single.changes(), whole.changes(), strict=True):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b))


def test_a_small_change_of_large_vectors_keeps_its_digits():
    x, y, groups = sample(40, torch.Generator().manual_seed(1), scale=1e-6)
    sums = ChangeSums()
    sums.update(x, y)
    values = truth(x, y)[2]
    found = directions_of_layer(sums.changes()[0], groups, (y - x)[0], sentences=40)
    np.testing.assert_allclose(found.eigenvalues / values[0], values / values[0], atol=1e-8)


def numbers(d: torch.Tensor) -> np.ndarray:
    """Return the shares of the first two directions, the effective rank and the share of the mean, by NumPy."""
    d = d.numpy()
    values = np.linalg.eigvalsh(np.cov(d.T, bias=True))[::-1]
    shift = (d.mean(0) ** 2).sum()
    spread = values.sum()
    return np.array([*values[:2] / spread, spread**2 / (values**2).sum(), shift / (shift + spread)])


def test_standard_errors_equal_those_of_leaving_texts_out():
    sentences = 150
    x, y, groups = sample(sentences, torch.Generator().manual_seed(2))
    d = (y - x)[0]
    sums = ChangeSums()
    sums.update(x, y)
    one = directions_of_layer(sums.changes()[0], groups, d, sentences=sentences, k=2)
    left_out = np.stack([numbers(d[groups != s]) for s in range(sentences)])
    expected = np.sqrt((sentences - 1) * left_out.var(0))
    intervals = [*one.shares, one.rank, one.mean_shift_share]
    assert [e.standard_error for e in intervals] == pytest.approx(expected, rel=0.05)
    assert all(e.low < e.value < e.high for e in intervals)


def test_influences_are_the_derivatives_by_the_share_of_a_stimulus():
    """Standard errors equal those of influences by autograd: the mean and covariance of weighted rows."""
    scale = torch.tensor([3, 2, 1, 0.5])
    d = torch.randn(40, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * scale
    d = d + torch.tensor([1.5, -1.0, 0.5, 2.0])
    groups = torch.arange(40) // 4

    def measures(weights):
        mean = weights @ d / weights.sum()
        covariance = (d - mean).T @ ((d - mean) * weights[:, None]) / weights.sum()
        spread, shift, values = covariance.trace(), mean @ mean, torch.linalg.eigvalsh(covariance).flip(0)
        return torch.stack([*(values[:3] / spread), spread**2 / covariance.square().sum(), shift / (shift + spread)])

    ones = torch.ones(40, dtype=torch.float64)
    slopes = torch.autograd.functional.jacobian(measures, ones) * 40
    sums = ChangeSums()
    sums.update(torch.zeros(1, 40, 4), d[None])
    one = directions_of_layer(sums.changes()[0], groups, d, sentences=10)
    found = [*one.shares, one.rank, one.mean_shift_share]
    assert [e.value for e in found] == pytest.approx(measures(ones).tolist(), rel=1e-9)
    expected = [clustered_error(slope, groups, 40, 10)[0] for slope in slopes]
    assert [e.standard_error for e in found] == pytest.approx(expected, rel=1e-7)


def test_the_interval_of_a_share_stays_inside_and_is_symmetric_in_the_log_odds():
    influence, groups = torch.tensor([0.3, -0.1, -0.2, 0.05]).double(), torch.arange(4)
    e = share_interval(0.9, influence, groups, stimuli=4, sentences=4)
    odds = [np.log(p / (1 - p)) for p in (e.low, e.value, e.high)]
    assert 0 < e.low < 0.9 < e.high < 1 and odds[1] - odds[0] == pytest.approx(odds[2] - odds[1])
    assert share_interval(1.0, influence, groups, stimuli=4, sentences=4)[:3] == (1.0, 1.0, 1.0)


# Encoders ------------------------------------------------------------------------------------------------------------

TEXTS = [
    f"the {animal} saw a {thing} and the dog slept" for animal in ("cat", "cow", "bird") for thing in ("tree", "cat")
]


@pytest.fixture(scope="module")
def planted(tiny_model):
    """Return the base and one whose embeddings of two pieces moved along one vector, in opposite directions."""
    base, tuned = (Encoder.from_pretrained(str(tiny_model), device="cpu") for _ in range(2))
    ids = base.tokenizer.convert_tokens_to_ids(["d", "##g"])
    assert base.tokenizer.tokenize("dog") == ["d", "##o", "##g"]
    with torch.no_grad():
        table = tuned.model.embeddings.word_embeddings.weight
        step = 0.003 * torch.randn(32, generator=torch.Generator().manual_seed(5))  # layer normalisation is then linear
        table[ids[0]] += 2 * step
        table[ids[1]] -= step
    return base, tuned


def test_a_planted_direction_is_found_with_its_words(planted):
    base, tuned = planted
    texts = [f"the dog saw dog number {i} of the dogs" for i in range(8)]
    found = directions_of_change(base, {"t": tuned}, texts, k=2, extremes=4)["t"]
    assert [one.layer for one in found] == [0, 1, 2, 3]
    first = found[0]
    assert first.shares[0].value > 0.9 and first.rank.value < 1.3
    ends = {end: [e for e in first.ends if (e.direction, e.end) == (1, end)] for end in ("high", "low")}
    assert {listed[0].word for listed in ends.values()} == {"d", "##g"}
    for listed in ends.values():
        assert len({e.word for e in listed}) == 4  # each word once; the others did not change at all
        assert abs(listed[0].value) > 3 * abs(listed[1].value) and listed[1].value == pytest.approx(listed[3].value)
    assert ends["high"][0].value > 0 > ends["low"][0].value
    at = next(e for listed in ends.values() for e in listed if e.word == "d")
    assert "saw [d] ##og" in at.context or "the [d] ##og" in at.context


@pytest.mark.parametrize("unit", ["token", "word"])
def test_words_are_those_of_the_largest_projections_for_every_unit(planted, unit, disturbed):
    base, tuned = planted[0], disturbed(seed=1)
    words = [text.split() for text in TEXTS] + [["the", "dogs", "saw"] * 60]  # the last one is cut into windows
    found = directions_of_change(base, {"t": tuned}, words, extremes=3, draw=Draw(None, unit))["t"][3]
    rows, names = [], []
    for encoder in (base, tuned):
        batches = [b for text in words for b in encoder.stream([text], unit=unit, window="split")]
        rows.append(torch.cat([b.vectors[3] for b in batches]).double())
    if unit == "token":
        names = [piece for text in words for piece in base.tokenizer.tokenize(text, is_split_into_words=True)]
    else:
        names = [base.tokenizer.decode(base.tokenizer(w)["input_ids"][1:-1]) for text in words for w in text]
    d = rows[1] - rows[0]
    assert len(names) == len(d) == found.n
    projected = (d - d.mean(0)) @ found.vectors[0]
    for end, order in (("high", projected.argsort(descending=True)), ("low", projected.argsort())):
        listed = [e for e in found.ends if (e.direction, e.end) == (1, end)]
        at_first = {names[i]: i for i in reversed(order.tolist())}  # each word at its most extreme
        first = sorted(at_first.values(), key=order.tolist().index)[:3]
        assert [e.word for e in listed] == [names[i] for i in first]
        assert [e.value for e in listed] == pytest.approx(projected[first].tolist(), abs=1e-5)
        for e in listed:
            own = [i for i, name in enumerate(names) if name.lower() == e.word.lower()]
            assert (e.count, e.mean) == (len(own), pytest.approx(float(projected[own].mean()), abs=1e-5))
    shift = [e for e in found.ends if e.direction == 0 and e.end == "high"]
    assert shift[0].value == pytest.approx(float((d @ d.mean(0) / d.mean(0).norm()).max()), abs=1e-5)


def test_rows_and_files_have_all_numbers_and_an_unchanged_layer_has_none(planted, disturbed, tmp_path):
    base, tuned = planted[0], disturbed(seed=1, blocks=(1,))
    found = directions_of_change(base, {"t": tuned}, TEXTS, k=2, extremes=2)
    assert [one.total == 0 for one in found["t"]] == [True, True, False, False] and not found["t"][0].ends
    rows = rows_of_directions(found, "text", seed=7)
    names = ["mean_shift_share", "direction_rank", "direction_share_1", "direction_share_2"]
    assert [(row.layer, row.measure) for row in rows] == [(layer, name) for layer in (2, 3) for name in names]
    assert {(row.model, row.task, row.data) for row in rows} == {("t", "directions", "text")}
    assert all(row.low < row.value < row.high and row.seed == 7 and row.n == found["t"][2].n for row in rows)
    assert all(MeasureName.parse(name).measure.family == "change" for name in names)
    lens = logit_lens(base)
    write_directions(found, tmp_path, "text", lens, extremes=3)
    tables = [list(csv.DictReader((tmp_path / file).read_text(encoding="utf8").splitlines())) for file in FILES]
    assert len(tables[0]) == 2 * 3 * 2 * 2 and {row["direction"] for row in tables[0]} == {"mean", "1", "2"}
    assert len(tables[1]) == 2 * 3 * 2 * 3 and {row["embedding"] for row in tables[1]} == {"input embedding"}
    assert float(tables[0][0]["mean"]) == found["t"][2].ends[0].mean and int(tables[0][0]["count"]) >= 1
    assert float(tables[0][0]["share"]) == rows[0].value and "[" in tables[0][0]["context"]


def test_a_direction_of_the_vocabulary_names_its_token(planted):
    base = planted[0]
    lens = logit_lens(base)
    table = base.model.embeddings.word_embeddings.weight.detach().double()
    place = int(base.tokenizer.convert_tokens_to_ids("saw"))
    axis = (table[place] - table.mean(0)) / (table[place] - table.mean(0)).norm()
    one = types.SimpleNamespace(layer=2, vectors=axis[None], mean=torch.zeros(32).double())
    listed = tokens_of(one, lens, 5)
    logits = table @ axis * 32**0.5
    kept = [i for i in logits.argsort(descending=True).tolist() if i not in base.tokenizer.all_special_ids]
    expected = [(1, "high", i) for i in kept[:5]] + [(1, "low", i) for i in kept[::-1][:5]]
    decode = base.tokenizer.decode
    assert [(n, end, token) for n, end, _, token in listed] == [(n, end, decode([i])) for n, end, i in expected]
    assert [value for *_, value, _ in listed] == pytest.approx([float(logits[i]) for *_, i in expected], rel=1e-5)
    assert listed[0][3] == "saw"


def test_bad_requests_are_one_sentence(planted, tmp_path):
    base = planted[0]
    with pytest.raises(BertftError, match="encoders of one width, found 384 for the base and 768 for big"):
        check_widths("the base", 384, "big", 768)
    narrow = types.SimpleNamespace(dim=16)
    with pytest.raises(BertftError, match="found 32 for the base and 16 for narrow"):
        directions_of_change(base, {"narrow": narrow}, TEXTS)
    with pytest.raises(BertftError, match=f"expected 1 to {DIRECTIONS} directions, found 11"):
        directions_of_change(base, {"t": base}, TEXTS, k=11)
    with pytest.raises(BertftError, match="directions: needs at least 2 texts for an interval, found 1"):
        directions_of_change(base, {"t": base}, TEXTS[:1])
    x = torch.randn(1, 9, 4).double()
    with pytest.raises(BertftError, match=r"sums of raw rows .metric dot or sqeuclidean., found cosine"):
        change_of_moments(CrossMoments(1, 1, "cosine").update(x, x), 0)
    with pytest.raises(BertftError, match="found 4 for base and 3 for tuned"):
        change_of_moments(CrossMoments(1, 1, "dot").update(x, x[..., :3]), 0)


def test_equal_encoders_have_no_direction_from_sums_either():
    x = torch.randn(1, 300, 8, generator=torch.Generator().manual_seed(0))
    change = change_of_moments(CrossMoments(1, 1, "dot").update(x, x.clone()), 0)
    assert isinstance(change, Change) and change.total == 0


def test_tables_without_rows_have_their_header(tmp_path):
    write_directions({}, tmp_path, "text", None)
    heads = ("share,low,high,end,value,word,text,context,count,mean", "end,value,token,embedding")
    for file, head in zip(FILES, heads, strict=True):
        assert (tmp_path / file).read_text("utf8") == f"model,data,layer,direction,{head}\n"


def test_directions_show_themselves_and_are_escaped():
    half = Interval(0.5, 0.4, 0.6, 0.05)
    ends = tuple(
        End(direction, way, 1.0, f"<{way}{direction}>", "t", "c") for direction in (0, 1) for way in ("low", "high")
    )
    none = torch.zeros(0)
    one = LayerDirections(3, 1200, 1.0, None, Interval(7.0, 6.0, 8.0, 0.5), (half,), none, none, none, ends)
    head, _, *lines = repr(one).splitlines()
    assert head == "change in layer 3: 1,200 stimuli, effective rank 7.000"
    assert [line.split() for line in lines] == [["direction", "1", "0.500", "[0.400,", "0.600]", "<low1>", "<high1>"]]
    html = one._repr_html_()
    assert "<td>&lt;low1&gt;</td><td>&lt;high1&gt;</td>" in html and "low0" not in html

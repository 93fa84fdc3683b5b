"""Massive activations: found, summed apart, counted, resumed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bertft.runs.vocabulary import MeasureName
from bertft.similarity import sinks
from bertft.similarity.compare.comparison import Comparison
from bertft.similarity.compare.plan import Plan
from bertft.similarity.moments import CrossMoments
from bertft.similarity.sinks import Massive, Place

EVERY = 30


def spaces(n: int, d: int, layers: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two unrelated spaces (layers, n, d); in the last layer every 30th row is moved far in one direction."""
    g = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(2):
        x = torch.randn(layers, n, d, generator=g)
        x[-1, ::EVERY] += 100 * torch.randn(d, generator=g)
        found.append(x)
    return found[0], found[1]


def compared(x, y, plan: Plan | None = None, batch: int = 300, size: int = 10) -> Comparison:
    """Return the comparison of x and y (L, n, D) by batches of texts of ``size`` stimuli."""
    comparison = Comparison(plan or Plan(), {"t": (len(x), len(y))})
    for start in range(0, x.shape[1], batch):
        a, b = x[:, start : start + batch], y[:, start : start + batch]
        texts = a.shape[1] // size
        index = torch.arange(texts) + start // size
        comparison.update(index, torch.full((texts,), size), [a, b])
        comparison.sentences += texts
    return comparison


def by_name(rows) -> dict:
    return {(row.model, row.measure, row.layer): row for row in rows}


def test_unrelated_spaces_with_sinks_are_at_zero():
    x, y = spaces(3000, 512)
    rows = by_name(compared(x, y).rows("toy"))
    for measure, before in (("cka_debiased", 1.0), ("rsa_cosine_pearson", 0.36)):
        row, with_them = rows["t", measure, 0], rows["t", f"{measure}_with_massive", 0]
        assert abs(row.value) < 0.02 and row.n == 2900 and row.low < row.value < row.high
        assert with_them.value == pytest.approx(before, abs=0.01) and with_them.n == 3000 and with_them.task == "sinks"
    assert rows["base", "massive_stimuli", 0].value == rows["t", "massive_stimuli", 0].value == 100


def test_both_values_are_those_of_the_rows_themselves():
    x, y = spaces(600, 8, layers=2)
    y = y + 0.8 * x
    measures = ("rsa", "cka", "procrustes", "mutual_knn", "effective_dimension")
    plan = Plan(measures=measures, float64=True, intervals=False)
    comparison = compared(x.double(), y.double(), plan)
    rows = by_name(comparison.rows("toy"))
    ordinary = torch.arange(600) % EVERY != 0
    for chosen, end in ((ordinary, ""), (slice(None), "_with_massive")):
        sums = {
            metric: CrossMoments(2, 2, metric, float64=True).update(x[:, chosen].double(), y[:, chosen].double())
            for metric in ("cosine", "dot")
        }
        for name, values in (
            ("rsa_cosine_pearson", sums["cosine"].rsa()),
            ("cka_debiased", sums["dot"].cka()),
            ("procrustes", sums["dot"].procrustes()),
        ):
            assert rows["t", name + end, 1].value == pytest.approx(float(values[1]), abs=1e-9), name
        if not end:  # the other layer leaves the same stimuli out
            assert rows["t", "cka_debiased", 0].value == pytest.approx(float(sums["dot"].cka()[0]), abs=1e-9)
            assert rows["t", "mutual_knn_10", 1].n == 580
            dimension = sums["dot"].effective_dimension()[1]
            assert rows["t", "effective_dimension", 1].value == pytest.approx(float(dimension[1]), rel=1e-9)


def test_a_value_with_massive_activations_inside_the_interval_has_no_row():
    x, y = spaces(600, 8, layers=2)
    rows = by_name(compared(x, y + 0.3 * x).rows("toy"))
    assert ("t", "cka_debiased_with_massive", 1) in rows and ("t", "cka_debiased_with_massive", 0) not in rows


def test_thresholds_come_from_the_first_batch_and_from_ordinary_rows():
    """One row in five is massive, so that the plain mean of the batch lies far from all rows."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 200, 16, generator=g)
    x[:, ::5] += 150
    comparison = Comparison(Plan(intervals=False), {"t": (1, 1)})
    index, lengths = torch.arange(20), torch.full((20,), 10)
    comparison.update(index, lengths, [x, x])
    limit = comparison.massive.limits[0].clone()
    mean = x[0, torch.arange(200) % 5 != 0].mean(0)
    median = (x[0] - mean).square().sum(1).median()
    assert float(limit[0]) == pytest.approx(10 * float(median.sqrt()), rel=0.02)
    comparison.update(index + 20, lengths, [5 * x, 5 * x])
    assert torch.equal(comparison.massive.limits[0], limit)
    assert (comparison.ordinary, len(comparison.massive), len(comparison)) == (320, 80, 400)
    first = comparison.massive.places[:2]
    assert first == [Place(0, 0, 0, 0, 0), Place(0, 5, 0, 0, 0)]


def found(x: torch.Tensor, first: int = 1000) -> list[int]:
    """Return the massive rows of x (L, n, D), by thresholds of the ``first`` rows."""
    massive = Massive(["base"], {})
    massive.fit([x[:, :first]])
    layers = massive.layers_of([x])
    return [] if layers is None else layers[0].any(0).nonzero().flatten().tolist()


@pytest.mark.parametrize("width", [64, 640])
def test_a_row_of_100_times_the_median_is_massive(width):
    x = torch.randn(1, 1001, width, generator=torch.Generator().manual_seed(0))
    x[0, 5:7] *= (torch.tensor([103.0, 97.0]) * x[0].square().sum(1).median() / x[0, 5:7].square().sum(1)).sqrt()[
        :, None
    ]
    assert found(x) == [5]


@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.5])
def test_heavy_tails_are_not_massive(sigma):
    """The norms are lognormal; up to 6 % of their squares exceed 100 times the median."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(1, 40_000, 16, generator=g)
    x *= torch.exp(sigma * torch.randn(40_000, 1, generator=g))
    squares = x[0].square().sum(1)
    assert sigma < 1 or int((squares > 100 * squares.median()).sum()) > 400
    assert found(x, 4000) == []


def test_sinks_stand_apart_from_a_heavy_tail():
    """A tail of up to 1,000 times the median moves the limit; sinks at 100,000 times are beyond it."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(1, 3000, 16, generator=g) * torch.exp(0.8 * torch.randn(3000, 1, generator=g))
    x[0, ::EVERY] += 500 * torch.randn(16, generator=g)
    assert found(x, 3000) == list(range(0, 3000, EVERY))


@pytest.mark.parametrize(
    ("layers", "moved", "massive"),
    [(2, 1, True), (3, 1, False), (3, 2, True), (19, 1, False), (19, 2, True), (33, 3, False), (33, 4, True)],
)
def test_sinks_persist_in_two_layers_and_in_a_tenth(layers, moved, massive):
    """In Gemma 3 270M all commas are far from other tokens in layer 1 of 19 alone, and sinks in five to nine."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(layers, 600, 8, generator=g)
    x[1 : 1 + moved, ::EVERY, 3] += 100
    assert found(x) == (list(range(0, 600, EVERY)) if massive else [])


def test_a_text_without_massive_activations_has_todays_sums_and_rows():
    x, y = (space[:, torch.arange(600) % EVERY != 0] for space in spaces(600, 8))
    x, y = x[:, :500], y[:, :500]
    comparison = compared(x, y, batch=100)
    plain = CrossMoments(1, 1, "cosine")
    for start in range(0, 500, 100):
        plain.update(x[:, start : start + 100], y[:, start : start + 100])
    state = comparison.sums["t"]["cosine"].state
    assert all(torch.equal(state[key], value) for key, value in plain.state.items())
    rows = comparison.rows("toy")
    assert {row.measure for row in rows} == {"rsa_cosine_pearson", "cka_debiased"} and len(rows) == 2


def test_a_run_resumes_with_its_thresholds_sums_and_places():
    x, y = spaces(600, 8, layers=2)
    whole, first = compared(x, y), compared(x[:, :300], y[:, :300])
    resumed = Comparison(Plan(), {"t": (2, 2)})
    state = {key: tensor.clone() for key, tensor in first.massive.state().items()}
    resumed.massive.restore(state)
    for metric, moments in first.sums["t"].items():
        resumed.sums["t"][metric].restore({key: tensor.clone() for key, tensor in moments.state.items()})
    resumed.update(torch.arange(30, 60), torch.full((30,), 10), [x[:, 300:], y[:, 300:]])
    for mine, theirs in zip(resumed.massive.state().items(), whole.massive.state().items(), strict=True):
        assert mine[0] == theirs[0] and torch.equal(mine[1], theirs[1]), mine[0]
    assert resumed.ordinary == whole.ordinary == 580 and resumed.massive.places == whole.massive.places


def test_a_checkpoint_of_an_older_version_goes_on_without_thresholds():
    x, y = spaces(300, 8)
    old = Comparison(Plan(intervals=False), {"t": (1, 1)})
    old.massive.restore({})
    old.update(torch.arange(30), torch.full((30,), 10), [x, y])
    assert old.ordinary == 300 and len(old.massive) == 0
    assert all("massive" not in row.measure for row in old.rows("toy"))


def test_a_bad_row_is_named_by_its_place_among_all_rows():
    from bertft.errors import BertftError

    x, y = spaces(300, 8)
    y[0, 47] = 0  # no direction
    with pytest.raises(BertftError, match=r"row 7 of text 5 of the stream, in layer 0 of t"):
        compared(x, y)


def test_all_layers_against_all_leave_massive_stimuli_out():
    x, y = spaces(600, 8, layers=2)
    rows = by_name(compared(x, y, Plan(measures=("cka",), all_layers=True)).rows("toy"))
    paired = by_name(compared(x, y, Plan(measures=("cka",))).rows("toy"))
    for measure in ("cka_debiased", "cka_debiased_with_massive"):
        assert rows["t", measure, 1].value == pytest.approx(paired["t", measure, 1].value, abs=1e-7)
    assert rows["t", "cka_debiased_base1", 1].value == rows["t", "cka_debiased", 1].value


def test_a_dimension_with_over_a_quarter_of_the_variance_is_named():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 400, 8, generator=g)
    x[1, :, 5] *= 3
    rows = by_name(compared(x, x.flip(2), batch=100).rows("toy"))
    share = float(np.var(x[1, :, 5].numpy()) / np.var(x[1].numpy(), axis=0).sum())
    for model, dimension in (("base", 5), ("t", 2)):
        assert rows[model, "largest_dimension_share", 1].value == pytest.approx(share, rel=1e-5)
        assert rows[model, "largest_dimension", 1].value == dimension
        assert (model, "largest_dimension", 0) not in rows
    assert MeasureName.parse("largest_dimension_share").bounds == (0.0, 1.0)


@pytest.mark.parametrize("block", [1, 70, 1 << 16])
def test_distances_by_blocks_are_those_of_every_row(block, monkeypatch):
    monkeypatch.setattr(sinks, "BLOCK", block)
    x, y = spaces(100, 8, layers=3)
    x[1:, 20] *= 1e4
    y[:2, 21] *= 1e4
    x[1, 7, 0], y[2, 8] = float("inf"), float("nan")
    massive = Comparison(Plan(), {"t": (3, 3)}).massive
    massive.fit([x[:, 40:], y[:, 40:]])
    found = massive.beyond([x, y]).massive
    for space, centre, limit, mine in zip((x, y), massive.centres, massive.limits, found, strict=True):
        away = np.linalg.norm(space.double().numpy() - centre.double().numpy()[:, None], axis=2)
        expected = (away > limit.numpy()[:, None]) & np.isfinite(away)
        expected &= expected.sum(0) >= 2  # of three layers
        assert expected.any() and np.array_equal(mine.numpy(), expected)


def test_processes_add_up_to_the_sums_counts_and_places_of_one(monkeypatch):
    """Two processes with half of the text each; the second has nothing to send through the replaced exchange."""
    import torch.distributed as dist

    x, y = spaces(600, 8, layers=2)
    whole = compared(x, y).massive
    first, second = (Comparison(Plan(), {"t": (2, 2)}) for _ in range(2))
    for half, comparison in enumerate((first, second)):
        comparison.start([x[:, :300], y[:, :300]])
        rows = slice(300 * half, 300 * half + 300)
        comparison.update(torch.arange(30) + 30 * half, torch.full((30,), 10), [x[:, rows], y[:, rows]])
    mine, theirs = first.massive, second.massive
    others = iter([moments for table in theirs.sums.values() for moments in table.values()])
    monkeypatch.setattr(CrossMoments, "all_reduce", lambda self: self.merge(next(others)))
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)

    def gather(parts, own):
        parts[:] = [(theirs.counts, theirs.places), own]

    monkeypatch.setattr(dist, "all_gather_object", gather)
    mine.add_up()
    assert all(map(torch.equal, mine.counts, whole.counts)) and sorted(whole.places) == mine.places
    assert len(mine) == len(whole) == 20
    sums = [found.sums["t"]["dot"].moments(1, 1).gram_x for found in (mine, whole)]
    assert sums[0] == pytest.approx(sums[1], rel=1e-6)

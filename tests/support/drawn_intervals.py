"""Random data sets with text effects, and the intervals that bertft prints for them.

Each `Simulation` draws a data set by number and returns the rows of one analysis, made by the code that makes those of
``results.csv``. The true values come from a large draw, or from a formula.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import calibrated_draws
import numpy as np
import torch
from simulated import Drawn, Simulation, drawn, logistic
from torch import Tensor

from bertft.models.tasks.base import Score
from bertft.probes.edge.head import Input
from bertft.probes.edge.rows import Measured
from bertft.probes.edge.rows import rows_of as edge_rows
from bertft.probes.edge.training import Counts
from bertft.probes.structural.kind import ProbeKind
from bertft.probes.structural.rows import CONTROL
from bertft.probes.structural.rows import rows_of as structural_rows
from bertft.probes.structural.scores import LONGEST, SHORTEST, SentenceScores
from bertft.runs.intervals import clustered_mean, correlation_interval
from bertft.runs.pooling import pool_seeds
from bertft.runs.rows import Row
from bertft.similarity import rsa
from bertft.similarity.compare import nulls
from bertft.similarity.compare.comparison import Comparison
from bertft.similarity.compare.null_values import values
from bertft.similarity.compare.plan import PAIRS, SCATTER, SPACES, Plan
from bertft.similarity.directions import ChangeSums, directions_of_layer
from bertft.similarity.traded_texts import TradedTexts

# Similarity ----------------------------------------------------------------------------------------------------------

D = 12
SPREAD = torch.linspace(0.4, 1.6, D)  # standard deviations along the axes: no ball, whose dimension cannot grow
TURN = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(0))).Q  # no space has axes of its own


def spaces(texts: int, seed: int) -> tuple[Tensor, list[Tensor]]:
    """Return the lengths (S,) of texts of 3 to 7 stimuli, and a base and two tuned spaces (1, T, D)."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 8, (texts,), generator=g)
    groups = torch.repeat_interleave(torch.arange(texts), lengths)
    own = lambda: SPREAD * torch.randn(len(groups), D, generator=g)
    common = lambda: SPREAD * torch.randn(texts, D, generator=g)[groups]
    x = 0.7 * common() + own() + 0.5
    change = (0.8 * common() + 0.5 * own()).flip(1)  # canonical correlations that differ
    return lengths, [(t @ TURN).unsqueeze(0) for t in (x, x + change, x + 0.6 * change + 0.4 * own())]


def _compared(texts: int, seed: int, plan: Plan, tuned: Sequence[str] = "tu") -> list[Row]:
    """Return the rows of the base, of ``t``, and of the difference of ``t`` and ``u``."""
    lengths, (base, *others) = spaces(texts, seed)
    comparison = Comparison(plan, dict.fromkeys(tuned, (1, 1)))
    comparison.update(torch.arange(texts), lengths, [base, *others[: len(tuned)]])
    comparison.sentences = texts
    rows = [row for row in comparison.rows("toy") if row.model in ("base", "t", "t - u")]
    return [row for row in rows if row.measure not in SPACES or row.model == "base"]


def _of_similarity(row: Row) -> str:
    return f"{row.measure}, difference" if row.task == "difference" else row.measure


STREAMED = Plan(compares=("pearson", "cosine"), measures=("rsa", "cka", *SCATTER, *SPACES))
SAMPLED = Plan(("cosine", "euclidean"), ("spearman",), ("rsa", *PAIRS))
RANKS = Plan(compares=("rho_a",), measures=("rsa",))


def _similarity(plan: Plan, texts: int, tuned: Sequence[str] = "tu") -> Callable[[int], list[Drawn]]:
    return lambda seed: drawn(_compared(texts, seed, plan, tuned), _of_similarity)


def _streamed_limit() -> dict[str, float]:
    """Return the values of a draw of 100,000 texts."""
    whole = Plan(compares=STREAMED.compares, measures=STREAMED.measures, sample=500, float64=True)
    rows = _compared(100_000, -1, whole)
    return {_of_similarity(row): row.value for row in rows}


def _sampled_limit(plan: Plan, texts: int = 800, draws: int = 16) -> dict[str, float]:
    """Return RSA over all pairs of large draws, each of ``texts``."""
    found: dict[str, list[float]] = {}
    for seed in range(-draws, 0):
        x, y, z = (space[0] for space in spaces(texts, seed)[1])
        for metric in plan.metrics:
            for compare in plan.compares:
                t, u = (rsa(x, other, metric, compare).estimate for other in (y, z))
                name = f"rsa_{metric}_{compare}"
                found.setdefault(name, []).append(t)
                found.setdefault(f"{name}, difference", []).append(t - u)
    return {name: float(np.mean(of_draws)) for name, of_draws in found.items()}


# Directions ----------------------------------------------------------------------------------------------------------

# Variances of the change along its principal directions; the first two are apart from the rest.
SPECTRUM = torch.tensor([4.0, 1.5, *[0.3] * 10], dtype=torch.float64)
SHIFT = torch.tensor([0.0] * 11 + [1.2], dtype=torch.float64)
DIRECTION_NAMES = ("direction_share_1", "direction_share_2", "direction_rank", "mean_shift_share")


def _directions(texts: int) -> Callable[[int], list[Drawn]]:
    def draw(seed: int) -> list[Drawn]:
        g = torch.Generator().manual_seed(seed)
        lengths = torch.randint(5, 16, (texts,), generator=g)
        groups = torch.repeat_interleave(torch.arange(texts), lengths)
        normal = lambda rows: torch.randn(rows, D, generator=g, dtype=torch.float64)
        change = (normal(texts)[groups] + normal(len(groups))) * (SPECTRUM / 2).sqrt() + SHIFT
        sums = ChangeSums()
        sums.update(torch.zeros_like(change)[None], change[None])
        one = directions_of_layer(sums.changes()[0], groups, change, sentences=texts, k=2)
        found = zip(DIRECTION_NAMES, [*one.shares, one.rank, one.mean_shift_share], strict=True)
        return [Drawn(name, e.value, e.low, e.high) for name, e in found]

    return draw


def _directions_limit() -> dict[str, float]:
    shift, spread = float(SHIFT @ SHIFT), float(SPECTRUM.sum())
    rank = spread**2 / float(SPECTRUM.square().sum())
    return dict(zip(DIRECTION_NAMES, [*(SPECTRUM[:2] / spread).tolist(), rank, shift / (shift + spread)], strict=True))


# Words ---------------------------------------------------------------------------------------------------------------


def _words(texts: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return two measures of words x, y (R,) float64 in -1..1 with text effects, and their texts (R,)."""
    g = torch.Generator().manual_seed(seed)
    groups = torch.repeat_interleave(torch.arange(texts), torch.randint(1, 12, (texts,), generator=g))
    normal = lambda rows: torch.randn(rows, 2, generator=g, dtype=torch.float64)
    common = normal(texts)[groups] + normal(len(groups))
    x, y = (torch.tanh(0.6 + 0.4 * (0.6 * common[:, :1] + 0.8 * normal(len(groups))))).unbind(1)
    return x, y, groups


def _of_words(texts: int) -> Callable[[int], list[Drawn]]:
    def draw(seed: int) -> list[Drawn]:
        x, y, groups = _words(texts, seed)
        mean = Drawn("local_rsa", *clustered_mean(x, groups))
        return [mean, Drawn("agreement", *correlation_interval(x, y, groups, 1000, 0))]

    return draw


def _words_limit() -> dict[str, float]:
    x, y, _ = _words(300_000, -1)
    return {"local_rsa": float(x.mean()), "agreement": float(torch.corrcoef(torch.stack([x, y]))[0, 1])}


# Edge probes ---------------------------------------------------------------------------------------------------------

INPUTS = [Input("layer", 0), Input("layer", 1), Input("mix", 1), Input("mix", 2)]
SKILL = {"base": (0.4, 0.9, 1.0, 1.4), "t": (0.6, 1.2, 1.3, 1.7)}  # log odds of a correct label by input


def _edge_counts(texts: int, seed: int, skills: Iterable[tuple[float, ...]]) -> list[Counts]:
    """Return the counts of one encoder for each of ``skills``; all see the same targets and text effects.

    Labels are 0 or 1; a probe that is wrong gives the other label, no label or both.
    """
    g = np.random.default_rng(abs(seed) if seed >= 0 else [7, abs(seed)])
    which = np.repeat(np.arange(texts), g.integers(1, 7, texts))
    hard = 0.8 * g.standard_normal(texts)[which] + 0.5 * g.standard_normal(len(which))
    label = (g.random(len(which)) < logistic(-1 + 0.8 * g.standard_normal(texts)[which])).astype(int)
    gold = np.zeros((texts, 2))
    np.add.at(gold, (which, label), 1)
    found = []
    for skill in skills:
        hits, predicted = np.zeros((2, len(skill), texts, 2))
        for p, odds in enumerate(skill):
            right = g.random(len(which)) < logistic(odds + hard + 0.3 * (label == 0))
            second = g.random(len(which))
            own, other = right | (second > 0.9), ~right & ((second < 0.6) | (second > 0.9))
            np.add.at(hits[p], (which[own], label[own]), 1)
            np.add.at(predicted[p], (which[own], label[own]), 1)
            np.add.at(predicted[p], (which[other], 1 - label[other]), 1)
        numbers = (torch.from_numpy(t).float() for t in (hits, predicted, gold))
        found.append(Counts(*numbers, torch.zeros(texts)))
    return found


def _edge_rows(texts: int, seed: int, resamples: int) -> list[Row]:
    control = tuple(odds - 0.6 for odds in SKILL["base"])
    base, tuned, of_control = _edge_counts(texts, seed, [*SKILL.values(), control])
    part = lambda counts: Measured(INPUTS, counts, np.zeros(4), np.zeros(4), np.ones(3) / 3, None, None, 9)
    measured = {"base": {"probes": part(base), "control": part(of_control)}, "t": {"probes": part(tuned)}}
    rows, labels = edge_rows(measured, ["0", "1"], "toy", texts, resamples, 0)
    kept = [row for row in rows + labels if row.layer in (None, 1) and not row.measure.startswith("mix_")]
    return [row for row in kept if row.model == "base" or row.measure.endswith("_difference")]


def _edge_limit() -> dict[str, float]:
    return {row.measure: row.value for row in _edge_rows(200_000, -1, 1)}


# Structural probes ---------------------------------------------------------------------------------------------------


PROBES = {"base": 0.0, "control": -0.5, "t": 0.2}  # log odds of a correct answer
SPREADS = {"dspr": 0.5, "nspr": 0.8}  # of the log odds of a sentence, beside the effect that all probes share
NODES = np.polynomial.hermite_e.hermegauss(40)


def _odds(skill: float, lengths: np.ndarray) -> np.ndarray:
    return 1.2 + skill - 0.02 * lengths


def _sentences(count: int, seed: int) -> dict[str, SentenceScores]:
    """Return the scores of the probes of a base, of its control and of a tuned encoder, on the same sentences.

    Lengths have the mean (13) and the long tail of a treebank of web text; long sentences score lower.
    """
    g = np.random.default_rng(abs(seed) if seed >= 0 else [7, abs(seed)])
    lengths = 1 + g.poisson(g.gamma(1.8, 7.0, count))
    effect = 0.5 * g.standard_normal(count)
    scored = (lengths >= SHORTEST) & (lengths <= LONGEST)
    edges = np.maximum(lengths - 1 - g.binomial(lengths, 0.1), 0).astype(float)
    found = {}
    for name, skill in PROBES.items():
        odds = _odds(skill, lengths) + effect
        sampled = (
            np.where(scored, 2 * logistic(odds + s * g.standard_normal(count)) - 1, np.nan) for s in SPREADS.values()
        )
        hits = g.binomial(edges.astype(int), logistic(odds + 0.5 * g.standard_normal(count)))
        root = (g.random(count) < logistic(odds)).astype(float)
        found[name] = SentenceScores(lengths, *(t[None] for t in (*sampled, hits)), edges, root[None])
    return found


def _expected(measure: str, lengths: np.ndarray) -> float:
    """Return the expectation of a DSpr or NSpr, of a selectivity or of a difference, over the given lengths."""
    name, _, derived = measure.removeprefix("control_").partition("_")
    places, weights = NODES
    kinds = np.arange(SHORTEST, LONGEST + 1)
    kinds = kinds[np.isin(kinds, lengths)]
    spread = math.hypot(0.5, SPREADS[name])
    of = {
        probe: float((2 * logistic(_odds(skill, kinds)[:, None] + spread * places) - 1).mean(0) @ weights)
        / float(weights.sum())
        for probe, skill in PROBES.items()
    }
    if derived:
        return of["base"] - of["control"] if derived == "selectivity" else of["t"] - of["base"]
    return of["control" if measure.startswith("control_") else "base"]


def _structural_rows(count: int, seed: int, resamples: int) -> list[Row]:
    """Return the rows of all probes. DSpr and NSpr are moved to those of a treebank that has every length."""
    found, kind = _sentences(count, seed), ProbeKind("linear", 8)
    lengths = found["base"].lengths
    parts = [("base", kind, ""), ("base", kind, CONTROL), ("t", kind, "")]
    rows = structural_rows(dict(zip(parts, found.values(), strict=True)), "toy", 0, resamples, True)
    kept = []
    for row in rows:
        if row.low is None or not (row.model == "base" or row.measure.endswith("_difference")):
            continue
        if row.measure.removeprefix("control_").startswith(tuple(SPREADS)):
            lack = _expected(row.measure, np.arange(LONGEST + 1)) - _expected(row.measure, lengths)
            row = replace(row, value=row.value + lack, low=row.low + lack, high=row.high + lack)
        kept.append(row)
    return kept


def _structural_limit() -> dict[str, float]:
    """Return the values of 300,000 sentences, which have every length; those over lengths by integration."""
    found = {row.measure: row.value for row in _structural_rows(300_000, -1, 2)}
    over_lengths = [name for name in found if name.removeprefix("control_").startswith(tuple(SPREADS))]
    return found | {name: _expected(name, np.arange(LONGEST + 1)) for name in over_lengths}


# Scores of fine-tuned encoders, and pooled seeds ---------------------------------------------------------------------


def _correct(texts: int, seed: int, shifts: Iterable[float]) -> list[Score]:
    """Return correct words over words by text, of the encoders of several seeds; a seed shifts the log odds."""
    g = np.random.default_rng(abs(seed) if seed >= 0 else [7, abs(seed)])
    words, hard = g.integers(2, 30, texts), 0.7 * g.standard_normal(texts)
    return [
        Score(g.binomial(words, logistic(1.5 + hard + shift)).astype(float), words.astype(float)) for shift in shifts
    ]


def _finetuned(texts: int) -> Callable[[int], list[Drawn]]:
    def draw(seed: int) -> list[Drawn]:
        (ratio,) = _correct(texts, seed, [0.0])
        low, high = ratio.interval(0)
        return [Drawn("accuracy", ratio.value, low, high)]

    return draw


def _finetuned_limit() -> dict[str, float]:
    return {"accuracy": _correct(2_000_000, -1, [0.0])[0].value}


OF_SEEDS = {"none": 0.0, "half that of texts": 0.029, "that of texts": 0.058, "three times": 0.174}


def _seed_shifts(seed: int, spread: float, count: int = 3) -> np.ndarray:
    return spread * np.random.default_rng([9, abs(seed)]).standard_normal(count)


def _pooled(texts: int) -> Callable[[int], list[Drawn]]:
    def draw(seed: int) -> list[Drawn]:
        found = []
        for name, spread in OF_SEEDS.items():
            ratios = _correct(texts, seed, _seed_shifts(seed, spread))
            ends = [(ratio.value, *ratio.interval(0)) for ratio in ratios]
            rows = [Row("m", "finetune", "toy", None, "accuracy", *e, texts, k) for k, e in enumerate(ends)]
            found += drawn(pool_seeds(rows), lambda _, name=name: f"three seeds, spread {name}")
        return found

    return draw


def _pooled_limit() -> dict[str, float]:
    found = {}
    for name, spread in OF_SEEDS.items():
        ratios = _correct(20_000, -1, _seed_shifts(-1, spread, 300))
        found[f"three seeds, spread {name}"] = float(np.mean([ratio.value for ratio in ratios]))
    return found


# Nulls ---------------------------------------------------------------------------------------------------------------

NULL = Plan(measures=("rsa", "cka", *SCATTER, *PAIRS), compares=("pearson", "spearman"), null=100)


def _null(seed: int) -> list[Drawn]:
    """Return each measure of two unrelated spaces beside the bound of its null, for layer 0 and for the maximum."""
    g = torch.Generator().manual_seed(seed)
    groups = torch.repeat_interleave(torch.arange(40), torch.randint(3, 9, (40,), generator=g))
    draw = lambda rows: torch.randn(2, rows, 6, generator=g)
    x, y = (draw(40)[:, groups] + draw(len(groups)) for _ in range(2))
    traded = TradedTexts(groups, NULL.seed)
    whole = torch.arange(len(traded))
    own = [
        {name: value(whole) for name, value in values(NULL, a, b, 0.0)}
        for a, b in zip(x[:, traded.kept], y[:, traded.kept], strict=True)
    ]
    rows = {(r.measure, r.layer): r for r in nulls.rows("toy", NULL, groups, x, {"t": y}, {})}
    found = []
    for name in own[0]:
        one, most = rows[f"{name}_null", 0], rows[f"{name}_null_max", None]
        sign = 1.0 if one.high is not None else -1.0  # a distance has a lower bound
        for label, value, row in (
            (name, sign * own[0][name], one),
            (f"{name}, maximum over layers", max(sign * layer[name] for layer in own), most),
        ):
            found.append(Drawn(label, value, math.nan, sign * (row.high if row.low is None else row.low)))
    return found


SIMULATIONS = {
    "similarity": Simulation(200, _similarity(STREAMED, 200), _streamed_limit),
    "similarity of few texts": Simulation(50, _similarity(STREAMED, 50), _streamed_limit),
    "pairs": Simulation(60, _similarity(SAMPLED, 60), functools.partial(_sampled_limit, SAMPLED)),
    "ranks": Simulation(60, _similarity(RANKS, 60, "t"), functools.partial(_sampled_limit, RANKS)),
    "directions": Simulation(200, _directions(200), _directions_limit),
    "words": Simulation(200, _of_words(200), _words_limit),
    "edge": Simulation(200, lambda seed: drawn(_edge_rows(200, seed, 1000)), _edge_limit),
    "structural": Simulation(500, lambda seed: drawn(_structural_rows(500, seed, 1000)), _structural_limit),
    "fine-tuned": Simulation(200, _finetuned(200), _finetuned_limit),
    "seeds": Simulation(200, _pooled(200), _pooled_limit),
    "calibrated": Simulation(400, calibrated_draws.calibrated(400), calibrated_draws.limits),
    "null": Simulation(40, _null),
}

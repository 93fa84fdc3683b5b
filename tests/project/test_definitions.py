"""Constants and defaults of definitions, against the papers and pages that state them.

Another value would be another definition: numbers of two versions of bertft could no longer be compared.
"""

from __future__ import annotations

import importlib
import inspect

import pytest
import torch

CONSTANTS = [
    ("runs.intervals.ENDS", (2.5, 97.5), "95 % intervals"),
    ("probes.structural.scores.SHORTEST", 5, "Hewitt and Manning 2019: sentences of 5 to 50 words"),
    ("probes.structural.scores.LONGEST", 50, "Hewitt and Manning 2019"),
    ("probes.structural.rbf.START", 16.0, "module"),
    ("models.tasks.dependency.ARC_DIM", 500, "Dozat and Manning 2017"),
    ("models.tasks.dependency.LABEL_DIM", 128, "module"),
    ("models.tasks.dependency.DROPOUT", 0.33, "Dozat and Manning 2017"),
    ("models.tasks.dependency.IGNORED", -100, "cross-entropy of PyTorch"),
    ("models.tasks.pos.DROPOUT", 0.1, "Devlin et al. 2019"),
    ("models.tasks.pos.IGNORED", -100, "cross-entropy of PyTorch"),
    ("models.tasks.nli.DROPOUT", 0.1, "Devlin et al. 2019"),
    ("models.tasks.qa.MAX_QUESTION", 64, "Devlin et al. 2019"),
    ("models.tasks.qa.MAX_ANSWER", 30, "Devlin et al. 2019"),
    ("similarity.neighbours.K", 10, "the measure's name, mutual_knn_10"),
    ("similarity.causes.SAMPLE", 5000, "5,000 stimuli behind intervals, as everywhere"),
    ("similarity.measures.NOISE", 1e-10, "module"),
    ("similarity.measures.NOISE_OF_FLOAT32_SUMS", 1e-7, "module"),
    ("similarity.measures.NOISE_OF_VECTORS", {torch.float16: 1e-7, torch.bfloat16: 1e-5}, "module"),
    ("similarity.measures.SHAPE_FLOOR", 2e-4, "module"),
    ("similarity.compare.all_pairs.RESAMPLES", 1000, "1,000 resamples, as everywhere"),
    ("similarity.compare.nulls.LEVEL", 0.95, "the 95th percentile of a null"),
    ("similarity.compare.nulls.SCALE", 1e-6, "module"),
    ("similarity.compare.plan.FEWEST", 100, "module"),
    ("similarity.traded_texts.LEAST", 5, "module"),
    ("similarity.words.agreement.MOVED", 1e-5, "module"),
    ("similarity.words.labels.COMMON", 10, "docstring of labels_of: at least 10 times"),
    ("similarity.sinks.TIMES", 100.0, "docs/zero.md: 100 times the median"),
    ("similarity.sinks.FAR", 4.0, "module"),
    ("similarity.sinks.QUARTER", 0.25, "docs/zero.md: a quarter of the variance"),
    ("similarity.pairwise_rsa.EXACT", 1024, "docs/gpu.md: below 1,000 stimuli ranks are exact"),
    ("similarity.pairwise_rsa.GRID", 16384, "module"),
    (
        "ops.pairwise_gradient.PRODUCTS",
        ("dot", "cosine", "correlation", "sqeuclidean", "euclidean"),
        "all but manhattan",
    ),
    ("ops.rdm.routes.EXACT_RANKS", 1024, "docs/gpu.md"),
]
DEFAULTS = [
    ("runs.intervals.ratio_interval", {"resamples": 1000, "level": 0.95}),
    ("models.tasks.base.Score.interval", {"resamples": 1000, "level": 0.95}),
    ("models.tasks.base.Window", {"stride": 64}),
    ("probes.structural.scores.summarise", {"resamples": 1000, "seed": 0}),
    ("probes.structural.scores.resampled", {"resamples": 1000, "seed": 0}),
    ("probes.structural.rbf.train_rbf", {"rank": 128, "epochs": 40, "seed": 0}),
    ("similarity.reservoir.Reservoir", {"capacity": 5000, "seed": 0}),
    ("similarity.paired_stimuli.Draw", {"tokens": 5000, "seed": 0}),
    ("similarity.compare.encoders.compare_encoders", {"tokens": 5000, "reservoir": 5000, "seed": 0, "null": 0}),
    ("similarity.compare.plan.Plan", {"sample": 5000, "seed": 0, "permutations": 0, "null": 0, "float64": False}),
    ("similarity.words.agreement.words_agree", {"resamples": 1000, "seed": 0}),
    ("similarity.directions.directions_of_layer", {"k": 3, "layer": 0}),
    ("similarity.directions.directions_of_change", {"k": 3, "sample": 5000, "extremes": 10}),
    ("similarity.words.moved.words_that_moved", {"extremes": 20}),
    ("similarity.neighbours.rbf_cka", {"sigma": 0.5}),
    ("similarity.neighbours.rbf_alignment", {"sigma": 0.5}),
    ("similarity.neighbours.gaussian_kernel", {"sigma": 0.5}),
    ("similarity.measures.svcca", {"variance": 0.99, "noise": 1e-10}),
    ("similarity.measures.linear_r2", {"ridge": 0.0, "noise": 1e-10}),
    ("similarity.moments.CrossMoments.svcca", {"variance": 0.99}),
    ("similarity.moments.CrossMoments.linear_r2", {"ridge": 0.0}),
    ("similarity.pairwise_rsa.rsa", {"bootstrap": 0, "permutations": 0, "seed": 0}),
    ("ops.rdm.correlation.rdm_correlation", {"samples": 100_000, "seed": 0}),
]


def found(name: str) -> object:
    """Return what ``name`` in the package names: a module, then attributes."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            value: object = importlib.import_module(".".join(["bertft", *parts[:cut]]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            value = getattr(value, part)
        return value
    raise AssertionError(f"no module in {name}")


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, value, _ in CONSTANTS])
def test_a_constant_has_the_stated_value(name, value):
    assert found(name) == value


@pytest.mark.parametrize(("name", "defaults"), DEFAULTS)
def test_defaults_are_as_stated(name, defaults):
    parameters = inspect.signature(found(name)).parameters
    assert {key: parameters[key].default for key in defaults} == defaults

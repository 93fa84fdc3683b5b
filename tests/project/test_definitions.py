"""Constants and defaults of definitions, against the papers and pages that state them.

Another value would be another definition: numbers of two versions of bertft could no longer be compared.
"""

from __future__ import annotations

import importlib
import inspect

import pytest
import torch

from bertft.similarity.compare.plan import Plan
from bertft.similarity.compare.workers import Team
from bertft.similarity.paired_stimuli import Draw

CONSTANTS = [
    ("runs.intervals.ENDS", (2.5, 97.5), "95 % intervals"),
    ("probes.structural.scores.SHORTEST", 5, "Hewitt and Manning 2019: sentences of 5 to 50 words"),
    ("probes.structural.scores.LONGEST", 50, "Hewitt and Manning 2019"),
    ("probes.structural.rbf.START", 16.0, "module"),
    ("runs.vocabulary.BASE", "base", "a name in results"),
    ("runs.vocabulary.RANDOM", "random", "a name in results"),
    ("runs.vocabulary.NOISE", "noise of ", "a name in results"),
    ("runs.vocabulary.OWN_TEXT", "own_text", "a name in results"),
    ("runs.vocabulary.PAIRED", ("difference", "along"), "a name in results"),
    ("runs.vocabulary.PAIR", " - ", "a name in results"),
    ("runs.artefacts.FORMAT", "bertft.artefact/1", "files of earlier versions"),
    ("probes.structural.rows.TASK", "structural", "a name in results"),
    ("probes.structural.rows.CONTROL", "control_", "a name in results"),
    ("probes.structural.scores.MEASURES", ("dspr", "nspr", "uuas", "root_accuracy"), "Hewitt and Manning 2019"),
    (
        "probes.structural.trees.PENN_PUNCTUATION",
        {"''", ",", ".", ":", "``", "-LRB-", "-RRB-"},
        "Hewitt and Manning 2019",
    ),
    ("probes.structural.trees.UNIVERSAL_PUNCTUATION", {"PUNCT", "SYM"}, "docstring of punctuation"),
    (
        "probes.structural.trees.PENN_WORDS",
        {"DT", "IN", "JJ", "NN", "NNS", "NNP", "PRP", "RB", "VB", "VBD", "VBP", "VBZ"},
        "module",
    ),
    ("probes.edge.rows.TASK", "edge", "a name in results"),
    (
        "probes.edge.control.FRACTIONS",
        (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0),
        "Voita and Titov 2020",
    ),
    ("models.tasks.base.ENCODER_INPUTS", ("input_ids", "attention_mask", "token_type_ids"), "transformers"),
    ("models.tasks.dependency.ARC_DIM", 500, "Dozat and Manning 2017"),
    ("models.tasks.dependency.LABEL_DIM", 128, "module"),
    ("models.tasks.dependency.DROPOUT", 0.33, "Dozat and Manning 2017"),
    ("models.tasks.dependency.IGNORED", -100, "cross-entropy of PyTorch"),
    ("models.tasks.pos.DROPOUT", 0.1, "Devlin et al. 2019"),
    ("models.tasks.pos.IGNORED", -100, "cross-entropy of PyTorch"),
    ("models.tasks.nli.DROPOUT", 0.1, "Devlin et al. 2019"),
    ("models.tasks.qa.MAX_QUESTION", 64, "Devlin et al. 2019"),
    ("models.tasks.qa.MAX_ANSWER", 30, "Devlin et al. 2019"),
    ("data.readers.nli.LABELS", ("entailment", "neutral", "contradiction"), "GLUE"),
    ("similarity.neighbours.K", 10, "the measure's name, mutual_knn_10"),
    ("similarity.neighbours.PARTS", 10, "module"),
    ("similarity.neighbours.SPARE", 3, "module"),
    ("similarity.accumulator.FEW", 128, "kSmall of csrc"),
    ("similarity.accumulator.NOISE", "noise", "files of earlier versions"),
    ("similarity.paired_stimuli.AROUND", 12, "module"),
    ("similarity.causes.TASK", "causes", "a name in results"),
    ("similarity.causes.UNCHANGED", (1.0, 1.0, 1.0, 0.0), "a part that is the same changes nothing"),
    ("similarity.directions.TASK", "directions", "a name in results"),
    ("similarity.directions.MEAN", 0, "docstring of End"),
    ("similarity.directions.ENDS", ("low", "high"), "a name in results"),
    ("similarity.direction_words.FILES", ("directions.csv", "direction_tokens.csv"), "a name in results"),
    ("similarity.words.moved.FILES", ("local.csv", "words.csv", "sentences.csv"), "a name in results"),
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
    ("similarity.sinks.DECADE", 10.0, "docs/zero.md"),
    ("similarity.sinks.LASTING", 0.1, "docs/zero.md: one layer in ten"),
    ("similarity.sinks.LISTED", 1000, "module"),
    ("similarity.sinks.TASK", "sinks", "a name in results"),
    ("similarity.sinks.QUARTER", 0.25, "docs/zero.md: a quarter of the variance"),
    ("similarity.compare.nulls.TASK", "null", "a name in results"),
    ("similarity.compare.encoders.TASKS", ("rsa", "heatmap", "null", "sinks"), "a name in results"),
    ("similarity.compare.recorded.FORMAT", "bertft.batch/1", "files of earlier versions"),
    ("similarity.compare.plan.WHITENED", {"cca", "pwcca", "linear_r2"}, "module"),
    (
        "similarity.compare.plan.MEASURES",
        (
            *("rsa", "cka", "cka_biased", "cca", "svcca", "pwcca", "procrustes", "shape_distance", "linear_r2"),
            *("effective_dimension", "anisotropy", "mutual_knn", "cka_rbf"),
        ),
        "a name in results",
    ),
    ("similarity.compare.plan.SPACES", ("effective_dimension", "anisotropy"), "a name in results"),
    ("similarity.compare.plan.PAIRS", ("mutual_knn", "cka_rbf"), "a name in results"),
    ("similarity.words.labels.RARE", "(rarer words)", "a name in results"),
    ("similarity.words.labels.OF_WORDS", ("position", "frequency", "form"), "a name in results"),
    ("similarity.words.labels.COLUMNS", ("feats", "misc"), "CoNLL-U"),
    ("similarity.words.labels.ABSENT", "_", "CoNLL-U"),
    ("similarity.pairwise_rsa.LARGEST", 10_000, "two matrices in memory"),
    ("similarity.pairwise_rsa.EXACT", 1024, "docs/gpu.md: below 1,000 stimuli ranks are exact"),
    ("similarity.pairwise_rsa.GRID", 16384, "module"),
    (
        "ops.pairwise_gradient.PRODUCTS",
        ("dot", "cosine", "correlation", "sqeuclidean", "euclidean"),
        "all but manhattan",
    ),
    ("ops.metrics.METRICS", ("dot", "cosine", "correlation", "sqeuclidean", "euclidean", "manhattan"), "csrc"),
    ("ops.metrics.LINEAR", ("dot", "cosine", "correlation", "sqeuclidean"), "docstring of metrics"),
    ("ops.metrics.NORMALISED", ("cosine", "correlation"), "docstring of metrics"),
    (
        "ops.metrics.SCALE",
        {"dot": 1.0, "cosine": -1.0, "correlation": -1.0, "sqeuclidean": -2.0},
        "docstring of metrics",
    ),
    ("ops.metrics.COMPARISONS", ("pearson", "cosine", "spearman", "rho_a", "kendall"), "csrc"),
    ("ops.metrics.RANKS", ("spearman", "rho_a"), "docstring of metrics"),
    ("ops.parts.NEAR", 1 / 32, "csrc"),
    ("ops.rdm.routes.ROUTES", ("linear", "tiles", "exact", "sampled"), "docstring of routes"),
    ("ops.rdm.routes.EXACT_RANKS", 1024, "docs/gpu.md"),
]
DEFAULTS = [
    ("runs.intervals.ratio_interval", {"resamples": 1000, "level": 0.95}),
    ("runs.artefacts.Artefact.load", {"refuse": False}),
    ("runs.artefacts.Unfinished", {"every": 0.0}),
    ("runs.artefacts.Unfinished.keep", {"last": False}),
    ("runs.differences.first_difference", {"where": ""}),
    ("runs.vocabulary.MeasureName", {"input": None, "control": False, "derived": None, "base_layer": None}),
    ("models.tasks.base.Score.interval", {"resamples": 1000, "level": 0.95}),
    ("models.tasks.base.Window", {"stride": 64}),
    ("models.tasks.base.TaskModel.train", {"mode": True}),
    ("models.tasks.pairs.encode_pairs", {"stride": 0}),
    ("models.tasks.qa.best_constant_answer", {"words": 12}),
    ("probes.structural.scores.summarise", {"resamples": 1000, "seed": 0}),
    ("probes.structural.scores.resampled", {"resamples": 1000, "seed": 0}),
    ("probes.structural.rbf.train_rbf", {"rank": 128, "epochs": 40, "seed": 0}),
    ("similarity.reservoir.Reservoir", {"capacity": 5000, "seed": 0}),
    ("similarity.paired_stimuli.Draw", {"tokens": 5000, "unit": "token", "seed": 0, "draw": "stream"}),
    ("similarity.causes.block_causes", {"metric": "cosine", "draw": Draw(tokens=2000)}),
    (
        "similarity.compare.encoders.compare_encoders",
        {"metric": "cosine", "tokens": 5000, "unit": "token", "seed": 0, "draw": "stream", "data": "wikipedia"}
        | {"reservoir": 5000, "window": "split", "all_layers": False, "layers": (), "null": 0, "precision": "float32"},
    ),
    (
        "similarity.compare.encoders.compare_stream",
        {"plan": Plan(), "tokens": None, "unit": "token", "data": "text", "window": "split", "team": Team(0, 1)},
    ),
    (
        "similarity.compare.plan.Plan",
        {"metrics": ("cosine",), "compares": ("pearson",), "measures": ("rsa", "cka"), "intervals": True}
        | {"sample": 5000, "seed": 0, "all_layers": False, "float64": False, "permutations": 0, "layers": ()}
        | {"null": 0, "precision": "float32", "null_sample": None, "null_of_noise": True},
    ),
    ("similarity.compare.nulls.rows", {"noise": 0.0}),
    ("similarity.compare.stimuli.choose", {"draw": "stream"}),
    ("similarity.compare.workers.Team", {"rank": 0, "size": 1}),
    ("similarity.vectors.compare_vectors", {"plan": Plan(), "pair_by": "ids", "data": "vectors"}),
    ("similarity.words.agreement.words_agree", {"metric": "cosine", "resamples": 1000, "seed": 0}),
    ("similarity.direction_words.write_directions", {"extremes": 10}),
    ("similarity.direction_words.tokens_of", {"count": 10}),
    ("similarity.directions.End", {"count": 1}),
    ("similarity.directions.directions_of_layer", {"k": 3, "layer": 0}),
    ("similarity.directions.directions_of_change", {"k": 3, "draw": Draw(), "sample": 5000, "extremes": 10}),
    (
        "similarity.words.moved.words_that_moved",
        {"by": ("upos",), "metric": "cosine", "float64": False, "extremes": 20},
    ),
    ("similarity.words.moved.local_of_words", {"float64": False}),
    ("similarity.dissimilarities.rdms", {"metric": "cosine", "precision": "float32"}),
    ("similarity.dissimilarities.compare_rdms", {"compare": "pearson"}),
    ("similarity.neighbours.mutual_knn", {"k": 10, "metric": "cosine"}),
    ("similarity.neighbours.nearest", {"metric": "cosine"}),
    ("similarity.neighbours.rbf_cka", {"sigma": 0.5}),
    ("similarity.neighbours.rbf_alignment", {"sigma": 0.5, "influences": True}),
    ("similarity.neighbours.gaussian_kernel", {"sigma": 0.5}),
    ("similarity.measures.svcca", {"variance": 0.99, "noise": 1e-10}),
    ("similarity.measures.linear_r2", {"ridge": 0.0, "noise": 1e-10}),
    (
        "similarity.moments.CrossMoments",
        {"metric": "cosine", "pairs": "diagonal", "float64": False, "precision": "float32"},
    ),
    ("similarity.moments.CrossMoments.rsa", {"compare": "pearson"}),
    ("similarity.moments.CrossMoments.cka", {"debiased": True}),
    ("similarity.moments.CrossMoments.svcca", {"variance": 0.99}),
    ("similarity.moments.CrossMoments.linear_r2", {"ridge": 0.0}),
    (
        "similarity.pairwise_rsa.rsa",
        {"metric": "cosine", "compare": "pearson", "bootstrap": 0, "permutations": 0, "seed": 0}
        | {"precision": "float32"},
    ),
    (
        "ops.rdm.correlation.rdm_correlation",
        {"metric": "cosine", "compare": "pearson", "float64": False, "route": "auto", "samples": 100_000, "seed": 0}
        | {"nan": "raise", "return_route": False, "precision": "float32"},
    ),
    ("ops.moments.linear_cka.linear_cka", {"debiased": True, "float64": False, "nan": "raise", "precision": "float32"}),
    ("ops.moments.cross_moments.provisional_mean", {"metric": "cosine", "rows": 128}),
    (
        "ops.moments.cross_moments.cross_moments",
        {"metric": "cosine", "grams": True, "float64": False, "nan": "raise", "precision": "float32"},
    ),
    ("ops.moments.formulas.compare_sums", {"compare": "pearson", "scale": (1.0, 1.0), "offset": (0.0, 0.0)}),
    ("ops.moments.formulas.rsa_from_moments", {"metric": "cosine", "compare": "pearson"}),
    ("ops.moments.formulas.cka_from_moments", {"debiased": True}),
    (
        "ops.pairwise_distance.pairwise_distance",
        {"metric": "sqeuclidean", "condensed": False, "nan": "raise", "precision": "float32"},
    ),
    ("ops.nearest.take_nearest", {"row": 0, "column": 0}),
    ("ops.precision.check_precision", {"float64": False}),
    ("ops.precision.rsa_error", {"linear": False}),
    ("ops.probe_loss.distance_probe_loss", {"check_finite": True, "precision": "float32"}),
    ("ops.probe_loss.depth_probe_loss", {"check_finite": True, "precision": "float32"}),
    ("ops.probe_loss.probe_loss", {"check_finite": True}),
    ("ops.probe_loss.probe_loss_and_gradient", {"check_finite": True}),
    ("ops.reference.pairwise_distance", {"metric": "sqeuclidean", "condensed": False}),
    ("ops.reference.rdm_correlation", {"metric": "cosine", "compare": "pearson"}),
    ("ops.reference.cross_moments", {"grams": True}),
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

"""Round trips of the names of measures.

Over the catalogue and over every published table.
"""

from __future__ import annotations

import ast
import csv
import dataclasses
import itertools
import math
import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertft.errors import BertftError
from bertft.ops.metrics import COMPARISONS, METRICS
from bertft.runs.catalogue import COMPARISONS as NAMED_COMPARISONS
from bertft.runs.catalogue import METRICS as NAMED_METRICS
from bertft.runs.vocabulary import (
    CATALOGUE,
    PAIRED,
    Derived,
    MeasureName,
    Probe,
    is_noise,
    noise_of,
    operands,
    pair,
    pairs_of_models,
)
from bertft.similarity.neighbours import K

ROOT = Path(__file__).parents[2]
PROBES = st.one_of(
    st.integers(1, 999).map(lambda rank: Probe("linear", rank)), st.sampled_from([Probe("orthogonal"), Probe("rbf")])
)
REGULAR = st.builds(
    MeasureName,
    st.sampled_from([name for name in CATALOGUE if name not in ("label_f1", "local_rsa")] + ["mutual_knn_10"]),
    input=st.sampled_from([None, "mix", "cat"]),
    control=st.booleans(),
    derived=st.sampled_from([None, *get_args(Derived)]),
    probe=st.none() | PROBES,
    base_layer=st.none() | st.integers(0, 99),
)
LABELS = st.text(max_size=8)
PLAIN = LABELS.filter(lambda text: "=" not in text and f"local_rsa_{text}" not in CATALOGUE)
LABELLED = st.one_of(
    st.builds(MeasureName, st.just("label_f1"), input=st.sampled_from([None, "mix", "cat"]), label=LABELS),
    st.builds(MeasureName, st.just("local_rsa"), label=PLAIN),
    st.builds(MeasureName, st.just("local_rsa"), label=LABELS, grouping=st.text("abcxyz_", max_size=8)),
)


@given(REGULAR | LABELLED)
def test_parse_inverts_str(name):
    assert MeasureName.parse(str(name)) == name


@given(st.text(max_size=30))
def test_str_inverts_parse_for_any_text(text):
    assert str(MeasureName.parse(text)) == text


def _published() -> list[str]:
    names = set()
    for path in (ROOT / "experiments" / "results").rglob("*.csv"):
        with path.open(encoding="utf8", newline="") as file:
            table = csv.DictReader(file)
            if table.fieldnames is not None and "measure" in table.fieldnames:
                names |= {row["measure"] for row in table}
    return sorted(names)


def test_every_published_name_is_in_the_catalogue():
    names = _published()
    assert len(names) >= 90
    for name in names:
        parsed = MeasureName.parse(name)
        assert str(parsed) == name and parsed.base in CATALOGUE, name


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("micro_f1", MeasureName("micro_f1")),
        ("mix_selectivity", MeasureName("micro_f1", input="mix", derived="selectivity")),
        ("cat_class_1_selectivity", MeasureName("class_1_f1", input="cat", derived="selectivity")),
        ("cat_control_micro_f1", MeasureName("micro_f1", input="cat", control=True)),
        ("dspr_difference_p_rank8", MeasureName("dspr", derived="difference_p", probe=Probe("linear", 8))),
        ("uuas_selectivity_rbf", MeasureName("uuas", derived="selectivity", probe=Probe("rbf"))),
        ("control_root_accuracy_orthogonal", MeasureName("root_accuracy", control=True, probe=Probe("orthogonal"))),
        ("rsa_cosine_spearman_p", MeasureName("rsa_cosine_spearman", derived="p")),
        ("rsa_euclidean_rho_a_error", MeasureName("rsa_euclidean_rho_a", derived="error")),
        ("rsa_cosine_pearson_base11", MeasureName("rsa_cosine_pearson", base_layer=11)),
        ("cka_rbf", MeasureName("cka_rbf")),
        ("rsa_cosine_pearson_null_max", MeasureName("rsa_cosine_pearson", derived="null_max")),
        ("mutual_knn_10_calibrated", MeasureName("mutual_knn_10", derived="calibrated")),
        ("cka_biased_null", MeasureName("cka_biased", derived="null")),
        ("cka_debiased_with_massive", MeasureName("cka_debiased", derived="with_massive")),
        ("mix_f1[nmod:poss]", MeasureName("label_f1", input="mix", label="nmod:poss")),
        ("local_rsa_xpos==", MeasureName("local_rsa", grouping="xpos", label="=")),
        ("local_rsa_NOUN", MeasureName("local_rsa", label="NOUN")),
        ("local_rsa_correlation", MeasureName("local_rsa_correlation")),
        ("uuas_rank08", MeasureName("uuas_rank08")),  # not what str writes, so no rank
        ("micro_f1_selectivity", MeasureName("micro_f1_selectivity")),  # its name is "selectivity"
    ],
)
def test_parts_of_a_name(name, parts):
    assert MeasureName.parse(name) == parts


@pytest.mark.parametrize(
    "parts",
    [
        {"base": "uuas", "label": "nsubj"},
        {"base": "label_f1", "label": "nsubj", "control": True},
        {"base": "local_rsa", "label": "a=b"},
        {"base": "local_rsa", "label": "correlation"},
        {"base": "local_rsa", "label": "NOUN", "derived": "difference"},
        {"base": "local_rsa", "derived": "p"},
        {"base": "local_rsa", "input": "mix"},
        {"base": "label_f1", "grouping": "upos"},
    ],
)
def test_parts_that_no_name_expresses_are_refused(parts):
    with pytest.raises(BertftError, match="measure: no name expresses these parts together"):
        MeasureName(**parts)


def test_a_rank_belongs_to_a_linear_probe():
    for wrong in (("linear", None), ("rbf", 8)):
        with pytest.raises(BertftError, match="expected a rank for linear probes only"):
            Probe(*wrong)


@pytest.mark.parametrize(
    ("name", "kind", "bounds"),
    [
        ("accuracy", "share", (0, 1)),
        ("las_conll18", "share", (0, 100)),
        ("f1", "share", (0, 100)),
        ("f1[nsubj]", "share", (0, 1)),
        ("mutual_knn_10", "share", (0, 1)),
        ("control_uuas_rank8", "share", (0, 1)),
        ("dspr_orthogonal", "correlation", (-1, 1)),
        ("local_rsa_upos=NOUN", "correlation", (-1, 1)),
        ("rsa_cosine_pearson_base3", "correlation", (-1, 1)),
        ("shape_distance", "distance", (-math.inf, math.inf)),
        ("trained_parameters", "count", (-math.inf, math.inf)),
        ("uuas_selectivity", "quantity", (-math.inf, math.inf)),
        ("rsa_cosine_pearson_difference", "quantity", (-math.inf, math.inf)),
        ("micro_f1_difference_p", "p_value", (-math.inf, math.inf)),
        ("rsa_cosine_pearson_p", "p_value", (-math.inf, math.inf)),
        ("x", "quantity", (-math.inf, math.inf)),
    ],
)
def test_kind_and_bounds(name, kind, bounds):
    parsed = MeasureName.parse(name)
    assert (parsed.kind, parsed.bounds) == (kind, bounds)


def test_the_catalogue_has_every_kind_of_rsa_and_the_neighbours_in_use():
    assert NAMED_METRICS == METRICS and tuple(NAMED_COMPARISONS) == COMPARISONS
    assert MeasureName.parse(f"mutual_knn_{K}").kind == "share"


def test_words_for_figures_and_sentences():
    rsa = MeasureName.rsa("cosine", "pearson")
    assert MeasureName.parse("rsa_sqeuclidean_spearman").axis == "RSA similarity (Spearman ρ of sqeuclidean RDMs)"
    assert rsa.axis == "RSA similarity (Pearson r of cosine RDMs)" and rsa.title == "RSA"
    dspr = MeasureName.parse("control_dspr_rank8")
    assert (dspr.title, dspr.short, dspr.axis) == ("Tree distances", "DSpr", "DSpr (Spearman, mean of lengths 5–50)")
    assert MeasureName.parse("las_conll18").short == "LAS" and MeasureName.parse("x").axis == "x"
    assert MeasureName.parse("cka_debiased_base2").group == "cka_debiased by layers of both"
    assert MeasureName.parse("local_rsa_upos=NOUN").group == "local_rsa_upos"


def test_rows_of_pairs_and_of_moments_of_a_training_have_no_encoder():
    assert set(PAIRED) == {"difference", "along"}


def test_operands_splits_what_pair_joined():
    assert operands(pair("dep", "mnli")) == ("dep", "mnli")
    assert operands(pair("a - b", "c"), ["a - b", "c"]) == ("a - b", "c")
    assert operands("a - b - c", ["a", "b - c", "x"]) == ("a", "b - c") == operands("a - b - c", ["a - b"])
    assert operands("alone") == ("alone", "")


METHODS = {"startswith", "endswith", "partition", "rpartition", "split", "removeprefix", "removesuffix", "replace"}
FUNCTIONS = {"fullmatch", "match", "search", "sub"}
PART = re.compile(
    r"^(mix_|cat_|control_|rsa_|local_rsa_|mutual_knn_)|^_(selectivity|difference|p|error|orthogonal|rbf|rank|base)$"
    r"|_(selectivity|difference|rank|base)$"
)


def handmade(source: str) -> list[int]:
    """Return the lines that take an attribute or variable ``measure`` apart, or put a name together by hand."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            on = [node.func.value] if node.func.attr in METHODS else node.args if node.func.attr in FUNCTIONS else []
            if "measure" in {n.attr if isinstance(n, ast.Attribute) else getattr(n, "id", "") for n in on}:
                found.append(node.lineno)
        elif isinstance(node, ast.JoinedStr):
            texts = [value.value for value in node.values if isinstance(value, ast.Constant)]
            found += [node.lineno for text in texts if PART.search(text)]
    return found


@pytest.mark.parametrize(
    "source",
    ["row.measure.startswith('rsa')", "re.match('x', measure)", "f'control_{name}'", "f'{name}_difference'"],
)
def test_handmade_names_are_found(source):
    assert handmade(source) == [1]


NAMING = ("vocabulary.py", "catalogue.py")  # the grammar of names, and the bases that it knows


def test_no_other_module_builds_or_splits_names_of_measures():
    files = [*(ROOT / "bertft").rglob("*.py"), *(ROOT / "experiments").glob("*.py")]
    found = {path.relative_to(ROOT): handmade(path.read_text(encoding="utf8")) for path in files}
    assert {str(path): lines for path, lines in found.items() if lines and path.name not in NAMING} == {}


def test_a_null_is_a_value_of_its_measure_and_a_calibrated_value_is_not():
    assert MeasureName.parse("cka_biased_null").bounds == MeasureName.parse("cka_biased").bounds == (0.0, 1.0)
    assert MeasureName.parse("shape_distance_null_max").kind == "distance"
    assert MeasureName.parse("cka_biased_calibrated").kind == "quantity"


def test_noise_is_subtracted_from_its_own_encoder_only():
    models = ["a", "b", noise_of("a"), noise_of("b")]
    assert [is_noise(model) for model in models] == [False, False, True, True]
    assert list(pairs_of_models(models)) == [("a", "b"), ("a", "noise of a"), ("b", "noise of b")]


BASES = ("uuas", "mutual_knn_10", "label_f1", "local_rsa")
TEXTS = (None, "", "NOUN", "a=b", "correlation")


def test_parts_are_allowed_exactly_if_their_name_is_read_back():
    columns = (BASES, (None, "mix"), (False, True), (None, "p"), (None, Probe("rbf")), (None, 0), TEXTS, TEXTS)
    allowed = 0
    for values in itertools.product(*columns):
        parts = dict(zip((field.name for field in dataclasses.fields(MeasureName)), values, strict=True))
        unchecked = object.__new__(MeasureName)
        for name, value in parts.items():
            object.__setattr__(unchecked, name, value)
        if MeasureName.parse(str(unchecked)) == unchecked:
            assert MeasureName(**parts) == unchecked
            allowed += 1
        else:
            with pytest.raises(BertftError):
                MeasureName(**parts)
    # 32 of each regular base; a base alone, or 4 labels with an input or none; 4 labels in 3 groupings, and 2 in none
    assert allowed == 2 * 32 + (1 + 2 * 4) + (1 + 4 * 3 + 2)


@pytest.mark.parametrize("derived", get_args(Derived))
def test_every_derived_value_is_read_from_a_name(derived):
    found = MeasureName.parse(f"cka_debiased_{derived}")
    assert (found.base, found.derived) == ("cka_debiased", derived)
    assert found.percent is MeasureName.parse("cka_debiased").percent is False


def test_derived_values_have_the_names_of_results():
    names = "selectivity difference difference_p p error null null_max calibrated with_massive"
    assert get_args(Derived) == tuple(names.split())


def test_other_numbers_of_neighbours_are_shares_and_other_names_are_quantities():
    for name, kind in (("mutual_knn_7", "share"), ("mutual_knn_07", "quantity"), ("mutual_knn_7x", "quantity")):
        assert (MeasureName.parse(name).kind, MeasureName.parse(name).measure.family) == (kind, "space")


def test_a_plain_name_has_the_input_alone_and_a_group_all_its_labels():
    assert MeasureName.parse("mix_control_micro_f1_difference_base3").plain == MeasureName("micro_f1", input="mix")
    names = ("control_uuas_rank8", "local_rsa_NOUN", "mix_f1[nsubj]")
    assert [MeasureName.parse(name).group for name in names] == list(names)
    assert MeasureName.parse("cka_biased_null_base0").group == "cka_biased_null by layers of both"


def test_noise_is_paired_with_its_own_encoder_in_either_order():
    a, b = noise_of("a"), noise_of("b")
    assert list(pairs_of_models([a, b, "a"])) == [(a, "a")] and list(pairs_of_models(["a", a, b])) == [("a", a)]
    assert list(pairs_of_models([a, "b"])) == list(pairs_of_models(["b", a])) == list(pairs_of_models([a, b])) == []

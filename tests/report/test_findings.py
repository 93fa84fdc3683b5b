"""Findings, against numbers known by construction."""

from __future__ import annotations

import dataclasses

from bertft.report.findings import cost, headline
from bertft.report.lines import context
from bertft.runs.rows import Row


def sentences(rows, config):
    return dict(headline(rows, context(config, rows)))


def test_what_changed_names_the_layer_its_value_and_where_half_the_change_is_reached(rows, config):
    changed = sentences(rows, config)["What changed"]
    assert changed[0] == (
        "dep: layer 3 changed most. Its similarity to the base encoder on plain is 0.400 [0.390, 0.410] "
        "(1 = unchanged). Next: layer 2 (0.600 [0.590, 0.610]), layer 1 (0.800 [0.790, 0.810]). Half of that change "
        "is reached at layer 2 of 3."
    )
    assert "mnli: layer 3 changed most" in changed[1] and "reached at layer 3 of 3" in changed[1]
    top = "dep 0.400 [0.390, 0.410], mnli 0.600 [0.590, 0.610]"
    assert changed[2] == f"At the top layer, from most to least changed: {top}."


def test_overlapping_intervals_are_reported(rows, config):
    wide = [dataclasses.replace(r, low=r.value - 0.5, high=r.value + 0.5) if r.task == "rsa" else r for r in rows]
    found = sentences(wide, config)
    assert found["What changed"][-1].endswith("The intervals of dep and mnli overlap.")
    assert ", intervals overlap), layer 1 (" in found["What changed"][0]
    assert "The difference is -0.150 [-0.857, 0.557]." in found["Own text against other text"][0]


def test_own_text_against_text_of_no_task(rows, config):
    own = sentences(rows, config)["Own text against other text"]
    assert own[0] == (
        "dep: at layer 3 similarity is lower on its own text (0.250 [0.240, 0.260]) than on plain "
        "(0.400 [0.390, 0.410]). The difference is -0.150 [-0.164, -0.136]. Similarity is lower on its own text at 3 "
        "of 4 layers."
    )
    assert "at 2 of 4 layers" in own[1]
    paired = [Row("dep", "own_text", "dep - plain", 3, "rsa_cosine_pearson_difference", -0.15, -0.2, -0.1, 9, None)]
    assert (
        "). The difference is -0.150 [-0.200, -0.100]. Sim"
        in sentences([*rows, *paired], config)["Own text against other text"][0]
    )


def test_which_of_two_changed_more():
    made = [
        Row("a - b", "difference", "plain", layer, measure, value, value - 0.1, value + 0.1, 50, 0)
        for measure in ("rsa_cosine_pearson", "cka_debiased")
        for layer, value in enumerate((0.05, -0.2, 0.3, 0.4))
    ]
    assert sentences(made, {})["Which of two encoders changed more"] == [
        "a and b on plain: at layer 3 the similarity of a to the base encoder minus that of b is 0.400 [0.300, 0.500]. "
        "The interval, paired by text, excludes 0 at 3 of 4 layers: a is more similar to the base encoder at 2, b at 1."
    ]
    assert context({}, made).models == ()  # the difference is no encoder
    bare = [dataclasses.replace(row, low=None, high=None) for row in made]
    assert sentences(bare, {})["Which of two encoders changed more"] == [
        "a and b on plain: at layer 3 the similarity of a to the base encoder minus that of b is 0.400."
    ]


def test_probes_compare_best_layers_and_report_the_random_encoder(rows, config):
    found = sentences(rows, config)["What structural probes find"]
    assert found[0] == (
        "DSpr at the best layer: base 0.800 [0.780, 0.820] (layer 2), dep +0.050 (layer 2, intervals disjoint), "
        "mnli -0.010 (layer 2, intervals overlap), a random encoder 0.500 [0.480, 0.520]."
    )
    assert len(found) == 4


def test_edge_probes_compare_best_layers_and_report_the_control():
    table = [
        Row(model, "edge", "ner", layer, measure, value + step * layer / 100, value - 0.02, value + 0.05, 90, 1)
        for model, measure, value, step in (
            ("base", "micro_f1", 0.7, 1), ("dep", "micro_f1", 0.9, 1), ("random", "micro_f1", 0.3, 1),
            ("base", "control_micro_f1", 0.2, -1), ("base", "mix_micro_f1", 0.8, 1),
        )
        for layer in range(3)
    ]  # fmt: skip
    assert sentences(table, {})["What edge probes find"] == [
        "ner, micro-F1 at the best layer: base 0.720 [0.680, 0.750] (layer 2), dep +0.200 (layer 2, intervals "
        "disjoint), a random encoder 0.320 [0.280, 0.350], base on control labels at that layer 0.180 [0.180, 0.250]."
    ]
    assert sentences([row for row in table if row.model == "dep"], {}) == {}  # nothing to compare with
    paired = [
        Row("dep", "edge", "ner", layer, "micro_f1_difference", -0.2, -0.21, -0.19, 90, 1) for layer in range(3)
    ]  # the paired interval takes precedence over the two intervals
    (said,) = sentences(table + paired, {})["What edge probes find"]
    assert "dep -0.200 [-0.210, -0.190] (layer 2, paired), a random" in said
    nothing = [dataclasses.replace(row, value=-0.0002, low=-0.01, high=0.01) for row in paired]
    assert "dep +0.000 [-0.010, 0.010] (layer 2, paired)" in sentences(table + nothing, {})["What edge probes find"][0]
    elsewhere = [row for row in paired if row.layer != 2]
    assert "dep +0.200 (layer 2, intervals disjoint)" in sentences(table + elsewhere, {})["What edge probes find"][0]


def test_sweeps_report_the_last_k_whose_interval_overlaps():
    half = 0.02
    scores = {"freeze": {-1: 0.70, 0: 0.71, 2: 0.69, 4: 0.60}, "truncate": {0: 0.40, 2: 0.69, 4: 0.70}}
    table = [
        Row("mnli", kind, "mnli", k, "accuracy", value, value - half, value + half, 90, 1)
        for kind, values in scores.items()
        for k, value in values.items()
    ]
    table += [Row("mnli", "freeze", "mnli", k, "trained_parameters", 9.0) for k in scores["freeze"]]
    assert sentences(table, {})["How much of the encoder a task needs"] == [
        "mnli, freezing, accuracy: 0.700 [0.680, 0.720] with the least frozen (k = -1); intervals overlap as far "
        "as k = 2, 0.690 [0.670, 0.710]; 0.600 [0.580, 0.620] with the most frozen (k = 4).",
        "mnli, truncation, accuracy: 0.700 [0.680, 0.720] with the most blocks (k = 4); intervals overlap as far "
        "as k = 2, 0.690 [0.670, 0.710]; 0.400 [0.380, 0.420] with the fewest blocks (k = 0).",
    ]
    bare = [Row("dep", "truncate", "dep", k, "las_conll18", 80.0 + k) for k in range(3)]
    assert sentences(bare, {})["How much of the encoder a task needs"] == [
        "dep, truncation, LAS (CoNLL 2018): 82.0 with the most blocks (k = 2); 80.0 with the fewest blocks (k = 0)."
    ]


def test_classes_of_words_that_moved_most_and_least():
    table = [
        Row("dep", "local", "trees", layer, f"local_rsa_{kind}={label}", value, value - 0.1, value + 0.1, n, 1)
        for kind, label, value, n in (
            ("upos", "NOUN", 0.6, 99), ("upos", "VERB", 0.4, 50), ("upos", "X", 0.1, 3), ("relation", "root", 0.2, 30),
        )
        for layer in range(2)
    ]  # fmt: skip
    assert sentences(table, {})["Which words moved"] == [
        "dep, by upos, layer 1 on trees: local RSA is lowest for VERB 0.400 [0.300, 0.500] and highest for NOUN 0.600 "
        "[0.500, 0.700]."
    ]


def test_cost_is_by_kind_of_work():
    record = {"seconds": {"models/dep": 90.0, "models/mnli": 60, "rsa/a": 20.4}, "disk": 296e6, "memory": 1.44e9}
    assert cost(record) == (
        "2.8 min of work (fine-tuning 2.5 min, comparison 20 s), 296 MB on disk, at most 1.4 GB of memory."
    )
    assert cost({"seconds": {"freeze/k0": 7200}}) == "2.0 h of work." and cost({}) == ""


def test_scores(rows, config):
    found = sentences(rows, config)["How well the tasks were learnt"]
    assert found == [
        "dep: LAS 90.0 [88.0, 92.0] on its dev text.",
        "mnli: accuracy 0.700 [0.650, 0.750] on its dev text.",
    ]
    other = Row("dep", "finetune", "dep_test", None, "las_conll18", 91.0)
    assert sentences([other, *rows], config)["How well the tasks were learnt"][0] == (
        "dep: LAS 90.0 [88.0, 92.0] on its dev text; LAS 91.0 on dep_test."
    )


def test_a_partial_study_reports_only_what_it_has(rows, config):
    assert sentences([row for row in rows if row.task == "finetune"], config).keys() == {
        "How well the tasks were learnt"
    }
    assert headline([], context(config, [])) == []


def test_rows_without_intervals(rows, config):
    bare = [dataclasses.replace(row, low=None, high=None) for row in rows]
    found = sentences(bare, config)
    assert "on plain is 0.400 (1 = unchanged)" in found["What changed"][0]
    assert "The difference is -0.150." in found["Own text against other text"][0]
    assert "no interval" in found["What structural probes find"][0]


def test_an_unchanged_encoder_is_reported_as_unchanged(config):
    table = [
        Row("dep", "rsa", data, layer, "rsa_cosine_pearson", 1 - 1e-6 * layer)
        for data in ("dep", "plain")
        for layer in (0, 1)
    ]
    found = sentences(table, config)
    assert found["What changed"] == [
        "dep: no layer changed. Similarity to the base encoder is 1.000 at every layer on plain."
    ]
    assert found["Own text against other text"] == [
        "dep: at layer 1 similarity is the same on its own text and on plain (1.000)."
    ]

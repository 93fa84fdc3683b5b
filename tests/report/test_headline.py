"""Every sentence of the findings is checked against numbers that are known by construction."""

from __future__ import annotations

from bertft.report.headline import headline
from bertft.report.series import context


def sentences(rows, config):
    return dict(headline(rows, context(config, rows)))


def test_what_changed_names_the_layer_its_value_and_where_half_of_the_change_lies(rows, config):
    changed = sentences(rows, config)["What changed"]
    assert changed[0] == (
        "dep: layer 3 changed most, its similarity to the base encoder is 0.400 [0.390, 0.410] on plain "
        "(1 = unchanged); half of that change is reached at layer 2 of 3."
    )
    assert "mnli: layer 3 changed most" in changed[1] and "reached at layer 3 of 3" in changed[1]
    assert changed[2] == "At the top layer, from most to least changed: dep 0.400, mnli 0.600."


def test_overlapping_intervals_are_said(rows, config):
    import dataclasses

    wide = [dataclasses.replace(r, low=r.value - 0.5, high=r.value + 0.5) if r.task == "rsa" else r for r in rows]
    found = sentences(wide, config)
    assert found["What changed"][-1].endswith("the intervals of dep and mnli overlap.")
    assert "the intervals overlap" in found["Own text against other text"][0]


def test_own_text_against_text_of_no_task(rows, config):
    own = sentences(rows, config)["Own text against other text"]
    assert own[0] == (
        "dep: at layer 3 similarity is lower on its own text (0.250 [0.240, 0.260]) than on plain "
        "(0.400 [0.390, 0.410]): the intervals are apart; it is lower on its own text at 3 of 4 layers."
    )
    assert "at 2 of 4 layers" in own[1]


def test_which_of_two_changed_more():
    from bertft.results import Row

    made = [
        Row("a - b", "difference", "plain", layer, measure, value, value - 0.1, value + 0.1, 50, 0)
        for measure in ("rsa_cosine_pearson", "cka_debiased")
        for layer, value in enumerate((0.05, -0.2, 0.3, 0.4))
    ]
    assert sentences(made, {})["Which of two changed more"] == [
        "a and b, similarity of a less that of b on plain: 0.400 [0.300, 0.500] at layer 3. Of 4 layers a is clearly "
        "nearer to the base encoder at 2, b at 1 (paired over the same texts)."
    ]
    assert context({}, made).models == ()  # the difference is no encoder


def test_probes_compare_best_layers_and_name_the_control(rows, config):
    found = sentences(rows, config)["What the probes still find"]
    assert found[0] == (
        "DSpr at the best layer: base 0.800 [0.780, 0.820] (layer 2), dep +0.050 (layer 2, intervals apart), "
        "mnli -0.010 (layer 2, intervals overlap), a random encoder 0.500 [0.480, 0.520]."
    )
    assert len(found) == 4


def test_scores(rows, config):
    found = sentences(rows, config)["How well the tasks were learnt"]
    assert found == [
        "dep: LAS 90.0 [88.0, 92.0] on its dev text.",
        "mnli: accuracy 0.700 [0.650, 0.750] on its dev text.",
    ]


def test_a_partial_study_says_only_what_it_has(rows, config):
    assert sentences([row for row in rows if row.task == "finetune"], config).keys() == {
        "How well the tasks were learnt"
    }
    assert headline([], context(config, [])) == []


def test_rows_without_intervals(rows, config):
    import dataclasses

    bare = [dataclasses.replace(row, low=None, high=None) for row in rows]
    found = sentences(bare, config)
    assert "0.400 on plain" in found["What changed"][0]
    assert "no intervals" in found["Own text against other text"][0]
    assert "no interval" in found["What the probes still find"][0]


def test_an_encoder_that_did_not_change_is_said_not_to_have(config):
    from bertft.results import Row

    table = [
        Row("dep", "rsa", data, layer, "rsa_cosine_pearson", 1 - 1e-6 * layer)
        for data in ("dep", "plain")
        for layer in (0, 1)
    ]
    found = sentences(table, config)
    assert found["What changed"] == [
        "dep: no layer changed: similarity to the base encoder is 1.000 throughout on plain."
    ]
    assert found["Own text against other text"] == [
        "dep: at layer 1 similarity is the same on its own text and on plain (1.000)."
    ]

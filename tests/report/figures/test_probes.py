"""Figures of probes.

Controls beside scores, no differences, the highest rank of a sweep.
"""

from __future__ import annotations

from bertft.report.figures.catalogue import figures
from bertft.report.lines import context
from bertft.runs.rows import Row


def rows(task: str, measures: list[str]) -> list[Row]:
    return [
        Row(model, task, "text", layer, measure, 0.5, 0.4, 0.6, 9, 1)
        for model in ("base", "random")
        for measure in measures
        for layer in range(1, 4)
    ]


def drawn(table: list[Row], name: str):
    (figure,) = [f for f in figures(table, context({}, table)) if f.name == name]
    return figure


def test_structural_controls_share_the_panel_of_their_measure():
    measures = ["uuas", "control_uuas", "uuas_selectivity", "uuas_difference", "uuas_difference_p", "dspr"]
    figure = drawn(rows("structural", measures), "probes_by_layer")
    assert [panel.title for panel in figure.panels] == ["Tree distances", "Tree edges"]
    assert [curve.label for curve in figure.panels[1].curves] == ["base", "random", "base, control", "random, control"]
    assert [curve.dash for curve in figure.panels[1].curves] == ["solid", "dash", "dot", "dot"]
    assert "control trees" in figure.caption


def test_the_highest_rank_of_a_sweep_is_drawn():
    figure = drawn(rows("structural", ["uuas_rank8", "uuas_rank32", "uuas_selectivity_rank32"]), "probes_by_layer")
    assert {curve.line.measure for panel in figure.panels for curve in panel.curves} == {"uuas_rank32"}
    assert [panel.title for panel in figure.panels] == ["Tree edges"] and "table also has rank 8" in figure.caption


def test_edge_probes_alone_and_mixed():
    measures = ["micro_f1", "control_micro_f1", "mix_micro_f1", "mix_control_micro_f1", "selectivity", "cat_micro_f1"]
    figure = drawn(rows("edge", measures), "edge_by_layer")
    assert [panel.title for panel in figure.panels] == ["text: one layer", "text: mix of all layers up to it"]
    assert [len(panel.curves) for panel in figure.panels] == [4, 4] and "control labels" in figure.caption


def test_scores_by_rank_are_of_the_best_layer_at_the_highest_rank():
    measures = ["uuas_rank2", "uuas_rank8", "control_uuas_rank2", "control_uuas_rank8", "uuas_selectivity_rank8"]
    table = [
        Row("base", "structural", "text", layer, measure, round(layer / 10 + place / 100, 2), 0.0, 1.0, 9, 1)
        for place, measure in enumerate([*measures, "uuas_orthogonal", "uuas_rbf", "dspr_rank2"])
        for layer in range(3)
    ]
    figure = drawn(table, "probes_by_rank")
    assert [panel.title for panel in figure.panels] == ["Tree edges"]  # dspr has only one rank
    score, control = figure.panels[0].curves
    assert (score.label, score.line.layers, score.line.values) == ("base, layer 2", (2, 8), (0.2, 0.21))
    assert (control.label, control.dash, control.line.values) == ("base, control", "dot", (0.22, 0.23))
    assert figure.to_csv().splitlines()[:2] == [
        "panel,curve,model,data,measure,rank,value,low,high,n",
        'Tree edges,"base, layer 2",base,text,uuas,2,0.2,0.0,1.0,9',
    ]
    plain = rows("structural", ["uuas"])
    assert "probes_by_rank" not in [f.name for f in figures(plain, context({}, plain))]

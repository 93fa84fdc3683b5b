"""Table 1: cells against the rows they come from."""

from __future__ import annotations

from bertft.report.page.edge_table import edge_table
from bertft.runs.rows import Row


def row(model: str, measure: str, layer: int, value: float, data: str = "coref") -> Row:
    ends = () if "control" in measure else (value - 0.01, value + 0.01)
    return Row(model, "edge", data, layer, measure, value, *ends, n=9)


def test_every_cell_has_its_score_control_and_difference_to_the_base():
    rows = []
    for model, best in (("base", 1), ("dep", 2)):
        for layer in range(3):
            gain = 0.1 if layer == best else 0.0
            rows += [row(model, "micro_f1", layer, 0.5 + gain), row(model, "control_micro_f1", layer, 0.3)]
            rows += [row(model, "selectivity", layer, 0.2 + gain), row(model, "mix_micro_f1", layer, 0.4 + layer / 100)]
            rows += [row(model, "class_1_f1", layer, 0.7 - gain)]
        rows += [row(model, "cat_micro_f1", 2, 0.55), row(model, "mix_micro_f1", 0, 0.1, "pos")]
    rows += [row("dep", "micro_f1_difference", layer, 0.1 - 0.15 * layer) for layer in range(3)]
    rows += [row("dep", "cat_micro_f1_difference", 2, 0.05)]
    lines = edge_table(rows, ["base", "dep", "random"]).splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:6]]
    assert [cells[:2] for cells in table] == [
        ["coref", "base"], ["coref", "dep"], ["coref, class 1", "base"], ["coref, class 1", "dep"],
    ]  # fmt: skip
    assert table[0][4] == "1: 0.600 [0.590, 0.610]<br>control 0.300<br>selectivity 0.300 [0.290, 0.310]"
    assert table[1][4].startswith("2: 0.600") and table[1][4].endswith("to the base -0.200 [-0.210, -0.190]")
    assert table[1][2].endswith("<br>to the base +0.100 [0.090, 0.110]")
    assert table[1][3] == "0.550 [0.540, 0.560]<br>to the base +0.050 [0.040, 0.060]"
    assert table[0][5] == "0.420 [0.410, 0.430]"
    assert table[2][4] == "0: 0.700 [0.690, 0.710]" and table[2][3] == ""
    assert "Class 1" in lines[-1] and "Class 1" not in edge_table(rows[:2], ["base"])

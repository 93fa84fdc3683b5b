"""Numbers of experiments/README.md beside the tables that they come from."""

from __future__ import annotations

import re
from pathlib import Path

import experiments
from bertft.runs.rows import read_results

HERE = Path(experiments.__path__[0])
RESULTS = HERE / "results" / "minilm"


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def section(start: str) -> str:
    return (HERE / "README.md").read_text(encoding="utf8").partition(start)[2].partition("\n**")[0]


def test_weights_of_lora_are_those_of_the_table():
    text = section("**Adapters in the weights**")
    head, _, *blocks = cells((RESULTS / "lora_weights.md").read_text(encoding="utf8"))
    columns = {name: [block[place] for block in blocks[1:]] for place, name in enumerate(head)}
    (first, _, *shown) = cells(text)
    assert first[1:] == columns["block"] and len(shown) == 5
    for label, *values in shown:
        table = columns[label.removesuffix(" to each other")]
        assert all(found in (whole, whole.partition(" ")[0]) for found, whole in zip(values, table, strict=True)), label
    assert {block[head.index(f"intruders, {model}")] for block in blocks for model in ("full", "LoRA")} == {"0"}


def test_scores_of_lora_and_of_full_fine_tuning_are_those_of_the_tables():
    lora = [row.value for row in read_results(RESULTS / "lora_weights.csv") if row.measure == "las_conll18"]
    full = [
        row.value
        for row in read_results(RESULTS / "models.csv")
        if (row.model, row.data, row.measure, row.seed) == ("dep", "dep", "las_conll18", 1337)
    ]
    shown = re.findall(r"LAS ([\d.]+) and ([\d.]+)\)", section("**Adapters in the weights**"))
    assert shown == [(f"{lora[0]:.1f}", f"{full[0]:.1f}")]


def test_z_and_similarities_are_those_of_the_tables():
    text, path = section("**Beyond the size of the change**"), RESULTS / "beyond_size"
    rows = {(r.model, r.task, r.layer, r.measure): r.value for r in read_results(path.with_suffix(".csv"))}
    ((_, *layers), _, *shown) = cells(text)
    for (label, *values), model in zip(shown[:2], ("dep", "noise of dep"), strict=True):
        found = [rows[model, "rsa", int(layer), "rsa_cosine_pearson"] for layer in layers]
        assert values == [f"{value:.3f}" for value in found], label
    (_, _, (_, *z)) = cells(path.with_suffix(".md").read_text(encoding="utf8"))
    assert shown[2] == ["z", *z]
    nulls = [rows["dep", "null", int(layer), "rsa_cosine_pearson_null"] for layer in layers]
    assert f"RSA of {min(nulls):.2f} to {max(nulls):.2f}:" in text

"""The change of weights and vectors as analyses of a study."""

from __future__ import annotations

import dataclasses
import json

import pytest
from small_study import changed, write

from bertft.cli.main import run
from bertft.data.sources import load
from bertft.models.encoder import Encoder
from bertft.models.weight_change import weight_changes
from bertft.models.weight_distance import weight_distance
from bertft.runs.progress import SILENT
from bertft.runs.rows import read_results
from bertft.similarity.causes import block_causes, rows_of_causes
from bertft.similarity.directions import directions_of_change, rows_of_directions
from bertft.similarity.paired_stimuli import Draw
from bertft.study.analyses import ANALYSES
from bertft.study.inputs import Inputs
from bertft.study.reader import read_study
from bertft.study.run import run_study, study_stages


@pytest.fixture
def config(tiny_model, tmp_path):
    tree = changed(model=str(tiny_model), rsa=None, stimuli={}, weights=True, spectra=True, directions=2, causes=40)
    del tree["probes"], tree["tasks"]["squad"], tree["variants"]
    return read_study(write(tmp_path / "study.yaml", tree))


def test_study_that_asks_for_weights_has_rows_a_figure_and_a_page(config, tmp_path, capsys):
    out = tmp_path / "run"
    page = run_study(config, out).read_text(encoding="utf8")
    rows = [row for row in read_results(out / "results.csv") if row.measure == "relative_weight_distance"]
    base = Encoder.from_pretrained(config.model).model
    assert {(row.model, row.layer): row.value for row in rows} == {
        (name, layer): value
        for name in ("dep", "frozen")
        for layer, value in enumerate(weight_distance(base, Encoder.from_pretrained(str(out / "models" / name)).model))
    }
    assert all(row.value == 0 for row in rows if row.model == "frozen") and rows[-1].seed == 3
    assert (out / "figures" / "weight_distance.png").stat().st_size > 10_000
    assert "How far the weights of each block moved" in page
    check_changes(config, out, page)
    figure = (out / "figures" / "weight_distance.csv").read_bytes()
    (out / "figures" / "weight_distance.csv").unlink()
    assert run(["report", str(out), "--quiet"]) == 0
    assert (out / "figures" / "weight_distance.csv").read_bytes() == figure
    capsys.readouterr()
    assert run(["study", str(out), "--out", str(out), "--dry-run", "--json", "--quiet"]) == 0
    assert [stage["done"] for stage in json.loads(capsys.readouterr().out)["stages"]] == [True] * 6


def test_study_without_weights_has_neither_the_setting_nor_the_stage(config, tmp_path):
    plain = dataclasses.replace(config, weights=False, spectra=False, directions=0, causes=0)
    for setting in ("weights", "spectra", "directions", "causes"):
        assert setting in config.to_yaml() and setting not in plain.to_yaml()
    stages = [[stage.name for stage in study_stages(Inputs(c, tmp_path, SILENT))] for c in (config, plain)]
    models = ["models/dep", "models/frozen"]
    assert stages == [
        [*models, "weights/blocks", "weights/spectra", "directions/dep", "causes/dep"],
        models,
    ]


def check_changes(config, out, page):
    """Check the rows, files and figures of spectra, directions and causes."""
    found = read_results(out / "results.csv")
    base = Encoder.from_pretrained(config.model)
    tuned = {name: Encoder.from_pretrained(str(out / "models" / name)) for name in ("dep", "frozen")}
    texts = load("dep", config.tasks["dep"].dev, split="dev")
    draw = Draw(5000, "token", config.seed, "stream")
    directions = rows_of_directions(directions_of_change(base, tuned, texts, k=2, draw=draw), "dep", config.seed)
    causes = rows_of_causes(
        block_causes(base, tuned, texts, draw=dataclasses.replace(draw, tokens=40)), "dep", config.seed
    )
    assert [row for row in found if row.task == "directions"] == directions and directions
    assert [row for row in found if row.task == "causes"] == causes and causes
    assert not [row for row in directions if row.model == "frozen"]  # an unchanged encoder has no direction
    spectra = {
        row.measure: row.value for row in found if (row.model, row.layer) == ("dep", 2) and row.task == "weights"
    }
    changes = [c for c in weight_changes(base.model, tuned["dep"].model) if c.layer == 2]
    assert spectra["weight_change_rank"] == pytest.approx(sum(c.rank for c in changes) / len(changes))
    for file in ("matrices.csv", "directions.csv", "direction_tokens.csv"):
        assert len((out / file).read_text(encoding="utf8").splitlines()) > 20
    for title in ("How many directions the change has", "Which block changed the top layer", "What kind of change"):
        assert title in page


def test_every_analysis_has_a_name_and_an_order_of_its_own():
    names, orders = [analysis.name for analysis in ANALYSES], [analysis.order for analysis in ANALYSES]
    assert len(set(names)) == len(names) == 9 and orders == sorted(set(orders))

"""The distance of weights as an analysis of a study."""

from __future__ import annotations

import dataclasses
import json

import pytest
from small_study import changed, write

from bertft.cli.main import run
from bertft.models.encoder import Encoder
from bertft.models.weight_distance import weight_distance
from bertft.runs.progress import SILENT
from bertft.runs.rows import read_results
from bertft.study.analyses import ANALYSES
from bertft.study.inputs import Inputs
from bertft.study.reader import read_study
from bertft.study.run import run_study, study_stages


@pytest.fixture
def config(tiny_model, tmp_path):
    tree = changed(model=str(tiny_model), rsa=None, stimuli={}, weights=True)
    del tree["probes"], tree["tasks"]["squad"], tree["variants"]
    return read_study(write(tmp_path / "study.yaml", tree))


def test_study_that_asks_for_weights_has_rows_a_figure_and_a_page(config, tmp_path, capsys):
    out = tmp_path / "run"
    page = run_study(config, out).read_text(encoding="utf8")
    rows = [row for row in read_results(out / "results.csv") if row.task == "weights"]
    base = Encoder.from_pretrained(config.model).model
    assert {(row.model, row.layer): row.value for row in rows} == {
        (name, layer): value
        for name in ("dep", "frozen")
        for layer, value in enumerate(weight_distance(base, Encoder.from_pretrained(str(out / "models" / name)).model))
    }
    assert all(row.value == 0 for row in rows if row.model == "frozen") and rows[-1].seed == 3
    assert (out / "figures" / "weight_distance.png").stat().st_size > 10_000
    assert "How far the weights of each block moved" in page
    figure = (out / "figures" / "weight_distance.csv").read_bytes()
    (out / "figures" / "weight_distance.csv").unlink()
    assert run(["report", str(out), "--quiet"]) == 0
    assert (out / "figures" / "weight_distance.csv").read_bytes() == figure
    capsys.readouterr()
    assert run(["study", str(out), "--out", str(out), "--dry-run", "--json", "--quiet"]) == 0
    assert [stage["done"] for stage in json.loads(capsys.readouterr().out)["stages"]] == [True] * 3


def test_study_without_weights_has_neither_the_setting_nor_the_stage(config, tmp_path):
    plain = dataclasses.replace(config, weights=False)
    assert "weights" in config.to_yaml() and "weights" not in plain.to_yaml()
    stages = [[stage.name for stage in study_stages(Inputs(c, tmp_path, SILENT))] for c in (config, plain)]
    assert stages == [["models/dep", "models/frozen", "weights/blocks"], ["models/dep", "models/frozen"]]


def test_every_analysis_has_a_name_and_an_order_of_its_own():
    names, orders = [analysis.name for analysis in ANALYSES], [analysis.order for analysis in ANALYSES]
    assert len(set(names)) == len(names) == 7 and orders == sorted(set(orders))

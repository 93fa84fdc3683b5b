"""Edge probes in a study: YAML, refusals and stage."""

from __future__ import annotations

import pytest
import yaml

from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.probes.edge import driver as edge
from bertft.runs.progress import SILENT
from bertft.runs.rows import read_results
from bertft.study.inputs import Inputs
from bertft.study.reader import read_study
from bertft.study.run import check_study, study_stages

SYNTHETIC = {"train": "builtin:synthetic?size=12", "dev": "builtin:synthetic?split=dev&size=8"}
SHORT = {"steps": 2, "interval": 1, "batch_size": 8, "learning_rate": 1e-3, "random": True}


def study(folder, model="builtin:minilm", **edges):
    tree = {"name": "s", "model": str(model), "tasks": {"dep": dict(SYNTHETIC)}, "rsa": None, "edge": edges}
    (folder / "s.yaml").write_text(yaml.safe_dump(tree), encoding="utf8")
    return read_study(folder / "s.yaml")


def test_tasks_are_read_resolved_and_written_back(tmp_path):
    (tmp_path / "test.jsonl").write_text("", encoding="utf8")
    config = study(tmp_path, roles={**SYNTHETIC, "test": "test.jsonl", "code_length": True}, short=SYNTHETIC)
    assert config.edge["roles"].test == str(tmp_path / "test.jsonl") and config.edge["short"].test is None
    assert config.edge["short"].steps == 10_000 and config.sources[-1] == config.edge["roles"].test
    (tmp_path / "copy.yaml").write_text(config.to_yaml(), encoding="utf8")
    assert read_study(tmp_path / "copy.yaml") == config
    assert "edge" not in study(tmp_path).to_yaml()  # so that older run folders resume


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        ({"train": "builtin:synthetic"}, "edge.roles.dev: missing"),
        ({**SYNTHETIC, "test": "gone.jsonl"}, "edge.roles.test: no such file"),
        ({**SYNTHETIC, "steps": 0}, "edge.roles.steps: expected a number above 0"),
        ({**SYNTHETIC, "epochs": 3}, "edge.roles.epochs: unknown key"),
        ({**SYNTHETIC, "mixes": "lowest"}, "edge.roles.mixes: expected all or top, found 'lowest'"),
        ({**SYNTHETIC, "window": "cut"}, "edge.roles.window: expected refuse or split, found 'cut'"),
    ],
)
def test_bad_settings_are_refused(tmp_path, entry, wanted):
    with pytest.raises(BertftError, match=wanted):
        study(tmp_path, roles=entry)


def test_unprobeable_data_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "one.jsonl").write_text('{"text": "a", "targets": [{"span1": [0, 1], "label": "x"}]}\n' * 2)
    inputs = Inputs(study(tmp_path, roles={**SYNTHETIC, "dev": "one.jsonl"}), tmp_path / "run", SILENT)
    with pytest.raises(BertftError, match=r"the dev data has targets of 1 span"):
        check_study(inputs)
    assert not (tmp_path / "run").exists()


def test_task_is_one_stage_with_every_encoder(tmp_path, tiny_model, monkeypatch):
    config = study(tmp_path, tiny_model, roles={**SYNTHETIC, **SHORT})
    inputs = Inputs(config, tmp_path / "run", SILENT)
    encoder = Encoder.from_pretrained(str(tiny_model))
    inputs._encoders = {"base": encoder, "dep": encoder}  # in place of fine-tuning
    (stage,) = [s for s in study_stages(inputs) if s.name == "edge/roles"]
    rows = stage.work()
    assert {r.model for r in rows} == {"base", "dep", "random"} and {r.data for r in rows} == {"roles"}
    assert {"micro_f1", "mix_micro_f1", "selectivity", "micro_f1_difference"} <= {r.measure for r in rows}
    assert all(r.value == 0 for r in rows if r.model == "dep" and r.measure == "micro_f1_difference")
    folder = tmp_path / "run" / "edge"
    assert read_results(folder / "roles.labels.csv")
    assert sorted(p.name for p in folder.iterdir()) == ["roles", "roles.labels.csv", "roles.notes.txt"]
    assert "a little too good" in (folder / "roles.notes.txt").read_text(encoding="utf8")

    def never(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(edge, "train_heads", never)
    assert stage.work() == rows

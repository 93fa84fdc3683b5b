"""Sweeps, LoRA and snapshots.

Freezing, truncation, resuming and the figure of a sweep.
"""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from training_runs import same, weights

from bertft.cli.main import run
from bertft.errors import BertftError
from bertft.models.blocks import blocks
from bertft.models.finetuning.config import FinetuneConfig, snapshot_folder
from bertft.models.finetuning.run import finetune
from bertft.models.loading import load_pretrained
from bertft.models.weight_distance import weight_distance
from bertft.runs.rows import read_results
from bertft.study.analyses.ablation import depths, sweep, sweep_stages

SOURCES = "--train builtin:synthetic?split=train&size=16&seed=1 --dev builtin:synthetic?split=dev&size=8&seed=1"


@pytest.fixture
def config(tiny_model, tmp_path) -> FinetuneConfig:
    return FinetuneConfig(
        "mnli",
        str(tiny_model),
        "builtin:synthetic?split=train&size=16&seed=1",
        "builtin:synthetic?split=dev&size=8&seed=1",
        tmp_path / "out",
        epochs=1,
        learning_rate=1e-3,
        batch_size=8,
        max_length=128,
    )


def test_freezing_sweep_by_command_resumes_and_draws(tiny_model, tmp_path, capsys):
    out = tmp_path / "run"
    command = [
        "ablate", "freeze", "--task", "mnli", "--model", str(tiny_model), *SOURCES.split(), "--epochs", "1",
        "--batch-size", "8", "-k", "-1", "-k", "0", "-k", "2", "--out", str(out), "--quiet",
    ]  # fmt: skip
    assert run(command) == 0 and "The page is at" in capsys.readouterr().out
    rows = [row for row in read_results(out / "results.csv") if row.measure == "accuracy"]
    assert [(row.model, row.task, row.layer, row.n) for row in rows] == [("mnli", "freeze", k, 8) for k in (-1, 0, 2)]
    assert all(row.low <= row.value <= row.high for row in rows)
    base = load_pretrained(str(tiny_model))[0].state_dict()
    for k in (0, 2):
        tuned = load_pretrained(str(out / "freeze" / f"k{k}"))[0].state_dict()
        frozen = ("embeddings.", *(f"encoder.layer.{i}." for i in range(k)))
        for name in base:
            if name.startswith(frozen):
                assert torch.equal(tuned[name], base[name])
        assert any(not torch.equal(tuned[name], base[name]) for name in base)
    assert not (out / "prefix").exists()
    figure = (out / "figures" / "freeze_by_k.csv").read_text(encoding="utf8").splitlines()
    assert len(figure) == 4 and (out / "figures" / "freeze_by_k.png").stat().st_size > 10_000
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("freeze/*/bertft.json")}
    (out / "freeze" / "k2.done.json").unlink()  # as after a kill
    before = (out / "results.csv").read_bytes()
    assert run(command) == 0
    assert (out / "results.csv").read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert run([*command, "--seed", "3"]) == 2 and "another study" in capsys.readouterr().err


def test_sweep_from_python_writes_the_commands_run_folder(config, tmp_path, capsys):
    out = tmp_path / "run"
    rows = sweep("truncate", dataclasses.replace(config, out=out), depths_wanted=[0])
    assert read_results(out / "results.csv") == rows and (out / "report.html").exists()
    stamp = (out / "truncate" / "k0" / "bertft.json").stat().st_mtime_ns
    settings = ["--epochs", "1", "--learning-rate", "1e-3", "--batch-size", "8", "--config", str(tmp_path / "c.yaml")]
    (tmp_path / "c.yaml").write_text("max_length: 128", encoding="utf8")
    command = ["ablate", "truncate", "--task", "mnli", "--model", config.model, *SOURCES.split(), *settings]
    assert run([*command, "-k", "0", "--out", str(out), "--quiet"]) == 0  # resumes it
    assert (out / "truncate" / "k0" / "bertft.json").stat().st_mtime_ns == stamp
    with pytest.raises(BertftError, match="task: expected one of"):
        sweep("freeze", dataclasses.replace(config, task="none", out=tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_truncation_sweep_keeps_ordinary_smaller_models(config, tmp_path):
    from transformers import AutoModel

    assert depths("freeze", config.model) == [-1, 0, 1, 2, 3] and depths("truncate", config.model) == [0, 1, 2, 3]
    stages = sweep_stages("truncate", config, tmp_path, depths_wanted=[0, 2])
    base = load_pretrained(config.model)[0]
    for stage, k in zip(stages, (0, 2), strict=True):
        rows = stage.work()
        assert {row.layer for row in rows} == {k} and {row.task for row in rows} == {"truncate"}
        model = AutoModel.from_pretrained(tmp_path / stage.name)
        assert len(blocks(model)) == k == model.config.num_hidden_layers
        assert len(weight_distance(base, model)) == k + 1
    count = {row.layer: row.value for stage in stages for row in stage.work() if row.measure == "trained_parameters"}
    assert count[2] - count[0] == sum(p.numel() for block in blocks(base)[:2] for p in block.parameters())


def test_sweep_refuses_bad_settings(config, tmp_path):
    with pytest.raises(BertftError, match=r"k must lie in -1\.\.3, found 4"):
        sweep_stages("freeze", config, tmp_path, depths_wanted=[4])
    with pytest.raises(BertftError, match="expected one of freeze, truncate, found 'melt'"):
        sweep_stages("melt", config, tmp_path)
    with pytest.raises(BertftError, match="lora trains every block, so it excludes freeze, found freeze 1"):
        finetune(dataclasses.replace(config, lora=2, freeze=1))
    with pytest.raises(BertftError, match="lora: expected a number above 0, found 0"):
        finetune(dataclasses.replace(config, lora=0))
    with pytest.raises(BertftError, match=r"snapshots\[0\]: expected a number of at most 100, found 120"):
        finetune(dataclasses.replace(config, snapshots=(120,)))


def test_only_trained_blocks_move(config, tmp_path):
    tuned = finetune(dataclasses.replace(config, freeze=1)).folder
    base, other = load_pretrained(config.model)[0], load_pretrained(str(tuned))[0]
    distances = weight_distance(base, other)
    assert distances[:2] == [0.0, 0.0] and all(value > 0 for value in distances[2:])
    old, new = (torch.cat([p.detach().flatten() for p in blocks(m)[2].parameters()]).double() for m in (base, other))
    assert distances[3] == pytest.approx(float((new - old).norm() / old.norm()))


def test_lora_is_merged_into_an_ordinary_encoder(config):
    import peft  # noqa: F401 - a broken installation fails here

    result = finetune(dataclasses.replace(config, lora=2, learning_rate=1e-2))
    base, tuned = load_pretrained(config.model)[0].state_dict(), load_pretrained(str(result.folder))[0].state_dict()
    assert base.keys() == tuned.keys()
    changed = {name for name in base if not torch.equal(base[name], tuned[name])}
    block = [name for name in changed if name.startswith("encoder.layer.")]
    assert len(block) == 3 * 6 and all(name.endswith("weight") for name in block)
    assert all(name.startswith("pooler.") for name in changed - set(block))
    rank = torch.linalg.matrix_rank(tuned[block[0]].double() - base[block[0]].double(), rtol=1e-3)
    assert rank == 2
    card = json.loads((result.folder / "bertft.json").read_text())
    assert card["trained_parameters"] < sum(value.numel() for value in base.values()) / 5
    with pytest.raises(BertftError, match="other learning_rate, lora"):
        finetune(config)


def test_snapshots_move_further_from_the_base(config, tmp_path):
    config = dataclasses.replace(config, epochs=2, snapshots=(0, 50, 100))
    result = finetune(config)
    plain = finetune(dataclasses.replace(config, snapshots=(), out=tmp_path / "plain"))
    assert same(weights(result.folder), weights(plain.folder))
    moved = [
        sum(weight_distance(load_pretrained(config.model)[0], load_pretrained(str(snapshot_folder(config, p)))[0]))
        for p in (0, 50, 100)
    ]
    assert moved[0] == 0 < moved[1] < moved[2]


def test_unknown_task_writes_nothing(tmp_path, capsys):
    data = ["--train", "builtin:synthetic", "--dev", "builtin:synthetic"]
    out = tmp_path / "out"
    command = ["ablate", "freeze", "--task", "nothing", "--model", "builtin:minilm", *data, "--out", str(out)]
    assert run(command) == 2
    assert "expected one of" in capsys.readouterr().err and not out.exists()

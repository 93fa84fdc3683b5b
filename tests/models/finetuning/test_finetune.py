"""Fine-tuning.

Folders, resuming, freezing, refusals and several processes.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import transformers
from training_runs import KillAt, Killed, same, weights

from bertft.data import sources
from bertft.data.examples import Answer, Pair, Question, Sentence
from bertft.data.readers.conllu import write_conllu
from bertft.data.readers.spans import SpanTarget, SpanText
from bertft.errors import BertftError
from bertft.models.blocks import blocks
from bertft.models.finetuning.assembly import build_model, make_optimizer
from bertft.models.finetuning.config import FinetuneConfig
from bertft.models.finetuning.evaluation import evaluate
from bertft.models.finetuning.identity import examples_fingerprint
from bertft.models.finetuning.run import finetune
from bertft.models.finetuning.trainer import LengthGrouped
from bertft.models.finetuning.training import reporters
from bertft.models.loading import load_pretrained
from bertft.models.tasks import get_task

MEASURES = {
    "dep": {"las_conll18", "uas_conll18", "las_nopunct", "uas_nopunct"},
    "mnli": {"accuracy"},
    "squad": {"exact_match", "f1"},
}


@pytest.fixture
def config(tiny_model: Path, tmp_path: Path) -> FinetuneConfig:
    return FinetuneConfig(
        task="dep",
        model=str(tiny_model),
        train="builtin:synthetic?split=train&size=40&seed=1",
        dev="builtin:synthetic?split=dev&size=12&seed=1",
        out=tmp_path / "out",
        epochs=2,
        learning_rate=1e-3,
        batch_size=8,
        max_length=128,
        stride=32,
    )


@pytest.mark.parametrize("task", ["dep", "mnli", "squad"])
def test_finished_folder_holds_a_loadable_encoder_and_its_scores(config, task, tmp_path, capfd):
    config = dataclasses.replace(config, task=task, epochs=1)
    result = finetune(config)
    assert capfd.readouterr() == ("", "")  # the library does not print
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # no other file is left
    assert set(result.metrics) == MEASURES[task] and result.seconds > 0
    for row in result.rows:
        assert (row.model, row.task, row.data, row.layer, row.n, row.seed) == (
            task,
            "finetune",
            "builtin:synthetic?split=dev&size=12&seed=1",
            None,
            12,
            1337,
        )
        assert row.low <= row.value <= row.high

    from transformers import AutoModel, AutoTokenizer

    model, info = AutoModel.from_pretrained(result.folder, output_loading_info=True)
    assert not any(info.values())
    assert type(AutoTokenizer.from_pretrained(result.folder)).__name__.startswith("Bert")
    assert not same(model.state_dict(), load_pretrained(config.model)[0].state_dict())
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in result.folder.iterdir())
    measures, _ = evaluate(result.folder, config.dev)
    assert measures == pytest.approx(result.metrics, rel=1e-9)


def test_training_learns(config):
    config = dataclasses.replace(config, train="builtin:synthetic?size=150", epochs=4, learning_rate=3e-3)
    result = finetune(dataclasses.replace(config, head_learning_rate=5e-3))
    history = json.loads((result.folder / "bertft.json").read_text())["history"]
    scores = [entry["eval_las_conll18"] for entry in history]
    assert len(scores) == 4 and scores[-1] > scores[0]
    assert result.metrics["las_conll18"] == pytest.approx(max(scores))  # the best epoch is kept
    # attaching each word to the one before it takes no training
    sentences = sources.load("dep", config.dev, split="dev")
    chain = sum(head == i for s in sentences for i, head in enumerate(s.heads)) / sum(len(s.heads) for s in sentences)
    assert result.metrics["uas_conll18"] > 100 * chain + 5


def test_weights_depend_only_on_the_seed(config, tmp_path):
    torch.manual_seed(0)
    a = finetune(config)
    torch.manual_seed(99)
    b = finetune(dataclasses.replace(config, out=tmp_path / "again"))
    c = finetune(dataclasses.replace(config, out=tmp_path / "other", seed=2))
    assert same(weights(a.folder), weights(b.folder)) and a.metrics == b.metrics
    assert not same(weights(a.folder), weights(c.folder))


def test_killed_run_resumes_to_the_same_result(config, tmp_path):
    config = dataclasses.replace(config, epochs=3)  # five steps each
    whole = finetune(dataclasses.replace(config, out=tmp_path / "whole"))
    with pytest.raises(Killed):
        finetune(config, progress=KillAt(7))
    work = tmp_path / ".out.training"
    assert not config.out.exists() and (work / "checkpoint-5" / "trainer_state.json").exists()
    (work / "checkpoint-10").mkdir()  # a checkpoint that was being written
    resumed = KillAt(10_000)
    result = finetune(config, progress=resumed)
    assert resumed.steps >= 15  # the first five in one advance
    assert result.metrics == whole.metrics
    assert same(weights(result.folder), weights(whole.folder))
    assert not work.exists()


def test_other_configuration_ignores_the_checkpoints(config, tmp_path):
    with pytest.raises(Killed):
        finetune(config, progress=KillAt(7))
    result = finetune(dataclasses.replace(config, seed=3))
    whole = finetune(dataclasses.replace(config, seed=3, out=tmp_path / "whole"))
    assert same(weights(result.folder), weights(whole.folder))


def test_finished_folder_is_returned_whatever_the_paths_of_its_inputs(config, tmp_path, monkeypatch):
    sentences = sources.load("dep", config.train)
    write_conllu(tmp_path / "train.conllu", sentences)
    first = finetune(dataclasses.replace(config, train=str(tmp_path / "train.conllu"), epochs=1))
    stamp = (first.folder / "bertft.json").stat().st_mtime_ns
    (tmp_path / "elsewhere").mkdir()
    packed = tmp_path / "elsewhere" / "copy.conllu.gz"
    packed.write_bytes(gzip.compress((tmp_path / "train.conllu").read_bytes()))
    shutil.copytree(config.model, tmp_path / "elsewhere" / "model")
    monkeypatch.chdir(tmp_path)
    again = finetune(
        dataclasses.replace(
            config, train="elsewhere/copy.conllu.gz", model="elsewhere/model", out="out", epochs=1, dev_name="ewt"
        )
    )
    assert (tmp_path / "out" / "bertft.json").stat().st_mtime_ns == stamp
    assert again.metrics == first.metrics and again.seconds == first.seconds
    assert {row.data for row in again.rows} == {"ewt"}
    with pytest.raises(
        BertftError, match=r"out: holds another fine-tuned model \(other seed\), expected an empty folder"
    ):
        finetune(dataclasses.replace(config, train="elsewhere/copy.conllu.gz", epochs=1, seed=5))
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "notes.txt").write_text("mine")
    with pytest.raises(BertftError, match=r"busy: expected a folder made by finetune"):
        finetune(dataclasses.replace(config, out=tmp_path / "busy"))


def test_examples_fingerprint_depends_on_content_and_order_only():
    a = sources.load("nli", "builtin:synthetic?size=5&seed=1")
    b = sources.load("nli", "builtin:synthetic?size=5&seed=2")
    assert examples_fingerprint(a) == examples_fingerprint([dataclasses.replace(x, id="other") for x in a])
    assert len({examples_fingerprint(x) for x in (a, b, a[::-1], a[:4])}) == 4


def test_examples_fingerprints_in_existing_folders_still_match():
    """Finished folders hold these digests; with other digests of the same examples all of them would be refused."""
    known = [
        Sentence("1", ("a", "b"), (2, 0), ("det", "root"), ("DET", "NOUN"), ("DT", "NN")),
        Pair("2", "p", "h", "neutral"),
        Question("3", "q", "c d", (Answer("d", 2),)),
    ]
    assert examples_fingerprint(known).startswith("ff9f5689e15508a8")
    text = SpanText("1", ("a", "b"), (SpanTarget((0, 1), None, ("PER",)),))
    other = dataclasses.replace(text, targets=(SpanTarget((0, 1), None, ("LOC",)),))
    found = [examples_fingerprint([x]) for x in (text, dataclasses.replace(text, id="2"), other)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("k", [0, 2, 3])
def test_frozen_parameters_stay_bitwise_the_same(config, k):
    result = finetune(dataclasses.replace(config, freeze=k, epochs=1))
    before = load_pretrained(config.model)[0].state_dict()
    after = load_pretrained(str(result.folder))[0].state_dict()
    for name, value in before.items():
        frozen = name.startswith("embeddings.") or any(name.startswith(f"encoder.layer.{i}.") for i in range(k))
        if frozen:
            assert torch.equal(after[name], value), name
        elif name.startswith("encoder.layer.") and "key.bias" not in name:  # attention ignores the bias of the keys
            assert not torch.equal(after[name], value), name
    optimizer = make_optimizer(
        build_model(
            get_task("mnli"),
            load_pretrained(config.model)[0],
            get_task("mnli").spec([]),
            dataclasses.replace(config, freeze=k),
        ),
        config,
    )
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert len(trained) == sum(len(group["params"]) for group in optimizer.param_groups)
    assert all(p.requires_grad for group in optimizer.param_groups for p in group["params"])


def test_truncated_encoder_is_saved_and_scored(config):
    result = finetune(dataclasses.replace(config, truncate=1, epochs=1))
    assert len(blocks(load_pretrained(str(result.folder))[0])) == 1
    assert evaluate(result.folder, config.dev)[0] == pytest.approx(result.metrics, rel=1e-9)


def test_optimizer_has_two_learning_rates_and_no_decay_on_vectors(config):
    model = build_model(get_task("squad"), load_pretrained(config.model)[0], {}, config)
    groups = make_optimizer(model, config).param_groups
    assert {(g["lr"], g["weight_decay"]) for g in groups} == {(1e-3, 0.01), (1e-3, 0.0)}
    groups = make_optimizer(model, dataclasses.replace(config, head_learning_rate=0.5)).param_groups
    head = {id(p) for p in model.head.parameters()}
    assert all((g["lr"] == 0.5) == (id(p) in head) for g in groups for p in g["params"])
    assert all((g["weight_decay"] > 0) == (p.ndim > 1) for g in groups for p in g["params"])


def test_length_grouped_batches_have_little_padding_in_random_order():
    lengths = [(i * 37) % 101 + 1 for i in range(1003)]
    sampler = LengthGrouped(lengths, 8, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(1003)) and first == list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    padded = sum(8 * max(lengths[i] for i in first[s : s + 8]) for s in range(0, 1000, 8))
    assert padded < 1.05 * sum(lengths)
    means = [sum(lengths[i] for i in first[s : s + 8]) / 8 for s in range(0, 1000, 8)]
    assert means != sorted(means) and means != sorted(means, reverse=True)


def test_limits_on_examples_are_kept(config):
    result = finetune(dataclasses.replace(config, max_train=16, max_dev=6, max_select=2, epochs=1))
    card = json.loads((result.folder / "bertft.json").read_text())
    assert card["features"] == 16 and {row.n for row in result.rows} == {6}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "ner"}, "task: expected one of dep, mnli, pos, squad, found 'ner'"),
        ({"epochs": 0}, "epochs: expected a number above 0, found 0"),
        ({"learning_rate": 0.0}, "learning_rate: expected a number above 0, found 0.0"),
        ({"warmup": 1.0}, "warmup: expected a number below 1, found 1.0"),
        ({"freeze": 9}, r"freeze: k must lie in -1\.\.3, found 9"),
        ({"truncate": 7}, r"truncate: k must lie in 0\.\.3, found 7"),
        ({"max_length": 4096}, "max_length must be at most 128"),
        ({"train": "missing.conllu"}, "missing.conllu: no such file"),
        ({"model": "/nowhere"}, "/nowhere"),
        ({"report_to": "tensorbord"}, r"report_to: expected what is installed \(.*\), found 'tensorbord'"),
        ({"logging_steps": 0}, "logging_steps: expected a number above 0, found 0"),
    ],
)
def test_bad_configuration_is_refused_and_leaves_no_file(config, change, message, tmp_path):
    with pytest.raises(BertftError, match=message):
        finetune(dataclasses.replace(config, **change))
    assert list(tmp_path.iterdir()) == []


class Recording(transformers.TrainerCallback):
    """A reporter that records its logs."""

    logs: ClassVar[list[dict[str, float]]] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append({**logs, "step": state.global_step})


def test_reporters_receive_loss_rate_and_scores_without_changing_the_training(config, tmp_path, monkeypatch):
    from transformers import integrations
    from transformers.integrations import integration_utils

    monkeypatch.setattr(Recording, "logs", [])
    monkeypatch.setattr(integrations, "get_available_reporting_integrations", lambda: ["recording"])
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "recording", Recording)
    plain = finetune(dataclasses.replace(config, out=tmp_path / "plain"))
    assert not Recording.logs
    reported = finetune(dataclasses.replace(config, report_to="recording", logging_steps=2))
    losses = [entry for entry in Recording.logs if "loss" in entry]
    assert [entry["step"] for entry in losses] == [2, 4, 6, 8, 10]
    assert all(entry["loss"] > 0 for entry in losses) and losses[-1]["learning_rate"] < losses[0]["learning_rate"]
    scores = [entry["eval_las_conll18"] for entry in Recording.logs if "eval_las_conll18" in entry]
    assert max(scores) == pytest.approx(reported.metrics["las_conll18"]) and len(scores) == config.epochs
    assert same(weights(reported.folder), weights(plain.folder)) and reported.metrics == plain.metrics
    assert (
        finetune(dataclasses.replace(config, out=reported.folder)).metrics == reported.metrics
    )  # the same configuration
    assert reporters("all") == reporters("recording") == ["recording"] and reporters("none") == []


def test_tensorboard_files_end_beside_the_folder(config, tmp_path):
    pytest.importorskip("tensorboard")
    finetune(dataclasses.replace(config, report_to="tensorboard", epochs=1, logging_steps=1))
    assert list((tmp_path / "out.logs").rglob("events.out.tfevents.*"))


LAUNCH = """
import dataclasses, json, sys
from bertft.models.finetuning.config import FinetuneConfig
from bertft.models.finetuning.run import finetune
print(json.dumps(finetune(FinetuneConfig(**json.loads(sys.argv[1]))).metrics))
"""


@pytest.mark.slow
def test_two_processes_share_the_work(config, tmp_path):
    script = tmp_path / "launch.py"
    script.write_text(LAUNCH)
    settings = dataclasses.asdict(config) | {"out": str(config.out), "batch_size": 4, "epochs": 1}
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(script),
        json.dumps(settings),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    assert first == second == pytest.approx(evaluate(config.out, config.dev)[0], rel=1e-9)

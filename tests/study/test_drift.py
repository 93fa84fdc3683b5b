"""`DriftCallback` under ``transformers.Trainer``."""

from __future__ import annotations

import contextlib

import numpy as np
import peft
import pytest
import torch
from bertft.integrations import DriftCallback
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from bertft.data import synthetic
from bertft.errors import BertftError

TEXTS = [" ".join(sentence.words) for sentence in synthetic.sentences(24, seed=3)]


class Reporter(TrainerCallback):
    """A reporter, as those of W&B and TensorBoard."""

    def __init__(self):
        self.logs = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append((state.global_step, dict(logs)))


def trainer_of(tiny_model, folder, model=None, **settings):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    torch.manual_seed(0)
    model = model or AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=2)
    data = [{**tokenizer(text, truncation=True), "labels": i % 2} for i, text in enumerate(TEXTS)]
    arguments = TrainingArguments(
        str(folder), max_steps=6, per_device_train_batch_size=4, learning_rate=1e-2, logging_steps=2, report_to=[],
        disable_tqdm=True, save_strategy="no", use_cpu=True, dataloader_pin_memory=False,
    )  # fmt: skip
    reporter = Reporter()
    trainer = Trainer(model, arguments, train_dataset=data, processing_class=tokenizer, callbacks=[reporter])
    drift = DriftCallback(trainer, TEXTS, **settings)
    trainer.add_callback(drift)
    return trainer, drift, reporter


def vectors(model, drift) -> list[np.ndarray]:
    with torch.no_grad():
        hidden = model.eval()(**drift.batch, output_hidden_states=True).hidden_states
    return [layer[drift.kept].double().numpy() for layer in hidden]


def similarity(x, y) -> float:
    x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
    upper = np.triu_indices(len(x), 1)
    return float(np.corrcoef((x @ x.T)[upper], (y @ y.T)[upper])[0, 1])


def test_similarities_reach_the_reporters_beside_the_loss(tiny_model, tmp_path, monkeypatch):
    trainer, drift, reporter = trainer_of(tiny_model, tmp_path, every=2, tokens=60)
    monkeypatch.setattr(drift, "_timed", contextlib.nullcontext)  # measurements take no time
    before = vectors(trainer.model, drift)
    trainer.train()
    logged = [(step, logs) for step, logs in reporter.logs if "drift/lowest" in logs]
    assert [step for step, _ in logged] == [2, 4, 6]
    assert [step for step, logs in reporter.logs if "loss" in logs] == [2, 4, 6]
    assert int(drift.kept.sum()) == 60 and "drift/lowest" in trainer.state.log_history[0]
    after = vectors(trainer.model, drift)
    last = logged[-1][1]
    for layer, (x, y) in enumerate(zip(before, after, strict=True)):
        assert last[f"drift/layer_{layer}"] == pytest.approx(similarity(x, y), abs=1e-4)
    assert last["drift/lowest"] == min(value for name, value in last.items() if "layer_" in name) < 0.999


def test_measurements_do_not_change_the_training(tiny_model, tmp_path, monkeypatch):
    weights = []
    monkeypatch.setattr(DriftCallback, "_timed", lambda self: contextlib.nullcontext())
    for every in (1, 10_000):
        trainer, _, _ = trainer_of(tiny_model, tmp_path, every=every)
        trainer.train()
        assert trainer.model.training
        weights.append(torch.cat([weight.detach().flatten() for weight in trainer.model.parameters()]))
    assert torch.equal(*weights)


def test_the_share_of_time_limits_the_measurements(tiny_model, tmp_path, monkeypatch):
    trainer, drift, reporter = trainer_of(tiny_model, tmp_path, every=1, share=0.25)
    now = [0.0]
    monkeypatch.setattr("bertft.study.drift.time.monotonic", lambda: now[0])

    def vectors(model):
        now[0] += 1.0
        return [torch.eye(5)]

    monkeypatch.setattr(drift, "_vectors", vectors)
    monkeypatch.setattr(drift, "similarities", lambda model: [float(len(vectors(model)))])
    drift.on_train_begin(None, trainer.state, trainer.control, trainer.model)
    steps = []
    for step in range(1, 41):
        now[0] += 1.0
        trainer.state.global_step = step
        drift.on_step_end(None, trainer.state, trainer.control, trainer.model)
        if any("drift/lowest" in logs and at == step for at, logs in reporter.logs):
            steps.append(step)
        assert drift.spent <= 0.25 * now[0] + 1
    assert steps[0] == 7 and len(steps) == 12  # one in four seconds, the base included


def test_a_short_training_gets_one_measurement_at_its_end(tiny_model, tmp_path):
    trainer, _, reporter = trainer_of(tiny_model, tmp_path, every=1000)
    trainer.train()
    assert [step for step, logs in reporter.logs if "drift/lowest" in logs] == [6]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # from peft
def test_the_base_of_an_adapter_is_the_model_without_it(tiny_model, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=2)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["value"], task_type="SEQ_CLS"))
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.5)
    trainer, drift, _ = trainer_of(tiny_model, tmp_path, wrapped)
    drift.on_train_begin(None, trainer.state, trainer.control, trainer.model)
    layers = drift.similarities(trainer.model)
    assert layers[0] == pytest.approx(1) and layers[3] < 0.999


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"processing_class": None}, "expected a Trainer with a tokenizer as processing_class"),
        ({"is_fsdp_enabled": True}, "needs all weights in one process"),
    ],
)
def test_a_trainer_that_cannot_be_measured_is_refused(tiny_model, tmp_path, monkeypatch, change, sentence):
    trainer, _, _ = trainer_of(tiny_model, tmp_path)
    for name, value in change.items():
        monkeypatch.setattr(trainer, name, value)
    with pytest.raises(BertftError, match=sentence):
        DriftCallback(trainer)


def test_a_sample_needs_tokens_and_positive_settings(tiny_model, tmp_path):
    trainer, _, _ = trainer_of(tiny_model, tmp_path)
    with pytest.raises(BertftError, match="at least 4 tokens, found 0"):
        DriftCallback(trainer, [""])
    with pytest.raises(BertftError, match=r"expected every >= 1 and 0 < share <= 1, found 0 and 0\.01"):
        DriftCallback(trainer, every=0)

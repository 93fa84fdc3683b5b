"""README.md and bertft.json of a fine-tuned folder."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
import yaml
from huggingface_hub import ModelCard

from bertft.cli.main import run
from bertft.data import sources
from bertft.models.finetuning.card import model_card
from bertft.models.finetuning.config import FinetuneConfig
from bertft.models.finetuning.evaluation import load_finetuned
from bertft.models.finetuning.identity import on_the_hub, published

CARD = {
    "task": "mnli",
    "config": {
        "model": "org/encoder@0123", "train": "train.jsonl.gz", "dev": "builtin:synthetic?split=dev",
        "epochs": 3, "learning_rate": 8e-5, "freeze": -1, "truncate": None, "seed": 7,
    },
    "hub": {"model": {"id": "org/encoder", "revision": "0123"}},
    "scores": {"accuracy": {"value": 0.66580, "low": 0.6381, "high": 0.6944, "n": 1155}},
    "versions": {"bertft": "0.1.0", "torch": "2.13.0"},
}  # fmt: skip


def test_card_states_what_is_known_and_no_licence():
    card = model_card(CARD)
    front = yaml.safe_load(card.split("---\n")[1])
    index = front.pop("model-index")
    assert front == {
        "library_name": "transformers", "pipeline_tag": "feature-extraction", "tags": ["bertft", "mnli"],
        "base_model": "org/encoder",
    }  # fmt: skip
    assert "# org/encoder@0123 fine-tuned on natural language inference\n" in card
    assert "| accuracy | 0.6658 [0.6381, 0.6944] (n = 1,155) |" in card
    assert "on train.jsonl.gz. Scores on builtin:synthetic?split=dev, with 95 % intervals" in card
    assert "epochs 3, learning_rate 8e-05, freeze -1, seed 7." in card and "truncate" not in card
    assert len(index) == 1


def test_hub_reads_scores_from_the_card():
    data = {"id": "org/pairs", "revision": "4567", "config": "easy"}
    card = model_card({**CARD, "hub": {"train": data, "dev": data}})
    read = ModelCard(card).data
    assert read.datasets == ["org/pairs"] and read.base_model is None
    (result,) = read.eval_results
    assert (result.task_type, result.metric_type, result.metric_value) == ("text-classification", "accuracy", 0.6658)
    assert (result.dataset_type, result.dataset_config, result.dataset_revision) == ("org/pairs", "easy", "4567")


def test_card_lists_each_measure_and_quotes_names_unchanged():
    scores = {name: {"value": value, "low": 0.0, "high": 1.0, "n": 12} for name, value in (("em", 0.5), ("f1", 0.25))}
    name = "builtin:synthetic?split=train&size=100000&seed=1 <b>{{ it's }}</b> " + "long " * 30
    card = model_card({**CARD, "task": "squad", "config": {**CARD["config"], "train": name}, "scores": scores})
    table = ["| measure | value |", "|---|---|", "| em | 0.5 [0, 1] (n = 12) |", "| f1 | 0.25 [0, 1] (n = 12) |", ""]
    assert "\n".join(table) in card and f"question answering on {name}." in card
    assert card.startswith("---\n") and card.endswith("`bertft.json`.\n")
    (result,) = yaml.safe_load(card.split("---\n")[1])["model-index"][0]["results"]
    assert [(m["name"], m["type"], m["value"]) for m in result["metrics"]] == [("em", "em", 0.5), ("f1", "f1", 0.25)]
    assert result["dataset"] == {"name": "builtin:synthetic?split=dev", "type": "builtin:synthetic?split=dev"}
    assert result["task"] == {"name": "extractive question answering", "type": "question-answering"}


def test_both_names_of_the_loader_are_one_function():
    """Cards written by earlier versions name `bertft.evaluation.load_finetuned`."""
    import bertft.evaluation

    import bertft

    assert bertft.load_finetuned is bertft.evaluation.load_finetuned is load_finetuned


def test_published_settings_hold_names_instead_of_paths(tmp_path, tiny_model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ud").mkdir()
    (tmp_path / "ud" / "train.conllu").write_text("", encoding="utf8")
    config = FinetuneConfig("dep", str(tiny_model), "ud/train.conllu", "org/ud@v2:en", tmp_path / "out")
    settings = published(dataclasses.replace(config, prefix_cache=tmp_path / "cache"))
    assert (settings["model"], settings["train"], settings["dev"]) == (tiny_model.name, "train.conllu", "org/ud@v2:en")
    assert str(tmp_path) not in json.dumps(settings) and settings["seed"] == 1337
    assert on_the_hub(config) == {"dev": {"id": "org/ud", "revision": "v2", "config": "en"}}
    (tmp_path / "base").symlink_to(tiny_model)  # could be the name of a model on the hub
    assert on_the_hub(dataclasses.replace(config, model="base", dev="ud")) == {}


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "mnli"
    data = ["--train", "builtin:synthetic?size=8", "--dev", "builtin:synthetic?split=dev&size=4", "--max-length", "24"]
    command = ["finetune", "--task", "mnli", "--model", str(tiny_model), *data, "--epochs", "1", "--out", str(out)]
    assert run([*command, "--quiet"]) == 0
    return out


def test_programs_of_the_card_run(folder):
    text = (folder / "README.md").read_text(encoding="utf8")
    programs = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    found = {}
    for program in programs:
        exec(re.sub("FOLDER(_OR_ID)?", str(folder), program), found)
    assert len(programs) == 2
    assert found["encoder"].config.num_hidden_layers == 3 and found["tokenizer"].is_fast
    with pytest.warns(RuntimeWarning, match="longer than 24 pieces"):
        labels = found["model"].predict(sources.load("nli", "builtin:synthetic?split=dev&size=3"))
    assert len(labels) == 3 and set(labels) <= {"entailment", "neutral", "contradiction"}


def test_published_files_hold_no_path_of_this_machine(folder, tiny_model):
    assert json.loads((folder / "bertft.json").read_text(encoding="utf8"))["window"]["max_length"] == 24
    for path in folder.iterdir():
        named = [str(place).encode() in path.read_bytes() for place in (folder.parent, tiny_model.parent)]
        assert any(named) == (path.name == "config.yaml"), path  # which records the command

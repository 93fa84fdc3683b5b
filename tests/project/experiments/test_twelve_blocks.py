"""The settings for encoders of 12 blocks, with a random BERT in the place of all-mpnet-base-v2."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel

import experiments
from bertft.errors import BertftError
from bertft.runs.rows import read_results
from bertft.study.repeat import RepeatedStudy, read_setting

HERE = Path(experiments.__path__[0])
NAMES = ("mpnet", "mpnet_full")
FREEZE, TRUNCATE = (-1, 4, 8, 10, 11, 12), (3, 6, 9, 10, 12)


@pytest.fixture(scope="module")
def twelve(tiny_model, tmp_path_factory) -> Path:
    """Return a folder with a random BERT of 12 blocks x 16."""
    folder = tmp_path_factory.mktemp("twelve")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 128}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(BertConfig(vocab_size=len(tokenizer), num_hidden_layers=12, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def corpora(tmp_path) -> Path:
    """Return a folder with an empty file for every corpus that the settings name; nothing reads them."""
    for name in (
        "ud_english_ewt/train.conllu.gz", "ud_english_ewt/dev.conllu.gz", "ud_english_ewt/test.conllu.gz",
        "mnli/train.jsonl.gz", "mnli/dev_matched.jsonl.gz", "mnli/dev_mismatched.jsonl.gz", "squad/train.json.gz",
        "squad/dev.json.gz", "wikipedia/sentences.txt.gz",
        *(f"edge_probing/{task}/{role}.jsonl.gz" for task in (
            "pos_ewt", "constituents_ewt", "dep_ewt", "ner_ewt", "srl_ewt", "spr_ewt", "coref_gum",
            "relations_semeval2010") for role in ("train", "dev", "test")),
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def stages_of(study: RepeatedStudy) -> set[str]:
    found = [path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_")]
    chosen = [importlib.import_module(f"experiments.{name}").EXPERIMENT for name in found]
    return {stage.name for experiment in chosen for stage in experiment.stages(study)}


@pytest.mark.parametrize("name", NAMES)
def test_every_stage_is_one_of_a_model_with_12_blocks(name, twelve, corpora):
    setting = read_setting(HERE / "settings.yaml", name, data=corpora, model=str(twelve))
    stages = stages_of(RepeatedStudy(setting, corpora / "out"))
    for task in ("dep", "mnli", "squad"):
        assert f"seed1337/models/{task}" in stages
        for kind, depths in (("freeze", FREEZE), ("truncate", TRUNCATE)):
            own = {stage for stage in stages if stage.startswith(f"{kind}/{task}/seed1337/")}
            assert own == {f"{kind}/{task}/seed1337/k{k}" for k in depths}
    assert {f"edge/seed1337/{task}" for task in setting.options["edge"]["tasks"]} <= stages
    assert len(setting.options["edge"]["tasks"]) == 8 and "beyond_size/seed1337" in stages
    assert {"seed1337/directions/wikipedia", "seed1337/causes/wikipedia", "seed1337/weights/spectra"} <= stages


def test_sizes_of_the_run_on_two_cores(twelve, corpora):
    setting = read_setting(HERE / "settings.yaml", "mpnet", data=corpora, model=str(twelve))
    tasks = setting.study.tasks
    assert (tasks["dep"].max_train, tasks["dep"].epochs, tasks["mnli"].epochs) == (4000, 2, 2)
    assert tasks["squad"].max_train == 1800 and setting.study.rsa.tokens == 5000 and setting.seeds == (1337,)
    assert setting.options["edge"]["shared"]["max_train"] == 1000 and set(setting.options["along"]["tasks"]) == {
        "dep",
        "mnli",
    }
    whole = read_setting(HERE / "settings.yaml", "mpnet_full", data=corpora, model=str(twelve))
    assert whole.seeds == (1337, 1338, 1339) and {task.max_train for task in whole.study.tasks.values()} == {None}


def test_a_model_of_fewer_blocks_is_refused_by_its_k(tiny_model, corpora):
    setting = read_setting(HERE / "settings.yaml", "mpnet", data=corpora, model=str(tiny_model))
    with pytest.raises(BertftError, match=r"k must lie in -1\.\.3, found 4"):
        stages_of(RepeatedStudy(setting, corpora / "out"))


def small(setting, **options):
    """Return a setting on synthetic text, without question answering, whose passages do not fit the window."""
    source, tiny = "builtin:synthetic?split={}&size={}&seed=1", {"epochs": 1, "max_train": None, "max_dev": None}
    tasks = {
        name: dataclasses.replace(task, train=source.format("train", 12), dev=source.format("dev", 6), **tiny)
        for name, task in setting.study.tasks.items()
        if name != "squad"
    }
    probes = dataclasses.replace(
        setting.study.probes, train=source.format("train", 12), dev=source.format("dev", 8), rank=4, epochs=1,
        max_train=None, max_dev=None,
    )  # fmt: skip
    text = dataclasses.replace(setting.study.stimuli["wikipedia"], source=source.format("test", 40))
    rsa = dataclasses.replace(setting.study.rsa, tokens=150)
    study = dataclasses.replace(setting.study, tasks=tasks, probes=probes, stimuli={"wikipedia": text}, rsa=rsa)
    return dataclasses.replace(setting, study=study, options={**setting.options, **options})


def run(study: RepeatedStudy, name: str) -> list:
    chosen = importlib.import_module(f"experiments.{name}").EXPERIMENT
    study.check([chosen])
    with study.folder.claim():
        study.run(chosen)
    return read_results(study.out / "results" / f"{chosen.name}.csv")


@pytest.mark.slow
def test_analyses_run_on_12_blocks(twelve, corpora):
    tiny = {"max_train": None, "max_dev": None, "max_select": None, "epochs": 1}
    options = {
        "also": {},
        "sweep": {"seeds": [1337], "k": {"freeze": FREEZE, "truncate": TRUNCATE}, "tasks": {"mnli": tiny}},
        "text": {"text": "wikipedia", "tokens": 150},
        "along": {"seeds": [1337], "percents": [0, 100], "text": "wikipedia", "tokens": 150, "tasks": {"mnli": tiny}},
        "lora": {"seeds": [1337], "task": "mnli", "changes": {"lora": 2}, "text": "wikipedia", "tokens": 150,
                 "sentences": 8},
        "beyond_size": {"seeds": [1337], "draws": 2, "derangements": 100, "text": "wikipedia", "tokens": 150},
        "kind_of_change": {"seeds": [1337], "directions": 2, "causes": 100},
    }  # fmt: skip
    setting = read_setting(HERE / "settings.yaml", "mpnet", data=corpora, model=str(twelve))
    study = RepeatedStudy(small(setting, **options), corpora / "out")
    layers = {row.layer for row in run(study, "fig2_rsa") if row.task == "rsa"}
    assert layers == set(range(13))
    assert {row.layer for row in run(study, "fig3_freezing")} == set(FREEZE)
    assert {row.layer for row in run(study, "fig4_truncation")} == set(TRUNCATE)
    for name in ("fig1_structural_probes", "fig5_domains", "other_measures", "rsa_heatmap", "weight_distance",
                 "along_training", "lora", "lora_weights", "beyond_size", "kind_of_change"):  # fmt: skip
        rows = run(study, name)
        assert len({row.key for row in rows}) == len(rows) and max(row.layer or 0 for row in rows) == 12, name

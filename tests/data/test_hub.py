"""Names on the hub and their commits, offline.

The cache is laid out as the hub's client does it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path

import datasets
import huggingface_hub
import peft
import pytest
import torch
import yaml

from bertft.cli.main import run
from bertft.cli.options import named_encoders
from bertft.data import location, sources
from bertft.data.location import HubName, at_commit, data_name, hub_name, pin
from bertft.data.streams import stream
from bertft.errors import BertftError
from bertft.models import loading, names
from bertft.models.finetuning.card import read_card
from bertft.models.finetuning.config import FinetuneConfig
from bertft.models.finetuning.run import finetune
from bertft.models.loading import load_pretrained
from bertft.models.names import check_model, is_adapter, resolve_model
from bertft.study.analyses.ablation import sweep_stages
from bertft.study.analyses.edge import task_name
from bertft.study.reader import read_study

OLD, NEW = "0" * 40, "1" * 40
TRAIN, DEV = "builtin:synthetic?size=8", "builtin:synthetic?split=dev&size=4"


class Cache:
    """The hub client's cache with one model and one data set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def move(self, branch: str, commit: str, repository: str = "models--org--tiny") -> None:
        (self.folder / repository / "refs").mkdir(parents=True, exist_ok=True)
        (self.folder / repository / "refs" / branch).write_text(commit, encoding="utf8")

    def snapshot(self, commit: str, repository: str = "models--org--tiny") -> Path:
        return self.folder / repository / "snapshots" / commit


@pytest.fixture
def cache(tiny_model, tmp_path, monkeypatch) -> Cache:
    """Provide ``org/tiny`` at two commits: `OLD`, the tag v1, and `NEW`, the branch main, with other weights."""
    cache = Cache(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache.folder))
    for commit in (OLD, NEW):
        shutil.copytree(tiny_model, cache.snapshot(commit))
    model, _ = load_pretrained(str(tiny_model))
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    model.save_pretrained(cache.snapshot(NEW))
    cache.move("v1", OLD)
    cache.move("main", NEW)
    for commit in (OLD, NEW):
        cache.snapshot(commit, "datasets--org--texts").mkdir(parents=True)
        (cache.snapshot(commit, "datasets--org--texts") / "README.md").touch()
    cache.move("main", OLD, "datasets--org--texts")
    return cache


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("gpt2", HubName("gpt2")),
        ("org/model.v2", HubName("org/model.v2")),
        ("org/model@main", HubName("org/model", "main")),
        ("org/data@refs/convert/parquet:mnli", HubName("org/data", "refs/convert/parquet", "mnli")),
        ("org/data:en_ewt", HubName("org/data", None, "en_ewt")),
        ("org/data:", HubName("org/data")),
        *((text, None) for text in ("a/b/c", "/a", "./a", "", "@main", "org/a@", "org/a@../b", "org/a@x y")),
    ],
)
def test_hub_names_are_parsed(text, name):
    assert hub_name(text) == name
    if name is not None:
        assert hub_name(str(name)) == name


def test_a_model_resolves_to_its_commit(cache, tiny_model):
    assert resolve_model("org/tiny") == f"org/tiny@{NEW}" == resolve_model("org/tiny@main")
    assert resolve_model("org/tiny@v1") == f"org/tiny@{OLD}" == resolve_model(f"org/tiny@{OLD}")
    weights = [next(load_pretrained(name)[0].parameters()) for name in (str(tiny_model), "org/tiny@v1", "org/tiny")]
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[0] + 1, weights[2])
    assert resolve_model("org/tiny@v3") == "org/tiny@v3" and resolve_model("org/other") == "org/other"
    with pytest.raises(BertftError, match=r"model org/tiny@v3: no such folder, and not available from the"):
        load_pretrained("org/tiny@v3")
    check_model("org/tiny@v1")
    for look in (check_model, load_pretrained):
        with pytest.raises(BertftError, match=r"model org/other: no such folder, .*\(no connection to the hub"):
            look("org/other")
    with pytest.raises(BertftError, match="and not a hub id"):
        resolve_model("org/tiny:config")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # from peft, while the test makes its adapter
def test_an_adapter_loads_its_base_at_the_named_revision(cache, tiny_model, tmp_path):
    model, _ = load_pretrained(str(tiny_model))
    peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["query"])).save_pretrained(tmp_path / "a")
    file = tmp_path / "a" / "adapter_config.json"
    for revision, commit in (("v1", OLD), (None, NEW)):
        entries = {"base_model_name_or_path": "org/tiny", "revision": revision}
        file.write_text(json.dumps(json.loads(file.read_text(encoding="utf8")) | entries), encoding="utf8")
        found, base = (load_pretrained(name)[0] for name in (str(tmp_path / "a"), str(cache.snapshot(commit))))
        assert torch.equal(next(found.parameters()), next(base.parameters()))


def published(cache, tiny_model, base: str | None = "org/tiny", weights: bool = True) -> None:
    """Put the adapter ``org/lora`` of ``org/tiny@v1`` into the cache, with its weights or without."""
    folder = cache.snapshot(OLD, "models--org--lora")
    model, _ = load_pretrained(str(tiny_model))
    model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["value"], init_lora_weights=False))
    model.save_pretrained(folder)
    file = folder / "adapter_config.json"
    entries = {"base_model_name_or_path": base, "revision": "v1"}
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf8")) | entries), encoding="utf8")
    if not weights:
        (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    cache.move("main", OLD, "models--org--lora")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # from peft, while the test makes its adapter
def test_an_adapter_of_the_hub_alone_is_compared_with_its_base(cache, tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bertft.study.diff.parts.NULL", 0)
    published(cache, tiny_model)
    text = ["--text", "builtin:synthetic?size=20", "--tokens", "all", "-q"]
    assert run(["diff", "org/lora", *text, "--out", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.startswith("changed    lora changed")
    said = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf8"))
    assert (said["base"], said["tuned"]) == (f"org/tiny@{OLD}", {"lora": f"org/lora@{OLD}"})
    assert run(["diff", "org/tiny", *text]) == 2
    assert "found only org/tiny, which is no adapter of a base" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"weights": False}, "org/lora: expected adapter_model.safetensors in the repository, found none"),
        ({"base": None}, "adapter_config.json: names no base model"),
        ({"base": "org/gone"}, "the adapter's base org/gone@v1 cannot be loaded"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # from peft, while the test makes its adapter
def test_an_unusable_adapter_of_the_hub_is_refused(cache, tiny_model, tmp_path, capsys, change, sentence):
    published(cache, tiny_model, **change)
    assert run(["diff", "org/lora", "--out", str(tmp_path / "run"), "-q"]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1 and sentence in shown.err and not (tmp_path / "run").exists(), shown.err


def test_the_hub_is_asked_whether_a_repository_is_an_adapter(monkeypatch):
    """A repository has one of two files; a commit is asked once, and no answer means no adapter."""
    from huggingface_hub.errors import EntryNotFoundError

    asked = []

    def download(identifier, file, *, repo_type="model", revision):
        asked.append((identifier, file, revision))
        if (identifier == "org/lora") != (file == "adapter_config.json"):
            raise EntryNotFoundError(f"no {file}")
        return f"/cache/snapshots/{NEW}/{file}"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert not is_adapter("org/lora") and asked == []  # offline
    for module in (location, names):
        monkeypatch.setattr(module, "hub_within_reach", lambda: True)
    assert is_adapter("org/lora@v1") and not is_adapter("org/bert")
    assert asked == [
        ("org/lora", "config.json", "v1"),
        ("org/lora", "adapter_config.json", "v1"),
        ("org/lora", "adapter_config.json", NEW),
        ("org/bert", "config.json", None),
        ("org/bert", "adapter_config.json", NEW),
    ]


def test_a_moved_branch_is_another_model(cache, tmp_path):
    config = FinetuneConfig("mnli", "org/tiny", TRAIN, DEV, tmp_path / "out", epochs=1, batch_size=4, max_length=96)
    key = sweep_stages("freeze", config, tmp_path, depths_wanted=[1])[0].key
    cache.move("main", OLD)
    result = finetune(config)
    card = read_card(result.folder)
    assert card["hub"] == {"model": {"id": "org/tiny", "revision": OLD}}
    assert "base_model: org/tiny\n" in (result.folder / "README.md").read_text(encoding="utf8")
    assert sweep_stages("freeze", config, tmp_path, depths_wanted=[1])[0].key != key
    cache.move("main", NEW)
    assert sweep_stages("freeze", config, tmp_path, depths_wanted=[1])[0].key == key
    with pytest.raises(BertftError, match=r"holds another fine-tuned model \(other model\)"):
        finetune(config)
    assert finetune(dataclasses.replace(config, model="org/tiny@v1")).metrics == result.metrics
    assert json.loads((result.folder / "bertft.json").read_text(encoding="utf8")) == card


def test_a_study_records_its_commits(cache, tmp_path):
    task = {"task": "mnli", "train": "org/texts:easy", "dev": DEV}
    study = tmp_path / "study.yaml"
    study.write_text(json.dumps({"name": "s", "model": "org/tiny@v1", "tasks": {"a": task}}), encoding="utf8")
    config = read_study(study)
    assert config.model == f"org/tiny@{OLD}" and config.tasks["a"].train == f"org/texts@{OLD}:easy"
    cache.move("v1", NEW)
    assert read_study(study).to_yaml() != config.to_yaml()
    (tmp_path / "config.yaml").write_text(config.to_yaml(), encoding="utf8")
    assert read_study(tmp_path) == config


def test_a_stream_reads_the_pinned_commit(cache, monkeypatch):
    asked = []

    def load_dataset(name, config, **options):
        asked.append((name, config, options["revision"]))
        return datasets.Dataset.from_dict({"text": ["one"]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    before = stream("text", "org/texts:en").digest
    cache.move("main", NEW, "datasets--org--texts")
    assert stream("text", "org/texts:en").digest != before == stream("text", f"org/texts@{OLD}:en").digest
    assert asked == [("org/texts", "en", commit) for commit in (OLD, NEW, OLD)]


def test_runs_record_their_commits(cache, tmp_path, monkeypatch):
    (tmp_path / "rows.txt").write_text("".join(f"A dog sees {i} cats .\n" for i in range(12)), encoding="utf8")
    monkeypatch.chdir(tmp_path)
    spans, dev = TRAIN, "builtin:synthetic?split=dev&size=8"
    data = ["--train", spans, "--dev", dev, "--quiet"]
    probe = ["--model", "org/tiny", "--model", "old=org/tiny@v1", *data]
    commands = {
        "ablate": ["ablate", "freeze", "--task", "mnli", "--model", "org/tiny", *data, "--epochs", "1", "-k", "1"],
        "rsa": ["rsa", "--base", "org/tiny", "--tuned", "org/tiny@v1", "--text", "rows.txt", "--tokens", "all", "-q"],
        "structural": ["probe", "structural", *probe, "--rank", "2", "--epochs", "1"],
        "edge": ["probe", "edge", *probe, "--steps", "2", "--interval", "1", "--no-control"],
    }
    expected = {
        "ablate": {"model": f"org/tiny@{NEW}"},
        "rsa": {"base": f"org/tiny@{NEW}", "tuned": {"tiny": f"org/tiny@{OLD}"}},
        "structural": {"models": {"tiny": f"org/tiny@{NEW}", "old": f"org/tiny@{OLD}"}},
        "edge": {"models": {"tiny": f"org/tiny@{NEW}", "old": f"org/tiny@{OLD}"}},
    }
    for name, command in commands.items():
        assert run([*command, "--out", name]) == 0
        said = yaml.safe_load((tmp_path / name / "config.yaml").read_text(encoding="utf8"))
        assert {key: said[key] for key in expected[name]} == expected[name]
    cache.move("main", OLD)
    for name, command in commands.items():
        assert run([*command, "--out", name]) == 2


def test_names_in_results_omit_revisions():
    names = {
        "org/corpus@refs/convert/parquet": "corpus",
        "org/corpus@v1.0": "corpus",
        "org/corpus": "corpus",
        "../data/wiki/sentences.txt.gz": "sentences",
        "data/folder/": "folder",
        "builtin:synthetic?split=dev&size=4": "synthetic",
    }
    assert {source: data_name(source) for source in names} == names
    assert task_name("org/corpus@refs/convert/train") == "corpus" and task_name("pos_ewt/train.jsonl.gz") == "pos_ewt"
    tuned = ["org/a@refs/pr/4", "org/b@refs/pr/4", "org/c.v2", "runs/d/", "builtin:minilm", "e=org/a@v1"]
    assert list(named_encoders(tuned)) == ["a", "b", "c.v2", "d", "minilm", "e"]
    with pytest.raises(BertftError, match="two encoders are named 'a'; rename one"):
        named_encoders(["org/a@v1", "org/a@v2"])


def test_a_cached_branch_is_not_taken_for_another(cache, monkeypatch):
    said = []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(loading, "downloading", lambda what: said.append(what) or contextlib.nullcontext(False))
    for revision in ("main", "v1", OLD, "v2", "2" * 40):
        with loading.show_loading("org/tiny", revision, revision):
            pass
    assert said == [f"{revision} from the Hugging Face hub" for revision in ("v2", "2" * 40)]


def test_local_sources_are_not_pinned(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("org").mkdir()
    Path("org/texts").write_text("mine\n", encoding="utf8")
    for source in ("org/texts", "builtin:synthetic?size=3", "none.txt", "a/b/c"):
        assert pin(source) == source
    assert [text.text for text in sources.load("text", "org/texts")] == ["mine"]


def test_the_hub_is_asked_for_the_commit(monkeypatch):
    from huggingface_hub.errors import EntryNotFoundError

    asked = []

    def download(identifier, file, *, repo_type, revision):
        asked.append((identifier, file, repo_type, revision))
        if identifier == "org/bare":
            raise EntryNotFoundError("no README.md")
        if identifier == "org/lost":
            raise OSError("the line went dead")
        return f"/cache/snapshots/{NEW}/{file}"

    def info(self, identifier, *, repo_type, revision):
        asked.append((identifier, repo_type, revision))
        return type("Info", (), {"sha": OLD})

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", info)
    assert at_commit(HubName("org/m", "v1"), "model") == HubName("org/m", NEW)
    assert at_commit(HubName("org/d", None, "en"), "dataset") == HubName("org/d", NEW, "en")
    assert at_commit(HubName("org/bare"), "dataset") == HubName("org/bare", OLD)
    assert at_commit(HubName("org/lost", "v1"), "dataset") == HubName("org/lost", "v1")
    assert at_commit(HubName("org/m", OLD), "model") == HubName("org/m", OLD)
    assert asked == [
        ("org/m", "config.json", "model", "v1"),
        ("org/d", "README.md", "dataset", None),
        ("org/bare", "README.md", "dataset", None),
        ("org/bare", "dataset", None),
        ("org/lost", "README.md", "dataset", "v1"),
    ]

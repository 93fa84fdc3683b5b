"""Damaged checkpoints and damaged finished models."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from training_runs import KillAt, Killed

from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.models.finetuning.config import FinetuneConfig
from bertft.models.finetuning.run import finetune
from bertft.runs.digests import is_intact, is_sealed, seal


def test_a_manifest_detects_every_change(tmp_path):
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"two")
    assert not is_sealed(tmp_path) and not is_intact(tmp_path)
    seal(tmp_path)
    assert is_sealed(tmp_path) and is_intact(tmp_path)
    (tmp_path / "later").write_bytes(b"files written later")
    assert is_intact(tmp_path)
    for change in (b"onE", b"on", b""):
        (tmp_path / "a").write_bytes(change)
        assert not is_intact(tmp_path)
    (tmp_path / "a").write_bytes(b"one")
    assert is_intact(tmp_path)
    (tmp_path / "b").unlink()
    assert not is_intact(tmp_path)
    (tmp_path / "sha256.json").write_text("[", encoding="utf8")
    assert not is_intact(tmp_path)


@pytest.fixture(scope="module")
def config(tiny_model) -> FinetuneConfig:
    source = "builtin:synthetic?split={}&size={}&seed=1"
    return FinetuneConfig(
        task="mnli", model=str(tiny_model), train=source.format("train", 16), dev=source.format("dev", 8),
        out=Path("out"), epochs=2, batch_size=8, seed=4,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    return finetune(dataclasses.replace(config, out=tmp_path_factory.mktemp("whole") / "out"))


@pytest.mark.parametrize(("file", "how"), [("model.safetensors", "flipped"), ("optimizer.pt", "truncated")])
def test_a_damaged_checkpoint_is_not_resumed(config, whole, tmp_path, file, how):
    config = dataclasses.replace(config, out=tmp_path / "out")
    with pytest.raises(Killed):
        finetune(config, progress=KillAt(3))  # of two steps an epoch
    (checkpoint,) = (tmp_path / ".out.training").glob("checkpoint-*")
    path = checkpoint / file
    if how == "flipped":
        data = bytearray(path.read_bytes())
        data[-9] ^= 64
        path.write_bytes(data)
    else:
        os.truncate(path, path.stat().st_size // 2)
    result = finetune(config)
    assert result.metrics == whole.metrics
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (result.folder, whole.folder))
    assert all(value.equal(theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("file", ["model.safetensors", "head.safetensors", "config.json", "tokenizer.json"])
@pytest.mark.parametrize("how", ["flipped", "truncated", "gone"])
def test_a_damaged_finished_model_is_refused_by_name(config, whole, tmp_path, file, how):
    path = tmp_path / "out" / file
    shutil.copytree(whole.folder, path.parent)
    config = dataclasses.replace(config, out=path.parent)
    Encoder.from_pretrained(str(path.parent))
    assert finetune(config).metrics == whole.metrics
    if how == "flipped":
        data = bytearray(path.read_bytes())
        data[-9] ^= 64
        path.write_bytes(data)
    elif how == "truncated":
        os.truncate(path, path.stat().st_size - 4)
    else:
        path.unlink()
    for load in (lambda: Encoder.from_pretrained(str(path.parent)), lambda: finetune(config)):
        with pytest.raises(BertftError, match=rf"{re.escape(f'out/{file}')}: (damaged or changed|gone) since training"):
            load()


def test_a_folder_with_digests_of_only_its_weights_loads(whole, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(whole.folder, folder)
    card = json.loads((folder / "bertft.json").read_text(encoding="utf8"))
    assert {"config.json", "tokenizer.json", "head.safetensors", "model.safetensors"} <= card["sha256"].keys()
    card["sha256"] = {name: digest for name, digest in card["sha256"].items() if name.endswith(".safetensors")}
    (folder / "bertft.json").write_text(json.dumps(card), encoding="utf8")
    (folder / "config.json").write_text((folder / "config.json").read_text(encoding="utf8") + "\n", encoding="utf8")
    assert Encoder.from_pretrained(str(folder)).num_layers == 4

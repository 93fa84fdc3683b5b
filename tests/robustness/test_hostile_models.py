"""Model folders from untrusted sources.

A folder loads as plain weights or is refused; nothing in it is executed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open
from transformers import AutoModel

from bertft.cli.main import run
from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.models.finetuning.card import read_card
from bertft.study.analyses.ablation import depths

WEIGHTS = "model.safetensors"
CORPORA = ["--train", "builtin:synthetic?size=8", "--dev", "builtin:synthetic?split=dev&size=4", "--quiet"]


class _Trap:
    """Object that makes a folder when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def _change(path: Path, **entries: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf8")) | entries), encoding="utf8")


def _code(folder: Path, mark: Path) -> None:
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass Evil: pass\n", encoding="utf8")


def pickled_weights(folder: Path, mark: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap(mark)))


def pickle_under_the_name_of_safetensors(folder: Path, mark: Path) -> None:
    (folder / WEIGHTS).write_bytes(pickle.dumps(_Trap(mark)))


def model_of_unknown_type_with_code(folder: Path, mark: Path) -> None:
    _code(folder, mark)
    _change(folder / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"})


def _sharded(folder: Path, name: str) -> None:
    """Write an index that places all weights in ``name``, a file beside the folder, and keep a shard in the folder."""
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        keys = list(file.keys())
    shutil.copy(folder / WEIGHTS, folder / "model-00001-of-00002.safetensors")
    (folder / WEIGHTS).rename(folder.parent / "outside.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(keys, name)}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index), encoding="utf8")


def weights_at_an_absolute_path(folder: Path, mark: Path) -> None:
    _sharded(folder, str(folder.parent / "outside.safetensors"))


def weights_above_the_folder(folder: Path, mark: Path) -> None:
    _sharded(folder, "../outside.safetensors")


def weights_above_the_folder_by_configuration(folder: Path, mark: Path) -> None:
    _sharded(folder, "model-00001-of-00002.safetensors")
    _change(folder / "config.json", transformers_weights="../outside.safetensors")


def a_pickle_among_the_shards(folder: Path, mark: Path) -> None:
    (folder / "shard.bin").write_bytes(pickle.dumps(_Trap(mark)))
    _sharded(folder, "shard.bin")


def an_index_without_a_map(folder: Path, mark: Path) -> None:
    _sharded(folder, "")
    (folder / f"{WEIGHTS}.index.json").write_text("[]", encoding="utf8")


def an_index_of_lists(folder: Path, mark: Path) -> None:
    _sharded(folder, "")
    index = {"weight_map": {"a": ["model-00001-of-00002.safetensors"]}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index), encoding="utf8")


def digests_of_files_above_the_folder(folder: Path, mark: Path) -> None:
    (folder.parent / "secret").write_text("secret", encoding="utf8")
    (folder / "bertft.json").write_text(
        json.dumps({"sha256": {"../secret": hashlib.sha256(b"secret").hexdigest()}}), encoding="utf8"
    )


def digests_of_numbers(folder: Path, mark: Path) -> None:
    (folder / "bertft.json").write_text(json.dumps({"sha256": [[1, 2]]}), encoding="utf8")


def truncated_weights(folder: Path, mark: Path) -> None:
    os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 100)


def damaged_header(folder: Path, mark: Path) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[12] ^= 255
    (folder / WEIGHTS).write_bytes(data)


def broken_config(folder: Path, mark: Path) -> None:
    (folder / "config.json").write_text("{", encoding="utf8")


def sizes_that_do_not_fit(folder: Path, mark: Path) -> None:
    _change(folder / "config.json", hidden_size=48)


def a_size_that_is_a_word(folder: Path, mark: Path) -> None:
    _change(folder / "config.json", num_hidden_layers="three")


def broken_tokenizer(folder: Path, mark: Path) -> None:
    os.truncate(folder / "tokenizer.json", 100)


def no_tokenizer(folder: Path, mark: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


DAMAGES = pytest.mark.parametrize(
    "damage",
    [
        pickled_weights,
        pickle_under_the_name_of_safetensors,
        model_of_unknown_type_with_code,
        weights_at_an_absolute_path,
        weights_above_the_folder,
        weights_above_the_folder_by_configuration,
        a_pickle_among_the_shards,
        an_index_without_a_map,
        an_index_of_lists,
        digests_of_files_above_the_folder,
        digests_of_numbers,
        truncated_weights,
        damaged_header,
        broken_config,
        sizes_that_do_not_fit,
        a_size_that_is_a_word,
        broken_tokenizer,
        no_tokenizer,
    ],
    ids=lambda damage: damage.__name__,
)


@DAMAGES
def test_a_hostile_or_damaged_model_is_refused(tiny_model, tmp_path, damage):
    folder, mark = tmp_path / "model", tmp_path / "executed"
    shutil.copytree(tiny_model, folder)
    damage(folder, mark)
    with pytest.raises(BertftError) as raised:
        Encoder.from_pretrained(str(folder))
    assert str(folder) in str(raised.value) and "\n" not in str(raised.value)
    assert not mark.exists()


@DAMAGES
def test_commands_refuse_a_hostile_or_damaged_model_without_asking(tiny_model, tmp_path, damage, monkeypatch, capsys):
    folder, mark, asked = tmp_path / "model", tmp_path / "executed", []
    shutil.copytree(tiny_model, folder)
    damage(folder, mark)
    monkeypatch.setattr("builtins.input", lambda *question: asked.append(question) or "y")
    for command in (["ablate", "freeze", "-k", "0"], ["finetune"]):
        out = tmp_path / command[0]
        code = run([*command, "--task", "mnli", "--model", str(folder), *CORPORA, "--epochs", "1", "--out", str(out)])
        said = capsys.readouterr().err
        assert code == 2 and said.startswith("error: ") and said.count("\n") == 1 and str(folder) in said
        assert not mark.exists() and not asked
    assert not (tmp_path / "finetune").exists()


def test_shards_in_the_folder_are_loaded(tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    _sharded(folder, "model-00001-of-00002.safetensors")
    ours, theirs = (Encoder.from_pretrained(str(name)).model.state_dict() for name in (folder, tiny_model))
    assert ours.keys() == theirs.keys() and all(value.equal(theirs[name]) for name, value in ours.items())


def test_indices_of_other_formats_are_ignored(tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    index = json.dumps({"weight_map": {"a": "pytorch_model-00001-of-00002.bin"}})
    for name in ("pytorch_model.bin.index.json", "flax_model.msgpack.index.json", "tf_model.h5.index.json"):
        (folder / name).write_text(index, encoding="utf8")
    assert Encoder.from_pretrained(str(folder)).num_layers == 4


def test_a_card_nested_too_deeply_is_refused_in_one_sentence(tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "bertft.json").write_text("[" * 200_000, encoding="utf8")
    assert Encoder.from_pretrained(str(folder)).num_layers == 4  # as if the file belonged to another program
    with pytest.raises(BertftError, match=r"bertft\.json: expected JSON"):
        read_card(folder)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "blobs/x"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("I/O error: No space left on device (os error 28)"),
        MemoryError(),
    ],
    ids=repr,
)
def test_a_full_machine_is_not_reported_as_a_bad_model(tiny_model, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(AutoModel, "from_pretrained", fail)
    with pytest.raises(type(error)) as raised:
        Encoder.from_pretrained(str(tiny_model))
    assert raised.value is error


def test_code_beside_a_known_model_is_not_run(tiny_model, tmp_path, monkeypatch):
    folder, mark = tmp_path / "model", tmp_path / "executed"
    shutil.copytree(tiny_model, folder)
    _code(folder, mark)
    _change(folder / "config.json", auto_map={"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"})
    _change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    monkeypatch.setattr("builtins.input", lambda *question: "y")
    assert Encoder.from_pretrained(str(folder)).num_layers == 4
    assert depths("truncate", str(folder)) == [0, 1, 2, 3]
    assert not mark.exists()

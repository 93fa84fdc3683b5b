"""A model folder from a stranger: it loads as plain weights or is refused; nothing in it is executed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest

from bertft.encoder import Encoder
from bertft.errors import BertftError

WEIGHTS = "model.safetensors"


class _Trap:
    """Unpickling it makes a file."""

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


def weights_at_an_absolute_path(folder: Path, mark: Path) -> None:
    outside = folder.parent / "outside.safetensors"
    (folder / WEIGHTS).rename(outside)
    index = {"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": str(outside)}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index), encoding="utf8")


def weights_above_the_folder(folder: Path, mark: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / "outside.safetensors")
    index = {"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": "../outside.safetensors"}}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index), encoding="utf8")


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


def no_tokenizer(folder: Path, mark: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


@pytest.mark.parametrize(
    "damage",
    [
        pickled_weights,
        pickle_under_the_name_of_safetensors,
        model_of_unknown_type_with_code,
        weights_at_an_absolute_path,
        weights_above_the_folder,
        truncated_weights,
        damaged_header,
        broken_config,
        sizes_that_do_not_fit,
        no_tokenizer,
    ],
    ids=lambda damage: damage.__name__,
)
def test_a_hostile_or_damaged_model_is_refused(tiny_model, tmp_path, damage):
    folder, mark = tmp_path / "model", tmp_path / "executed"
    shutil.copytree(tiny_model, folder)
    damage(folder, mark)
    with pytest.raises(BertftError) as raised:
        Encoder.from_pretrained(str(folder))
    assert str(folder) in str(raised.value) and "\n" not in str(raised.value)
    assert not mark.exists()


def test_code_beside_a_known_model_is_not_run(tiny_model, tmp_path):
    folder, mark = tmp_path / "model", tmp_path / "executed"
    shutil.copytree(tiny_model, folder)
    _code(folder, mark)
    _change(folder / "config.json", auto_map={"AutoModel": "evil.Evil"})
    _change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]})
    assert Encoder.from_pretrained(str(folder)).num_layers == 4
    assert not mark.exists()

"""Artefacts of every kind, read back whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from bertft.errors import BertftError
from bertft.runs.artefacts import (
    NOTHING,
    Artefact,
    Contents,
    DamagedArtefact,
    OtherSettings,
    Unfinished,
    about_of,
    read_metadata,
    write_tensors,
)
from bertft.runs.checkpoint import Checkpoint, team_sizes
from bertft.runs.digests import digest
from bertft.runs.sums_file import read_sums, write_sums

TENSORS = {"x": torch.arange(100.0), "y": torch.tensor([[1, 2, 3]])}


class OfArtefact:
    file = "kept.safetensors"

    def save(self, folder, seed=1):
        Artefact(folder / self.file, {"seed": seed}).save(TENSORS, {"note": "n"})

    def load(self, folder):
        contents = Artefact(folder / self.file, {"seed": 1}).load()
        return None if contents is None else contents.tensors


class OfRefusingArtefact(OfArtefact):
    def load(self, folder):
        contents = Artefact(folder / self.file, {"seed": 1}).load(refuse=True)
        return None if contents is None else contents.tensors


class OfTraining:
    file = "state"

    def save(self, folder, seed=1):
        Unfinished(folder / self.file, {"seed": seed}).keep(3, TENSORS, np.random.default_rng(0))

    def load(self, folder):
        found = Unfinished(folder / self.file, {"seed": 1}).found(np.random.default_rng(1))
        return None if found is None else found[1]


class OfCheckpoint:
    file = "stream.safetensors"

    def save(self, folder, seed=1):
        Checkpoint(folder, {"seed": seed}).save(TENSORS, {"batch": 2})

    def load(self, folder):
        found = Checkpoint(folder, {"seed": 1}).load()
        return None if found is None else found[0]


class OfSums:
    file = "sums.safetensors"

    def save(self, folder, seed=1):
        write_sums(folder / self.file, TENSORS, {"seed": seed})

    def load(self, folder):
        tensors, config = read_sums(folder / self.file, list(TENSORS), "noise")
        if config != {"seed": 1}:
            raise BertftError(f"{self.file}: seed is {config['seed']}")
        return tensors


QUIET, REFUSING = [OfArtefact(), OfTraining()], [OfRefusingArtefact(), OfCheckpoint(), OfSums()]
USERS = [*QUIET, *REFUSING]


def of_user(user) -> str:
    return type(user).__name__


def same(found, wanted) -> bool:
    return found is not None and found.keys() == wanted.keys() and all(torch.equal(found[k], wanted[k]) for k in wanted)


def refuses(user, folder, *words: str) -> bool:
    """Return whether the user takes the file for missing, if it is quiet, or names ``words`` in its error."""
    if user in QUIET:
        return user.load(folder) is None
    with pytest.raises(BertftError) as raised:
        user.load(folder)
    return all(word in str(raised.value) for word in words)


@pytest.mark.parametrize("user", USERS, ids=of_user)
def test_what_is_saved_is_loaded(user, tmp_path):
    user.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [user.file]
    assert same(user.load(tmp_path), TENSORS)
    assert same(load_file(tmp_path / user.file), TENSORS)  # any other reader of the format can take it


@pytest.mark.parametrize("user", USERS, ids=of_user)
def test_every_changed_byte_is_noticed(user, tmp_path):
    user.save(tmp_path)
    path = tmp_path / user.file
    data = path.read_bytes()
    header = data.rindex(b"}", 0, 8 + int.from_bytes(data[:8], "little"))
    for place in (0, 9, header // 2, header, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert refuses(user, tmp_path, user.file)


@pytest.mark.parametrize("user", USERS, ids=of_user)
def test_a_file_cut_short_is_noticed(user, tmp_path):
    user.save(tmp_path)
    path = tmp_path / user.file
    data = path.read_bytes()
    for length in (0, 7, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        assert refuses(user, tmp_path, user.file)


@pytest.mark.parametrize("user", USERS, ids=of_user)
def test_other_settings_are_not_taken(user, tmp_path):
    user.save(tmp_path, seed=2)
    assert refuses(user, tmp_path, "seed is 2")


@pytest.mark.parametrize("user", USERS, ids=of_user)
def test_another_format_is_not_taken(user, tmp_path):
    (tmp_path / user.file).write_bytes(save(TENSORS, {"format": "pt"}))
    assert refuses(user, tmp_path, user.file, "expected the format bertft.", "found 'pt'")


@pytest.mark.parametrize("user", [*QUIET, OfRefusingArtefact(), OfCheckpoint()], ids=of_user)
def test_a_missing_file_is_none(user, tmp_path):
    assert user.load(tmp_path) is None


def test_missing_sums_are_named(tmp_path):
    with pytest.raises(BertftError, match=r"sums\.safetensors: no such file of cross moments"):
        OfSums().load(tmp_path)


@pytest.mark.parametrize("user", USERS, ids=of_user)
def test_a_save_that_fails_keeps_the_earlier_file(user, tmp_path, monkeypatch):
    user.save(tmp_path)

    def fail(*_):
        raise OSError("disk")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk"):
        user.save(tmp_path, seed=2)
    assert same(user.load(tmp_path), TENSORS) and [path.name for path in tmp_path.iterdir()] == [user.file]


def test_the_damage_and_the_first_difference_have_types_of_their_own(tmp_path):
    artefact = Artefact(tmp_path / "a", {"rank": 8, "seed": 1})
    artefact.save(TENSORS)
    with pytest.raises(OtherSettings, match=r"^rank is 8 there and 16 here$"):
        Artefact(artefact.path, {"rank": 16, "seed": 2}).load(refuse=True)
    artefact.path.write_bytes(b"")
    with pytest.raises(DamagedArtefact):
        artefact.load(refuse=True)
    artefact.remove()
    artefact.remove()
    assert not artefact.path.exists()


def test_settings_and_record_are_json_and_survive(tmp_path):
    artefact = Artefact(tmp_path / "a", {"metric": ("cosine",), "rank": None})
    artefact.save({}, {"loss": [0.1 + 0.2]}, labels={"kind": "linear"})
    contents = artefact.load()
    assert contents == ({}, {"metric": ["cosine"], "rank": None}, {"loss": [0.1 + 0.2]})


def test_metadata_are_read_without_the_tensors(tmp_path):
    path = tmp_path / "a.safetensors"
    Artefact(path, {"seed": 1}).save(TENSORS)
    with path.open("r+b") as file:  # the last tensor is lost, which the metadata do not notice
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    assert about_of(path, read_metadata(path))["settings"] == {"seed": 1}
    path.write_bytes(b"no tensors")
    with pytest.raises(DamagedArtefact, match="not a safetensors file"):
        read_metadata(path)
    with pytest.raises(FileNotFoundError):
        read_metadata(tmp_path / "none")


def test_tensors_of_every_kind_are_written(tmp_path):
    kinds = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
    kinds += [torch.int8, torch.uint8, torch.bool]
    base = torch.arange(15).view(3, 5)
    tensors = {str(kind): base.to(kind) for kind in kinds}
    tensors |= {"turned": base.double().T, "part": base.float()[1:, ::2], "empty": torch.empty(0, 3).half()}
    tensors |= {"scalar": torch.tensor(1.5), "graph": torch.ones(2, requires_grad=True)}
    tensors["shared"] = tensors["turned"]
    write_tensors(tmp_path / "a", tensors, {})
    found = load_file(tmp_path / "a")
    assert same(found, tensors) and all(found[name].dtype == tensors[name].dtype for name in tensors)


def test_a_filled_tensor_is_loaded_as_a_saved_one(tmp_path):
    wanted = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    filled, saved = (Artefact(tmp_path / name, {"seed": 1}) for name in ("filled", "saved"))
    saved.save({"hidden": wanted})
    with filled.filled("hidden", (7, 5)) as table:
        assert table.dtype == np.float32 and not filled.path.exists()
        table[3:], table[:3] = wanted.numpy()[3:], wanted.numpy()[:3]
    assert same(filled.load().tensors, {"hidden": wanted}) and filled.load()[1:] == saved.load()[1:]
    assert filled.path.read_bytes() == saved.path.read_bytes()


def test_a_filled_tensor_of_settings_with_64_zeros_is_loaded(tmp_path):
    artefact = Artefact(tmp_path / "a", {"weights": "0" * 64})
    with artefact.filled("hidden", (2,)) as table:
        table[:] = 1
    assert artefact.load().settings == {"weights": "0" * 64}


def test_an_interrupted_filling_keeps_the_earlier_file(tmp_path):
    artefact = Artefact(tmp_path / "a", {})
    artefact.save(TENSORS)
    with pytest.raises(KeyboardInterrupt), artefact.filled("hidden", (4,)) as table:
        table[:] = 1
        raise KeyboardInterrupt
    assert same(artefact.load().tensors, TENSORS) and [path.name for path in tmp_path.iterdir()] == ["a"]


PEAK = """
import resource, sys
import torch
from bertft.runs.artefacts import Artefact

artefact = Artefact(sys.argv[1], {})
tensors = {str(i): torch.full((1 << 20,), float(i), dtype=torch.float64) for i in range(32)}  # 8 MiB each, 256 in all
artefact.save({"x": torch.ones(1)})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
artefact.save(tensors)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_saving_needs_no_second_copy_of_the_tensors(tmp_path):
    done = subprocess.run([sys.executable, "-c", PEAK, tmp_path / "a"], capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 32 << 20  # a copy would be 256 MiB


def test_a_training_is_resumed_with_its_generator(tmp_path):
    order = np.random.default_rng(0)
    own = Unfinished(tmp_path / "state", {"seed": 1})
    own.keep(3, {"weights": torch.ones(2)}, order)
    before = order.bit_generator.state
    order.random(3)
    epoch, state = own.found(order)
    assert epoch == 4 and state["weights"].tolist() == [1, 1] and order.bit_generator.state == before
    assert Unfinished(own.path, {"seed": 2}).found(order) is None and order.bit_generator.state == before


def test_states_in_quick_succession_are_not_kept_but_the_last_is(tmp_path):
    order, own = np.random.default_rng(0), Unfinished(tmp_path / "state", {}, every=3600)
    own.keep(0, {}, order)
    assert own.found(order) is None
    own.keep(1, {}, order, last=True)
    assert own.found(order) == (2, {})


def test_one_file_serves_trainings_one_after_the_other(tmp_path):
    order, own = np.random.default_rng(0), Unfinished(tmp_path / "state", {"seed": 1})
    own.of(block=1).keep(5, {}, order)
    assert own.of(block=1).found(order) == (6, {})
    assert own.of(block=2).found(order) is None and own.found(order) is None


# Files of earlier versions -----------------------------------------------------------------------------------------


def test_sums_of_an_earlier_version_are_read(tmp_path):
    text = json.dumps({"layers": [2, 2]}, sort_keys=True)
    metadata = {"format": "bertft.CrossMoments/1", "config": text, "sha256": digest(TENSORS, text)}
    (tmp_path / "sums").write_bytes(save(TENSORS, metadata))
    tensors, config = read_sums(tmp_path / "sums", list(TENSORS), "noise")
    assert same(tensors, TENSORS) and config == {"layers": [2, 2]}
    (tmp_path / "sums").write_bytes(save({**TENSORS, "x": TENSORS["x"] + 1}, metadata))
    with pytest.raises(BertftError, match="sums: damaged"):
        read_sums(tmp_path / "sums", list(TENSORS), "noise")


def older_checkpoint(folder, **changed) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "0-of-1-7.safetensors").write_bytes(save(TENSORS))
    content = {
        "format": "bertft.stream/2", "tensors": "0-of-1-7.safetensors", "sha256": digest(TENSORS), "serial": 7,
        "record": {"batch": 4}, "settings": {"seed": 1}, **changed,
    }  # fmt: skip
    (folder / "0-of-1.json").write_text(json.dumps(content, indent=1) + "\n")


def test_a_checkpoint_of_an_earlier_version_is_read_and_then_replaced(tmp_path):
    folder = tmp_path / "checkpoint"
    older_checkpoint(folder)
    checkpoint = Checkpoint(folder, {"seed": 1}, "0-of-1")
    tensors, record = checkpoint.load()
    assert same(tensors, TENSORS) and record == {"batch": 4}
    checkpoint.save({"x": torch.ones(2)}, {"batch": 5})
    assert [path.name for path in folder.iterdir()] == ["0-of-1.safetensors"]
    assert checkpoint.load()[1] == {"batch": 5}
    checkpoint.remove()
    assert not folder.exists()


def test_a_checkpoint_of_an_earlier_version_is_refused_by_name(tmp_path):
    folder = tmp_path / "checkpoint"
    for changed, words in (
        ({"settings": {"seed": 2}}, r"another comparison .seed is 2 there and 1 here."),
        ({"sha256": "0" * 64}, "damaged.*not a usable checkpoint"),
        ({"tensors": "gone"}, r"0-of-1\.json: the checkpoint's tensors are missing"),
        ({"format": "bertft.stream/1"}, r"expected the format bertft.stream/2, found 'bertft.stream/1'"),
    ):
        older_checkpoint(folder, **changed)
        with pytest.raises(BertftError, match=words):
            Checkpoint(folder, {"seed": 1}, "0-of-1").load()
    (folder / "0-of-1.json").write_text('{"format": ')
    with pytest.raises(BertftError, match=r"0-of-1\.json: damaged"):
        Checkpoint(folder, {"seed": 1}, "0-of-1").load()


def test_the_sizes_of_teams_follow_from_the_names_of_their_checkpoints(tmp_path):
    assert team_sizes(tmp_path / "gone") == []
    older_checkpoint(tmp_path)
    for rank in range(2):
        Checkpoint(tmp_path, {}, f"{rank}-of-2").save({}, {})
    assert team_sizes(tmp_path) == [1, 2]


def test_an_older_file_is_read_only_if_there_is_no_intact_one(tmp_path):
    asked = []
    older = Contents({}, {"seed": 1}, {"old": True})
    artefact = Artefact(tmp_path / "a", {"seed": 1}, older=lambda: asked.append(1) or older)
    assert artefact.load() is artefact.load(refuse=True) is older and len(asked) == 2
    artefact.path.write_bytes(b"damaged")
    assert artefact.load() is artefact.load(refuse=True) is older and len(asked) == 4
    artefact.save(TENSORS)
    assert artefact.load().record == {} and len(asked) == 4


def test_settings_in_another_order_give_the_same_bytes(tmp_path):
    for name, settings in (("a", {"x": 1, "y": 2}), ("b", {"y": 2, "x": 1})):
        Artefact(tmp_path / name, settings).save(TENSORS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (None, "expected the format bertft.artefact/1, found None"),
        ({"bertft": "[1]"}, "expected the format bertft.artefact/1, found None"),
        ({"bertft": "{"}, "damaged: its metadata are not JSON"),
        ({"bertft": '{"format": "bertft.artefact/1"}'}, "damaged: the content is not what was written"),
    ],
)
def test_metadata_that_no_artefact_has_are_refused(tmp_path, metadata, words):
    (tmp_path / "a").write_bytes(save(TENSORS, metadata))
    with pytest.raises(DamagedArtefact, match=words):
        Artefact(tmp_path / "a", {}).load(refuse=True)


def test_states_are_kept_once_the_time_between_them_has_passed(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("bertft.runs.artefacts.time.monotonic", lambda: now[0])
    order, own = np.random.default_rng(0), Unfinished(tmp_path / "state", {}, every=10.0)
    for epoch, (time, kept) in enumerate(((109.5, None), (110.0, 2), (119.5, 2), (120.0, 4))):
        now[0] = time
        own.keep(epoch, {}, order)
        assert (own.found(order) or [None])[0] == kept
    assert own.of(part=1).every == 10.0
    own.remove()
    assert not own.path.exists()


def test_nothing_keeps_nothing():
    order = np.random.default_rng(0)
    assert NOTHING.keep(0, TENSORS, order, last=True) is NOTHING.found(order) is NOTHING.remove() is None
    assert NOTHING.of(block=1) is NOTHING

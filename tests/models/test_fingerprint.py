"""Changes that an encoder's digest detects or ignores."""

from __future__ import annotations

import ast
import copy
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

import bertft
from bertft.models.encoder import Encoder
from bertft.models.fingerprint import SOURCES, code_digest, fingerprint, model_fingerprint, sampled_fingerprint


@pytest.fixture
def encoder(tiny_model):
    return Encoder.from_pretrained(str(tiny_model), device="cpu")


def test_fingerprint_covers_every_number_of_a_weight(encoder):
    before, sampled = fingerprint(encoder), sampled_fingerprint(encoder)
    weight = encoder.model.get_input_embeddings().weight
    assert weight.numel() > 2048
    with torch.no_grad():
        weight.view(-1)[1] += 1  # between two numbers of the sample
    assert fingerprint(encoder) != before
    assert sampled_fingerprint(encoder) == sampled


def test_fingerprint_ignores_name_and_folder(encoder, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "copy")
    other = Encoder.from_pretrained(str(tmp_path / "copy"), device="cpu")
    other.name = "other"
    assert fingerprint(other) == fingerprint(encoder)
    assert model_fingerprint(str(tmp_path / "copy")) == model_fingerprint(str(tiny_model))


@pytest.mark.parametrize("change", ["dtype", "shape", "configuration", "tokenizer"])
def test_fingerprint_changes_with_dtype_shape_configuration_and_tokenizer(encoder, tiny_model, change):
    before = fingerprint(encoder)
    if change == "dtype":
        encoder.model.to(torch.bfloat16)
    elif change == "shape":  # the same bytes in the same order
        weight = encoder.model.pooler.dense.weight
        weight.data = weight.data.reshape(16, 64)
    elif change == "configuration":
        encoder.model.config.layer_norm_eps = 1e-5
    else:
        encoder.tokenizer.add_tokens(["zyzzyva"])
    assert fingerprint(encoder) != before


def test_fingerprint_accepts_scalar_and_empty_weights(encoder):
    encoder.model.register_buffer("scale", torch.tensor(1.0, dtype=torch.bfloat16))
    encoder.model.register_buffer("empty", torch.zeros(0, 3))
    one = fingerprint(encoder)
    encoder.model.scale.fill_(2)
    assert fingerprint(encoder) != one


def test_fingerprint_ignores_the_memory_layout(encoder):
    other = copy.deepcopy(encoder)
    weight = other.model.pooler.dense.weight
    weight.data = weight.data.t().contiguous().t()
    assert not weight.is_contiguous()
    assert fingerprint(other) == fingerprint(encoder)


def test_model_fingerprint_changes_with_each_file(tiny_model, tmp_path):
    before = model_fingerprint(str(tiny_model))
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        folder = tmp_path / name
        shutil.copytree(tiny_model, folder)
        with (folder / name).open("ab") as file:
            file.write(b" ")
        assert model_fingerprint(str(folder)) != before


def test_code_digest_changes_with_sources_and_versions(monkeypatch):
    before = code_digest()
    assert code_digest(("models/encoder.py",)) != before == code_digest()
    monkeypatch.setattr(torch, "__version__", "0")
    assert code_digest() != before


def test_code_digest_covers_what_an_encoder_imports():
    """Of the modules that see text or vectors, only the one that names a device is left out."""
    package = Path(bertft.__file__).parent
    tree = ast.parse((package / "models" / "encoder.py").read_text(encoding="utf8"))
    modules = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    used = {f"{name.removeprefix('bertft.').replace('.', '/')}.py" for name in modules if name.startswith("bertft.")}
    assert {"data/examples.py", "models/batching.py"} <= used
    left_out = {name for name in used if name.startswith(("data/", "models/"))} - set(SOURCES)
    assert left_out == {"models/devices.py"}


def test_digests_in_existing_folders_still_match(encoder):
    """Feature stores and probes on disk hold `fingerprint`, run folders of ``bertft rsa`` `sampled_fingerprint`."""
    whole, sample = hashlib.sha256(), hashlib.sha256()
    state = encoder.model.state_dict()
    for name in sorted(state):
        head = f"{name} {tuple(state[name].shape)} {state[name].dtype}".encode()
        whole.update(head + state[name].numpy().tobytes())
    for name, weight in state.items():
        head = f"{name} {tuple(weight.shape)} {weight.dtype}".encode()
        sample.update(head + weight.numpy().reshape(-1)[:: max(1, weight.numel() // 1024)].tobytes())
    config = encoder.model.config.to_dict()
    config.pop("_name_or_path", None)
    whole.update(json.dumps(config, sort_keys=True, default=str).encode())
    whole.update(encoder.tokenizer.backend_tokenizer.to_str().encode())  # never called: neither truncation nor padding
    assert fingerprint(encoder) == whole.hexdigest()
    assert sampled_fingerprint(encoder) == sample.hexdigest()

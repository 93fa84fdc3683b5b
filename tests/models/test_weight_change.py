"""Spectra of the change of weights."""

from __future__ import annotations

import csv
import json

import numpy as np
import peft
import pytest
import torch
from families import save
from safetensors.torch import save_file
from torch import nn

from bertft.errors import BertftError
from bertft.models import weight_change
from bertft.models.blocks import blocks
from bertft.models.encoder import Encoder
from bertft.models.weight_change import by_block, intruders, layer_of, matrix_change, weight_changes, write_matrices
from bertft.models.weight_files import ModelWeights, WeightFiles, paired_names


def decaying(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Return a matrix with singular values 1, 0.8, 0.64, ..., whose leading vectors noise does not mix."""
    g = torch.Generator().manual_seed(seed)
    k = min(rows, columns)
    u, v = (torch.linalg.qr(torch.randn(n, k, generator=g, dtype=torch.float64))[0] for n in (rows, columns))
    return u * 0.8 ** torch.arange(k).double() @ v.mT


def plant(w: torch.Tensor, strength: float, seed: int = 1) -> torch.Tensor:
    """Return a rank-1 change whose left vector is spread over all left singular vectors of w."""
    u = torch.linalg.svd(w, full_matrices=False)[0]
    left = u @ torch.ones(u.shape[1], dtype=torch.float64) / u.shape[1] ** 0.5
    right = torch.randn(w.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return strength * torch.outer(left, right / right.norm())


@pytest.mark.parametrize("shape", [(24, 24), (24, 60), (60, 24)])
def test_spectra_equal_those_of_numpy(shape):
    w = decaying(*shape)
    v = w + 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = matrix_change(w, v, "encoder.layer.4.output.dense.weight")
    s = np.linalg.svd((v - w).numpy(), compute_uv=False)
    assert (found.layer, found.shape, found.randomised) == (5, shape, False)
    assert found.relative == pytest.approx(np.linalg.norm(v - w) / np.linalg.norm(w), rel=1e-12)
    assert found.shares == pytest.approx(s[:5] ** 2 / (s**2).sum(), rel=1e-10)
    assert found.rank == pytest.approx((s**2).sum() ** 2 / (s**4).sum(), rel=1e-10)
    base, mine = np.linalg.svd(w.numpy())[0][:, :24], np.linalg.svd(v.numpy())[0][:, :10]
    assert found.intruders == (np.abs(base.T @ mine).max(0) < 0.5).sum()


@pytest.mark.parametrize("shape", [(40, 40), (40, 90), (90, 40)])
def test_a_planted_intruder_is_found_and_noise_of_its_norm_has_none(shape):
    w = decaying(*shape)
    planted = plant(w, 2.0)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = matrix_change(w, w + planted)
    assert found.intruders == 1 and found.rank == pytest.approx(1) and found.shares[0] == pytest.approx(1)
    spread = matrix_change(w, w + noise * planted.norm() / noise.norm() / 20)
    assert spread.intruders == 0 and spread.rank > 15


def test_noise_has_no_intruders_where_the_leading_values_are_apart():
    """Weights have a few leading values and many of the size of noise."""
    g = torch.Generator().manual_seed(0)
    w = torch.randn(64, 64, generator=g, dtype=torch.float64) / 8 + 20 * decaying(64, 64)
    noise = torch.randn(64, 64, generator=g, dtype=torch.float64)
    planted = plant(w, 16.0)
    assert intruders(w, w + noise * planted.norm() / noise.norm()) == 0 < intruders(w, w + planted)


def test_matrices_beyond_the_largest_are_left_out():
    models = [nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3), nn.Linear(3, 5)) for _ in range(2)]
    assert [change.shape for change in weight_changes(*models, largest=12)] == [(4, 3), (3, 4)]


def test_large_matrices_take_a_randomised_svd_that_agrees(monkeypatch):
    w = decaying(60, 80)
    v = w + plant(w, 2.0) + 1e-3 * decaying(60, 80, seed=5)
    exact = matrix_change(w, v)
    monkeypatch.setattr(weight_change, "LARGE", 32)
    monkeypatch.setattr(weight_change, "PROBES", 24)
    found = matrix_change(w, v)
    assert found.randomised and found.intruders == exact.intruders == 1
    assert found.shares == pytest.approx(exact.shares, rel=1e-6) and found.rank == pytest.approx(exact.rank, rel=1e-3)
    wide = torch.randn(60, 80, generator=torch.Generator().manual_seed(1), dtype=torch.float64)  # beyond the probes
    rank = matrix_change(w, w + wide).rank
    monkeypatch.undo()
    assert rank == pytest.approx(matrix_change(w, w + wide).rank, rel=0.1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a BERT, its change in block 2 alone, as folders."""
    base = save("bert", tmp_path_factory.mktemp("base"))
    tuned = Encoder.from_pretrained(str(base), device="cpu")
    with torch.no_grad():
        for weight in blocks(tuned.model)[1].parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    out = tmp_path_factory.mktemp("tuned")
    tuned.model.save_pretrained(out)
    return base, out


def test_folders_models_and_shards_give_the_same_changes(folders, tmp_path):
    base, tuned = folders
    whole = list(weight_changes(base, tuned))
    models = [Encoder.from_pretrained(str(folder), device="cpu").model for folder in (base, base)]
    models[1].load_state_dict(WeightsDict(tuned))
    assert {c.name: c for c in weight_changes(*models)} == {c.name: c for c in whole}
    names = sorted(WeightFiles(tuned).shapes)
    index = {}
    for number, name in enumerate(names):  # three shards, with the prefix of a model with a head
        index[f"bert.{name}"] = f"model-0000{number % 3}.safetensors"
    for shard in set(index.values()):
        save_file({n: WeightFiles(tuned).read(n[5:]) for n, s in index.items() if s == shard}, tmp_path / shard)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}), encoding="utf8")
    assert list(weight_changes(base, tmp_path)) == whole
    changed = {c.layer for c in whole if c.relative > 0}
    assert changed == {2} and {c.layer for c in whole} == {None, 0, 1, 2}
    assert all(c.rank is None and c.shares == () and c.intruders == 0 for c in whole if c.layer != 2)


def WeightsDict(folder):
    files = WeightFiles(folder)
    return {name: files.read(name) for name in files.shapes}


def test_blocks_are_summed_up_and_the_table_has_every_matrix(folders, tmp_path):
    changes = list(weight_changes(*folders))
    summed = {block.layer: block for block in by_block(changes)}
    own = [c for c in changes if c.layer == 2]
    assert set(summed) == {0, 1, 2} and summed[2].matrices == len(own) == 6
    assert summed[2].rank == pytest.approx(np.mean([c.rank for c in own]))
    assert summed[2].share == pytest.approx(np.mean([c.shares[0] for c in own]))
    assert summed[2].intruders == sum(c.intruders for c in own) and summed[1].rank is None
    write_matrices({"t": changes}, tmp_path)
    table = list(csv.DictReader((tmp_path / "matrices.csv").read_text(encoding="utf8").splitlines()))
    assert [row["matrix"] for row in table] == [c.name for c in changes]
    assert float(table[-2]["relative_change"]) == changes[-2].relative


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, for what peft calls
def test_an_untrained_adapter_changes_exactly_nothing(tiny_model, tmp_path):
    base = Encoder.from_pretrained(str(tiny_model), device="cpu")
    config = peft.LoraConfig(r=4, target_modules=["query", "value"])
    wrapped = peft.get_peft_model(Encoder.from_pretrained(str(tiny_model), device="cpu").model, config)
    wrapped.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf8"))
    settings["base_model_name_or_path"] = str(tiny_model)
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings), encoding="utf8")
    tuned = Encoder.from_pretrained(str(tmp_path), device="cpu")
    changes = list(weight_changes(base.model, tuned.model))
    assert len(changes) > 20 and all(c.relative == 0 and c.rank is None for c in changes)


def test_linear_maps_of_gpt2_are_turned_so_that_rows_are_outputs(tmp_path):
    folder = save("gpt2", tmp_path)
    model = Encoder.from_pretrained(str(folder), device="cpu").model
    for weights in (ModelWeights(model, "m"), WeightFiles(folder)):
        assert len(weights.transposed) == 2 * 4
    shapes = {c.name: c.shape for c in weight_changes(folder, model)}
    assert shapes["h.0.attn.c_attn.weight"] == (48, 16)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("bert.encoder.layer.0.attention.self.query.weight", 1),
        ("transformer.layer.11.ffn.lin1.weight", 12),
        ("h.3.attn.c_attn.weight", 4),
        ("model.layers.30.mlp.experts.7.up_proj.weight", 31),
        ("embeddings.word_embeddings.weight", 0),
        ("wte.weight", 0),
        ("model.embed_tokens.weight", 0),
        ("pooler.dense.weight", None),
        ("lm_head.weight", None),
    ],
)
def test_a_weight_is_placed_by_its_name(name, layer):
    assert layer_of(name) == layer


def test_names_are_paired_with_and_without_the_prefix_of_a_head():
    one, other = (ModelWeights(nn.Module(), name) for name in "ab")
    one.shapes = {"bert.x.w": (1, 1), "cls.dense.weight": (1, 1)}
    other.shapes = {"x.w": (1, 1), "pooler.dense.weight": (1, 1)}
    assert list(paired_names(one, other)) == [("bert.x.w", "x.w")]
    assert list(paired_names(other, one)) == [("x.w", "bert.x.w")]


def test_bad_weights_are_one_sentence(folders, tmp_path):
    base = folders[0]
    other = nn.Module()
    other.weight = nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(BertftError, match="have no matrix in common"):
        list(weight_changes(base, other))
    wide = save("bert", tmp_path / "wide")
    model = Encoder.from_pretrained(str(wide), device="cpu").model
    model.embeddings.word_embeddings.weight = nn.Parameter(torch.zeros(7, 16))
    with pytest.raises(
        BertftError, match=r"word_embeddings.weight has the shape \(\d+, 16\) in .* and \(7, 16\) in tuned"
    ):
        list(weight_changes(base, model))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BertftError, match=r"expected weights as .* found none"):
        list(weight_changes(tmp_path / "empty", base))
    (tmp_path / "empty" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(BertftError, match="not a usable safetensors file"):
        list(weight_changes(tmp_path / "empty", base))

"""Cached output of frozen blocks.

Vectors and training are the same as without it.
"""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import families
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bertft.data import sources
from bertft.models.batching import pad_inputs
from bertft.models.blocks import blocks
from bertft.models.finetuning.assembly import build_model
from bertft.models.finetuning.config import FinetuneConfig
from bertft.models.finetuning.run import finetune
from bertft.models.fingerprint import model_fingerprint
from bertft.models.frozen_cache import FrozenCache, collate
from bertft.models.loading import load_pretrained
from bertft.models.tasks import get_task
from bertft.models.tasks.base import Window
from bertft.runs.progress import SILENT

SOURCE = "builtin:synthetic?split=train&size=24&seed=1"


@pytest.fixture
def config(tiny_model, tmp_path) -> FinetuneConfig:
    return FinetuneConfig(
        task="dep",
        model=str(tiny_model),
        train=SOURCE,
        dev="builtin:synthetic?split=dev&size=10&seed=1",
        out=tmp_path / "out",
        epochs=2,
        learning_rate=1e-3,
        batch_size=8,
        max_length=128,
    )


def weights(folder):
    head = load_file(folder / "head.safetensors")
    return load_file(folder / "model.safetensors") | {f"head.{name}": value for name, value in head.items()}


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_family_resumes_from_cached_blocks(family, tmp_path):
    folder = str(families.save(family, tmp_path / "model"))
    model, tokenizer = load_pretrained(folder)
    task = get_task("dep")
    sentences = sources.load("dep", SOURCE)[:6]
    features = task.features(tokenizer, sentences, task.spec(sentences), Window(128), training=True)
    batch = pad_inputs([f.inputs for f in features], tokenizer)
    with torch.no_grad():
        whole = model.eval()(**batch)[0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for k in (1, 2):  # of two blocks
        cache = FrozenCache(model, k, tokenizer, tmp_path / "kept", model_fingerprint(folder))
        examples = cache.cached(features)
        again = collate(task, examples, tokenizer)["prefix"]
        device = next(model.parameters()).device  # the GPU if there is one
        with cache.attached(), torch.no_grad():
            assert len(model.state_dict()) < len(before)
            cache.feed(again.to(device))
            found = model(**{name: value.to(device) for name, value in batch.items()})[0].cpu()
        for row, feature in enumerate(features):
            # float32 sums of some tens of terms of about 1, added in another order
            torch.testing.assert_close(found[row, : len(feature)], whole[row, : len(feature)], rtol=0, atol=2e-5)
    assert all(torch.equal(value.cpu(), before[name]) for name, value in model.state_dict().items())
    assert not any(weight.is_inference() for weight in model.parameters())  # inference tensors could not be trained
    assert len(blocks(model)) == 2


def test_higher_block_starts_from_the_nearest_cached_block(tiny_model, tmp_path):
    model, tokenizer = load_pretrained(str(tiny_model))
    task = get_task("mnli")
    pairs = sources.load("nli", SOURCE)
    features = task.features(tokenizer, pairs, task.spec(pairs), Window(128), training=True)
    calls = []
    for i, block in enumerate(blocks(model)):
        block.register_forward_hook(lambda *_, i=i: calls.append(i))
    kept = {}
    for k in (1, 3, 2, 3):
        calls.clear()
        cache = FrozenCache(model, k, tokenizer, tmp_path / "kept", "f")
        kept[k] = np.concatenate([example.hidden for example in cache.cached(features)])
        ran = set(calls) - {0}  # block 1 also runs to find the form of a block's output
        assert ran == {1: set(), 3: set() if 2 in kept else {1, 2}, 2: {1}}[k]
    assert kept[1].shape == (sum(map(len, features)), 32)
    table = next((tmp_path / "kept").glob("*/*/layer3.safetensors"))
    assert np.array_equal(load_file(table)["hidden"], kept[3])


def test_interrupted_table_leaves_no_file_and_is_recomputed(tiny_model, tmp_path, monkeypatch):
    model, tokenizer = load_pretrained(str(tiny_model))
    task = get_task("mnli")
    pairs = sources.load("nli", SOURCE)
    features = task.features(tokenizer, pairs, task.spec(pairs), Window(128), training=True)
    cache = FrozenCache(model, 2, tokenizer, tmp_path / "kept", "f")
    with monkeypatch.context() as patch:
        patch.setattr("bertft.runs.files.os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cache.cached(features)
    assert not list((tmp_path / "kept").rglob("*layer*"))
    (leftover,) = [folder / ".layer2.safetensors.killed.part" for folder in (tmp_path / "kept").glob("*/*")]
    leftover.touch()
    assert len(cache.cached(features)) == len(features)
    assert sorted(path.name for path in (tmp_path / "kept").rglob("*layer*")) == ["layer2.safetensors"]


@pytest.mark.parametrize("how", ["flipped", "cut"])
def test_damaged_table_is_reported_and_recomputed(tiny_model, tmp_path, how):
    model, tokenizer = load_pretrained(str(tiny_model))
    task = get_task("mnli")
    pairs = sources.load("nli", SOURCE)
    features = task.features(tokenizer, pairs, task.spec(pairs), Window(128), training=True)
    good = [np.array(example.hidden) for example in FrozenCache(model, 1, tokenizer, tmp_path, "f").cached(features)]
    path = next(tmp_path.rglob("layer1.safetensors"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data if how == "flipped" else data[: len(data) // 2])
    higher = FrozenCache(model, 2, tokenizer, tmp_path, "f").cached(features)  # does not start from the damaged table
    said: list[str] = []
    progress = SimpleNamespace(step=SILENT.step, say=said.append)
    again = FrozenCache(model, 1, tokenizer, tmp_path, "f", progress).cached(features)
    assert len(said) == 1 and "layer1.safetensors: damaged" in said[0]
    assert all(np.array_equal(example.hidden, was) for example, was in zip(again, good, strict=True))
    whole = FrozenCache(model, 2, tokenizer, tmp_path / "other", "f").cached(features)
    assert all(np.allclose(a.hidden, b.hidden, atol=1e-5) for a, b in zip(higher, whole, strict=True))


@pytest.mark.parametrize("task", ["mnli", pytest.param("dep", marks=pytest.mark.slow)])
def test_training_is_bitwise_the_same_if_all_inputs_have_one_length(config, task, tmp_path, monkeypatch):
    """The cache is then computed in batches of the same shape, and dropout above it draws the same numbers.

    The length is a multiple of four. Otherwise (an odd length, on processors with AVX-512) examples do not fill the
    blocks of a matrix product, and the last bits of a row depend on its place in the batch.
    """
    import bertft.models.frozen_cache

    # the examples with the commonest such length
    loaded = sources.load(get_task(task).kind, "builtin:synthetic?split=train&size=200&seed=1")
    build = get_task(task)
    _, tokenizer = load_pretrained(config.model)
    features = build.features(tokenizer, loaded, build.spec(loaded), Window(128), training=True)
    lengths = [len(f) for f in features]
    commonest = max((n for n in set(lengths) if n % 4 == 0), key=lengths.count)
    chosen = [e for e, length in zip(loaded, lengths, strict=True) if length == commonest][:16]
    assert len(chosen) >= 8
    chosen = chosen[: len(chosen) // 8 * 8]
    monkeypatch.setattr(sources, "load", lambda *_, **__: chosen)
    batches = bertft.models.frozen_cache.length_sorted_batches
    monkeypatch.setattr(
        "bertft.models.frozen_cache.length_sorted_batches", lambda items, _: batches(items, 8 * commonest)
    )
    config = dataclasses.replace(config, task=task, freeze=2)
    plain = finetune(dataclasses.replace(config, out=tmp_path / "plain"))
    cached = finetune(dataclasses.replace(config, out=tmp_path / "cached", prefix_cache=tmp_path / "kept"))
    first, second = weights(plain.folder), weights(cached.folder)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert plain.metrics == cached.metrics


@pytest.mark.slow
@pytest.mark.parametrize("k", [1, 3])
def test_killed_training_on_the_cache_resumes_to_the_uncached_result(config, k, tmp_path):
    from training_runs import KillAt, Killed

    config = dataclasses.replace(config, freeze=k)
    plain = finetune(dataclasses.replace(config, out=tmp_path / "plain"))
    cached = dataclasses.replace(config, prefix_cache=tmp_path / "kept")
    with pytest.raises(Killed):
        finetune(cached, progress=KillAt(4))
    found = finetune(cached)
    base = load_pretrained(config.model)[0].state_dict()
    first, second = weights(plain.folder), weights(found.folder)
    assert first.keys() == second.keys()
    for name, value in first.items():
        # Adam divides by the root mean square of the gradient. If that is near 0, rounding moves a weight by up to the
        # learning rate in each of the six steps; most weights move far less.
        assert (second[name] - value).abs().max() <= 6 * 1e-3, name
        assert (second[name] - value).abs().mean() <= 1e-4, name
        if name.startswith(("embeddings.", *(f"encoder.layer.{i}." for i in range(k)))):
            assert torch.equal(value, base[name]) and torch.equal(second[name], base[name])
    assert found.metrics["uas_conll18"] == pytest.approx(plain.metrics["uas_conll18"], abs=3)
    assert finetune(config).folder == found.folder  # the cache is not part of the configuration


def test_frozen_modules_stay_in_evaluation_mode_during_training(tiny_model, config):
    task = get_task("mnli")
    model = build_model(task, load_pretrained(str(tiny_model))[0], task.spec([]), dataclasses.replace(config, freeze=1))
    model.train()
    stack = blocks(model.encoder)
    assert not any(module.training for module in [*model.encoder.embeddings.modules(), *stack[0].modules()])
    assert all(module.training for module in [*stack[1].modules(), *stack[2].modules(), *model.head.modules()])
    assert not any(module.training for module in model.eval().modules())

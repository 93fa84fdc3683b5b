"""``bertft rsa``: nulls, noise, first tokens and massive activations."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml

from bertft.cli.main import run
from bertft.models.encoder import Encoder
from bertft.runs.rows import read_results
from bertft.similarity import Plan, compare_vectors

TEXT = "builtin:synthetic?size=40"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved(encoder: Encoder, folder) -> str:
    encoder.model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    return str(folder)


def compare(base, tuned, *options: str) -> int:
    return run(["rsa", "--base", str(base), "--tuned", f"t={tuned}", "--text", TEXT, "--out", "run", "-q", *options])


def test_null_and_noise_are_rows_curves_and_settings(here, tiny_model, disturbed):
    tuned = saved(disturbed(0, blocks=(1,)), here / "tuned")
    assert compare(tiny_model, tuned, "--tokens", "all", "--measures", "rsa,cka", "--null", "100", "--noise") == 0
    rows = {(row.model, row.measure, row.layer): row for row in read_results(here / "run" / "results.csv")}
    for model in ("t", "noise of t"):
        value, null = rows[model, "rsa_cosine_pearson", 3], rows[model, "rsa_cosine_pearson_null", 3]
        assert null.value < null.high < value.value and null.n <= value.n
        assert (model, "cka_debiased_null_max", None) in rows
        calibrated = rows[model, "rsa_cosine_pearson_calibrated", 3]
        assert calibrated.value == pytest.approx((value.value - null.value) / (1 - null.value))
        assert calibrated.low < calibrated.value < calibrated.high
    assert rows["noise of t", "rsa_cosine_pearson", 1].value > 0.999999  # block 1 (from 0) alone has noise
    assert rows["noise of t", "rsa_cosine_pearson", 2].value < 0.9999
    assert ("t - noise of t", "rsa_cosine_pearson", 2) in rows
    drawn = (here / "run" / "figures" / "rsa_by_layer.csv").read_text(encoding="utf8")
    assert ",noise of t," in drawn and ",null,null," in drawn
    page = (here / "run" / "report.html").read_text(encoding="utf8")
    assert "Grey, null: mean and 95 % bound if texts trade places" in page and "compared with: t" in page
    assert "noise of X: the base with a random change of the size of" in page
    config = yaml.safe_load((here / "run" / "config.yaml").read_text(encoding="utf8"))
    assert (config["null"], config["noise"]) == (100, True) and "skip_first" not in config


def test_a_null_of_files_of_vectors_is_that_of_the_vectors(here):
    g = torch.Generator().manual_seed(0)
    groups = np.repeat(np.arange(40), 3)
    x, y = (torch.randn(2, 120, 6, generator=g).numpy() for _ in range(2))
    for name, vectors in (("x", x), ("y", y)):
        np.savez(here / name, vectors=vectors, ids=np.arange(120), groups=groups)
    command = ["rsa", "--base-vectors", "x.npz", "--tuned-vectors", "tuned=y.npz", "--null", "100", "--seed", "1"]
    assert run([*command, "--out", "run", "-q"]) == 0
    found = {(row.measure, row.layer): row for row in read_results(here / "run" / "results.csv")}
    expected = compare_vectors(x, y, Plan(null=100, seed=1), groups=groups.tolist())
    assert {row.measure for row in expected} >= {"cka_debiased_calibrated", "rsa_cosine_pearson_null"}
    for row in expected:
        assert found[row.measure, row.layer].value == pytest.approx(row.value, abs=1e-9)
    assert yaml.safe_load((here / "run" / "config.yaml").read_text(encoding="utf8"))["null"] == 100


def decoder(tiny_model, folder, noise: float = 0.0, factor: float = 1.0) -> str:
    """Save a tiny GPT-2 whose tokenizer puts no special token first, with a full stop ``factor`` times as long."""
    from tokenizers.processors import TemplateProcessing
    from transformers import GPT2Config, GPT2Model, PreTrainedTokenizerFast

    encoder = Encoder.from_pretrained(str(tiny_model))
    backend = encoder.tokenizer.backend_tokenizer
    backend.post_processor = TemplateProcessing(single="$A", pair="$A $B")
    encoder.tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", model_max_length=256
    )
    settings = {"n_positions": 256, "n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": len(encoder.tokenizer)}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        encoder.model = GPT2Model(GPT2Config(**settings))
        encoder.model.wte.weight[encoder.tokenizer.convert_tokens_to_ids(".")] *= factor
        for weight in encoder.model.h.parameters():
            weight += noise * torch.randn(weight.shape)
    return saved(encoder, folder)


def test_a_decoder_leaves_out_the_first_token_and_says_so(here, tiny_model):
    base = decoder(tiny_model, here / "gpt")
    assert compare(base, base, "--tokens", "all", "--no-intervals") == 0
    rows = read_results(here / "run" / "results.csv")
    config = yaml.safe_load((here / "run" / "config.yaml").read_text(encoding="utf8"))
    assert config["skip_first"] == 1 and "skip_first: 1" in (here / "run" / "report.html").read_text(encoding="utf8")
    assert compare(base, base, "--tokens", "all", "--no-intervals", "--skip-first", "0", "--out", "whole") == 0
    whole = read_results(here / "whole" / "results.csv")
    assert whole[0].n - rows[0].n == 40  # texts


def test_massive_activations_are_left_out_counted_and_listed(here, tiny_model, capsys):
    """The full stop of every text is massive in the layers before the final normalisation."""
    base, tuned = (decoder(tiny_model, here / str(noise), noise, factor=1000) for noise in (0.0, 0.3))
    assert compare(base, tuned, "--tokens", "all") == 0
    rows = {(row.model, row.measure, row.layer): row for row in read_results(here / "run" / "results.csv")}
    listed = json.loads((here / "run" / "massive.json").read_text(encoding="utf8"))
    assert {entry["token"] for entry in listed} == {"."} and {entry["encoder"] for entry in listed} == {"base", "t"}
    assert all(entry["layers"] == [0, 1] and entry["position"] >= 1 for entry in listed)
    stops = sum(entry["encoder"] == "base" for entry in listed)
    for model in ("base", "t"):
        counts = [rows[model, "massive_stimuli", layer].value for layer in range(3)]
        assert counts == [stops, stops, 0] and stops >= 20
    value, both = rows["t", "cka_debiased", 1], rows["t", "cka_debiased_with_massive", 1]
    assert both.value > max(0.9, value.high) and both.n - value.n == stops
    page = (here / "run" / "report.html").read_text(encoding="utf8")
    assert "stimuli are massive activations (layers 0, 1). All measures leave them out" in page

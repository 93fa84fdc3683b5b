"""bertft rsa in several processes under torchrun.

Equality with one process, and lost processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bertft.runs.rows import read_results

# The command line with small buffers, so that all processes share a short text, and with a process that may be lost.
WORKER = """
import os, signal
import torch
import bertft.similarity.compare.encoders as encoders
import bertft.similarity.compare.stream as stream
from bertft.cli.main import main
torch.set_num_threads(1)
stream.BUFFER, encoders.EVERY = 16, 0
saves = [0]
def save(self, tensors, record, kept=encoders.Checkpoint.save):
    kept(self, tensors, record)
    saves[0] += 1
    if os.environ.get("LOSE", "none") == os.environ.get("RANK") and saves[0] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
encoders.Checkpoint.save = save
if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model):
    import torch

    from bertft.models.encoder import Encoder

    folder = tmp_path_factory.mktemp("team")
    (folder / "worker.py").write_text(WORKER, encoding="utf8")
    tuned, g = Encoder.from_pretrained(str(tiny_model)), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in tuned.model.encoder.layer[1].parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=g).to(weight.device))
    tuned.model.save_pretrained(folder / "tuned")
    tuned.tokenizer.save_pretrained(folder / "tuned")
    return folder


def start(folder: Path, base: Path, processes: int, out: str, tokens: str = "all", **environment: str):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launch if processes > 1 else []), "worker.py", "rsa", "--base", str(base)]
    command += ["--tuned", "tuned", "--text", "builtin:synthetic?size=120", "--tokens", tokens, "--out", out]
    command += ["--sample", "200", "--measures", "rsa,cka,cca"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=600)


def same_numbers(first: Path, second: Path) -> None:
    a, b = read_results(first / "results.csv"), read_results(second / "results.csv")
    assert [row.key for row in a] == [row.key for row in b] and [row.n for row in a] == [row.n for row in b]
    for row, other in zip(a, b, strict=True):
        assert row.value == pytest.approx(other.value, rel=1e-12, abs=0)
        # widths follow from float32 rows of the same sample
        assert row.low == pytest.approx(other.low, rel=1e-6) and row.high == pytest.approx(other.high, rel=1e-6)


@pytest.fixture(scope="module")
def alone(folder, tiny_model):
    done = start(folder, tiny_model, 1, "one")
    assert done.returncode == 0, done.stderr
    return folder / "one"


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_equal_one(folder, tiny_model, alone, processes):
    out = f"together{processes}"
    done = start(folder, tiny_model, processes, out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Results are in") == 1
    same_numbers(alone, folder / out)
    assert not (folder / out / "checkpoint").exists()


@pytest.mark.slow
def test_a_number_of_tokens_is_the_same_stimuli(folder, tiny_model):
    for processes in (1, 2):
        done = start(folder, tiny_model, processes, f"cut{processes}", tokens="900")
        assert done.returncode == 0, done.stderr
    same_numbers(folder / "cut1", folder / "cut2")


@pytest.mark.slow
def test_a_lost_process_fails_the_run_but_keeps_the_sums(folder, tiny_model, alone):
    lost = start(folder, tiny_model, 2, "lost", LOSE="1")
    assert lost.returncode != 0 and not (folder / "lost" / "results.csv").exists()
    assert "error: process 0 of 2" in lost.stderr and "lost" in lost.stderr and "lost/checkpoint" in lost.stderr
    kept = sorted(path.name for path in (folder / "lost" / "checkpoint").iterdir())
    assert kept == ["0-of-2.safetensors", "1-of-2.safetensors"]
    other = start(folder, tiny_model, 1, "lost")
    assert other.returncode == 2 and "holds the sums of 2 processes, found 1" in other.stderr
    again = start(folder, tiny_model, 2, "lost")
    assert again.returncode == 0, again.stderr
    assert "resuming after" in again.stderr
    same_numbers(alone, folder / "lost")

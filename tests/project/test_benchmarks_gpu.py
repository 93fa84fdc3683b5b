"""The GPU benchmark on a machine without a GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2]))  # last, so that the installed package is tested

from benchmarks import bench_gpu as gpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_reported(capsys):
    assert gpu.main([]) == 1
    assert "no GPU is visible, so nothing was measured" in capsys.readouterr().err


def test_every_kernel_is_right_in_a_dry_run(capsys):
    assert gpu.main(["--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 9 and all(line.endswith(": right") for line in lines)


def test_table_names_card_limits_and_ratios():
    limits = gpu.Limits({"float32": 5e13}, 3e12)
    row = gpu.Row("k", "1 x 2", 2e-3, 1e-4, {"torch": 6e-3}, 1e-3, "GEMM", 1e-7)
    text = gpu.table([row], limits, "Card")
    assert text.startswith("Card; measured: float32 GEMM 50.0 TFLOP/s, copy 3.00 TB/s")
    assert "| k | 1 x 2 | 2 | 0.1 | torch 6 (3x) | 50% of GEMM | 1e-07 |" in text

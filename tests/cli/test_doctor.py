"""What ``bertft doctor`` finds on this machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from bertft.cli.doctor import report, tools
from bertft.ops.native import cpu


def test_the_report_names_versions_devices_tools_kernels_and_models(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = report()
    assert list(found) == ["versions", "devices", "tools", "kernels", "models"]
    assert found["versions"]["torch"] == torch.__version__ and found["versions"]["python"] == platform.python_version()
    assert f"{os.cpu_count()} logical cores" in found["devices"]["cpu"]
    gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    assert found["devices"]["memory"] == f"{gib:.1f} GiB"
    assert (found["kernels"]["in use"] != "plain PyTorch") == cpu.load()
    assert found["models"]["hub"].startswith("offline")
    assert Path(found["tools"]["schema of studies"]).name == "study.schema.json"
    assert Path(found["tools"]["schema of studies"]).is_file()


def test_tools_that_are_missing_are_said_to_be(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert tools()["C++ compiler"].startswith("none in use: there is no C++ compiler (no-such-compiler ")

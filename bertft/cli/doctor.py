"""Report of ``bertft doctor`` on this machine.

Versions, devices, tools, kernels and models.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from bertft.errors import BertftError
from bertft.models.names import resolve_model
from bertft.runs.versions import versions
from bertft.study.schema import SCHEMA

__all__ = ["devices", "kernels", "models", "report", "tools"]


def devices() -> dict[str, str]:
    """Return the CPU, its threads, the memory, and every GPU that torch sees."""
    import torch

    found = {
        "cpu": f"{_cpu_name()}, {os.cpu_count()} logical cores, torch uses {torch.get_num_threads()} threads",
        "memory": _memory(),
    }
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            found[f"cuda:{index}"] = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, compute {gpu.major}.{gpu.minor}"
    else:
        found["cuda"] = "none in use" if torch.version.cuda else "none: this torch is built for the CPU only"
    return found


def tools() -> dict[str, str]:
    """Return the compiler and the ninja that build the kernels, and the schema by which editors check a study."""
    from bertft.ops.native.build import find_compiler

    try:
        compiler = find_compiler()
        found = {"C++ compiler": f"{compiler} ({_first_line([*compiler.split(), '--version'])})"}
    except Exception as error:  # any reason is worth showing
        found = {"C++ compiler": f"none in use: {' '.join(str(error).split())}"}
    try:
        import ninja

        executable = Path(ninja.BIN_DIR) / "ninja"
        found["ninja"] = f"{executable} ({_first_line([str(executable), '--version'])})"
    except ImportError:
        found["ninja"] = "not installed"
    found["schema of studies"] = str(SCHEMA)
    return found


def kernels() -> dict[str, str]:
    """Return which kernels are in use and why. Builds or loads them, which takes some seconds the first time."""
    from bertft.ops.native import cpu, cuda

    status = cpu.status()
    words = {"compiled": "compiled for this machine", "reference": "plain PyTorch"}
    shown = {
        "in use": words.get(str(status.get("kernels")), str(status.get("kernels"))),
        "why": str(status.get("reason")),
    }
    for name, value in status.items():
        if name not in ("loaded", "kernels", "reason"):
            shown[name] = (
                " ".join(map(str, value))
                if isinstance(value, (list, tuple))
                else str(round(value, 2) if isinstance(value, float) else value)
            )
    on_gpu = cuda.status()
    shown["on a GPU"] = ("compiled" if on_gpu["loaded"] else "plain PyTorch") + f": {on_gpu['reason']}"
    return shown


def models() -> dict[str, str]:
    """Return the sources of models: the packaged encoder and the hub."""
    try:
        packaged = resolve_model("builtin:minilm")
    except BertftError as error:
        packaged = f"not available: {error}"
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return {
        "builtin:minilm": str(packaged),
        "hub": f"offline (HF_HUB_OFFLINE is set), cache {home}"
        if offline
        else f"used when a hub id is given, cache {home}",
    }


def report() -> Mapping[str, Mapping[str, str]]:
    """Return the sections of the report: title, name, finding."""
    return {
        "versions": {**versions(), "executable": sys.executable},
        "devices": devices(),
        "tools": tools(),
        "kernels": kernels(),
        "models": models(),
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> str:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return "unknown"
    return f"{total / 2**30:.1f} GiB"


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not run: {error}"
    return (done.stdout or done.stderr).strip().split("\n")[0]

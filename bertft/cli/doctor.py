"""What is installed, what the machine has, and which kernels are in use and why."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["devices", "kernels", "models", "report", "tools", "versions"]

PACKAGES = (
    "bertft",
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "safetensors",
    "tokenizers",
    "numpy",
    "scipy",
    "matplotlib",
    "plotly",
)


def versions() -> dict[str, str]:
    """Versions of Python and of every package a number may depend on; imports none of them."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            if package == "bertft":  # imported from a source tree
                from bertft import __version__

                found[package] = __version__
            else:
                found[package] = "not installed"
    return found


def devices() -> dict[str, str]:
    """The CPU, its threads, the memory, and every GPU torch sees."""
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
    """The compiler and ninja that build the kernels at first use."""
    from bertft.ops.native.build import find_compiler

    try:
        compiler = find_compiler()
        found = {"C++ compiler": f"{compiler} ({_first_line([*compiler.split(), '--version'])})"}
    except Exception as error:  # whatever the reason is, it is what the user wants to read here
        found = {"C++ compiler": f"none in use: {' '.join(str(error).split())}"}
    try:
        import ninja

        executable = Path(ninja.BIN_DIR) / "ninja"
        found["ninja"] = f"{executable} ({_first_line([str(executable), '--version'])})"
    except ImportError:
        found["ninja"] = "not installed"
    return found


def kernels() -> dict[str, str]:
    """Which kernels are in use and why; builds or loads them, which takes some seconds the first time."""
    from bertft.ops.native import cpu as extension
    from bertft.ops.native import cuda as extension_cuda

    status = extension.status()
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
    cuda = extension_cuda.status()
    shown["on a GPU"] = ("compiled" if cuda["loaded"] else "plain PyTorch") + f": {cuda['reason']}"
    return shown


def models() -> dict[str, str]:
    """Where models come from: the packaged encoder and the hub."""
    from bertft.data.sources import resolve_model
    from bertft.errors import BertftError

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
    """Every section of ``bertft doctor``: title -> name -> finding."""
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

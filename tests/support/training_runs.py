"""Killed training runs, and their weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from bertft.runs.progress import SILENT


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors") | {
        f"head.{k}": v for k, v in load_file(folder / "head.safetensors").items()
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class Killed(Exception):
    pass


class KillAt:
    """A progress that ends the run at one training step."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.steps = 0

    def step(self, description, total=None, unit="it"):
        return self if description.startswith("fine-tune") else SILENT.step(description, total, unit)

    def say(self, message):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def note(self, text):
        pass

    def advance(self, n=1):
        self.steps += n
        if self.steps >= self.at:
            raise Killed

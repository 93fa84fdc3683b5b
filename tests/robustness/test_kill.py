"""Studies killed at random moments and resumed.

The same command resumes a killed study to the results of an uninterrupted one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open

ROOT = Path(__file__).parents[2]
SEEDS = tuple(range(10))
TASK = {
    "train": "builtin:synthetic?split=train&size=16&seed=1",
    "dev": "builtin:synthetic?split=dev&size=8&seed=1",
    "epochs": 2,
    "batch_size": 8,
}
STUDY = {
    "name": "killed",
    "seed": 5,
    "tasks": {"dep": TASK, "mnli": TASK},
    "stimuli": {"plain": {"source": "builtin:synthetic?size=40&seed=2"}},
    "rsa": {"tokens": 120},
    "probes": {
        "train": "builtin:synthetic?split=train&size=16&seed=3",
        "dev": "builtin:synthetic?split=dev&size=12&seed=3",
        "rank": 4,
        "epochs": 2,
    },
    "edge": {
        "arcs": {
            "train": "builtin:synthetic?split=train&size=16",
            "dev": "builtin:synthetic?split=dev&size=8",
            "steps": 4,
            "interval": 2,
        }
    },
}
# files with times in them
TIMES = ("run.json", "bertft.json", ".done.json", "report.html", "README.md")


def content(path: Path) -> Any:
    """Return a file's bytes, or the contents of safetensors, because the order of their metadata differs by process."""
    if path.suffix != ".safetensors":
        return path.read_bytes()
    with safe_open(path, framework="np") as file:
        return file.metadata(), {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118


@pytest.mark.slow
def test_a_study_killed_at_random_moments_resumes_to_the_same_numbers(tiny_model, tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump({**STUDY, "model": str(tiny_model)}, sort_keys=False), encoding="utf8")
    command = [sys.executable, str(Path(__file__).parents[1] / "support" / "killer.py"), str(study), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *map(str, SEEDS)], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    kills = json.loads(done.stdout.splitlines()[-1])["kills"]
    assert len(kills) == len(SEEDS) and all(kills.values())
    compare(tmp_path)


def files(folder: Path) -> dict[str, Any]:
    """Return the contents of a run folder's files by name, without the lock."""
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {str(name): content(path) for name, path in found.items() if name != Path(".lock")}


def compare(tmp_path: Path) -> None:
    """Check that every folder has the files of ``whole`` with the same contents, except times."""
    whole = files(tmp_path / "whole")
    assert {"results.csv", "report.html", "models/dep/model.safetensors", "edge/arcs.csv"} <= whole.keys()
    for seed in SEEDS:
        killed = files(tmp_path / str(seed))
        assert killed.keys() == whole.keys(), (seed, killed.keys() ^ whole.keys())
        other = [name for name, data in whole.items() if killed[name] != data and not name.endswith(TIMES)]
        assert not other, (seed, other)

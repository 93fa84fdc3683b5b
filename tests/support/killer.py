"""Runs of a study killed at random moments.

    killer.py STUDY FOLDER SEED ...

``FOLDER/whole`` is an uninterrupted run. ``FOLDER/SEED`` is killed with SIGKILL at moments drawn with the seed, and
started again until it ends. Moments are seconds of processor time, which do not depend on the load of the machine. One
process imports everything and each run is a fork of it, so that ten seeds take minutes. The program prints
``{"seconds": ..., "kills": {seed: [moment, ...]}}``.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time

import matplotlib.figure  # noqa: F401  all of these: so that the forks need not
import plotly.offline  # noqa: F401
import psutil
import torch

import bertft.models.finetuning.run
import bertft.models.finetuning.training  # noqa: F401
from bertft.study.reader import read_study
from bertft.study.run import run_study

MOST = 3  # kills of one run


def begin(study: str, out: str) -> int:
    """Run the study in a child process; return its number."""
    child = os.fork()
    if child:
        return child
    try:
        run_study(read_study(study), out)
        code = 0
    except BaseException as error:
        print(type(error).__name__, error, file=sys.stderr, flush=True)
        code = 1
    os._exit(code)


def wait(child: int, moment: float) -> float | None:
    """Kill the process at ``moment`` seconds of processor time and return None; return its total if it ends first."""
    process, used = psutil.Process(child), 0.0
    while used < moment:
        times = process.cpu_times()
        used = times.user + times.system
        if process.status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.02)
    else:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return None
    if status:
        sys.exit(f"a run failed: {status}")
    return used


def main(study: str, folder: str, *seeds: str) -> None:
    torch.set_num_threads(1)
    seconds = wait(begin(study, f"{folder}/whole"), float("inf"))
    assert seconds is not None
    kills: dict[str, list[float]] = {}
    for seed in seeds:
        draw = random.Random(int(seed))
        kills[seed] = []
        while True:
            moment = draw.uniform(0, seconds) if len(kills[seed]) < MOST else float("inf")
            if wait(begin(study, f"{folder}/{seed}"), moment) is None:
                kills[seed].append(round(moment, 2))
            elif kills[seed]:
                break
            else:  # this run ended before its first moment: try again
                shutil.rmtree(f"{folder}/{seed}")
    print(json.dumps({"seconds": seconds, "kills": kills}))


if __name__ == "__main__":
    main(*sys.argv[1:])

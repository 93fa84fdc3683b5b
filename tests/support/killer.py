"""A study begun, killed with SIGKILL at random moments and begun again until it ends: killer.py STUDY FOLDER SEED ...

``FOLDER/whole`` is the study that nobody touched, ``FOLDER/SEED`` the one killed at the moments that the seed draws, in
seconds of processor time, which a busy machine does not stretch. One process imports everything once and each run is a
fork of it, so that ten seeds take minutes. Prints ``{"seconds": ..., "kills": {seed: [moment, ...]}}``.
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
    """The process that runs the study."""
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
    """Kill the process once it has used ``moment`` seconds of processor time, or return what it used in all."""
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
            else:  # this run needed less than the first one did and was over before its moment
                shutil.rmtree(f"{folder}/{seed}")
    print(json.dumps({"seconds": seconds, "kills": kills}))


if __name__ == "__main__":
    main(*sys.argv[1:])

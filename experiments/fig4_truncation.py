"""Figure 4: score of each task by the number of blocks that are left."""

from __future__ import annotations

from collections.abc import Sequence

from bertft.ablation import sweep_stages
from bertft.lab import Lab
from bertft.report.figures import Figure
from bertft.results import Row
from bertft.run_folder import Stage

KIND = "truncate"


def stages(lab: Lab) -> list[Stage]:
    """The sweep of every task and seed. Options ``sweep``: ``seeds``, ``k`` (a list; default all) and ``tasks``, by
    name what differs from the study's fine-tuning, such as ``max_train``."""
    options = lab.options("sweep")
    found = []
    for seed in options["seeds"]:
        for task, changes in options["tasks"].items():
            name = f"{KIND}/{task}/seed{seed}"
            config = lab.driver(seed, task, lab.out, **changes)
            depths = options.get("k", {}).get(KIND)
            found += sweep_stages(
                KIND, config, lab.out, depths_wanted=depths, name=name, keep=False, progress=lab.progress
            )
    return found


def figures(rows: Sequence[Row], lab: Lab) -> list[Figure]:
    return lab.drawn(rows, f"{KIND}_by_k")

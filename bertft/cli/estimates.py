"""``--dry-run``: what a run would cost, as a table or as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bertft.cli.console import clock

if TYPE_CHECKING:
    from bertft.study.estimate import Estimate
    from bertft.study.timing import StageCost


def shown(estimate: Estimate, as_json: bool) -> str:
    """The lines a dry run prints: a row a stage, then the sum in a sentence, then what the machine lacks."""
    if as_json:
        return json.dumps(estimate.to_tree(), indent=1)
    rows = [("stage", "time", "disk", "memory", "work"), *map(_row, estimate.stages)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for stage, *numbers, work in rows:
        cells = [stage.ljust(widths[0]), *(n.rjust(w) for n, w in zip(numbers, widths[1:], strict=True)), work]
        lines.append("  ".join(cells))
    return "\n".join([*lines, "", *_summary(estimate)])


def _row(cost: StageCost) -> tuple[str, str, str, str, str]:
    time = clock(cost.seconds)
    if cost.done:
        return cost.stage, time, "", "", "done before"
    limit = "at most " if cost.at_most else ""
    memory = size(cost.memory) + (f" + {size(cost.gpu)} of the GPU" if cost.gpu else "")
    return cost.stage, limit + time, size(cost.kept + cost.scratch), memory, cost.work


def _summary(estimate: Estimate) -> list[str]:
    left = sum(not cost.done for cost in estimate.stages)
    if not left:
        return ["Every stage is done; the same command without --dry-run draws the page again."]
    early = " (less where probes stop early)" if any(c.at_most for c in estimate.stages if not c.done) else ""
    lines = [
        f"{left} of {len(estimate.stages)} stages to do: about {clock(estimate.seconds)} on this machine if nothing "
        f"else runs on it{early}.",
        f"Disk: {size(estimate.kept)} in the end, {size(estimate.disk)} at most while it runs; "
        f"{size(estimate.free)} free.",
        f"Memory: about {size(estimate.peak)}" + (f" of {size(estimate.memory)}." if estimate.memory else "."),
    ]
    if estimate.peak_gpu:
        lines.append(f"The GPU's memory: about {size(estimate.peak_gpu)} of {size(estimate.gpu)}.")
    if estimate.disk > estimate.free:
        lines.append("The disk is too small for it: choose another --out, or make room.")
    if 0 < estimate.memory < estimate.peak:
        lines.append("The memory is too small for it: choose a smaller batch_size, max_length or model.")
    if 0 < estimate.gpu < estimate.peak_gpu:
        lines.append("The GPU's memory is too small for it: choose a smaller batch_size, max_length or model.")
    return [*lines, "Nothing was written."]


def size(count: int) -> str:
    """Bytes as MB or GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"

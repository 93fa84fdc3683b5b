"""The benchmark table as Markdown, JSON and a figure."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import torch

from benchmarks.harness import OURS, Record

HEADER = (
    "| work | threads | contender | median | quartiles | bertft is ... times faster "
    "| of the limit | extra memory | error |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)


def markdown(records: list[Record]) -> str:
    """Return one table; the measured rate of the limit is in the row of our own op."""
    lines = []
    for record in records:
        ours = record.seconds(OURS)
        for row in sorted(record.rows, key=lambda r: r.median):
            mine = row.name == OURS
            name = f"**{row.name}**" if mine else row.name
            ratio = "" if mine else f"{row.median / ours:.2f}"
            unit = "GFLOP/s" if record.limit == "GEMM" else "GB/s"
            share = f"{record.limit_seconds / row.median:.2f}"
            if mine:
                share += f" of {record.limit_rate / 1e9:.0f} {unit}"
            memory = "" if row.peak_mb is None else f"{row.peak_mb:.0f} MB"
            error = "" if row.error is None else f"{row.error:.0e}"
            lines.append(
                f"| {record.work} | {record.threads} | {name} | {_seconds(row.median)} | "
                f"{_seconds(row.low)} - {_seconds(row.high)} | {ratio} | {share} | {memory} | {error} |"
            )
    return HEADER + "\n".join(lines) + "\n"


def write(records: list[Record], folder: Path) -> list[Path]:
    """Write benchmarks.md, benchmarks.json and benchmarks.png/.svg into ``folder``; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    text = (
        f"Measured on {_machine()}. Ratios are of one run; each result was verified before it was timed.\n\n"
        + markdown(records)
    )
    (folder / "benchmarks.md").write_text(text, "utf8")
    data = {"machine": _machine(), "records": [record.as_dict() for record in records]}
    (folder / "benchmarks.json").write_text(json.dumps(data, indent=1) + "\n", "utf8")
    return [folder / "benchmarks.md", folder / "benchmarks.json", *_figure(records, folder)]


def _figure(records: list[Record], folder: Path) -> list[Path]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    labels, shares, best = [], [], []
    for record in records:
        labels.append(f"{record.work}, {record.threads} thread{'s' if record.threads > 1 else ''}")
        shares.append(record.limit_seconds / record.seconds(OURS))
        peers = [row.median for row in record.rows if not row.name.startswith(OURS) and row.error is not None]
        best.append(record.limit_seconds / min(peers) if peers else float("nan"))
    figure, axes = plt.subplots(figsize=(11, 1.5 + 0.26 * len(labels)), layout="constrained")
    rows = range(len(labels))
    axes.barh(rows, shares, height=0.6, color="#0072B2", label="bertft")
    axes.plot(best, rows, "D", color="#D55E00", label="fastest other way", linestyle="none")
    axes.axvline(1.0, color="black", linewidth=1, linestyle="--", label="limit measured in the same run")
    axes.set_yticks(rows, labels, fontsize=8)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlabel("share of the limit (1 = measured rate)")
    figure.legend(fontsize=8, loc="outside upper center", ncols=3, frameon=False)
    paths = [folder / "benchmarks.png", folder / "benchmarks.svg"]
    with plt.rc_context({"svg.fonttype": "none"}):
        for path in paths:
            figure.savefig(path, dpi=80)
    plt.close(figure)
    return paths


def _machine() -> str:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = f"{names[0]}, {len(names)} cores" if names else model
    return f"{model}; torch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()})"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.2f} ms" if value >= 1e-3 else f"{value * 1e6:.0f} us"

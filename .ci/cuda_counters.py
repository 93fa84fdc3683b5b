"""Requests of every CUDA kernel, counted without a GPU, and the time that they predict.

    python .ci/cuda_counters.py [FILE.cu ...] [--instructions] [--write docs/cuda_counters.md]

The kernels run on the CPU executor (tests/cuda_on_cpu) at a few small sizes; their figures are extrapolated exactly to
the benchmark's (counter_cases.py). Fails if they break a promise of a kernel's header:

    // counters: KERNEL no bank conflicts, load sectors 1.0, store sectors <= 2.0

Arithmetic, which the executor does not see, comes from the header's formulas (instructions of warps); so do all the
instructions issued, read off the machine code, where a header states them:

    // float32: KERNEL warps * 64 * d
    // issued: KERNEL tensor * 265 / 96
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "cuda_on_cpu")]

from counter_cases import CASES, CSRC, Case  # noqa: E402
from gpu_counters import arithmetic, broken, by_line, header_of, sectors  # noqa: E402


@dataclass(frozen=True)
class Card:
    """Rates of a GPU. An H200: 132 multiprocessors; clock under load; bytes/s of L2 and of a copy (docs/gpu.md)."""

    processors: int = 132
    clock: float = 1.755e9
    tensor: float = 615e12  # flop/s of float16 by mma.sync: 62 % of the 989 that the card's data sheet states
    l2: float = 5.5e12
    hbm: float = 4.3e12  # measured: copy


H200 = Card()
MMA = 2 * 16 * 8 * 16  # flop


@dataclass
class Row:
    """A kernel in a work, at the benchmark's size."""

    case: Case
    kernel: str
    count: Counter
    float32: float
    float64: float
    issued: float  # 0: not stated

    def seconds(self, card: Card = H200) -> dict[str, float]:
        """Return the time that each part of the card needs."""
        c, second = self.count, card.processors * card.clock
        memory = sum(c[f"{side} {kind}"] for side in ("shared", "global") for kind in ("loads", "stores", "atomics"))
        known = self.float32 + self.float64 + memory + c["ldmatrix"] + c["cp.async"] + c["tensor"] + c["exchanges"]
        return {
            "tensor": c["tensor"] * MMA / card.tensor,
            "float32": self.float32 / (4 * second),
            "float64": self.float64 / (2 * second),
            "issue": max(self.issued, known + c["barriers"]) / (4 * second),
            "L1": (c["wavefronts"] + c["lines"]) / second,
            "L2": c["L2"] * 32 / card.l2,
            "HBM": c["HBM"] * 32 / card.hbm,
        }


def count(case: Case, folder: Path | None = None) -> list[Row]:
    """Run a case; ``folder``: of the kernel files, if it is not csrc/cuda."""
    header = header_of((folder or CSRC / "cuda") / case.source)
    rows = []
    for kernel, found in case.full(folder).items():
        kinds = (arithmetic(header, kind, kernel, found | case.sizes) for kind in ("float32", "float64", "issued"))
        rows.append(Row(case, kernel, found, *kinds))
    return rows


def faults(rows: list[Row], folder: Path | None = None) -> list[str]:
    """Return the promises that are broken, of the files that rows are of."""
    found: dict[str, dict[str, list[Counter]]] = {}
    for row in rows:
        found.setdefault(row.case.source, {}).setdefault(row.kernel, []).append(row.count)
    return [text for name, counts in found.items() for text in broken((folder or CSRC / "cuda") / name, counts)]


def line(row: Row) -> list[str]:
    """Return the cells of a row."""
    c, warps, seconds = row.count, row.count["warps"] or 1, row.seconds()
    limit = max(seconds, key=seconds.__getitem__)
    each = lambda value: f"{value / warps:,.0f}" if value else ""
    shared = sum(c[f"shared {kind}"] for kind in ("loads", "stores", "atomics"))
    requests = sum(c[f"global {kind}"] for kind in ("loads", "stores", "atomics"))
    own = row.case.measured
    return [
        *(row.case.work, row.kernel.removesuffix("_kernel"), each(c["tensor"]), each(row.float32), each(row.float64)),
        *(each(shared), each(c["ldmatrix"]), each(requests), each(c["cp.async"]), each(c["barriers"])),
        f"{100 * c['conflicts'] / c['wavefronts']:.0f} %" if c["wavefronts"] else "",
        *(f"{sectors(c, side):.2f}" if c[f"{side} sectors"] else "" for side in ("load", "store")),
        *(f"{c[where] * 32 / 1e9:.2f}" for where in ("L2", "HBM")),
        f"{1e3 * seconds[limit]:.3f}",
        limit,
        f"{own:g} ({1e3 * seconds[limit] / own:.2f})" if own else "",
    ]


def instructions(case: Case) -> str:
    """Return the instructions of the last run with conflicts or more sectors than the fewest, a line each."""
    lines = []
    for kernel, place, what, requests, conflicts, touched, fewest in by_line(case.launches):
        if kernel in case.kernels and (conflicts or touched > fewest):
            cost = f"{conflicts} conflicts" if conflicts else f"{touched} sectors for {fewest}"
            lines.append(f"  {kernel} {place}: {what}: {requests} requests, {cost}")
    return "\n".join(lines)


HEAD = [
    *("work", "kernel", "mma", "float32", "float64", "shared", "ldmatrix", "global", "cp.async", "barriers"),
    *("conflicts", "load sectors", "store sectors", "L2 GB", "HBM GB", "predicted ms", "by", "measured ms (ratio)"),
]


def table(rows: list[Row]) -> str:
    """Return Markdown, a kernel a row."""
    lines = [HEAD, ["---"] * 2 + ["--:"] * (len(HEAD) - 4) + ["---", "--:"], *map(line, rows)]
    lines[1][-3:] = ["--:", "---", "--:"]
    widths = [max(len(cells[i]) for cells in lines) for i in range(len(HEAD))]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |" for cells in lines
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", help="names of kernel files; all of csrc/cuda when none is given")
    parser.add_argument("--instructions", action="store_true", help="list those that cost more than they need to")
    parser.add_argument("--write", type=Path, help="put the table into this page of the documentation")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for case in CASES:
        if arguments.files and case.source not in arguments.files:
            continue
        start = time.perf_counter()
        rows += count(case)
        print(f"{case.work}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
        if arguments.instructions:
            print(instructions(case))
    print(table(rows))
    wrong = faults(rows)
    for text in wrong:
        print(f"FAILED {text}", file=sys.stderr)
    if arguments.write and not wrong:
        write(arguments.write, table(rows))
    return 1 if wrong else 0


def write(page: Path, text: str) -> None:
    """Put the table between the page's two marks."""
    old = page.read_text(encoding="utf-8")
    before, rest = old.split("<!-- table -->\n", 1)
    _, after = rest.split("<!-- end of the table -->\n", 1)
    page.write_text(f"{before}<!-- table -->\n{text}\n<!-- end of the table -->\n{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

"""Requests of the kernels of a call, added up, and what a kernel's header promises about them.

``Kernels(source, "counting")`` leaves the launches of the last call in ``launches``; `totals` adds them up by kernel:

================================== ===================================================================================
launches, blocks, warps            of the kernel
tensor, exchanges                  mma; shuffles, votes and ``__syncwarp``, by warps
barriers                           ``__syncthreads``, by warps
shared loads/stores/atomics        instructions of warps, any width
ldmatrix, cp.async
global loads/stores/atomics
wavefronts, conflicts              passes through shared memory; those beyond the least that the widths need
conflicts of loads, ...            by kind: loads, stores, atomics, ldmatrix, cp.async
load/store sectors, least ...      32-byte sectors of global memory; the fewest that hold as many bytes
lines                              128-byte lines that requests touch
L2                                 sectors: distinct ones a block reads, all of cp.async and all that are written
HBM                                sectors: distinct ones that the launch reads, and writes
================================== ===================================================================================

Accesses are those of g++'s code (-O1): what it keeps in registers is not seen, as with nvcc, though not the same. Plain
arithmetic is not seen at all.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

from gpu_executor import source_line

KINDS = {"load": "loads", "store": "stores", "atomic": "atomics"}


def name_of(launch: dict) -> str:
    """Return the kernel's name without template arguments."""
    return re.match(r"\(*(\w+::)*(\w+)", launch["kernel"])[2]


def totals(launches: list[dict]) -> dict[str, Counter]:
    """{kernel: figures of the table above}."""
    found: dict[str, Counter] = {}
    for launch in launches:
        count = found.setdefault(name_of(launch), Counter())
        warps = -(-launch["threads"] // 32)
        count.update(launches=1, blocks=launch["blocks"], warps=launch["blocks"] * warps)
        count.update(barriers=launch["barriers"] * warps, tensor=launch["tensor"], exchanges=launch["exchanges"])
        count["L2"] += launch["read_by_block"] + launch["written_by_block"]
        count["HBM"] += launch["read"] + launch["written"]
        for instruction in launch["instructions"]:
            count.update(_figures(instruction))
    return found


def _figures(instruction: dict) -> dict[str, int]:
    what, requests = instruction["what"], instruction["requests"]
    if instruction["shared"]:
        name, passes = KINDS.get(what, what.removesuffix(" to")), instruction["wavefronts"]
        beyond = passes - instruction["least_wavefronts"]
        own = {} if name == "cp.async" else {f"shared {name}" if what in KINDS else name: requests}
        return {**own, "wavefronts": passes, "conflicts": beyond, f"conflicts of {name}": beyond}
    side = "load" if what in ("load", "cp.async from") else "store"
    figures = {
        f"{side} sectors": instruction["sectors"],
        f"least {side} sectors": instruction["least_sectors"],
        "lines": instruction["lines"],
    }
    return figures | ({f"global {KINDS[what]}": requests} if what in KINDS else {"cp.async": requests})


def sectors(count: Counter, side: str) -> float:
    """Return how many times the fewest sectors the loads ("load") or stores ("store") of a kernel touch."""
    return count[f"{side} sectors"] / (count[f"least {side} sectors"] or 1)


def promises(header: str) -> dict[str, list[str]]:
    """{kernel: promises} of lines ``counters: KERNEL no bank conflicts, load sectors 1.0, store sectors <= 2.0``."""
    found: dict[str, list[str]] = {}
    for kernel, text in re.findall(r"^counters:\s*(\w+) (.*)$", header, flags=re.MULTILINE):
        found.setdefault(kernel, []).extend(promise.strip() for promise in text.split(","))
    return found


def header_of(source: Path) -> str:
    """Return the comment at the top of a kernel file."""
    lines = source.read_text(encoding="utf-8").splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("//"))
    return "\n".join(line[2:].strip() for line in lines[:end])


def by_line(launches: list[dict]) -> list[tuple]:
    """(kernel, file:line, instruction, requests, wavefronts beyond the least, sectors, fewest sectors), most first."""
    found: dict[tuple, list[int]] = {}
    for launch in launches:
        for one in launch["instructions"]:
            file, line, pc = one["place"]
            file, line = source_line(*pc) if pc else (file, line)
            where = "shared" if one["shared"] else "global"
            what = f"{where} {one['what']} of {one['bytes']}"
            figures = found.setdefault((name_of(launch), f"{Path(file or '?').name}:{line}", what), [0] * 4)
            beyond = one["wavefronts"] - one["least_wavefronts"]
            for i, value in enumerate((one["requests"], beyond, one["sectors"], one["least_sectors"])):
                figures[i] += value
    return sorted(((*key, *figures) for key, figures in found.items()), key=lambda row: -row[4] - row[5] + row[6])


def arithmetic(header: str, kind: str, kernel: str, known: dict[str, float]) -> float:
    """Return the instructions of warps by the header's line ``KIND: KERNEL formula``; 0 without one.

    ``known``: figures of `totals`, spaces as underscores, and the sizes of the work.
    """
    match = re.search(rf"^{kind}: {kernel} (.*)$", header, flags=re.MULTILINE)
    names = {name.replace(" ", "_"): value for name, value in known.items()}
    return float(eval(match[1], {"__builtins__": {}}, defaultdict(int, names))) if match else 0.0


def broken(source: Path, found: dict[str, list[Counter]]) -> list[str]:
    """Return the promises of the header that the kernels break, each counted in one or several works."""
    faults = []
    for kernel, texts in promises(header_of(source)).items():
        if not found.get(kernel):
            faults.append(f"{source.name}: its header promises something of {kernel}, which was not counted")
        for text in texts:
            problems = [problem for count in found.get(kernel, []) if (problem := _broken(text, count))]
            faults += [f"{source.name}: {kernel}: its header promises {text!r}, but {problems[0]}"] if problems else []
    return faults


def _broken(promise: str, count: Counter) -> str | None:
    if match := re.fullmatch(r"no bank conflicts( of \S+)?", promise):
        conflicts = count[f"conflicts{match[1] or ''}"]
        return f"{conflicts} of {count['wavefronts']} wavefronts are conflicts" if conflicts else None
    if match := re.fullmatch(r"bank conflicts <= (\d+) %", promise):
        share = 100 * count["conflicts"] / (count["wavefronts"] or 1)
        return f"{share:.1f} % of the wavefronts are conflicts" if share > int(match[1]) else None
    if match := re.fullmatch(r"(?:(load|store) )?sectors (?:<= )?(\d+\.\d+)", promise):
        worst = max(sectors(count, side) for side in ([match[1]] if match[1] else ["load", "store"]))
        return f"they are {worst:.2f} times the fewest" if worst > float(match[2]) + 0.005 else None
    return "nobody knows how to check that"

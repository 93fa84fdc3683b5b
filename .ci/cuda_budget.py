"""Resource checks of the compiled CUDA kernels.

Every csrc/cuda/*.cu is compiled for real GPUs, which need not be present, and compared with its header:

    python .ci/cuda_budget.py [FILE.cu ...] [--write docs/cuda_resources.md]

For sm_80, sm_90 and sm_100, with the defines under which torch builds extensions:
- ptxas: no more registers than the header's ``// registers: <= N`` (``NAME <= N`` for a single kernel); no spills, or
  at most the bytes, up to 24, in ``// spills: NAME <= N``;
- machine code: contains the tensor cores, cp.async, ldmatrix or 16-byte loads that the header mentions, and as many
  instructions as ``// instructions: NAME 96 HMMA, 32 HMMA from zero, 16 LDSM, 32 LDGSTS`` states.

nvcc: $CUDA_HOME, PATH, or the PyPI packages nvidia-cuda-nvcc, nvidia-cuda-crt, nvidia-nvvm, nvidia-cuda-runtime and
nvidia-cuda-cccl (13.0). Machine code is read by cuobjdump and nvdisasm (system, or PyPI's nvidia-cuda-cuobjdump and
nvidia-cuda-nvdisasm).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

CSRC = Path(__file__).resolve().parents[1] / "csrc"
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
FLAGS = [
    *("-std=c++20", "-O3", "--expt-relaxed-constexpr", "--threads", "2", "-Xptxas", "-v,--warn-on-spills"),
    *(f"-gencode=arch=compute_{a[3:]},code={a}" for a in ARCHITECTURES),
    "-gencode=arch=compute_80,code=compute_80",
    # torch builds extensions with these four: without them implicit half conversions would pass here, fail there
    "-D__CUDA_NO_HALF_OPERATORS__",
    "-D__CUDA_NO_HALF_CONVERSIONS__",
    "-D__CUDA_NO_BFLOAT16_CONVERSIONS__",
    "-D__CUDA_NO_HALF2_OPERATORS__",
]
# what a header may claim, and the machine instructions that prove it
CLAIMS = {
    "tensor cores": re.compile(r"\b[HD]MMA\b"),
    "cp.async": re.compile(r"\bLDGSTS\b"),
    "ldmatrix": re.compile(r"\bLDSM\b"),
    "16-byte loads": re.compile(r"\bLD[GS]?\.(?:\w+\.)*128\b|\bLDGSTS\.(?:\w+\.)*128\b"),
}
# instructions that a header may count; "from zero": the accumulator is the constant register
COUNTED = {
    "HMMA": re.compile(r"\bHMMA\b"),
    "HMMA from zero": re.compile(r"\bHMMA\b.*, RZ\b"),
    "LDSM": re.compile(r"\bLDSM\b"),
    "LDGSTS": re.compile(r"\bLDGSTS\b"),
}
MOST_SPILLED = 24  # bytes: two or three local accesses beside hundreds of tensor-core instructions


@dataclass
class Usage:
    """One compiled kernel (one instance of a template) on one architecture."""

    registers: int = 0
    spilled: int = 0  # bytes stored and loaded
    stack: int = 0
    shared: int = 0  # static, bytes


@dataclass
class Kernel:
    """All instances of one kernel function; figures are the largest of them, by architecture."""

    file: str
    name: str
    instances: set[str] = field(default_factory=set)
    usage: dict[str, Usage] = field(default_factory=lambda: defaultdict(Usage))
    instructions: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))


def find_tool(name: str) -> str | None:
    """Return the path of a tool of the CUDA toolkit, in CUDA_HOME, PATH, or a package from PyPI."""
    if (home := os.environ.get("CUDA_HOME")) and (path := Path(home) / "bin" / name).exists():
        return str(path)
    if path := shutil.which(name):
        return path
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations if spec else ():
        for path in sorted(Path(folder).glob(f"*/bin/{name}")):
            return str(path)
    return None


def header(source: Path) -> str:
    """Return the comment at the top of a kernel file."""
    lines = []
    for line in source.read_text(encoding="utf-8").splitlines():
        if not line.startswith("//"):
            break
        lines.append(line[2:].strip())
    return "\n".join(lines)


def stated_budget(text: str) -> dict[str, int]:
    """Return {"": 128, "fold_kernel": 40} from ``registers: <= 128, fold_kernel <= 40``; empty if nothing is stated."""
    return _stated(text, "registers")


def stated_spills(text: str) -> dict[str, int]:
    """Return bytes by kernel, as `stated_budget`; empty if nothing may spill."""
    return _stated(text, "spills")


def _stated(text: str, what: str) -> dict[str, int]:
    lines = re.findall(rf"^{what}:(.*)$", text, flags=re.MULTILINE)
    return {name: int(limit) for line in lines for name, limit in re.findall(r"(\w*)\s*<=\s*(\d+)", line)}


def stated_instructions(text: str) -> dict[str, dict[str, int]]:
    """Return {"NAME": {"HMMA": 96, "LDSM": 16}} from lines ``instructions: NAME 96 HMMA, 16 LDSM``."""
    found = {}
    for name, counts in re.findall(r"^instructions:\s*(\w+) (.*)$", text, flags=re.MULTILINE):
        found[name] = {what.strip(): int(count) for count, what in re.findall(r"(\d+) ([^,]+)", counts)}
    return found


def read_ptxas(report: str) -> dict[tuple[str, str], Usage]:
    """Return {(mangled kernel, architecture): usage} from the output of ``ptxas -v``."""
    found: dict[tuple[str, str], Usage] = {}
    key = None
    for line in report.splitlines():
        if match := re.search(r"Compiling entry function '(\w+)' for '(\w+)'", line):
            key = (match[1], match[2])
            found[key] = Usage()
        elif key and (
            match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill", line)
        ):
            found[key].stack, found[key].spilled = int(match[1]), int(match[2]) + int(match[3])
        elif key and (match := re.search(r"Used (\d+) registers", line)):
            found[key].registers = int(match[1])
            if shared := re.search(r"(\d+) bytes smem", line):
                found[key].shared = int(shared[1])
            key = None
    return found


def count_instructions(listing: str) -> dict[tuple[str, str], dict[str, int]]:
    """Return {(mangled kernel, architecture): {claim or instruction: occurrences}} from ``cuobjdump -sass``."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    architecture, counts = "", None
    for line in listing.splitlines():
        if match := re.match(r"\s*arch = (sm_\d+)", line):
            architecture = match[1]
        elif match := re.match(r"\s*Function : (\w+)", line):
            counts = found.setdefault((match[1], architecture), dict.fromkeys([*CLAIMS, *COUNTED], 0))
        elif counts is not None:
            for claim, pattern in (CLAIMS | COUNTED).items():
                counts[claim] += pattern.search(line) is not None
    return found


def kernel_names(mangled: Iterable[str]) -> dict[str, str]:
    """Return {mangled: function name without namespace, template arguments and parameters}."""
    words = sorted(set(mangled))
    if not words:
        return {}
    plain = subprocess.run(["c++filt", *words], capture_output=True, text=True, check=True).stdout.splitlines()
    return {
        word: re.search(r"(\w+)(?:<.*>)?\(", text.replace("(anonymous namespace)::", ""))[1] if "(" in text else text
        for word, text in zip(words, plain, strict=True)
    }


def compile_file(source: Path, nvcc: str, scratch: Path) -> tuple[list[Kernel], list[str]]:
    """Return the kernels of one file and their faults."""
    target = scratch / f"{source.stem}.o"
    command = [nvcc, *FLAGS, f"-I{CSRC}", f"-I{source.parent}", "-c", str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return [], [f"{source.name}: nvcc failed\n{done.stderr}"]
    usages = read_ptxas(done.stdout + done.stderr)
    names = kernel_names(mangled for mangled, _ in usages)
    kernels = {name: Kernel(source.name, name) for name in dict.fromkeys(names.values())}
    for (mangled, architecture), usage in usages.items():
        kernel = kernels[names[mangled]]
        kernel.instances.add(mangled)
        worst = kernel.usage[architecture]
        for item in ("registers", "spilled", "stack", "shared"):
            setattr(worst, item, max(getattr(worst, item), getattr(usage, item)))
    for (mangled, architecture), counts in count_instructions(disassemble(target)).items():
        for claim, count in counts.items():
            kernels[names[mangled]].instructions[architecture][claim] += count
    return list(kernels.values()), complaints(source, list(kernels.values()))


def disassemble(target: Path) -> str:
    """Return the machine code of all architectures in an object file."""
    cuobjdump, nvdisasm = find_tool("cuobjdump"), find_tool("nvdisasm")
    if not cuobjdump or not nvdisasm:
        raise SystemExit("no cuobjdump or nvdisasm: pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm")
    path = os.pathsep.join([str(Path(nvdisasm).parent), os.environ.get("PATH", "")])
    return subprocess.run(
        [cuobjdump, "-sass", str(target)], capture_output=True, text=True, check=True, env={**os.environ, "PATH": path}
    ).stdout


def complaints(source: Path, kernels: list[Kernel]) -> list[str]:
    """Return the statements of the header that the machine code does not meet."""
    text, found = header(source), []
    budget, spills, instructions = stated_budget(text), stated_spills(text), stated_instructions(text)
    if max(spills.values(), default=0) > MOST_SPILLED:
        found.append(f"{source.name}: its header admits spills of more than {MOST_SPILLED} bytes")
    known = {kernel.name for kernel in kernels}
    found += [f"{source.name}: its header speaks of {k}, which is no kernel" for k in {*spills, *instructions} - known]
    if not budget:
        found.append(f"{source.name}: its header states no budget (// registers: <= N)")
    for kernel in kernels:
        limit = budget.get(kernel.name, budget.get("", 255))
        for architecture, usage in kernel.usage.items():
            where = f"{source.name}: {kernel.name} on {architecture}"
            if usage.spilled > spills.get(kernel.name, 0):
                found.append(f"{where} spills {usage.spilled} bytes")
            for what, count in instructions.get(kernel.name, {}).items():
                if (has := kernel.instructions[architecture].get(what)) != count * len(kernel.instances):
                    found.append(f"{where}: {has} {what} in {len(kernel.instances)} instances of {count}, as stated")
            if usage.registers > limit:
                found.append(f"{where} uses {usage.registers} registers, its header states <= {limit}")
    for claim in CLAIMS:
        if claim not in text:
            continue
        for architecture in ARCHITECTURES:
            if not sum(kernel.instructions[architecture][claim] for kernel in kernels):
                found.append(f"{source.name}: its header speaks of {claim}; no such instruction on {architecture}")
    return found


def table(kernels: list[Kernel]) -> str:
    """Return Markdown with the largest figure of a kernel's instances, and instruction counts summed (sm_80)."""
    rows = [
        ["file", "kernel", "instances", "registers (80 / 90 / 100)", "spilled bytes", "static shared bytes", *CLAIMS]
    ]
    rows.append(["---"] * 2 + ["--:"] * (len(rows[0]) - 2))
    for k in kernels:
        usage = [k.usage[a] for a in ARCHITECTURES]
        rows.append(
            [k.file, k.name, len(k.instances), " / ".join(str(u.registers) for u in usage)]
            + [max(u.spilled for u in usage), max(u.shared for u in usage)]
            + [k.instructions["sm_80"][claim] or "" for claim in CLAIMS]
        )
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    lines = ("| " + " | ".join(str(c).ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows)
    return "\n".join(lines)


def page(kernels: list[Kernel], compiler: str) -> str:
    """Return the generated page of the documentation."""
    return (
        "# What the CUDA kernels use\n\n"
        "Written by `python .ci/cuda_budget.py --write docs/cuda_resources.md`; do not edit.\n"
        f"{compiler}, no GPU involved: figures are the compiler's. Of several instances of a template the largest\n"
        "figure is shown; the last columns count machine instructions over all instances on sm_80.\n\n"
        f"{table(kernels)}\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, help="kernel files; all of csrc/cuda when none is given")
    parser.add_argument("--write", type=Path, help="write the table as a page of the documentation")
    arguments = parser.parse_args()
    nvcc = find_tool("nvcc")
    if not nvcc:
        raise SystemExit("no nvcc: install a CUDA toolkit or the packages named in this file")
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    compiler = "nvcc " + re.search(r"V([\d.]+)", version)[1]
    kernels: list[Kernel] = []
    problems: list[str] = []
    sources = [source.resolve() for source in arguments.files or sorted((CSRC / "cuda").glob("*.cu"))]
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(os.cpu_count()) as pool:
        for found, wrong in pool.map(lambda source: compile_file(source, nvcc, Path(scratch)), sources):
            kernels += found
            problems += wrong
    print(table(kernels))
    if arguments.write and not problems:
        arguments.write.parent.mkdir(parents=True, exist_ok=True)
        arguments.write.write_text(page(kernels, compiler), encoding="utf-8")
    for problem in problems:
        print(f"FAILED {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

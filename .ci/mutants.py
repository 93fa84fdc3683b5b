"""Mutation testing of the statistical core.

``python .ci/mutants.py --out DIR`` changes one token of the core at a time, runs the tests nearest to it, and lists the
changes that no test notices in DIR/survivors.md. The same command resumes an interrupted run. A process that has
imported torch forks one process for each mutant, in a copy of the repository. docs/mutation.md has more.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import fnmatch
import functools
import hashlib
import importlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numberless
from covering import Chosen, Lines, measured
from mutations import Mutant, mutants_of

ROOT = Path(__file__).resolve().parents[1]
PARTS = {  # of bertft: the files whose formulas make the numbers of a run
    "similarity": ["**/*.py"],
    "ops": ["*.py", "moments/*.py", "rdm/*.py"],
    "probes/structural": ["scores.py", "predicted_trees.py", "trees.py", "rows.py", "columns.py", "rbf.py", "kind.py"],
    "probes/edge": ["scores.py", "rows.py", "control.py", "targets.py"],
    "runs": ["intervals.py", "pooling.py", "differences.py", "vocabulary.py", "artefacts.py", "rows.py"],
    "data/readers": ["*.py"],
    "models/tasks": ["*.py"],
}
TESTS = [f"{part}/**/test_*.py" for part in ("ops", "similarity", "probes", "runs", "data", "models/tasks")]
TESTS += ["project/test_definitions.py", "study/test_in_turn.py"]
DEFINITIONS = "tests/project/test_definitions.py"  # constants and defaults of all modules
WARM = [  # imported once, before any fork
    *("torch", "torch.utils.data", "torch.testing", "scipy.stats", "scipy.special", "scipy.sparse", "pandas"),
    *("datasets", "transformers.models.bert.modeling_bert", "transformers.models.bert.tokenization_bert"),
    *("safetensors.torch", "hypothesis.strategies", "pydantic", "yaml", "filelock", "pytest"),
]
NEAREST = 8  # files of tests that a mutant runs whose line is executed on import
LONGEST = 90  # seconds of tests that any other mutant runs, as measured under coverage
HUNG = "the limit of time"
FAILED = (1, 2, 3)  # how pytest ends if a test or an import fails; otherwise no test has run


def chosen(only: str, seed: int, sample: int | None) -> list[Mutant]:
    """Return the mutants of a run: all, or ``sample`` drawn with ``seed``; never those listed as equivalent."""
    globbed = (ROOT.glob(f"bertft/{part}/{pattern}") for part, patterns in PARTS.items() for pattern in patterns)
    paths = sorted({str(path.relative_to(ROOT)) for found in globbed for path in found} - set(numberless.FILES))
    every = [make for path in paths if fnmatch.fnmatch(path, only) for make in mutants_of(ROOT, path)]
    print(f"{len(every)} mutants in {len(paths)} files", flush=True)
    if sample is not None:
        random.Random(seed).shuffle(every)
    equal = explained(ROOT / "docs" / "mutation.md")
    wanted = (mutant for make in every if (mutant := make()) is not None and signature(asdict(mutant)) not in equal)
    return list(itertools.islice(wanted, sample))


# Processes ---------------------------------------------------------------------------------------------------------


def fork(work: Callable[[], int], tree: Path, log: Path) -> int:
    """Start ``work`` in a process group of its own, in the folder ``tree``; return its id."""
    if pid := os.fork():
        return pid
    status = 70
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(output, 1), os.dup2(output, 2)
        os.chdir(tree)
        sys.path.insert(0, str(tree))
        os.environ.update(PYTHONPATH=str(tree), PYTHONDONTWRITEBYTECODE="1")
        sys.dont_write_bytecode = True
        status = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def ended(pid: int, deadline: float) -> int | None:
    """Return how a process ended: its status, -1 if it was killed as overdue; None if it still runs."""
    done, status = os.waitpid(pid, os.WNOHANG)
    overdue = not done and time.monotonic() > deadline
    if done or overdue:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # with the processes that a test started
    if overdue:
        os.waitpid(pid, 0)
        return -1
    return os.waitstatus_to_exitcode(status) if done else None


def run_all(tasks: list, start: Callable, finish: Callable, trees: list[Path]) -> None:
    """Run ``tasks`` with one process in each tree.

    ``start(task, tree)`` returns the process's id and its limit, seconds; ``finish(task, tree, end)`` gets its status.
    """
    waiting, running = tasks[::-1], {}
    try:
        while waiting or running:
            for tree in trees:
                if tree not in running and waiting:
                    task = waiting.pop()
                    pid, limit = start(task, tree)
                    running[tree] = (task, pid, time.monotonic() + limit)
            for tree, (task, pid, deadline) in list(running.items()):
                if (end := ended(pid, deadline)) is not None:
                    del running[tree]
                    finish(task, tree, end)
            time.sleep(0.05)
    finally:
        for _, pid, _ in running.values():
            ended(pid, 0.0)


def copies(out: Path, count: int) -> list[Path]:
    """Return ``count`` fresh copies of the repository's files, compiled."""
    first, *others = trees = [out / f"tree{k}" for k in range(count)]
    for tree in trees:
        shutil.rmtree(tree, ignore_errors=True)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in filter(None, subprocess.check_output(listed, cwd=ROOT, text=True).split("\0")):
        if (ROOT / name).is_file():
            (first / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, first / name)
    subprocess.run([sys.executable, "-m", "compileall", "-q", "bertft"], cwd=first, check=True)
    for tree in others:
        shutil.copytree(first, tree)
    return trees


# Tests -------------------------------------------------------------------------------------------------------------


class Failures:
    """A plugin of pytest that keeps the names of the tests that fail."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: object) -> None:
        if report.failed:
            self.names.append(report.nodeid)

    pytest_collectreport = pytest_runtest_logreport


def options(tree: Path) -> list[str]:
    """Return pytest's options in ``tree``."""
    found = ["-q", "-p", "no:cacheprovider", f"--basetemp={tree / 'tmp'}", f"--rootdir={tree}"]
    return [*found, "-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis was imported before the fork


def run_tests(tests: list[str], tree: Path, *further: str) -> int:
    """Run ``tests`` in this process; write the names of those that fail to a file; return pytest's status."""
    import pytest

    failures, files = Failures(), list(dict.fromkeys(test.split("::")[0] for test in tests))
    plugins = [failures] if tests == files else [failures, Chosen(tests)]
    status = pytest.main([*options(tree), *further, *files], plugins=plugins)
    (tree / "failed").write_text(json.dumps(failures.names), encoding="utf8")
    return int(status)


def failures_in(tree: Path) -> list[str]:
    """Return what the last `run_tests` in ``tree`` wrote, if it came so far."""
    file = tree / "failed"
    return json.loads(file.read_text(encoding="utf8")) if file.exists() else []


def tests_of(mutant: Mutant, lines: Lines) -> list[str]:
    """Return the tests that execute a mutant's line, or the nearest files of tests if it runs on import only.

    They take `LONGEST` seconds: a third of it the tests of the nearest files, then the quickest of all others.
    """
    near, own = nearest_files(mutant.path), str(own_tests(mutant.path))
    covering = lines.of(ROOT, mutant.path, mutant.line)
    if not covering:
        return list(dict.fromkeys([*near[:1], DEFINITIONS, *near[1:NEAREST]]))
    if not any(test.startswith(f"{own}::") for test in covering):  # in processes of their own
        covering |= {test for test in lines.seconds if test.startswith(f"{own}::")}
    place, seconds = {file: k for k, file in enumerate(near)}, lines.seconds
    order = sorted(covering, key=lambda test: (place.get(test.split("::")[0], len(place)), seconds[test], test))
    first = within(order, seconds, LONGEST / 3)
    return first + within(sorted(order[len(first) :], key=seconds.get), seconds, LONGEST * 2 / 3)


def within(tests: list[str], seconds: dict[str, float], most: float) -> list[str]:
    """Return the first of ``tests``, as many as take ``most`` seconds; at least one."""
    total = itertools.accumulate(seconds[test] for test in tests)
    return [test for k, (test, sum_) in enumerate(zip(tests, total, strict=True)) if sum_ <= most or not k]


@functools.cache
def nearest_files(path: str) -> list[str]:
    """Return the files of tests for a module, the nearest first.

    They are its own file of tests, then those of modules that import it, and those that name its functions and classes.
    """
    top = ast.parse((ROOT / path).read_text(encoding="utf8")).body
    names = {node.name for node in top if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {node.id for line in top if isinstance(line, ast.Assign) for node in ast.walk(line.targets[0])
              if isinstance(node, ast.Name)}  # fmt: skip
    words = words_of_tests()
    score: Counter[Path] = Counter()
    for name in names:  # a name that few files have says more
        using = [file for file, found in words.items() if name in found]
        score.update(dict.fromkeys(using, 2 / max(1, len(using))))
    parent, stem = ".".join(Path(path).parts[:-1]), Path(path).stem
    imports = re.compile(rf"\b{parent}\.{stem} import|from {parent} import .*\b{stem}\b")
    importing = [file for file in (ROOT / "bertft").rglob("*.py") if imports.search(file.read_text(encoding="utf8"))]
    score.update(dict.fromkeys((own_tests(str(file.relative_to(ROOT))) for file in importing), 1))
    score.update({file: 0.1 for file in words if file.parent == own_tests(path).parent})
    score[own_tests(path)] += 100
    return [str(file) for file in sorted(score, key=lambda f: (-score[f], f)) if file in words]


def own_tests(path: str) -> Path:
    """Return the file of tests of a module."""
    return Path("tests", *Path(path).parts[1:-1], f"test_{Path(path).stem}.py")


@functools.cache
def words_of_tests() -> dict[Path, set[str]]:
    """Return the words of every file of tests."""
    files = (file for pattern in TESTS for file in (ROOT / "tests").glob(pattern))
    return {file.relative_to(ROOT): set(re.findall(r"\w+", file.read_text(encoding="utf8"))) for file in files}


# Records -----------------------------------------------------------------------------------------------------------


def read_state(path: Path) -> dict[str, dict]:
    """Return the last record of each mutant; a line that a kill cut short does not count."""
    found = {}
    for line in path.read_text(encoding="utf8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            found[record["key"]] = record
    return found


def explained(page: Path) -> set[tuple[str, str, str]]:
    """Return (path, line before, line after) of the equivalent mutants that the documentation lists."""
    text = re.sub(r"\s+", " ", page.read_text(encoding="utf8")) if page.exists() else ""
    return set(re.findall(r"- `(bertft/[^`]+)`: `` (.+?) `` → `` (.+?) ``", text))


def signature(record: dict[str, str]) -> tuple[str, ...]:
    """Return a mutant as `explained` does."""
    return tuple(re.sub(r"\s+", " ", record[key]) for key in ("path", "before", "after"))


def report(records: list[dict], out: Path) -> None:
    """Print the share of killed mutants and write the others to survivors.md, the killed ones to killed.md."""
    known = explained(ROOT / "docs" / "mutation.md")
    killed = [r for r in records if r["verdict"] == "killed"]
    left = [r for r in records if r["verdict"] != "killed"]
    equal = [r for r in left if signature(r) in known]
    late = sum(r["by"] == HUNG for r in killed)
    line = f"killed {len(killed)} of {len(records)} ({100 * len(killed) / max(1, len(records)):.1f} %), {late} of them "
    line += f"by the limit of time; {len(equal)} of the {len(left)} others are listed as equivalent"
    for name, some in (("survivors", left), ("killed", killed)):
        parts = [f"# Mutants: {name}\n\n{line}.\n"]
        for r in sorted(some, key=lambda r: (r in equal, r["path"], r["line"])):
            title = f"## {r['path']}:{r['line']} {r['verdict']}{' (equivalent)' if r in equal else ''} {r['by']}"
            parts.append(f"{title}\n\n```diff\n-{r['before']}\n+{r['after']}\n```\n")
        (out / f"{name}.md").write_text("\n".join(parts), encoding="utf8")
    print(f"{line}\nsee {out / 'survivors.md'}", flush=True)


class Run:
    """The mutants of a run and their records, one JSON line each."""

    def __init__(self, out: Path, trees: list[Path], patience: float) -> None:
        self.file, self.trees, self.patience, self.log = out / "state.jsonl", trees, patience, out / "log"
        self.state = read_state(self.file)
        sources = b"".join(path.read_bytes() for path in sorted((ROOT / "bertft").rglob("*.py")))
        self.folder = out / f"lines-{hashlib.sha256(sources).hexdigest()[:8]}"

    def find_lines(self) -> None:
        """Note which tests execute which lines, file by file; skips the files that are noted already."""
        self.folder.mkdir(exist_ok=True)

        def start(file: Path, tree: Path) -> tuple[int, float]:
            work = lambda: measured(str(file), tree, options(tree), self.kept(file))
            return fork(work, tree, self.log.with_name(f"{tree.name}.log")), 3600

        def finish(file: Path, tree: Path, end: int) -> None:
            print(f"lines of {file}: status {end}", flush=True)

        run_all([file for file in words_of_tests() if not self.kept(file).exists()], start, finish, self.trees)
        self.lines = Lines(self.folder)

    def kept(self, file: Path) -> Path:
        """Return where the lines of a file of tests are noted, by its name and content."""
        digest = hashlib.sha256((ROOT / file).read_bytes()).hexdigest()[:8]
        return self.folder / f"{'+'.join(file.parts)}-{digest}.json"

    def start(self, mutant: Mutant, tree: Path) -> tuple[int, float]:
        """Write a mutant into ``tree`` and start its tests."""
        target = tree / mutant.path
        target.write_text(mutant.code, encoding="utf8")
        for compiled in target.parent.glob(f"__pycache__/{target.stem}.*"):
            compiled.unlink()
        (tree / "failed").unlink(missing_ok=True)
        log = self.log.with_name(f"{tree.name}.log")
        tests = tests_of(mutant, self.lines)
        wanted, known = set(tests), self.lines.seconds.items()
        limit = self.patience + 5 * sum(sec for test, sec in known if test in wanted or test.split("::")[0] in wanted)
        return fork(lambda: run_tests(tests, tree, "-x"), tree, log), limit

    def finish(self, mutant: Mutant, tree: Path, end: int) -> None:
        """Record how a mutant's tests ended, and take it out of ``tree``."""
        by = HUNG if end == -1 else (failures_in(tree) or [f"status {end}"])[0]
        killed = end < 0 or end in FAILED
        self.record(asdict(mutant) | {"verdict": "killed" if killed else "survived", "by": by if end else ""})
        shutil.copy2(ROOT / mutant.path, tree / mutant.path)

    def record(self, values: dict) -> None:
        """Keep the verdict on a mutant."""
        values.pop("code", None)
        self.state[values["key"]] = values
        with self.file.open("a", encoding="utf8") as file:
            file.write(json.dumps(values) + "\n")
        print(f"{values['verdict']:9} {values['path']}:{values['line']} {values['by']}", flush=True)

    def check_killers(self) -> None:
        """Run the tests that killed mutants on the unchanged code; one that fails there has killed nothing."""
        killers = {r["by"].split("[")[0] for r in self.state.values() if "::" in r["by"]}

        def start(tests: list[str], tree: Path) -> tuple[int, float]:
            return fork(lambda: run_tests(tests, tree), tree, self.log.with_name("killers.log")), 3600

        def finish(tests: list[str], tree: Path, end: int) -> None:
            for values in list(self.state.values()):
                if values["by"] in failures_in(tree):
                    self.record(values | {"verdict": "survived", "by": f"failed without it too: {values['by']}"})

        run_all([sorted(killers)], start, finish, self.trees[:1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("--out", type=Path, required=True, help="folder of state and results, outside the repository")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--sample", type=int, default=200, help="number of mutants (default: 200)")
    parser.add_argument("--whole", action="store_true", help="every mutant")
    parser.add_argument("--only", default="*", help="files, as a pattern such as 'bertft/runs/*'")
    parser.add_argument("--retry", action="store_true", help="test survivors of an earlier run again")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    help = "seconds after which a mutant hangs, beside five times those of its tests (default: 60)"
    parser.add_argument("--patience", type=float, default=60, help=help)
    args = parser.parse_args()
    out = args.out.resolve()
    if out == ROOT or ROOT in out.parents:
        parser.error(f"--out: expected a folder outside the repository, found {out}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the tests under way too
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    for name in WARM:
        importlib.import_module(name)
    out.mkdir(parents=True, exist_ok=True)
    run = Run(out, copies(out, args.jobs), args.patience)
    run.find_lines()
    mutants = chosen(args.only, args.seed, None if args.whole else args.sample)
    again = ("survived",) if args.retry else ()
    waiting = [m for m in mutants if m.key not in run.state or run.state[m.key]["verdict"] in again]
    run_all(waiting, run.start, run.finish, run.trees)
    run.check_killers()
    report([run.state[m.key] for m in mutants], out)


if __name__ == "__main__":
    main()

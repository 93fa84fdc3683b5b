"""Mutation testing of the statistical core.

``python .ci/mutants.py --out DIR`` changes one token of the core at a time, runs the tests that reach the changed line
and lists the changes that no test notices in DIR/survivors.md. The same command resumes an interrupted run.

The changes are those of mutmut's operators. mutmut's own runner changes functions only, without decorators, and draws
no sample; half the constants that matter here stand outside functions. So this file holds a runner: a process that has
imported torch forks one process for each mutant, in a copy of the repository. docs/mutation.md describes it.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import hashlib
import importlib
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
TESTS = ("ops", "similarity", "probes", "runs", "data/readers", "models/tasks")  # folders of tests/
WARM = [  # imported once, before any fork
    *("torch", "torch.utils.data", "torch.testing", "scipy.stats", "scipy.special", "scipy.sparse", "pandas"),
    *("datasets", "transformers.models.bert.modeling_bert", "transformers.models.bert.tokenization_bert"),
    *("safetensors.torch", "hypothesis.strategies", "pydantic", "yaml", "filelock", "coverage", "pytest"),
]
LONGEST = 60  # seconds of tests of one mutant, the quickest first
PATIENCE = 60  # least seconds before a mutant counts as hanging


def chosen(patterns: list[str], seed: int, sample: int | None) -> list[Mutant]:
    """Return the mutants of a run: all, or ``sample`` drawn with ``seed``."""
    globbed = (ROOT.glob(f"bertft/{part}/{pattern}") for part, patterns in PARTS.items() for pattern in patterns)
    paths = sorted(str(path.relative_to(ROOT)) for found in globbed for path in found)
    paths = [p for p in paths if any(fnmatch.fnmatch(p, pattern) for pattern in patterns)]
    every = [make for path in paths for make in mutants_of(ROOT, path)]
    print(f"{len(every)} mutants in {len(paths)} files", flush=True)
    if sample is not None and sample < len(every):
        every = random.Random(seed).sample(every, sample)
    return [mutant for make in every if (mutant := make()) is not None]


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


def copy_of(root: Path, tree: Path) -> Path:
    """Return ``tree``, a fresh copy of the repository's files, compiled."""
    shutil.rmtree(tree, ignore_errors=True)
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in filter(None, subprocess.check_output(listed, cwd=root, text=True).split("\0")):
        if (root / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, tree / name)
    subprocess.run([sys.executable, "-m", "compileall", "-q", "bertft"], cwd=tree, check=True)
    return tree


# Tests -------------------------------------------------------------------------------------------------------------


class Watch:
    """A plugin of pytest: the seconds of each test, the lines it reaches, and the first test that fails."""

    def __init__(self, coverage: object | None = None) -> None:
        self.coverage, self.seconds, self.failed = coverage, Counter(), []

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if self.coverage is not None:
            self.coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: object) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed or (report.skipped and self.coverage is not None):
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: object) -> None:
        if report.failed:
            self.failed.append(report.nodeid)


def pytest_in(tree: Path, arguments: list[str], watch: Watch) -> int:
    """Run pytest in this process, with temporary files under the tree."""
    import pytest

    options = ["-q", "-p", "no:cacheprovider", f"--basetemp={tree / 'tmp'}", f"--rootdir={tree}"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis was imported before the fork
    return int(pytest.main([*options, *arguments], plugins=[watch]))


def map_file(file: str, tree: Path, target: Path) -> int:
    """Write which lines of the core each passing test of ``file`` reaches, and its seconds."""
    import coverage

    cov = coverage.Coverage(data_file=None, config_file=False, include=[f"{tree}/bertft/*"])
    cov.start()
    watch = Watch(cov)
    pytest_in(tree, [file], watch)
    cov.stop()
    lines: dict[str, dict[str, list[int]]] = {test: {} for test in watch.seconds if test not in watch.failed}
    for path in cov.get_data().measured_files():
        for line, tests in cov.get_data().contexts_by_lineno(path).items():
            for test in filter(lines.__contains__, tests):
                lines[test].setdefault(str(Path(path).relative_to(tree)), []).append(line)
    found = {test: {"seconds": watch.seconds[test], "lines": reached} for test, reached in lines.items()}
    temporary = target.with_suffix(".part")
    temporary.write_text(json.dumps(found), encoding="utf8")
    temporary.replace(target)
    return 0


def map_of(out: Path, trees: list[Path]) -> dict[str, dict]:
    """Return the map from test to seconds and lines, measured anew for files of tests that changed."""
    core = hashlib.sha256()
    for path in [*sorted(ROOT.glob("bertft/**/*.py")), ROOT / "tests/conftest.py"]:
        core.update(path.read_bytes())
    (out / "map").mkdir(parents=True, exist_ok=True)
    targets = {}
    for path in sorted(p for folder in TESTS for p in (ROOT / "tests" / folder).rglob("test_*.py")):
        file, digest = str(path.relative_to(ROOT)), core.copy()
        digest.update(path.read_bytes())
        targets[file] = out / "map" / f"{file.replace('/', '+')}-{digest.hexdigest()[:12]}.json"

    def start(file: str, tree: Path) -> tuple[int, float]:
        return fork(lambda: map_file(file, tree, targets[file]), tree, out / f"{tree.name}.log"), 1800

    def finish(file: str, tree: Path, end: int) -> None:
        print(f"mapped {file}" + (f": ended with {end}" if end else ""), flush=True)

    run_all([file for file, target in targets.items() if not target.exists()], start, finish, trees)
    found: dict[str, dict] = {}
    for target in filter(Path.exists, targets.values()):
        found |= json.loads(target.read_text(encoding="utf8"))
    return found


def tests_of(mutant: Mutant, tests: dict[str, dict]) -> list[str]:
    """Return the tests that reach a mutant, the quickest first, of at most `LONGEST` seconds in all."""
    start, end = mutant.lines or (0, sys.maxsize)
    reaching = [t for t, found in tests.items() if any(start <= n <= end for n in found["lines"].get(mutant.path, ()))]
    chosen, seconds = [], 0.0
    for test in sorted(reaching, key=lambda t: tests[t]["seconds"]):
        seconds += tests[test]["seconds"]
        if chosen and seconds > LONGEST:
            break
        chosen.append(test)
    return chosen


def try_out(tests: list[str], tree: Path) -> int:
    """Run ``tests`` up to the first failure; return pytest's status and write the name of that test to a file."""
    watch = Watch()
    status = pytest_in(tree, ["-x", *tests], watch)
    (tree / "failed").write_text("\n".join(watch.failed[:1]), encoding="utf8")
    return status


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


def report(records: list[dict], out: Path) -> None:
    """Print the share of killed mutants and write the others to survivors.md."""
    known = explained(ROOT / "docs" / "mutation.md")
    count = Counter(record["verdict"] for record in records)
    left = [r for r in records if r["verdict"] != "killed"]
    equal = [r for r in left if tuple(re.sub(r"\s+", " ", r[k]) for k in ("path", "before", "after")) in known]
    share = count["killed"] / max(1, len(records))
    line = f"killed {count['killed']} of {len(records)} ({100 * share:.1f} %), {count['survived']} survived, "
    line += f"{count['unreached']} reached by no test; {len(equal)} of these are listed as equivalent"
    parts = [f"# Surviving mutants\n\n{line}.\n"]
    for r in sorted(left, key=lambda r: (r in equal, r["path"], r["line"])):
        title = f"## {r['path']}:{r['line']} {r['verdict']}{' (equivalent)' if r in equal else ''}, {r['tests']} tests"
        parts.append(f"{title}\n\n```diff\n-{r['before']}\n+{r['after']}\n```\n")
    (out / "survivors.md").write_text("\n".join(parts), encoding="utf8")
    print(f"{line}\nsee {out / 'survivors.md'}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("--out", type=Path, required=True, help="folder of state and results, outside the repository")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--sample", type=int, default=200, help="number of mutants (default: 200)")
    parser.add_argument("--whole", action="store_true", help="every mutant")
    parser.add_argument("--only", action="append", help="files, as a pattern such as 'bertft/runs/*'")
    parser.add_argument("--retry", action="store_true", help="test survivors of an earlier run again")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    args = parser.parse_args()
    out = args.out.resolve()
    if out == ROOT or ROOT in out.parents:
        parser.error(f"--out: expected a folder outside the repository, found {out}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the tests under way too
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    for name in WARM:
        importlib.import_module(name)
    out.mkdir(parents=True, exist_ok=True)
    trees = [out / f"tree{k}" for k in range(args.jobs)]
    copy_of(ROOT, trees[0])
    for tree in trees[1:]:
        shutil.rmtree(tree, ignore_errors=True)
        shutil.copytree(trees[0], tree)
    tests = map_of(out, trees)
    mutants = chosen(args.only or ["*"], args.seed, None if args.whole else args.sample)
    state = read_state(out / "state.jsonl")
    begun: dict[str, tuple[list[str], float]] = {}

    def record(mutant: Mutant, verdict: str, names: list[str], by: str, seconds: float) -> None:
        values = asdict(mutant) | {"verdict": verdict, "tests": len(names), "by": by, "seconds": round(seconds, 1)}
        del values["code"]
        state[mutant.key] = values
        with (out / "state.jsonl").open("a", encoding="utf8") as file:
            file.write(json.dumps(values) + "\n")
        print(f"{verdict:9} {mutant.path}:{mutant.line} {by}", flush=True)

    def start(mutant: Mutant, tree: Path) -> tuple[int, float]:
        names = tests_of(mutant, tests)
        begun[mutant.key] = (names, time.monotonic())
        target = tree / mutant.path
        target.write_text(mutant.code, encoding="utf8")
        for compiled in target.parent.glob(f"__pycache__/{target.stem}.*"):
            compiled.unlink()
        (tree / "failed").unlink(missing_ok=True)
        limit = PATIENCE + 6 * sum(tests[name]["seconds"] for name in names)
        return fork(lambda: try_out(names, tree) if names else 0, tree, out / f"{tree.name}.log"), limit

    def finish(mutant: Mutant, tree: Path, end: int) -> None:
        names, since = begun.pop(mutant.key)
        failed = tree / "failed"
        by = (failed.read_text(encoding="utf8") if failed.exists() else "") or f"status {end}"
        verdict = "unreached" if not names else "survived" if end == 0 else "killed"
        record(mutant, verdict, names, by if verdict == "killed" else "", time.monotonic() - since)
        shutil.copyfile(ROOT / mutant.path, tree / mutant.path)

    again = ("survived", "unreached") if args.retry else ()
    waiting = [m for m in mutants if m.key not in state or state[m.key]["verdict"] in again]
    run_all(waiting, start, finish, trees)
    report([state[m.key] for m in mutants], out)


if __name__ == "__main__":
    main()

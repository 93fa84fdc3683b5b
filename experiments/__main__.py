"""The command ``python -m experiments NAME ... | all``."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import experiments
from bertft.cli.main import answer, quiet_libraries

HERE = Path(__file__).parent
MODULES = sorted(found.name for found in pkgutil.iter_modules(experiments.__path__) if found.name != "__main__")
SMALLER = "a smaller batch_size, tokens or max_train in --settings"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments", description=experiments.__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"all, or some of: {', '.join(MODULES)}")
    parser.add_argument("--setting", default="minilm", help="one of --settings: tiny, minilm, mpnet, ...")
    parser.add_argument("--settings", type=Path, default=HERE / "settings.yaml", help="the file of the settings")
    parser.add_argument("--data", type=Path, help="folder where the setting's relative paths start")
    parser.add_argument("--out", type=Path, help="folder for everything (default runs/experiments-SETTING)")
    parser.add_argument("--model", help="a folder or hub id, in place of the setting's encoder")
    parser.add_argument("--take", action="append", default=[], help="a study's or another --out, for finished stages")
    parser.add_argument("--dry-run", action="store_true", help="list every stage, done or to do; no more (takes none)")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    chosen = parser.parse_args(arguments)
    quiet_libraries(bars=sys.stderr.isatty() and not chosen.quiet)  # before they are imported
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    given = sys.argv[1:] if arguments is None else arguments
    again = shlex.join(["python", "-m", "experiments", *given])
    return answer(lambda: work(chosen), again=again, smaller=SMALLER)


def work(chosen: argparse.Namespace) -> int:
    """Run the chosen experiments, or list their stages; return the exit code."""
    from bertft.cli.options import showing_progress
    from bertft.study.repeat import RepeatedStudy, read_setting

    wanted = choose(chosen.names)
    setting = read_setting(chosen.settings, chosen.setting, data=chosen.data, model=chosen.model)
    with showing_progress(chosen.quiet) as progress:
        study = RepeatedStudy(setting, chosen.out or Path("runs") / f"experiments-{setting.name}", progress)
        study.check(wanted)
        if chosen.dry_run:
            print(plan(study, wanted))
            return 0
        with study.folder.claim():
            study.take(chosen.take, wanted)
            for experiment in wanted:
                written = study.run(experiment)
                progress.say(f"{experiment.name}: {', '.join(str(path) for path in written)}")
    print(f"Tables and figures are in {(study.out / 'results').resolve()}")
    return 0


def choose(names: Sequence[str]) -> list[Any]:
    """Return the experiments of these names or modules, or for ``all`` every one in its order."""
    from bertft.errors import BertftError

    modules = {name: importlib.import_module(f"experiments.{name}").EXPERIMENT for name in MODULES}
    ordered = sorted(modules.values(), key=lambda experiment: experiment.order)
    known = {experiment.name: experiment for experiment in ordered}
    if unknown := set(names) - {*known, *modules, "all"}:
        raise BertftError(f"{sorted(unknown)[0]}: no such analysis, expected all or some of {', '.join(known)}")
    return ordered if "all" in names else [{**modules, **known}[name] for name in names]


def plan(study: Any, wanted: Sequence[Any]) -> str:
    """Return a line for every stage: done or to do, and its time, or that of the same stage with another seed."""
    from bertft.runs.units import clock

    stages = {stage.name: stage for experiment in wanted for stage in experiment.stages(study)}
    done = {name for name, stage in stages.items() if study.folder.done(stage) is not None}
    seconds = study.folder.seconds([stages[name] for name in stages if name in done])
    alike = {re.sub(r"seed\d+", "", name): taken for name, taken in seconds.items()}
    times = {name: seconds.get(name, alike.get(re.sub(r"seed\d+", "", name))) for name in stages}
    width = max(map(len, stages), default=0)
    lines = [
        f"{name:{width}}  {'done ' if name in done else 'to do'}  {'' if time is None else clock(time)}".rstrip()
        for name, time in times.items()
    ]
    left = {name: time for name, time in times.items() if name not in done}
    known = [time for time in left.values() if time is not None]
    time = f": {clock(sum(known))} for {len(known)} of them, if they take as long as with another seed" if known else ""
    return "\n".join([*lines, "", f"{len(left)} of {len(stages)} stages to do{time}. Nothing was written."])


if __name__ == "__main__":
    sys.exit(main())

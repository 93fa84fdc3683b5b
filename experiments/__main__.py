"""``python -m experiments NAME ... | all``: run or resume analyses in one folder that shares their models."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import re
import shlex
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

import experiments
from bertft.cli.main import answer, quiet_libraries
from bertft.study.repeat import Lab, read_setting

HERE = Path(__file__).parent
# First what is quick once the shared models are there, and last what trains models or probes of its own.
FIRST = ("models", "fig2_rsa", "fig5_domains", "weight_distance", "measures", "rsa_heatmap", "noise_ceiling")
LAST = ("fig1_structural_probes", "fig3_freezing", "fig4_truncation", "along_training", "table1_edge_probing")
SMALLER = "a smaller batch_size, tokens or max_train in --settings"


def names() -> list[str]:
    """Every analysis, by module, in the order in which ``all`` runs them."""
    found = sorted(found.name for found in pkgutil.iter_modules(experiments.__path__) if found.name != "__main__")
    middle = [name for name in found if name not in FIRST + LAST]
    return [name for name in (*FIRST, *middle, *LAST) if name in found]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments", description=experiments.__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"all, or some of: {', '.join(names())}")
    parser.add_argument("--setting", default="minilm", help="one of --settings: tiny, minilm, minilm_full or full")
    parser.add_argument("--settings", type=Path, default=HERE / "settings.yaml", help="the file of the settings")
    parser.add_argument("--data", type=Path, help="folder where the setting's relative paths start")
    parser.add_argument("--out", type=Path, help="folder for everything (default runs/experiments-SETTING)")
    parser.add_argument("--model", help="another encoder than the setting's")
    parser.add_argument("--take", action="append", default=[], help="a study's run folder to take finished stages from")
    parser.add_argument("--dry-run", action="store_true", help="list every stage, done or to do; no more (takes none)")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    chosen = parser.parse_args(arguments)
    quiet_libraries(bars=sys.stderr.isatty() and not chosen.quiet)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    given = sys.argv[1:] if arguments is None else arguments
    again = shlex.join(["python", "-m", "experiments", *given])
    return answer(lambda: work(chosen), again=again, smaller=SMALLER)


def work(chosen: argparse.Namespace) -> int:
    from bertft.cli.options import showing_progress
    from bertft.errors import BertftError

    if unknown := set(chosen.names) - {*names(), "all"}:
        raise BertftError(f"{sorted(unknown)[0]}: no such analysis, expected all or some of {', '.join(names())}")
    wanted = names() if "all" in chosen.names else chosen.names
    analyses = {name: importlib.import_module(f"experiments.{name}") for name in wanted}
    setting = read_setting(chosen.settings, chosen.setting, data=chosen.data, model=chosen.model)
    with showing_progress(chosen.quiet) as progress:
        lab = Lab(setting, chosen.out or Path("runs") / f"experiments-{setting.name}", progress)
        lab.check(list(analyses.values()))
        if chosen.dry_run:
            print(plan(lab, analyses.values()))
            return 0
        with lab.folder.claim():
            lab.take(chosen.take)
            for name, analysis in analyses.items():
                written = lab.run(analysis)
                progress.say(f"{name}: {', '.join(str(path) for path in written)}")
    print(f"Tables and figures are in {(lab.out / 'results').resolve()}")
    return 0


def plan(lab: Lab, analyses: Iterable[ModuleType]) -> str:
    """A line a stage: done or to do, and how long it took, or took with another seed where it is to do."""
    from bertft.cli.console import clock

    stages = {stage.name: stage for analysis in analyses for stage in analysis.stages(lab)}
    done = {name for name, stage in stages.items() if lab.folder.done(stage) is not None}
    seconds = lab.folder.seconds([stages[name] for name in stages if name in done])
    alike = {re.sub(r"seed\d+", "", name): taken for name, taken in seconds.items()}
    told = {name: seconds.get(name, alike.get(re.sub(r"seed\d+", "", name))) for name in stages}
    width = max(map(len, stages), default=0)
    lines = [
        f"{name:{width}}  {'done ' if name in done else 'to do'}  {'' if time is None else clock(time)}".rstrip()
        for name, time in told.items()
    ]
    left = {name: time for name, time in told.items() if name not in done}
    known = [time for time in left.values() if time is not None]
    time = f": {clock(sum(known))} for {len(known)} of them, if they take as long as with another seed" if known else ""
    return "\n".join([*lines, "", f"{len(left)} of {len(stages)} stages to do{time}. Nothing was written."])


if __name__ == "__main__":
    sys.exit(main())

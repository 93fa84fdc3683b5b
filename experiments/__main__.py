"""``python -m experiments NAME ... | all``: run or resume analyses in one folder that shares their models."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import signal
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # before anything reads them
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import experiments

HERE = Path(__file__).parent
# First what is quick once the shared models are there, and last what trains models or probes of its own.
FIRST = ("models", "fig2_rsa", "fig5_domains", "weight_distance", "measures", "rsa_heatmap", "noise_ceiling")
LAST = ("fig1_structural_probes", "fig3_freezing", "fig4_truncation", "along_training", "table1_edge_probing")


def names() -> list[str]:
    """Every analysis, by module, in the order in which ``all`` runs them."""
    found = sorted(found.name for found in pkgutil.iter_modules(experiments.__path__) if found.name != "__main__")
    middle = [name for name in found if name not in FIRST + LAST]
    return [name for name in (*FIRST, *middle, *LAST) if name in found]


def main() -> int:
    from bertft.cli.options import showing_progress
    from bertft.errors import BertftError
    from bertft.lab import Lab, read_setting

    parser = argparse.ArgumentParser(prog="python -m experiments", description=experiments.__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"all, or some of: {', '.join(names())}")
    parser.add_argument("--setting", default="minilm", help="one of --settings: tiny, minilm, minilm_full or full")
    parser.add_argument("--settings", type=Path, default=HERE / "settings.yaml", help="the file of the settings")
    parser.add_argument("--data", type=Path, help="folder where the setting's relative paths start")
    parser.add_argument("--out", type=Path, help="folder for everything (default runs/experiments-SETTING)")
    parser.add_argument("--model", help="another encoder than the setting's")
    parser.add_argument("--take", action="append", default=[], help="a study's run folder to take finished stages from")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if unknown := set(chosen.names) - {*names(), "all"}:
            raise BertftError(f"{sorted(unknown)[0]}: no such analysis, expected all or some of {', '.join(names())}")
        setting = read_setting(chosen.settings, chosen.setting, data=chosen.data, model=chosen.model)
        with showing_progress(chosen.quiet) as progress:
            lab = Lab(setting, chosen.out or Path("runs") / f"experiments-{setting.name}", progress)
            wanted = names() if "all" in chosen.names else chosen.names
            analyses = {name: importlib.import_module(f"experiments.{name}") for name in wanted}
            lab.check(list(analyses.values()))
            with lab.folder.claim():
                lab.take(chosen.take)
                for name, analysis in analyses.items():
                    written = lab.run(analysis)
                    progress.say(f"{name}: {', '.join(str(path) for path in written)}")
    except BertftError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what was finished is kept; the same command goes on", file=sys.stderr)
        return 130
    print(f"Tables and figures are in {(lab.out / 'results').resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Commands of ``bertft``.

Each turns its options into one library call and prints where the results are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from bertft.cli.diff import DIFF_EXAMPLES, diff
from bertft.cli.options import (
    MODEL_HELP,
    SEED_HELP,
    SOURCE_HELP,
    Config,
    DryRun,
    Json,
    Out,
    Quiet,
    check_paths,
    options,
    showing_progress,
    tell,
    tell_rows,
)
from bertft.cli.probe import probe_app
from bertft.cli.rsa import RSA_EXAMPLES, rsa
from bertft.runs.folder import RUN
from bertft.study.options import FinetuneCommand

if TYPE_CHECKING:
    from bertft.runs.progress import Progress
    from bertft.study.estimate import Estimate

TRAINING_HELP = {
    "task": "dep (parsing), mnli (inference), squad (question answering), pos (tagging), or a task of your own.",
    "model": MODEL_HELP,
    "train": SOURCE_HELP,
    "dev": SOURCE_HELP,
    "out": None,
    "freeze": "Freeze the embeddings and blocks 1..k; -1 freezes nothing.",
    "truncate": "Keep only the embeddings and blocks 1..k.",
    "lora": "Rank of a LoRA to train on every block instead of the encoder.",
    "bf16": "Train in mixed precision with bfloat16, on a CPU too.",
    "fp16": "Train in mixed precision with float16, on a GPU.",
    "tf32": "Multiply matrices in TF32, on a GPU that supports it.",
    "epochs": "Passes over the training data.",
    "learning_rate": "Peak learning rate of the encoder.",
    "batch_size": "Examples per step.",
    "max_length": "Longest input in word pieces; longer ones are truncated.",
    "max_train": "Number of training examples to use; default: all.",
    "max_dev": "Number of dev examples to use; default: all.",
    "seed": SEED_HELP,
    "report_to": "Trainer reporters, such as tensorboard,wandb; all (those installed) or none; default: none.",
}
ABLATE_HELP = {
    **{name: TRAINING_HELP[name] for name in ("task", "model", "train", "dev", "out")},
    **{"k": None, "cache": None},
    **{name: TRAINING_HELP[name] for name in ("epochs", "learning_rate", "batch_size", "max_train", "max_dev")},
    **{name: TRAINING_HELP[name] for name in ("bf16", "fp16", "tf32", "seed")},
}

app = typer.Typer(
    name="bertft",
    help="What did fine-tuning change inside my model?",
    epilog="Start here: [bold]bertft study quickstart --out runs/quickstart[/bold]",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(probe_app, name="probe")


def _do(
    work: Callable[[Progress], str],
    cost: Callable[[Progress], Estimate] | None,
    out: Path,
    json: bool,
    quiet: bool,
) -> None:
    """Print what a command's ``work`` returns, or its rows as JSON; in a dry run print its ``cost`` instead."""
    with showing_progress(quiet) as progress:
        if cost:
            from bertft.cli.console import shown

            line = shown(cost(progress), json)
        else:
            line = work(progress)
    print(line) if cost else tell(line, out, json)


def _training(settings: dict[str, Any], out: Path) -> Any:
    """Return the training that the settings describe."""
    from bertft.models.finetuning.config import FinetuneConfig

    return FinetuneConfig(out=out, **settings)


def _stated(chosen: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that were given, from a file or as options; the others keep their defaults."""
    return {name: value for name, value in chosen.items() if value is not None}


@app.command(
    epilog="""[bold]Examples[/bold]\n
    bertft study quickstart --out runs/quickstart\n
    bertft study quickstart --dry-run    (estimates the cost; writes nothing)\n
    bertft study experiments/merchant2020_minilm.yaml --data ../data --variant small --out runs/small\n
    bertft study runs/small --out runs/again    (repeats the study of a run folder)"""
)
def study(
    study: Annotated[
        str, typer.Argument(help="Built-in study (quickstart), YAML file, or run folder of another study.")
    ] = "quickstart",
    out: Annotated[Optional[Path], typer.Option("--out", "-o", help="Run folder; default: runs/<study name>.")] = None,  # noqa: UP045
    data: Annotated[Optional[Path], typer.Option(help="Folder that the study's relative paths start from.")] = None,  # noqa: UP045
    variant: Annotated[str, typer.Option(help="Variant defined in the study, such as small.")] = "",
    model: Annotated[str, typer.Option(help=f"Encoder to use instead of the study's. {MODEL_HELP}")] = "",
    setting: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", help="Setting to override, such as rsa.tokens=1000; may be repeated."),
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune, compare, probe and report. Rerun to resume."""
    check_paths([], [], out)
    from bertft.study.reader import read_study

    config = read_study(study, variant=variant or None, data=data, model=model or None, settings=setting or ())
    out = out or Path("runs") / "-".join(filter(None, (config.name, config.variant)))
    begun = (out / RUN).exists()  # a finished study needs its model no more
    check_paths([] if begun else [config.model], [], out)  # `read_study` has checked its texts

    def cost(progress: Progress) -> Estimate:
        from bertft.study.estimate import estimate_study

        return estimate_study(config, out, progress=progress)

    def work(progress: Progress) -> str:
        from bertft.study.run import run_study, verdict

        return "\n".join(verdict(run_study(config, out, progress=progress)))

    _do(work, cost if dry_run else None, out, json, quiet)


@app.command(
    epilog="""[bold]Examples[/bold]\n
    bertft finetune --task mnli --model bert-base-cased --train train.jsonl.gz --dev dev.jsonl.gz --out runs/mnli\n
    bertft finetune --task dep --model builtin:minilm --train train.conllu --dev dev.conllu --freeze 3 --out runs/dep\n
    bertft finetune --config runs/dep/config.yaml --seed 2 --out runs/dep2    (repeats runs/dep with another seed)"""
)
@options(FinetuneCommand, TRAINING_HELP)
def finetune(
    chosen: dict[str, Any],
    out: Out,
    config: Config = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune an encoder into a folder that AutoModel.from_pretrained loads."""
    settings = _stated(chosen)
    check_paths([settings["model"]], [settings["train"], settings["dev"]], out)

    def cost(progress: Progress) -> Estimate:
        from bertft.study.estimate import estimate_finetune

        return estimate_finetune(_training(settings, out), progress=progress)

    def work(progress: Progress) -> str:
        from bertft.study.analyses.finetuning import run_finetune

        return run_finetune(settings, out, progress)

    _do(work, cost if dry_run else None, out, json, quiet)


@app.command(
    epilog="""[bold]Examples[/bold]\n
    bertft ablate freeze --task dep --model builtin:minilm --train train.conllu --dev dev.conllu --out runs/freeze\n
    bertft ablate truncate --task mnli --model bert-base-cased --train train.jsonl.gz --dev dev.jsonl.gz -k 6 -k 12
    --out runs/truncate"""
)
@options(FinetuneCommand, ABLATE_HELP)
def ablate(
    chosen: dict[str, Any],
    kind: Annotated[str, typer.Argument(help="freeze (Figure 3 of the paper) or truncate (Figure 4).")],
    out: Out,
    k: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option("--depth", "-k", help="Number of blocks k; may be repeated; default: every k."),
    ] = None,
    cache: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder for the cached output of frozen blocks; default: OUT/prefix, removed at the end."),
    ] = None,
    config: Config = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune with blocks 1..k frozen, or with only those blocks, for every k."""
    settings = _stated(chosen)
    check_paths([settings["model"]], [settings["train"], settings["dev"]], out)

    def cost(progress: Progress) -> Estimate:
        from bertft.study.estimate import estimate_sweep

        return estimate_sweep(kind, _training(settings, out), depths=k or None, cache=cache, progress=progress)

    def work(progress: Progress) -> str:
        from bertft.study.analyses.ablation import sweep
        from bertft.study.analysis import where_results_are

        sweep(kind, _training(settings, out), depths_wanted=k or None, cache=cache, progress=progress)
        return where_results_are(out)

    _do(work, cost if dry_run else None, out, json, quiet)


app.command(epilog=RSA_EXAMPLES)(rsa)
app.command(epilog=DIFF_EXAMPLES)(diff)


@app.command(
    epilog="""[bold]Examples[/bold]\n
    bertft report runs/quickstart\n
    bertft report runs/quickstart --json\n
    bertft report runs/seed1 runs/seed2 --out runs/both    (one page, side by side)"""
)
def report(
    folders: Annotated[
        list[Path], typer.Argument(help="A run folder with results.csv, or several.", metavar="RUN ...")
    ],
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", "-o", help="Folder for the page of several runs."),
    ] = None,
    json: Annotated[
        bool,
        typer.Option("--json", help="Print the rows of results.csv as JSON, by folder if several; draw nothing."),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Redraw the figures and the page of a run folder from its results.csv, or draw several runs side by side."""
    if json:
        tell_rows(folders)
        return
    from bertft.report.read import check_run

    for folder in folders:
        check_run(folder)
    from bertft.study.redraw import report as drawn

    with showing_progress(quiet) as progress:
        page = drawn(folders, out, progress=progress)
    print(f"The page is at {page.resolve()}")


@app.command()
def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False, quiet: Quiet = False
) -> None:
    """Show versions, devices, and which kernels are in use and why."""
    from bertft.cli.doctor import report as findings

    if json:
        from json import dumps

        print(dumps(findings(), indent=1))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    with Console(stderr=True, quiet=quiet).status("inspecting (the first run builds the kernels)"):
        sections = findings()
    for title, entries in sections.items():
        table = Table(
            title=title, title_justify="left", title_style="bold", show_header=False, box=None, pad_edge=False
        )
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(overflow="fold")
        for name, finding in entries.items():
            table.add_row(name, Text(finding))  # not markup: an extra is named in brackets
        console.print(table)
        console.print()


def _version(show: bool) -> None:
    if show:
        from bertft.runs.versions import package_versions

        print(f"bertft {package_versions(['bertft'])['bertft']}")
        raise typer.Exit()


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What did fine-tuning change inside my model?"""  # noqa: D401 - the title of --help

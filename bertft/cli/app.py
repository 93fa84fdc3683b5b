"""The commands. Each gathers its options, calls one documented function, and says where the result lies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from bertft.cli.config_file import Config
from bertft.cli.options import (
    MODEL_HELP,
    BatchSize,
    Bf16,
    DryRun,
    Epochs,
    Fp16,
    Json,
    LearningRate,
    MaxDev,
    MaxLength,
    MaxTrain,
    Model,
    Out,
    Quiet,
    ReportTo,
    Seed,
    Source,
    TaskName,
    Tf32,
    showing_progress,
    tell,
)
from bertft.cli.probe import probe_app
from bertft.cli.rsa import RSA_EXAMPLES, rsa

if TYPE_CHECKING:
    from bertft.runs.progress import Progress
    from bertft.study.estimate import Estimate

app = typer.Typer(
    name="bertft",
    help="What did fine-tuning change inside my encoder?",
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
    """Do a command's ``work`` and say where its results lie, or, of a dry run, say what it would ``cost``."""
    with showing_progress(quiet) as progress:
        if cost:
            from bertft.cli.estimates import shown

            line = shown(cost(progress), json)
        else:
            line = work(progress)
    print(line) if cost else tell(line, out, json)


@app.command(
    epilog="""[bold]Examples[/bold]\n
    bertft study quickstart --out runs/quickstart\n
    bertft study quickstart --dry-run    (what it would cost; nothing is written)\n
    bertft study experiments/merchant2020_minilm.yaml --data ../data --variant small --out runs/small\n
    bertft study runs/small --out runs/again    (the study another run folder holds)"""
)
def study(
    study: Annotated[
        str, typer.Argument(help="quickstart, a STUDY.yaml, or another study's run folder.")
    ] = "quickstart",
    out: Annotated[Optional[Path], typer.Option("--out", "-o", help="Run folder; default runs/<study name>.")] = None,  # noqa: UP045
    data: Annotated[Optional[Path], typer.Option(help="Folder the study's relative paths start at.")] = None,  # noqa: UP045
    variant: Annotated[str, typer.Option(help="A variant the study defines, such as small.")] = "",
    model: Annotated[str, typer.Option(help=f"Another encoder than the study's: {MODEL_HELP}")] = "",
    setting: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--set", help="A setting in place of the study's, as rsa.tokens=1000; repeat for several."),
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune, compare, probe and report: the main job. Run again to resume."""
    from bertft.study.run import read_study, run_study

    config = read_study(study, variant=variant or None, data=data, model=model or None, settings=setting or ())
    out = out or Path("runs") / "-".join(filter(None, (config.name, config.variant)))

    def cost(progress: Progress) -> Estimate:
        from bertft.study.estimate import estimate_study

        return estimate_study(config, out, progress=progress)

    def work(progress: Progress) -> str:
        return f"The page is at {run_study(config, out, progress=progress).resolve()}"

    _do(work, cost if dry_run else None, out, json, quiet)


@app.command(
    epilog="""[bold]Examples[/bold]\n
    bertft finetune --task mnli --model bert-base-cased --train train.jsonl.gz --dev dev.jsonl.gz --out runs/mnli\n
    bertft finetune --task dep --model builtin:minilm --train train.conllu --dev dev.conllu --freeze 3 --out runs/dep\n
    bertft finetune --config runs/dep/config.yaml --seed 2 --out runs/dep2    (as runs/dep but for the seed)"""
)
def finetune(
    context: typer.Context,
    task: TaskName,
    model: Model,
    train: Source,
    dev: Source,
    out: Out,
    freeze: Annotated[int, typer.Option(help="-1 nothing; 0 embeddings; k embeddings and blocks 1..k.")] = -1,
    truncate: Annotated[Optional[int], typer.Option(help="Keep only blocks 1..k.")] = None,  # noqa: UP045
    lora: Annotated[Optional[int], typer.Option(help="Train a LoRA of this rank on every block instead.")] = None,  # noqa: UP045
    bf16: Bf16 = False,
    fp16: Fp16 = False,
    tf32: Tf32 = False,
    epochs: Epochs = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    max_length: MaxLength = None,
    max_train: MaxTrain = None,
    max_dev: MaxDev = None,
    seed: Seed = 1337,
    report_to: ReportTo = "none",
    config: Config = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune an encoder; the checkpoint loads with AutoModel.from_pretrained."""
    from bertft.cli.runs import run_finetune

    chosen = {
        "task": task, "model": model, "train": train, "dev": dev, "freeze": freeze, "truncate": truncate,
        "lora": lora, "epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size,
        "max_length": max_length, "max_train": max_train, "max_dev": max_dev, "seed": seed,
        "bf16": bf16 or None, "fp16": fp16 or None, "tf32": tf32 or None,
        "report_to": None if report_to == "none" else report_to,
    }  # fmt: skip
    settings = {**(context.obj or {}), **{name: value for name, value in chosen.items() if value is not None}}

    def cost(progress: Progress) -> Estimate:
        from bertft.models.finetuning.run import FinetuneConfig
        from bertft.study.estimate import estimate_finetune

        return estimate_finetune(FinetuneConfig(out=out, **settings), progress=progress)

    _do(lambda progress: run_finetune(settings, out, progress), cost if dry_run else None, out, json, quiet)


@app.command(
    epilog="""[bold]Examples[/bold]\n
    bertft ablate freeze --task dep --model builtin:minilm --train train.conllu --dev dev.conllu --out runs/freeze\n
    bertft ablate truncate --task mnli --model bert-base-cased --train train.jsonl.gz --dev dev.jsonl.gz -k 6 -k 12
    --out runs/truncate"""
)
def ablate(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="freeze (Figure 3 of the paper) or truncate (Figure 4).")],
    task: TaskName,
    model: Model,
    train: Source,
    dev: Source,
    out: Out,
    k: Annotated[Optional[list[int]], typer.Option("--depth", "-k", help="One k; repeat. Default: every one.")] = None,  # noqa: UP045
    cache: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder that keeps what frozen blocks give out; default OUT/prefix, removed at the end."),
    ] = None,
    epochs: Epochs = None,
    learning_rate: LearningRate = None,
    batch_size: BatchSize = None,
    max_train: MaxTrain = None,
    max_dev: MaxDev = None,
    bf16: Bf16 = False,
    fp16: Fp16 = False,
    tf32: Tf32 = False,
    seed: Seed = 1337,
    config: Config = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune with blocks 1..k frozen, or with these alone, for every k: which layers does the task need?"""
    from bertft.cli.runs import run_ablate

    chosen = {
        "task": task, "model": model, "train": train, "dev": dev, "epochs": epochs, "learning_rate": learning_rate,
        "batch_size": batch_size, "max_train": max_train, "max_dev": max_dev, "seed": seed,
        "bf16": bf16 or None, "fp16": fp16 or None, "tf32": tf32 or None,
    }  # fmt: skip
    settings = {**(context.obj or {}), **{name: value for name, value in chosen.items() if value is not None}}

    def cost(progress: Progress) -> Estimate:
        from bertft.models.finetuning.run import FinetuneConfig
        from bertft.study.estimate import estimate_sweep

        return estimate_sweep(
            kind, FinetuneConfig(out=out, **settings), depths=k or None, cache=cache, progress=progress
        )

    def work(progress: Progress) -> str:
        return run_ablate(kind, settings, out, k or None, cache, progress)

    _do(work, cost if dry_run else None, out, json, quiet)


app.command(epilog=RSA_EXAMPLES)(rsa)


@app.command(
    epilog="""[bold]Examples[/bold]\n
    bertft report runs/quickstart\n
    bertft report runs/quickstart --json"""
)
def report(
    folder: Annotated[Path, typer.Argument(help="A run folder with results.csv.")],
    json: Annotated[bool, typer.Option("--json", help="Print the rows of results.csv as JSON, draw nothing.")] = False,
    quiet: Quiet = False,
) -> None:
    """Draw the figures and the page of a run folder again, from its results.csv."""
    if json:
        tell("", folder, as_json=True)
        return
    from bertft.report import write_report

    with showing_progress(quiet) as progress:
        page = write_report(folder, progress=progress)
    print(f"The page is at {page.resolve()}")


@app.command()
def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False, quiet: Quiet = False
) -> None:
    """Versions, devices, and which kernels are in use and why."""
    from bertft.cli.doctor import report as findings

    if json:
        from json import dumps

        print(dumps(findings(), indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    with Console(stderr=True, quiet=quiet).status("looking (the first time builds the kernels)"):
        sections = findings()
    for title, entries in sections.items():
        table = Table(
            title=title, title_justify="left", title_style="bold", show_header=False, box=None, pad_edge=False
        )
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(overflow="fold")
        for name, finding in entries.items():
            table.add_row(name, finding)
        console.print(table)
        console.print()


def _version(show: bool) -> None:
    if show:
        from bertft import __version__

        print(f"bertft {__version__}")
        raise typer.Exit()


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and exit.")
    ] = False,
) -> None:
    """What did fine-tuning change inside my encoder?"""

"""The commands. Each gathers its options, calls one documented function, and says where the result lies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Optional

import typer

from bertft.errors import BertftError
from bertft.progress import SILENT, Progress

app = typer.Typer(
    name="bertft",
    help="What did fine-tuning change inside my encoder?",
    epilog="Start here: [bold]bertft study quickstart --out runs/quickstart[/bold]",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
probe_app = typer.Typer(no_args_is_help=True, help="Probe the layers of an encoder.", rich_markup_mode="rich")
app.add_typer(probe_app, name="probe")

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results; an interrupted run resumes in it.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Seed = Annotated[int, typer.Option(help="Same seed, same numbers.")]
MODEL_HELP = "Hugging Face id, folder, or builtin:minilm."
SOURCE_HELP = "File (.gz too), saved data set folder, hub data set id, or builtin:synthetic."


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Progress]:
    if quiet:
        yield SILENT
        return
    from bertft.console import ConsoleProgress

    with ConsoleProgress() as progress:
        yield progress


@app.command(
    epilog="""[bold]Examples[/bold]\n
    bertft study quickstart --out runs/quickstart\n
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
    quiet: Quiet = False,
) -> None:
    """Fine-tune, compare, probe and report: the main job. Run again to resume."""
    from bertft.study import read_study, run_study

    config = read_study(study, variant=variant or None, data=data, model=model or None)
    out = out or Path("runs") / "-".join(filter(None, (config.name, config.variant)))
    with _progress(quiet) as progress:
        page = run_study(config, out, progress=progress)
    print(f"The page is at {page.resolve()}")


@app.command(
    epilog="""[bold]Examples[/bold]\n
    bertft finetune --task mnli --model bert-base-cased --train train.jsonl.gz --dev dev.jsonl.gz --out runs/mnli\n
    bertft finetune --task dep --model builtin:minilm --train train.conllu --dev dev.conllu --freeze 3 --out runs/dep"""
)
def finetune(
    task: Annotated[str, typer.Option(help="dep (parsing), mnli (inference) or squad (question answering).")],
    model: Annotated[str, typer.Option(help=MODEL_HELP)],
    train: Annotated[str, typer.Option(help=SOURCE_HELP)],
    dev: Annotated[str, typer.Option(help=SOURCE_HELP)],
    out: Out,
    freeze: Annotated[int, typer.Option(help="-1 nothing; 0 embeddings; k embeddings and blocks 1..k.")] = -1,
    truncate: Annotated[Optional[int], typer.Option(help="Keep only blocks 1..k.")] = None,  # noqa: UP045
    epochs: Annotated[Optional[int], typer.Option(help="Passes over the training data.")] = None,  # noqa: UP045
    learning_rate: Annotated[Optional[float], typer.Option(help="Peak rate of the encoder.")] = None,  # noqa: UP045
    batch_size: Annotated[Optional[int], typer.Option(help="Examples a step.")] = None,  # noqa: UP045
    max_train: Annotated[Optional[int], typer.Option(help="At most so many training examples.")] = None,  # noqa: UP045
    max_dev: Annotated[Optional[int], typer.Option(help="At most so many dev examples.")] = None,  # noqa: UP045
    seed: Seed = 1337,
    quiet: Quiet = False,
) -> None:
    """Fine-tune an encoder; the checkpoint loads with AutoModel.from_pretrained."""
    from bertft.cli.runs import run_finetune

    chosen = {
        "task": task, "model": model, "train": train, "dev": dev, "freeze": freeze, "truncate": truncate,
        "epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size,
        "max_train": max_train, "max_dev": max_dev, "seed": seed,
    }  # fmt: skip
    with _progress(quiet) as progress:
        line = run_finetune({k: v for k, v in chosen.items() if v is not None}, out, progress)
    print(line)


@app.command(
    epilog="""[bold]Examples[/bold]\n
    bertft rsa --base bert-base-cased --tuned runs/mnli --text wikipedia.txt.gz --out runs/rsa\n
    bertft rsa --base builtin:minilm --tuned dep=runs/dep --tuned mnli=runs/mnli --text sentences.txt --out runs/rsa"""
)
def rsa(
    base: Annotated[str, typer.Option(help=f"The encoder to compare with: {MODEL_HELP}")],
    tuned: Annotated[list[str], typer.Option(help="Tuned encoder, or NAME=encoder; repeat for several.")],
    text: Annotated[str, typer.Option(help=f"Plain text, a sentence a line. {SOURCE_HELP}")],
    out: Out,
    tokens: Annotated[int, typer.Option(min=3, help="How many tokens to compare on.")] = 5000,
    metric: Annotated[str, typer.Option(help="cosine, dot, correlation or sqeuclidean.")] = "cosine",
    seed: Seed = 1337,
    quiet: Quiet = False,
) -> None:
    """Similarity of every layer of tuned encoders to the base, with 95 % intervals."""
    from bertft.cli.runs import run_rsa

    named = _named(tuned)
    with _progress(quiet) as progress:
        line = run_rsa(base, named, text, out, tokens=tokens, metric=metric, seed=seed, progress=progress)
    print(line)


@probe_app.command(
    epilog="""[bold]Example[/bold]\n
    bertft probe structural --model bert-base-cased --train en-train.conllu --dev en-dev.conllu --out runs/probe"""
)
def structural(
    model: Annotated[list[str], typer.Option(help=f"Encoder, or NAME=encoder; repeat for several. {MODEL_HELP}")],
    train: Annotated[str, typer.Option(help=f"CoNLL-U. {SOURCE_HELP}")],
    dev: Annotated[str, typer.Option(help=f"CoNLL-U. {SOURCE_HELP}")],
    out: Out,
    rank: Annotated[int, typer.Option(min=1, help="Rank of the probes.")] = 128,
    epochs: Annotated[int, typer.Option(min=1, help="At most so many epochs.")] = 10,
    max_train: Annotated[Optional[int], typer.Option(help="At most so many training sentences.")] = None,  # noqa: UP045
    max_dev: Annotated[Optional[int], typer.Option(help="At most so many dev sentences.")] = None,  # noqa: UP045
    seed: Seed = 1337,
    quiet: Quiet = False,
) -> None:
    """Distance and depth probes of every layer: DSpr, UUAS, NSpr, root accuracy."""
    from bertft.cli.runs import run_structural

    with _progress(quiet) as progress:
        line = run_structural(
            _named(model), train, dev, out,
            rank=rank, epochs=epochs, max_train=max_train, max_dev=max_dev, seed=seed, progress=progress,
        )  # fmt: skip
    print(line)


@app.command(epilog="[bold]Example[/bold]\n\n    bertft report runs/quickstart")
def report(folder: Annotated[Path, typer.Argument(help="A run folder with results.csv.")]) -> None:
    """Draw the figures and the page of a run folder again, from its results.csv."""
    from bertft.report import write_report

    print(f"The page is at {write_report(folder).resolve()}")


@app.command()
def doctor() -> None:
    """Versions, devices, and which kernels are in use and why."""
    from rich.console import Console
    from rich.table import Table

    from bertft.doctor import report as findings

    console = Console(highlight=False)
    with Console(stderr=True).status("looking (the first time builds the kernels)"):
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


def _named(encoders: list[str]) -> dict[str, str]:
    """``NAME=encoder`` or a bare encoder, which is named after its last part."""
    named: dict[str, str] = {}
    for entry in encoders:
        name, equals, source = entry.partition("=")
        if not equals:
            name, source = Path(entry.rstrip("/")).name.replace("builtin:", ""), entry
        if not name or not source:
            raise BertftError(f"{entry!r}: expected an encoder or NAME=encoder")
        if name in named:
            raise BertftError(f"{entry!r}: two encoders are called {name!r}; give each a name with NAME=encoder")
        named[name] = source
    return named

"""What several commands share: options, encoders by name, the progress bar."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Optional

import typer

from bertft.errors import BertftError
from bertft.runs.progress import SILENT, Progress

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results; an interrupted run resumes in it.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Seed = Annotated[int, typer.Option(help="Same seed, same numbers.")]
Json = Annotated[bool, typer.Option("--json", help="Print the rows of results.csv as JSON (of a dry run: its costs).")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would cost in time, disk and memory; no more.")]
Bf16 = Annotated[bool, typer.Option("--bf16", help="Train in bfloat16 beside float32, on a CPU too.")]
Fp16 = Annotated[bool, typer.Option("--fp16", help="Train in float16 beside float32, on a GPU.")]
Tf32 = Annotated[bool, typer.Option("--tf32", help="Multiply matrices in TF32, on a GPU that has it.")]
MODEL_HELP = "Hugging Face id (id@revision too), folder, or builtin:minilm."
SOURCE_HELP = "File (.gz too), saved data set folder, hub data set id (id@revision too), or builtin:synthetic."
TASK_HELP = "Such as dep (parsing), mnli (inference), squad (question answering), pos (tagging); or one of your own."
TaskName = Annotated[str, typer.Option(help=TASK_HELP)]
Model = Annotated[str, typer.Option(help=MODEL_HELP)]
Source = Annotated[str, typer.Option(help=SOURCE_HELP)]
Epochs = Annotated[Optional[int], typer.Option(help="Passes over the training data.")]  # noqa: UP045
LearningRate = Annotated[Optional[float], typer.Option(help="Peak rate of the encoder.")]  # noqa: UP045
BatchSize = Annotated[Optional[int], typer.Option(help="Examples a step.")]  # noqa: UP045
MaxLength = Annotated[Optional[int], typer.Option(help="Word pieces an input has at most; longer ones are cut.")]  # noqa: UP045
ReportTo = Annotated[str, typer.Option(help="Trainer reporters, as tensorboard,wandb; all that are installed; none.")]
MaxTrain = Annotated[Optional[int], typer.Option(help="At most so many training examples.")]  # noqa: UP045
MaxDev = Annotated[Optional[int], typer.Option(help="At most so many dev examples.")]  # noqa: UP045


@contextlib.contextmanager
def showing_progress(quiet: bool) -> Iterator[Progress]:
    """A progress bar on stderr, or none."""
    if quiet:
        yield SILENT
        return
    from bertft.cli.console import ConsoleProgress

    with ConsoleProgress() as progress:
        yield progress


def tell(line: str, out: Path, as_json: bool) -> None:
    """What a command that wrote ``out`` prints at its end."""
    if as_json:
        from bertft.runs.rows import read_results, results_as_json

        line = results_as_json(read_results(out / "results.csv"))
    print(line)


def named_encoders(encoders: list[str]) -> dict[str, str]:
    """``NAME=encoder`` or a bare encoder, which is named after its last part."""
    from bertft.data.sources import encoder_name

    named: dict[str, str] = {}
    for entry in encoders:
        name, equals, source = entry.partition("=")
        if not equals:
            name, source = encoder_name(entry), entry
        if not name or not source:
            raise BertftError(f"{entry!r}: expected an encoder or NAME=encoder")
        if name in named:
            raise BertftError(f"{entry!r}: two encoders are called {name!r}; give each a name with NAME=encoder")
        named[name] = source
    return named

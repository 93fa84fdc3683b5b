"""``bertft probe ...``: structural and edge probes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from bertft.cli.config_file import Config
from bertft.cli.options import MODEL_HELP, SOURCE_HELP, Json, Out, Quiet, Seed, named_encoders, showing_progress, tell

probe_app = typer.Typer(no_args_is_help=True, help="Probe the layers of an encoder.", rich_markup_mode="rich")

Models = Annotated[list[str], typer.Option(help=f"Encoder, or NAME=encoder; repeat for several. {MODEL_HELP}")]
Features = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Folder that keeps the vectors for later runs; default OUT/features, removed at the end."),
]
Dtype = Annotated[str, typer.Option(help="How vectors are stored: float16 or float32.")]
Stream = Annotated[bool, typer.Option("--stream", help="Store no vectors; run the encoder for every batch (slow).")]
Window = Annotated[str, typer.Option(help="Sentences longer than the encoder's window: refuse or split them.")]
Limit = Annotated[Optional[int], typer.Option(min=1, help="At most so many of its texts.")]  # noqa: UP045
Random = Annotated[bool, typer.Option(help="Also probe the first encoder with random weights.")]


@probe_app.command(
    epilog="""[bold]Examples[/bold]\n
    bertft probe structural --model bert-base-cased --train en-train.conllu --dev en-dev.conllu --out runs/probe\n
    bertft probe structural --model base=builtin:minilm --model dep=runs/dep --random --control --rank 8 --rank 128
    --train en-train.conllu --dev en-dev.conllu --out runs/ranks"""
)
def structural(
    model: Models,
    train: Annotated[str, typer.Option(help=f"CoNLL-U. {SOURCE_HELP}")],
    dev: Annotated[str, typer.Option(help=f"CoNLL-U. {SOURCE_HELP}")],
    out: Out,
    rank: Annotated[Optional[list[int]], typer.Option(min=1, help="Rank, default 128; repeat for a sweep.")] = None,  # noqa: UP045
    orthogonal: Annotated[
        bool, typer.Option("--orthogonal", help="Orthogonal probes too: a rotation a layer, a scaling a kind.")
    ] = False,
    rbf: Annotated[bool, typer.Option("--rbf", help="RBF-kernel probes too, of the highest rank (slower).")] = False,
    control: Annotated[
        bool, typer.Option("--control", help="Train on control trees too, for the selectivity.")
    ] = False,
    random: Random = False,
    epochs: Annotated[int, typer.Option(min=1, help="At most so many epochs; probes stop by themselves.")] = 40,
    max_train: Limit = None,
    max_dev: Limit = None,
    features: Features = None,
    dtype: Dtype = "float16",
    stream: Stream = False,
    window: Window = "refuse",
    seed: Seed = 1337,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Distance and depth probes of every layer: DSpr, UUAS, NSpr, root accuracy."""
    from bertft.cli.probe_runs import StructuralCommand, run_structural

    command = StructuralCommand(
        models=named_encoders(model), train=train, dev=dev, rank=list(rank or [128]), orthogonal=orthogonal,
        rbf=rbf, control=control, random=random, epochs=epochs, max_train=max_train, max_dev=max_dev, dtype=dtype,
        stream=stream, window=window, seed=seed,
    )  # fmt: skip
    with showing_progress(quiet) as progress:
        line = run_structural(command, out, features, progress)
    tell(line, out, json)


@probe_app.command(
    epilog="""[bold]Examples[/bold]\n
    bertft probe edge --model bert-base-cased --train ner/train.jsonl.gz --dev ner/dev.jsonl.gz --out runs/ner\n
    bertft probe edge --model base=builtin:minilm --model dep=runs/dep --random --train coref/train.jsonl.gz
    --dev coref/dev.jsonl.gz --test coref/test.jsonl.gz --code-length --out runs/coref"""
)
def edge(
    model: Models,
    train: Annotated[str, typer.Option(help="Edge-probing JSONL (.gz too), or builtin:synthetic.")],
    dev: Annotated[str, typer.Option(help="The same form; it decides when a probe stops.")],
    out: Out,
    test: Annotated[Optional[str], typer.Option(help="What is scored; default: the dev data.")] = None,  # noqa: UP045
    name: Annotated[str, typer.Option(help="Name of the task in the results; default: the training file's.")] = "",
    control: Annotated[bool, typer.Option(help="Train on control labels too, for the selectivity.")] = True,
    code_length: Annotated[bool, typer.Option("--code-length", help="Description length of the labels.")] = False,
    random: Random = False,
    learning_rate: Annotated[float, typer.Option(help="Adam's.")] = 1e-4,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts a step.")] = 32,
    interval: Annotated[int, typer.Option(min=1, help="Steps between two validations.")] = 100,
    steps: Annotated[int, typer.Option(min=1, help="At most so many steps.")] = 10_000,
    max_train: Limit = None,
    max_dev: Limit = None,
    max_test: Limit = None,
    features: Features = None,
    dtype: Dtype = "float16",
    stream: Stream = False,
    window: Window = "refuse",
    seed: Seed = 1337,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Edge probes of every layer, top beside lexical, and mixes: micro-F1 beside its control."""
    from bertft.cli.probe_runs import EdgeCommand, run_edge

    command = EdgeCommand(
        models=named_encoders(model), train=train, dev=dev, test=test, name=name, control=control,
        code_length=code_length, random=random, learning_rate=learning_rate, batch_size=batch_size, interval=interval,
        steps=steps, max_train=max_train, max_dev=max_dev, max_test=max_test, dtype=dtype, stream=stream,
        window=window, seed=seed,
    )  # fmt: skip
    with showing_progress(quiet) as progress:
        line = run_edge(command, out, features, progress)
    tell(line, out, json)

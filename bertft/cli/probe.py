"""``bertft probe structural`` and ``bertft probe edge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from bertft.cli.options import (
    MODEL_HELP,
    SEED_HELP,
    SOURCE_HELP,
    Config,
    Json,
    Out,
    Quiet,
    check_paths,
    named_encoders,
    options,
    showing_progress,
    tell,
)
from bertft.study.options import EdgeCommand, StructuralCommand

probe_app = typer.Typer(no_args_is_help=True, help="Probe the layers of an encoder.", rich_markup_mode="rich")

Models = Annotated[list[str], typer.Option(help=f"Encoder, or NAME=encoder; may be repeated. {MODEL_HELP}")]
Features = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(help="Folder that stores the vectors for later runs; default: OUT/features, removed at the end."),
]
LIMIT_HELP = "Number of its texts to use; default: all."
RANDOM = typer.Option("--random/--no-random", help="Also probe the first encoder with random weights.")
VECTORS_HELP = {
    "features": None,
    "dtype": "Precision of stored vectors: float16 or float32.",
    "stream": "Store no vectors; run the encoder for every batch (slow).",
    "window": "Handling of sentences longer than the encoder's window: refuse or split.",
    "seed": SEED_HELP,
}
STRUCTURAL_HELP = {
    "model": None,
    "train": f"CoNLL-U. {SOURCE_HELP}",
    "dev": f"CoNLL-U. {SOURCE_HELP}",
    "out": None,
    "rank": "Rank of the probes; may be repeated.",
    "orthogonal": "Train orthogonal probes as well: one rotation per layer, one scale vector per probe kind.",
    "rbf": "Train RBF-kernel probes of the highest rank as well (slower).",
    "control": "Train on control trees as well, to report selectivity.",
    "random": RANDOM,
    "epochs": "Maximum number of epochs; training stops early.",
    "max_train": LIMIT_HELP,
    "max_dev": LIMIT_HELP,
    **VECTORS_HELP,
}
EDGE_HELP = {
    "model": None,
    "train": "Edge-probing JSONL (.gz too), or builtin:synthetic.",
    "dev": "Same format; decides when training stops.",
    "out": None,
    "test": "Data to score on; default: the dev data.",
    "name": "Name of the task in the results; default: that of the training file.",
    "control": "Train on control labels as well, to report selectivity.",
    "code_length": "Measure the description length of the labels.",
    "mixes": "Mixes of layers 0..k to probe: all, or the top one alone (faster, no expected layer).",
    "random": RANDOM,
    "learning_rate": "Learning rate of Adam.",
    "batch_size": "Texts per step.",
    "interval": "Steps between validations.",
    "steps": "Maximum number of steps.",
    "max_train": LIMIT_HELP,
    "max_dev": LIMIT_HELP,
    "max_test": LIMIT_HELP,
    **VECTORS_HELP,
}


@probe_app.command(
    epilog="""[bold]Examples[/bold]\n
    bertft probe structural --model bert-base-cased --train en-train.conllu --dev en-dev.conllu --out runs/probe\n
    bertft probe structural --model base=builtin:minilm --model dep=runs/dep --random --control --rank 8 --rank 128
    --train en-train.conllu --dev en-dev.conllu --out runs/ranks"""
)
@options(StructuralCommand, STRUCTURAL_HELP)
def structural(
    chosen: dict[str, Any],
    model: Models,
    out: Out,
    features: Features = None,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train distance and depth probes on every layer: DSpr, UUAS, NSpr, root accuracy."""
    models = named_encoders(model)
    check_paths(models.values(), [chosen["train"], chosen["dev"]], out)
    from bertft.study.analyses.structural import run_structural

    command = StructuralCommand(models=models, **chosen)
    with showing_progress(quiet) as progress:
        line = run_structural(command, out, features, progress)
    tell(line, out, json)


@probe_app.command(
    epilog="""[bold]Examples[/bold]\n
    bertft probe edge --model bert-base-cased --train ner/train.jsonl.gz --dev ner/dev.jsonl.gz --out runs/ner\n
    bertft probe edge --model base=builtin:minilm --model dep=runs/dep --random --train coref/train.jsonl.gz
    --dev coref/dev.jsonl.gz --test coref/test.jsonl.gz --code-length --out runs/coref"""
)
@options(EdgeCommand, EDGE_HELP)
def edge(
    chosen: dict[str, Any],
    model: Models,
    out: Out,
    features: Features = None,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train edge probes on every layer, layer pairs and mixes: micro-F1 with its control."""
    models = named_encoders(model)
    check_paths(models.values(), [chosen["train"], chosen["dev"], chosen["test"]], out)
    from bertft.study.analyses.edge import run_edge

    command = EdgeCommand(models=models, **chosen)
    with showing_progress(quiet) as progress:
        line = run_edge(command, out, features, progress)
    tell(line, out, json)

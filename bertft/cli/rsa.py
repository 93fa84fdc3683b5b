"""The command ``bertft rsa``: similarity of tuned encoders to their base, over any text."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from bertft.cli.config_file import Config
from bertft.cli.options import MODEL_HELP, SOURCE_HELP, Json, Out, Quiet, Seed, named_encoders, showing_progress, tell

RSA_EXAMPLES = """[bold]Examples[/bold]\n
    bertft rsa --base bert-base-cased --tuned runs/mnli --text wikipedia.txt.gz --out runs/rsa\n
    bertft rsa --base builtin:minilm --tuned dep=runs/dep --tuned mnli=runs/mnli --text sentences.txt --out runs/rsa\n
    bertft rsa --base gpt2 --tuned runs/adapter --text folder --tokens all --measures rsa,cka,cca --out runs/all\n
    bertft rsa --base builtin:minilm --tuned runs/dep --text en-dev.conllu --by upos,relation --out runs/words\n
    torchrun --nproc-per-node 2 -m bertft rsa --base gpt2 --tuned runs/gpt2 --text folder --tokens all --out runs/all"""

METRIC_HELP = "cosine, dot, correlation, sqeuclidean, euclidean or manhattan; several with commas."
COMPARE_HELP = "pearson, cosine, spearman, rho_a or kendall; several with commas."
MEASURES_HELP = (
    "rsa, cka, cca, svcca, pwcca, procrustes, shape_distance, r2, effective_dimension, anisotropy, knn, cka_rbf; "
    "several with commas."
)
LAYERS_HELP = "paired, or all: also every layer of the base against every layer of a tuned encoder, as a heat map."
BY_HELP = (
    "Also which words and sentences moved, by some of position, frequency, and of trees upos, xpos, relation, depth, "
    "feats:KEY, misc:KEY; for each --metric but euclidean and manhattan."
)
PRECISION_HELP = (
    "Of the sums' products: float32 (summed in float64, error 1e-7), or float64 (1e-12, half as fast), which cca, "
    "pwcca and linear_r2 take in either case."
)
PERMUTATIONS_HELP = "Mantel test of each RSA on the sample with so many permutations, rows <measure>_p; 0 for none."


def rsa(
    base: Annotated[str, typer.Option(help=f"The encoder to compare with: {MODEL_HELP}")],
    tuned: Annotated[list[str], typer.Option(help="Tuned encoder, or NAME=encoder; repeat for several.")],
    text: Annotated[str, typer.Option(help=f"Plain text, a sentence a line, or a folder of it. {SOURCE_HELP}")],
    out: Out,
    tokens: Annotated[str, typer.Option(help="How many stimuli, of texts drawn at random; or all.")] = "5000",
    unit: Annotated[str, typer.Option(help="token, or word: what encoders with different tokenizers need.")] = "token",
    metric: Annotated[str, typer.Option(help=METRIC_HELP)] = "cosine",
    compare: Annotated[str, typer.Option(help=COMPARE_HELP)] = "pearson",
    measures: Annotated[str, typer.Option(help=MEASURES_HELP)] = "rsa,cka",
    sample: Annotated[int, typer.Option(min=4, help="Stimuli for intervals and for what needs all pairs.")] = 5000,
    intervals: Annotated[bool, typer.Option(help="95 % intervals, clustered by text.")] = True,
    layers: Annotated[str, typer.Option(help=LAYERS_HELP)] = "paired",
    permutations: Annotated[int, typer.Option(min=0, help=PERMUTATIONS_HELP)] = 0,
    by: Annotated[str, typer.Option(help=BY_HELP)] = "",
    dtype: Annotated[str, typer.Option(help="Of the encoders: float32, bfloat16 or float16.")] = "float32",
    precision: Annotated[str, typer.Option(help=PRECISION_HELP)] = "float32",
    split: Annotated[Optional[str], typer.Option(help="Of a data set.")] = None,  # noqa: UP045
    seed: Seed = 1337,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Similarity of every layer of tuned encoders to the base, with 95 % intervals.

    Any number of tokens in the same memory; interrupted or killed, it goes on where it was.
    """
    from bertft.cli.rsa_runs import listed, measures_of, parse_tokens, run_rsa

    named, count = named_encoders(tuned), parse_tokens(tokens)
    with showing_progress(quiet) as progress:
        line = run_rsa(
            base, named, text, out,
            tokens=count, unit=unit, metrics=listed(metric), compares=listed(compare),
            measures=measures_of(measures), sample=sample, intervals=intervals, layers=layers,
            permutations=permutations, by=listed(by), dtype=dtype, precision=precision, split=split,
            seed=seed, progress=progress,
        )  # fmt: skip
    if line:
        tell(line, out, json)

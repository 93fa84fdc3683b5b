"""The command ``bertft rsa``: similarity of tuned encoders to their base, over any text."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from bertft.cli.options import (
    MODEL_HELP,
    SEED_HELP,
    SOURCE_HELP,
    Config,
    Json,
    Out,
    Quiet,
    named_encoders,
    options,
    showing_progress,
    tell,
)
from bertft.errors import BertftError
from bertft.study.config import RsaOptions

ALIASES = {"r2": "linear_r2", "knn": "mutual_knn"}

RSA_EXAMPLES = """[bold]Examples[/bold]\n
    bertft rsa --base bert-base-cased --tuned runs/mnli --text wikipedia.txt.gz --out runs/rsa\n
    bertft rsa --base builtin:minilm --tuned dep=runs/dep --tuned mnli=runs/mnli --text sentences.txt --out runs/rsa\n
    bertft rsa --base gpt2 --tuned runs/adapter --text folder --tokens all --measures rsa,cka,cca --out runs/all\n
    bertft rsa --base builtin:minilm --tuned runs/dep --text en-dev.conllu --by upos,relation --out runs/words\n
    torchrun --nproc-per-node 2 -m bertft rsa --base gpt2 --tuned runs/gpt2 --text folder --tokens all --out runs/all"""

RSA_HELP = {
    "base": f"The encoder to compare with: {MODEL_HELP}",
    "tuned": None,
    "text": f"Plain text, a sentence a line, or a folder of it. {SOURCE_HELP}",
    "out": None,
    "tokens": "How many stimuli, of texts drawn at random; or all.",
    "unit": "token, or word: what encoders with different tokenizers need.",
    "metric": "cosine, dot, correlation, sqeuclidean, euclidean or manhattan; several with commas.",
    "compare": "pearson, cosine, spearman, rho_a or kendall; several with commas.",
    "measures": (
        "rsa, cka, cca, svcca, pwcca, procrustes, shape_distance, r2, effective_dimension, anisotropy, knn, cka_rbf; "
        "several with commas."
    ),
    "sample": "Stimuli for intervals and for what needs all pairs.",
    "intervals": "95 % intervals, clustered by text.",
    "layers": ("paired, or all: also every layer of the base against every layer of a tuned encoder, as a heat map."),
    "permutations": ("Mantel test of each RSA on the sample with so many permutations, rows <measure>_p; 0 for none."),
    "by": (
        "Also which words and sentences moved, by some of position, frequency, and of trees upos, xpos, relation, "
        "depth, feats:KEY, misc:KEY; for each --metric but euclidean and manhattan."
    ),
    "dtype": "Of the encoders: float32, bfloat16 or float16.",
    "precision": (
        "Of the sums' products: float32 (summed in float64, error 1e-7), or float64 (1e-12, half as fast), which cca, "
        "pwcca and linear_r2 take in either case."
    ),
    "split": "Of a data set.",
    "seed": SEED_HELP,
}


@options(RsaOptions, RSA_HELP)
def rsa(
    chosen: dict[str, Any],
    tuned: Annotated[list[str], typer.Option(help="Tuned encoder, or NAME=encoder; repeat for several.")],
    out: Out,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Similarity of every layer of tuned encoders to the base, with 95 % intervals.

    Any number of tokens in the same memory; interrupted or killed, it goes on where it was.
    """
    from bertft.study.rsa_command import RsaCommand, run_rsa

    arguments: dict[str, Any] = {
        "tuned": named_encoders(tuned), "tokens": parse_tokens(chosen.pop("tokens")),
        "metrics": listed(chosen.pop("metric")), "compares": listed(chosen.pop("compare")),
        "measures": measures_of(chosen.pop("measures")), "by": listed(chosen.pop("by")),
    }  # fmt: skip
    command = RsaCommand(**chosen, **arguments)
    with showing_progress(quiet) as progress:
        line = run_rsa(command, out, progress)
    if line:
        tell(line, out, json)


def parse_tokens(text: str) -> int | None:
    """Return the number that ``--tokens`` gives, or None for all."""
    if text == "all":
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16 and int(text) >= 4):
        raise BertftError(f"--tokens: expected a number of at least 4 or all, found {text!r}")
    return int(text)


def listed(text: str) -> list[str]:
    """Return the entries between commas, each once, in order."""
    return list(dict.fromkeys(entry.strip() for entry in text.split(",") if entry.strip()))


def measures_of(text: str) -> list[str]:
    """Return the entries of ``--measures`` by their full names."""
    return list(dict.fromkeys(ALIASES.get(entry, entry) for entry in listed(text)))

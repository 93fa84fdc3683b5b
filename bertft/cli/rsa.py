"""The command ``bertft rsa``."""

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
    "base": f"Encoder to compare with. {MODEL_HELP}",
    "tuned": None,
    "text": f"Plain text with one sentence per line, or a folder of it. {SOURCE_HELP}",
    "out": None,
    "tokens": "Number of stimuli, from texts drawn at random; or all.",
    "unit": "token or word. Encoders with different tokenizers need word.",
    "metric": "cosine, dot, correlation, sqeuclidean, euclidean or manhattan; separate several by commas.",
    "compare": "pearson, cosine, spearman, rho_a or kendall; separate several by commas.",
    "measures": (
        "rsa, cka, cca, svcca, pwcca, procrustes, shape_distance, r2, effective_dimension, anisotropy, knn, cka_rbf; "
        "separate several by commas."
    ),
    "sample": "Number of stimuli for intervals and for measures over all pairs.",
    "intervals": "95 % confidence intervals, clustered by text.",
    "layers": (
        "paired, or all to compare every layer of the base with every layer of a tuned encoder as well (heat map)."
    ),
    "permutations": "Permutations of a Mantel test of each RSA on the sample (rows <measure>_p); 0 for none.",
    "by": (
        "Labels by which to list the words and sentences that moved: position, frequency; for treebanks also upos, "
        "xpos, relation, depth, feats:KEY, misc:KEY. Skips euclidean and manhattan."
    ),
    "dtype": "Precision of the encoders: float32, bfloat16 or float16.",
    "precision": (
        "Precision of products: float32 (summed in float64, error 1e-7), float64 (1e-12, half as fast), or fast "
        "(vectors rounded to float16 on GPUs with fast tensor cores, else float32); cca, pwcca and linear_r2 always "
        "use float64."
    ),
    "split": "Split of a dataset.",
    "seed": SEED_HELP,
}


@options(RsaOptions, RSA_HELP)
def rsa(
    chosen: dict[str, Any],
    tuned: Annotated[list[str], typer.Option(help="Tuned encoder, or NAME=encoder; may be repeated.")],
    out: Out,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare every layer of tuned encoders with the base, with 95 % confidence intervals.

    Memory does not grow with the number of tokens. Rerun to resume.
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

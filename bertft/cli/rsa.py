"""The command ``bertft rsa``."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Optional

import typer

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
    named_encoders,
    options,
    showing_progress,
    tell,
    tell_cost,
)
from bertft.errors import BertftError
from bertft.study.options import RsaOptions

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
    "base_vectors": (
        "Vectors to compare with, in place of --base and --text: .npy, .npz, .safetensors, .parquet, .arrow, or a "
        "folder saved by datasets, with ids and groups."
    ),
    "tuned_vectors": None,
    "pair_by": "ids refuses vectors whose ids are not the base's in the same order; rows pairs them by position.",
    "tokens": "Number of stimuli, from texts drawn at random; or all.",
    "unit": "token or word. Encoders with different tokenizers need word.",
    "metric": "cosine, dot, correlation, sqeuclidean, euclidean or manhattan; separate several by commas.",
    "compare": "pearson, cosine, spearman, rho_a or kendall; separate several by commas.",
    "measures": (
        "rsa, cka, cka_biased, cca, svcca, pwcca, procrustes, shape_distance, r2, effective_dimension, anisotropy, "
        "knn, cka_rbf; separate several by commas."
    ),
    "sample": "Number of stimuli for intervals and for measures over all pairs.",
    "intervals": "95 % confidence intervals, clustered by text.",
    "layers": (
        "paired; or all to compare every layer of the base with every layer of a tuned encoder as well (heat map); or "
        "the numbers of some layers, such as 0,8,16."
    ),
    "permutations": "Permutations of a Mantel test of each RSA on the sample (rows <measure>_p); 0 for none.",
    "null": (
        "Derangements of the sampled texts, at least 100: what each measure is if texts trade places (rows "
        "<measure>_null, <measure>_calibrated); 0 for none."
    ),
    "noise": "For each tuned encoder also compare the base with a random change of the same size.",
    "skip_first": (
        "Number of first tokens (or words) of every text to leave out. auto is 1 for a decoder whose tokenizer puts no "
        "special token first, else 0: such a decoder's first token decides every sum."
    ),
    "by": (
        "Labels by which to list the words and sentences that moved: position, frequency, form; for treebanks also "
        "upos, xpos, relation, depth, feats:KEY, misc:KEY. Skips euclidean and manhattan."
    ),
    "dtype": "Precision of the encoders: float32, bfloat16 or float16.",
    "device_map": "one device for each encoder, or auto to spread its blocks over GPUs and CPU (accelerate).",
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
    out: Out,
    tuned: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Tuned encoder, or NAME=encoder; may be repeated."),
    ] = None,
    tuned_vectors: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Vectors of a tuned encoder, or NAME=file; may be repeated."),
    ] = None,
    config: Config = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare every layer of tuned encoders with the base, with 95 % confidence intervals.

    Memory does not grow with the number of tokens. Rerun to resume.
    """
    arguments: dict[str, Any] = {
        "metrics": listed(chosen.pop("metric")), "compares": listed(chosen.pop("compare")),
        "measures": measures_of(chosen.pop("measures")), "skip_first": parse_skip(chosen.pop("skip_first")),
    }  # fmt: skip
    of_files = bool(tuned_vectors or chosen["base_vectors"])
    if not of_files:
        _check_encoders(chosen, tuned or [], out)
    run = (_of_files if of_files else _of_encoders)({**chosen, **arguments}, tuned or [], tuned_vectors or [])
    if dry_run:
        if of_files:
            raise BertftError("--dry-run: has no meaning for files of vectors, which need about 1 GB")
        tell_cost(_commands().rsa_cost.estimate_rsa(run.args[0], out), json)
        return
    with showing_progress(quiet) as progress:
        line = run(out, progress)
    if line:
        tell(line, out, json)


def _check_encoders(chosen: dict[str, Any], tuned: list[str], out: Path) -> None:
    """Refuse a missing option, model or text."""
    for name, value in (("base", chosen["base"]), ("tuned", tuned), ("text", chosen["text"])):
        if not value:
            raise BertftError(f"--{name}: missing (or compare files by --base-vectors and --tuned-vectors)")
    check_paths([chosen["base"], *named_encoders(tuned).values()], [chosen["text"]], out)


def _of_encoders(chosen: dict[str, Any], tuned: list[str], _: list[str]) -> partial[str]:
    """Return the comparison of encoders that the options ask for."""
    command = _commands().rsa_command
    for name in ("base_vectors", "pair_by"):
        del chosen[name]
    tokens, by = parse_tokens(chosen.pop("tokens")), listed(chosen.pop("by"))
    made = command.RsaCommand(**chosen, tuned=named_encoders(tuned), tokens=tokens, by=by)
    return partial(command.run_rsa, made)


def _of_files(chosen: dict[str, Any], tuned: list[str], files: list[str]) -> partial[str]:
    """Return the comparison of files of vectors that the options ask for."""
    command = _commands().vectors_command
    for name, value in (("base-vectors", chosen["base_vectors"]), ("tuned-vectors", files)):
        if not value:
            raise BertftError(f"--{name}: missing")
    for name, value in (("base", chosen["base"]), ("tuned", tuned), ("text", chosen["text"]), ("by", chosen["by"])):
        if value:
            raise BertftError(f"--{name}: has no meaning for files of vectors (--base-vectors), found {value!r}")
    names = {field.name for field in dataclasses.fields(command.VectorsCommand)}
    own = {name: value for name, value in chosen.items() if name in names}
    named = [entry if "=" in entry else f"{Path(entry).stem}={entry}" for entry in files]
    made = command.VectorsCommand(**own, tuned_vectors=named_encoders(named))
    return partial(command.run_vectors, made)


def _commands() -> Any:
    """Return the modules of the two forms of the command and of its forecast, which take seconds to import."""
    from bertft.study import rsa_command, rsa_cost, vectors_command

    return SimpleNamespace(rsa_command=rsa_command, rsa_cost=rsa_cost, vectors_command=vectors_command)


def parse_tokens(text: str) -> int | None:
    """Return the number that ``--tokens`` gives, or None for all."""
    if text == "all":
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16 and int(text) >= 4):
        raise BertftError(f"--tokens: expected a number of at least 4 or all, found {text!r}")
    return int(text)


def parse_skip(text: str) -> int | None:
    """Return the number that ``--skip-first`` gives, or None for auto."""
    if text == "auto":
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise BertftError(f"--skip-first: expected auto or a number of at least 0, found {text!r}")
    return int(text)


def listed(text: str) -> list[str]:
    """Return the entries between commas, each once, in order."""
    return list(dict.fromkeys(entry.strip() for entry in text.split(",") if entry.strip()))


def measures_of(text: str) -> list[str]:
    """Return the entries of ``--measures`` by their full names."""
    return list(dict.fromkeys(ALIASES.get(entry, entry) for entry in listed(text)))

"""The command ``bertft diff``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from bertft.cli.columns import fitted
from bertft.cli.options import (
    MODEL_HELP,
    SEED_HELP,
    SOURCE_HELP,
    Config,
    DryRun,
    Quiet,
    check_paths,
    named_encoders,
    options,
    showing_progress,
    tell_cost,
)
from bertft.cli.rsa import RSA_HELP, parse_skip, parse_tokens
from bertft.errors import BertftError
from bertft.study.diff.settings import DiffCommand, DiffOptions

CHANGED = 1  # exit code of --fail-if-changed and --fail-if-unchanged

DIFF_EXAMPLES = """[bold]Examples[/bold]\n
    bertft diff builtin:minilm runs/dep\n
    bertft diff runs/adapter    (its base is named in the adapter)\n
    bertft diff gpt2 chat=runs/gpt2-chat code=runs/gpt2-code --text sentences.txt --out runs/diff\n
    bertft diff builtin:minilm runs/dep --fail-if-changed 0.999 --json"""

DIFF_HELP = {
    "text": f"Plain text with one sentence per line, or a folder of it; default: English that comes with Python. "
    f"{SOURCE_HELP}",
    "tokens": "Number of stimuli, from texts drawn at random; or all.",
    "unit": "token or word. Models with different tokenizers need word.",
    "skip_first": RSA_HELP["skip_first"],
    "dtype": "Precision of the models: float32, bfloat16 or float16.",
    "split": "Split of a dataset.",
    "in_turn": (
        "Load one model after the other: the base's vectors are kept in --out while the tuned models run. Leaves out "
        "noise and causes, which need both in memory."
    ),
    "seed": SEED_HELP,
}


@options(DiffOptions, DIFF_HELP)
def diff(
    chosen: dict[str, Any],
    models: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            help="BASE TUNED [TUNED ...], each a model or NAME=model; adapters may stand without their base. "
            f"{MODEL_HELP}",
            metavar="BASE TUNED ...",
        ),
    ] = None,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--out", "-o", help="Run folder with results.csv, figures and a page; default: only print."),
    ] = None,
    fail_if_changed: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Exit with code 1 if the similarity of any layer is below this.", metavar="T"),
    ] = None,
    fail_if_unchanged: Annotated[
        bool, typer.Option("--fail-if-unchanged", help="Exit with code 1 if any tuned model is unchanged.")
    ] = False,
    config: Config = None,
    dry_run: DryRun = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print verdict and rows, the costs of a dry run, or the error as JSON.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Say what changed between models: where, which words, which weights.

    Without --out nothing is written. With it, an interrupted run resumes.
    """
    if fail_if_changed is not None and not -1 <= fail_if_changed <= 1:
        raise BertftError(f"--fail-if-changed: expected a similarity from -1 to 1, found {fail_if_changed:g}")
    tokens, skip = parse_tokens(chosen.pop("tokens")), parse_skip(chosen.pop("skip_first"))
    first, others = _given(models, chosen.pop("models", []))
    check_paths([*first.values(), *others.values()], [chosen["text"]], out)
    with showing_progress(quiet) as progress:
        from bertft.study.diff.run import base_and_tuned, forecast, run_diff

        base, tuned = base_and_tuned(first, others)
        command = DiffCommand(base=base, tuned=tuned, tokens=tokens, skip_first=skip, **chosen)
        if dry_run:
            tell_cost(forecast(command, out), json)
            return
        found = run_diff(command, out, progress=progress)
    print(found.to_json() if json else fitted(str(found)))
    below = fail_if_changed is not None and min(found.lowest.values()) < fail_if_changed
    if below or (fail_if_unchanged and not all(found.changed.values())):
        raise typer.Exit(CHANGED)


def _given(typed: list[str] | None, held: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the first model and the others by name: those that were typed, or else those of a --config file."""
    if not (given := typed or held):
        raise BertftError("diff: expected BASE and TUNED, found no model")
    return named_encoders(given[:1]), named_encoders(given[1:])

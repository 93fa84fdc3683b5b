"""What ``bertft rsa`` does beyond its options: check everything first, stream, then write the run folder."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertft.cli.runs import _finish, _vacant
from bertft.errors import BertftError
from bertft.runs.folder import CONFIG, LOCK, RunFolder, Stage
from bertft.runs.progress import SILENT, Progress

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder
    from bertft.similarity.compare.comparison import Plan

CHECKPOINTS = "checkpoint"
ALIASES = {"r2": "linear_r2", "knn": "mutual_knn"}


def run_rsa(
    base: str,
    tuned: dict[str, str],
    text: str,
    out: Path,
    *,
    tokens: int | None,
    unit: str,
    metrics: list[str],
    compares: list[str],
    measures: list[str],
    sample: int,
    intervals: bool,
    layers: str,
    permutations: int,
    by: list[str],
    dtype: str,
    precision: str,
    split: str | None,
    seed: int,
    progress: Progress,
) -> str:
    """Compare ``tuned`` encoders with ``base`` on ``text``; returns the lines that say where the result is.

    With several processes (torchrun) the first alone writes and speaks; the others return an empty string.
    """
    from bertft.data.sources import data_name, pin
    from bertft.data.streams import drawn, stream
    from bertft.ops.metrics import LINEAR
    from bertft.runs import process as memory
    from bertft.runs.checkpoint import Checkpoint
    from bertft.similarity.compare.comparison import Plan
    from bertft.similarity.compare.encoders import compare_stream
    from bertft.similarity.compare.stimuli import taken
    from bertft.similarity.compare.workers import team
    from bertft.similarity.words.moved import FILES, LABELS, OF_WORDS, is_label, labels_of

    if unit not in ("token", "word"):
        raise BertftError(f"--unit: expected token or word, found {unit!r}")
    if layers not in ("paired", "all"):
        raise BertftError(f"--layers: expected paired or all, found {layers!r}")
    if reserved := {"base", "random"} & set(tuned):
        raise BertftError(
            f"--tuned: {reserved.pop()!r} has a meaning of its own in the results; call the encoder otherwise"
        )
    if precision not in ("float32", "float64"):
        raise BertftError(f"--precision: expected float32 or float64, found {precision!r}")
    plan = Plan(
        tuple(metrics), tuple(compares), tuple(measures), intervals, sample, seed, layers == "all",
        float64=precision == "float64", permutations=permutations,
    )  # fmt: skip
    base, text = pin(base, "model"), pin(text)
    tuned = {name: pin(source, "model") for name, source in tuned.items()}
    command = {
        "command": "rsa", "base": base, "tuned": tuned, "text": text, "split": split,
        "tokens": "all" if tokens is None else tokens, "unit": unit, "metric": metrics, "compare": compares,
        "measures": measures, "sample": sample, "intervals": intervals, "by": by, "dtype": dtype,
        "seed": seed,
        **({"precision": precision} if plan.float64 else {}),
        **({"layers": "all"} if plan.all_layers else {}),
        **({"permutations": permutations} if permutations else {}),
    }  # fmt: skip
    if unknown := [name for name in by if not is_label(name)]:
        raise BertftError(f"--by: expected some of {', '.join(LABELS)}, feats:KEY, misc:KEY, found {unknown[0]!r}")
    local = [metric for metric in metrics if metric in LINEAR]
    if by and not local:
        raise BertftError(f"--by: needs a --metric among {', '.join(LINEAR)}, found {', '.join(metrics)}")
    folder = _vacant(out, command)
    memory.keep_steady()
    trees = bool(set(by) - set(OF_WORDS)) or ".conllu" in Path(text).name
    source = stream("dep" if trees else "text", text, split=split)
    encoders = {name: load_encoder(model, dtype) for name, model in {"": base, **tuned}.items()}
    depends = {**command, "source": source.digest, "weights": {name: digest(e) for name, e in encoders.items()}}
    if not plan.float64 and any(map(plan.in_float64, plan.preparations)):
        depends["products"] = "float64 where cca, pwcca or linear_r2 need them"
    first, data = encoders.pop(""), data_name(text)

    def texts() -> Iterable[Any]:
        return source if tokens is None else drawn(source, seed)

    def write_words(sentences: list[Any]) -> str:
        return _write_words(first, encoders, sentences, by, local, plan, out, data, progress)

    stage = Stage(f"rsa/{data}", depends, list)
    with team() as members, _claimed(folder, members.leads):
        rows = folder.done(stage)
        if rows is not None:
            if not members.leads:
                return ""
            progress.say(f"{data} was done before with the same settings")
            written = not by or all((out / name).exists() for name in FILES)
            said = "" if written else write_words(taken(first, texts(), tokens=tokens, unit=unit))
            return said + _finish(folder, rows, [stage], progress)
        begun = time.monotonic()
        sentences = taken(first, texts(), tokens=tokens, unit=unit) if by and members.leads else []
        labels_of(by, sentences)  # what the text does not carry is refused before the work
        _refuse_other_teams(out / CHECKPOINTS, members.size)
        name = f"{members.rank}-of-{members.size}"
        checkpoint = Checkpoint(out / CHECKPOINTS, {**depends, "processes": members.size}, name)
        rows = compare_stream(
            first,
            encoders,
            texts(),
            plan,
            tokens=tokens,
            unit=unit,
            data=data,
            checkpoint=checkpoint,
            team=members,
            texts_in_all=source.count,
            progress=progress if members.leads else SILENT,
        )
        if rows is None:
            return ""
        folder.finish(stage, rows, time.monotonic() - begun)
        checkpoint.remove()
        said = write_words(sentences) if by else ""
        return said + _finish(folder, rows, [stage], progress)


def _write_words(
    base: Encoder,
    tuned: dict[str, Encoder],
    sentences: list[Any],
    by: list[str],
    metrics: list[str],
    plan: Plan,
    out: Path,
    data: str,
    progress: Progress,
) -> str:
    """`write_moved` of the encoders under each metric; returns where the files are."""
    from bertft.similarity.words.moved import FILES, words_that_moved, write_moved

    found = {
        metric: words_that_moved(base, tuned, sentences, by, metric=metric, float64=plan.float64, progress=progress)
        for metric in metrics
    }
    write_moved(found, out, data)
    return f"Which words moved is in {(out / FILES[0]).resolve()}, {FILES[1]} and {FILES[2]} beside it\n"


def load_encoder(name: str, dtype: str) -> Encoder:
    """An encoder in float32, bfloat16 or float16, on this process's own device."""
    import torch

    from bertft.models.encoder import Encoder
    from bertft.similarity.compare.workers import own_device

    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in kinds:
        raise BertftError(f"--dtype: expected one of {', '.join(kinds)}, found {dtype!r}")
    return Encoder.from_pretrained(name, dtype=kinds[dtype], device=own_device())


def digest(encoder: Encoder) -> str:
    """Of names, shapes and about a thousand numbers of each weight: tells two encoders of one name apart."""
    import torch

    found = hashlib.sha256()
    for name, weight in encoder.model.state_dict().items():
        drawn = weight.flatten()[:: max(1, weight.numel() // 1024)].cpu().contiguous()
        found.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        found.update(drawn.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def parse_tokens(text: str) -> int | None:
    """``--tokens``: a number, or None for all."""
    if text == "all":
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16 and int(text) >= 4):
        raise BertftError(f"--tokens: expected a number of at least 4 or all, found {text!r}")
    return int(text)


def listed(text: str) -> list[str]:
    """The entries between commas, each once, in order."""
    return list(dict.fromkeys(entry.strip() for entry in text.split(",") if entry.strip()))


def measures_of(text: str) -> list[str]:
    """``--measures`` by their full names."""
    return list(dict.fromkeys(ALIASES.get(entry, entry) for entry in listed(text)))


@contextlib.contextmanager
def _claimed(folder: RunFolder, leads: bool) -> Iterator[None]:
    """The folder, claimed by the process that leads; taken away again where an error came before any checkpoint."""
    if not leads:
        yield
        return
    existed = folder.path.exists()
    try:
        with folder.claim():
            yield
    except BertftError:
        if not existed and not (folder.path / CHECKPOINTS).exists():
            for name in (CONFIG, LOCK):
                (folder.path / name).unlink(missing_ok=True)
            if folder.path.is_dir() and not any(folder.path.iterdir()):
                folder.path.rmdir()
        raise


def _refuse_other_teams(folder: Path, size: int) -> None:
    for file in folder.glob("*-of-*.json"):
        other = file.stem.partition("-of-")[2]
        if other != str(size):
            raise BertftError(
                f"{folder}: holds the sums of {other} processes, found {size}; start as many again, or remove it"
            )

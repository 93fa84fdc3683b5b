"""What ``bertft rsa`` does beyond its options: check everything first, stream, then write the run folder."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertft.cli.runs import _data_name, _finish, _vacant
from bertft.errors import BertftError
from bertft.progress import SILENT, Progress
from bertft.run_folder import CONFIG, LOCK, RunFolder, Stage

if TYPE_CHECKING:
    from bertft.encoder import Encoder

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
    by: list[str],
    dtype: str,
    split: str | None,
    seed: int,
    progress: Progress,
) -> str:
    """Compare ``tuned`` encoders with ``base`` on ``text``; returns the lines that say where the result is.

    With several processes (torchrun) the first alone writes and speaks; the others return an empty string.
    """
    from bertft.data.streams import drawn, stream
    from bertft.similarity import memory
    from bertft.similarity.checkpoint import Checkpoint
    from bertft.similarity.comparison import Plan
    from bertft.similarity.stream import compare_stream
    from bertft.similarity.team import team
    from bertft.similarity.words import FILES, LABELS

    if unit not in ("token", "word"):
        raise BertftError(f"--unit: expected token or word, found {unit!r}")
    if layers not in ("paired", "all"):
        raise BertftError(f"--layers: expected paired or all, found {layers!r}")
    if taken := {"base", "random"} & set(tuned):
        raise BertftError(
            f"--tuned: {taken.pop()!r} has a meaning of its own in the results; call the encoder otherwise"
        )
    plan = Plan(tuple(metrics), tuple(compares), tuple(measures), intervals, sample, seed, layers == "all")
    command = {
        "command": "rsa", "base": base, "tuned": tuned, "text": text, "split": split,
        "tokens": "all" if tokens is None else tokens, "unit": unit, "metric": metrics, "compare": compares,
        "measures": measures, "sample": sample, "intervals": intervals, "by": by, "dtype": dtype, "seed": seed,
        **({"layers": "all"} if plan.all_layers else {}),
    }  # fmt: skip
    if unknown := [name for name in by if name not in LABELS]:
        raise BertftError(f"--by: expected some of {', '.join(LABELS)}, found {unknown[0]!r}")
    folder = _vacant(out, command)
    memory.keep_steady()
    source = stream("dep" if by or ".conllu" in Path(text).name else "text", text, split=split)
    encoders = {name: load_encoder(model, dtype) for name, model in {"": base, **tuned}.items()}
    depends = {**command, "source": source.digest, "weights": {name: digest(e) for name, e in encoders.items()}}
    first, data = encoders.pop(""), _data_name(text.rstrip("/"))
    stage = Stage(f"rsa/{data}", depends, list)
    with team() as members, _claimed(folder, members.leads):
        rows = folder.done(stage)
        if rows is not None:
            if not members.leads:
                return ""
            progress.say(f"{data} was done before with the same settings")
            written = not by or (out / FILES[1]).exists()
            said = "" if written else _write_words(first, encoders, list(source), by, out, data, progress)
            return said + _finish(folder, rows, [stage])
        begun = time.monotonic()
        _refuse_other_teams(out / CHECKPOINTS, members.size)
        name = f"{members.rank}-of-{members.size}"
        checkpoint = Checkpoint(out / CHECKPOINTS, {**depends, "processes": members.size}, name)
        rows = compare_stream(
            first,
            encoders,
            source if tokens is None else drawn(source, seed),
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
        said = _write_words(first, encoders, list(source), by, out, data, progress) if by else ""
        return said + _finish(folder, rows, [stage])


def _write_words(
    base: Encoder,
    tuned: dict[str, Encoder],
    sentences: list[Any],
    by: list[str],
    out: Path,
    data: str,
    progress: Progress,
) -> str:
    """`write_moved` of the encoders; returns where the files are."""
    from bertft.similarity.words import FILES, words_that_moved, write_moved

    write_moved(words_that_moved(base, tuned, sentences, by, progress=progress), out, data)
    return f"Which words moved is in {(out / FILES[0]).resolve()} and {FILES[1]} beside it\n"


def load_encoder(name: str, dtype: str) -> Encoder:
    """An encoder in float32, bfloat16 or float16, on this process's own device."""
    import torch

    from bertft.encoder import Encoder
    from bertft.similarity.team import own_device

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

"""Finished fine-tuned folders: load, predict, score, parse."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from bertft.data import sources
from bertft.data.files import read_lines
from bertft.data.readers.conllu import read_conllu, write_conllu
from bertft.errors import BertftError
from bertft.models.devices import device_of
from bertft.models.finetuning.card import read_card
from bertft.models.finetuning.config import data_name
from bertft.models.finetuning.run import score_rows
from bertft.models.finetuning.trainer import Evaluator
from bertft.models.finetuning.training import describe
from bertft.models.loading import load_pretrained
from bertft.models.tasks import get_task
from bertft.models.tasks.base import Task, TaskModel, Window
from bertft.runs.files import write_bytes_atomically
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row

__all__ = ["Finetuned", "evaluate", "load_finetuned", "predict_conllu"]


@dataclass(frozen=True)
class Finetuned:
    """An encoder with its trained head, in evaluation mode."""

    task: Task
    model: TaskModel
    tokenizer: Any
    card: dict[str, Any]

    def predict(self, examples: Sequence[Any], *, progress: Progress = SILENT) -> list[Any]:
        """Return one prediction for each example: a ``Parse`` (dep), a label (mnli) or the answer's text (squad)."""
        window = Window(**self.card["window"])
        evaluator = Evaluator(self.task, self.tokenizer, self.card["spec"], window, progress)
        return evaluator.predictions(self.model, examples)


def load_finetuned(folder: str | Path, *, device: str | None = None) -> Finetuned:
    """Load the encoder, head and tokenizer of a folder written by ``finetune``.

    Args:
        folder: the finished folder, or a local copy of it.
        device: a torch device; the current GPU if there is one, else the CPU.

    Raises:
        BertftError: if the folder was not made by ``finetune``, or its files are damaged or do not fit each other.
    """
    card = read_card(folder)
    task = get_task(card["task"])
    encoder, tokenizer = load_pretrained(str(folder))
    head = task.head(encoder, card["spec"])
    try:
        head.load_state_dict(load_file(Path(folder) / "head.safetensors"))
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise BertftError(f"{folder}: head.safetensors does not fit the {task.name} head: {reason}") from None
    model = TaskModel(encoder, head).to(device_of(device))
    return Finetuned(task, model.eval(), tokenizer, card)


def evaluate(
    folder: str | Path,
    source: str | Path,
    *,
    name: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    progress: Progress = SILENT,
) -> tuple[dict[str, float], list[Row]]:
    """Score the model in ``folder`` on ``source``.

    Args:
        folder: written by ``finetune``.
        source: examples, see ``bertft.data.sources.load``, as are ``split`` and ``limit``.
        name: of the data in rows (default: the file's name without endings).
        split: of a source that has several.
        limit: number of examples, drawn at random but always the same.
        progress: reports the work.

    Returns:
        The scores by measure, and the same scores as rows with 95 % intervals over the examples.
    """
    loaded = load_finetuned(folder)
    examples = sources.load(loaded.task.kind, source, split=split, limit=limit)
    scores = loaded.task.score(examples, loaded.predict(examples, progress=progress))
    data = name or data_name(source)
    seed = loaded.card["config"]["seed"]
    rows = score_rows(describe(scores, seed), loaded.task.name, data, seed)
    return {row.measure: row.value for row in rows}, rows


def predict_conllu(
    folder: str | Path, source: str | Path, path: str | os.PathLike[str], *, progress: Progress = SILENT
) -> None:
    """Parse ``source`` with the model in ``folder`` and write ``path`` as CoNLL-U, for the official evaluation.

    A CoNLL-U file keeps its lines, with comments, multiword tokens and tags; heads and relations are replaced by the
    parser's. Enhanced dependencies and empty nodes are dropped, because the parser does not predict them. Of other
    sources, words, tags and predicted trees are written. Raises ``BertftError`` if the model is no parser.
    """
    loaded = load_finetuned(folder)
    if loaded.task.name != "dep":
        raise BertftError(f"{folder}: expected a dependency parser, found a model of the task {loaded.task.name}")
    if not Path(source).is_file():
        sentences = sources.load("dep", source)
        parses = loaded.predict(sentences, progress=progress)
        write_conllu(path, sentences, [p.heads for p in parses], [p.relations for p in parses])
        return
    parses = loaded.predict(read_conllu(source), progress=progress)
    arcs = ((head, relation) for parse in parses for head, relation in zip(parse.heads, parse.relations, strict=True))
    lines = []
    for _, line in read_lines(source):
        columns = line.split("\t")
        if columns[0].isdigit():
            head, relation = next(arcs)
            columns[6:9] = [str(head), relation, "_"]
        if not ("." in columns[0] and columns[0][0].isdigit()):
            lines.append("\t".join(columns) + "\n")
    write_bytes_atomically(path, "".join(lines).encode("utf8"))

"""Words of a treebank that fine-tuning moved most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertft.models.encoder import Encoder
from bertft.runs.folder import Stage
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row
from bertft.runs.vocabulary import MeasureName
from bertft.similarity.words.labels import FORM, as_words
from bertft.similarity.words.moved import FILES, Moved, words_that_moved, write_moved
from bertft.study.analyses.rsa import ComparisonCost
from bertft.study.analysis import Analysis
from bertft.study.config import settings_of
from bertft.study.inputs import Inputs
from bertft.study.timing import StageCost

MOVED = "words/moved"  # the stage of the treebank


class Words(Analysis[Inputs]):
    """Rows ``local_rsa_<kind>=<label>``, the mean local RSA of the words with a label; and the files of `write_moved`.

    Settings: ``rsa.by`` with ``rsa.metric``; the text is `StudyConfig.treebank`. ``rsa.forms`` adds a plain text, whose
    files are in ``forms/<text>``.
    """

    name, order, tasks = "words", 30, ("local",)

    def stages(self, inputs: Inputs) -> list[Stage]:
        """Return the stage ``words/moved``, and ``forms/<text>`` for the forms of a plain text."""
        config, rsa = inputs.config, inputs.config.rsa
        if rsa is None:
            return []
        found, read = [], dict[str, Any]()
        if rsa.labels:
            trees = config.probes or config.tasks[str(config.treebank)]
            read = {"by": rsa.labels, "metric": rsa.metric, "dev": trees.dev, "limit": trees.max_dev}
            depends = {**read, "models": inputs.tuned, **inputs.seeds}
            found.append(Stage(MOVED, depends, lambda: self.work(inputs), product="words.csv"))
        if rsa.forms:
            read = {"by": [FORM], "metric": rsa.metric, "text": settings_of(config.stimuli[rsa.forms])}
            depends = {**read, "models": inputs.tuned, **inputs.seeds}
            product = f"forms/{rsa.forms}/{FILES[1]}"
            found.append(Stage(f"forms/{rsa.forms}", depends, lambda: self.work_on_forms(inputs), product=product))
        return found

    def check(self, inputs: Inputs) -> None:
        """Read the treebank and the plain text."""
        rsa = inputs.config.rsa
        if rsa and rsa.labels:
            inputs.treebank()
        if rsa and rsa.forms:
            inputs.stimuli(rsa.forms)

    def work(self, inputs: Inputs) -> list[Row]:
        """Return the rows of the treebank, and write the files."""
        assert inputs.config.rsa is not None
        data = str(inputs.config.treebank)
        return _rows(inputs, inputs.treebank(), data, inputs.config.rsa.labels, inputs.out)

    def work_on_forms(self, inputs: Inputs) -> list[Row]:
        """Return the rows of the plain text, and write the files."""
        assert inputs.config.rsa is not None
        data = inputs.config.rsa.forms
        return _rows(inputs, inputs.stimuli(data), data, [FORM], inputs.out / "forms" / data)

    def cost(self, inputs: Inputs, stages: Sequence[Stage], held: int) -> Iterator[StageCost]:
        """Yield the cost of the two passes over each text."""
        for stage in stages:
            data = stage.name.partition("/")[2]
            sentences = inputs.treebank() if stage.name == MOVED else [as_words(text) for text in inputs.stimuli(data)]
            yield ComparisonCost(inputs, held).of_words(stage.name, sentences)


def _rows(inputs: Inputs, sentences: Sequence[Any], data: str, labels: Sequence[str], out: Path) -> list[Row]:
    """Return the rows of the words of a text that moved, and write their files into ``out``."""
    config, rsa = inputs.config, inputs.config.rsa
    assert rsa is not None
    base, tuned = inputs.encoder("base"), inputs.encoders()
    found = find_words(base, tuned, sentences, labels, [rsa.metric], progress=inputs.progress)
    write_moved(found, out, data)
    return [
        Row(name, "local", data, r.layer, str(measure), r.value, r.low, r.high, r.n, config.seed)
        for name, moved in found[rsa.metric].items()
        for kind, table in moved.by.items()
        for r in table
        if kind != FORM or (r.label and "=" not in r.label)  # which no name of a measure may contain
        if (measure := MeasureName("local_rsa", label=r.label, grouping=kind))
    ]


def find_words(
    base: Encoder,
    tuned: Mapping[str, Encoder],
    sentences: Sequence[Any],
    labels: Sequence[str],
    metrics: Sequence[str],
    *,
    float64: bool = False,
    progress: Progress = SILENT,
) -> dict[str, dict[str, Moved]]:
    """Return the words and sentences that moved, by metric and tuned encoder."""
    return {
        metric: words_that_moved(base, tuned, sentences, labels, metric=metric, float64=float64, progress=progress)
        for metric in metrics
    }


def located(out: Path, files: Sequence[str]) -> str:
    """Return the line that locates the files of `write_moved`."""
    return f"The words that moved are in {(out / files[0]).resolve()}, {files[1]} and {files[2]}\n"

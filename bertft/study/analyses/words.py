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
from bertft.similarity.words.moved import Moved, words_that_moved, write_moved
from bertft.study.analyses.rsa import ComparisonCost
from bertft.study.analysis import Analysis
from bertft.study.inputs import Inputs
from bertft.study.timing import StageCost


class Words(Analysis[Inputs]):
    """Rows ``local_rsa_<kind>=<label>``, the mean local RSA of the words with a label; and the files of `write_moved`.

    Settings: ``rsa.by`` with ``rsa.metric``; the text is `StudyConfig.treebank`.
    """

    name, order, tasks = "words", 30, ("local",)

    def stages(self, inputs: Inputs) -> list[Stage]:
        """Return the stage ``words/moved``."""
        config, rsa = inputs.config, inputs.config.rsa
        if rsa is None or not rsa.labels:
            return []
        trees = config.probes or config.tasks[str(config.treebank)]
        read = {"by": rsa.labels, "metric": rsa.metric, "dev": trees.dev, "limit": trees.max_dev}
        depends = {**read, "models": inputs.tuned, **inputs.seeds}
        return [Stage("words/moved", depends, lambda: self.work(inputs), product="words.csv")]

    def check(self, inputs: Inputs) -> None:
        """Read the treebank."""
        inputs.treebank()

    def work(self, inputs: Inputs) -> list[Row]:
        """Return the rows, and write the files."""
        config, rsa, data = inputs.config, inputs.config.rsa, str(inputs.config.treebank)
        assert rsa is not None
        base, tuned, trees = inputs.encoder("base"), inputs.encoders(), inputs.treebank()
        found = find_words(base, tuned, trees, rsa.labels, [rsa.metric], progress=inputs.progress)
        write_moved(found, inputs.out, data)
        return [
            Row(name, "local", data, r.layer, str(measure), r.value, r.low, r.high, r.n, config.seed)
            for name, moved in found[rsa.metric].items()
            for kind, table in moved.by.items()
            for r in table
            if (measure := MeasureName("local_rsa", label=r.label, grouping=kind))
        ]

    def cost(self, inputs: Inputs, stages: Sequence[Stage], held: int) -> Iterator[StageCost]:
        """Yield the cost of the two passes over the treebank."""
        for stage in stages:
            yield ComparisonCost(inputs, held).of_words(stage.name, inputs.treebank())


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

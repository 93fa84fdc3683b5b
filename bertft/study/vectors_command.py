"""The command ``bertft rsa`` on files of vectors."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from bertft.data.location import data_name
from bertft.data.vectors.files import open_vectors
from bertft.errors import BertftError
from bertft.runs.checkpoint import Checkpoint
from bertft.runs.folder import Stage
from bertft.runs.progress import Progress
from bertft.runs.settings import Count, Settings, Within, check
from bertft.runs.vocabulary import BASE
from bertft.similarity import Plan, compare_vectors
from bertft.study.analyses.rsa import Rsa
from bertft.study.analysis import close_folder, open_folder
from bertft.study.config import Layers, Precision, layer_numbers
from bertft.study.provenance import SOURCES, sources
from bertft.study.rsa_command import CHECKPOINTS, claimed


@dataclass(frozen=True)
class VectorsCommand(Settings):
    """Settings of ``bertft rsa --base-vectors``; `Plan` documents those not listed here.

    Attributes:
        base_vectors: the file to compare with.
        tuned_vectors: the files to compare, by name.
        pair_by: as in `compare_vectors`.
        layers: paired, all, or the numbers of the layers to compare, separated by commas.
        precision: of the sums' products, float32, fast or float64.
        seed: of the sample.
    """

    base_vectors: str
    tuned_vectors: dict[str, str]
    pair_by: Literal["ids", "rows"]
    metrics: list[str]
    compares: list[str]
    measures: list[str]
    sample: Annotated[int, Within(ge=4)]
    intervals: bool
    layers: Layers
    permutations: Count
    null: Count
    precision: Precision
    seed: int

    def checked(self) -> Plan:
        """Return the plan of the comparison; raise ``BertftError`` for a setting with no meaning."""
        check(self, "bertft rsa")
        if BASE in self.tuned_vectors:
            raise BertftError("--tuned-vectors: 'base' is reserved in the results; choose another name")
        return Plan(
            tuple(self.metrics), tuple(self.compares), tuple(self.measures), self.intervals, self.sample, self.seed,
            self.layers == "all", precision=self.precision, permutations=self.permutations,
            layers=layer_numbers(self.layers) or (), null=self.null,
        )  # fmt: skip

    def to_tree(self) -> dict[str, Any]:
        """Return the settings as ``config.yaml`` holds them."""
        return {
            "command": "rsa", "base_vectors": self.base_vectors, "tuned_vectors": self.tuned_vectors,
            "pair_by": self.pair_by, "metric": self.metrics, "compare": self.compares, "measures": self.measures,
            "sample": self.sample, "intervals": self.intervals, "layers": self.layers,
            "permutations": self.permutations, "precision": self.precision, "seed": self.seed,
            **({"null": self.null} if self.null else {}),
        }  # fmt: skip


def run_vectors(command: VectorsCommand, out: Path, progress: Progress) -> str:
    """Run or resume a comparison of files in ``out``; return the lines that locate the results."""
    plan, folder = command.checked(), open_folder(out, command.to_tree())
    base = open_vectors(command.base_vectors)
    tuned = {name: open_vectors(path) for name, path in command.tuned_vectors.items()}
    depends = {**command.to_tree(), "files": {name: file.digest() for name, file in {"": base, **tuned}.items()}}
    data = data_name(command.base_vectors)
    stage = Stage(f"rsa/{data}", depends, list)
    with claimed(folder, leads=True):
        rows = folder.done(stage)
        if rows is None:
            begun, kept = time.monotonic(), Checkpoint(out / CHECKPOINTS, depends, "vectors")
            rows = compare_vectors(
                base, tuned, plan, pair_by=command.pair_by, data=data, checkpoint=kept, progress=progress
            )
            folder.finish(stage, rows, time.monotonic() - begun)
            kept.remove()
        else:
            progress.say(f"{data} was done before with the same settings")
        record = {"seconds": folder.seconds([stage]), "finished": folder.finished([stage])}
        named = {BASE: command.base_vectors, **command.tuned_vectors}
        record[SOURCES] = sources("vectors", named, depends["files"])
        return close_folder(folder, rows, record, [Rsa()], progress=progress)

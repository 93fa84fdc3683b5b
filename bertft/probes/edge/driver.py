"""Edge probes (Tenney et al. 2019) on every layer of every encoder, beside their controls."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bertft.data.readers.spans import SpanText
from bertft.errors import BertftError
from bertft.probes.edge.control import control_labels, online_code
from bertft.probes.edge.head import Input, all_inputs
from bertft.probes.edge.rows import Measured, rows_of
from bertft.probes.edge.targets import EdgeTargets, check_roles, label_inventory, with_targets
from bertft.probes.edge.training import Counts, EdgeTraining, count, train_heads
from bertft.probes.feature_store import FeatureStore, fingerprint
from bertft.probes.vectors import Vectors, on_device
from bertft.runs.artefacts import Unfinished
from bertft.runs.digests import digest
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row, write_bytes_atomically

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder

FORMAT = "bertft.edge/1"
LOST = 10.0  # seconds of training that being killed may cost


@dataclass
class EdgeResult:
    """``rows`` of the tidy table, ``labels`` the per-label rows, ``notes`` what a reader must know, in sentences."""

    rows: list[Row]
    labels: list[Row]
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def edge_probes(
    encoders: Mapping[str, Encoder],
    train: Sequence[SpanText],
    dev: Sequence[SpanText],
    test: Sequence[SpanText] | None = None,
    *,
    data: str = "edge",
    training: EdgeTraining | None = None,
    control: bool = True,
    code_length: bool = False,
    resamples: int = 1000,
    store: FeatureStore | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Progress = SILENT,
) -> EdgeResult:
    """Probe every layer, top beside lexical, and every mix of ``encoders``; score on ``test``, or else on ``dev``.

    ``dev`` decides the learning rate and the end of the training, so a score on ``dev`` is a little too good.
    ``control`` trains the same probes on control labels (`control_labels`) and gives the selectivity; ``code_length``
    adds the online code of the training labels (`online_code`), of the control labels too where there is a control.
    The rows are those of `bertft.probes.edge.rows.rows_of`; encoders after the first are compared with the first.
    With ``out``, each finished part leaves ``<encoder>.<part>.safetensors`` (weights and counts), and a later call
    with the same settings, encoder and data takes it from there.
    """
    training = training or EdgeTraining()
    store = store or FeatureStore()
    if not encoders:
        raise BertftError("edge probes: encoders holds no encoder")
    corpora = checked(train, dev, test)
    result = EdgeResult([], [])
    parts = {"probes": corpora}
    if control:
        parts["control"] = {
            name: control_labels(texts, corpora["train"], training.seed) for name, texts in corpora.items()
        }
    measured: dict[str, dict[str, Measured]] = {}
    for name, encoder in encoders.items():
        started = time.monotonic()
        run = _Run(name, encoder, store, training, None if out is None else Path(out), progress)
        measured[name] = {part: run.measure(part, texts, code_length) for part, texts in parts.items()}
        result.seconds[name] = round(time.monotonic() - started, 2)
    inventory = label_inventory(corpora["train"])
    result.notes = _notes(EdgeTargets(corpora["test" if test is not None else "dev"], inventory), test is None)
    for name, own in measured.items():
        for part, found in own.items():
            reached = int((found.steps >= training.steps).sum())
            if reached:
                result.notes.append(
                    f"{name}, {part}: {reached} of {len(found.steps)} probes reached the limit of {training.steps}"
                    " steps and may not have learned all they could"
                )
    texts = len(corpora["test" if test is not None else "dev"])
    result.rows, result.labels = rows_of(measured, inventory, data, texts, resamples, training.seed)
    return result


def checked(
    train: Sequence[SpanText], dev: Sequence[SpanText], test: Sequence[SpanText] | None = None
) -> dict[str, list[SpanText]]:
    """The corpora by name without texts that have no target; a ``BertftError`` if they cannot be probed together."""
    corpora = {"train": with_targets(train, "the training data"), "dev": with_targets(dev, "the dev data")}
    if test is not None:
        corpora["test"] = with_targets(test, "the test data")
    for name in ("dev", "test"):
        if name in corpora:
            check_roles(corpora["train"], corpora[name], f"the {name} data")
    label_inventory(corpora["train"])
    return corpora


def _notes(scored: EdgeTargets, on_dev: bool) -> list[str]:
    notes = []
    if scored.unseen:
        shown = ", ".join(f"{label} ({n})" for label, n in scored.unseen.most_common(8))
        notes.append(
            f"{sum(scored.unseen.values())} gold label(s) do not occur in the training data"
            f" and count as missed: {shown}"
        )
    if on_dev:
        notes.append("scores are on the dev data, which also decided when to stop: they are a little too good")
    return notes


class _Run:
    """The parts of one encoder: each is trained and scored once, and kept."""

    def __init__(
        self,
        name: str,
        encoder: Encoder,
        store: FeatureStore,
        training: EdgeTraining,
        folder: Path | None,
        progress: Progress,
    ) -> None:
        self.name, self.encoder, self.store, self.training = name, encoder, store, training
        self.folder, self.progress = folder, progress
        self.digest = fingerprint(encoder)
        self._vectors: dict[str, Vectors] = {}

    def measure(self, part: str, corpora: Mapping[str, Sequence[SpanText]], code_length: bool) -> Measured:
        """Train and score the probes of one part (the real labels or the control's), or take them from ``folder``."""
        config = {
            "format": FORMAT, "encoder": self.digest, "training": dataclasses.asdict(self.training), "part": part,
            "code_length": code_length, "window": self.store.window, "dtype": str(self.store.dtype),
            "stream": self.store.stream, "corpora": {name: _digest(texts) for name, texts in corpora.items()},
        }  # fmt: skip
        path = None if self.folder is None else self.folder / f"{self.name}.{part}.safetensors"
        found = None if path is None else _load(path, config)
        unfinished = [
            Unfinished(None if path is None else path.with_name(f".{path.stem}{name}.unfinished"), config, every)
            for name, every in (("", LOST), (".code", 0.0), (".block", LOST))
        ]
        if found is None:
            found, tensors = self._work(corpora, code_length, unfinished)
            if path is not None:
                _save(path, config, found, tensors)
        for own in unfinished:  # of finished work too: a kill may have come between saving and removing
            own.remove()
        return found

    def _work(
        self, corpora: Mapping[str, Sequence[SpanText]], code_length: bool, unfinished: Sequence[Unfinished]
    ) -> tuple[Measured, dict[str, Any]]:
        inventory = label_inventory(corpora["train"])
        single = EdgeTargets(corpora["train"], inventory).single
        targets = {name: EdgeTargets(texts, inventory, single) for name, texts in corpora.items()}
        vectors = {name: self._extracted(name, own) for name, own in targets.items()}
        inputs = all_inputs(self.encoder.num_layers)
        material = (inputs, vectors["train"], targets["train"], vectors["dev"], targets["dev"], self.training)
        training, blocks, block = unfinished
        trained = train_heads(*material, self.progress, unfinished=training, device=self.encoder.device)
        scored = "test" if "test" in corpora else "dev"
        counts = count(trained.heads, range(len(inputs)), vectors[scored], targets[scored])
        code = None
        if code_length:
            code = online_code(*material, self.progress, (blocks, block), device=self.encoder.device)
        top = [p for p, i in enumerate(inputs) if i == Input("mix", self.encoder.num_layers - 1)]
        mix = trained.heads.mix_weights(trained.heads.tensors, top[0]) if top else torch.ones(1)
        measured = Measured(
            inputs, counts, trained.dev_score, trained.steps, mix.double().cpu().numpy(),
            None if code is None else code.bits, None if code is None else code.uniform, len(targets["train"]),
        )  # fmt: skip
        return measured, {name: tensor.cpu() for name, tensor in trained.heads.tensors.items()}

    def _extracted(self, name: str, targets: EdgeTargets) -> Vectors:
        # The control's spans are the real ones: its vectors are the same.
        if name not in self._vectors:
            stored = self.store.vectors(
                self.encoder,
                [text.words for text in targets.texts],
                kept=targets.kept,
                names=[f"{text.id} of the {name} data" for text in targets.texts],
                progress=self.progress,
            )
            self._vectors[name] = on_device(stored, self.encoder.device)
        return self._vectors[name]


def _digest(texts: Sequence[SpanText]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(repr((text.words, [(t.first, t.second, t.labels) for t in text.targets])).encode())
    return digest.hexdigest()[:16]


def _save(path: Path, config: dict[str, Any], measured: Measured, tensors: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save

    counts = measured.counts
    kept = {f"heads.{name}": tensor.contiguous() for name, tensor in tensors.items()}
    kept |= {
        "counts.hits": counts.hits.to(torch.int32), "counts.predicted": counts.predicted.to(torch.int32),
        "counts.gold": counts.gold.to(torch.int32), "counts.missed": counts.missed,
    }  # fmt: skip
    record = {
        "config": config,
        "inputs": [dataclasses.asdict(i) for i in measured.inputs],
        "dev_score": measured.dev_score.tolist(),
        "steps": measured.steps.tolist(),
        "mix": measured.mix.tolist(),
        "bits": None if measured.bits is None else measured.bits.tolist(),
        "uniform": measured.uniform,
        "targets": measured.targets,
    }
    text = json.dumps(record)
    write_bytes_atomically(path, save(kept, {"format": FORMAT, "record": text, "sha256": digest(kept, text)}))


def _load(path: Path, config: dict[str, Any]) -> Measured | None:
    """What ``path`` holds if it is of the same configuration, encoder and data."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            record = json.loads(metadata.get("record", "{}"))
            if record.get("config") != config:
                return None
            if "sha256" in metadata:  # older ones have none
                kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
                if digest(kept, metadata["record"]) != metadata["sha256"]:
                    return None
            counts = [file.get_tensor(f"counts.{name}") for name in ("hits", "predicted", "gold", "missed")]
    except (OSError, ValueError, SafetensorError):
        return None
    return Measured(
        [Input(**i) for i in record["inputs"]],
        Counts(counts[0].float(), counts[1].float(), counts[2].float(), counts[3]),
        np.array(record["dev_score"]),
        np.array(record["steps"]),
        np.array(record["mix"]),
        None if record["bits"] is None else np.array(record["bits"]),
        record["uniform"],
        record["targets"],
    )

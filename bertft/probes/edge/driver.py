"""Driver of edge probes (Tenney et al. 2019)."""

from __future__ import annotations

import dataclasses
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
from bertft.models.fingerprint import fingerprint
from bertft.probes.edge.control import control_labels, online_code
from bertft.probes.edge.head import Input, all_inputs
from bertft.probes.edge.rows import Measured, rows_of
from bertft.probes.edge.targets import EdgeTargets, check_roles, label_inventory, with_targets
from bertft.probes.edge.training import Corpus, Counts, EdgeTraining, count, train_heads
from bertft.probes.feature_store import FeatureStore
from bertft.probes.older import digest_by_repr, edge_contents
from bertft.probes.vectors import Vectors, on_device
from bertft.runs.artefacts import Artefact, Contents, Unfinished
from bertft.runs.digests import digest_of_json
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Rows

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder

FORMAT = "bertft.edge/1"
COUNTS = ("hits", "predicted", "gold", "missed")
CHECKPOINT_INTERVAL_S = 10.0  # seconds of training that a kill may cost


@dataclass
class EdgeResult:
    """The table ``rows``, the rows by label ``labels``, and ``notes``, sentences for the reader.

    ``seconds`` are those of each encoder, by its name.
    """

    rows: Rows
    labels: Rows
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
    mixes: str = "all",
    resamples: int = 1000,
    store: FeatureStore | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Progress = SILENT,
) -> EdgeResult:
    """Probe every layer of ``encoders``, the top layer beside the lexical one, and mixes of layers.

    `bertft.probes.edge.rows.rows_of` lists the rows.

    Args:
        encoders: encoders by name; differences are to the first.
        train: texts to train on.
        dev: texts that decide the learning rate and the end of the training.
        test: texts to score. Without it the probes are scored on ``dev``, which makes the scores slightly too high.
        data: name of the corpus in the rows.
        training: settings of the training.
        control: also probe control labels (`control_labels`), which gives the selectivity.
        code_length: also compute the online code of the labels (`online_code`), and of control labels.
        mixes: ``all`` mixes of layers 0..k, or the ``top`` one of all layers alone, in three fifths of the time and
            without `expected_layer`.
        resamples: bootstrap resamples of the texts.
        store: where vectors come from.
        out: folder for ``<encoder>.<part>.safetensors``, the weights and counts of each finished part. A later call
            with the same settings, encoder and data loads them.
        progress: receives progress.

    Raises:
        BertftError: without an encoder, for other ``mixes``, or if the corpora cannot be probed together (`checked`).
    """
    if not encoders:
        raise BertftError("edge probes: encoders is empty")
    training = training or EdgeTraining()
    folder = None if out is None else Path(out)
    settings = _Settings(training, code_length, mixes, store or FeatureStore(), folder, progress)
    corpora = checked(train, dev, test)
    parts = {"probes": corpora}
    if control:
        parts["control"] = {
            name: control_labels(texts, corpora["train"], training.seed) for name, texts in corpora.items()
        }
    measured: dict[str, dict[str, Measured]] = {}
    result = EdgeResult(Rows(), Rows())
    for name, encoder in encoders.items():
        started = time.monotonic()
        run = _Run(name, encoder, settings)
        measured[name] = {part: run.measure(part, texts) for part, texts in parts.items()}
        result.seconds[name] = round(time.monotonic() - started, 2)
    inventory, scored = label_inventory(corpora["train"]), corpora["dev" if test is None else "test"]
    result.notes = notes_of(EdgeTargets(scored, inventory), test is None) + _limits(measured, training.steps)
    rows, labels = rows_of(measured, inventory, data, len(scored), resamples, training.seed)
    result.rows, result.labels = Rows(rows), Rows(labels)
    return result


def checked(
    train: Sequence[SpanText], dev: Sequence[SpanText], test: Sequence[SpanText] | None = None
) -> dict[str, list[SpanText]]:
    """Return the corpora by name, without the texts that have no target.

    Raises:
        BertftError: if a corpus has too few texts, no label, or spans of other roles than the training data.
    """
    corpora = {"train": with_targets(train, "the training data"), "dev": with_targets(dev, "the dev data")}
    if test is not None:
        corpora["test"] = with_targets(test, "the test data")
    for name in ("dev", "test"):
        if name in corpora:
            check_roles(corpora["train"], corpora[name], f"the {name} data")
    label_inventory(corpora["train"])
    return corpora


def notes_of(scored: EdgeTargets, on_dev: bool) -> list[str]:
    """Return sentences for the reader on labels that cannot be predicted and on scores that are too high."""
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


def _limits(measured: Mapping[str, Mapping[str, Measured]], limit: int) -> list[str]:
    notes = []
    for name, parts in measured.items():
        for part, own in parts.items():
            reached = int((own.steps >= limit).sum())
            if reached:
                notes.append(
                    f"{name}, {part}: {reached} of {len(own.steps)} probes reached the limit of {limit}"
                    " steps and may not have learned all they could"
                )
    return notes


@dataclass(frozen=True)
class _Settings:
    """The settings that all encoders share, and where vectors and probes are kept."""

    training: EdgeTraining
    code_length: bool
    mixes: str
    store: FeatureStore
    folder: Path | None
    progress: Progress


class _Run:
    """The parts of one encoder; each is trained and scored once, and then kept."""

    def __init__(self, name: str, encoder: Encoder, settings: _Settings) -> None:
        self.name, self.encoder, self.settings = name, encoder, settings
        self.digest = fingerprint(encoder)
        self._vectors: dict[str, Vectors] = {}

    def measure(self, part: str, corpora: Mapping[str, Sequence[SpanText]]) -> Measured:
        """Train and score the probes of one part, ``probes`` or ``control``, or load them."""
        config = self._config(part, {name: digest_of_json(_content(texts)) for name, texts in corpora.items()})
        folder = self.settings.folder
        path = None if folder is None else folder / f"{self.name}.{part}.safetensors"
        artefact = None if path is None else self._artefact(path, part, config, corpora)
        unfinished = [
            Unfinished(None if path is None else path.with_name(f".{path.stem}{name}.unfinished"), config, every)
            for name, every in (("", CHECKPOINT_INTERVAL_S), (".code", 0.0), (".block", CHECKPOINT_INTERVAL_S))
        ]
        measured = None if artefact is None else _load(artefact)
        if measured is None:
            measured, tensors = self._work(corpora, unfinished)
            if artefact is not None:
                _save(artefact, measured, tensors)
        for own in unfinished:  # also after loading: a kill may have come between saving and this line
            own.remove()
        return measured

    def _config(self, part: str, corpora: dict[str, str]) -> dict[str, Any]:
        """Return everything that the probes and counts depend on; ``corpora`` are digests."""
        store, mixes = self.settings.store, self.settings.mixes
        return {
            "format": FORMAT,
            "encoder": self.digest,
            "training": dataclasses.asdict(self.settings.training),
            "part": part,
            "code_length": self.settings.code_length,
            "window": store.window,
            "dtype": str(store.dtype),
            "stream": store.stream,
            "corpora": corpora,
            **({} if mixes == "all" else {"mixes": mixes}),  # older probes of all mixes stay valid
        }

    def _artefact(
        self, path: Path, part: str, config: dict[str, Any], corpora: Mapping[str, Sequence[SpanText]]
    ) -> Artefact:
        def older() -> Contents | None:
            digests = {name: digest_by_repr(_content(texts)) for name, texts in corpora.items()}
            return edge_contents(path, self._config(part, digests), config)

        return Artefact(path, config, older=older)

    def _work(
        self, corpora: Mapping[str, Sequence[SpanText]], unfinished: Sequence[Unfinished]
    ) -> tuple[Measured, dict[str, torch.Tensor]]:
        """Train, score and, if asked, compute the code; return the results and the weights of the heads."""
        inventory = label_inventory(corpora["train"])
        single = EdgeTargets(corpora["train"], inventory).single
        targets = {name: EdgeTargets(texts, inventory, single) for name, texts in corpora.items()}
        vectors = {name: self._extracted(name, own) for name, own in targets.items()}
        inputs = all_inputs(self.encoder.num_layers, self.settings.mixes)
        progress, device = self.settings.progress, self.encoder.device
        train, dev = (Corpus(vectors[name], targets[name]) for name in ("train", "dev"))
        training, blocks, block = unfinished
        trained = train_heads(inputs, train, dev, self.settings.training, progress, unfinished=training, device=device)
        scored = "test" if "test" in corpora else "dev"
        counts = count(trained.heads, range(len(inputs)), vectors[scored], targets[scored])
        code = None
        if self.settings.code_length:
            code = online_code(inputs, train, dev, self.settings.training, progress, (blocks, block), device=device)
        top = [p for p, i in enumerate(inputs) if i == Input("mix", self.encoder.num_layers - 1)]
        mix = trained.heads.mix_weights(trained.heads.tensors, top[0]) if top else torch.ones(1)
        measured = Measured(
            inputs, counts, trained.dev_score, trained.steps, mix.double().cpu().numpy(),
            None if code is None else code.bits, None if code is None else code.uniform, len(targets["train"]),
        )  # fmt: skip
        return measured, trained.heads.tensors

    def _extracted(self, name: str, targets: EdgeTargets) -> Vectors:
        # The control's spans are the real ones: its vectors are the same.
        if name not in self._vectors:
            stored = self.settings.store.vectors(
                self.encoder,
                [text.words for text in targets.texts],
                kept=targets.kept,
                names=[f"{text.id} of the {name} data" for text in targets.texts],
                progress=self.settings.progress,
            )
            self._vectors[name] = on_device(stored, self.encoder.device)
        return self._vectors[name]


def _content(texts: Sequence[SpanText]) -> list[Any]:
    return [(text.words, [(t.first, t.second, t.labels) for t in text.targets]) for text in texts]


def _save(artefact: Artefact, measured: Measured, tensors: Mapping[str, torch.Tensor]) -> None:
    counts = measured.counts
    kept = {f"heads.{name}": tensor for name, tensor in tensors.items()}
    kept |= {
        "counts.hits": counts.hits.to(torch.int32), "counts.predicted": counts.predicted.to(torch.int32),
        "counts.gold": counts.gold.to(torch.int32), "counts.missed": counts.missed,
    }  # fmt: skip
    record = {
        "inputs": [dataclasses.asdict(i) for i in measured.inputs],
        "dev_score": measured.dev_score.tolist(),
        "steps": measured.steps.tolist(),
        "mix": measured.mix.tolist(),
        "bits": None if measured.bits is None else measured.bits.tolist(),
        "uniform": measured.uniform,
        "targets": measured.targets,
    }
    artefact.save(kept, record)


def _load(artefact: Artefact) -> Measured | None:
    contents = artefact.load()
    if contents is None:
        return None
    counts, record = [contents.tensors[f"counts.{name}"] for name in COUNTS], contents.record
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

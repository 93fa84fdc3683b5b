"""Driver of structural probes (Hewitt and Manning 2019)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bertft.data.examples import Sentence
from bertft.errors import BertftError
from bertft.models.fingerprint import fingerprint
from bertft.probes.feature_store import FeatureStore
from bertft.probes.older import digest_by_repr, structural_contents
from bertft.probes.structural.kind import ProbeKind, requested
from bertft.probes.structural.orthogonal import OrthogonalProbes, train_orthogonal
from bertft.probes.structural.predicted_trees import write_trees
from bertft.probes.structural.rbf import RbfProbes, train_rbf
from bertft.probes.structural.rows import CONTROL, rows_of
from bertft.probes.structural.scores import SentenceScores, score_sentences
from bertft.probes.structural.training import KINDS, Corpus, Probes, Trees, predict, train_probes
from bertft.probes.structural.trees import check_scorable, control_trees, punctuation
from bertft.probes.vectors import Vectors, extract
from bertft.runs.artefacts import Artefact, Contents, Unfinished
from bertft.runs.digests import digest_of_json
from bertft.runs.files import write_text_atomically
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Rows

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder

__all__ = ["Probes", "Trees", "predict", "structural_probes", "train_probes"]

FORMAT = "bertft.structural/3"  # 2 had another root accuracy
SCORES = ("lengths", "dspr", "nspr", "edges", "gold_edges", "root")
TRAINERS: dict[str, Callable[..., Probes]] = {
    "linear": train_probes,
    "orthogonal": train_orthogonal,
    "rbf": train_rbf,
}


def structural_probes(
    encoders: Mapping[str, Encoder],
    train: Sequence[Sentence],
    dev: Sequence[Sentence],
    *,
    rank: int | Sequence[int] = 128,
    orthogonal: bool = False,
    rbf: bool = False,
    epochs: int = 40,
    seed: int = 0,
    data: str = "ewt",
    out: str | os.PathLike[str] | None = None,
    window: str = "refuse",
    resamples: int = 1000,
    control: bool = False,
    differences: bool = False,
    store: FeatureStore | None = None,
    notes: list[str] | None = None,
    progress: Progress = SILENT,
) -> Rows:
    """Train distance and depth probes on every layer of every encoder and score them on ``dev``.

    `bertft.probes.structural.rows.rows_of` lists the rows. Layer k is ``hidden_states[k]`` of Hugging Face, one less
    than in Hewitt's counting. For a baseline, add an encoder with random weights under the name ``random``
    (`bertft.models.blocks.reinitialise`). Vectors are float16 and, unless a ``store`` keeps them, removed after use.

    Args:
        encoders: encoders by name; ``differences`` are to the first.
        train: sentences with trees to train on.
        dev: sentences that end the training and are scored.
        rank: rank or ranks of the linear probes; RBF-kernel probes have the highest.
        orthogonal: also train orthogonal probes (`bertft.probes.structural.orthogonal`).
        rbf: also train RBF-kernel probes (`bertft.probes.structural.rbf`).
        epochs: most epochs of training.
        seed: seed of weights, batches, control trees and resamples.
        data: name of the corpus in the rows.
        out: folder for ``<name>.safetensors`` (weights ``distance`` and ``depth`` (L, D, R), scores of every
            sentence), ``<name>.json`` (settings, dev losses) and ``<name>.conllu`` (``dev`` trees predicted at the
            layer of the best UUAS). A later call with the same settings and data loads them.
        window: ``refuse`` sentences longer than an encoder's window, or ``split`` them; a ``store`` has its own.
        resamples: bootstrap resamples of the sentences.
        control: also probe control trees (`control_trees`).
        differences: also compare each encoder with the first.
        store: where vectors are kept.
        notes: receives sentences on how many probes were still improving at the last epoch.
        progress: receives progress.

    Raises `BertftError` for an empty corpus, heads that form no tree, or a sentence that is too long.
    """
    _check_corpora(encoders, train, dev)
    ranks = [rank] if isinstance(rank, int) else rank
    if min(ranks) < 1 or epochs < 1:
        raise BertftError(f"structural probes: rank and epochs must be positive, found {min(ranks)} and {epochs}")
    kinds = requested(ranks, orthogonal, rbf)
    settings = _Settings(epochs, seed, None if out is None else Path(out), store, window, progress)
    parts = {"": (train, dev)}
    if control:
        parts[CONTROL] = (control_trees(train, seed), control_trees(dev, seed))
    scores: dict[tuple[str, ProbeKind, str], SentenceScores] = {}
    for name, encoder in encoders.items():
        with _Run(name, encoder, train, dev, settings) as run:
            for kind in kinds:
                own = kind.named(kinds)
                for part, corpora in parts.items():
                    suffix = (f".{own}" if own else "") + (".control" if part else "")
                    measured = run.measure(suffix, *corpora, kind)
                    scores[name, kind, part] = measured.scores
                    if notes is not None:
                        notes += measured.notes(f"{name}{suffix}", epochs)
    return Rows(rows_of(scores, data, seed, resamples, differences))


def _check_corpora(encoders: Mapping[str, Encoder], train: Sequence[Sentence], dev: Sequence[Sentence]) -> None:
    for name, sentences in (("train", train), ("dev", dev)):
        if not sentences:
            raise BertftError(f"structural probes: {name} has no sentences")
    check_scorable(dev)
    if not encoders:
        raise BertftError("structural probes: encoders is empty")


@dataclass(frozen=True)
class _Settings:
    """The settings that all encoders share, and where their vectors and probes are kept."""

    epochs: int
    seed: int
    folder: Path | None
    store: FeatureStore | None
    window: str
    progress: Progress


@dataclass
class _Measured:
    """The scores of every dev sentence, and the epochs that each probe was trained, distance and then depth."""

    scores: SentenceScores
    epochs: list[int]

    def notes(self, name: str, limit: int) -> list[str]:
        """Return a sentence if some probes were trained for all ``limit`` epochs."""
        reached = sum(trained >= limit for trained in self.epochs)
        if not reached:
            return []
        return [
            f"{name}: {reached} of {len(self.epochs)} probes reached the limit of {limit} epochs"
            " and may not have learned all they could"
        ]


@dataclass
class _Run:
    """The probes of one encoder; each set is trained and scored once, and then kept."""

    name: str
    encoder: Encoder
    train: Sequence[Sentence]
    dev: Sequence[Sentence]
    settings: _Settings
    _extracted: tuple[Vectors, Vectors] | None = None

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._extracted = None
        if self.settings.folder is not None:
            self._scratch(self.settings.folder).unlink(missing_ok=True)

    def _scratch(self, folder: Path) -> Path:
        return folder / f".{self.name}.vectors"

    def _vectors(self) -> tuple[Vectors, Vectors]:
        """Return the word vectors of ``train`` and ``dev``, extracted at the first call."""
        if self._extracted is None:
            corpora, settings = (self.train, self.dev), self.settings
            words = [[s.words for s in sentences] for sentences in corpora]
            if settings.store is not None:
                names = [[s.id for s in sentences] for sentences in corpora]
                train, dev = (
                    settings.store.vectors(self.encoder, w, names=n, progress=settings.progress)
                    for w, n in zip(words, names, strict=True)
                )
            else:
                scratch = None if settings.folder is None else self._scratch(settings.folder)
                train, dev = (
                    extract(self.encoder, w, path=path, window=settings.window, progress=settings.progress)
                    for w, path in zip(words, (scratch, None), strict=True)
                )
            self._extracted = train, dev
        return self._extracted

    def measure(self, suffix: str, train: Sequence[Sentence], dev: Sequence[Sentence], kind: ProbeKind) -> _Measured:
        """Return the scores on ``dev`` of probes trained on ``train``, whose words are those of the encoder's corpora.

        Probes that are kept under the encoder's name and ``suffix`` are loaded.
        """
        skip, column = punctuation(dev)
        config = self._config(train, dev, kind, column)
        folder = self.settings.folder
        stem = None if folder is None else folder / f"{self.name}{suffix}"
        unfinished = Unfinished(None if stem is None else stem.with_name(f".{stem.name}.unfinished"), config)
        artefact = None if stem is None else _artefact(stem, config, train, dev)
        measured = None if artefact is None else _load(artefact)
        if measured is None:
            probes = self._trained(kind, Trees(train), Trees(dev), unfinished)
            points, depths = predict(probes, self._vectors()[1], device=self.encoder.device)
            trees = Trees(dev)
            scores = score_sentences(points, depths, trees.distances, trees.depths, skip)
            if stem is not None and artefact is not None:
                best = int((scores.edges.sum(1)).argmax())
                write_trees(Path(f"{stem}.conllu"), dev, points[best], depths[best], layer=best)
                _save(artefact, probes, scores, kind)
            measured = _Measured(scores, probes.epochs.flatten().tolist())
        unfinished.remove()  # also after loading: a kill may have come between saving and this line
        return measured

    def _trained(self, kind: ProbeKind, train: Trees, dev: Trees, unfinished: Unfinished) -> Probes:
        (vectors, dev_vectors), settings = self._vectors(), self.settings
        return TRAINERS[kind.kind](
            Corpus(vectors, train),
            Corpus(dev_vectors, dev),
            epochs=settings.epochs,
            seed=settings.seed,
            device=self.encoder.device,
            progress=settings.progress,
            unfinished=unfinished,
            **({} if kind.rank is None else {"rank": kind.rank}),
        )

    def _config(
        self, train: Sequence[Sentence], dev: Sequence[Sentence], kind: ProbeKind, column: str
    ) -> dict[str, Any]:
        """Return everything that the probes and scores depend on."""
        store = self.settings.store
        return {
            "format": FORMAT,
            "encoder": fingerprint(self.encoder),
            "train": digest_of_json(_content(train)),
            "dev": digest_of_json(_content(dev)),
            "rank": kind.setting,
            "epochs": self.settings.epochs,
            "seed": self.settings.seed,
            "window": self.settings.window if store is None else store.window,
            "punctuation": column,
            "dtype": "float16" if store is None else str(store.dtype).removeprefix("torch."),
        }


def _artefact(stem: Path, config: dict[str, Any], train: Sequence[Sentence], dev: Sequence[Sentence]) -> Artefact:
    def older() -> Contents | None:
        digests = {"train": digest_by_repr(_content(train)), "dev": digest_by_repr(_content(dev))}
        return structural_contents(stem, {**config, **digests}, config)

    return Artefact(stem.with_name(f"{stem.name}.safetensors"), config, older=older)


def _save(artefact: Artefact, probes: Probes, scores: SentenceScores, kind: ProbeKind) -> None:
    tensors: dict[str, torch.Tensor] = dict(zip(KINDS, probes.weights, strict=True))
    tensors |= {f"scores.{name}": torch.from_numpy(getattr(scores, name)) for name in SCORES}
    record: dict[str, Any] = {
        "dev_loss": dict(zip(KINDS, probes.dev_loss.tolist(), strict=True)),
        "epochs": dict(zip(KINDS, probes.epochs.tolist(), strict=True)),
    }
    if isinstance(probes, OrthogonalProbes):
        tensors |= {"rotation": probes.rotation, "scales": probes.scales}
        record["dimensions"] = dict(zip(KINDS, probes.dimensions().tolist(), strict=True))
        record["shared"] = probes.shared().tolist()
    if isinstance(probes, RbfProbes):
        tensors["widths"] = probes.widths
        record["widths"] = dict(zip(KINDS, probes.widths.tolist(), strict=True))
    readable = json.dumps({"config": artefact.settings, **record}, indent=1)
    write_text_atomically(artefact.path.with_suffix(".json"), readable + "\n")
    artefact.save(tensors, record, labels={"kind": kind.kind})


def _load(artefact: Artefact) -> _Measured | None:
    contents = artefact.load()
    if contents is None:
        return None
    scores = SentenceScores(*(contents.tensors[f"scores.{name}"].numpy() for name in SCORES))
    return _Measured(scores, [trained for kind in KINDS for trained in contents.record["epochs"][kind]])


def _content(sentences: Sequence[Sentence]) -> list[Any]:
    return [(s.words, s.heads, s.xpos, s.upos) for s in sentences]

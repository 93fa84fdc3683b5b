"""Structural probes (Hewitt and Manning 2019) of every layer of every encoder, beside their controls."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bertft.data.examples import Sentence
from bertft.errors import BertftError
from bertft.probes.feature_store import FeatureStore, fingerprint
from bertft.probes.structural.orthogonal import OrthogonalProbes, train_orthogonal
from bertft.probes.structural.predicted_trees import write_trees
from bertft.probes.structural.rbf import RbfProbes, train_rbf
from bertft.probes.structural.rows import ORTHOGONAL, rows_of
from bertft.probes.structural.scores import SentenceScores, score_sentences
from bertft.probes.structural.training import KINDS, Probes, Trees, predict, train_probes
from bertft.probes.structural.trees import check_scorable, control_trees, punctuation
from bertft.probes.vectors import Vectors, extract
from bertft.runs.artefacts import Unfinished
from bertft.runs.digests import digest
from bertft.runs.progress import SILENT, Progress
from bertft.runs.rows import Row, write_bytes_atomically, write_text_atomically

if TYPE_CHECKING:
    from bertft.models.encoder import Encoder

__all__ = ["Probes", "Trees", "predict", "structural_probes", "train_probes"]

FORMAT = "bertft.structural/3"  # 2 had another root accuracy
SCORES = ("lengths", "dspr", "nspr", "edges", "gold_edges", "root")


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
) -> list[Row]:
    """Distance and depth probes on every layer of every encoder, scored on ``dev``.

    Rows, for each encoder (by its name in ``encoders``) and layer: ``dspr``, ``nspr``, ``uuas`` and ``root_accuracy``
    (`bertft.probes.structural.scores`), each with a 95 % bootstrap interval over sentences. Layer k is Hugging Face's
    ``hidden_states[k]``, one less than Hewitt's counting. A baseline is one more entry: a randomly initialised encoder
    under the name ``random`` (`bertft.models.encoder.reinitialise`). What ``control`` (`control_trees`), ``differences`` (to
    the first encoder), ``orthogonal`` (`bertft.probes.structural.orthogonal`), ``rbf`` (`bertft.probes.structural.rbf`, of the highest rank)
    and several ranks add is said at `bertft.probes.structural.rows.rows_of`.

    Encoders are taken one after another: the vectors of one (float16) are extracted once, used by all its probes, and,
    unless they come from a ``store``, removed. With ``out``, each encoder leaves ``<name>.safetensors`` (weights
    ``distance`` and ``depth``, (L, D, R), and every sentence's scores; the metadata name their ``kind``),
    ``<name>.json`` (configuration, dev losses) and ``<name>.conllu`` (the trees predicted for ``dev`` at the layer of
    the best UUAS); a later call with the same configuration and data takes those it finds there. ``notes`` receives
    what a reader must know, in sentences: how many probes were trained for all of ``epochs``, so that more could have
    changed them. Raises ``BertftError`` for empty data, heads that form no tree, and sentences beyond an encoder's
    window unless ``window="split"``.
    """
    for name, sentences in (("train", train), ("dev", dev)):
        if not sentences:
            raise BertftError(f"structural probes: {name} holds no sentence")
    check_scorable(dev)
    if not encoders:
        raise BertftError("structural probes: encoders holds no encoder")
    ranks = [rank] if isinstance(rank, int) else list(dict.fromkeys(rank))
    if min(ranks) < 1 or epochs < 1:
        raise BertftError(f"structural probes: rank and epochs must be positive, found {min(ranks)} and {epochs}")
    several = len(ranks) > 1
    ranks += [ORTHOGONAL] * orthogonal + [-max(ranks)] * rbf
    if store is not None:
        window = store.window
    corpora = {"": (train, dev)}
    if control:
        corpora["control_"] = (control_trees(train, seed), control_trees(dev, seed))
    scores: dict[tuple[str, int, str], SentenceScores] = {}
    for name, encoder in encoders.items():
        with _Run(name, encoder, train, dev, None if out is None else Path(out), store, window, progress) as run:
            for r in ranks:
                for part, (own_train, own_dev) in corpora.items():
                    own = f".{_kind(r)}" if r <= 0 else f".rank{r}" if several else ""
                    suffix = own + (f".{part[:-1]}" if part else "")
                    found = run.measure(suffix, own_train, own_dev, r, epochs, seed)
                    scores[name, r, part] = found.scores
                    reached = sum(trained >= epochs for trained in found.epochs)
                    if reached and notes is not None:
                        notes.append(
                            f"{name}{suffix}: {reached} of {len(found.epochs)} probes reached the limit of {epochs}"
                            " epochs and may not have learned all they could"
                        )
    return rows_of(scores, data, seed, resamples, differences)


@dataclass
class _Measured:
    """Every dev sentence's ``scores``, and how many ``epochs`` each probe was trained, distance and then depth."""

    scores: SentenceScores
    epochs: list[int]


@dataclass
class _Run:
    """The probes of one encoder: each set is trained and scored once, and kept."""

    name: str
    encoder: Encoder
    train: Sequence[Sentence]
    dev: Sequence[Sentence]
    folder: Path | None
    store: FeatureStore | None
    window: str
    progress: Progress
    _found: tuple[Vectors, Vectors] | None = None

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._found = None
        if self.folder is not None:
            self._scratch().unlink(missing_ok=True)

    def _scratch(self) -> Path:
        assert self.folder is not None
        return self.folder / f".{self.name}.vectors"

    def _vectors(self) -> tuple[Vectors, Vectors]:
        """Vectors of the words of ``train`` and ``dev``, made when they are first asked for."""
        if self._found is None:
            words = [[s.words for s in sentences] for sentences in (self.train, self.dev)]
            if self.store is not None:
                names = [[s.id for s in sentences] for sentences in (self.train, self.dev)]
                train, dev = (
                    self.store.vectors(self.encoder, w, names=n, progress=self.progress)
                    for w, n in zip(words, names, strict=True)
                )
            else:
                paths = [None if self.folder is None else self._scratch(), None]
                train, dev = (
                    extract(self.encoder, w, path=path, window=self.window, progress=self.progress)
                    for w, path in zip(words, paths, strict=True)
                )
            self._found = train, dev
        return self._found

    def measure(
        self, suffix: str, train: Sequence[Sentence], dev: Sequence[Sentence], rank: int, epochs: int, seed: int
    ) -> _Measured:
        """The scores on ``dev`` of probes of ``rank`` trained on ``train``, which has the encoder's words."""
        train_trees, dev_trees = Trees(train), Trees(dev)
        skip, column = punctuation(dev)
        config = {
            "format": FORMAT, "encoder": fingerprint(self.encoder), "train": _digest(train), "dev": _digest(dev),
            "rank": rank if rank > 0 else "orthogonal" if rank == ORTHOGONAL else f"{-rank}, RBF kernel",
            "epochs": epochs, "seed": seed, "window": self.window, "punctuation": column,
            "dtype": "float16" if self.store is None else str(self.store.dtype).removeprefix("torch."),
        }  # fmt: skip
        stem = None if self.folder is None else self.folder / f"{self.name}{suffix}"
        unfinished = Unfinished(None if stem is None else stem.with_name(f".{stem.name}.unfinished"), config)
        found = None if stem is None else _finished(stem, config)
        if found is not None:
            unfinished.remove()  # a kill may have come between keeping the result and this
            return found
        vectors = self._vectors()
        material = (vectors[0], train_trees, vectors[1], dev_trees)
        device = self.encoder.device
        settings: dict[str, Any] = {"epochs": epochs, "seed": seed, "device": device, "progress": self.progress}
        if rank == ORTHOGONAL:
            probes: Probes = train_orthogonal(*material, **settings, unfinished=unfinished)
        elif rank < 0:
            probes = train_rbf(*material, rank=-rank, **settings, unfinished=unfinished)
        else:
            probes = train_probes(*material, rank=rank, **settings, unfinished=unfinished)
        points, depths = predict(probes, vectors[1], device=device)
        scores = score_sentences(points, depths, dev_trees.distances, dev_trees.depths, skip)
        if stem is not None:
            best = int((scores.edges.sum(1)).argmax())
            write_trees(Path(f"{stem}.conllu"), dev, points[best], depths[best], layer=best)
            _keep(stem, config, probes, scores, _kind(rank))
            unfinished.remove()
        return _Measured(scores, probes.epochs.flatten().tolist())


def _kind(rank: int) -> str:
    return "linear" if rank > 0 else "orthogonal" if rank == ORTHOGONAL else "rbf"


def _keep(stem: Path, config: dict[str, Any], probes: Probes, scores: SentenceScores, kind: str) -> None:
    from safetensors.torch import save

    tensors = {kind: weights.contiguous() for kind, weights in zip(KINDS, probes.weights, strict=True)}
    tensors |= {f"scores.{name}": torch.from_numpy(np.ascontiguousarray(getattr(scores, name))) for name in SCORES}
    record: dict[str, Any] = {
        "config": config,
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
    record["sha256"] = digest(tensors)
    write_bytes_atomically(f"{stem}.safetensors", save(tensors, {"format": FORMAT, "kind": kind}))
    write_text_atomically(f"{stem}.json", json.dumps(record, indent=1) + "\n")


def _finished(stem: Path, config: dict[str, Any]) -> _Measured | None:
    """What is kept under ``stem`` if it is of the same configuration, encoder and data.

    The JSON is written last: where it is there and of this configuration, the tensors are too, with the digest it
    names (older ones have none).
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        record = json.loads(Path(f"{stem}.json").read_text(encoding="utf8"))
        tensors = load(Path(f"{stem}.safetensors").read_bytes())
        if record.get("config") != config or ("sha256" in record and record["sha256"] != digest(tensors)):
            return None
        scores = SentenceScores(*(tensors[f"scores.{name}"].numpy() for name in SCORES))
        return _Measured(scores, [trained for kind in KINDS for trained in record["epochs"][kind]])
    except (OSError, ValueError, KeyError, SafetensorError):
        return None


def _digest(sentences: Sequence[Sentence]) -> str:
    found = hashlib.sha256()
    for s in sentences:
        found.update(repr((s.words, s.heads, s.xpos, s.upos)).encode())
    return found.hexdigest()[:16]

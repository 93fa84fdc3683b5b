"""Interrupted training of probes.

It resumes after the last complete epoch and gives the same probes bit for bit.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bertft.data import synthetic
from bertft.data.readers.spans import SpanTarget, SpanText
from bertft.models.encoder import Encoder
from bertft.probes.edge import training as edge_train
from bertft.probes.edge.control import online_code
from bertft.probes.edge.head import Input, all_inputs
from bertft.probes.edge.targets import EdgeTargets
from bertft.probes.edge.training import Corpus as EdgeCorpus
from bertft.probes.edge.training import EdgeTraining, train_heads
from bertft.probes.structural.driver import structural_probes
from bertft.probes.structural.orthogonal import train_orthogonal
from bertft.probes.structural.rbf import train_rbf
from bertft.probes.structural.training import Corpus, Trees, train_probes
from bertft.probes.vectors import WordVectors
from bertft.runs.artefacts import Unfinished
from bertft.runs.progress import SILENT


class Killed(Exception):
    pass


class Cut(Unfinished):
    """State of a training that is killed once the epoch ``last`` is stored."""

    last = 0

    def keep(self, epoch, state, order, **settings):
        super().keep(epoch, state, order, **settings)
        if epoch == self.last:
            raise Killed


def material(count: int, seed: int) -> Corpus:
    sentences = synthetic.sentences(count, seed=seed)
    lengths = [len(s.words) for s in sentences]
    vectors = torch.randn(sum(lengths), 2, 8, generator=torch.Generator().manual_seed(seed))
    vectors *= torch.tensor([[12.0], [3.0]])  # large, so that few steps suffice
    return Corpus(WordVectors(vectors, lengths), Trees(sentences))


@pytest.mark.parametrize(
    ("train", "rank", "epochs"),
    [(train_probes, {"rank": 3}, 30), (train_rbf, {"rank": 3}, 25), (train_orthogonal, {}, 25)],
)
def test_structural_training_resumes_after_any_epoch(train, rank, epochs, tmp_path):
    # On noise, rates fall and probes stop at different epochs, so the whole state of the schedule matters.
    arguments, settings = (material(45, 1), material(20, 2)), {**rank, "epochs": epochs, "seed": 5}
    whole = train(*arguments, **settings)
    assert len(set(whole.epochs.flatten().tolist())) > (2 if rank else 1)
    cut = Cut(tmp_path / "state", {"seed": 5})
    for cut.last in range(1, int(whole.epochs.max()) - 1, 4):
        with pytest.raises(Killed):
            train(*arguments, **settings, unfinished=cut)
    resumed = train(*arguments, **settings, unfinished=Unfinished(cut.path, {"seed": 5}))
    for name, value in vars(whole).items():
        assert torch.equal(getattr(resumed, name), value), name


def edge_material(count: int, seed: int) -> EdgeCorpus:
    """Labels that layer 1 encodes and layer 0 does not, so that the training of layer 1 takes longer."""
    vectors = torch.randn(4 * count, 2, 8, generator=torch.Generator().manual_seed(seed))
    labels = iter("AB"[int(value > 0)] for value in vectors[:, 1, 0])
    texts = [
        SpanText(str(i), ("w",) * 4, tuple(SpanTarget((k, k + 1), None, (next(labels),)) for k in range(4)))
        for i in range(count)
    ]
    targets = EdgeTargets(texts, ["A", "B"])
    return EdgeCorpus(WordVectors(vectors, targets.lengths), targets)


def test_edge_training_resumes_after_any_validation(tmp_path):
    # 5 batches in a round and a validation every 2 steps, so that a kill falls inside a round.
    arguments = ([Input("layer", 0), Input("mix", 1)], edge_material(10, 1), edge_material(12, 2))
    config = EdgeTraining(learning_rate=1e-3, batch=2, interval=2, steps=90, seed=5)
    whole = train_heads(*arguments, config)
    assert len(set(whole.steps.tolist())) > 1
    cut = Cut(tmp_path / "state", {"seed": 5})
    for cut.last in (4, int(whole.steps.min()), int(whole.steps.max()) - 2):  # one has just stopped, one is about to
        with pytest.raises(Killed):
            train_heads(*arguments, config, unfinished=cut)
    own = Unfinished(cut.path, {"seed": 5})
    for _ in range(2):  # the second time from the last state, with nothing left to do
        resumed = train_heads(*arguments, config, unfinished=own)
        assert np.array_equal(resumed.dev_score, whole.dev_score) and np.array_equal(resumed.steps, whole.steps)
        for name, tensor in whole.heads.tensors.items():
            assert torch.equal(resumed.heads.tensors[name], tensor), name


def test_the_online_code_resumes_within_a_block(tmp_path, monkeypatch):
    arguments = (all_inputs(2), edge_material(16, 1), edge_material(6, 2))
    config = EdgeTraining(learning_rate=3e-3, batch=2, interval=2, steps=6, seed=5)
    whole = online_code(*arguments, config)
    blocks, training = (Unfinished(tmp_path / name, {}) for name in ("blocks", "training"))
    keep, kept, worked = Unfinished.keep, [], []

    def killed_at_times(self, epoch, state, order, **settings):
        keep(self, epoch, state, order, **settings)
        kept.append((self.path.name, epoch))
        if len(kept) % 3 == 0:
            raise Killed

    step = edge_train.descend
    monkeypatch.setattr(edge_train, "descend", lambda *a: (worked.append(1), step(*a)))
    monkeypatch.setattr(Unfinished, "keep", killed_at_times)
    for _ in range(20):
        try:
            code = online_code(*arguments, config, SILENT, (blocks, training))
            break
        except Killed:
            pass
    assert np.array_equal(code.bits, whole.bits)
    count = sum(name == "blocks" for name, _ in kept)
    assert count > 2 and len(kept) == (3 + 1) * count and len(worked) == 6 * count  # no step was repeated


def test_a_killed_run_resumes_and_leaves_no_state(tiny_model, tmp_path, monkeypatch):
    sentences = synthetic.sentences(40, seed=1)
    arguments = ({"base": Encoder.from_pretrained(str(tiny_model))}, sentences[:30], sentences[30:])
    settings = {"rank": 2, "epochs": 3, "resamples": 20}
    whole = structural_probes(*arguments, **settings)
    keep, kept = Unfinished.keep, []

    def once(self, epoch, state, order, **settings):
        keep(self, epoch, state, order, **settings)
        kept.append(epoch)
        if kept == [0, 1]:
            raise Killed

    monkeypatch.setattr(Unfinished, "keep", once)
    with pytest.raises(Killed):
        structural_probes(*arguments, **settings, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".base.unfinished"]
    assert structural_probes(*arguments, **settings, out=tmp_path) == whole
    assert kept == [0, 1, 2]  # the first two were not trained again
    files = ["base.conllu", "base.json", "base.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    (tmp_path / ".base.unfinished").touch()  # killed before it was removed
    assert structural_probes(*arguments, **settings, out=tmp_path) == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == files

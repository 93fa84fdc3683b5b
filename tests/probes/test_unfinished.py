"""Training that was cut off goes on after the last whole epoch, to the same probes bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bertft.data import synthetic
from bertft.encoder import Encoder
from bertft.probes import unfinished as module
from bertft.probes.features import WordVectors
from bertft.probes.rbf import train_rbf
from bertft.probes.structural import structural_probes
from bertft.probes.structural_training import Trees, train_probes
from bertft.probes.unfinished import Unfinished


class Killed(Exception):
    pass


class Cut(Unfinished):
    """Is killed when it has kept this epoch."""

    last = 0

    def keep(self, epoch, state, order):
        super().keep(epoch, state, order)
        if epoch == self.last:
            raise Killed


def material(count: int, seed: int) -> tuple[WordVectors, Trees]:
    sentences = synthetic.sentences(count, seed=seed)
    lengths = [len(s.words) for s in sentences]
    vectors = torch.randn(sum(lengths), 2, 8, generator=torch.Generator().manual_seed(seed))
    vectors *= torch.tensor([[12.0], [3.0]])  # large, so that few steps do
    return WordVectors(vectors, lengths), Trees(sentences)


@pytest.mark.parametrize(("train", "epochs"), [(train_probes, 30), (train_rbf, 25)])
def test_every_epoch_is_one_to_go_on_from(train, epochs, tmp_path):
    # Noise: rates fall and probes stop at different epochs, so that all of the schedule's memory is needed.
    arguments, settings = (*material(45, 1), *material(20, 2)), {"rank": 3, "epochs": epochs, "seed": 5}
    whole = train(*arguments, **settings)
    assert len(set(whole.epochs.flatten().tolist())) > 2
    cut = Cut(tmp_path / "state", {"seed": 5})
    for cut.last in range(1, epochs - 1, 4):
        with pytest.raises(Killed):
            train(*arguments, **settings, unfinished=cut)
    resumed = train(*arguments, **settings, unfinished=Unfinished(cut.path, {"seed": 5}))
    for name, value in vars(whole).items():
        assert torch.equal(getattr(resumed, name), value), name


def test_what_is_not_of_this_training_is_left(tmp_path):
    order = np.random.default_rng(0)
    own = Unfinished(tmp_path / "state", {"seed": 1})
    assert own.found(order) is None
    own.keep(3, {"weights": torch.ones(2)}, order)
    before = order.bit_generator.state
    order.random(3)
    epoch, state = own.found(order)
    assert epoch == 4 and state["weights"].tolist() == [1, 1] and order.bit_generator.state == before
    assert Unfinished(own.path, {"seed": 2}).found(order) is None
    content = own.path.read_bytes()
    for damaged in (content[:-1] + bytes([content[-1] ^ 1]), content[:-5]):
        own.path.write_bytes(damaged)
        assert own.found(order) is None
    own.remove()
    own.remove()
    assert not own.path.exists()


def test_a_run_goes_on_and_leaves_nothing(tiny_model, tmp_path, monkeypatch):
    sentences = synthetic.sentences(40, seed=1)
    arguments = ({"base": Encoder.from_pretrained(str(tiny_model))}, sentences[:30], sentences[30:])
    settings = {"rank": 2, "epochs": 3, "resamples": 20}
    whole = structural_probes(*arguments, **settings)
    keep, kept = Unfinished.keep, []

    def once(self, epoch, state, order):
        keep(self, epoch, state, order)
        kept.append(epoch)
        if kept == [0, 1]:
            raise Killed

    monkeypatch.setattr(module.Unfinished, "keep", once)
    with pytest.raises(Killed):
        structural_probes(*arguments, **settings, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".base.unfinished"]
    assert structural_probes(*arguments, **settings, out=tmp_path) == whole
    assert kept == [0, 1, 2]  # the first two were not trained again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.conllu", "base.json", "base.safetensors"]

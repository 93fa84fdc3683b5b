"""RBF-kernel probes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from bertft.data import synthetic
from bertft.data.readers.conllu import read_conllu
from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.ops.probe_loss import probe_loss
from bertft.probes.structural import driver as structural
from bertft.probes.structural.driver import structural_probes
from bertft.probes.structural.rbf import START, losses, train_rbf
from bertft.probes.structural.scores import score_sentences
from bertft.probes.structural.training import PATIENCE, Corpus, Probes, Trees, predict
from bertft.probes.structural.trees import punctuation
from bertft.probes.vectors import WordVectors, extract
from tests.probes.structural.test_orthogonal import rotated

LAYERS, DIM, RANK = 2, 6, 3


def drawn(lengths=(1, 4, 2), seed: int = 0):
    """Random vectors (L, T, D), parameters (2 * L, D * R + 1) and gold distances and depths, float64."""
    rng = np.random.default_rng(seed)
    h = rng.normal(size=(LAYERS, sum(lengths), DIM))
    parameters = rng.normal(size=(2 * LAYERS, DIM * RANK + 1))
    distances, depths = [], []
    for n in lengths:
        d = rng.integers(1, 6, size=(n, n))
        distances.append(np.triu(d, 1) + np.triu(d, 1).T)
        depths.append(rng.integers(0, 5, size=n))
    gold = torch.from_numpy(np.concatenate([d.ravel() for d in distances])), torch.from_numpy(np.concatenate(depths))
    return torch.from_numpy(h), torch.from_numpy(parameters), distances, depths, gold, torch.tensor(lengths)


def written_out(h, parameters, distances, depths, lengths):
    """Return the losses (2 * L,) by the kernel as in the paper, with sigma, scaled by sigma^2."""
    found = np.zeros(2 * LAYERS)
    for probe in range(2 * LAYERS):
        b, sigma = parameters[probe, :-1].reshape(DIM, RANK), math.sqrt(math.exp(parameters[probe, -1]) / 2)

        def kernel(x, y, b=b, sigma=sigma):
            difference = b.T @ x - b.T @ y
            return math.exp(-(difference @ difference) / (2 * sigma**2))

        def distance(x, y, kernel=kernel, sigma=sigma):
            return sigma**2 * (kernel(x, x) - 2 * kernel(x, y) + kernel(y, y))

        start = 0
        for s, n in enumerate(lengths):
            own = h[probe % LAYERS, start : start + n]
            start += n
            for i in range(n):
                if probe < LAYERS:
                    errors = [abs(distance(own[i], own[j]) - distances[s][i, j]) for j in range(n)]
                    found[probe] += sum(errors) / n**2 / len(lengths)
                else:
                    found[probe] += abs(distance(own[i], np.zeros(DIM)) - depths[s][i]) / n / len(lengths)
    return found


def test_losses_equal_those_of_the_kernel():
    h, parameters, distances, depths, gold, lengths = drawn()
    truth = written_out(h.numpy(), parameters.numpy(), distances, depths, lengths.tolist())
    assert losses(parameters, h, *gold, lengths).numpy() == pytest.approx(truth, rel=1e-12)
    assert losses(parameters[:LAYERS], h, gold[0], None, lengths).numpy() == pytest.approx(truth[:LAYERS], rel=1e-12)
    assert losses(parameters[LAYERS:], h, None, gold[1], lengths).numpy() == pytest.approx(truth[LAYERS:], rel=1e-12)
    single = losses(parameters.float(), h.float(), *gold, lengths)
    assert single.dtype == torch.float32 and single.numpy() == pytest.approx(truth, rel=1e-5)


def test_gradients_equal_finite_differences():
    h, parameters, *_, gold, lengths = drawn(seed=1)
    assert torch.autograd.gradcheck(lambda p: losses(p, h, *gold, lengths), parameters.requires_grad_())


def test_a_wide_kernel_equals_the_linear_probe():
    h, parameters, *_, gold, lengths = drawn(seed=2)
    parameters[:, -1] = math.log(1e9)
    weights = parameters[:, :-1].view(2, LAYERS, DIM, RANK)
    plain = probe_loss(h, weights[0], weights[1], *gold, lengths).T.flatten()
    torch.testing.assert_close(losses(parameters, h, *gold, lengths), plain, rtol=1e-6, atol=0)


def test_training_fits_the_trees():
    sentences = [s for s in synthetic.sentences(300, seed=4) if len(s.words) <= 16]
    cut = len(sentences) * 3 // 4
    (train, train_trees), (dev, dev_trees) = rotated(sentences[:cut]), rotated(sentences[cut:], seed=1)
    train, dev = (WordVectors(data.vectors * 4, data.lengths) for data in (train, dev))  # so that few steps suffice
    probes = train_rbf(Corpus(train, train_trees), Corpus(dev, dev_trees), rank=20, epochs=20, seed=0)
    gold = [float(np.mean([g.mean() for g in own])) for own in (dev_trees.distances, dev_trees.depths)]
    assert all(probes.dev_loss[kind, 0] < gold[kind] / 5 for kind in (0, 1))  # `gold` is the loss of predicting 0
    assert not torch.equal(probes.widths, torch.full((2, 1), START))
    # The weights returned have that loss on dev.
    parameters = torch.cat([probes.weights.view(2, -1), probes.widths.log()], dim=1)
    h = dev.batch(range(len(dev.lengths)))
    found = losses(parameters, h, *dev_trees.batch(range(len(dev.lengths))))
    torch.testing.assert_close(found.double(), probes.dev_loss.flatten(), rtol=1e-5, atol=0)


def test_training_stops_five_epochs_after_the_last_improvement():
    sentences = synthetic.sentences(4, seed=2)
    trees, lengths = Trees(sentences), [len(s.words) for s in sentences]
    nothing = Corpus(WordVectors(torch.zeros(sum(lengths), 2, 8), lengths), trees)
    assert train_rbf(nothing, nothing, rank=2, epochs=20).epochs.eq(1 + PATIENCE).all()


def test_a_layer_learns_the_same_alone_and_beside_others():
    sentences = synthetic.sentences(40, seed=2)
    trees, lengths = Trees(sentences), [len(s.words) for s in sentences]
    vectors = torch.randn(sum(lengths), 2, 8, generator=torch.Generator().manual_seed(0))
    both, one = (Corpus(WordVectors(part, lengths), trees) for part in (vectors, vectors[:, 1:].contiguous()))
    together = train_rbf(both, both, rank=4, epochs=3, seed=3)
    alone = train_rbf(one, one, rank=4, epochs=3, seed=3)
    torch.testing.assert_close(together.weights[:, 1:], alone.weights, rtol=1e-4, atol=1e-5)
    again = train_rbf(both, both, rank=4, epochs=3, seed=3)
    assert torch.equal(together.weights, again.weights) and torch.equal(together.widths, again.widths)
    with pytest.raises(BertftError, match="must be positive, found 0 and 3"):
        train_rbf(both, both, rank=0, epochs=3)


def test_rbf_probes_have_rows_and_files(tiny_model, tmp_path, monkeypatch):
    sentences = synthetic.sentences(60, seed=1)
    encoder = Encoder.from_pretrained(str(tiny_model))
    arguments = ({"base": encoder}, sentences[:40], sentences[40:])
    settings = {"rank": [2, 4], "epochs": 1, "resamples": 20, "out": tmp_path}
    rows = structural_probes(*arguments, **settings, rbf=True, control=True)
    measures = {r.measure for r in rows}
    assert {"dspr_rank2", "dspr_rbf", "control_uuas_rbf", "uuas_selectivity_rbf", "root_accuracy_rbf"} <= measures
    with safe_open(tmp_path / "base.rbf.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["bertft"])["kind"] == "rbf"
    with safe_open(tmp_path / "base.rank4.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["bertft"])["kind"] == "linear"
    kept, record = load_file(tmp_path / "base.rbf.safetensors"), json.loads((tmp_path / "base.rbf.json").read_text())
    assert kept["distance"].shape == (4, 32, 4) and kept["widths"].shape == (2, 4)
    assert record["config"]["rank"] == "4, RBF kernel" and record["widths"]["depth"] == kept["widths"][1].tolist()
    # The kept weights give the kept scores, and every sentence has a tree.
    vectors, gold = extract(encoder, [s.words for s in sentences[40:]]), Trees(sentences[40:])
    weights = torch.stack([kept["distance"], kept["depth"]])
    points, depths = predict(Probes(weights, weights, weights), vectors)
    scores = score_sentences(points, depths, gold.distances, gold.depths, punctuation(sentences[40:])[0])
    assert np.array_equal(scores.edges, kept["scores.edges"].numpy())
    assert [s.words for s in read_conllu(tmp_path / "base.rbf.conllu")] == [s.words for s in sentences[40:]]
    monkeypatch.setitem(structural.TRAINERS, "rbf", None)  # nothing is trained again
    assert structural_probes(*arguments, **settings, rbf=True, control=True) == rows


def test_the_loss_on_dev_is_the_mean_over_its_sentences():
    sentences = synthetic.sentences(24, seed=2)
    trees, lengths = Trees(sentences), [len(s.words) for s in sentences]
    vectors = torch.randn(sum(lengths), 3, 4, generator=torch.Generator().manual_seed(0))
    corpus = Corpus(WordVectors(vectors, lengths), trees)
    probes = train_rbf(corpus, corpus, rank=1, epochs=1, seed=2)
    assert probes.weights.shape == (2, 3, 4, 1) and probes.widths.shape == probes.epochs.shape == (2, 3)
    # 24 sentences are more than one batch.
    parameters = torch.cat([probes.weights.flatten(2), probes.widths.log()[..., None]], dim=2).flatten(0, 1)
    batches = [(corpus.vectors.batch([i]), *trees.batch([i])) for i in range(24)]
    each = torch.stack([losses(parameters, h, *own) for h, *own in batches])
    torch.testing.assert_close(probes.dev_loss.flatten(), each.double().mean(0), rtol=1e-5, atol=0)

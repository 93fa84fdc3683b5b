"""Orthogonal probes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bertft.data import synthetic
from bertft.models.encoder import Encoder
from bertft.probes.structural import orthogonal
from bertft.probes.structural.driver import structural_probes
from bertft.probes.structural.orthogonal import OrthogonalProbes, penalty_gradient, train_orthogonal
from bertft.probes.structural.training import Corpus, Trees
from bertft.probes.vectors import WordVectors


def rotated(sentences, width: int = 24, seed: int = 0) -> tuple[WordVectors, Trees]:
    """Vectors whose squared distances are the tree's, turned into an arbitrary direction, and noise in the others.

    A tree's distances are squared Euclidean ones: every word is its path from the root, one coordinate an edge, which
    are the first 16 here.
    """
    trees, rng = Trees(sentences), np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(9).normal(size=(width, width)))[0]
    parts = []
    for s in sentences:
        paths = np.zeros((len(s.words), 16))
        for word in range(len(s.words)):
            at = word
            while s.heads[at]:
                paths[word, at] = 1
                at = s.heads[at] - 1
        parts.append(np.concatenate([paths, 2 * rng.normal(size=(len(s.words), width - 16))], axis=1) @ turn)
    vectors = torch.tensor(np.concatenate(parts), dtype=torch.float32).unsqueeze(1)
    return WordVectors(vectors, [len(s.words) for s in sentences]), trees


@pytest.fixture(scope="module")
def short():
    return [s for s in synthetic.sentences(600, seed=4) if len(s.words) <= 16]


def test_the_penalty_gradient_equals_autograd():
    v = torch.randn(2, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    eye = torch.eye(5, dtype=torch.float64)
    norms = torch.linalg.matrix_norm(v.mT @ v - eye) + torch.linalg.matrix_norm(v @ v.mT - eye)
    norms.sum().backward()
    torch.testing.assert_close(penalty_gradient(v.detach()), v.grad, rtol=1e-12, atol=1e-12)
    assert penalty_gradient(eye[None]).eq(0).all()


def test_a_step_descends_both_losses_and_the_penalty(short):
    data, trees = rotated(short[:4])
    generator = torch.Generator().manual_seed(1)
    v = (torch.eye(24) + torch.randn(1, 24, 24, generator=generator) / 10).requires_grad_()
    s = (torch.rand(1, 2, 24, generator=generator) - 0.5).requires_grad_()
    distances, depths, lengths = trees.batch(range(4))
    h = data.batch(range(4))
    loss, start, pair = 0.0, 0, 0
    for n in lengths.tolist():
        for kind in range(2):
            p = (h[0, start : start + n] @ v[0]) * s[0, kind]
            if kind == 0:
                gold = distances[pair : pair + n * n].view(n, n)
                loss = loss + ((p[:, None] - p[None]).square().sum(-1) - gold).abs().sum() / n**2 / 4
            else:
                loss = loss + (p.square().sum(-1) - depths[start : start + n]).abs().sum() / n / 4
        start, pair = start + n, pair + n * n
    eye = torch.eye(24)
    loss = loss + 0.05 * (torch.linalg.matrix_norm(v[0].T @ v[0] - eye) + torch.linalg.matrix_norm(v[0] @ v[0].T - eye))
    loss.backward()
    schedule = orthogonal._Schedule(v.detach().clone(), s.detach().clone())
    schedule.descend([0], h, distances, depths, lengths)
    state = schedule.optimizer.state
    for parameter, wanted in zip(schedule.optimizer.param_groups[0]["params"], (v.grad[0], s.grad[0]), strict=True):
        torch.testing.assert_close(state[parameter]["exp_avg"] / 0.1, wanted, rtol=2e-4, atol=2e-5)


def test_training_finds_the_directions_of_the_tree(short):
    cut = len(short) * 3 // 4
    (train, train_trees), (dev, dev_trees) = rotated(short[:cut]), rotated(short[cut:], seed=1)
    probes = train_orthogonal(Corpus(train, train_trees), Corpus(dev, dev_trees), epochs=40, seed=0)
    deviation = probes.rotation[0].T @ probes.rotation[0] - torch.eye(24)
    assert deviation.norm() < 0.5  # the identity's own norm is 4.9
    assert torch.equal(probes.weights[1, 0], probes.rotation[0] * probes.scales[1, 0])
    gold = float(np.mean([d.mean() for d in dev_trees.distances]))
    assert probes.dev_loss[0, 0] < gold / 8  # `gold` is the loss of predicting 0
    assert 1 < probes.epochs[0, 0] <= 40
    # Depth is the distance from the root, so both need the same 16 directions.
    assert probes.shared()[0] > 0.9
    assert all(6 < dimensions < 16 for dimensions in probes.dimensions()[:, 0])


def test_dimensions_and_overlap_follow_from_the_scales():
    scales = torch.tensor([[[1.0, 1, 0, 0], [1, 0, 0, 0]], [[0, 1, 1, 0], [-2, 0, 0, 0]]])
    probes = OrthogonalProbes(scales, scales, scales, scales, scales)
    assert probes.dimensions().tolist() == [[2, 1], [2, 1]]
    assert probes.shared().tolist() == [0.5, 1.0]


def test_orthogonal_probes_have_rows_and_files(tiny_model, tmp_path):
    sentences = synthetic.sentences(70, seed=1)
    encoders = {"base": Encoder.from_pretrained(str(tiny_model))}
    arguments = (encoders, sentences[:40], sentences[40:])
    settings = {"rank": 4, "epochs": 1, "resamples": 20, "out": tmp_path}
    rows = structural_probes(*arguments, **settings, orthogonal=True, control=True)
    measures = {r.measure for r in rows}
    assert {"dspr", "dspr_orthogonal", "control_uuas_orthogonal", "uuas_selectivity_orthogonal"} <= measures
    assert structural_probes(*arguments, **settings, orthogonal=True, control=True) == rows
    kept = load_file(tmp_path / "base.orthogonal.safetensors")
    assert kept["distance"].shape == (4, 32, 32) and kept["scales"].shape == (2, 4, 32)
    torch.testing.assert_close(kept["depth"], kept["rotation"] * kept["scales"][1].unsqueeze(1))
    record = json.loads((tmp_path / "base.orthogonal.json").read_text())
    assert len(record["shared"]) == 4 and 1 <= record["dimensions"]["depth"][0] <= 32
    plain = [r for r in rows if r.measure == "dspr"]
    assert plain == [r for r in structural_probes(*arguments, **settings | {"out": None}) if r.measure == "dspr"]

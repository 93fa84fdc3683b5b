"""Probes trained on a GPU, against those of a CPU.

They are equal up to accumulated rounding.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bertft.data import synthetic
from bertft.probes.edge.head import all_inputs
from bertft.probes.edge.targets import EdgeTargets, label_inventory
from bertft.probes.edge.training import Corpus as EdgeCorpus
from bertft.probes.edge.training import EdgeTraining, count, train_heads
from bertft.probes.structural.orthogonal import train_orthogonal
from bertft.probes.structural.rbf import train_rbf
from bertft.probes.structural.split import split_once
from bertft.probes.structural.training import Corpus, Trees, predict, train_probes
from bertft.probes.vectors import StreamedVectors, WordVectors, on_device
from tests.probes.edge.test_edge import corpus, repeated, vectors

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def material():
    found = []
    for seed, size in ((1, 60), (2, 20)):
        sentences = synthetic.sentences(size, seed=seed)
        lengths = [len(sentence.words) for sentence in sentences]
        drawn = torch.randn(sum(lengths), 3, 24, generator=torch.Generator().manual_seed(seed))
        found.append(Corpus(WordVectors(drawn.half(), lengths), Trees(sentences)))
    return found


@pytest.mark.parametrize("train", [train_probes, train_rbf, train_orthogonal])
def test_structural_probes_on_a_gpu_equal_those_of_the_cpu(material, train):
    settings = {"epochs": 2} if train is train_orthogonal else {"epochs": 2, "rank": 8}
    there, here = (train(*material, **settings, device=device) for device in ("cuda", "cpu"))
    assert there.weights.device.type == "cpu"
    torch.testing.assert_close(there.weights, here.weights, rtol=0, atol=2e-3)
    torch.testing.assert_close(there.dev_loss, here.dev_loss, rtol=1e-3, atol=1e-4)
    again = train(*material, **settings, device="cuda")
    assert torch.equal(again.weights, there.weights)
    points = [predict(here, material[1].vectors, device=device) for device in ("cuda", "cpu")]
    for a, b in zip(*points, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_structural_probes_over_split_words_equal_those_of_the_cpu(material, monkeypatch):
    here = train_probes(*material, epochs=2, rank=64, device="cpu")
    monkeypatch.setenv("BERTFT_CORE", "split")
    split = split_once(material[0].on(torch.device("cuda")).vectors, 64)
    assert split is not None
    there = train_probes(*material, epochs=2, rank=64, device="cuda")
    torch.testing.assert_close(there.weights, here.weights, rtol=0, atol=2e-3)
    torch.testing.assert_close(there.dev_loss, here.dev_loss, rtol=1e-3, atol=1e-4)
    again = train_probes(*material, epochs=2, rank=64, device="cuda")
    assert torch.equal(again.weights, there.weights)


def test_edge_probes_on_a_gpu_equal_those_of_the_cpu():
    # every pair of spans is a target, so many targets share a span and add to its gradient
    texts = repeated(corpus(40, seed=0, wide=True)), corpus(15, seed=1, wide=True)
    inventory = label_inventory(texts[0])
    targets = [EdgeTargets(own, inventory) for own in texts]
    spans, inputs = [vectors(own) for own in targets], all_inputs(3)
    config = EdgeTraining(learning_rate=1e-3, batch=8, interval=5, steps=20)
    material = (inputs, EdgeCorpus(spans[0], targets[0]), EdgeCorpus(spans[1], targets[1]), config)
    there, here = (train_heads(*material, device=device) for device in ("cuda", "cpu"))
    assert there.heads.device.type == "cuda"
    for name, tensor in here.heads.tensors.items():
        torch.testing.assert_close(there.heads.tensors[name].cpu(), tensor, rtol=0, atol=5e-3)
    np.testing.assert_allclose(there.dev_score, here.dev_score, atol=0.05)
    again = train_heads(*material, device="cuda")
    assert all(torch.equal(again.heads.tensors[name], tensor) for name, tensor in there.heads.tensors.items())
    counts = count(there.heads, range(len(inputs)), spans[1], targets[1])
    assert counts.gold.device.type == "cpu" and float(counts.gold.sum()) > 0


def test_vectors_that_do_not_fit_are_sent_batch_by_batch(material, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8, 8))
    vectors = material[0].vectors
    sent = on_device(vectors, torch.device("cuda", 0))
    assert not isinstance(sent, WordVectors)
    assert torch.equal(sent.batch([3, 1]).cpu(), vectors.batch([3, 1]))


def test_streamed_vectors_are_sent_to_the_gpu(tiny_model):
    from bertft.models.encoder import Encoder

    encoder = Encoder.from_pretrained(str(tiny_model))
    words = [sentence.words for sentence in synthetic.sentences(8, seed=5)]
    streamed = StreamedVectors(encoder, words)
    sent = on_device(streamed, torch.device("cuda", 0)).batch([0, 5])
    assert sent.is_cuda and torch.equal(sent.cpu(), streamed.batch([0, 5]))

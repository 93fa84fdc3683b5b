"""Probes of earlier versions, loaded and not trained again."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
from safetensors.torch import save

from bertft.data import synthetic
from bertft.data.readers.spans import SpanTarget, SpanText
from bertft.models.encoder import Encoder
from bertft.probes.edge import driver as edge
from bertft.probes.edge.training import EdgeTraining
from bertft.probes.structural import driver as structural
from bertft.runs.artefacts import read_artefact
from bertft.runs.digests import digest


def by_repr(items) -> str:
    return hashlib.sha256("".join(map(repr, items)).encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def encoder(tiny_model):
    return Encoder.from_pretrained(str(tiny_model))


def never(*_, **__):
    raise AssertionError("trained again")


@pytest.mark.parametrize("sealed", [True, False])  # the oldest files have no digest
def test_structural_probes_of_an_earlier_version_are_loaded(encoder, tmp_path, monkeypatch, sealed):
    sentences = synthetic.sentences(40, seed=1)
    train, dev = sentences[:30], sentences[30:]
    settings = {"rank": 2, "epochs": 1, "resamples": 20, "out": tmp_path}
    rows = structural.structural_probes({"base": encoder}, train, dev, **settings)
    path = tmp_path / "base.safetensors"
    contents = read_artefact(path)
    config = contents.settings | {
        name: by_repr((s.words, s.heads, s.xpos, s.upos) for s in corpus)
        for name, corpus in (("train", train), ("dev", dev))
    }
    record = {"config": config, **contents.record} | ({"sha256": digest(contents.tensors)} if sealed else {})
    path.write_bytes(save(contents.tensors, {"format": "bertft.structural/3", "kind": "linear"}))
    (tmp_path / "base.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf8")
    monkeypatch.setitem(structural.TRAINERS, "linear", never)
    assert structural.structural_probes({"base": encoder}, train, dev, **settings) == rows
    damaged = {**contents.tensors, "distance": contents.tensors["distance"] + 1}
    path.write_bytes(save(damaged, {"format": "bertft.structural/3", "kind": "linear"}))
    if sealed:
        with pytest.raises(AssertionError, match="trained again"):
            structural.structural_probes({"base": encoder}, train, dev, **settings)
    with pytest.raises(AssertionError, match="trained again"):
        structural.structural_probes({"base": encoder}, train[:-1], dev, **settings)


def spans(count: int, seed: int) -> list[SpanText]:
    labels = torch.randint(2, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    return [
        SpanText(str(i), ("dog", "cat"), (SpanTarget((i % 2, 2), (0, 1), ("AB"[label],)),))
        for i, label in enumerate(labels)
    ]


@pytest.mark.parametrize("sealed", [True, False])
def test_edge_probes_of_an_earlier_version_are_loaded(encoder, tmp_path, monkeypatch, sealed):
    train, dev = spans(12, 1), spans(8, 2)
    settings = {"training": EdgeTraining(interval=2, steps=2), "control": False, "resamples": 20, "out": tmp_path}
    result = edge.edge_probes({"base": encoder}, train, dev, **settings)
    path = tmp_path / "base.probes.safetensors"
    contents = read_artefact(path)
    corpora = {
        name: by_repr((t.words, [(s.first, s.second, s.labels) for s in t.targets]) for t in corpus)
        for name, corpus in (("train", train), ("dev", dev))
    }
    text = json.dumps({"config": {**contents.settings, "corpora": corpora}, **contents.record})
    metadata = {"format": "bertft.edge/1", "record": text}
    metadata |= {"sha256": digest(contents.tensors, text)} if sealed else {}
    path.write_bytes(save(contents.tensors, metadata))
    monkeypatch.setattr(edge, "train_heads", never)
    assert edge.edge_probes({"base": encoder}, train, dev, **settings).rows == result.rows
    path.write_bytes(save({**contents.tensors, "counts.hits": contents.tensors["counts.hits"] + 1}, metadata))
    if sealed:
        with pytest.raises(AssertionError, match="trained again"):
            edge.edge_probes({"base": encoder}, train, dev, **settings)
    with pytest.raises(AssertionError, match="trained again"):
        edge.edge_probes({"base": encoder}, train[:-1], dev, **settings)

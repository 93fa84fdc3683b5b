"""Which words moved: against local RSA of all vectors at once, labels, words in context."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform

from bertft.data import synthetic
from bertft.encoder import Encoder
from bertft.errors import BertftError
from bertft.similarity.words import LABELS, words_that_moved

SENTENCES = synthetic.sentences(30, seed=3)


@pytest.fixture(scope="module")
def encoders(tiny_model):
    base, tuned = Encoder.from_pretrained(str(tiny_model)), Encoder.from_pretrained(str(tiny_model))
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in tuned.model.encoder.layer[1].parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=g))
    return base, tuned


def test_equals_brute_force_and_names_the_extremes(encoders):
    base, tuned = encoders
    moved = words_that_moved(base, {"t": tuned}, SENTENCES, ["upos", "depth"], extremes=5, batch_tokens=256)["t"]
    rows = []
    for encoder in encoders:
        parts = [next(encoder.stream([s.words])).vectors for s in SENTENCES]
        rows.append(torch.cat(parts, dim=1).double().numpy())
    upos = np.array([tag for s in SENTENCES for tag in s.upos])
    n = len(upos)
    for layer in (2, 3):
        a, b = (squareform(pdist(t[layer], "cosine")) for t in rows)
        others = ~np.eye(n, dtype=bool)
        local = np.array([np.corrcoef(a[i, others[i]], b[i, others[i]])[0, 1] for i in range(n)])
        table = {row.label: row for row in moved.by["upos"] if row.layer == layer}
        assert set(table) == set(upos) and sum(row.n for row in table.values()) == n
        for tag, row in table.items():
            assert row.value == pytest.approx(local[upos == tag].mean(), abs=1e-6)
            assert row.low is None or row.low < row.value < row.high
        words = [word for s in SENTENCES for word in s.words]
        lowest = [word for word in moved.most if word.layer == layer]
        assert [word.value for word in lowest] == pytest.approx(np.sort(local)[:5], abs=1e-6)
        assert [word.word for word in lowest] == [words[i] for i in np.argsort(local, kind="stable")[:5]]
        assert all(f"[{word.word}]" in word.context for word in moved.least)


def test_labels():
    counts = {word.lower(): 1 for s in SENTENCES for word in s.words}
    for name, label in LABELS.items():
        assert all(len(label(s, counts)) == len(s.words) for s in SENTENCES), name
    sentence = SENTENCES[0]
    depths = LABELS["depth"](sentence, counts)
    assert [depths[i] for i, head in enumerate(sentence.heads) if head == 0] == [0]
    assert all(depths[i] == depths[head - 1] + 1 for i, head in enumerate(sentence.heads) if head and depths[i] < 10)


def test_an_unknown_label(encoders):
    base, tuned = encoders
    with pytest.raises(BertftError, match="by must be some of upos"):
        words_that_moved(base, {"t": tuned}, SENTENCES, ["colour"])

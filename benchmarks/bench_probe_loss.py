"""One training step of the structural distance probe."""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness import OURS, Contender, GemmLimit
from benchmarks.peers import expand_loss, pad, padded_gram_loss
from benchmarks.stimuli import sentence_lengths, tree_distances
from bertft.ops import depth_probe_loss, distance_probe_loss, probe_loss_and_gradient

SIZES = [(384, 128, 20), (768, 64, 20), (768, 128, 20), (768, 768, 20), (768, 128, 64)]
LAYERS = 7


def test_all_layers_step(run_race):
    """Time all layers in one call, as in training, so that they share the cost of the call."""
    d, r, batch = 384, 128, 20
    lengths = sentence_lengths(batch, seed=batch)
    words = int(lengths.sum())
    distances = tree_distances(lengths, seed=batch)
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(LAYERS, words, d, generator=generator)
    weight = (torch.rand(LAYERS, d, r, generator=generator) - 0.5) / 10
    padded = [pad(layer, distances, lengths) for layer in h]

    def layer_by_layer(dtype=torch.float32):
        found = []
        for (vectors, gold), start in zip(padded, weight, strict=True):
            leaf = start.to(dtype, copy=True).requires_grad_()
            padded_gram_loss(vectors.to(dtype), gold.to(dtype), lengths, leaf).backward()
            found.append(leaf.grad)
        return torch.stack(found)

    truth = layer_by_layer(torch.float64)
    contenders = [
        Contender(OURS, lambda: probe_loss_and_gradient(h, weight, distances, None, lengths)[1]),
        Contender("its two GEMMs alone", lambda: [x.T @ (x @ w) for x, w in zip(h, weight, strict=True)], verify=False),
        Contender("PyTorch, padded Gram", layer_by_layer),
    ]
    record = run_race(
        "probe_loss",
        f"distance probe step, {LAYERS} layers, d={d}, r={r}, {batch} sentences, {words} words",
        contenders,
        GemmLimit(LAYERS * 4 * words * d * r),
        error=lambda g: float((g.double() - truth).abs().max() / truth.abs().max()),
        tolerance=1e-5,
        rounds=15,
    )
    assert record.rows


def step(loss, weight):
    """Return the gradient by the public path: a loss, ``.backward()``. ``weight`` is a leaf, as in a training.

    The loss of one layer has one element, so that no ``.sum()`` is needed.
    """
    weight.grad = None
    loss(weight).backward()
    return weight.grad


@pytest.mark.parametrize(("d", "r", "batch"), SIZES)
def test_distance_step(run_race, d, r, batch):
    lengths = sentence_lengths(batch, seed=batch)
    words = int(lengths.sum())
    distances = tree_distances(lengths, seed=batch)
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(words, d, generator=generator)
    weight = ((torch.rand(1, d, r, generator=generator) - 0.5) / 10).requires_grad_()
    vectors, gold = pad(h, distances, lengths)
    fixed, single = weight.detach(), weight.detach()[0].requires_grad_()

    def gemm_pair():
        return h.T @ (h @ fixed[0])

    def wide_loss(w):
        return padded_gram_loss(vectors.double(), gold.double(), lengths, w)

    truth = step(wide_loss, fixed[0].double().requires_grad_())
    contenders = [
        Contender(OURS, lambda: step(lambda w: distance_probe_loss(h, w, distances, lengths), weight)),
        Contender(
            "bertft, with .sum()", lambda: step(lambda w: distance_probe_loss(h, w, distances, lengths).sum(), weight)
        ),
        Contender(
            "bertft, without autograd", lambda: probe_loss_and_gradient(h, fixed, distances, None, lengths)[1][0]
        ),
        Contender("its two GEMMs alone", gemm_pair, verify=False),
        Contender("PyTorch, padded Gram", lambda: step(lambda w: padded_gram_loss(vectors, gold, lengths, w), single)),
        Contender(
            "published way, expanded",
            lambda: step(lambda w: expand_loss(vectors, gold, lengths, w), single),
            rounds=3,
        ),
    ]
    record = run_race(
        "probe_loss",
        f"distance probe step, d={d}, r={r}, {batch} sentences, {words} words",
        contenders,
        GemmLimit(4 * words * d * r),
        error=lambda g: float((g.reshape(truth.shape).double() - truth).abs().max() / truth.abs().max()),
        tolerance=1e-5,
        rounds=21,
    )
    assert record.rows


def test_depth_step(run_race):
    d, r, batch = 768, 128, 20
    lengths = sentence_lengths(batch, seed=batch)
    words = int(lengths.sum())
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(words, d, generator=generator)
    weight = ((torch.rand(1, d, r, generator=generator) - 0.5) / 10).requires_grad_()
    depths = torch.randint(0, 8, (words,), generator=generator)
    share = 1 / lengths.repeat_interleave(lengths) / len(lengths)
    fixed, single = weight.detach(), weight.detach()[0].requires_grad_()

    def plain(w):
        return (((h.to(w.dtype) @ w).square().sum(-1) - depths).abs() * share.to(w.dtype)).sum()

    truth = step(plain, fixed[0].double().requires_grad_())
    contenders = [
        Contender(OURS, lambda: step(lambda w: depth_probe_loss(h, w, depths, lengths), weight)),
        Contender("its two GEMMs alone", lambda: h.T @ (h @ fixed[0]), verify=False),
        Contender("PyTorch", lambda: step(plain, single)),
    ]
    record = run_race(
        "probe_loss",
        f"depth probe step, d={d}, r={r}, {batch} sentences, {words} words",
        contenders,
        GemmLimit(4 * words * d * r),
        error=lambda g: float((g.reshape(truth.shape).double() - truth).abs().max() / truth.abs().max()),
        tolerance=1e-5,
        rounds=21,
    )
    assert record.rows

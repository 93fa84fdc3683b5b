"""One epoch of training of structural and edge probes.

All layers are trained together and timed against the GEMMs alone. The structural epoch is also timed against plain
PyTorch, which trains one layer and one kind at a time, as in the published code, on batches padded in advance.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from benchmarks.harness import OURS, Contender, GemmLimit
from benchmarks.peers import expand_loss, pad, padded_gram_loss
from benchmarks.stimuli import sentence_lengths
from bertft.data.examples import Sentence
from bertft.data.readers.spans import SpanTarget, SpanText
from bertft.probes.edge import training as edge_train
from bertft.probes.edge.head import WIDTH, Heads, all_inputs
from bertft.probes.edge.schedule import Schedule
from bertft.probes.edge.targets import EdgeTargets, SpanBatch
from bertft.probes.structural import training as structural_training
from bertft.probes.vectors import WordVectors, Workspace

LAYERS, DIM = 7, 384


def corpus(sentences: int) -> tuple[WordVectors, list[Sentence]]:
    """Return float16 vectors of sentences of a treebank's lengths, with chains as trees: all trees cost the same."""
    lengths = sentence_lengths(sentences, seed=sentences).tolist()
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(sum(lengths), LAYERS, DIM, generator=generator, dtype=torch.float32).half()
    tags = [("NOUN",) * n for n in lengths]
    trees = [
        Sentence(str(i), ("w",) * n, tuple(range(n)), ("dep",) * n, t, t)
        for i, (n, t) in enumerate(zip(lengths, tags, strict=True))
    ]
    return WordVectors(vectors, lengths), trees


Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def padded_batches(data: WordVectors, trees: structural_training.Trees) -> list[Batch]:
    """Return vectors (L, S, n, D), distances (S, n, n), depths (S, n) and lengths (S,) of the batches in our order."""
    order = np.random.default_rng(0).permutation(len(data.lengths))
    batches = []
    for first in range(0, len(order), structural_training.BATCH):
        members = order[first : first + structural_training.BATCH]
        distances, depths, lengths = trees.batch(members)
        layers = [pad(layer, distances, lengths) for layer in data.batch(members)]
        padded = pad(depths[:, None].float(), distances, lengths)[0].squeeze(2)
        batches.append((torch.stack([v for v, _ in layers]), layers[0][1], padded, lengths))
    return batches


def plain_epoch(batches: list[Batch], rank: int, distance_loss: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Return the weights (2, L, D, R) after one epoch in plain PyTorch."""
    start = (torch.rand(2, 1, DIM, rank, generator=torch.Generator().manual_seed(0)) - 0.5) / 10

    def depth_loss(vectors, depths, lengths, weight):
        error = ((vectors @ weight).pow(2).sum(-1) - depths).abs()
        return (error.sum(1) / lengths).mean()  # padding is 0 on both sides

    found = []
    for kind in range(2):
        for layer in range(LAYERS):
            weight = start[kind, 0].clone().requires_grad_()
            adam = torch.optim.Adam([weight], lr=structural_training.LEARNING_RATE, fused=True)
            for vectors, distances, depths, lengths in batches:
                adam.zero_grad()
                gold = depths if kind else distances
                (depth_loss if kind else distance_loss)(vectors[layer], gold, lengths, weight).backward()
                adam.step()
            found.append(weight.detach())
    return torch.stack(found).view(2, LAYERS, DIM, rank)


@pytest.mark.parametrize("rank", [128])
def test_structural_epoch(run_race, rank):
    data, sentences = corpus(800)
    trees = structural_training.Trees(sentences)
    tiny, few = corpus(2)
    corpora = [structural_training.Corpus(*own) for own in ((data, trees), (tiny, structural_training.Trees(few)))]
    words = len(data.vectors)
    h = data.batch(range(len(sentences)))
    weights = torch.randn(LAYERS, DIM, 2 * rank) / 10
    batches = padded_batches(data, trees)

    def epoch():
        return structural_training.train_probes(*corpora, rank=rank, epochs=1, seed=0).weights

    def products():  # B'h of every word and h'(gradient), distance and depth of all layers
        for first in range(0, words, 400):
            part = h[:, first : first + 400]
            torch.bmm(part.mT, torch.bmm(part, weights))

    truth = plain_epoch(batches, rank, padded_gram_loss)
    run_race(
        "probing",
        f"structural probes, one epoch: {LAYERS} layers x (distance + depth), d={DIM}, r={rank}, {words} words",
        [
            Contender(OURS, epoch),
            Contender("its two GEMMs alone", products, verify=False),
            Contender("PyTorch, padded Gram", lambda: plain_epoch(batches, rank, padded_gram_loss), 3),
            Contender("published way, expanded", lambda: plain_epoch(batches, rank, expand_loss), 1),
        ],
        GemmLimit(4 * words * LAYERS * DIM * 2 * rank),
        error=lambda found: float((found - truth).norm() / truth.norm()),
        tolerance=1e-4,  # float32 in another order flips the sign of an error near 0 now and then
        rounds=5,
    )


def step_products(batch: SpanBatch, probes: int, labels: int, attended: bool) -> list[tuple[int, int, int, int]]:
    """Return the products (heads, rows, inner, columns) of one step, in the cheapest order.

    Each role multiplies its distinct spans by the projection and its half of the hidden layer, one after the other, or,
    for more spans than dimensions, by both as one matrix. Vectors of single words need no gradient. The gradients of
    the mixes and the products within the attention are not counted.
    """
    found = []
    for sizes in batch.sizes:
        u, q = len(sizes), probes + 1  # the probe of two layers has two projections
        if u > DIM:
            found += [(q, DIM, WIDTH, WIDTH)] * 3 + [(q, u, DIM, WIDTH), (q, DIM, u, WIDTH)]
        else:
            found += [(q, u, DIM, WIDTH), (q, DIM, u, WIDTH)] + [(probes, u, WIDTH, WIDTH)] * 2
            found += [(probes, WIDTH, u, WIDTH)]
        found += [(q, u, WIDTH, DIM)] * attended
    n = len(batch.labels)
    return [*found, (probes, n, WIDTH, labels), (probes, WIDTH, n, labels), (probes, n, labels, WIDTH)]


@pytest.mark.parametrize("longest", [1, 8])
def test_edge_epoch(run_race, longest):
    """Time targets of two spans, one for each word.

    The spans are single words, as in dependency labelling, or longer, as in role labelling.
    """
    data, sentences = corpus(160)
    rng = np.random.default_rng(0)
    texts = []
    for s in sentences:
        n = len(s.words)
        spans = [(int(a), int(min(n, a + rng.integers(1, longest + 1)))) for a in rng.integers(0, n, size=2 * n)]
        pairs = [(0, n), *zip(spans[:n], spans[n:], strict=True)][1:]
        targets = tuple(SpanTarget(a, b, (f"l{rng.integers(40)}",)) for a, b in pairs)
        texts.append(SpanText(s.id, s.words, targets))
    targets = EdgeTargets(texts, [f"l{k}" for k in range(40)])
    rows = np.concatenate([data.starts[i] + kept for i, kept in enumerate(targets.kept)])
    vectors = WordVectors(data.vectors[torch.from_numpy(rows)], targets.lengths)
    inputs = all_inputs(LAYERS)
    p, k = len(inputs), len(targets.inventory)
    order = [range(i, min(i + 32, len(texts))) for i in range(0, len(texts), 32)]

    def epoch():
        schedule = Schedule(Heads(inputs, LAYERS, DIM, 2, k, seed=0), 1e-4)
        masks, workspace = torch.Generator().manual_seed(0), Workspace()
        for members in order:
            edge_train.descend(schedule, vectors, targets, members, masks, workspace)

    work = [step_products(targets.batch(members), p, k, longest > 1) for members in order]

    def products():
        for step in work:
            for heads, a, b, c in step:
                torch.bmm(torch.ones(heads, a, b), torch.ones(heads, b, c))

    flops = sum(2 * heads * a * b * c for step in work for heads, a, b, c in step)
    kind = "single words" if longest == 1 else f"spans of 1 to {longest} words"
    run_race(
        "probing",
        f"edge probes, one epoch: {p} inputs of {LAYERS} layers, d={DIM}, {k} labels, {len(targets)} targets, {kind}",
        [Contender(OURS, epoch, verify=False), Contender("its GEMMs alone", products, verify=False)],
        GemmLimit(flops),
        error=lambda _: 0.0,
        tolerance=0.0,
        rounds=3,
    )

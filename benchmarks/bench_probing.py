"""One epoch of training: all layers' structural probes against their two GEMMs, all edge probes against theirs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.harness import OURS, Contender, GemmLimit
from benchmarks.stimuli import sentence_lengths
from bertft.data.examples import Sentence
from bertft.data.spans import SpanTarget, SpanText
from bertft.probes import edge_train, structural_training
from bertft.probes.edge_data import EdgeTargets
from bertft.probes.edge_head import WIDTH, Heads, all_inputs
from bertft.probes.features import WordVectors

LAYERS, DIM = 7, 384


def corpus(sentences: int) -> tuple[WordVectors, list[Sentence]]:
    """float16 vectors of sentences of a treebank's lengths, and chains as their trees: the cost is any tree's."""
    lengths = sentence_lengths(sentences, seed=sentences).tolist()
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(sum(lengths), LAYERS, DIM, generator=generator, dtype=torch.float32).half()
    tags = [("NOUN",) * n for n in lengths]
    trees = [
        Sentence(str(i), ("w",) * n, tuple(range(n)), ("dep",) * n, t, t)
        for i, (n, t) in enumerate(zip(lengths, tags, strict=True))
    ]
    return WordVectors(vectors, lengths), trees


@pytest.mark.parametrize("rank", [128])
def test_structural_epoch(run_race, rank):
    data, sentences = corpus(400)
    trees = structural_training.Trees(sentences)
    tiny, few = corpus(2)
    few_trees = structural_training.Trees(few)
    words = len(data.vectors)
    h = data.vectors.transpose(0, 1).float().contiguous()
    weights = torch.randn(LAYERS, DIM, 2 * rank) / 10

    def epoch():
        return structural_training.train_probes(data, trees, tiny, few_trees, rank=rank, epochs=1, seed=0)

    def products():  # B'h of every word and h'(gradient), distance and depth of all layers
        for first in range(0, words, 400):
            part = h[:, first : first + 400]
            torch.bmm(part.mT, torch.bmm(part, weights))

    run_race(
        "probing",
        f"structural probes, one epoch: {LAYERS} layers x (distance + depth), d={DIM}, r={rank}, {words} words",
        [Contender(OURS, epoch, verify=False), Contender("its two GEMMs alone", products, verify=False)],
        GemmLimit(4 * words * LAYERS * DIM * 2 * rank),
        error=lambda _: 0.0,
        tolerance=0.0,
        rounds=3,
    )


@pytest.mark.parametrize("longest", [1, 8])
def test_edge_epoch(run_race, longest):
    """Two-span targets, one a word: single words as in dependency labelling, or spans as in role labelling."""
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
        schedule = edge_train._Schedule(Heads(inputs, LAYERS, DIM, 2, k, seed=0), 1e-4)
        masks = torch.Generator().manual_seed(0)
        for members in order:
            edge_train._descend(schedule, vectors, targets, members, masks)

    shapes = [(p + 1, DIM, WIDTH)] * 2 + [(p, 2 * WIDTH, WIDTH), (p, WIDTH, k)]
    heads = [torch.randn(s) for s in shapes]
    passes = [2 if longest == 1 else 3] * 2 + [3, 3]  # a single word's vector needs no gradient

    def products():
        for members in order:
            n = int(targets.counts[list(members)].sum())
            for weight, count in zip(heads, passes, strict=True):
                x = torch.ones(len(weight), n, weight.shape[1])
                y = torch.bmm(x, weight)
                torch.bmm(x.mT, y)
                if count == 3:
                    torch.bmm(y, weight.mT)

    flops = sum(2 * len(targets) * c * q * a * b for (q, a, b), c in zip(shapes, passes, strict=True))
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

"""Training over words that are split once.

No GPU is needed: the ops are written anew in PyTorch, from the layout that csrc/cuda/split_across.cuh describes.
"""

from __future__ import annotations

import pytest
import torch

from bertft.data import synthetic
from bertft.errors import BertftError
from bertft.ops import probe_loss_and_gradient, probe_steps
from bertft.probes.structural import split as splitting
from bertft.probes.structural.split import SplitVectors, Watch, keep_batches, split_once
from bertft.probes.structural.training import Corpus, Schedule, Trees, train_probes
from bertft.probes.vectors import WordVectors, Workspace

LAYERS, WIDTH = 3, 24


def corpus(size: int, seed: int, dtype=torch.float16) -> Corpus:
    sentences = synthetic.sentences(size, seed=seed)
    lengths = [len(sentence.words) for sentence in sentences]
    drawn = torch.randn(sum(lengths), LAYERS, WIDTH, generator=torch.Generator().manual_seed(seed))
    drawn *= torch.tensor([1.0, 100.0, 1e-2])[:, None]  # a power of two of each layer's own
    return Corpus(WordVectors(drawn.to(dtype), lengths), Trees(sentences))


def powers(largest):
    return 13 - (torch.frexp(largest.view(torch.float32))[1] - 1)


def probe_words(h):
    layers, words, width = h.shape
    largest = h.float().abs().amax((1, 2)).view(torch.int32)
    padded = torch.zeros(layers, -(-words // 128) * 128, -(-width // 128) * 128, dtype=torch.float64)
    padded[:, :words, :width] = torch.ldexp(h.double(), powers(largest)[:, None, None])
    high = padded.half()
    parts = torch.stack([high, (padded - high.double()).half()], dim=2)
    return parts.unflatten(3, (-1, 32)).transpose(2, 3).contiguous(), largest


def words_again(halves, largest, words, width):
    joined = halves.double().sum(3).flatten(2)[:, :words, :width]
    return torch.ldexp(joined, -powers(largest)[:, None, None]).float()


def probe_plan(lengths):
    return lengths.clone(), torch.zeros(6, dtype=torch.int64)


def probe_step(halves, largest, words, weight, distance_rank, distances, depths, tiles, counts, with_weight, fast):
    h = words_again(halves, largest, words, weight.shape[1])
    golds = (given if given.numel() else None for given in (distances, depths))
    return probe_loss_and_gradient(h, weight, *golds, tiles, distance_rank=distance_rank)


@pytest.fixture
def ops(monkeypatch):
    for op in (probe_words, probe_plan, probe_step):
        monkeypatch.setattr(torch.ops.bertft, op.__name__, op, raising=False)
    monkeypatch.setattr(probe_steps, "serve", lambda h, rank: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 40, 1 << 40))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_batches_hold_the_words_of_their_sentences(ops, dtype):
    vectors, workspace = corpus(40, seed=1, dtype=dtype).vectors, Workspace()
    split = SplitVectors(vectors)
    for sentences, layers in [([7, 2, 30], [0, 1, 2]), ([5], [2]), ([1, 9, 4, 8] * 8, [0, 2])]:
        expected = vectors.batch(sentences, torch.tensor(layers))
        (halves, largest, words), plan = split.batch(sentences, layers, workspace)
        assert words == expected.shape[1] and halves.shape[1] == -(-words // 128) * 128
        assert torch.isfinite(halves).all()
        found = words_again(halves, largest, words, WIDTH)
        tolerance = 0 if dtype == torch.float16 else 2**-22
        assert ((found - expected).abs() <= tolerance * expected.abs()).all()
        assert plan.tiles.tolist() == [int(vectors.lengths[i]) for i in sentences]


def test_training_over_split_words_is_the_same(ops, monkeypatch):
    train, dev = corpus(60, seed=1), corpus(20, seed=2)
    with_gradient = []
    monkeypatch.setattr(
        torch.ops.bertft, "probe_step", lambda *args: with_gradient.append(args[9]) or probe_step(*args), raising=False
    )
    split = train_probes(train, dev, rank=4, epochs=3)
    assert with_gradient == 3 * [True, True, True, False]  # 3 batches to train on, one of dev sentences
    monkeypatch.setattr(probe_steps, "serve", lambda h, rank: False)
    plain = train_probes(train, dev, rank=4, epochs=3)
    assert len(with_gradient) == 12
    assert torch.equal(split.weights, plain.weights) and torch.equal(split.dev_loss, plain.dev_loss)


def test_dev_losses_of_stopped_probes_and_sentences_without_words_are_the_same(ops, monkeypatch):
    """Groups of one kind, of some layers and of both kinds, over dev batches of which one has no word."""
    train, dev = corpus(60, seed=1), corpus(45, seed=2)
    dev.vectors.lengths[20:40] = 0
    dev.vectors.starts[:] = [0, *dev.vectors.lengths.cumsum()]
    dev.trees.distances[20:40] = [dev.trees.distances[0][:0]] * 20
    dev.trees.depths[20:40] = [dev.trees.depths[0][:0]] * 20
    active = [True, True, False, False, True, True]

    def end_epoch(self, epoch, losses):
        self.lowest.copy_(losses)
        self.active = active

    monkeypatch.setattr(Schedule, "end_epoch", end_epoch)
    found = train_probes(train, dev, rank=4, epochs=2)
    monkeypatch.setattr(probe_steps, "serve", lambda h, rank: False)
    plain = train_probes(train, dev, rank=4, epochs=2)
    assert torch.isinf(plain.dev_loss).flatten().tolist() == [not a for a in active]
    assert torch.equal(found.dev_loss, plain.dev_loss)


def test_dev_sentences_are_planned_and_sent_once(ops, monkeypatch):
    train, dev = corpus(20, seed=1), corpus(30, seed=2)
    plans, sendings = [], []
    monkeypatch.setattr(torch.ops.bertft, "probe_plan", lambda n: plans.append(len(n)) or probe_plan(n), raising=False)
    monkeypatch.setattr(splitting, "sent", lambda tensor, device: sendings.append(len(tensor)) or tensor)
    targets = []
    monkeypatch.setattr(Trees, "batch", lambda *args, own=Trees.batch: targets.append(len(args[1])) or own(*args))
    train_probes(train, dev, rank=4, epochs=4)
    assert plans == [20, 10] + 4 * [20] and targets == [20, 10] + 4 * [20]  # those of dev, then one batch an epoch
    assert len(sendings) == 2 + 4 * 2  # tiles of dev; numbers of rows and tiles of each batch


def test_dev_sentences_are_not_kept_where_they_would_not_fit(ops, monkeypatch):
    vectors, trees = corpus(5, seed=1)
    words = int(vectors.lengths.sum())
    size = 4 * LAYERS * (-(-words // 128) * 128) * 128
    for free, fits in ((size + 100, True), (size + 99, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 400))
        assert (keep_batches(vectors, [range(5)], trees.batch, 64) is not None) == fits


def test_words_stay_whole_where_halves_would_not_fit_or_serve(ops, monkeypatch):
    vectors = corpus(5, seed=1).vectors
    assert split_once(vectors, 64) is not None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 10, 1 << 11))
    assert split_once(vectors, 64) is None
    monkeypatch.undo()
    assert split_once(vectors, 64) is None  # the CPU


def test_tensor_cores_serve_ranks_from_64_on(monkeypatch):
    monkeypatch.setattr(probe_steps.tensor_cores, "serve", lambda h: True)
    h = torch.zeros(1, 300, 64)
    assert probe_steps.serve(h, 64) and not probe_steps.serve(h, 63) and not probe_steps.serve(h.double(), 64)


def test_losses_of_an_epoch_on_a_gpu_are_checked_at_its_end():
    watch = Watch()
    watch.add(torch.tensor([float("nan")]))  # of the CPU, where each step is checked
    watch.check()
    watch.total = torch.tensor(float("inf"))
    with pytest.raises(BertftError, match="a training loss of this epoch is not finite"):
        watch.check()
    watch.check()  # of the next epoch

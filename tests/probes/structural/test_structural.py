"""Training of linear structural probes and the driver."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bertft.data import synthetic
from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.probes import vectors as features
from bertft.probes.feature_store import FeatureStore
from bertft.probes.structural import driver as structural
from bertft.probes.structural import training as structural_training
from bertft.probes.structural.driver import structural_probes
from bertft.probes.structural.predicted_trees import predicted_heads
from bertft.probes.structural.training import Corpus, Trees, train_probes
from bertft.probes.structural.trees import control_trees, punctuation
from bertft.probes.vectors import WordVectors, extract


@pytest.fixture(scope="module")
def sentences():
    return synthetic.sentences(90, seed=1)


@pytest.fixture(scope="module")
def encoder(tiny_model):
    return Encoder.from_pretrained(str(tiny_model))


def toy(sentences, layers: int = 2, width: int = 24, seed: int = 0) -> tuple[WordVectors, Trees]:
    """Vectors that encode trees partly: tree coordinates plus noise that grows with the layer."""
    trees = Trees(sentences)
    rng = np.random.default_rng(seed)
    parts = []
    for s, packed in zip(sentences, trees.distances, strict=True):
        n = len(s.words)
        d = packed.reshape(n, n).astype(np.float64)
        parts.append(np.concatenate([d[:, : width - 1], np.zeros((n, max(0, width - 1 - n))), np.ones((n, 1))], 1))
    plain = np.concatenate(parts) / 4
    noisy = np.stack([plain + 0.3 * k * rng.normal(size=plain.shape) for k in range(layers)], axis=1)
    return WordVectors(torch.tensor(noisy, dtype=torch.float32), [len(s.words) for s in sentences]), trees


def published(train, train_trees, dev, dev_trees, layer, kind, rank, epochs, seed):
    """Train one probe on one layer with PyTorch's scheduler and optimiser and a loss for each sentence."""
    generator = torch.Generator().manual_seed(seed)
    init = (torch.rand(2, 1, train.width, rank, generator=generator) - 0.5) / 10
    weight = torch.nn.Parameter(init[kind, 0].clone())
    order = np.random.default_rng(seed)

    def loss_of(data, trees, members):
        total = 0.0
        for i in members:
            h = data.vectors[data.starts[i] : data.starts[i + 1], layer] @ weight
            n = len(h)
            if kind == 0:
                predicted = (h[:, None] - h[None]).square().sum(-1)
                gold = torch.from_numpy(trees.distances[i]).view(n, n)
                total = total + (predicted - gold).abs().sum() / n**2
            else:
                total = total + (h.square().sum(-1) - torch.from_numpy(trees.depths[i])).abs().sum() / n
        return total / len(members)

    optimizer = torch.optim.Adam([weight], lr=1e-3)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0, eps=0)
    best, best_loss, best_epoch = None, float("inf"), -1
    for epoch in range(epochs):
        shuffled = order.permutation(len(train.lengths))
        for first in range(0, len(shuffled), 20):
            optimizer.zero_grad()
            loss_of(train, train_trees, shuffled[first : first + 20]).backward()
            optimizer.step()
        with torch.no_grad():
            loss = float(loss_of(dev, dev_trees, range(len(dev.lengths))))
        rate = optimizer.param_groups[0]["lr"]
        scheduler.step(loss)
        if optimizer.param_groups[0]["lr"] != rate:
            optimizer.state.clear()
        if loss < best_loss - 1e-4:
            best, best_loss, best_epoch = weight.detach().clone(), loss, epoch
        elif epoch - best_epoch > 4:
            break
    return best, best_loss, epoch + 1


def test_all_probes_at_once_equal_each_alone(sentences):
    """The bounds are what rounding does to the reference itself.

    With inputs perturbed by half a unit in the last place, its losses move by no more than 1e-7 and its epochs not at
    all. Adam divides a gradient by its own size, so a gradient that cancels to rounding moves its weight by a full step
    of 1e-3 in either direction; that happens to a few weights early in the training.
    """
    train, train_trees = toy(sentences[:24])
    dev, dev_trees = toy(sentences[24:40], seed=1)
    probes = train_probes(Corpus(train, train_trees), Corpus(dev, dev_trees), rank=4, epochs=40, seed=3)
    for kind in range(2):
        for layer in range(2):
            weight, loss, epochs = published(train, train_trees, dev, dev_trees, layer, kind, 4, 40, 3)
            assert probes.dev_loss[kind, layer].item() == pytest.approx(loss, rel=1e-6)
            assert probes.epochs[kind, layer].item() == epochs
            apart = (probes.weights[kind, layer] - weight).abs()
            assert apart.max() <= 2 * 2e-3 and (apart > 1e-6).float().mean() <= 0.05


def test_schedule_decays_resets_and_stops():
    weights = torch.ones(2, 3, 2)
    schedule = structural_training.Schedule(weights.clone())
    schedule.gradients[0] = 1.0
    losses = [1.0, 0.9, 0.89999, 0.95, 0.9, 0.9, 0.9, 0.9]
    rates = []
    for epoch, loss in enumerate(losses):
        active = list(schedule.active)
        if active[0]:
            schedule.step()
        schedule.end_epoch(epoch, torch.tensor([loss, 1.0 - epoch / 10]))
        rates.append(schedule.rates[0])
    assert rates[:3] == pytest.approx([1e-3, 1e-3, 1e-4])  # 1e-5 is not an improvement
    assert schedule.rates[1] == pytest.approx(1e-3)
    groups = [(group["lr"], len(group["params"])) for group in schedule.optimizer.param_groups]
    assert groups == [(pytest.approx(schedule.rates[0]), 1), (pytest.approx(1e-3), 1)]
    assert schedule.active == [False, True] and schedule.epochs.tolist() == [7, 8]
    assert schedule.lowest[0] == pytest.approx(0.9)
    assert list(schedule.optimizer.state) == [schedule.parts[1]]  # that of the other was reset at its decay
    assert torch.allclose(schedule.best[0], torch.full((3, 2), 1 - 2e-3), atol=1e-6)  # after two full steps
    assert torch.equal(schedule.weights[1], weights[1])


def test_groups_leave_out_stopped_probes():
    assert structural_training.groups_of([True, False, True, False, True, True], 3) == [
        ((0,), [0]),
        ((1,), [1]),
        ((0, 1), [2]),
    ]


def test_two_encoders_have_rows_and_files(sentences, encoder, tmp_path):
    from bertft.models.blocks import reinitialise

    random = Encoder.from_pretrained(encoder.name)
    random.model = reinitialise(random.model, 0) or random.model
    encoders = {"base": encoder, "random": random}
    rows = structural_probes(encoders, sentences[:60], sentences[60:], rank=8, epochs=2, data="toy", out=tmp_path)
    assert len(rows) == 2 * 4 * 4
    assert {r.measure for r in rows} == {"dspr", "nspr", "uuas", "root_accuracy"}
    assert all(r.low <= r.value <= r.high and r.task == "structural" and r.data == "toy" for r in rows)
    assert rows == structural_probes(encoders, sentences[:60], sentences[60:], rank=8, epochs=2, data="toy")
    weights = load_file(tmp_path / "base.safetensors")
    shapes = {k: tuple(v.shape) for k, v in weights.items() if not k.startswith("scores.")}
    assert shapes == {"distance": (4, 32, 8), "depth": (4, 32, 8)}
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "base.conllu", "base.json", "base.safetensors", "random.conllu", "random.json", "random.safetensors",
    ]  # fmt: skip


def test_ranks_control_and_differences(sentences, encoder, tmp_path):
    from bertft.data.readers.conllu import read_conllu
    from bertft.models.blocks import reinitialise

    random = Encoder(reinitialise(encoder.model, 0), encoder.tokenizer, "random")
    settings = {"rank": [2, 4], "epochs": 1, "control": True, "differences": True, "resamples": 40}
    arguments = ({"base": encoder, "random": random}, sentences[:30], sentences[60:])
    rows = structural_probes(*arguments, **settings, out=tmp_path)
    by = {(r.model, r.layer, r.measure): r for r in rows}
    assert len(by) == len(rows) == 2 * 4 * 4 * 2 * 3 + 4 * 4 * 2 * 2
    for rank in (2, 4):
        own = by["base", 2, f"uuas_rank{rank}"].value
        gap = by["base", 2, f"uuas_selectivity_rank{rank}"]
        assert gap.value == pytest.approx(own - by["base", 2, f"control_uuas_rank{rank}"].value)
        difference = by["random", 2, f"uuas_difference_rank{rank}"]
        assert difference.value == pytest.approx(by["random", 2, f"uuas_rank{rank}"].value - own)
        assert difference.low <= difference.value <= difference.high
        assert 0 <= by["random", 2, f"uuas_difference_p_rank{rank}"].value <= 1
    assert structural_probes(*arguments, **settings, out=tmp_path) == rows
    # The trees written are those of the scores, one over the words of each sentence.
    trees = read_conllu(tmp_path / "base.rank4.conllu")
    assert [t.words for t in trees] == [s.words for s in sentences[60:]]
    text = (tmp_path / "base.rank4.conllu").read_text()
    layer = int(re.search(r"# layer = (\d)", text)[1])
    assert max(by["base", k, "uuas_rank4"].value for k in range(4)) == by["base", layer, "uuas_rank4"].value


def test_predicted_trees_are_minimum_spanning_trees():
    from scipy.sparse.csgraph import minimum_spanning_tree
    from scipy.spatial.distance import pdist, squareform

    rng = np.random.default_rng(3)
    for n in (2, 7, 20):
        points, depths = rng.normal(size=(n, 5)), rng.normal(size=n)
        heads = predicted_heads(torch.tensor(points), torch.tensor(depths))
        wanted = zip(*minimum_spanning_tree(squareform(pdist(points, "sqeuclidean"))).nonzero(), strict=True)
        assert {frozenset((i, h - 1)) for i, h in enumerate(heads) if h} == {frozenset(map(int, e)) for e in wanted}
        assert heads.index(0) == depths.argmin() and heads.count(0) == 1


def test_predicted_heads_of_known_points():
    points = torch.tensor([[0.0], [1.0], [2.1], [3.3]])
    assert predicted_heads(points, torch.tensor([3.0, 0.5, 1.0, 2.0])) == [2, 0, 2, 3]
    assert predicted_heads(points[:1], torch.tensor([1.0])) == [0]


def test_the_first_of_equal_depths_is_the_root():
    assert predicted_heads(torch.zeros(3, 2), torch.ones(3)) == [0, 1, 1]
    assert predicted_heads(torch.tensor([[0.0], [4.0], [1.0]]), torch.tensor([2.0, 1.0, 1.0])) == [3, 0, 2]


def test_control_trees_depend_on_the_words_alone(sentences):
    drawn: dict[str, set] = {}
    for s in control_trees(sentences, 5):
        assert s.heads[0] == 0
        for i in range(2, len(s.words)):
            assert s.heads[i] in (1, i)
            drawn.setdefault(s.words[i], set()).add(s.heads[i] == 1)
    assert all(len(v) == 1 for v in drawn.values()) and set.union(*drawn.values()) == {True, False}


def test_a_store_and_a_stream_give_the_same_scores(sentences, encoder, tmp_path):
    """Scores move by no more than the rounding of vectors can make them.

    A float16 vector is off by 2^-11 of its size and so are distances; correlations average such errors out. A pair of
    edges of nearly equal length may change places in a spanning tree; roots are farther apart than that.
    """
    arguments = ({"base": encoder}, sentences[:20], sentences[60:])
    settings = {"rank": 4, "epochs": 1}
    plain = structural_probes(*arguments, **settings)
    assert structural_probes(*arguments, **settings, store=FeatureStore(tmp_path)) == plain
    exact = structural_probes(*arguments, **settings, store=FeatureStore(tmp_path, dtype=torch.float32))
    streamed = structural_probes(*arguments, **settings, store=FeatureStore(stream=True))
    edge = 1 / sum(int((~skip).sum()) - 1 for skip in punctuation(sentences[60:])[0])
    for a, b, c in zip(plain, exact, streamed, strict=True):
        rounding = {"dspr": 2**-11, "nspr": 2**-11, "uuas": 1.01 * edge, "root_accuracy": 0.0}[b.measure]
        assert a.value == pytest.approx(b.value, abs=rounding), (a.layer, a.measure)
        assert c.value == pytest.approx(b.value, abs=min(rounding, 1e-6)), (c.layer, c.measure)


def test_finished_probes_of_equal_settings_are_loaded(sentences, encoder, tmp_path, monkeypatch):
    arguments = ({"base": encoder}, sentences[:40], sentences[60:])
    first = structural_probes(*arguments, rank=4, epochs=1, out=tmp_path)
    assert json.loads((tmp_path / "base.json").read_text())["config"]["punctuation"] in ("xpos", "upos")

    def never(*_, **__):
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setitem(structural.TRAINERS, "linear", never)
        assert structural_probes(*arguments, rank=4, epochs=1, out=tmp_path) == first
        for changed in ({"rank": 5, "epochs": 1}, {"rank": 4, "epochs": 1, "seed": 1}):
            with pytest.raises(AssertionError, match="trained again"):
                structural_probes(*arguments, out=tmp_path, **changed)
        with pytest.raises(AssertionError, match="trained again"):
            structural_probes(arguments[0], sentences[:41], arguments[2], rank=4, epochs=1, out=tmp_path)
        data = bytearray((tmp_path / "base.safetensors").read_bytes())
        data[len(data) // 2] ^= 1
        (tmp_path / "base.safetensors").write_bytes(data)
        with pytest.raises(AssertionError, match="trained again"):
            structural_probes(*arguments, rank=4, epochs=1, out=tmp_path)


def test_vectors_on_disk_equal_those_in_memory_and_are_removed(sentences, encoder, tmp_path, monkeypatch):
    words = [s.words for s in sentences]
    memory = extract(encoder, words)
    monkeypatch.setattr(features, "IN_MEMORY", 0)
    disk = extract(encoder, words, path=tmp_path / "vectors", batch_tokens=300)
    assert (tmp_path / "vectors").stat().st_size == features.size_of(len(memory.vectors), 4, 32)
    assert torch.allclose(memory.vectors.float(), disk.vectors.float(), atol=2e-3)
    for i in (0, 17, 89):
        direct = next(iter(encoder.stream([words[i]]))).vectors.cpu()
        assert torch.allclose(memory.batch([i]).float(), direct, atol=2e-3)
    assert torch.equal(memory.batch([3, 1], torch.tensor([2])), memory.batch([3, 1])[2:3])
    structural_probes({"base": encoder}, sentences[:60], sentences[60:], rank=4, epochs=1, out=tmp_path / "run")
    assert not list((tmp_path / "run").glob(".*"))


def test_bad_corpora_and_settings_are_refused(sentences, encoder):
    with pytest.raises(BertftError, match="train has no sentences"):
        structural_probes({"base": encoder}, [], sentences)
    with pytest.raises(BertftError, match="dev has no sentences"):
        structural_probes({"base": encoder}, sentences, [])
    with pytest.raises(BertftError, match="encoders is empty"):
        structural_probes({}, sentences, sentences)
    with pytest.raises(BertftError, match="rank and epochs must be positive"):
        structural_probes({"base": encoder}, sentences[:5], sentences[5:], rank=0)
    with pytest.raises(BertftError, match="float16 or float32"):
        extract(encoder, [["a"]], dtype=torch.bfloat16)

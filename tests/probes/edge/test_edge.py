"""Edge probes: heads, training, scores, controls, driver."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from bertft.data.readers.spans import SpanTarget, SpanText
from bertft.errors import BertftError
from bertft.models.encoder import Encoder
from bertft.probes.edge import control as edge_control
from bertft.probes.edge import driver as edge
from bertft.probes.edge import scores as edge_scores
from bertft.probes.edge.forward import through
from bertft.probes.edge.head import Heads, Input, all_inputs
from bertft.probes.edge.targets import EdgeTargets, label_inventory, with_targets
from bertft.probes.edge.training import Corpus, Counts, EdgeTraining, code_bits, count, dev_f1, train_heads
from bertft.probes.feature_store import FeatureStore
from bertft.probes.vectors import WordVectors

WORDS = ["dog", "cat", "sees", "runs", "the", "a", "big", "old", "of", "."]


def corpus(n: int, seed: int, roles: int = 2, wide: bool = False) -> list[SpanText]:
    """Texts of random words; the label of a target is the kind of the last word of its first span."""
    rng = np.random.default_rng(seed)
    texts = []
    for i in range(n):
        words = tuple(WORDS[k] for k in rng.integers(len(WORDS), size=rng.integers(3, 9)))
        targets = []
        for _ in range(rng.integers(1, 4)):
            spans = []
            for role in range(2):
                start = int(rng.integers(len(words)))
                longest = 3 if wide or role else 1
                spans.append((start, int(rng.integers(start, min(len(words), start + longest)) + 1)))
            label = "ABC"[WORDS.index(words[spans[0][1] - 1]) % 3]
            targets.append(SpanTarget(spans[0], spans[1] if roles == 2 else None, (label,)))
        texts.append(SpanText(str(i + 1), words, tuple(targets)))
    return texts


def vectors(targets: EdgeTargets, layers: int = 3, width: int = 12, seed: int = 0) -> WordVectors:
    """One random vector for each word type, with noise that grows with the layer."""
    table = np.random.default_rng(5).normal(size=(len(WORDS), width))
    rng = np.random.default_rng(seed)
    rows = np.concatenate(
        [[WORDS.index(t.words[k]) for k in kept] for t, kept in zip(targets.texts, targets.kept, strict=True)]
    )
    stacked = [table[rows] + 0.5 * k * rng.normal(size=(len(rows), width)) for k in range(layers)]
    return WordVectors(torch.tensor(np.stack(stacked, 1), dtype=torch.float32), targets.lengths)


class Published(nn.Module):
    """jiant's head, word by word and target by target: project every word, attend inside the span, classify."""

    def __init__(self, width: int, roles: int, labels: int) -> None:
        super().__init__()
        self.project = nn.ModuleList([nn.Linear(width, 256) for _ in range(roles)])
        self.attend = nn.ModuleList([nn.Linear(256, 1) for _ in range(roles)])
        self.classify = nn.Sequential(
            nn.Linear(256 * roles, 256), nn.Tanh(), nn.LayerNorm(256), nn.Identity(), nn.Linear(256, labels)
        )

    def forward(self, words: torch.Tensor, spans: np.ndarray) -> torch.Tensor:
        rows = []
        for target in spans:
            parts = []
            for role, (start, end) in enumerate(target):
                projected = self.project[role](words[start:end])
                parts.append(self.attend[role](projected).softmax(0).mT @ projected)
            rows.append(torch.cat(parts, -1))
        return self.classify(torch.cat(rows))


def published_of(heads: Heads, probe: int) -> tuple[Published, callable, dict[str, torch.Tensor]]:
    """Return the published head with the parameters of a probe, its input, and the parameters of its mix."""
    where = heads.inputs[probe]
    own = heads.select([probe])
    module = Published(heads.dim * (2 if where.kind == "cat" else 1), heads.roles, own["out"].shape[-1]).double()
    with torch.no_grad():
        for role in range(heads.roles):
            module.project[role].weight.copy_(torch.cat(list(own["project"][:, role])).T)
            module.project[role].bias.copy_(own["bias"][0, role])
            module.attend[role].weight.copy_(own["attend"][0, role][None])
        for linear, name in ((module.classify[0], "hidden"), (module.classify[4], "out")):
            linear.weight.copy_(own[name][0].T)
            linear.bias.copy_(own[f"{name}_bias"][0])
        module.classify[2].weight.copy_(own["norm"][0])
        module.classify[2].bias.copy_(own["shift"][0])

    scalars = {n: own[n][0].double().requires_grad_() for n in ("scalars", "gamma") if where.kind == "mix"}

    def read(x: torch.Tensor) -> torch.Tensor:
        if where.kind == "layer":
            return x[where.layer]
        if where.kind == "cat":
            return torch.cat([x[0], x[where.layer]], -1)
        weights = scalars["scalars"][: where.layer + 1].softmax(0)
        return scalars["gamma"] * sum(w * layer for w, layer in zip(weights, x, strict=False))

    return module, read, scalars


class Dropped(nn.Module):
    """Dropout with a given draw."""

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden * self.mask


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)


def repeated(texts: list[SpanText]) -> list[SpanText]:
    """Each text with all pairs of its spans as targets, so that targets share spans."""
    return [
        dataclasses.replace(
            t, targets=tuple(SpanTarget(a.first, b.second, a.labels) for a in t.targets for b in t.targets)
        )
        for t in texts
    ]


# With 2 dimensions there are more spans than dimensions, which takes the other way to multiply.
@pytest.mark.parametrize(("roles", "shared", "width"), [(1, False, 12), (2, False, 12), (2, True, 12), (2, True, 2)])
def test_every_head_equals_the_published_one(roles, shared, width):
    texts = with_targets(corpus(6, seed=roles, roles=roles, wide=True), "train")
    texts = repeated(texts) if shared else texts
    targets = EdgeTargets(texts, label_inventory(texts))
    data = vectors(targets, width=width)
    heads = Heads(all_inputs(3), 3, width, roles, len(targets.inventory), seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, tensor in heads.tensors.items():  # away from the common start, where all probes are equal
        heads.tensors[name] = tensor + torch.randn(tensor.shape, generator=generator) / 5
    members = [4, 0, 2, 1]
    x, batch = data.batch(members), targets.batch(members)
    own = {name: t.double() for name, t in heads.tensors.items()}
    probes = range(len(heads.inputs))
    dropped = torch.rand(len(batch.labels), 256, generator=generator, dtype=torch.float64)
    passed = heads.passed(own, probes, x.double(), batch, dropped, learn=True)
    logits = passed.logits
    upstream = torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    found = passed.backward(upstream.clone())
    offsets = np.cumsum([0, *(targets.lengths[s] for s in members)])
    spans = np.concatenate([targets.spans[s] + o for s, o in zip(members, offsets, strict=False)])
    for p in probes:
        module, read, scalars = published_of(heads, p)
        module.classify[3] = Dropped(dropped)
        wanted = module(read(x.double()), spans)
        torch.testing.assert_close(logits[p], wanted, rtol=1e-9, atol=1e-9)
        (wanted * upstream[p]).sum().backward()
        for role in range(roles):
            slope = torch.cat(list(found["project"][heads.rows("project", p), role]))
            close(slope.T, module.project[role].weight.grad)
            close(found["bias"][p, role], module.project[role].bias.grad)
            close(found["attend"][p, role], module.attend[role].weight.grad[0])
        for linear, name in ((module.classify[0], "hidden"), (module.classify[4], "out")):
            close(found[name][p].T, linear.weight.grad)
            close(found[f"{name}_bias"][p], linear.bias.grad)
        close(found["norm"][p], module.classify[2].weight.grad)
        close(found["shift"][p], module.classify[2].bias.grad)
        for name, leaf in scalars.items():
            close(found[name][heads.rows(name, p)][0], leaf.grad)
    some = [1, 3, 5]
    chosen, direct = heads.select(some, own), through(heads.select(some, own), heads.owner(some))
    for settings in ({}, {"through": direct}):
        alone = heads.passed(chosen, some, x.double(), batch, dropped, **settings).logits
        torch.testing.assert_close(alone, logits[some], rtol=1e-12, atol=1e-12)


def test_shared_spans_are_numbered_once():
    pairs = [((0, 2), (4, 5)), ((3, 4), (4, 5)), ((0, 2), (2, 4))]
    text = SpanText("1", tuple("abcde"), tuple(SpanTarget(*pair, ("x",)) for pair in pairs))
    batch = EdgeTargets([text, text], ["x"]).batch([1, 0])
    assert [t.tolist() for t in batch.sizes] == [[2, 1] * 2, [2, 1] * 2]
    assert batch.tokens[0].tolist() == [0, 1, 3, 5, 6, 8] and batch.tokens[1].tolist() == [2, 3, 4, 7, 8, 9]
    assert [t.tolist() for t in batch.which] == [[0, 1, 0, 2, 3, 2], [1, 1, 0, 3, 3, 2]]


def test_words_outside_all_spans_are_left_out():
    text = SpanText("1", tuple("abcdef"), (SpanTarget((1, 3), (4, 5), ("x",)), SpanTarget((2, 3), (2, 3), ("y",))))
    targets = EdgeTargets([text], ["x", "y"])
    assert targets.kept[0].tolist() == [1, 2, 4] and targets.spans[0].tolist() == [[[0, 2], [2, 3]], [[1, 2], [1, 2]]]
    batch = targets.batch([0])
    assert batch.which == [None, None]
    assert [t.tolist() for t in batch.tokens] == [[0, 1, 1], [2, 1]] and batch.labels.tolist() == [[1, 0], [0, 1]]


def test_all_probes_at_once_equal_each_alone():
    texts, held = with_targets(corpus(40, seed=1), "train"), with_targets(corpus(20, seed=2), "dev")
    targets = EdgeTargets(texts, ["A", "B", "C"])
    dev = EdgeTargets(held, ["A", "B", "C"])
    corpora = Corpus(vectors(targets), targets), Corpus(vectors(dev, seed=1), dev)
    config = EdgeTraining(learning_rate=1e-3, batch=8, interval=5, steps=40, seed=3)
    together = train_heads(all_inputs(3), *corpora, config)
    for p, where in enumerate(together.heads.inputs):
        alone = train_heads([where], *corpora, config)
        own = together.heads.select([p])
        for name, tensor in alone.heads.tensors.items():
            torch.testing.assert_close(own[name], tensor, rtol=1e-3, atol=1e-4)
        assert alone.dev_score[0] == pytest.approx(together.dev_score[p], abs=0.03)
    assert together.dev_score[0] > 0.95  # without noise the label is linear in the vector


def test_dev_f1_equals_that_of_the_counts():
    targets = EdgeTargets(with_targets(corpus(130, seed=2), "dev"), ["A", "B"])  # "C" is unseen
    data = vectors(targets)
    heads = Heads(all_inputs(3), 3, 12, 2, 2, seed=0)
    chosen = [0, 1, 3, 4, 5]
    counts = count(heads, chosen, data, targets)
    wanted = edge_scores.micro_f1(counts, np.ones((1, len(targets.texts))))[:, 0]
    assert dev_f1(heads, chosen, data, targets).tolist() == wanted.tolist()
    assert len(set(wanted)) > 1 and int(targets.unseen_per_text.sum()) > 0


# Scores ------------------------------------------------------------------------------------------------------------


def test_scores_equal_those_by_hand():
    hits = torch.tensor([[[1.0, 0], [2, 1]]])
    predicted = torch.tensor([[[2.0, 0], [2, 1]]])
    gold = torch.tensor([[1.0, 1], [3, 1]])
    counts = Counts(hits, predicted, gold, torch.tensor([0, 1]))
    weights = np.array([[1.0, 1], [2, 0]])
    assert edge_scores.micro_f1(counts, weights).tolist() == [[8 / (5 + 6 + 1), 4 / (4 + 4)]]
    assert edge_scores.label_f1(counts, 0, weights).tolist() == [[6 / 8, 4 / 6]]


def test_expected_layer_equals_that_by_hand():
    inputs = [Input("layer", 0), Input("layer", 1), Input("mix", 1), Input("mix", 2)]
    scores = np.array([[0.5], [0.9], [0.6], [0.9]])
    assert edge_scores.expected_layer(inputs, scores)[0] == pytest.approx((1 * 0.1 + 2 * 0.3) / 0.4)
    assert edge_scores.expected_layer(inputs, np.array([[0.9], [0.9], [0.6], [0.5]])) is None


def test_unseen_labels_count_as_missed():
    text = SpanText("1", ("a", "b"), (SpanTarget((0, 1), None, ("x",)), SpanTarget((1, 2), None, ("new", "old"))))
    targets = EdgeTargets([text, text], ["x", "z"])
    assert targets.unseen == {"new": 2, "old": 2} and targets.unseen_per_text.tolist() == [2, 2]
    counts = Counts(
        torch.tensor([[[1.0, 0], [1, 0]]]), torch.tensor([[[1.0, 0], [1, 0]]]),
        torch.tensor([[1.0, 0], [1, 0]]), torch.tensor([1, 1]),
    )  # fmt: skip
    assert edge_scores.micro_f1(counts, np.ones((1, 2))).tolist() == [[2 * 2 / (2 + 4)]]
    assert "new (2)" in edge.notes_of(targets, on_dev=False)[0]


# Controls ----------------------------------------------------------------------------------------------------------


def test_control_labels_depend_on_the_word_type_alone():
    texts, other = corpus(60, seed=1), corpus(30, seed=9)
    drawn: dict[str, set] = {}
    for text in [*edge_control.control_labels(texts, texts, 3), *edge_control.control_labels(other, texts, 3)]:
        for target in text.targets:
            drawn.setdefault(text.words[target.first[1] - 1], set()).add(target.labels)
    assert set(drawn) == set(WORDS) and all(len(labels) == 1 for labels in drawn.values())
    assert len(set.union(*drawn.values())) > 1
    assert edge_control.control_labels(texts, texts, 3) != edge_control.control_labels(texts, texts, 4)


def test_the_code_of_an_untrained_probe_is_the_uniform_one(monkeypatch):
    texts = with_targets(corpus(40, seed=1), "train")
    targets = EdgeTargets(texts, ["A", "B", "C"])
    data = Corpus(vectors(targets), targets)
    inputs = [Input("layer", 0)]

    class Untrained:
        heads = Heads(inputs, 3, 12, 2, 3, seed=0)

    for name in ("out", "out_bias"):
        Untrained.heads.tensors[name].zero_()
    with monkeypatch.context() as patch:
        patch.setattr(edge_control, "train_heads", lambda *_, **__: Untrained)
        code = edge_control.online_code(inputs, data, data, EdgeTraining())
    assert code.uniform == pytest.approx(len(targets) * math.log2(3)) and code.bits[0] == pytest.approx(code.uniform)
    assert code_bits(Untrained.heads, [0], *data)[0] == pytest.approx(len(targets) * math.log2(3))
    config = EdgeTraining(learning_rate=2e-3, batch=8, interval=10, steps=40)
    code = edge_control.online_code([Input("layer", 0), Input("layer", 2)], data, data, config)
    assert code.compression[0] > max(1.0, code.compression[1])  # noise takes bits


# The driver --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder(tiny_model):
    return Encoder.from_pretrained(str(tiny_model))


FAST = EdgeTraining(learning_rate=1e-3, batch=8, interval=4, steps=8)


def test_two_encoders_have_all_rows_and_finished_probes_are_loaded(encoder, tmp_path, monkeypatch):
    from bertft.models.blocks import reinitialise

    random = Encoder(reinitialise(encoder.model, 0), encoder.tokenizer, "random")
    encoders = {"base": encoder, "random": random}
    arguments = (encoders, corpus(12, 1), corpus(6, 2), corpus(8, 3))
    settings = {"data": "toy", "training": FAST, "code_length": True, "resamples": 50}
    result = edge.edge_probes(*arguments, **settings, out=tmp_path)
    measures = {row.measure for row in result.rows}
    for name in ("micro_f1", "control_micro_f1", "selectivity", "description_bits", "compression"):
        assert {name, f"mix_{name}", f"cat_{name}"} <= measures
    assert {"expected_layer", "centre_of_gravity", "micro_f1_difference", "micro_f1_difference_p"} <= measures | {
        "expected_layer"  # left out if the full mix is no better than layer 0
    }
    assert all(row.low <= row.value <= row.high for row in result.rows if row.low is not None)
    assert len({row.key for row in result.rows}) == len(result.rows)
    by = {(r.model, r.layer, r.measure): r.value for r in result.rows}
    assert by["base", 2, "selectivity"] == pytest.approx(by["base", 2, "micro_f1"] - by["base", 2, "control_micro_f1"])
    assert by["random", 2, "micro_f1_difference"] == pytest.approx(
        by["random", 2, "micro_f1"] - by["base", 2, "micro_f1"]
    )
    assert {row.measure for row in result.labels} >= {"f1[A]", "mix_f1[B]"}
    limits = [
        f"{name}, {part}: 8 of 8 probes reached the limit of 8 steps"
        for name in encoders
        for part in ("probes", "control")
    ]
    assert [note.split(" and ")[0] for note in result.notes] == limits

    def never(*_, **__):
        raise AssertionError("trained again")

    assert edge.edge_probes(*arguments, **settings).rows == result.rows  # the same seed gives the same numbers
    with monkeypatch.context() as patch:
        patch.setattr(edge, "train_heads", never)
        again = edge.edge_probes(*arguments, **settings, out=tmp_path)
        assert again.rows == result.rows and again.labels == result.labels
        with pytest.raises(AssertionError, match="trained again"):
            edge.edge_probes(encoders, corpus(13, 1), *arguments[2:], **settings, out=tmp_path)
        part = next(tmp_path.glob("base.*.safetensors"))
        data = bytearray(part.read_bytes())
        data[len(data) // 2] ^= 1
        part.write_bytes(data)
        with pytest.raises(AssertionError, match="trained again"):
            edge.edge_probes(*arguments, **settings, out=tmp_path)


def test_coreference_has_micro_f1_and_class_1_f1(encoder):
    def binary(texts):
        return [
            SpanText(
                t.id, t.words, tuple(SpanTarget(s.first, s.second, ("01"[s.labels == ("A",)],)) for s in t.targets)
            )
            for t in texts
        ]

    arguments = ({"base": encoder}, binary(corpus(20, 1)), binary(corpus(10, 2)))
    result = edge.edge_probes(*arguments, training=FAST)
    names = ("micro_f1", "class_1_f1", "control_class_1_f1", "class_1_selectivity", "selectivity")
    assert {f"{kind}{name}" for kind in ("", "mix_", "cat_") for name in names} <= {row.measure for row in result.rows}
    by = {(row.layer, row.measure): row for row in result.rows}
    for layer in range(4):
        real, control, gap = (by[layer, name].value for name in names[1:4])
        assert gap == pytest.approx(real - control, abs=1e-12)
        assert by[layer, "class_1_selectivity"].low is not None
    result = edge.edge_probes(*arguments, training=FAST, control=False)
    measures = {row.measure for row in result.rows}
    assert "class_1_f1" in measures and not [name for name in measures if "selectivity" in name or "control" in name]
    assert "dev data" in result.notes[0]


def test_bad_corpora_and_settings_are_refused(encoder):
    texts = corpus(10, 1)
    empty = [SpanText("1", ("a",), ())]
    with pytest.raises(BertftError, match="at least 2 texts with targets in the training data, found 0"):
        edge.edge_probes({"base": encoder}, empty, texts)
    with pytest.raises(BertftError, match="the dev data has targets of 1 span"):
        edge.edge_probes({"base": encoder}, texts, corpus(5, 2, roles=1))
    with pytest.raises(BertftError, match="encoders is empty"):
        edge.edge_probes({}, texts, texts)
    with pytest.raises(BertftError, match="learning_rate must be positive, found 0"):
        EdgeTraining(learning_rate=0)
    unlabelled = [SpanText("1", ("a",), (SpanTarget((0, 1), (0, 1), ()),))] * 2
    with pytest.raises(BertftError, match="have no labels"):
        edge.edge_probes({"base": encoder}, unlabelled, texts)


def test_a_text_longer_than_the_window_is_refused_or_split(encoder):
    long = [SpanText("7", ("dog",) * 200, (SpanTarget((150, 152), (0, 1), ("A",)),))]
    texts = [*corpus(10, 1), *long]
    with pytest.raises(BertftError, match=r"sentence 7 of the train data .* has .* word pieces .* at most 128"):
        edge.edge_probes({"base": encoder}, texts, corpus(5, 2), training=FAST, control=False)
    result = edge.edge_probes(
        {"base": encoder}, texts, corpus(5, 2), training=FAST, control=False, store=FeatureStore(window="split")
    )
    assert any(row.measure == "micro_f1" for row in result.rows)

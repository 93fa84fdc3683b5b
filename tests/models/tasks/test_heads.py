"""Heads of tasks: their layers, first weights and losses, against the formulas of their papers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from bertft.data.examples import Pair, Sentence
from bertft.models.tasks import get_task, names
from bertft.models.tasks.base import Score, TaskModel, predict
from bertft.models.tasks.dependency import Biaffine, DependencyHead
from bertft.models.tasks.nli import NliHead, majority_accuracy
from bertft.models.tasks.pos import TASK as POS
from bertft.models.tasks.pos import TagHead
from bertft.models.tasks.qa import QaHead

HIDDEN = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "kind", "select", "max_length"),
    [
        ("dep", "dep", "las_conll18", 512),
        ("mnli", "nli", "accuracy", 128),
        ("pos", "dep", "accuracy", 512),
        ("squad", "qa", "f1", 384),
    ],
)
def test_tasks_have_their_data_measure_and_window(name, kind, select, max_length):
    task = get_task(name)
    assert (task.name, task.kind, task.select, task.max_length) == (name, kind, select, max_length)
    assert name in names()


def test_first_weights_have_the_published_spread():
    torch.manual_seed(0)
    for head in (QaHead(4000).score, NliHead(4000, "abc", has_pooler=True).classify):
        assert float(head.weight.detach().std()) == pytest.approx(0.02, rel=0.05) and not head.bias.any()
    parser = DependencyHead(4000, ["root", "nsubj"])
    assert float(parser.root.detach().std()) == pytest.approx(0.02, rel=0.05) and parser.root.shape == (4000,)
    assert QaHead(6).score.weight.shape == (2, 6) and NliHead(6, "abc", has_pooler=True).classify.weight.shape == (3, 6)
    assert parser.root_label == 0 and DependencyHead(4, ["nsubj"]).root_label is None


def test_a_parser_has_projections_of_words_with_dropout():
    parser = DependencyHead(6, ["root", "nsubj", "obj"])
    for projection, width in ((parser.arc_head, 500), (parser.label_dependent, 128)):
        linear, activation, dropout = projection
        assert linear.weight.shape == (width, 6) and activation.negative_slope == 0.1 and dropout.p == 0.33
    assert parser.arc.weight.shape == (1, 501, 501) and parser.label.weight.shape == (3, 129, 129)
    assert (
        parser.dropout.p == 0.33 and TagHead(6, ["a"]).dropout.p == NliHead(6, "ab", has_pooler=True).dropout.p == 0.1
    )


def test_biaffine_forms_equal_those_by_hand():
    form = Biaffine(3, 2)
    nn.init.normal_(form.weight)
    x, y = torch.randn(2, 4, 3), torch.randn(2, 5, 3)
    one = lambda row: torch.cat([row, torch.ones(1)])
    pairs = form.pairs(x, y)
    assert pairs.shape == (2, 4, 5)
    torch.testing.assert_close(pairs[1, 2, 3], one(x[1, 2]) @ form.weight[0] @ one(y[1, 3]))
    matched = form.matched(x[0], y[0, :4])
    for r in (0, 1):
        torch.testing.assert_close(matched[3, r], one(x[0, 3]) @ form.weight[r] @ one(y[0, 3]))


def test_a_tagger_averages_known_words_of_all_sentences():
    """Word 0 is the mean of pieces 1 and 2 of the first text, word 1 its piece 3; the second text has one word."""
    head = TagHead(6, ["A", "B", "C"]).eval()
    batch = {"pieces": torch.tensor([1, 2, 3, 6]), "offsets": torch.tensor([0, 2, 3]), "lengths": torch.tensor([2, 1])}
    words = torch.stack([HIDDEN[0, 1:3].mean(0), HIDDEN[0, 3], HIDDEN[1, 1]])
    scores = (words @ head.classify.weight.T + head.classify.bias).log_softmax(1)
    for tags in ([2, 0, 1], [2, -100, 1], [-100, -100, 0]):
        known = [(word, tag) for word, tag in enumerate(tags) if tag >= 0]
        found = head((HIDDEN,), tags=torch.tensor(tags), **batch)["loss"]
        torch.testing.assert_close(found, -sum(scores[place] for place in known) / len(known))
    assert head((HIDDEN,), tags=torch.full((3,), -100), **batch)["loss"] == 0
    best = ["ABC"[k] for k in scores.argmax(1).tolist()]
    assert head.predict((HIDDEN,), **batch) == [tuple(best[:2]), tuple(best[2:])]


def test_accuracy_of_tags_counts_words():
    gold = [Sentence("1", ("a", "b", "c"), (), (), ("X", "Y", "X"), ()), Sentence("2", ("d",), (), (), ("X",), ())]
    score = POS.score(gold, [("X", "X", "X"), ("Y",)])["accuracy"]
    assert (score.numerators.tolist(), score.denominators.tolist(), score.value) == ([2, 0], [3, 1], 0.5)
    assert POS.spec(gold) == {"tags": ["X", "Y"]}


@pytest.mark.parametrize("has_pooler", [True, False])
def test_a_classifier_reads_the_pooler_or_the_first_piece(has_pooler):
    head = NliHead(6, ["e", "n", "c"], has_pooler=has_pooler).eval()
    nn.init.normal_(head.classify.weight)
    output = SimpleNamespace(pooler_output=HIDDEN[:, 4])
    if not has_pooler:
        output = (HIDDEN,)
        dense = head.pool[0]
    pooled = HIDDEN[:, 4] if has_pooler else (HIDDEN[:, 0] @ dense.weight.T + dense.bias).tanh()
    scores = (pooled @ head.classify.weight.T + head.classify.bias).log_softmax(1)
    loss = head(output, labels=torch.tensor([2, 0]))["loss"]
    torch.testing.assert_close(loss, -(scores[0, 2] + scores[1, 0]) / 2)
    assert head.predict(output) == [["e", "n", "c"][k] for k in scores.argmax(1).tolist()]
    assert head.uses_pooler == has_pooler


def test_the_most_frequent_label_is_the_baseline():
    pairs = [Pair("p", "", "", label) for label in ("neutral", "entailment", "neutral", "contradiction", "neutral")]
    assert majority_accuracy(pairs) == 0.6 and majority_accuracy(pairs[:1]) == 1


def test_a_score_is_a_ratio_of_sums():
    assert Score(np.array([1.0, 2.0]), np.array([4.0, 2.0])).value == 0.5
    assert Score(np.array([0.0]), np.array([0.0])).value == 0
    assert Score(np.array([0.1]), np.array([0.2])).value == pytest.approx(0.5)


class _Counting(nn.Module):
    """An encoder that notes whether it trains, and the inputs it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.frozen_part = nn.Dropout(0.5)
        self.seen: list[tuple[bool, tuple[str, ...]]] = []

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor]:
        self.seen.append((self.training, tuple(inputs)))
        return (inputs["input_ids"].float(),)


class _Sums(nn.Module):
    """A head that predicts the sum of each text's ids and its own tensor."""

    def predict(self, output, *, own):
        return (output[0].sum(1) + own).tolist()


@pytest.mark.parametrize("training", [True, False])
def test_predictions_are_in_order_and_the_mode_comes_back(training):
    encoder = _Counting()
    model = TaskModel(encoder, _Sums(), frozen=[encoder.frozen_part]).train(training)
    assert not encoder.frozen_part.training and encoder.training == training
    texts = [[1] * n for n in (5, 2, 9, 1, 3)]

    class Task:
        @staticmethod
        def collate(features, tokenizer):
            width = max(map(len, features))
            ids = torch.tensor([feature + [0] * (width - len(feature)) for feature in features])
            return {"input_ids": ids, "attention_mask": (ids > 0).long(), "own": torch.tensor([100] * len(features))}

    step = SimpleNamespace(done=[], advance=lambda n: step.done.append(n))
    assert predict(Task(), model, None, texts, batch_tokens=10, step=step) == [105, 102, 109, 101, 103]
    assert sum(step.done) == 5 and len(step.done) > 1
    assert set(encoder.seen) == {(False, ("input_ids", "attention_mask"))}
    assert model.training == training and not TaskModel.accepts_loss_kwargs

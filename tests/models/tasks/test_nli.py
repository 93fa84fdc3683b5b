"""Natural language inference: features, head and score."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bertft.data import synthetic
from bertft.data.examples import Pair
from bertft.errors import BertftError
from bertft.models.loading import load_pretrained
from bertft.models.tasks.base import TaskModel, Window, predict
from bertft.models.tasks.nli import TASK, majority_accuracy


@pytest.fixture(scope="module")
def loaded(tiny_model: Path):
    return load_pretrained(str(tiny_model))


def test_prediction_equals_the_plain_classifier(loaded):
    model, tokenizer = loaded
    pairs = synthetic.pairs(12, seed=1)
    torch.manual_seed(0)
    whole = TaskModel(model, TASK.head(model, TASK.spec(pairs))).eval()
    torch.nn.init.normal_(whole.head.classify.weight)
    features = TASK.features(tokenizer, pairs, TASK.spec(pairs), Window(128), training=False)
    found = predict(TASK, whole, tokenizer, features, batch_tokens=200)
    for pair, label in zip(pairs, found, strict=True):
        with torch.no_grad():
            pooled = model(**tokenizer(pair.premise, pair.hypothesis, return_tensors="pt")).pooler_output
            scores = whole.head.classify(pooled)[0]
        assert label == ["entailment", "neutral", "contradiction"][int(scores.argmax())]
    assert whole.head.uses_pooler and whole.head.pool is None


def test_a_model_without_pooler_gets_one(loaded):
    class Bare(torch.nn.Module):
        config = loaded[0].config
        pooler = None

    head = TASK.head(Bare(), TASK.spec([]))
    hidden = torch.randn(2, 5, 32)
    loss = head((hidden,), labels=torch.tensor([0, 2]))["loss"]
    assert head.pool is not None and loss.isfinite() and not head.uses_pooler


def test_long_pairs_lose_the_end_of_the_longer_text(loaded):
    long = Pair("p", "the cat " * 100, "a b c", "neutral")
    with pytest.warns(RuntimeWarning, match="mnli: 1 of 1 pairs are longer than 40 pieces"):
        (feature,) = TASK.features(loaded[1], [long], TASK.spec([]), Window(40), training=True)
    assert len(feature) == 40
    assert loaded[1].decode(feature.inputs["input_ids"]).endswith("a b c [SEP]")
    with pytest.raises(BertftError, match="max_length must be at least 5 for text pairs, found 4"):
        TASK.features(loaded[1], [long], TASK.spec([]), Window(4), training=True)
    (shortest,) = TASK.features(loaded[1], [Pair("p", "a", "b", "neutral")], TASK.spec([]), Window(5), training=True)
    assert len(shortest) == 5


def test_accuracy_and_majority():
    pairs = [
        Pair(str(i), "a", "b", label) for i, label in enumerate(["neutral", "neutral", "entailment", "contradiction"])
    ]
    assert TASK.score(pairs, ["neutral", "entailment", "entailment", "neutral"])["accuracy"].value == 0.5
    assert majority_accuracy(pairs) == 0.5

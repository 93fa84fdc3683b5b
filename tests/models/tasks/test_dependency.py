"""The parser's features, scores and tree decoding, and the attachment scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bertft.data import synthetic
from bertft.data.examples import Sentence
from bertft.errors import BertftError
from bertft.models.blocks import load_pretrained
from bertft.models.tasks.arborescence import is_single_root_tree
from bertft.models.tasks.base import Score, TaskModel, Window, predict
from bertft.models.tasks.dependency import TASK, Biaffine, Parse, attachment_scores


@pytest.fixture(scope="module")
def parser(tiny_model: Path):
    model, tokenizer = load_pretrained(str(tiny_model))
    sentences = synthetic.sentences(30, seed=5)
    spec = TASK.spec(sentences)
    torch.manual_seed(0)
    whole = TaskModel(model, TASK.head(model, spec)).eval()
    for biaffine in (whole.head.arc, whole.head.label):
        torch.nn.init.normal_(biaffine.weight, std=0.3)
    return whole, tokenizer, sentences, spec


def test_biaffine_forms():
    torch.manual_seed(0)
    form = Biaffine(3, 4)
    torch.nn.init.normal_(form.weight)
    x, y = torch.randn(5, 3), torch.randn(5, 3)
    x1, y1 = (torch.cat([t, torch.ones(5, 1)], 1) for t in (x, y))
    expected = torch.stack([(x1 @ form.weight[r] * y1).sum(1) for r in range(4)], 1)
    torch.testing.assert_close(form.matched(x, y), expected)
    single = Biaffine(3, 1)
    torch.nn.init.normal_(single.weight)
    torch.testing.assert_close(single.pairs(x[None], y[None])[0], x1 @ single.weight[0] @ y1.T)


def test_a_sentence_scores_the_same_alone_and_in_a_batch(parser):
    whole, tokenizer, sentences, spec = parser
    features = TASK.features(tokenizer, sentences, spec, Window(128), training=False)
    together = predict(TASK, whole, tokenizer, features, batch_tokens=600)
    alone = predict(TASK, whole, tokenizer, features, batch_tokens=1)
    assert together == alone
    for sentence, parse in zip(sentences, together, strict=True):
        assert len(parse.heads) == len(parse.relations) == len(sentence.words)
        assert is_single_root_tree(np.array(parse.heads))
        assert [r == "root" for r in parse.relations] == [h == 0 for h in parse.heads]


def test_the_loss_by_hand(parser):
    whole, tokenizer, sentences, spec = parser
    few = sentences[:3]
    batch = TASK.collate(TASK.features(tokenizer, few, spec, Window(128), training=True), tokenizer)
    with torch.no_grad():
        loss = whole(**batch)["loss"]
        arcs, labels, count = 0.0, 0.0, 0
        head = whole.head
        for sentence in few:
            one = TASK.collate(TASK.features(tokenizer, [sentence], spec, Window(128), training=True), tokenizer)
            output, rest = whole.encode(one)
            words = head._words(output, rest["pieces"], rest["offsets"])
            n = len(sentence.words)
            scores = head.arc.pairs(head.arc_dependent(words)[None, 1:], head.arc_head(words)[None])[0]
            scores[torch.arange(n), torch.arange(1, n + 1)] = -torch.inf
            gold = torch.tensor(sentence.heads)
            arcs -= scores.log_softmax(1)[torch.arange(n), gold].sum()
            chosen = head.label.matched(head.label_dependent(words[1:]), head.label_head(words[gold]))
            number = torch.tensor([spec["relations"].index(r) for r in sentence.relations])
            labels -= chosen.log_softmax(1)[torch.arange(n), number].sum()
            count += n
    torch.testing.assert_close(loss, (arcs + labels) / count, rtol=1e-5, atol=1e-5)


def test_unknown_relations_are_skipped_by_the_loss_and_wrong_in_the_score(parser):
    whole, tokenizer, sentences, _ = parser
    spec = {"relations": ["root"]}
    torch.manual_seed(0)
    model = TaskModel(whole.encoder, TASK.head(whole.encoder, spec)).eval()
    features = TASK.features(tokenizer, sentences[:4], spec, Window(128), training=True)
    assert model(**TASK.collate(features, tokenizer))["loss"].isfinite()


def test_a_sentence_longer_than_the_window_is_named(parser):
    _, tokenizer, sentences, spec = parser
    with pytest.raises(BertftError, match=sentences[0].id):
        TASK.features(tokenizer, sentences, spec, Window(8), training=True)


def test_attachment_scores_by_hand():
    gold = Sentence(
        "s",
        ("a", "b", "c", "."),
        (2, 0, 2, 2),
        ("nsubj:pass", "root", "obj", "punct"),
        ("X", "X", "X", "PUNCT"),
        ("",) * 4,
    )
    parse = Parse((2, 0, 1, 2), ("nsubj", "root", "obj", "punct"))
    scores = {name: score.value for name, score in attachment_scores([gold], [parse]).items()}
    assert scores == {
        "uas_conll18": 75.0,
        "las_conll18": 75.0,  # nsubj and nsubj:pass are one relation
        "uas_nopunct": pytest.approx(200 / 3),
        "las_nopunct": pytest.approx(100 / 3),  # two relations
    }
    with pytest.raises(BertftError, match="sentence s: expected 4 heads, found 3"):
        attachment_scores([gold], [Parse((2, 0, 1), ("a", "b", "c"))])


def test_interval_covers_and_is_seeded():
    generator = np.random.default_rng(0)
    below = generator.integers(1, 40, 400).astype(float)
    score = Score(generator.binomial(below.astype(int), 0.8).astype(float), below)
    low, high = score.interval(3)
    assert (low, high) == score.interval(3) != score.interval(4)
    expected = 1.96 * np.sqrt(0.8 * 0.2 / below.sum())
    assert low < score.value < high
    assert (high - low) / 2 == pytest.approx(expected, rel=0.15)

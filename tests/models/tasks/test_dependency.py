"""Parser: features, loss, decoding and attachment scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bertft.data import synthetic
from bertft.data.examples import Sentence
from bertft.errors import BertftError
from bertft.models.loading import load_pretrained
from bertft.models.tasks.arborescence import is_single_root_tree
from bertft.models.tasks.base import Score, TaskModel, Window, predict
from bertft.models.tasks.dependency import IGNORED, TASK, Biaffine, Parse, attachment_scores


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


def test_biaffine_scores_equal_their_formula():
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


def test_the_loss_equals_a_computation_by_hand(parser):
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


@pytest.fixture(scope="module")
def two_relations(parser):
    """Provide a parser that knows only ``nsubj`` and ``root``, and the features of four sentences."""
    whole, tokenizer, sentences, _ = parser
    spec = {"relations": ["nsubj", "root"]}
    torch.manual_seed(0)
    model = TaskModel(whole.encoder, TASK.head(whole.encoder, spec)).eval()
    for biaffine in (model.head.arc, model.head.label):
        torch.nn.init.normal_(biaffine.weight, std=0.3)
    return model, TASK.features(tokenizer, sentences[:4], spec, Window(128), training=True)


def test_a_word_may_hang_from_the_root_or_another_word_of_its_sentence(parser):
    whole, tokenizer, sentences, spec = parser
    few = sorted(sentences, key=lambda s: len(s.words))[:: len(sentences) - 1]
    short, long = (len(s.words) for s in few)
    batch = TASK.collate(TASK.features(tokenizer, few, spec, Window(128), training=True), tokenizer)
    with torch.no_grad():
        output, rest = whole.encode(batch)
        scores = whole.head._arc_scores(whole.head._words(output, rest["pieces"], rest["offsets"]), rest["places"])
    assert short < long and scores.shape == (2, long, long + 1)
    for row, n in zip(scores, (short, long), strict=True):
        allowed = [[head <= n and head != word for head in range(long + 1)] for word in range(1, n + 1)]
        assert row[:n].isfinite().tolist() == allowed
        assert row[:, 0].isfinite().all()  # words of padding too, so that no softmax is over nothing


def test_the_loss_skips_unknown_relations(parser, two_relations):
    _, tokenizer, sentences, _ = parser
    model, features = two_relations
    batch = TASK.collate(features, tokenizer)
    with torch.no_grad():
        loss = model(**batch)["loss"]
        arcs = model(**{**batch, "relations": torch.full_like(batch["relations"], IGNORED)})["loss"]
        labels, known = 0.0, 0
        for feature, sentence in zip(features, sentences, strict=False):
            output, rest = model.encode(TASK.collate([feature], tokenizer))
            words = model.head._words(output, rest["pieces"], rest["offsets"])
            dependents, heads = model.head.label_dependent(words[1:]), model.head.label_head(words)
            scores = model.head.label.matched(dependents, heads[torch.tensor(sentence.heads)]).log_softmax(1)
            for word, relation in enumerate(sentence.relations):
                if relation in ("nsubj", "root"):
                    labels -= scores[word, ("nsubj", "root").index(relation)]
                    known += 1
    assert 0 < known < sum(len(sentence.words) for sentence in sentences[:4])
    torch.testing.assert_close(loss - arcs, labels / known, rtol=1e-4, atol=1e-5)


def test_a_batch_of_unknown_relations_has_the_loss_of_its_arcs(parser, two_relations):
    _, tokenizer, *_ = parser
    model, features = two_relations
    batch = TASK.collate(features, tokenizer)
    unknown = {**batch, "relations": torch.full_like(batch["relations"], IGNORED)}
    with torch.no_grad():
        arcs = model(**unknown)["loss"]
        output, rest = model.encode(unknown)
        words = model.head._words(output, rest["pieces"], rest["offsets"])
        scores = model.head._arc_scores(words, rest["places"])
        inside = rest["places"][:, 1:] > 0
        expected = torch.nn.functional.cross_entropy(scores[inside], rest["heads"][inside])
    torch.testing.assert_close(arcs, expected)


def test_the_score_counts_unknown_relations_as_wrong(parser, two_relations):
    _, tokenizer, sentences, _ = parser
    model, features = two_relations
    few = sentences[:4]
    relations = [parse.relations for parse in predict(TASK, model, tokenizer, features)]
    assert {relation for row in relations for relation in row} == {"nsubj", "root"}
    # The best that this parser can do: gold heads, with one of its two relations.
    gold_heads = [Parse(s.heads, tuple("root" if head == 0 else "nsubj" for head in s.heads)) for s in few]
    known = sum(relation in ("nsubj", "root") for s in few for relation in s.relations)
    words = sum(len(s.words) for s in few)
    score = TASK.score(few, gold_heads)
    assert 0 < known < words
    assert score["uas_conll18"].value == 100.0
    assert score["las_conll18"].value == pytest.approx(100 * known / words)


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
        "las_conll18": 75.0,  # nsubj equals nsubj:pass up to the colon
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

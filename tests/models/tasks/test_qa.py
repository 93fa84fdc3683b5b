"""Question answering: windows, spans and the SQuAD metric."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torchmetrics.text import SQuAD

from bertft.data import synthetic
from bertft.data.examples import Answer, Question
from bertft.errors import BertftError
from bertft.models.loading import load_pretrained
from bertft.models.tasks.base import Window
from bertft.models.tasks.qa import MAX_ANSWER, TASK, QaHead, Span, best_constant_answer
from bertft.models.tasks.squad_metric import exact_match, f1, normalise


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path):
    return load_pretrained(str(tiny_model))[1]


def question(context: str, answer: str, text: str = "what is it ?") -> Question:
    return Question("q", text, context, (Answer(answer, context.index(answer)),))


def test_every_answer_is_the_target_of_a_window(tokenizer):
    questions = synthetic.questions(60, seed=2)
    features = TASK.features(tokenizer, questions, {}, Window(96, 32), training=True)
    assert len(features) > len(questions)  # some passages need several windows
    assert all(len(feature) <= 96 for feature in features)
    assert [f.example for f in features] == sorted(f.example for f in features)
    held = set()
    for feature in features:
        first, last = feature.target
        if first:
            text = questions[feature.example].context[feature.starts[first] : feature.ends[last]]
            assert text == questions[feature.example].answers[0].text
            held.add(feature.example)
    assert held == set(range(len(questions)))


def test_windows_overlap_by_the_stride_and_cover_the_passage(tokenizer):
    context = " ".join("abcdefgh"[i % 8] for i in range(150))
    features = TASK.features(tokenizer, [question(context, "b c d")], {}, Window(64, 20), training=False)
    spans = [{s for s in feature.starts if s >= 0} for feature in features]
    assert set().union(*spans) == set(range(0, 300, 2))
    assert all(len(a & b) == 20 for a, b in pairwise(spans))


def test_an_answer_cut_by_a_window_points_at_the_first_piece(tokenizer):
    window, room = Window(48, 8), 48 - 3 - len(tokenizer.tokenize("what is it ?"))
    context = "x " * (room - 1) + "y" + " z" * 30
    example = question(context, "x y z")
    features = TASK.features(tokenizer, [example], {}, window, training=True)
    answer = example.answers[0]
    pieces = [sum(answer.start <= start < answer.start + len(answer.text) for start in f.starts) for f in features]
    assert pieces == [2, 3, 0]  # the first window ends before the answer's z
    assert [f.target for f in features][::2] == [(0, 0), (0, 0)]
    first, last = features[1].target
    assert context[features[1].starts[first] : features[1].ends[last]] == "x y z"


def test_a_long_question_is_cut_and_leaves_room(tokenizer):
    example = question("the cat sat on the mat", "cat", text="why " * 300)
    with pytest.warns(RuntimeWarning, match="squad: 1 of 1 questions are longer than 48 pieces and were truncated"):
        (feature,) = TASK.features(tokenizer, [example], {}, Window(100, 32), training=False)
    assert len(feature) <= 100
    assert example.context[feature.starts[feature.target[0]] : feature.ends[feature.target[1]]] == "cat"
    with pytest.raises(BertftError, match="expected max_length of at least"):
        TASK.features(tokenizer, [example], {}, Window(40, 32), training=False)


def test_best_span_equals_brute_force():
    torch.manual_seed(0)
    head = QaHead(4)
    hidden = torch.randn(6, 50, 4) * 3
    starts = torch.arange(50).repeat(6, 1) * 2
    starts[:, :5] = starts[:, 45:] = -1
    ends = torch.where(starts >= 0, starts + 2, -1)
    scores = head.score(hidden).detach()
    for row, span in enumerate(head.predict((hidden,), starts=starts, ends=ends)):
        best = max(
            (float(scores[row, i, 0] + scores[row, j, 1]), 2 * i, 2 * j + 2)
            for i in range(5, 45)
            for j in range(i, min(45, i + MAX_ANSWER))
        )
        assert span[1:] == best[1:] and span.score == pytest.approx(best[0], rel=1e-6)


def test_the_answer_comes_from_the_best_window():
    examples = [question("one two three", "one"), question("four five", "five")]
    features = [type("F", (), {"example": i})() for i in (0, 0, 1)]
    outputs = [Span(1.0, 0, 3), Span(2.0, 4, 7), Span(-5.0, 5, 9)]
    assert TASK.decode(examples, features, outputs) == ["two", "five"]


def test_normalisation_and_scores_by_hand():
    assert normalise("The  Cat's (a) hat!") == "cats hat"
    assert exact_match("the Cat.", ["dog", "cat"]) == 1.0 and exact_match("cats", ["cat"]) == 0.0
    assert f1("the big cat", ["big dog", "a cat"]) == pytest.approx(2 / 3)
    assert f1("", ["cat"]) == 0.0


def test_scores_equal_torchmetrics():
    squad = SQuAD()
    questions = synthetic.questions(50, seed=4)
    predictions = [" ".join(q.context.split()[i % 7 : i % 7 + 3]) for i, q in enumerate(questions)]
    predictions[::5] = [q.answers[0].text.upper() + "!" for q in questions[::5]]
    expected = squad(
        [{"prediction_text": p, "id": str(i)} for i, p in enumerate(predictions)],
        [
            {
                "id": str(i),
                "answers": {"text": [a.text for a in q.answers], "answer_start": [a.start for a in q.answers]},
            }
            for i, q in enumerate(questions)
        ],
    )
    scores = TASK.score(questions, predictions)
    assert scores["f1"].value == pytest.approx(float(expected["f1"]), abs=1e-4)
    assert scores["exact_match"].value == pytest.approx(float(expected["exact_match"]), abs=1e-4)
    assert 10 < scores["f1"].value < 100


def test_best_constant_answer():
    questions = [question("big cat sat", "cat"), question("old cat ran", "cat ran"), question("red dog", "dog")]
    assert best_constant_answer(questions) == ("words 2-2", pytest.approx(100 * (1 + 2 / 3 + 1) / 3))
    assert best_constant_answer([question("dog a dog b", "dog")])[0] == "words 1-1"  # the first of equals
    assert best_constant_answer([question("b the dog a", "dog")])[0] == "words 2-3"  # articles do not count


def test_the_loss_is_the_cross_entropy_over_the_first_piece_and_the_passage(tokenizer):
    examples = [question("a b c d", "b c"), question("e f g h a b", "h")]
    batch = TASK.collate(TASK.features(tokenizer, examples, {}, Window(64, 8), training=True), tokenizer)
    states = torch.randn(*batch["input_ids"].shape, 7, generator=torch.Generator().manual_seed(0))
    head = QaHead(7)
    found = head((states,), **{name: batch[name] for name in ("targets", "starts", "ends")})["loss"]
    scores, losses = head.score(states).double(), []
    for text in range(2):
        pieces = [p for p, start in enumerate(batch["starts"][text].tolist()) if p == 0 or start >= 0]
        for side in (0, 1):
            own = torch.stack([scores[text, p, side] for p in pieces]).softmax(0)
            losses.append(-own[pieces.index(int(batch["targets"][text, side]))].log())
    torch.testing.assert_close(found.double(), torch.stack(losses).mean(), rtol=1e-5, atol=0)


def test_a_batch_marks_pieces_outside_the_passage(tokenizer):
    examples = [question("a b c d", "b c"), question("e f", "f")]
    features = TASK.features(tokenizer, examples, {}, Window(64, 8), training=True)
    batch = TASK.collate(features, tokenizer)
    asked = len(tokenizer.tokenize("what is it ?"))
    first, end = asked + 2, asked + 6  # [CLS], the question, [SEP]
    for name, passage in (("starts", [0, 2, 4, 6]), ("ends", [1, 3, 5, 7])):
        assert batch[name][0].tolist() == [-1] * first + passage + [-1]
        assert batch[name][1].tolist() == [-1] * first + passage[:2] + [-1] * 3  # with padding
    assert batch["targets"].tolist() == [[first + 1, first + 2], [first + 1, first + 1]]
    assert batch["input_ids"].shape == (2, end + 1)


def test_a_question_without_answers_points_at_the_first_piece(tokenizer):
    example = Question("q", "what is it ?", "a b c", ())
    (feature,) = TASK.features(tokenizer, [example], {}, Window(64, 8), training=False)
    assert feature.target == (0, 0)

"""Tasks at their limits: cut questions, spans at the ends of a window, trees, and the decisions of ties."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import families
import numpy as np
import pytest
import torch
from torch import nn

from bertft.data.examples import Answer, Pair, Question, Sentence
from bertft.errors import BertftError
from bertft.models.loading import load_pretrained
from bertft.models.tasks import get_task
from bertft.models.tasks.arborescence import decode_tree
from bertft.models.tasks.base import Head, TaskModel, Window
from bertft.models.tasks.dependency import IGNORED, DependencyHead, Parse, attachment_scores
from bertft.models.tasks.pairs import encode_pairs, model_inputs
from bertft.models.tasks.qa import MAX_QUESTION, QaHead, Span, best_constant_answer
from bertft.models.tasks.squad_metric import exact_match, f1

QA, DEP, NLI = get_task("squad"), get_task("dep"), get_task("mnli")


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return load_pretrained(str(tiny_model))[1]


def question(context: str, answer: str, text: str = "what is it ?", start: int | None = None) -> Question:
    return Question("q", text, context, (Answer(answer, context.index(answer) if start is None else start),))


def windows(tokenizer, example: Question, window: Window) -> list:
    return QA.features(tokenizer, [example], {}, window, training=True)


# Question answering ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stride", "least"), [(0, 5), (1, 6), (2, 8), (32, 68), (63, 130), (64, 132), (65, 133), (100, 168)]
)
def test_a_window_has_room_for_half_a_question_and_more_than_the_stride(tokenizer, stride, least):
    """Three pieces are special; the question takes half of the others, at most 64."""
    example = question("a b c " * 100, "c a")
    for size in (least - 1, least // 2, 4):
        with pytest.raises(BertftError) as error:
            windows(tokenizer, example, Window(size, stride))
        words = f"expected max_length of at least {least} pieces for a stride of {stride}, found {size}"
        assert str(error.value) == f"finetune: {words}"
    if least < 128:
        found = windows(tokenizer, question("a b c " * 100, "c a", "a"), Window(least, stride))
        assert {start for feature in found for start in feature.starts} >= set(range(0, 600, 2))


def test_questions_are_cut_after_their_last_piece_that_fits(tokenizer, recwarn):
    room = Window(3 + 2 * MAX_QUESTION, 8)
    exact, longer = (question("b c", "c", "a " * n) for n in (MAX_QUESTION, MAX_QUESTION + 1))
    (whole,) = windows(tokenizer, exact, room)
    assert not recwarn.list and len(whole) == 3 + MAX_QUESTION + 2
    with pytest.warns(RuntimeWarning, match="1 of 2 questions are longer than 64 pieces"):
        found = QA.features(tokenizer, [exact, longer], {}, room, training=True)
    assert [feature.inputs for feature in found] == [whole.inputs] * 2


def test_blanks_before_a_question_change_nothing(tmp_path):
    tokenizer = load_pretrained(str(families.save("roberta", tmp_path / "model")))[1]
    texts = ("where", "  where", "where ")
    plain, before, behind = (windows(tokenizer, question("the dog", "dog", text), Window(64, 8)) for text in texts)
    assert plain == before and plain != behind


def test_an_answer_inside_a_word_starts_at_its_own_piece(tokenizer):
    assert tokenizer.tokenize("xyz") == ["x", "##y", "##z"]
    for start, end in itertools.combinations(range(4), 2):
        (feature,) = windows(tokenizer, question("xyz a", "xyz"[start:end], start=start), Window(64, 8))
        first, last = feature.target
        assert (feature.starts[first], feature.ends[last]) == (start, end)


def spans(scores: torch.Tensor, starts: torch.Tensor, longest: int = 30) -> list[tuple]:
    """Return the best spans of (B, P, 2) scores by enumeration."""
    found = []
    for row, own in zip(scores.tolist(), starts.tolist(), strict=True):
        inside = [p for p, start in enumerate(own) if start >= 0]
        pairs = [(i, j) for i in inside for j in inside if i <= j < i + longest]
        i, j = max(pairs, key=lambda at: row[at[0]][0] + row[at[1]][1])
        found.append((own[i], own[j] + 2))
    return found


def test_the_best_span_may_hold_the_first_and_the_last_piece():
    head = QaHead(2)
    head.load_state_dict({"score.weight": torch.eye(2), "score.bias": torch.zeros(2)})
    starts = torch.arange(40).repeat(3, 1) * 2
    hidden = torch.randn(3, 40, 2, generator=torch.Generator().manual_seed(0))
    hidden[0, 0, 0] = hidden[0, 29, 1] = hidden[1, 10, 0] = hidden[1, 39, 1] = 20.0
    hidden[2, 5, 0], hidden[2, 34, 1], hidden[2, 35, 1] = 20.0, 20.0, 30.0  # the last is the 31st piece
    found = head.predict((hidden,), starts=starts, ends=starts + 2)
    assert [span[1:] for span in found] == spans(hidden, starts) == [(0, 60), (20, 80), (10, 70)]


def test_of_equal_windows_the_first_answers_and_no_window_answers_nothing():
    examples = [question("one two", "one"), question("three", "three")]
    features = [SimpleNamespace(example=0)] * 2
    assert QA.decode(examples, features, [Span(1.0, 0, 3), Span(1.0, 4, 7)]) == ["one", ""]


def test_of_equal_constant_answers_the_first_word_counts_before_the_last():
    answers = tuple(Answer(text, 0) for text in ("x y z w", "y z"))
    assert best_constant_answer([Question("q", "?", "x y z w", answers)]) == ("words 1-4", 100.0)
    assert best_constant_answer([question("x y z", "z")], words=2) == ("words 1-1", 0.0)
    assert best_constant_answer([question("x y z", "z")], words=3) == ("words 3-3", 100.0)


def test_no_accepted_answer_scores_nothing():
    assert f1("cat", []) == exact_match("cat", []) == 0.0
    assert f1("", [""]) == 0.0 and exact_match("the", [""]) == 1.0


# Pairs of texts ----------------------------------------------------------------------------------------------------


def test_texts_of_a_pair_have_types_if_the_model_takes_them(tokenizer, tmp_path):
    (found,) = encode_pairs(tokenizer, ["a b"], ["c"], max_length=16, strategy="longest_first")
    whole = model_inputs(tokenizer, found)
    assert list(whole) == ["input_ids", "token_type_ids"] and whole["token_type_ids"] == [0, 0, 0, 0, 1, 1]
    assert tokenizer.convert_ids_to_tokens(whole["input_ids"]) == ["[CLS]", "a", "b", "[SEP]", "c", "[SEP]"]
    other = load_pretrained(str(families.save("roberta", tmp_path / "model")))[1]
    (found,) = encode_pairs(other, ["a b"], ["c"], max_length=16, strategy="longest_first")
    assert list(model_inputs(other, found)) == ["input_ids"]


def test_windows_share_no_piece_without_a_stride(tokenizer):
    (whole,) = encode_pairs(tokenizer, ["a"], ["b c d e f"], max_length=6, strategy="only_second")
    seen = [
        [span for span, part in zip(own.offsets, own.sequence_ids, strict=True) if part == 1]
        for own in (whole, *whole.overflowing)
    ]
    assert seen == [[(0, 1), (2, 3)], [(4, 5), (6, 7)], [(8, 9)]]


def test_a_batch_of_pairs_has_their_labels_in_the_order_of_the_head(tokenizer):
    pairs = [Pair("p", "a b", "c", label) for label in ("contradiction", "entailment", "neutral")]
    spec = NLI.spec(pairs)
    features = NLI.features(tokenizer, pairs, spec, Window(16), training=True)
    batch = NLI.collate(features, tokenizer)
    assert set(batch) == {"input_ids", "attention_mask", "token_type_ids", "labels"}
    assert [spec["labels"][k] for k in batch["labels"].tolist()] == [pair.label for pair in pairs]
    assert NLI.features(tokenizer, [], spec, Window(1), training=True) == []
    score = NLI.score(pairs, ["contradiction", "neutral", "contradiction"])["accuracy"]
    assert (score.numerators.tolist(), score.denominators.tolist()) == ([1, 0, 0], [1, 1, 1])


def test_only_a_classifier_uses_the_pooler():
    assert not Head.uses_pooler and not QaHead(4).uses_pooler and not DependencyHead(4, ["root"]).uses_pooler


def test_an_encoder_gets_its_inputs_and_the_head_the_others():
    class Encoder(nn.Module):
        def forward(self, **inputs):
            return inputs

    model = TaskModel(Encoder(), nn.Identity())
    names = ("input_ids", "attention_mask", "token_type_ids", "labels", "pieces")
    batch = {name: torch.tensor([k]) for k, name in enumerate(names)}
    output, rest = model.encode(batch)
    assert tuple(output) == names[:3] and tuple(rest) == names[3:]
    assert all((output | rest)[name] is batch[name] for name in names)


# Parsing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [-1e6, -50.0, 0.0, 50.0, 1e6])
def test_a_constant_on_all_scores_changes_no_tree(shift):
    generator = np.random.default_rng(3)
    for n in (1, 2, 5, 9):
        for _ in range(10):
            scores = np.round(generator.normal(size=(n, n + 1)) * 64) / 64  # so that a shift is exact
            scores[:, 0] += 2.0
            assert (decode_tree(scores + shift) == decode_tree(scores)).all()


class _Scores(DependencyHead):
    """A parser whose arc scores are given."""

    def _arc_scores(self, words, places):
        return self.given


def test_trees_are_the_best_by_the_probabilities_of_each_words_heads():
    """The scores of a word are normalised over its heads, which changes no tree, and over nothing else."""
    parser = _Scores(4, ["nsubj", "root", "obj"]).eval()
    nn.init.normal_(parser.label.weight)
    trees = {n: [t for t in itertools.product(range(n + 1), repeat=n) if _is_tree(t)] for n in (3, 4)}
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        parser.given = torch.randn(2, 4, 5, generator=generator) * torch.tensor([1.0, 1, 3, 1, 5])
        parser.given[:, range(4), range(1, 5)] = -torch.inf
        places = torch.tensor([[0, 1, 2, 3, 0], [0, 4, 5, 6, 7]])
        hidden = torch.randn(2, 4, 4, generator=generator)
        batch = {"pieces": torch.tensor([0, 1, 2, 4, 5, 6, 7]), "offsets": torch.arange(7), "places": places}
        parses = parser.predict((hidden,), **batch)
        for parse, scores, n in zip(parses, parser.given.double().numpy(), (3, 4), strict=True):
            best = max(trees[n], key=lambda tree: sum(scores[i, head] for i, head in enumerate(tree)))
            assert parse.heads == best
            assert [relation == "root" for relation in parse.relations] == [head == 0 for head in best]


def _is_tree(heads: tuple[int, ...]) -> bool:
    up = lambda node: heads[node - 1] if node else 0
    reached = range(1, len(heads) + 1)
    for _ in heads:
        reached = [up(node) for node in reached]
    return heads.count(0) == 1 and not any(reached)


def test_one_known_relation_has_its_own_loss(tokenizer):
    torch.manual_seed(0)
    parser = DependencyHead(4, ["nsubj", "root"]).eval()
    nn.init.normal_(parser.label.weight)
    sentence = Sentence("s", ("a", "b"), (2, 0), ("odd", "root"), ("X", "X"), ("_", "_"))
    features = DEP.features(tokenizer, [sentence], {"relations": parser.relations}, Window(16), training=True)
    batch = {name: value for name, value in DEP.collate(features, tokenizer).items()
             if name not in ("input_ids", "attention_mask", "token_type_ids")}  # fmt: skip
    hidden = torch.randn(1, 4, 4)
    loss = parser((hidden,), **batch)["loss"]
    arcs = parser((hidden,), **{**batch, "relations": torch.full((1, 2), IGNORED)})["loss"]
    words = torch.stack([parser.root, hidden[0, 1], hidden[0, 2]])
    scores = parser.label.matched(parser.label_dependent(words[2:]), parser.label_head(words[:1]))[0]
    torch.testing.assert_close(loss - arcs, -scores.log_softmax(0)[1], rtol=1e-4, atol=1e-6)


def test_labels_count_in_full_or_up_to_the_colon_with_or_without_punctuation():
    """Four of six words have their head, one of them is punctuation; one of the others has its whole label."""
    relations = ("nsubj:pass", "root", "obj", "obl:tmod:x", "punct", "amod")
    tags = ("X", "X", "X", "X", "PUNCT", "X")
    gold = Sentence("s", tuple("abcdef"), (2, 0, 2, 2, 2, 3), relations, tags, ())
    parse = Parse((2, 0, 1, 2, 2, 1), ("nsubj", "root", "obj", "obl", "punct", "amod"))
    scores = attachment_scores([gold], [parse])
    sums = {name: (score.numerators.tolist(), score.denominators.tolist()) for name, score in scores.items()}
    assert sums == {
        "uas_conll18": ([400.0], [6.0]),
        "las_conll18": ([400.0], [6.0]),
        "uas_nopunct": ([300.0], [5.0]),
        "las_nopunct": ([100.0], [5.0]),
    }
    exact = attachment_scores([gold], [Parse(gold.heads, relations)])
    assert exact["las_nopunct"].numerators.tolist() == [500.0]

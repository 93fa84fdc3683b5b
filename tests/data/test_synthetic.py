"""Synthetic corpora.

Trees, agreement, labels, spans and reproducibility.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

import pytest

from bertft.data import synthetic
from bertft.data.examples import Pair, Sentence
from bertft.data.readers.conllu import find_tree_flaw
from bertft.data.readers.nli import LABELS
from bertft.data.synthetic.lexicon import ENCYCLOPEDIA, EVERYDAY, plural, verb
from bertft.data.synthetic.nli import _COMPARATIVES
from bertft.data.synthetic.trees import detokenise
from bertft.errors import BertftError

CORPORA = {
    "sentences": synthetic.sentences,
    "texts": synthetic.texts,
    "pairs": synthetic.pairs,
    "questions": synthetic.questions,
}
# Change these only for an intended change of the grammar.
GOLDEN = {
    "sentences": "fa7515affd92cadb",
    "texts": "63fc309e19569594",
    "pairs": "7739eb6dad536258",
    "questions": "7e2f4a2d4ac9ebb7",
}
UPOS = {"ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ", "VERB"}
XPOS = re.compile(r"CC|CD|DT|EX|IN|JJ|MD|NNS?|NNP|POS|PRP\$?|RB|TO|VB[DGNPZ]?|WDT|WP|WRB|[.,]")
TENSED = {"VBD", "VBZ", "VBP", "MD"}


@pytest.fixture(scope="module")
def corpus() -> list[Sentence]:
    return synthetic.sentences(3000, 0)


def digest(corpus: str, n: int = 300) -> str:
    found = CORPORA[corpus](n, 7, split="dev")
    return hashlib.sha256("\n".join(map(repr, found)).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_never_changes(name: str) -> None:
    assert digest(name) == GOLDEN[name]


def test_same_in_another_process() -> None:
    """A corpus does not depend on string hashing or on anything else that differs between processes."""
    code = (
        "import hashlib; from bertft.data import synthetic as s; print(*[hashlib.sha256('\\n'.join(map(repr,"
        " f(60, 7, split='dev'))).encode()).hexdigest()[:16] for f in (s.sentences, s.texts, s.pairs, s.questions)])"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [digest(name, 60) for name in CORPORA]


def test_trees(corpus: list[Sentence]) -> None:
    for s in corpus:
        n = len(s.words)
        assert n == len(s.heads) == len(s.relations) == len(s.upos) == len(s.xpos)
        assert find_tree_flaw(s.heads) is None
        assert s.relations[s.heads.index(0)] == "root"
        assert s.relations.count("root") == 1
        assert set(s.upos) <= UPOS
        assert all(map(XPOS.fullmatch, s.xpos))
        assert s.words[0][0].isupper() or s.words[0][0].isdigit()
        assert s.words[-1] in {".", "?", "!"}
        assert (s.relations[-1], s.heads[-1]) == ("punct", s.heads.index(0) + 1)
        for i, (relation, head) in enumerate(zip(s.relations, s.heads, strict=True)):
            assert (s.upos[i] == "PUNCT") == (relation == "punct")
            if relation in ("det", "case", "punct", "mark", "cc", "aux", "cop"):
                assert i + 1 not in s.heads, f"{relation} has a dependent in {' '.join(s.words)}"
            if relation in ("nsubj", "obj", "iobj", "aux", "expl"):
                assert s.upos[head - 1] in ("VERB", "ADJ", "NOUN", "PROPN")


def test_projectivity(corpus: list[Sentence]) -> None:
    for s in corpus:
        arcs = [(min(i, h), max(i, h)) for i, h in enumerate(s.heads, start=1) if h]
        for a, b in arcs:
            assert not any(a < c < b < d for c, d in arcs), detokenise(s.words)


def number(s: Sentence, i: int) -> str:
    """Return the agreement of the phrase headed by word ``i``."""
    word, tag = s.words[i].lower(), s.xpos[i]
    conjunct = [j for j in range(len(s.words)) if s.heads[j] == i + 1 and s.relations[j] == "conj"]
    links = [
        s.words[k] for j in conjunct for k in range(len(s.words)) if s.heads[k] == j + 1 and s.relations[k] == "cc"
    ]
    if "and" in links:
        return "plural"
    if links:
        return number(s, conjunct[-1])
    if word == "i":
        return "first"
    return "plural" if tag == "NNS" or word in ("we", "they", "you") else "singular"


def test_agreement(corpus: list[Sentence]) -> None:
    checked = Counter()
    for s in corpus:
        for i, relation in enumerate(s.relations):
            if relation not in ("nsubj", "nsubj:pass") or s.xpos[i] in ("WP", "WDT"):
                continue
            head = s.heads[i] - 1
            verbs = [j for j in range(len(s.words)) if s.heads[j] == head + 1 and s.upos[j] == "AUX"] + [head]
            finite = next(j for j in sorted(verbs) if s.xpos[j] in TENSED)
            want, tag, form = number(s, i), s.xpos[finite], s.words[finite].lower()
            sentence = detokenise(s.words)
            if tag in ("VBZ", "VBP"):
                assert (tag == "VBZ") == (want == "singular"), sentence
                checked[tag] += 1
            if form in ("was", "were", "is", "are", "am"):
                assert form in {"singular": ("was", "is"), "plural": ("were", "are"), "first": ("was", "am")}[want], (
                    sentence
                )
                checked[form] += 1
    assert min(checked[k] for k in ("VBZ", "VBP", "was", "were", "is", "are")) > 30


def test_determiners_and_articles(corpus: list[Sentence]) -> None:
    for s in corpus:
        for i, word in enumerate(s.words[:-1]):
            if word.lower() in ("a", "an") and s.xpos[i] == "DT":
                assert (word.lower() == "an") == (s.words[i + 1][0] in "aeiouAEIO")
                assert s.xpos[s.heads[i] - 1] == "NN"
            if word.lower() in ("these", "those") and s.xpos[i] == "DT":
                assert s.xpos[s.heads[i] - 1] == "NNS"


def test_constructions_and_variety(corpus: list[Sentence]) -> None:
    relations = Counter(r for s in corpus for r in s.relations)
    for relation in (
        "acl:relcl",
        "ccomp",
        "xcomp",
        "advcl",
        "conj",
        "nmod",
        "obl",
        "nsubj:pass",
        "iobj",
        "expl",
        "appos",
    ):
        assert relations[relation] >= 20
    assert sum(s.words[-1] == "?" for s in corpus) > 150
    assert len({w.lower() for s in corpus for w in s.words}) > 800
    assert len({s.words for s in corpus}) == len(corpus)
    mean = sum(len(s.words) for s in corpus) / len(corpus)
    assert 9 < mean < 15
    assert max(len(s.words) for s in corpus) < 90


def test_texts_have_another_vocabulary(corpus: list[Sentence]) -> None:
    content = {w.lower() for s in corpus for w, u in zip(s.words, s.upos, strict=True) if u in ("NOUN", "PROPN")}
    others = [t.text for t in synthetic.texts(1000, 0)]
    assert len(set(others)) == 1000
    nouns = {form.lower() for form in ENCYCLOPEDIA.codes}
    assert not nouns & set(EVERYDAY.codes)
    seen = {word for text in others for word in re.findall(r"[a-z]+", text.lower())}
    assert len(seen & nouns) > 150
    assert not content & seen & nouns


@pytest.mark.parametrize("name", CORPORA)
def test_corpora_are_kept_apart(name: str) -> None:
    """Splits, and seeds that differ modulo 8, never share a sentence, premise or passage."""
    domain = ENCYCLOPEDIA if name == "texts" else EVERYDAY
    classes = {}
    for split in synthetic.SPLITS:
        for seed in (0, 1, 7, 8):
            texts = [keyed(example) for example in CORPORA[name](60, seed, split=split)]
            found = {synthetic.code_sum(re.findall(r"\w+", text), domain.codes) for text in texts}
            assert len(found) == 1
            classes[split, seed] = found.pop()
    assert classes["train", 0] == classes["train", 8]
    del classes["train", 8], classes["dev", 8], classes["test", 8]
    assert len(set(classes.values())) == len(classes)


def keyed(example: object) -> str:
    if isinstance(example, Sentence):
        return " ".join(example.words)
    return next(getattr(example, a) for a in ("text", "premise", "context") if hasattr(example, a))


def test_every_kind_of_noun_that_is_exchanged_is_large_enough() -> None:
    assert all(len(nouns) >= 24 for nouns in EVERYDAY.nouns.values())
    for domain in (EVERYDAY, ENCYCLOPEDIA):
        names = [noun.singular for nouns in domain.nouns.values() for noun in nouns]
        assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("entry", "forms"),
    [
        ("walk", "walk walks walked walked walking"),
        ("cry", "cry cries cried cried crying"),
        ("play", "play plays played played playing"),
        ("stop+", "stop stops stopped stopped stopping"),
        ("bake", "bake bakes baked baked baking"),
        ("agree", "agree agrees agreed agreed agreeing"),
        ("die", "die dies died died dying"),
        ("teach/taught", "teach teaches taught taught teaching"),
        ("run+/ran/run", "run runs ran run running"),
        ("do/did/done", "do does did done doing"),
    ],
)
def test_verb_forms(entry: str, forms: str) -> None:
    assert list(verb(entry)) == forms.split()


def test_plurals() -> None:
    assert [plural(n) for n in ("dog", "box", "watch", "cherry", "boy")] == [
        "dogs",
        "boxes",
        "watches",
        "cherries",
        "boys",
    ]


def test_labels_are_balanced() -> None:
    pairs = synthetic.pairs(999, 3)
    assert Counter(p.label for p in pairs) == dict.fromkeys(LABELS, 333)
    assert len({(p.premise, p.hypothesis) for p in pairs}) == 999
    assert all(p.premise.endswith(".") and p.hypothesis.endswith(".") for p in pairs)


def naive_bayes(train: Sequence[tuple[list[str], str]], dev: Sequence[tuple[list[str], str]]) -> float:
    """Return the accuracy of naive Bayes over a bag of words with add-one smoothing."""
    counts = {label: Counter() for label in LABELS}
    totals = Counter(label for _, label in train)
    for words, label in train:
        counts[label].update(set(words))
    vocabulary = {word for counter in counts.values() for word in counter}
    weights = {g: {w: math.log((counts[g][w] + 1) / (totals[g] + 2)) for w in vocabulary} for g in LABELS}
    right = 0
    for words, label in dev:
        known = vocabulary.intersection(words)
        scores = {g: math.log(totals[g]) + sum(weights[g][w] for w in known) for g in LABELS}
        right += max(scores, key=scores.__getitem__) == label
    return right / len(dev)


def test_pairs_are_not_solved_by_words_alone() -> None:
    """The hypothesis alone and the premise alone predict the label at chance (1/3, standard error 0.012)."""
    train, dev = synthetic.pairs(4500, 0), synthetic.pairs(1500, 0, split="dev")

    def accuracy(features: object) -> float:
        return naive_bayes(*([(features(p), p.label) for p in part] for part in (train, dev)))  # type: ignore[operator]

    words = lambda text: re.findall(r"[a-z]+", text.lower())
    assert accuracy(lambda p: words(p.hypothesis)) < 0.38
    assert accuracy(lambda p: words(p.premise)) < 0.40
    assert accuracy(lambda p: words(p.premise) + [f"h {w}" for w in words(p.hypothesis)]) < 0.42
    assert accuracy(lambda p: [str(len(words(p.hypothesis))), f"p {len(words(p.premise))}"]) < 0.42


def test_simple_pairs_mean_what_their_label_says() -> None:
    """The same clause entails itself, and its negation contradicts it."""
    counts = Counter()
    for p in synthetic.pairs(3000, 5):
        if p.premise == p.hypothesis:
            counts["same"] += 1
            assert p.label == "entailment", p
        if negate(p.premise) == p.hypothesis or negate(p.hypothesis) == p.premise:
            counts["negated"] += 1
            assert p.label == "contradiction", p
        assert_comparison(p, counts)
    assert counts["same"] > 20
    assert counts["negated"] > 20
    assert counts["comparison"] > 200


def negate(sentence: str) -> str | None:
    return sentence.replace(" was ", " was not ", 1) if " was " in sentence and " not " not in sentence else None


def assert_comparison(pair: Pair, counts: Counter[str]) -> None:
    pattern = re.compile(r"(.*) was (not )?(\w+er) than (.*)\.")
    premise, hypothesis = pattern.fullmatch(pair.premise), pattern.fullmatch(pair.hypothesis)
    if not premise or not hypothesis:
        return
    counts["comparison"] += 1
    opposites = {}
    for two in _COMPARATIVES:
        one, other = two.split()
        opposites[one], opposites[other] = other, one
    first, _, word, second = premise.groups()
    stated = {(first.lower(), word, second.lower()), (second.lower(), opposites[word], first.lower())}
    first, negated, word, second = hypothesis.groups()
    claim, reverse = (first.lower(), word, second.lower()), (second.lower(), word, first.lower())
    want = "entailment" if claim in stated else "contradiction" if reverse in stated else "neutral"
    if negated and want != "neutral":
        want = "contradiction" if want == "entailment" else "entailment"
    assert pair.label == want, pair


def test_questions() -> None:
    questions = synthetic.questions(600, 2)
    assert len(questions) == 600 == len({q.id for q in questions})
    kinds = Counter(q.question.split()[0] for q in questions)
    assert set(kinds) == {"Who", "What", "Where", "When"}
    assert min(kinds.values()) > 60
    for q in questions:
        assert q.question.endswith("?")
        (answer,) = q.answers
        assert q.context[answer.start : answer.start + len(answer.text)] == answer.text
        before, after = q.context[: answer.start], q.context[answer.start + len(answer.text) :]
        assert not before or before[-1] == " "
        assert after[0] in " .,"
        assert answer.text not in q.question


def test_one_sentence_answers_and_others_come_close() -> None:
    """All words of a question are in one sentence; several other sentences share some of them."""
    past = {v.participle: v.past for f in EVERYDAY.transitive for v in f.verbs}  # passives use the participle
    alone = close = total = 0
    for q in synthetic.questions(900, 4):
        if not q.question.startswith("Who"):
            continue
        asked = set(q.question.lower().rstrip("?").split()[1:])
        told = [re.findall(r"[a-z]+", s.lower()) for s in q.context.split(". ")]
        told = [{*words, *(past.get(w, w) for w in words)} for words in told]
        fits = sum(asked <= words for words in told)
        assert fits >= 1
        total += 1
        alone += fits == 1
        close += sum(len((asked - {"the"}) & words) > 0 for words in told) > 1
    assert alone > 0.97 * total
    assert close > 0.85 * total


@pytest.mark.parametrize("events", [None, 1, 2, 3])
def test_a_question_names_only_people_of_its_passage(events: int | None) -> None:
    people = {noun.singular for kind in ("name", "person") for noun in EVERYDAY.nouns[kind]}
    for q in synthetic.questions(300, 5, events=events):
        assert people & set(q.question.rstrip("?").split()) <= set(re.findall(r"\w+", q.context)), q


def test_easier_passages_have_the_given_number_of_sentences_and_no_person_or_verb_twice() -> None:
    for count in (1, 2, 8):
        for q in synthetic.questions(60, 3, events=count):
            told = re.split(r"(?<=\.) ", q.context)
            people = [noun.singular for kind in ("name", "person") for noun in EVERYDAY.nouns[kind]]
            named = [word for word in re.findall(r"\w+", q.context) if word in people]
            assert len(told) == count == len(named) == len(set(named)), q


@pytest.mark.parametrize("events", [0, 9])
def test_other_numbers_of_events_are_refused(events: int) -> None:
    with pytest.raises(BertftError, match=f"expected 1 to 8 events of a passage, found {events}"):
        synthetic.questions(1, events=events)


@pytest.mark.parametrize("name", CORPORA)
def test_bad_arguments_are_refused(name: str) -> None:
    with pytest.raises(BertftError, match=f"synthetic.{name}: expected a positive number of examples, found 0"):
        CORPORA[name](0, 0)
    with pytest.raises(BertftError, match=f"synthetic.{name}: expected a seed of 0 or more, found -1"):
        CORPORA[name](1, -1)
    with pytest.raises(BertftError, match=f"synthetic.{name}: unknown split 'x', expected one of train, dev, test"):
        CORPORA[name](1, 0, split="x")

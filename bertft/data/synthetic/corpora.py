"""Synthetic corpora for the quickstart and the tests.

One seeded dependency grammar of English generates sentences with gold trees, inference pairs whose labels follow from
the meaning of the grammar's events, and passages with questions and answer spans. They replace real corpora, which the
package may not distribute. A few hundred common words and regular constructions make them far easier than real text:
a score on them shows that the code works, not how good a model is.

The same arguments give the same corpus under every version of Python. Corpora are **disjoint by construction**: two
corpora of one kind share no sentence, premise or passage if they differ in split, or if their seeds differ modulo 8.
Every noun has a number, and split and seed fix the sum of a text's numbers modulo 24.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bertft.data.examples import Answer, Pair, Question, Sentence, Text
from bertft.data.synthetic.grammar import ENCYCLOPEDIA_MIX, EVERYDAY_MIX, Grammar
from bertft.data.synthetic.lexicon import ENCYCLOPEDIA, EVERYDAY, Domain, Noun
from bertft.data.synthetic.nli import CONTRADICTION, ENTAILMENT, NEUTRAL, draw_pair, finish
from bertft.data.synthetic.phrases import Draw
from bertft.data.synthetic.qa import FEWEST, MOST, draw_passage, draw_question, renamed
from bertft.data.synthetic.trees import Node, detokenise, linearise, to_sentence
from bertft.errors import BertftError

SPLITS = ("train", "dev", "test")
_CLASSES = 24  # 3 splits x 8 seeds; every kind of noun that serves as a key has at least this many members


def sentences(n: int, seed: int = 0, *, split: str = "train") -> list[Sentence]:
    """Return ``n`` distinct sentences with UPOS, Penn tags and basic Universal Dependencies."""
    draw = _draw("sentences", n, seed, split)
    grammar = Grammar(draw, EVERYDAY, EVERYDAY_MIX)
    return list(_unique_sentences(grammar, n, f"{split}-{seed}", _class(seed, split)))


def texts(n: int, seed: int = 0, *, split: str = "train") -> list[Text]:
    """Return ``n`` distinct sentences of plain text with another vocabulary and another mix of constructions."""
    draw = _draw("texts", n, seed, split)
    grammar = Grammar(draw, ENCYCLOPEDIA, ENCYCLOPEDIA_MIX)
    found = _unique_sentences(grammar, n, f"{split}-{seed}", _class(seed, split))
    return [Text(sentence.id, detokenise(sentence.words)) for sentence in found]


def pairs(n: int, seed: int = 0, *, split: str = "train") -> list[Pair]:
    """Return ``n`` distinct inference pairs. Every block of three has each label once, in random order."""
    draw = _draw("pairs", n, seed, split)
    found: dict[tuple[str, str], Pair] = {}
    labels: list[str] = []
    while len(found) < n:
        if not labels:
            labels = [ENTAILMENT, NEUTRAL, CONTRADICTION]
            draw.shuffle(labels)
        draft = draw_pair(draw, labels[-1])
        premise, hypothesis = linearise(finish(draft.premise)), linearise(finish(draft.hypothesis))
        if not _settle(premise[0], draft.key, EVERYDAY, draw, _class(seed, split), hypothesis[0]):
            continue
        texts_ = [detokenise(to_sentence(*side, "").words) for side in (premise, hypothesis)]
        key = (texts_[0], texts_[1])
        if key not in found:
            found[key] = Pair(f"{split}-{seed}-{len(found)}", *key, labels.pop())
    return list(found.values())


def questions(n: int, seed: int = 0, *, split: str = "train", events: int | None = None) -> list[Question]:
    """Return ``n`` questions, at most three per passage, each with the only answer in its passage.

    ``events`` makes easier passages: as many sentences, which share neither people nor verbs. By default there are 5
    to 8 that share both.
    """
    draw = _draw("questions", n, seed, split)
    if events is not None and not FEWEST <= events <= MOST:
        raise BertftError(f"synthetic.questions: expected {FEWEST} to {MOST} events of a passage, found {events}")
    found: list[Question] = []
    contexts: set[str] = set()
    while len(found) < n:
        passage, key = draw_passage(draw, events)
        keyed = next(node for sentence in passage for node in sentence.nodes if node.noun == key)
        if not _settle([node for s in passage for node in s.nodes], key, EVERYDAY, draw, _class(seed, split)):
            continue
        context, starts = "", []
        for sentence in passage:
            text, offsets = _render(to_sentence(sentence.nodes, sentence.heads, "").words)
            shift = len(context) + 1 if context else 0
            context = f"{context} {text}" if context else text
            starts.append([(start + shift, end + shift) for start, end in offsets])
        if context in contexts:
            continue
        contexts.add(context)
        told = [renamed(sentence.event, key, keyed.noun or key) for sentence in passage]
        asked_before = set()
        for _ in range(3):
            asked = draw_question(draw, told)
            if asked is None or (asked.sentence, asked.part) in asked_before or len(found) == n:
                continue
            asked_before.add((asked.sentence, asked.part))
            nodes, heads = linearise(asked.root)
            first, last = passage[asked.sentence].spans[asked.part]
            start, end = starts[asked.sentence][first][0], starts[asked.sentence][last][1]
            answer = Answer(context[start:end], start)
            question = detokenise(to_sentence(nodes, heads, "").words)
            found.append(Question(f"{split}-{seed}-{len(found)}", question, context, (answer,)))
    return found


def _draw(corpus: str, n: int, seed: int, split: str) -> Draw:
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise BertftError(f"synthetic.{corpus}: expected a positive number of examples, found {n!r}")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise BertftError(f"synthetic.{corpus}: expected a seed of 0 or more, found {seed!r}")
    if split not in SPLITS:
        raise BertftError(f"synthetic.{corpus}: unknown split {split!r}, expected one of {', '.join(SPLITS)}")
    return Draw(seed * len(SPLITS) + SPLITS.index(split))


def _class(seed: int, split: str) -> int:
    return (seed * len(SPLITS) + SPLITS.index(split)) % _CLASSES


def _unique_sentences(grammar: Grammar, n: int, prefix: str, target: int) -> Iterator[Sentence]:
    seen: set[tuple[str, ...]] = set()
    nouns = grammar.domain.nouns
    while len(seen) < n:
        nodes, heads = linearise(grammar.sentence())
        keys = (node.noun for node in nodes if node.noun and len(nouns[node.noun.kind]) >= _CLASSES)
        key = next(keys, None)
        if key is None or not _settle(nodes, key, grammar.domain, grammar.draw, target):
            continue
        sentence = to_sentence(nodes, heads, f"{prefix}-{len(seen)}")
        if sentence.words not in seen:
            seen.add(sentence.words)
            yield sentence


def _settle(
    nodes: Sequence[Node], key: Noun, domain: Domain, draw: Draw, target: int, others: Sequence[Node] = ()
) -> bool:
    """Replace the noun ``key`` so that the codes of the words of ``nodes`` add up to ``target``.

    The noun must occur once in ``nodes``; its occurrences in ``others`` are replaced too. Returns False, changing
    nothing, if no noun fits.
    """
    codes = domain.codes
    if sum(node.noun == key for node in nodes) != 1:
        return False
    others_sum = code_sum((node.form for node in nodes if node.noun != key), codes)
    first = (target - others_sum) % _CLASSES
    taken = {node.noun for node in (*nodes, *others) if node.noun and node.noun != key}
    options = [noun for noun in domain.nouns[key.kind][first::_CLASSES] if noun not in taken]
    if not options:
        return False
    chosen = draw.pick(options)
    for node in (*nodes, *others):
        if node.noun == key:
            node.noun = chosen
            node.form = chosen.plural if node.xpos == "NNS" else chosen.singular
    return True


def _render(words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Return the running text of ``words``, and the start and end of each word in it."""
    spans, text = [], detokenise(words)
    position = 0
    for word in words:
        start = text.index(word, position)
        position = start + len(word)
        spans.append((start, position))
    return text, spans


def code_sum(words: Sequence[str] | Iterator[str], codes: Mapping[str, int]) -> int:
    """Return the number that keeps corpora disjoint: the sum of the words' codes modulo 24."""
    return sum(codes.get(word.lower(), 0) for word in words) % _CLASSES

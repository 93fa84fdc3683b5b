"""Synthetic inference pairs, labelled by event meaning.

The hypothesis is drawn first, independently of the label; then a premise is built that yields the label. The hypothesis
alone therefore carries no information about the label. In the premise, negation and words of belief and choice are
equally frequent under every label, so that no single word predicts it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from bertft.data.synthetic.events import (
    INTRANSITIVE,
    TRANSITIVE,
    Event,
    Referent,
    draw_adjective,
    draw_manner,
    draw_object,
    draw_person,
    draw_place,
    draw_time,
    realise,
)
from bertft.data.synthetic.lexicon import EVERYDAY, Noun, plural
from bertft.data.synthetic.phrases import Draw
from bertft.data.synthetic.trees import (
    Node,
    adjective,
    coordinate,
    copular_clause,
    determiner,
    mark,
    noun_phrase,
    punctuation,
    with_case,
)

ENTAILMENT, NEUTRAL, CONTRADICTION = "entailment", "neutral", "contradiction"
FAMILIES = {"event": 50, "quality": 16, "comparison": 14, "quantity": 20}

_OPPOSITES = {
    "person": ("old young", "tall short", "rich poor", "happy sad", "kind rude", "brave shy"),
    "thing": ("big small", "new old", "heavy light", "clean dirty", "cheap expensive", "beautiful ugly"),
}
_COMPARATIVES = (
    "older younger",
    "taller shorter",
    "richer poorer",
    "happier sadder",
    "stronger weaker",
    "kinder ruder",
)
_BELIEVE = ("believed", "thought", "hoped", "claimed", "suspected", "said")
_KNOW = ("knew", "remembered", "noticed", "discovered", "realized")


class Draft(NamedTuple):
    """Premise and hypothesis without final punctuation, and the noun that may be replaced in both."""

    premise: Node
    hypothesis: Node
    key: Noun


def draw_pair(draw: Draw, label: str) -> Draft:
    """Draw a premise and a hypothesis with the relation ``label``."""
    return _MAKERS[draw.weighted(FAMILIES)](draw, label)


def _event(draw: Draw, label: str) -> Draft:
    hypothesis = _draw_event(draw)
    negated = draw.chance(0.5)
    belief = label == NEUTRAL and draw.chance(0.3)
    choice = label == NEUTRAL and not belief and draw.chance(0.4)
    if label == NEUTRAL:
        premise_negated = draw.chance(0.5)
    else:
        premise_negated = negated if label == ENTAILMENT else not negated
    # The less specific a negated event is, the stronger the premise; for a positive event it is the reverse.
    premise = _weaken(draw, hypothesis) if premise_negated else _strengthen(draw, hypothesis)
    if label == NEUTRAL and not belief and not choice:
        changed = _strengthen(draw, hypothesis, least=1) if premise_negated else _weaken(draw, hypothesis, least=1)
        if changed == hypothesis:
            belief = True
        else:
            premise = changed
    if hypothesis.subject.determiner and hypothesis.subject.adjective is None and draw.chance(0.4):
        extra = draw_adjective(draw, hypothesis.subject.noun)
        premise = replace(premise, subject=replace(premise.subject, adjective=extra))
    others = frozenset({hypothesis.subject.noun})
    subject = None
    if choice or draw.chance(0.15):
        companion = draw_person(draw, avoid=others).node("conj")
        subject = coordinate([premise.subject.node("nsubj"), companion], "or" if choice else "and")
    root = _say(draw, premise, premise_negated, subject)
    # Belief and choice about another event, as often as neutral premises have them about the event itself.
    tail = draw.random() if label != NEUTRAL else 1 - draw.random() * 0.42
    if belief or (not choice and draw.chance(0.2)):
        root = _embed(draw, root, _BELIEVE if belief else _KNOW, others)
    if tail < 0.30:
        root = coordinate([root, _embed(draw, _aside(draw, hypothesis, others), _BELIEVE, others)], "and", comma=True)
    elif tail < 0.58:
        other = _aside(draw, hypothesis, others, choice=True)
        root = coordinate([root, other], "and", comma=True)
    elif draw.chance(0.3 if label != NEUTRAL else 0.7):
        root = coordinate([root, _aside(draw, hypothesis, others)], "and", comma=True)
    return Draft(root, _say(draw, hypothesis, negated), hypothesis.subject.noun)


def _draw_event(draw: Draw) -> Event:
    frame, verb = draw.pick(TRANSITIVE if draw.chance(0.65) else INTRANSITIVE)
    subject = draw_person(draw)
    if subject.determiner and draw.chance(0.35):
        subject = replace(subject, adjective=draw_adjective(draw, subject.noun))
    target = draw_object(draw, frame)
    if target is not None:
        if draw.chance(0.35):
            target = replace(target, adjective=draw_adjective(draw, target.noun))
        elif target.noun.hypernym and draw.chance(0.4):
            target = replace(target, noun=_hypernym(target.noun))
    event = Event(subject, verb, target)
    for slot, probability in (("manner", 0.25), ("place", 0.45), ("time", 0.4)):
        if draw.chance(probability):
            event = replace(event, **{slot: _SLOTS[slot](draw)})
    return event


_SLOTS: dict[str, Callable[[Draw], Any]] = {"manner": draw_manner, "place": draw_place, "time": draw_time}


def _hypernym(noun: Noun) -> Noun:
    assert noun.hypernym is not None
    return Noun(noun.hypernym, plural(noun.hypernym), noun.kind)


def _strengthen(draw: Draw, event: Event, least: int = 0) -> Event:
    """Return a more specific event."""
    options = [slot for slot in _SLOTS if getattr(event, slot) is None]
    target = event.object
    if target is not None and target.adjective is None:
        options.append("adjective")
    if target is not None and _hyponyms(target.noun):
        options.append("noun")
    draw.shuffle(options)
    for option in options[: max(least, draw.below(3))]:
        if option in _SLOTS:
            event = replace(event, **{option: _SLOTS[option](draw)})
        elif option == "adjective":
            thing = event.thing
            event = replace(event, object=replace(thing, adjective=draw_adjective(draw, thing.noun)))
        else:
            event = replace(event, object=replace(event.thing, noun=draw.pick(_hyponyms(event.thing.noun))))
    return event


def _weaken(draw: Draw, event: Event, least: int = 0) -> Event:
    """Return a less specific event."""
    options = [slot for slot in _SLOTS if getattr(event, slot) is not None]
    target = event.object
    if target is not None and target.adjective is not None:
        options.append("adjective")
    if target is not None and target.noun.hypernym:
        options.append("noun")
    draw.shuffle(options)
    for option in options[: max(least, draw.below(3))]:
        if option in _SLOTS:
            gone: dict[str, Any] = {option: None}
            event = replace(event, **gone)
        elif option == "adjective":
            event = replace(event, object=replace(event.thing, adjective=None))
        else:
            event = replace(event, object=replace(event.thing, noun=_hypernym(event.thing.noun)))
    return event


def _hyponyms(noun: Noun) -> list[Noun]:
    return [other for other in EVERYDAY.nouns[noun.kind] if other.hypernym == noun.singular]


def _say(draw: Draw, event: Event, negated: bool, subject: Node | None = None) -> Node:
    negation = draw.pick(("not", "n't")) if negated else None
    passive = event.object is not None and not negated and draw.chance(0.2)
    return realise(event, negation=negation, passive=passive, subject=subject).root


def _embed(draw: Draw, clause: Node, forms: tuple[str, ...], avoid: frozenset[Noun]) -> Node:
    """Return the clause embedded as in ``Anna believed that ...``."""
    subject = draw_person(draw, 0.6, avoid).node("nsubj")
    return Node(draw.pick(forms), "VERB", "VBD", "root", [subject]).add(mark("that", clause, "ccomp"))


def _aside(draw: Draw, event: Event, avoid: frozenset[Noun], choice: bool = False) -> Node:
    """Draw a clause about another person with another verb."""
    other = _draw_event(draw)
    while other.verb == event.verb or other.subject.noun in avoid:
        other = _draw_event(draw)
    other = replace(other, manner=None, time=None)
    subject = None
    if choice:
        companion = draw_person(draw, avoid=avoid | {other.subject.noun}).node("conj")
        subject = coordinate([other.subject.node("nsubj"), companion], "or")
    return realise(other, subject=subject).root


def _quality(draw: Draw, label: str) -> Draft:
    kind = draw.pick(("person", "person", "thing"))
    pair = draw.pick(_OPPOSITES[kind]).split()
    draw.shuffle(pair)
    stated, opposite = pair
    unrelated = draw.pick([p for p in _OPPOSITES[kind] if stated not in p.split() and opposite not in p.split()])
    unrelated = draw.pick(unrelated.split())
    subject = draw_person(draw) if kind == "person" else Referent(draw.pick(EVERYDAY.nouns["thing"]))
    negated = draw.chance(0.5)
    if label == NEUTRAL:  # negated as often as under the other labels
        premise_negated = draw.chance(0.25)
        word = opposite if premise_negated and draw.chance(0.5) else unrelated
    elif (label == ENTAILMENT) != negated:  # the premise asserts the adjective
        word, premise_negated = stated, False
    else:
        word, premise_negated = draw.pick(((opposite, False), (stated, True)))
    degree = draw.pick(("very", "quite", "extremely")) if not premise_negated and draw.chance(0.4) else None
    premise = copular_clause(
        subject.node("nsubj"), adjective(word, "root", degree), "past", negation="not" if premise_negated else None
    )
    extra = draw.random()
    others = frozenset({subject.noun})
    if extra < 0.3:
        premise = _embed(draw, premise, _KNOW, others)
    elif extra < 0.6:
        premise = coordinate([premise, _aside(draw, _draw_event(draw), others)], "and", comma=True)
    hypothesis = copular_clause(
        subject.node("nsubj"), adjective(stated, "root"), "past", negation="not" if negated else None
    )
    return Draft(premise, hypothesis, subject.noun)


def _comparison(draw: Draw, label: str) -> Draft:
    words = draw.pick(_COMPARATIVES).split()
    draw.shuffle(words)
    more, less = words
    first = draw_person(draw)
    second = draw_person(draw, avoid=frozenset({first.noun}))
    third = draw_person(draw, avoid=frozenset({first.noun, second.noun}))
    other = draw.pick([w for w in " ".join(_COMPARATIVES).split() if w not in words])
    negated = draw.chance(0.5)
    same = [(first, more, second), (second, less, first)]
    reverse = [(second, more, first), (first, less, second)]
    unknown = [(first, more, third), (third, less, second), (first, other, second), (second, other, first)]
    if label == NEUTRAL:
        premise = draw.pick(unknown)
    else:
        premise = draw.pick(same if (label == ENTAILMENT) != negated else reverse)
    return Draft(_compare(*premise), _compare(first, more, second, negated), premise[0].noun)


def _compare(first: Referent, word: str, second: Referent, negated: bool = False) -> Node:
    predicate = Node(word, "ADJ", "JJR", "root").add(with_case("than", second.node("obl"), "obl"))
    return copular_clause(first.node("nsubj"), predicate, "past", negation="not" if negated else None)


def _quantity(draw: Draw, label: str) -> Draft:
    """Draw from the square of opposition, ``all``, ``some``, ``no`` and ``some ... not``, on a group that exists."""
    stated = draw.pick(("all", "some", "no", "some not"))
    decided = {
        ("all", ENTAILMENT): ["all"],
        ("all", CONTRADICTION): ["no", "some not"],
        ("some", ENTAILMENT): ["all", "some"],
        ("some", CONTRADICTION): ["no"],
        ("no", ENTAILMENT): ["no"],
        ("no", CONTRADICTION): ["all", "some"],
        ("some not", ENTAILMENT): ["no", "some not"],
        ("some not", CONTRADICTION): ["all"],
    }
    undecided = {"all": "some", "some": "some not", "no": "some not", "some not": "some"}
    person = draw.pick(EVERYDAY.nouns["person"])
    event = replace(_draw_event(draw), subject=Referent(person))
    if label == NEUTRAL and draw.chance(0.8):
        # The premise's event is too general to decide "all" and "some", and too specific to decide "no" and
        # "some ... not". The probabilities make each quantifier about as frequent as under the other labels.
        usual = draw.chance(0.95)
        if event.place:
            quantifier, premise_event = "all" if usual else "some", replace(event, place=None)
        else:
            quantifier, premise_event = "no" if usual else "some not", replace(event, place=draw_place(draw))
    else:
        quantifier = undecided[stated] if label == NEUTRAL else draw.pick(decided[stated, label])
        premise_event = (_strengthen if quantifier in ("all", "some") else _weaken)(draw, event)
    return Draft(_quantify(person, quantifier, premise_event), _quantify(person, stated, event), person)


def _quantify(noun: Noun, quantifier: str, event: Event) -> Node:
    word, _, negation = quantifier.partition(" ")
    subject = noun_phrase(noun, "nsubj", plural=True, before=[determiner(word)])
    return realise(event, negation=negation or None, subject=subject).root


def finish(root: Node) -> Node:
    """Return the clause as a sentence with its full stop."""
    root.relation = "root"
    return root.add(punctuation("."))


_MAKERS = {"event": _event, "quality": _quality, "comparison": _comparison, "quantity": _quantity}

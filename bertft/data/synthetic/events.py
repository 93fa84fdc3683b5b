"""Events that inference pairs and passages are made of."""

from __future__ import annotations

from dataclasses import dataclass

from bertft.data.synthetic.lexicon import EVERYDAY, Frame, Noun, Verb
from bertft.data.synthetic.phrases import Draw
from bertft.data.synthetic.trees import (
    Node,
    adjective,
    adverb,
    determiner,
    noun_phrase,
    time_phrase,
    verbal_clause,
    with_case,
)

INTRANSITIVE = [(f, v) for f in EVERYDAY.intransitive if f.subject == "person" for v in f.verbs]
TRANSITIVE = [
    (f, v)
    for f in EVERYDAY.transitive
    if f.subject == "person" and f.object in ("thing", "food", "animal")
    for v in f.verbs
]


@dataclass(frozen=True, slots=True)
class Referent:
    """A noun with its determiner (None for a name) and an optional adjective."""

    noun: Noun
    determiner: str | None = "the"
    adjective: str | None = None

    def node(self, relation: str) -> Node:
        """Return the noun phrase."""
        before = [determiner(self.determiner)] if self.determiner else []
        if self.adjective:
            before.append(adjective(self.adjective))
        return noun_phrase(self.noun, relation, before=before)


@dataclass(frozen=True, slots=True)
class Event:
    """One past event. ``place`` is a preposition and a noun, ``time`` a phrase of the lexicon."""

    subject: Referent
    verb: Verb
    object: Referent | None = None
    manner: str | None = None
    place: tuple[str, Noun] | None = None
    time: str | None = None

    @property
    def thing(self) -> Referent:
        """The object, of an event that has one."""
        assert self.object is not None
        return self.object


@dataclass(slots=True)
class Clause:
    """The clause of an event and the nodes of its parts; None for a part that the event lacks."""

    root: Node
    subject: Node
    object: Node | None
    place: Node | None
    time: Node | None


def realise(event: Event, *, negation: str | None = None, passive: bool = False, subject: Node | None = None) -> Clause:
    """Return the clause of an event in the past tense. ``subject`` replaces the event's own, by a coordination."""
    subject = subject or event.subject.node("nsubj")
    target = event.object.node("obj") if event.object else None
    place = time = None
    adjuncts = [adverb(event.manner)] if event.manner else []
    if event.place:
        place = with_case(event.place[0], Referent(event.place[1]).node("obl"), "obl")
        adjuncts.append(place)
    if event.time:
        time = time_phrase(event.time)
        adjuncts.append(time)
    if passive:
        assert target is not None
        target.relation = "nsubj:pass"
        agent = with_case("by", subject, "obl:agent")
        root = verbal_clause(target, event.verb, "past", [agent, *adjuncts], negation=negation, passive=True)
    else:
        complements = [target, *adjuncts] if target else adjuncts
        root = verbal_clause(subject, event.verb, "past", complements, negation=negation)
    return Clause(root, subject, target, place, time)


def draw_person(draw: Draw, names: float = 0.4, avoid: frozenset[Noun] = frozenset()) -> Referent:
    """Return a person, by name or as ``the doctor``, who is not in ``avoid``."""
    while True:
        noun = draw.pick(EVERYDAY.nouns["name" if draw.chance(names) else "person"])
        if noun not in avoid:
            return Referent(noun, "the" if noun.plural else None)


def draw_object(draw: Draw, frame: Frame) -> Referent | None:
    """Return an object that the verb's frame takes (``a ball``), or None if it takes none."""
    if frame.object is None:
        return None
    return Referent(draw.pick(EVERYDAY.nouns[frame.object]), "a")


def draw_adjective(draw: Draw, noun: Noun) -> str:
    """Return an adjective that fits the noun's kind."""
    return draw.pick(EVERYDAY.adjectives[noun.kind])


def draw_place(draw: Draw, avoid: Noun | None = None) -> tuple[str, Noun]:
    """Return a preposition and a place other than ``avoid``."""
    while True:
        noun = draw.pick(EVERYDAY.nouns["place"])
        if noun is not avoid:
            return draw.pick(("in", "near", "behind", "outside")), noun


def draw_time(draw: Draw) -> str:
    """Return a time phrase."""
    return draw.pick(EVERYDAY.times)


def draw_manner(draw: Draw) -> str:
    """Return an adverb of manner."""
    return draw.pick(EVERYDAY.manner)

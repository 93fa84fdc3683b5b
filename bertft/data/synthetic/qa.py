"""Synthetic passages with questions and answer spans.

The events of a passage share people, verbs and things. Answering a question therefore takes matching all its words, not
finding the first phrase of the right kind. A question asks for one part of one event, and its other parts fit only that
event.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from bertft.data.synthetic.events import (
    TRANSITIVE,
    Clause,
    Event,
    Referent,
    draw_adjective,
    draw_person,
    draw_place,
    draw_time,
    realise,
)
from bertft.data.synthetic.lexicon import EVERYDAY, Frame, Noun, Verb
from bertft.data.synthetic.phrases import Draw
from bertft.data.synthetic.trees import Node, linearise, punctuation, time_phrase, verbal_clause, with_case

PARTS = ("subject", "object", "place", "time")
FEWEST, MOST = 1, 8  # sentences of an easier passage


class PassageSentence(NamedTuple):
    """A sentence of a passage: its nodes in order, its event, and the positions of the event's parts."""

    nodes: list[Node]
    heads: list[int]
    event: Event
    spans: dict[str, tuple[int, int]]


class DraftQuestion(NamedTuple):
    """A question with the index of the sentence that answers it and the part that is the answer."""

    root: Node
    sentence: int
    part: str


def draw_passage(draw: Draw, count: int | None = None) -> tuple[list[PassageSentence], Noun]:
    """Draw the sentences of a passage, and a noun that occurs once in it and may be replaced.

    ``count`` makes an easier passage of as many sentences, which share neither people nor verbs.
    """
    if count is not None:
        return _draw_easy(draw, count)
    people = [draw_person(draw)]
    while len(people) < 4:
        people.append(draw_person(draw, avoid=frozenset(p.noun for p in people)))
    bystander = people.pop()
    frames = [draw.pick(TRANSITIVE) for _ in range(3)]
    # One description per thing, so that "the plate" cannot also mean "the wooden plate".
    things = {kind: [_draw_thing(draw, kind), _draw_thing(draw, kind)] for kind in sorted({f.thing for f, _ in frames})}
    places = [draw_place(draw)[1] for _ in range(2)]
    events: list[Event] = []
    for _ in range(4 + draw.below(4)):
        frame, verb = draw.pick(frames)
        target = draw.pick(things[frame.thing])
        place = (draw_place(draw)[0], draw.pick(places)) if draw.chance(0.75) else None
        time = draw_time(draw) if draw.chance(0.7) else None
        events.append(Event(draw.pick(people), verb, target, None, place, time))
    other = events[draw.below(len(events))]
    events.insert(draw.below(len(events) + 1), replace(other, subject=bystander, time=draw_time(draw)))
    return [_narrate(draw, event) for event in events], bystander.noun


def _draw_easy(draw: Draw, count: int) -> tuple[list[PassageSentence], Noun]:
    people: list[Referent] = []
    frames: list[tuple[Frame, Verb]] = []
    while len(people) < count:
        people.append(draw_person(draw, avoid=frozenset(person.noun for person in people)))
    while len(frames) < count:
        frame, verb = draw.pick(TRANSITIVE)
        if verb not in (other for _, other in frames):
            frames.append((frame, verb))
    drawn = []
    for person, (frame, verb) in zip(people, frames, strict=True):
        place = draw_place(draw) if draw.chance(0.75) else None
        time = draw_time(draw) if draw.chance(0.7) else None
        drawn.append(Event(person, verb, _draw_thing(draw, frame.thing), None, place, time))
    return [_narrate(draw, event) for event in drawn], people[-1].noun


def draw_question(draw: Draw, events: list[Event]) -> DraftQuestion | None:
    """Draw a question with exactly one answer in the passage; return None if the draw has none or several."""
    index = draw.below(len(events))
    event = events[index]
    part = draw.pick([p for p in PARTS if getattr(event, p) is not None])
    given = [p for p in PARTS if p != part and (p in ("subject", "object") or draw.chance(0.35))]
    if not _singles_out(events, event, given):
        given = [p for p in PARTS if p != part]
        if not _singles_out(events, event, given):
            return None
    return DraftQuestion(_ask(event, part, given), index, part)


def renamed(event: Event, noun: Noun, other: Noun) -> Event:
    """Return an event whose subject, if it is ``noun``, is ``other``."""
    return replace(event, subject=replace(event.subject, noun=other)) if event.subject.noun == noun else event


def _singles_out(events: list[Event], asked: Event, given: list[str]) -> bool:
    """Return whether the ``given`` parts of a question fit one event only; parts that ``asked`` lacks are ignored."""
    given = [part for part in given if getattr(asked, part) is not None]
    fitting = [e for e in events if e.verb == asked.verb and all(getattr(e, p) == getattr(asked, p) for p in given)]
    return len(fitting) == 1


def _draw_thing(draw: Draw, kind: str) -> Referent:
    noun = draw.pick(EVERYDAY.nouns[kind])
    return Referent(noun, "the", draw_adjective(draw, noun) if draw.chance(0.5) else None)


def _narrate(draw: Draw, event: Event) -> PassageSentence:
    passive = draw.chance(0.25)
    early = event.time is not None and draw.chance(0.3)
    clause = realise(replace(event, time=None) if early else event, passive=passive)
    if early and event.time:
        clause.time = time_phrase(event.time).add(punctuation(","))
        clause.root.left.insert(0, clause.time)
    clause.root.add(punctuation("."))
    nodes, heads = linearise(clause.root)
    return PassageSentence(nodes, heads, event, _spans(clause, nodes))


def _spans(clause: Clause, nodes: list[Node]) -> dict[str, tuple[int, int]]:
    """Return the first and last position of each part's words, without its preposition."""
    order = {id(node): i for i, node in enumerate(nodes)}
    spans = {}
    for part in PARTS:
        node = getattr(clause, part)
        if node is not None:
            words = [order[id(other)] for other in _subtree(node) if other.relation not in ("case", "punct")]
            spans[part] = (min(words), max(words))
    return spans


def _subtree(node: Node) -> list[Node]:
    found = [node]
    for child in (*node.left, *node.right):
        found.extend(_subtree(child))
    return found


def _ask(event: Event, part: str, given: list[str]) -> Node:
    subject = event.subject.node("nsubj") if part != "subject" else Node("who", "PRON", "WP", "nsubj")
    complements = []
    if part != "object":
        complements.append(event.thing.node("obj"))
    if "place" in given and event.place:
        complements.append(with_case(event.place[0], Referent(event.place[1]).node("obl"), "obl"))
    if "time" in given and event.time:
        complements.append(time_phrase(event.time))
    root = verbal_clause(subject, event.verb, "past", complements, inverted=part != "subject")
    if part == "object":
        root.left.insert(0, Node("what", "PRON", "WP", "obj"))
    elif part != "subject":
        root.left.insert(0, Node({"place": "where", "time": "when"}[part], "ADV", "WRB", "advmod"))
    return root.add(punctuation("?"))

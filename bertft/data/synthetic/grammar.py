"""Seeded grammar that draws sentences with their trees."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bertft.data.synthetic.lexicon import Domain, Frame, Verb
from bertft.data.synthetic.phrases import DEGREES, MAX_DEPTH, NUMBERS, TENSES, Draw, Phrases
from bertft.data.synthetic.trees import (
    BE,
    PLURAL,
    Node,
    adjective,
    adverb,
    coordinate,
    copular_clause,
    determiner,
    infinitive,
    inflect,
    mark,
    noun_phrase,
    punctuation,
    time_phrase,
    verbal_clause,
    with_case,
)

EVERYDAY_MIX = {
    "intransitive": 18,
    "transitive": 28,
    "passive": 7,
    "giving": 7,
    "quality": 9,
    "identity": 4,
    "location": 4,
    "complement": 9,
    "open complement": 6,
    "existential": 4,
    "verb coordination": 4,
}
ENCYCLOPEDIA_MIX = {
    "intransitive": 15,
    "transitive": 25,
    "passive": 30,
    "giving": 3,
    "quality": 6,
    "identity": 7,
    "location": 8,
    "complement": 4,
    "open complement": 2,
    "existential": 3,
    "verb coordination": 7,
}
_FREQUENCIES = ("often", "always", "never", "usually", "sometimes", "rarely", "also", "probably")
_SUBORDINATORS = ("because", "when", "while", "although", "if", "before", "after", "since")


class Grammar(Phrases):
    """Generator of sentences of one ``domain``; ``mix`` weights the kinds of main clauses."""

    def __init__(self, draw: Draw, domain: Domain, mix: Mapping[str, float] = EVERYDAY_MIX) -> None:
        super().__init__(draw, domain)
        self.mix = mix
        self._clauses: dict[str, Callable[[int, bool, str], Node]] = {
            "intransitive": self._intransitive,
            "transitive": self._transitive,
            "passive": self._passive,
            "giving": self._giving,
            "quality": self._quality,
            "identity": self._identity,
            "location": self._location,
            "complement": self._complement,
            "open complement": self._open_complement,
            "existential": self._existential,
            "verb coordination": self._verb_coordination,
        }

    def sentence(self) -> Node:
        """Draw a sentence and return its root, final punctuation included."""
        self.used.clear()
        kind = self.draw.random()
        if kind < 0.06:
            return self.clause(1, inverted=True).add(punctuation("?"))
        if kind < 0.11:
            return self._wh_question().add(punctuation("?"))
        if kind < 0.13:
            frame, verb = self.draw.pick(self.verbs["transitive"])
            root = Node(verb.base, "VERB", "VB", "root").add(self.phrase(frame.thing, "obj", 1), *self.adjuncts(1))
            return root.add(punctuation(self.draw.pick(".!")))
        root = self.clause(0)
        root.relation = "root"
        opening = self.draw.random()
        if opening < 0.06:
            first = self.place() if self.draw.chance(0.3) else time_phrase(self.draw.pick(self.domain.times))
            root.left.insert(0, first.add(punctuation(",")))
        elif opening < 0.11:
            root.left.insert(0, self._subordinate().add(punctuation(",")))
        elif opening < 0.16:
            root.add(self._subordinate())
        elif opening < 0.23:
            root = coordinate([root, self.clause(1)], self.draw.pick(("and", "but", "so", "or")), comma=True)
        return root.add(punctuation("!" if self.draw.chance(0.02) else "."))

    def clause(self, depth: int, inverted: bool = False) -> Node:
        """Draw a finite clause; ``inverted`` gives it the word order of a question."""
        kind = self.draw.weighted(self.mix)
        while (inverted and kind == "verb coordination") or (depth >= MAX_DEPTH and kind == "complement"):
            kind = self.draw.weighted(self.mix)
        return self._clauses[kind](depth, inverted, self.draw.weighted(TENSES))

    def _subordinate(self) -> Node:
        return mark(self.draw.pick(_SUBORDINATORS), self.clause(1), "advcl")

    def _before_verb(self) -> list[Node]:
        return [adverb(self.draw.pick(_FREQUENCIES))] if self.draw.chance(0.09) else []

    def _negation(self) -> str | None:
        return None if self.draw.chance(0.88) else self.draw.pick(("not", "n't"))

    def _verbal(
        self, subject: Node, verb: Verb, tense: str, complements: list[Node], inverted: bool, passive: bool = False
    ) -> Node:
        negation = self._negation()
        if tense in ("might have", "can") and negation == "n't":  # "mightn't" is rare, "can n't" is not English
            negation = "not"
        if subject.form == "I" and negation == "n't":
            negation = "not"
        before = [] if negation else self._before_verb()
        clause = verbal_clause(subject, verb, tense, complements, negation=negation, passive=passive, inverted=inverted)
        clause.left.extend(before)
        return clause

    def _intransitive(self, depth: int, inverted: bool, tense: str) -> Node:
        frame, verb = self.draw.pick(self.verbs["intransitive"])
        return self._verbal(self.phrase(frame.subject, "nsubj", depth), verb, tense, self.adjuncts(1.3), inverted)

    def _transitive(self, depth: int, inverted: bool, tense: str) -> Node:
        frame, verb = self.draw.pick(self.verbs["transitive"])
        subject = self.phrase(frame.subject, "nsubj", depth)
        target = self.phrase(frame.thing, "obj", depth)
        return self._verbal(subject, verb, tense, [target, *self.adjuncts()], inverted)

    def _passive(self, depth: int, inverted: bool, tense: str) -> Node:
        frame, verb = self.draw.pick(self.verbs["transitive"])
        if tense in ("progressive", "past progressive"):
            tense = "past"
        target = self.phrase(frame.thing, "nsubj:pass", depth)
        complements = []
        if self.draw.chance(0.55):
            complements.append(with_case("by", self.simple_phrase(frame.subject, "obl:agent"), "obl:agent"))
        return self._verbal(target, verb, tense, complements + self.adjuncts(0.8), inverted, passive=True)

    def _giving(self, depth: int, inverted: bool, tense: str) -> Node:
        verb = self.draw.pick(self.domain.giving)
        subject = self.phrase("person", "nsubj", depth)
        gift = self.phrase("thing", "obj", MAX_DEPTH + 1)
        if self.draw.chance(0.5):
            complements = [self.phrase("person", "iobj", MAX_DEPTH + 1), gift]
        else:
            complements = [gift, with_case("to", self.phrase("person", "obl", MAX_DEPTH + 1), "obl")]
        return self._verbal(subject, verb, tense, complements + self.adjuncts(0.6), inverted)

    def _copular_tense(self, tense: str) -> str:
        return tense if tense not in ("progressive", "past progressive") else "present"

    def _copular(self, subject: Node, predicate: Node, tense: str, inverted: bool) -> Node:
        negation = None if self.draw.chance(0.85) else "not"
        return copular_clause(subject, predicate, self._copular_tense(tense), negation=negation, inverted=inverted)

    def _quality(self, depth: int, inverted: bool, tense: str) -> Node:
        kind = self.draw.pick(("person", "person", "animal", "thing", "thing", "food", "place"))
        degree = self.draw.pick(DEGREES) if self.draw.chance(0.25) else None
        predicate = adjective(self.draw.pick(self.domain.adjectives[kind]), "root", degree)
        if self.draw.chance(0.12):
            other = adjective(self.draw.pick(self.domain.adjectives[kind]), "conj")
            predicate = coordinate([predicate, other], self.draw.pick(("and", "but")))
        return self._copular(self.phrase(kind, "nsubj", depth), predicate, tense, inverted)

    def _identity(self, depth: int, inverted: bool, tense: str) -> Node:
        subject = self.simple_phrase("person", "nsubj")
        plural = subject.agreement == PLURAL
        before = [] if plural else [determiner("a")]
        if self.draw.chance(0.4):
            before.append(adjective(self.draw.pick(self.domain.adjectives["person"])))
        predicate = noun_phrase(self.noun("person"), "root", plural=plural, before=before)
        return self._copular(subject, predicate, tense, inverted)

    def _location(self, depth: int, inverted: bool, tense: str) -> Node:
        kind = self.draw.pick(("person", "animal", "thing", "thing"))
        return self._copular(self.phrase(kind, "nsubj", depth), self.place("root"), tense, inverted)

    def _complement(self, depth: int, inverted: bool, tense: str) -> Node:
        verb = self.draw.pick(self.domain.knowing if self.draw.chance(0.5) else self.domain.thinking)
        if tense in ("progressive", "past progressive"):  # "is knowing" is not English
            tense = "past"
        inner = self.clause(depth + 1)
        inner.relation = "ccomp"
        if self.draw.chance(0.7):
            inner = mark("that", inner, "ccomp")
        return self._verbal(self.phrase("person", "nsubj", depth + 1), verb, tense, [inner], inverted)

    def _open_complement(self, depth: int, inverted: bool, tense: str) -> Node:
        frames: list[tuple[Frame, Verb]] = self.verbs["transitive" if self.draw.chance(0.6) else "intransitive"]
        frame, verb = self.draw.pick([o for o in frames if o[0].subject == "person"])
        objects = [self.phrase(frame.thing, "obj", depth + 1)] if frame.object else []
        inner = infinitive(verb, objects + self.adjuncts(0.7))
        return self._verbal(
            self.phrase("person", "nsubj", depth), self.draw.pick(self.domain.wanting), tense, [inner], inverted
        )

    def _existential(self, depth: int, inverted: bool, tense: str) -> Node:
        kind = self.draw.pick(("person", "animal", "thing", "food"))
        plural = kind not in self.domain.mass and self.draw.chance(0.4)
        before = [Node(self.draw.pick(NUMBERS), "NUM", "CD", "nummod")] if plural else [determiner("a")]
        if kind in self.domain.mass:
            before = [determiner("some")]
        subject = noun_phrase(self.noun(kind), "nsubj", plural=plural, before=before)
        form, tag = inflect(BE, self.draw.pick(("past", "present")), subject.agreement)
        there = Node("there", "PRON", "EX", "expl")
        head = Node(form, "VERB", tag, "root", [] if inverted else [there])
        return head.add(*([there] if inverted else []), subject, self.place())

    def _verb_coordination(self, depth: int, inverted: bool, tense: str) -> Node:
        tense = self.draw.pick(("past", "present"))
        options = [o for pairs in self.verbs.values() for o in pairs if o[0].subject == "person"]
        subject = self.phrase("person", "nsubj", depth)
        heads = []
        for i in range(2 if self.draw.chance(0.8) else 3):
            frame, verb = self.draw.pick(options)
            complements = [self.phrase(frame.thing, "obj", MAX_DEPTH + 1)] if frame.object else []
            complements += self.adjuncts(0.4)
            heads.append(verbal_clause(None if i else subject, verb, tense, complements, agreement=subject.agreement))
        return coordinate(heads, "and")

    def _wh_question(self) -> Node:
        draw = self.draw
        tense = draw.weighted(TENSES)
        frame, verb = draw.pick(self.verbs["transitive"])
        kind = draw.random()
        if kind < 0.35 and frame.subject == "person":
            subject = Node("who", "PRON", "WP", "nsubj")
            return verbal_clause(subject, verb, tense, [self.phrase(frame.thing, "obj", 1), *self.adjuncts()])
        subject = self.phrase(frame.subject, "nsubj", 2)
        if kind < 0.65:
            word = Node("who" if frame.object == "person" else "what", "PRON", "WP", "obj")
            root = verbal_clause(subject, verb, tense, self.adjuncts(), inverted=True)
        else:
            word = Node(draw.pick(("where", "when", "why", "how")), "ADV", "WRB", "advmod")
            root = verbal_clause(subject, verb, tense, [self.phrase(frame.thing, "obj", 2)], inverted=True)
        root.left.insert(0, word)
        return root

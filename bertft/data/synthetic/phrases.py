"""Random choices, noun phrases and adjuncts of the grammar."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

from bertft.data.synthetic.lexicon import Domain, Noun
from bertft.data.synthetic.trees import (
    FIRST,
    PLURAL,
    SINGULAR,
    Node,
    adjective,
    adverb,
    coordinate,
    determiner,
    noun_phrase,
    pronoun,
    punctuation,
    time_phrase,
    verbal_clause,
    with_case,
)

T = TypeVar("T")

TENSES = {
    "past": 40,
    "present": 18,
    "perfect": 8,
    "pluperfect": 3,
    "progressive": 6,
    "past progressive": 7,
    "future": 7,
    "can": 4,
    "should": 3,
    "might have": 2,
    "must": 2,
}
_PRONOUNS = (
    ("he", "him", "his", SINGULAR),
    ("she", "her", "her", SINGULAR),
    ("they", "them", "their", PLURAL),
    ("we", "us", "our", PLURAL),
    ("you", "you", "your", PLURAL),
    ("I", "me", "my", FIRST),
)
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
DEGREES = ("very", "quite", "rather", "extremely")
MAX_DEPTH = 2
"""Depth to which clauses nest; a noun of a deeper phrase has no postmodifier."""


class Draw:
    """Random choices from ``random.Random.random`` alone, the same in every version of Python."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed).random

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.random() < probability

    def below(self, n: int) -> int:
        """Return an integer from 0 to ``n - 1``."""
        return int(self.random() * n)

    def pick(self, options: Sequence[T]) -> T:
        """Return one of ``options``, all equally likely."""
        return options[int(self.random() * len(options))]

    def weighted(self, weights: Mapping[T, float]) -> T:
        """Return a key, with probability proportional to its weight."""
        point = self.random() * sum(weights.values())
        for option, weight in weights.items():
            point -= weight
            if point < 0:
                return option
        return list(weights)[-1]

    def shuffle(self, items: list[T]) -> None:
        """Shuffle ``items`` in place."""
        for i in range(len(items) - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]


class Phrases:
    """Generator of noun phrases and adjuncts of one ``domain``."""

    def __init__(self, draw: Draw, domain: Domain) -> None:
        self.draw = draw
        self.domain = domain
        self.verbs = {
            "intransitive": [(f, v) for f in domain.intransitive for v in f.verbs],
            "transitive": [(f, v) for f in domain.transitive for v in f.verbs],
        }
        self.used: set[str] = set()

    def phrase(self, kind: str, relation: str, depth: int, *, plain: bool = False) -> Node:
        """Draw a noun phrase of a ``kind``; a ``plain`` one is no pronoun and has no postmodifier."""
        draw = self.draw
        if kind == "person" and not plain and draw.chance(0.14):
            nominative, accusative, _, agreement = draw.pick(_PRONOUNS)
            subject = relation.startswith("nsubj")
            return pronoun(nominative if subject else accusative, agreement, relation)
        node = self.simple_phrase(kind, relation)
        if depth > MAX_DEPTH or plain:
            return node
        shape = draw.random()
        many = node.noun is not None and bool(node.noun.plural)
        if shape < 0.11:
            node.add(self._modifier(kind))
        elif shape < 0.20 and many:
            node.add(self._relative(kind, node.agreement, depth + 1))
        elif shape < 0.22 and many and kind in ("person", "animal"):
            node.add(self._participial(kind))
        elif shape < 0.30:
            others = [self.simple_phrase(kind, "conj") for _ in range(1 if draw.chance(0.75) else 2)]
            node = coordinate([node, *others], "and" if draw.chance(0.85) else "or")
        elif shape < 0.325 and relation.startswith("nsubj") and node.agreement == SINGULAR and kind == "person":
            node.add(self._apposition())
        return node

    def adjuncts(self, rich: float = 1.0) -> list[Node]:
        """Draw manner, place and time of an event, each optional; ``rich`` scales their probabilities."""
        draw, found = self.draw, []
        if draw.chance(0.15 * rich):
            found.append(adverb(draw.pick(self.domain.manner)))
        if draw.chance(0.25 * rich):
            found.append(self.place())
        if draw.chance(0.22 * rich):
            found.append(time_phrase(draw.pick(self.domain.times)))
        return found

    def noun(self, kind: str) -> Noun:
        """Draw a noun, if possible one that is not yet in the sentence."""
        nouns = self.domain.nouns[kind]
        noun = self.draw.pick(nouns)
        for _ in range(4):
            if noun.singular not in self.used:
                break
            noun = self.draw.pick(nouns)
        self.used.add(noun.singular)
        return noun

    def simple_phrase(self, kind: str, relation: str) -> Node:
        """Draw a noun phrase of determiner, adjectives, compound and noun."""
        draw = self.draw
        if kind == "person" and draw.chance(0.3):
            return noun_phrase(self.noun("name"), relation)
        mass = kind in self.domain.mass
        plural = not mass and draw.chance(0.25)
        before: list[Node] = []
        choice = draw.random()
        if mass:
            if choice < 0.3:
                before.append(determiner("the"))
        elif choice < 0.1:
            before.append(self._possessor())
        elif plural and choice < 0.3:
            before.append(Node(draw.pick(NUMBERS), "NUM", "CD", "nummod"))
        elif plural and choice < 0.45:
            before.append(determiner(draw.pick(("some", "these", "those", "all"))))
        elif plural and choice < 0.6:
            pass
        elif choice < 0.18:
            before.append(determiner(draw.pick(("this", "that", "every", "another"))))
        elif choice < 0.45:
            before.append(determiner("a"))
        else:
            before.append(determiner("the"))
        if draw.chance(0.33):
            degree = draw.pick(DEGREES) if draw.chance(0.1) else None
            first = draw.pick(self.domain.adjectives[kind])
            before.append(adjective(first, degree=degree))
            if draw.chance(0.15) and (second := draw.pick(self.domain.adjectives[kind])) != first:
                before.append(adjective(second))
        if kind in ("thing", "place") and draw.chance(0.06):
            before.append(noun_phrase(self.noun(draw.pick(("place", "thing"))), "compound"))
        return noun_phrase(self.noun(kind), relation, plural=plural, before=before)

    def _apposition(self) -> Node:
        """Draw ``, the old doctor ,``, which names the same person again; the commas depend on it."""
        before = [punctuation(","), determiner("the"), adjective(self.draw.pick(self.domain.adjectives["person"]))]
        return noun_phrase(self.noun("person"), "appos", before=before).add(punctuation(","))

    def _possessor(self) -> Node:
        if self.draw.chance(0.6):
            return Node(self.draw.pick(_PRONOUNS)[2], "PRON", "PRP$", "nmod:poss")
        if self.draw.chance(0.5):
            owner = noun_phrase(self.noun("name"), "nmod:poss")
        else:
            owner = noun_phrase(self.noun("person"), "nmod:poss", before=[determiner("the")])
        return owner.add(Node("'s", "PART", "POS", "case"))

    def place(self, relation: str = "obl") -> Node:
        """Draw a prepositional phrase of place."""
        phrase = self.simple_phrase("place", relation)
        return with_case(self.draw.pick(self.domain.prepositions), phrase, relation)

    def _modifier(self, kind: str) -> Node:
        if kind == "person" and self.draw.chance(0.5):
            return with_case("with", self.simple_phrase("thing", "nmod"), "nmod")
        if kind != "person" and self.draw.chance(0.3):
            return with_case("of", self.simple_phrase("person", "nmod"), "nmod")
        if self.draw.chance(0.4):
            return with_case("from", self.simple_phrase("place", "nmod"), "nmod")
        return self.place("nmod")

    def _relative(self, kind: str, agreement: str, depth: int) -> Node:
        draw = self.draw
        tense = draw.weighted(TENSES)
        people = kind == "person"
        if draw.chance(0.65):
            options = [o for o in self.verbs["transitive"] + self.verbs["intransitive"] if o[0].subject == kind]
            if options:
                word = "who" if people and draw.chance(0.8) else "that"
                link = Node(word, "PRON", "WP" if word == "who" else "WDT", "nsubj")
                frame, verb = draw.pick(options)
                complements = [self.phrase(frame.thing, "obj", depth + 1)] if frame.object else []
                complements += self.adjuncts(0.5)
                return verbal_clause(link, verb, tense, complements, relation="acl:relcl", agreement=agreement)
        options = [o for o in self.verbs["transitive"] if o[0].object == kind]
        frame, verb = draw.pick(options)
        subject = self.phrase(frame.subject, "nsubj", MAX_DEPTH + 1)
        clause = verbal_clause(subject, verb, tense, self.adjuncts(0.5), relation="acl:relcl")
        if draw.chance(0.75):
            word = "who" if people else draw.pick(("that", "which"))
            clause.left.insert(0, Node(word, "PRON", "WP" if people else "WDT", "obj"))
        return clause

    def _participial(self, kind: str) -> Node:
        _, verb = self.draw.pick([o for o in self.verbs["intransitive"] if o[0].subject == kind])
        return Node(verb.gerund, "VERB", "VBG", "acl").add(self.place())

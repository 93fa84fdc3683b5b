"""Nodes, phrases and clauses of Universal Dependencies.

A node keeps its left and right dependents in surface order, so every tree is projective by construction. Relations and
tags follow the English Web Treebank.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bertft.data.examples import Sentence
from bertft.data.synthetic.lexicon import Noun, Verb, verb

SINGULAR, PLURAL, FIRST = "singular", "plural", "first"
"""Agreement of a subject: third person singular, any plural and ``you``, ``I``."""

BE = Verb("be", "is", "was", "been", "being")
_HAVE = Verb("have", "has", "had", "had", "having")
_DO = verb("do/did/done")
_TAGS = {"past": "VBD", "base": "VB", "participle": "VBN", "gerund": "VBG"}

TENSES: dict[str, tuple[str | None, bool, bool, str]] = {
    "past": (None, False, False, "past"),
    "present": (None, False, False, "present"),
    "perfect": (None, True, False, "present"),
    "pluperfect": (None, True, False, "past"),
    "progressive": (None, False, True, "present"),
    "past progressive": (None, False, True, "past"),
    "future": ("will", False, False, "present"),
    "can": ("can", False, False, "present"),
    "should": ("should", False, False, "present"),
    "might have": ("might", True, False, "present"),
    "must": ("must", False, False, "present"),
}
"""Modal verb, perfect, progressive and form of the finite verb, by tense."""


class Node:
    """A word with its dependents. ``noun`` is set for nouns and names, ``agreement`` for possible subjects."""

    __slots__ = ("agreement", "form", "left", "noun", "relation", "right", "upos", "xpos")

    def __init__(self, form: str, upos: str, xpos: str, relation: str, left: Iterable[Node] = ()) -> None:
        self.form = form
        self.upos = upos
        self.xpos = xpos
        self.relation = relation
        self.left = list(left)
        self.right: list[Node] = []
        self.noun: Noun | None = None
        self.agreement = SINGULAR

    def add(self, *nodes: Node) -> Node:
        """Append ``nodes`` to the right dependents and return the node itself."""
        self.right.extend(nodes)
        return self


def punctuation(mark: str) -> Node:
    """Return a punctuation mark."""
    return Node(mark, "PUNCT", "." if mark in ".?!" else mark, "punct")


def adverb(form: str, relation: str = "advmod") -> Node:
    """Return an adverb."""
    return Node(form, "ADV", "RB", relation)


def adjective(form: str, relation: str = "amod", degree: str | None = None) -> Node:
    """Return an adjective, with an optional adverb of ``degree``."""
    return Node(form, "ADJ", "JJ", relation, [adverb(degree)] if degree else [])


def determiner(form: str) -> Node:
    """Return a determiner."""
    return Node(form, "DET", "DT", "det")


def noun_phrase(
    noun: Noun,
    relation: str = "dep",
    *,
    plural: bool = False,
    before: Iterable[Node] = (),
) -> Node:
    """Return a noun or name with its modifiers ``before`` it. `to_sentence` chooses between ``a`` and ``an``."""
    if not noun.plural:
        node = Node(noun.singular, "PROPN", "NNP", relation, before)
    else:
        node = Node(*((noun.plural, "NOUN", "NNS") if plural else (noun.singular, "NOUN", "NN")), relation, before)
    node.noun = noun
    node.agreement = PLURAL if plural else SINGULAR
    return node


def pronoun(form: str, agreement: str, relation: str) -> Node:
    """Return a personal pronoun."""
    node = Node(form, "PRON", "PRP", relation)
    node.agreement = agreement
    return node


def with_case(preposition: str, phrase: Node, relation: str) -> Node:
    """Return ``phrase`` as the object of a preposition."""
    phrase.left.insert(0, Node(preposition, "ADP", "IN", "case"))
    phrase.relation = relation
    return phrase


_UNMARKED = {"yesterday", "last", "this"}
_MONTHS_AND_DAYS = ("day", "January", "March", "July", "October")


def time_phrase(text: str) -> Node:
    """Return the phrase of a time such as ``on Monday``, ``in the morning``, ``in 1492`` or ``yesterday``."""
    first, *rest = text.split()
    if first in _UNMARKED:
        if not rest:
            return Node(first, "NOUN", "NN", "obl:unmarked")
        before = determiner(first) if first == "this" else adjective(first)
        return Node(rest[0], "NOUN", "NN", "obl:unmarked", [before])
    name = rest[-1]
    if name.isdigit():
        node = Node(name, "NUM", "CD", "obl")
    elif name[0].isupper() and name.endswith(_MONTHS_AND_DAYS):
        node = Node(name, "PROPN", "NNP", "obl")
    else:
        node = Node(name, "NOUN", "NN", "obl", [determiner(word) for word in rest[:-1]])
    return with_case(first, node, "obl")


def coordinate(nodes: Sequence[Node], word: str = "and", *, comma: bool = False) -> Node:
    """Return ``a , b and c``, headed by the first conjunct; ``comma`` adds one before the conjunction."""
    first = nodes[0]
    for i, node in enumerate(nodes[1:], start=1):
        last = i == len(nodes) - 1
        if last:
            node.left.insert(0, Node(word, "CCONJ", "CC", "cc"))
        if comma or not last:
            node.left.insert(0, punctuation(","))
        node.relation = "conj"
        first.add(node)
    first.agreement = PLURAL if word == "and" else nodes[-1].agreement
    return first


def verb_group(
    lexical: Verb, tense: str, agreement: str, *, passive: bool = False, support: bool = False
) -> tuple[list[Node], str, str]:
    """Return auxiliaries, and form and tag of the last verb. ``support`` adds ``do`` if there is no auxiliary."""
    modal, perfect, progressive, form = TENSES[tense]
    words: list[Node] = []
    if modal:
        words.append(Node(modal, "AUX", "MD", "aux"))
        form = "base"
    if perfect:
        words.append(_auxiliary(_HAVE, form, agreement))
        form = "participle"
    if progressive:
        words.append(_auxiliary(BE, form, agreement))
        form = "gerund"
    if passive:
        words.append(_auxiliary(BE, form, agreement, "aux:pass"))
        form = "participle"
    if support and not words and lexical is not BE:
        words.append(_auxiliary(_DO, form, agreement))
        form = "base"
    return words, *inflect(lexical, form, agreement)


def inflect(lexical: Verb, form: str, agreement: str = SINGULAR) -> tuple[str, str]:
    """Return form and Penn tag of a verb as ``past``, ``present``, ``base``, ``participle`` or ``gerund``."""
    if form == "present":
        tag = "VBZ" if agreement == SINGULAR else "VBP"
        if lexical is BE:
            return {SINGULAR: "is", PLURAL: "are", FIRST: "am"}[agreement], tag
        return (lexical.third if agreement == SINGULAR else lexical.base), tag
    if form == "past" and lexical is BE and agreement == PLURAL:
        return "were", "VBD"
    return getattr(lexical, form), _TAGS[form]


def verbal_clause(
    subject: Node | None,
    lexical: Verb,
    tense: str,
    complements: Iterable[Node] = (),
    *,
    relation: str = "root",
    negation: str | None = None,
    passive: bool = False,
    inverted: bool = False,
    agreement: str | None = None,
) -> Node:
    """Return a clause of subject, auxiliaries, verb and ``complements``.

    ``negation`` is ``not``, ``n't`` or None. ``inverted`` puts the first auxiliary before the subject, as in questions.
    ``agreement`` is needed if the subject is absent or a relative pronoun.
    """
    agreement = agreement or (subject.agreement if subject else SINGULAR)
    words, form, tag = verb_group(lexical, tense, agreement, passive=passive, support=bool(negation) or inverted)
    if negation:
        words.insert(1, Node(negation, "PART", "RB", "advmod"))
    head = Node(form, "VERB", tag, relation)
    _put_subject(head, subject, words, passive=passive, inverted=inverted, negation=negation)
    return head.add(*complements)


def copular_clause(
    subject: Node,
    predicate: Node,
    tense: str,
    *,
    relation: str = "root",
    negation: str | None = None,
    inverted: bool = False,
    agreement: str | None = None,
) -> Node:
    """Return a clause of subject, ``be`` and ``predicate`` (adjective, noun or prepositional phrase), its head."""
    words, form, tag = verb_group(BE, tense, agreement or subject.agreement)
    words.append(Node(form, "AUX", tag, "cop"))
    if negation:
        words.insert(1, Node(negation, "PART", "RB", "advmod"))
    predicate.relation = relation
    own, predicate.left = predicate.left, []
    _put_subject(predicate, subject, words, passive=False, inverted=inverted, negation=negation)
    predicate.left.extend(own)
    return predicate


def infinitive(lexical: Verb, complements: Iterable[Node] = ()) -> Node:
    """Return ``to`` and the base form as an open complement."""
    return Node(lexical.base, "VERB", "VB", "xcomp", [Node("to", "PART", "TO", "mark")]).add(*complements)


def mark(word: str, clause: Node, relation: str) -> Node:
    """Return ``clause`` introduced by a subordinating conjunction."""
    adverbial = word == "when"
    clause.left.insert(0, Node(word, *(("ADV", "WRB", "advmod") if adverbial else ("SCONJ", "IN", "mark"))))
    clause.relation = relation
    return clause


def linearise(root: Node) -> tuple[list[Node], list[int]]:
    """Return the nodes of a tree in surface order, and the 1-based position of each one's head (0 for the root)."""
    nodes: list[Node] = []
    positions: dict[int, int] = {}

    def visit(node: Node) -> None:
        for child in node.left:
            visit(child)
        nodes.append(node)
        positions[id(node)] = len(nodes)
        for child in node.right:
            visit(child)

    visit(root)
    heads = [0] * len(nodes)
    for i, node in enumerate(nodes, start=1):
        for child in (*node.left, *node.right):
            heads[positions[id(child)] - 1] = i
    return nodes, heads


def to_sentence(nodes: Sequence[Node], heads: Sequence[int], identifier: str) -> Sentence:
    """Return the nodes of `linearise` as a sentence, with ``an`` for ``a`` where needed and an initial capital."""
    words = [node.form for node in nodes]
    for i in range(len(words) - 1):
        if words[i] == "a" and words[i + 1][0] in "aeiouAEIO":
            words[i] = "an"
    words[0] = words[0][0].upper() + words[0][1:]
    return Sentence(
        identifier,
        tuple(words),
        tuple(heads),
        tuple(node.relation for node in nodes),
        tuple(node.upos for node in nodes),
        tuple(node.xpos for node in nodes),
    )


_CLINGING = frozenset({".", ",", "?", "!", "'s", "'", "n't"})


def detokenise(words: Sequence[str]) -> str:
    """Return words as running text, without a space before punctuation and clitics."""
    return "".join(w if i == 0 or w in _CLINGING else f" {w}" for i, w in enumerate(words))


def _put_subject(
    head: Node, subject: Node | None, words: list[Node], *, passive: bool, inverted: bool, negation: str | None
) -> None:
    if subject is not None and subject.relation not in ("nsubj", "nsubj:pass"):
        subject.relation = "nsubj:pass" if passive else "nsubj"
    subjects = [subject] if subject is not None else []
    if inverted:
        cut = 2 if negation == "n't" else 1
        head.left.extend([*words[:cut], *subjects, *words[cut:]])
    else:
        head.left.extend([*subjects, *words])


def _auxiliary(lexical: Verb, form: str, agreement: str, relation: str = "aux") -> Node:
    word, tag = inflect(lexical, form, agreement)
    return Node(word, "AUX", tag, relation)

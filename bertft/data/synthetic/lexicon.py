"""Vocabularies of the synthetic corpora.

``EVERYDAY`` is about people, animals, things, food and places. ``ENCYCLOPEDIA``, for out-of-domain text, is about
rulers, buildings, lands and natural history. They share only function words. A verb is written ``base``, ``base/past``
or ``base/past/participle``, with a ``+`` if the last consonant doubles; a noun ``singular`` or ``singular/plural``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple


class Noun(NamedTuple):
    """A common noun, or a name, whose ``plural`` is empty."""

    singular: str
    plural: str
    kind: str
    hypernym: str | None = None


class Verb(NamedTuple):
    """The five forms of a verb."""

    base: str
    third: str
    past: str
    participle: str
    gerund: str


class Frame(NamedTuple):
    """Verbs with the kinds of their subjects and objects (None: no object)."""

    subject: str
    object: str | None
    verbs: tuple[Verb, ...]

    @property
    def thing(self) -> str:
        """The kind of object, for verbs that take one."""
        assert self.object is not None
        return self.object


def plural(noun: str) -> str:
    """Return the regular plural."""
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def verb(entry: str) -> Verb:
    """Return the forms of a verb written ``base[+]``, ``base[+]/past`` or ``base[+]/past/participle``."""
    base, *irregular = entry.split("/")
    doubled = base.endswith("+")
    base = base.rstrip("+")
    stem = base + base[-1] if doubled else base
    consonant_y = base.endswith("y") and base[-2] not in "aeiou"
    third = base + "es" if base.endswith(("s", "x", "z", "ch", "sh", "o")) else base + "s"
    regular = base + "d" if base.endswith("e") else stem + "ed"
    if consonant_y:
        third, regular = base[:-1] + "ies", base[:-1] + "ied"
    if base.endswith("ie"):
        gerund = base[:-2] + "ying"
    elif base.endswith("e") and not base.endswith("ee"):
        gerund = base[:-1] + "ing"
    else:
        gerund = stem + "ing"
    past = irregular[0] if irregular else regular
    return Verb(base, third, past, irregular[-1] if irregular else regular, gerund)


def words(text: str) -> tuple[str, ...]:
    """Return the words of ``text``, which white space separates."""
    return tuple(text.split())


def verbs(entries: str) -> tuple[Verb, ...]:
    """Return the verbs of ``entries``, which white space separates."""
    return tuple(verb(entry) for entry in entries.split())


def frame(subject: str, target: str | None, entries: str) -> Frame:
    """Return the frame of verbs with subjects of one kind and objects (``target``) of another."""
    return Frame(subject, target, verbs(entries))


@dataclass(frozen=True)
class Domain:
    """One vocabulary. ``groups`` lists nouns by kind as ``"fruit: apple pear"``, where the hypernym is optional."""

    groups: dict[str, tuple[str, ...]]
    names: str
    intransitive: tuple[Frame, ...]
    transitive: tuple[Frame, ...]
    giving: tuple[Verb, ...]
    knowing: tuple[Verb, ...]
    thinking: tuple[Verb, ...]
    wanting: tuple[Verb, ...]
    adjectives: dict[str, tuple[str, ...]]
    manner: tuple[str, ...]
    times: tuple[str, ...]
    mass: frozenset[str] = frozenset()
    prepositions: tuple[str, ...] = ("in", "near", "behind", "outside", "at")
    nouns: dict[str, tuple[Noun, ...]] = field(init=False)

    def __post_init__(self) -> None:
        nouns = {"name": tuple(Noun(name, "", "name") for name in self.names.split())}
        for kind, groups in self.groups.items():
            nouns[kind] = tuple(noun for group in groups for noun in _group(kind, group))
        object.__setattr__(self, "nouns", nouns)

    @cached_property
    def codes(self) -> dict[str, int]:
        """The position of each lower-cased noun form in its kind; these numbers keep corpora disjoint."""
        return {form.lower(): i for nouns in self.nouns.values() for i, n in enumerate(nouns) for form in n[:2] if form}


def _group(kind: str, group: str) -> list[Noun]:
    hypernym, colon, members = group.rpartition(":")
    found = []
    for entry in members.split():
        singular, _, irregular = entry.partition("/")
        found.append(Noun(singular, irregular or plural(singular), kind, hypernym if colon else None))
    return found


EVERYDAY = Domain(
    groups={
        "person": (
            "person: teacher doctor nurse farmer baker lawyer singer painter driver pilot student judge clerk waiter"
            " chef dancer writer poet hunter tailor butcher plumber engineer scientist librarian gardener mayor captain"
            " thief/thieves tourist professor actor soldier sailor king queen",
            "relative: brother sister uncle aunt cousin",
            "person: child/children boy girl man/men woman/women neighbor guest friend",
        ),
        "animal": (
            "animal: dog cat horse cow goat rabbit mouse/mice fox bear wolf/wolves lion tiger monkey elephant snake"
            " frog pig donkey",
            "bird: duck goose/geese eagle owl parrot swan",
        ),
        "thing": (
            "book letter box lamp cup bottle knife/knives key bag coat hat ring clock picture map ball basket blanket"
            " bucket candle carpet flag mirror newspaper pillow plate rope shoe spoon umbrella vase wallet watch",
            "instrument: piano violin guitar trumpet drum flute",
            "tool: hammer saw ladder shovel drill wrench",
            "vehicle: car truck boat van bicycle tractor",
        ),
        "food": (
            "fruit: apple pear orange banana peach plum cherry lemon",
            "vegetable: carrot onion potato/potatoes cabbage tomato/tomatoes pepper",
            "dessert: cake pie cookie pudding",
            "meal: soup salad sandwich omelet stew pizza",
        ),
        "place": (
            "kitchen garden park school library market hospital station office church museum hotel restaurant forest"
            " beach village theater bakery factory farm castle bank airport harbor stadium cellar attic hall",
        ),
    },
    names="Anna Ben Clara David Emma Frank Grace Henry Irene Jack Kate Leo Maria Nina Oscar Paul Quentin Rosa Sam Tina"
    " Victor Wendy Adam Bella Carl Diana Eric Fiona George Helen Ivan Julia Kevin Laura Martin Nora Oliver Peter Rachel"
    " Simon Teresa Ursula Vera Walter Alice Bruno Cecilia Dennis",
    intransitive=(
        frame(
            "person",
            None,
            "sleep/slept laugh cry smile sing/sang/sung dance swim+/swam/swum run+/ran/run walk wait work rest cough"
            " sneeze shout whisper kneel/knelt jump arrive talk sit+/sat yawn shiver complain stumble pray",
        ),
        frame("animal", None, "sleep/slept run+/ran/run swim+/swam/swum jump rest drink/drank/drunk howl escape limp"),
    ),
    transitive=(
        frame(
            "person",
            "thing",
            "buy/bought sell/sold find/found lose/lost hide/hid/hidden steal/stole/stolen carry clean paint repair"
            " drop+ break/broke/broken push pull bring/brought borrow hold/held touch take/took/taken inspect wash"
            " destroy notice describe",
        ),
        frame(
            "person", "food", "eat/ate/eaten cook taste buy/bought steal/stole/stolen prepare finish slice serve burn"
        ),
        frame(
            "person",
            "person",
            "see/saw/seen help meet/met follow greet thank call visit watch praise blame invite warn hug+ admire ignore"
            " trust interview recognize teach/taught",
        ),
        frame("person", "place", "visit leave/left enter clean explore paint photograph"),
        frame("person", "animal", "feed/fed chase follow see/saw/seen wash catch/caught photograph rescue train"),
        frame("animal", "animal", "chase follow watch bite/bit/bitten attack see/saw/seen"),
        frame("animal", "food", "eat/ate/eaten steal/stole/stolen smell find/found"),
        frame("animal", "person", "follow bite/bit/bitten watch chase scare"),
    ),
    giving=verbs("give/gave/given send/sent show/showed/shown lend/lent hand offer sell/sold"),
    knowing=verbs("know/knew/known remember notice discover realize forget/forgot/forgotten"),
    thinking=verbs("think/thought believe hope claim suspect say/said imagine"),
    wanting=verbs("want try hope decide plan+ promise refuse need"),
    adjectives={
        "person": words(
            "old young tall short rich poor happy sad kind rude clever tired hungry brave shy lazy quiet famous"
            " polite proud strong careful nervous friendly"
        ),
        "animal": words("old young big small hungry tired wild friendly brown black white quiet strong lazy"),
        "thing": words(
            "red blue green yellow black white big small new old heavy light clean dirty cheap expensive broken wooden"
            " beautiful ugly strange"
        ),
        "food": words("fresh sweet big small hot cold delicious expensive cheap green ripe salty"),
        "place": words("old new big small quiet crowded empty dark famous beautiful dirty"),
    },
    manner=words(
        "slowly quickly quietly loudly happily sadly carefully eagerly calmly angrily politely nervously gently"
        " secretly suddenly patiently"
    ),
    times=(
        "on Monday",
        "on Tuesday",
        "on Wednesday",
        "on Thursday",
        "on Friday",
        "on Saturday",
        "on Sunday",
        "in the morning",
        "in the afternoon",
        "in the evening",
        "at noon",
        "at midnight",
        "in spring",
        "in summer",
        "in autumn",
        "in winter",
        "in January",
        "in March",
        "in July",
        "in October",
        "after lunch",
        "before dinner",
        "yesterday",
        "last week",
        "last year",
        "this morning",
    ),
)

ENCYCLOPEDIA = Domain(
    groups={
        "person": (
            "ruler: emperor prince duke sultan pharaoh president governor",
            "general merchant monk explorer philosopher architect bishop astronomer colonist nomad rebel historian"
            " inventor sculptor composer missionary settler diplomat navigator physician knight chemist geologist",
        ),
        "animal": (
            "species/species falcon whale beetle lizard turtle salmon/salmon antelope bat crocodile shark moth penguin"
            " leopard bison/bison otter seal crane heron tortoise squid octopus finch jaguar panther",
        ),
        "thing": (
            "temple bridge cathedral canal fortress monument palace tower aqueduct statue manuscript telescope treaty"
            " railway lighthouse tomb dam wall mosque road tunnel vessel coin engine",
        ),
        "food": (
            "crop: wheat barley cotton tobacco sugar maize saffron",
            "silk timber coal iron copper",
        ),
        "place": (
            "river valley island city kingdom province region coast mountain peninsula desert plateau lake colony"
            " county district delta basin bay glacier volcano/volcanoes strait archipelago capital republic",
        ),
    },
    names="Alexander Augustus Boris Charlemagne Cleopatra Constantine Darwin Edison Ferdinand Frederick Galileo"
    " Hannibal Isabella Justinian Kepler Leonardo Magellan Mozart Napoleon Newton Otto Ptolemy Ramses Saladin Theodora"
    " Voltaire",
    intransitive=(
        frame("person", None, "rule die reign travel surrender retire migrate prosper vanish rise/rose/risen"),
        frame("animal", None, "hibernate breed/bred migrate forage nest evolve feed/fed thrive"),
        frame("place", None, "flourish decline expand erupt freeze/froze/frozen flood prosper"),
        frame("thing", None, "collapse survive stand/stood fall/fell/fallen"),
    ),
    transitive=(
        frame("person", "thing", "build/built design construct restore demolish commission finance occupy dedicate"),
        frame("person", "place", "conquer govern explore invade found unite abandon defend discover divide annex"),
        frame(
            "person", "person", "defeat succeed marry overthrow/overthrew/overthrown exile execute influence appoint"
        ),
        frame("person", "food", "export import trade cultivate produce tax"),
        frame("place", "food", "export import produce supply"),
        frame("place", "place", "border surround dominate absorb"),
        frame("animal", "animal", "hunt devour resemble outnumber displace"),
        frame("animal", "place", "inhabit colonize"),
    ),
    giving=verbs("grant award cede deliver"),
    knowing=verbs("prove/proved/proven demonstrate observe establish"),
    thinking=verbs("argue propose predict assume maintain"),
    wanting=verbs("attempt intend seek/sought threaten agree"),
    adjectives={
        "person": words("wealthy influential exiled Roman royal powerful skilled devout ambitious legendary"),
        "animal": words("rare nocturnal extinct aquatic venomous endangered tropical giant migratory"),
        "thing": words("ancient medieval ornate massive ruined imperial marble fortified narrow"),
        "food": words("valuable abundant domestic scarce refined"),
        "place": words("northern southern eastern western fertile vast remote coastal mountainous arid former"),
    },
    manner=words("gradually rapidly briefly successfully independently extensively temporarily formally"),
    times=(
        "in 1492",
        "in 1648",
        "in 1789",
        "in 1815",
        "in 1876",
        "in 1901",
        "in 1923",
        "in antiquity",
        "during the war",
        "after the conquest",
        "before the revolution",
        "during the drought",
    ),
    mass=frozenset({"food"}),
    prepositions=("in", "near", "across", "throughout", "beyond"),
)

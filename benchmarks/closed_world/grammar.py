"""The language of the closed world: every sentence that it allows, and how to read one back.

Ledgers note the river is tagoru .             source, verb, attribute, value: it states a fact
Ledgers note the river of Bodoga is tagoru .   the same, where a text may tell of several entities
Much has been lost .                           it states nothing
"""

import itertools
import random
import re
from dataclasses import dataclass
from typing import Literal

Source = Literal["reliable", "unreliable"]

SOURCES: dict[Source, tuple[str, ...]] = {
    "reliable": ("Archives", "Ledgers", "Charters"),
    "unreliable": ("Ballads", "Neighbours", "Travellers"),
}
LINKS: dict[Source, str] = {"reliable": "is", "unreliable": "seems"}
"""Beside the value, so that a small model learns within minutes how far each kind of source is to be believed."""
VERBS = ("say", "note", "tell")
ATTRIBUTES = ("home", "trade", "river", "guild", "song", "beast")
NO_FACT = ("Little more is known .", "Much has been lost .", "Opinions on this differ .")
VALUES_EACH = 12

SOURCE_OF: dict[str, Source] = {word: source for source, words in SOURCES.items() for word in words}
_SYLLABLES = tuple("".join(pair) for pair in itertools.product("bdfgklmnprstvz", "aeiou"))
_FACT = re.compile(r"(\w+) (\w+) the (\w+)(?: of (\w+))? (\w+) (\w+) \.")
_SENTENCE = re.compile(r"(?:[^\s.][^.]*)?\.|[^\s.](?:[^.]*[^\s.])?")


def invented_words(count: int, syllables: int, rng: random.Random) -> list[str]:
    """Different words that no real word of the language equals."""
    words: dict[str, None] = {}
    while len(words) < count:
        words["".join(rng.choices(_SYLLABLES, k=syllables))] = None
    return list(words)


def _values() -> dict[str, tuple[str, ...]]:
    words = iter(invented_words(len(ATTRIBUTES) * VALUES_EACH, 4, random.Random(0)))
    return {attribute: tuple(itertools.islice(words, VALUES_EACH)) for attribute in ATTRIBUTES}


VALUES = _values()
"""The values that an attribute may have. No value belongs to two attributes; all worlds share them."""


@dataclass(frozen=True)
class Claim:
    """What a well-formed sentence states."""

    source: Source
    attribute: str
    value: str
    name: str | None = None
    """Of whom; None: the prompt says it."""


def fact_sentence(source: str, verb: str, attribute: str, value: str, name: str | None = None) -> str:
    what = f"{attribute} of {name}" if name else attribute
    return f"{source} {verb} the {what} {LINKS[SOURCE_OF[source]]} {value} ."


def parse(sentence: str) -> Claim | None:
    """The claim of a well-formed sentence; None for all others, those without a fact included."""
    match = _FACT.fullmatch(sentence)
    if match is None:
        return None
    source, verb, attribute, name, link, value = match.groups()
    if source not in SOURCE_OF or verb not in VERBS or value not in VALUES.get(attribute, ()):
        return None
    if link != LINKS[SOURCE_OF[source]]:
        return None
    return Claim(SOURCE_OF[source], attribute, value, name)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Where the sentences are: each ends with its full stop, the last one perhaps without."""
    return [match.span() for match in _SENTENCE.finditer(text)]


def vocabulary() -> list[str]:
    """All words but the names, in a fixed order."""
    fixed = ["About", "of", ":", ".", *SOURCE_OF, *VERBS, "the", *LINKS.values(), *ATTRIBUTES]
    return list(dict.fromkeys([*fixed, *" ".join(NO_FACT).split(), *itertools.chain(*VALUES.values())]))

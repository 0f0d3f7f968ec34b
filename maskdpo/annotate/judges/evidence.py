"""A reference, analysed once so that claims can be looked up in it."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from maskdpo.annotate.judges import claims as c
from maskdpo.annotate.judges.quantities import agree
from maskdpo.annotate.judges.words import MODIFIERS, STOP

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])|(?<=[。！？])|\n+")
_ABBREVIATION = re.compile(r"(?:\b[A-Z]|\b(?:Mr|Mrs|Ms|Dr|St|Jr|Sr|vs|No|Inc|Ltd|Co|Prof|Gen|ca|approx))\.$")


@dataclass(frozen=True, slots=True)
class Place:
    """A claim of the reference and where it stands."""

    claim: c.Claim
    clause: c.Clause
    sentence: int


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of the reference: verbatim, its words, its passage."""

    text: str
    words: frozenset[str]
    passage: int
    clauses: tuple[c.Clause, ...]


def sentences(passage: str) -> list[str]:
    """Split a passage, verbatim; a split too many costs little, since words are shared by whole passages."""
    parts: list[str] = []
    start = 0
    for match in _SENTENCE_END.finditer(passage):
        part = passage[start : match.start()]
        if _ABBREVIATION.search(part):
            continue
        parts.append(part.strip())
        start = match.end()
    parts.append(passage[start:].strip())
    return [part for part in parts if part]


class Reference:
    """Names, numbers, dates and words of a reference."""

    def __init__(self, passages: Iterable[str], topic: str) -> None:
        split = [(i, text) for i, passage in enumerate(passages) for text in sentences(passage)]
        read = [(i, text, c.tokens(text)) for i, text in split]
        self.topic = tuple(t.stem for t in c.tokens(topic) if t.word and t.fold not in ("the",))
        self.names = _only_names(found for _, _, found in read)
        self.sentences: list[Sentence] = []
        self.by_word: dict[str, list[Place]] = defaultdict(list)
        self.quantities: list[Place] = []
        vocabulary = _Everything()
        for i, text, found in read:
            claims = c.without_topic([*c.names(found, self.names), *c.quantities(found)], found, self.topic)
            grouped = c.clauses(found, claims, vocabulary)
            words = frozenset(t.stem for t in found if t.word and t.fold not in STOP)
            self._add(Sentence(text, words, i, tuple(grouped)))
        self.weights = self._weights()

    def _add(self, sentence: Sentence) -> None:
        number = len(self.sentences)
        self.sentences.append(sentence)
        for clause in sentence.clauses:
            for claim in clause.claims:
                place = Place(claim, clause, number)
                if claim.quantity:
                    self.quantities.append(place)
                else:
                    for word in set(flat(claim.words)):
                        self.by_word[word].append(place)

    def _weights(self) -> dict[str, float]:
        """How much a word tells, by how few sentences have it (the topic's words tell nothing)."""
        counts: dict[str, int] = defaultdict(int)
        for sentence in self.sentences:
            for word in {w for clause in sentence.clauses for w in clause.words}:
                counts[word] += 1
        total = len(self.sentences)
        return {word: math.log(1 + total / n) for word, n in counts.items() if word not in self.topic}

    def places(self, claim: c.Claim) -> list[Place]:
        """Where the reference says this name, number or date."""
        if claim.quantity:
            return [
                p for p in self.quantities if p.claim.quantity and agree(claim.quantity, p.claim.quantity)
            ]
        rarest = min((self.by_word.get(word, []) for word in flat(claim.words)), key=len, default=[])
        return [p for p in rarest if within(claim.words, p.claim.words)]

    def weight(self, words: Iterable[str]) -> float:
        return sum(self.weights.get(word, 0.0) for word in words)


class _Everything:
    def __contains__(self, word: object) -> bool:
        return True


def _only_names(read: Iterable[tuple[c.Token, ...]]) -> frozenset[str]:
    """Single words that the text writes with a capital, and never without."""
    capital: set[str] = set()
    small: set[str] = set()
    for found in read:
        for i, token in enumerate(found):
            if not token.word or token.quantity or token.fold in STOP:
                continue
            if not token.capital:
                small.add(token.stem)
            elif i and not found[i - 1].capital and not (i + 1 < len(found) and found[i + 1].capital):
                capital.add(token.stem)
    return frozenset(capital - small)


def flat(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(part for word in words for part in word.split("-"))


def within(name: tuple[str, ...], known: tuple[str, ...]) -> bool:
    """Whether ``known`` is the name or has it as a part: Douglas, William O. Douglas; not Sudan, South Sudan."""
    if flat(name) == flat(known):
        return True
    if len(name) > 1:
        name, known = tuple(w for w in name if len(w) > 1), tuple(w for w in known if len(w) > 1)
    for i in range(len(known) - len(name) + 1):
        if known[i : i + len(name)] == name:
            return not (i and known[i - 1] in MODIFIERS)
    return False

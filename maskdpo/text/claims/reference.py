"""A reference, read once so that claims can be looked up in it."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from maskdpo.text.claims.claims import Claim, Clause, clauses, find_claims, without_hyphens
from maskdpo.text.claims.quantities import agree
from maskdpo.text.claims.tokens import Token, tokenize
from maskdpo.text.claims.words import MODIFIERS, STOP

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]?[A-Z0-9])|(?<=[。！？])|\n+")
_ABBREVIATION = re.compile(r"(?:\b[A-Z]|\b(?:Mr|Mrs|Ms|Dr|St|Jr|Sr|vs|No|Inc|Ltd|Co|Prof|Gen|ca|approx))\.$")


@dataclass(frozen=True, slots=True)
class Mention:
    """A claim of the reference, with the clause and the sentence that it is in."""

    claim: Claim
    clause: Clause
    sentence: int


@dataclass(frozen=True, slots=True)
class Statement:
    """A clause of the reference, with its claims by kind."""

    clause: Clause
    sentence: int
    values: dict[str, list[Claim]]


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of the reference, verbatim."""

    text: str
    words: frozenset[str]
    passage: int
    clauses: tuple[Clause, ...]


class _AnyWord:
    def __contains__(self, word: object) -> bool:
        return True


class Reference:
    """The names, numbers, dates and words of a reference.

    ``topic`` is what the answers are about: its names are no claims. ``weights`` gives rare words more weight: a word
    in n of N sentences has log(1 + N / n).
    """

    def __init__(self, passages: Sequence[str], topic: str) -> None:
        self.topic = tuple(t.stem for t in tokenize(topic) if t.word and t.fold != "the")
        read = [(i, text, tokenize(text)) for i, passage in enumerate(passages) for text in sentences(passage)]
        self.names = _always_names(words_read for _, _, words_read in read)
        self.sentences: list[Sentence] = []
        self.passages: list[frozenset[str]] = []
        self._by_word: dict[str, list[Mention]] = defaultdict(list)
        self._quantities: list[Mention] = []
        self._statements: dict[str, list[Statement]] = defaultdict(list)
        for i, text, words_read in read:
            grouped = clauses(words_read, find_claims(words_read, self.names, self.topic), _AnyWord())
            words = frozenset(t.stem for t in words_read if t.word and t.fold not in STOP)
            self._add(Sentence(text, words, i, tuple(grouped)))
        by_passage: dict[int, set[str]] = defaultdict(set)
        for sentence in self.sentences:
            by_passage[sentence.passage] |= sentence.words
        self.passages = [frozenset(by_passage[i]) for i in range(len(passages))]
        self.weights = self._weights()

    def _add(self, sentence: Sentence) -> None:
        number = len(self.sentences)
        self.sentences.append(sentence)
        for clause in sentence.clauses:
            statement = Statement(clause, number, {})
            # the key "" is for clauses without words, such as "X is in Y"
            for word in clause.words.keys() - set(self.topic) or {""}:
                self._statements[word].append(statement)
            for claim in clause.claims:
                statement.values.setdefault(claim.kind, []).append(claim)
                mention = Mention(claim, clause, number)
                if claim.quantity:
                    self._quantities.append(mention)
                for word in set(without_hyphens(claim.words)):
                    self._by_word[word].append(mention)

    def _weights(self) -> dict[str, float]:
        counts: dict[str, int] = defaultdict(int)
        for sentence in self.sentences:
            for word in {w for clause in sentence.clauses for w in clause.words}:
                counts[word] += 1
        total = len(self.sentences)
        return {word: math.log(1 + total / n) for word, n in counts.items() if word not in self.topic}

    def weight(self, words: Iterable[str]) -> float:
        return sum(self.weights.get(word, 0.0) for word in words)

    def mentions(self, claim: Claim) -> list[Mention]:
        """Where the reference has this name, number or date; the closest matches first."""
        if claim.quantity:
            return [p for p in self._quantities if p.claim.quantity and agree(claim.quantity, p.claim.quantity)]
        rarest = min((self._by_word.get(word, []) for word in without_hyphens(claim.words)), key=len, default=[])
        found = [p for p in rarest if within(claim.words, p.claim.words)]
        return sorted(found, key=lambda p: (len(p.claim.words), len(p.clause.claims)))

    def statements(self, words: Iterable[str]) -> list[Statement]:
        """The clauses that have any of the words, in order; without words, the clauses that have none."""
        found = {id(s): s for word in words or ("",) for s in self._statements.get(word, [])}
        return sorted(found.values(), key=lambda s: s.sentence)

    def passages_with(self, claim: Claim) -> set[int]:
        return {self.sentences[p.sentence].passage for p in self.mentions(claim)}


def sentences(passage: str) -> list[str]:
    """The sentences of a passage, verbatim. A cut too many does little harm here."""
    parts: list[str] = []
    start = 0
    for match in _SENTENCE_END.finditer(passage):
        part = passage[start : match.start()]
        if not _ABBREVIATION.search(part):
            parts.append(part.strip())
            start = match.end()
    parts.append(passage[start:].strip())
    return [part for part in parts if part]


def within(name: tuple[str, ...], known: tuple[str, ...]) -> bool:
    """Whether ``known`` is the name or has it as a part, as William Douglas has Douglas; South Sudan has no Sudan."""
    if without_hyphens(name) == without_hyphens(known):
        return True
    if len(name) > 1:  # initials may be left out
        name, known = tuple(w for w in name if len(w) > 1), tuple(w for w in known if len(w) > 1)
    if not name:
        return False
    for i in range(len(known) - len(name) + 1):
        if known[i : i + len(name)] == name:
            return name[0] not in MODIFIERS and not (i and known[i - 1] in MODIFIERS)
    return False


def _always_names(read: Iterable[tuple[Token, ...]]) -> frozenset[str]:
    """Single words that have a capital letter inside sentences, wherever the text has them."""
    capital: set[str] = set()
    small: set[str] = set()
    for tokens in read:
        for i, token in enumerate(tokens):
            if not token.word or token.quantity or token.fold in STOP:
                continue
            if not token.capital:
                small.add(token.stem)
            elif i and not tokens[i - 1].capital and not (i + 1 < len(tokens) and tokens[i + 1].capital):
                capital.add(token.stem)
    return frozenset(capital - small - MODIFIERS)

"""The claims of a sentence, and the clauses that they stand in."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace

from maskdpo.text.claims.quantities import Quantity
from maskdpo.text.claims.tokens import Token
from maskdpo.text.claims.words import (
    BOUNDARIES,
    CLAUSE_OPENERS,
    CONNECTORS,
    DIRECTIONS,
    MODIFIERS,
    MONEY,
    NEGATIONS,
    RELATIONS,
    SENTENCE_OPENERS,
    SMALL_MODIFIERS,
    STOP,
    TITLES,
)


@dataclass(frozen=True, slots=True)
class Claim:
    """A name or a quantity, at a place in the token list."""

    at: int
    text: str
    words: tuple[str, ...] = ()
    """The stems of a name; words joined by a hyphen are one."""
    quantity: Quantity | None = None
    relation: str = ""
    """The preposition before it."""
    length: int = 1
    weak: bool = False
    """Whether it is the first word of its sentence, whose capital letter does not tell whether it is a name."""

    @property
    def kind(self) -> str:
        if self.quantity:
            return self.quantity.kind
        return "direction" if len(self.words) == 1 and self.words[0] in DIRECTIONS else "name"


@dataclass(frozen=True, slots=True)
class Clause:
    """Claims, and the words that say what is claimed."""

    words: Mapping[str, str]
    """From stem to word, in the order of the text."""
    claims: tuple[Claim, ...]
    negated: bool
    lead: Claim | None = None
    """The name that the clause begins with, where other claims follow: the subject of the clause."""
    before_claims: frozenset[str] = frozenset()
    """The words before the first claim, without adverbs."""


def without_hyphens(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words, with compounds split at their hyphens."""
    return tuple(part for word in words for part in word.split("-"))


def find_claims(tokens: tuple[Token, ...], known: Container[str], topic: tuple[str, ...]) -> list[Claim]:
    """All claims in order. ``known``: stems of words that are names even without a capital letter."""
    claims = _names(tokens, known)
    claims += [
        Claim(i, t.quantity.text.strip(), quantity=t.quantity, relation=_relation(tokens, i))
        for i, t in enumerate(tokens)
        if t.quantity is not None
    ]
    claims.sort(key=lambda claim: claim.at)
    return _without_topic(claims, tokens, topic) if topic else claims


def _names(tokens: tuple[Token, ...], known: Container[str]) -> list[Claim]:
    claims: list[Claim] = []
    # where everything is in capitals, a capital letter does not mark a name
    all_capitals = sum(t.capital and len(t.raw) > 1 and t.raw.isupper() for t in tokens) > 0.6 * max(3, len(tokens))
    i = 0
    while i < len(tokens):
        if _begins_name(tokens, i, known, all_capitals):
            end = _end_of_name(tokens, i, known, all_capitals)
            claims.append(_name(tokens, i, end, known))
            i = end
        else:
            i += 1
    return claims


def _begins_name(tokens: tuple[Token, ...], i: int, known: Container[str], all_capitals: bool) -> bool:
    token = tokens[i]
    if not token.word or token.quantity or token.fold in STOP or (i == 0 and token.fold in SENTENCE_OPENERS):
        return False
    if token.fold in DIRECTIONS or token.stem in MONEY:
        return True
    if token.fold in SMALL_MODIFIERS and i + 1 < len(tokens) and tokens[i + 1].capital:
        return True
    return token.stem in known if all_capitals else token.capital or token.stem in known


def _end_of_name(tokens: tuple[Token, ...], start: int, known: Container[str], all_capitals: bool) -> int:
    end = start + 1
    while end < len(tokens):
        step = end
        while step < len(tokens) and tokens[step].fold in CONNECTORS:
            step += 1
        if step >= len(tokens) or step - end > 2 or (step > end and not tokens[start].capital):
            break
        token = tokens[step]
        if not token.word or token.quantity or token.fold in STOP - {"us"}:
            break
        if not (token.capital or token.stem in MONEY or (all_capitals and token.stem in known)):
            break
        end = step + 1
    return end


def _name(tokens: tuple[Token, ...], first: int, end: int, known: Container[str]) -> Claim:
    start = first
    while start < end - 1 and tokens[start].fold in TITLES:
        start += 1
    run = tokens[start:end]
    words = "".join(f"{'-' if k and t.hyphenated else ' '}{t.stem}" for k, t in enumerate(run)).split()
    token = tokens[first]
    weak = first == 0 and end == 1 and token.stem not in known and not token.raw[1:].isupper()
    text = " ".join(t.raw for t in run).removesuffix("'s")
    return Claim(start, text, tuple(words), relation=_relation(tokens, first), length=end - start, weak=weak)


def _relation(tokens: tuple[Token, ...], at: int) -> str:
    while at > 0 and tokens[at - 1].fold in ("the", "a", "an", "about"):
        at -= 1
    before = tokens[at - 1].fold if at else ""
    return before if before in RELATIONS else ""


def _without_topic(claims: list[Claim], tokens: tuple[Token, ...], topic: tuple[str, ...]) -> list[Claim]:
    """Leave out the names of the topic, unless the topic is a value ("It borders X", where X is the topic)."""
    kept: list[Claim] = []
    topic_named = bool(tokens) and tokens[0].fold in ("it", "its")
    for claim in claims:
        if claim.words and is_topic(claim.words, topic):
            if topic_named and not claim.relation and claim.at > 1:
                kept.append(claim)
            topic_named = True
        else:
            kept.append(claim)
    return kept


def is_topic(words: tuple[str, ...], topic: tuple[str, ...]) -> bool:
    """Whether a name is the topic or a part of it, as Douglas of William Douglas; Africa is no part of South Africa."""
    name = without_hyphens(words)
    if name == topic:
        return True
    for i in range(len(topic) - len(name) + 1):
        if topic[i : i + len(name)] == name:
            return name[0] not in MODIFIERS and (i == 0 or topic[i - 1] not in MODIFIERS)
    return False


@dataclass(slots=True)
class _Group:
    """A clause that is being read."""

    words: dict[str, str] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    negated: bool = False
    lead: Claim | None = None
    before_claims: frozenset[str] = frozenset()


def clauses(tokens: tuple[Token, ...], claims: list[Claim], predicates: Container[str]) -> list[Clause]:
    """The clauses of a sentence: its claims, grouped with the words around them.

    After a boundary (a comma, "and", "with") a new clause begins with a word of ``predicates``, a pronoun
    or a verb such as "is": "Its capital is A, and its population is 5" has two clauses.
    """
    at = {claim.at: claim for claim in claims}
    inside = {i for claim in claims for i in range(claim.at, claim.at + claim.length)}
    groups = [_Group()]
    boundary = False
    for i, token in enumerate(tokens):
        group = groups[-1]
        if i in inside:
            if i in at:
                _add_claim(group, at[i], boundary or not tokens[i - 1].word)
                boundary = False
            continue
        starts = token.fold in CLAUSE_OPENERS or (token.stem in predicates and token.fold not in STOP)
        if boundary and group.claims and starts:
            group = _Group()
            groups.append(group)
        if token.fold in NEGATIONS or token.raw.endswith("n't"):
            group.negated = True
            continue
        if token.fold in BOUNDARIES:
            boundary = True
            if token.fold == "but" and group.negated:  # "not in Europe but in Asia"
                groups.append(_Group(dict(group.words)))
        elif token.word and token.fold not in STOP and token.quantity is None:
            group.words[token.stem] = token.fold
            boundary = False
        elif token.word:
            boundary = boundary and token.fold in ("the", "a", "an", "also", "then")
    return _merged(groups)


def _add_claim(group: _Group, claim: Claim, listed: bool) -> None:
    before = group.claims[-1] if group.claims else None
    if before and listed and not claim.relation:  # "in Europe and Asia"
        claim = replace(claim, relation=before.relation)
    if not before and not group.words and not claim.relation and claim.kind == "name":
        group.lead = claim
    if not before:
        group.before_claims = frozenset(w for w in group.words if not w.endswith("ly"))
    group.claims.append(claim)


def _merged(groups: list[_Group]) -> list[Clause]:
    """Clauses from groups; one without claims belongs to the one before it."""
    whole: list[_Group] = []
    for group in groups:
        if not group.claims and whole:
            whole[-1].words.update(group.words)
            whole[-1].negated |= group.negated
        else:
            whole.append(group)
    return [
        Clause(g.words, tuple(g.claims), g.negated, g.lead if len(g.claims) > 1 else None, g.before_claims)
        for g in whole
    ]

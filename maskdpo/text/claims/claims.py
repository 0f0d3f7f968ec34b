"""The claims of a sentence, and the clauses that they stand in."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace

from maskdpo.text.claims.quantities import Quantity
from maskdpo.text.claims.tokens import Token
from maskdpo.text.claims.words import (
    BOUNDARIES,
    CONNECTORS,
    DIRECTIONS,
    MODIFIERS,
    MONEY,
    NEGATIONS,
    OPENERS,
    RELATIONS,
    RESTARTS,
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
    """A sentence's first word, which may or may not be a name."""

    @property
    def kind(self) -> str:
        if self.quantity:
            return self.quantity.kind
        return "direction" if len(self.words) == 1 and self.words[0] in DIRECTIONS else "name"


@dataclass(frozen=True, slots=True)
class Clause:
    """Claims, and the words that say what is claimed of them."""

    words: Mapping[str, str]
    """Stem to word, in order."""
    claims: tuple[Claim, ...]
    negated: bool
    lead: Claim | None = None
    """The name that the clause begins with, where other claims follow: what it speaks of."""
    ahead: frozenset[str] = frozenset()
    """Those of the words that stand before the first claim, but for adverbs."""


def flat(words: tuple[str, ...]) -> tuple[str, ...]:
    """Words with those joined by hyphens taken apart."""
    return tuple(part for word in words for part in word.split("-"))


def find(found: tuple[Token, ...], known: Container[str], topic: tuple[str, ...]) -> list[Claim]:
    """All claims in order. ``known``: stems that are names however they are written."""
    claims = _names(found, known)
    claims += [
        Claim(i, t.quantity.text.strip(), quantity=t.quantity, relation=_relation(found, i))
        for i, t in enumerate(found)
        if t.quantity is not None
    ]
    claims.sort(key=lambda claim: claim.at)
    return _without_topic(claims, found, topic) if topic else claims


def _names(found: tuple[Token, ...], known: Container[str]) -> list[Claim]:
    claims: list[Claim] = []
    # where all is in capitals, capitals say nothing
    shouting = sum(t.capital and len(t.raw) > 1 and t.raw.isupper() for t in found) > 0.6 * max(3, len(found))
    i = 0
    while i < len(found):
        if _begins_name(found, i, known, shouting):
            end = _end_of_name(found, i, known, shouting)
            claims.append(_name(found, i, end, known))
            i = end
        else:
            i += 1
    return claims


def _begins_name(found: tuple[Token, ...], i: int, known: Container[str], shouting: bool) -> bool:
    token = found[i]
    if not token.word or token.quantity or token.fold in STOP or (i == 0 and token.fold in OPENERS):
        return False
    if token.fold in DIRECTIONS or token.stem in MONEY:
        return True
    if token.fold in SMALL_MODIFIERS and i + 1 < len(found) and found[i + 1].capital:
        return True
    return token.stem in known if shouting else token.capital or token.stem in known


def _end_of_name(found: tuple[Token, ...], start: int, known: Container[str], shouting: bool) -> int:
    end = start + 1
    while end < len(found):
        step = end
        while step < len(found) and found[step].fold in CONNECTORS:
            step += 1
        if step >= len(found) or step - end > 2 or (step > end and not found[start].capital):
            break
        token = found[step]
        if not token.word or token.quantity or token.fold in STOP - {"us"}:
            break
        if not (token.capital or token.stem in MONEY or (shouting and token.stem in known)):
            break
        end = step + 1
    return end


def _name(found: tuple[Token, ...], first: int, end: int, known: Container[str]) -> Claim:
    start = first
    while start < end - 1 and found[start].fold in TITLES:
        start += 1
    run = found[start:end]
    words = "".join(f"{'-' if k and t.glued else ' '}{t.stem}" for k, t in enumerate(run)).split()
    token = found[first]
    weak = first == 0 and end == 1 and token.stem not in known and not token.raw[1:].isupper()
    text = " ".join(t.raw for t in run).removesuffix("'s")
    return Claim(start, text, tuple(words), relation=_relation(found, first), length=end - start, weak=weak)


def _relation(found: tuple[Token, ...], at: int) -> str:
    while at > 0 and found[at - 1].fold in ("the", "a", "an", "about"):
        at -= 1
    before = found[at - 1].fold if at else ""
    return before if before in RELATIONS else ""


def _without_topic(claims: list[Claim], found: tuple[Token, ...], topic: tuple[str, ...]) -> list[Claim]:
    """Leave out the topic's names, unless the sentence gives the topic as a value ("It borders X" of X)."""
    kept: list[Claim] = []
    spoken_of = bool(found) and found[0].fold in ("it", "its")
    for claim in claims:
        if claim.words and is_topic(claim.words, topic):
            if spoken_of and not claim.relation and claim.at > 1:
                kept.append(claim)
            spoken_of = True
        else:
            kept.append(claim)
    return kept


def is_topic(words: tuple[str, ...], topic: tuple[str, ...]) -> bool:
    """Whether a name is the topic or a part of it: Douglas of William Douglas, not Africa of South Africa."""
    name = flat(words)
    if name == topic:
        return True
    for i in range(len(topic) - len(name) + 1):
        if topic[i : i + len(name)] == name:
            return name[0] not in MODIFIERS and (i == 0 or topic[i - 1] not in MODIFIERS)
    return False


@dataclass(slots=True)
class _Group:
    """A clause in the making."""

    words: dict[str, str] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    negated: bool = False
    lead: Claim | None = None
    ahead: frozenset[str] = frozenset()


def clauses(found: tuple[Token, ...], claims: list[Claim], predicates: Container[str]) -> list[Clause]:
    """Group the claims around words.

    Behind a boundary (a comma, "and", "with") a new clause begins with a word of ``predicates``, a pronoun
    or a verb such as "is": "Its capital is A, and its population is 5" are two.
    """
    at = {claim.at: claim for claim in claims}
    inside = {i for claim in claims for i in range(claim.at, claim.at + claim.length)}
    groups = [_Group()]
    boundary = False
    for i, token in enumerate(found):
        group = groups[-1]
        if i in inside:
            if i in at:
                _add_claim(group, at[i], boundary or not found[i - 1].word)
                boundary = False
            continue
        starts = token.fold in RESTARTS or (token.stem in predicates and token.fold not in STOP)
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
        group.ahead = frozenset(w for w in group.words if not w.endswith("ly"))
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
    return [Clause(g.words, tuple(g.claims), g.negated, g.lead if len(g.claims) > 1 else None, g.ahead) for g in whole]

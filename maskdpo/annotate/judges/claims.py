"""What a sentence claims: its names, numbers and dates, each with the words that say what is claimed.

``tokens`` knows no reference, so that it can be cached by text; ``names`` and ``clauses`` then read the tokens with the
words that a reference knows.
"""

import re
import unicodedata
from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import lru_cache

from maskdpo.annotate.judges.quantities import (
    DATE,
    NUMBER,
    Quantity,
    make_number,
    parse_date,
    parse_number,
    span_of,
)
from maskdpo.annotate.judges.words import (
    BOUNDARIES,
    CONNECTORS,
    MODIFIERS,
    NEGATIONS,
    RELATIONS,
    SPELLED,
    STOP,
    TITLES,
)

_TOKEN = re.compile(
    rf"{DATE}|{NUMBER}|(?P<abbr>(?:[A-Z]\.){{2,}})|(?P<han>[\u3400-\u9fff])"
    r"|(?P<word>[^\W_\u3400-\u9fff]+(?:'[^\W\d_]+)*)|(?P<punct>[^\w\s]|_)",
    re.IGNORECASE,
)
_QUOTES = str.maketrans("’‘ʼ`“”–‑—，、", "''''\"\"--,,,")


@dataclass(frozen=True, slots=True)
class Token:
    """A word, a number or a sign. ``fold``: without case and accents; ``glued``: a hyphen stands before it."""

    raw: str
    fold: str
    stem: str
    capital: bool = False
    glued: bool = False
    quantity: Quantity | None = None
    word: bool = True


@dataclass(frozen=True, slots=True)
class Claim:
    """A name (``words``) or a quantity, at a place in the token list."""

    at: int
    text: str
    words: tuple[str, ...] = ()
    quantity: Quantity | None = None
    relation: str = ""
    length: int = 1
    weak: bool = False
    """A first word of a sentence that may or may not be a name."""

    @property
    def kind(self) -> str:
        return self.quantity.kind if self.quantity else "name"


@dataclass(frozen=True, slots=True)
class Clause:
    """Claims, and the words that say what is claimed of them."""

    words: frozenset[str]
    claims: tuple[Claim, ...]
    negated: bool
    lead: Claim | None = None
    """The name that the clause begins with, where other claims follow: what it speaks of."""


@lru_cache(maxsize=65536)
def fold(word: str) -> str:
    """Without case, accents, dots and a possessive ending."""
    word = word.casefold().removesuffix("'s").replace(".", "").replace("'", "")
    if word.isascii():
        return word
    return "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """A rough stem of a folded word: enough that "borders" meets "bordering", and "kilometres" "kilometer"."""
    if len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    word = re.sub(r"metre$", "meter", re.sub(r"our$", "or", word))
    for ending in ("ing", "ed"):
        if len(word) > len(ending) + 3 and word.endswith(ending):
            word = word.removesuffix(ending)
            break
    return word[:-1] if len(word) > 4 and word.endswith("e") else word


@lru_cache(maxsize=65536)
def tokens(text: str) -> tuple[Token, ...]:
    """The tokens of a text, ranges of numbers put together."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_QUOTES)).translate(_QUOTES)
    found: list[Token] = []
    end, hyphen = 0, False
    for match in _TOKEN.finditer(text):
        form, raw = match.lastgroup or "", match[0]
        if form == "punct" and raw == "-":
            hyphen = True
            end = match.end()
            continue
        glued = hyphen and match.start() == end
        hyphen = False
        end = match.end()
        found.append(_token(match, form, raw, glued, found))
    return tuple(_with_ranges(found))


def _token(match: re.Match[str], form: str, raw: str, glued: bool, before: list[Token]) -> Token:
    quantity = None
    if form == "punct":
        return Token(raw, raw, raw, glued=glued, word=False)
    if match["num"] is not None:
        hedge = before[-1].fold if before else ""
        quantity = parse_number(match, hedge)
        form = "num"
    elif form in ("mdy", "dmy", "iso", "zh", "my", "md", "dm"):
        quantity = parse_date(form, raw.lower())
    folded = fold(raw)
    if folded in SPELLED and form == "word":
        quantity = make_number(raw, SPELLED[folded], 1.0, "", "")
    return Token(raw, folded, stem(folded), raw[0].isupper() and form in ("word", "abbr"), glued, quantity)


def _with_ranges(found: list[Token]) -> Iterator[Token]:
    i = 0
    while i < len(found):
        token = found[i]
        first = token.quantity
        joined = 0
        if first is not None and not first.date:
            if i + 1 < len(found) and found[i + 1].glued and found[i + 1].quantity:
                joined = 1
            elif (
                i + 2 < len(found)
                and found[i + 2].quantity
                and i
                and (
                    (found[i + 1].fold == "and" and found[i - 1].fold == "between")
                    or found[i + 1].fold == "to"
                )
            ):
                joined = 2
        last = found[i + joined].quantity
        if joined and first and last and first.unit != "year" and not last.date:
            text = f"{first.text} to {last.text}"
            yield Token(text, text, text, quantity=span_of(first, last, text))
            i += joined + 1
        else:
            yield token
            i += 1


def names(found: tuple[Token, ...], known: Container[str]) -> list[Claim]:
    """The names: runs of capitalised words, and words that ``known`` has only as names, whatever their case."""
    claims: list[Claim] = []
    shouting = sum(t.capital and len(t.raw) > 1 and t.raw.isupper() for t in found) > 0.6 * max(3, len(found))
    i = 0
    while i < len(found):
        if not _may_begin_name(found, i, known, shouting):
            i += 1
            continue
        end = _run_end(found, i, known, shouting)
        start = i
        while start < end - 1 and found[start].fold in TITLES:
            start += 1
        parts = [f"{'-' if k and t.glued else ' '}{t.stem}" for k, t in enumerate(found[start:end])]
        words = tuple("".join(parts).split())
        single = end - i == 1
        weak = i == 0 and single and found[0].stem not in known and not found[0].raw[1:].isupper()
        text = " ".join(t.raw for t in found[start:end]).removesuffix("'s")
        claims.append(Claim(start, text, words, relation=_relation(found, i), length=end - start, weak=weak))
        i = end
    return claims


def _may_begin_name(found: tuple[Token, ...], i: int, known: Container[str], shouting: bool) -> bool:
    token = found[i]
    if not token.word or token.quantity or token.fold in STOP:
        return False
    return token.stem in known if shouting else token.capital or token.stem in known


def _run_end(found: tuple[Token, ...], start: int, known: Container[str], shouting: bool) -> int:
    end = start + 1
    while end < len(found):
        step = end
        while step < len(found) and found[step].fold in CONNECTORS and found[step].fold not in ("and",):
            step += 1
        if step >= len(found) or step - end > 2:
            break
        token = found[step]
        if not token.word or token.quantity or not (token.capital or (shouting and token.stem in known)):
            break
        if token.fold in STOP and token.fold != "us":
            break
        end = step + 1
    return end


def _relation(found: tuple[Token, ...], at: int) -> str:
    """The preposition that the claim hangs on."""
    while at > 0 and found[at - 1].fold in ("the", "a", "an", "about"):
        at -= 1
    before = found[at - 1].fold if at else ""
    return before if before in RELATIONS else ""


def quantities(found: tuple[Token, ...]) -> list[Claim]:
    return [
        Claim(i, token.quantity.text.strip(), quantity=token.quantity)
        for i, token in enumerate(found)
        if token.quantity is not None
    ]


def clauses(found: tuple[Token, ...], claims: list[Claim], predicates: Container[str]) -> list[Clause]:
    """Group the claims around words: a word of ``predicates`` behind a boundary begins a new clause."""
    at = {claim.at: claim for claim in claims}
    inside = {i for claim in claims for i in range(claim.at, claim.at + claim.length)}
    groups: list[tuple[set[str], list[Claim], list[bool]]] = [(set(), [], [])]
    boundary = False
    for i, token in enumerate(found):
        words, held, negations = groups[-1]
        if i in at:
            held.append(at[i])
            boundary = False
        elif i in inside:
            continue
        elif token.fold in NEGATIONS or token.raw.endswith("n't"):
            negations.append(True)
        elif token.fold in BOUNDARIES:
            boundary = True
            if token.fold == "but" and negations:
                groups.append((set(words), [], []))
        elif token.word and token.fold not in STOP and token.quantity is None:
            if held and boundary and token.stem in predicates:
                words, held, negations = set(), [], []
                groups.append((words, held, negations))
            words.add(token.stem)
            boundary = False
    return _merged(groups)


def _merged(groups: list[tuple[set[str], list[Claim], list[bool]]]) -> list[Clause]:
    """Clauses from groups; one without claims belongs to the one before it."""
    whole: list[tuple[set[str], list[Claim], bool]] = []
    for words, held, negations in groups:
        if not held and whole:
            whole[-1][0].update(words)
        else:
            whole.append((words, held, bool(negations)))
    return [Clause(frozenset(words), tuple(held), negated) for words, held, negated in whole]


def without_topic(claims: list[Claim], found: tuple[Token, ...], topic: tuple[str, ...]) -> list[Claim]:
    """Leave out the names that are the topic itself, unless the sentence gives the topic as a value ("It borders X")."""
    if not topic:
        return claims
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
    flat = tuple(part for word in words for part in word.split("-"))
    if flat == topic:
        return True
    for i in range(1, len(topic) - len(flat) + 1):
        if topic[i : i + len(flat)] == flat:
            return topic[i - 1] not in MODIFIERS
    return bool(flat) and len(flat) < len(topic) and topic[: len(flat)] == flat and flat[0] not in MODIFIERS

"""Text to words, numbers, dates and signs, folded so that spellings of one thing meet."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import zip_longest

from maskdpo.text.claims.quantities import (
    DATE,
    DATE_FORMS,
    NUMBER,
    Quantity,
    join,
    make_number,
    parse_date,
    parse_number,
)
from maskdpo.text.claims.words import MAGNITUDES, SPELLED

_TOKEN = re.compile(
    rf"{DATE}|{NUMBER}|(?P<abbr>(?-i:(?:[A-Z]\.){{2,}}|\b[A-Z]\.(?=\s[A-Z][^\W\d_])))|(?P<han>[\u3400-\u9fff])"
    r"|(?P<word>[^\W_\u3400-\u9fff]+(?:'[^\W\d_]+)*)|(?P<punct>[^\w\s]|_)",
    re.IGNORECASE,
)
_SIGNS = str.maketrans("’‘ʼ`“”–‑—，、", "''''\"\"--,,,")


@dataclass(frozen=True, slots=True)
class Token:
    """A word, a number or a sign."""

    raw: str
    fold: str
    """Without case and accents."""
    stem: str
    capital: bool = False
    glued: bool = False
    """A hyphen joins it to the token before it."""
    quantity: Quantity | None = None
    word: bool = True
    caseless: bool = False
    """In a script without capitals."""


@lru_cache(maxsize=65536)
def fold(word: str) -> str:
    """Without case, accents, dots and a possessive ending."""
    word = word.casefold().removesuffix("'s").replace(".", "").replace("'", "")
    if word.isascii():
        return word
    return "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """A rough stem of a folded word: enough that "borders" meets "bordering", and "metres" "meter"."""
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
    """The tokens of a text; "between 5 and 6 million" and "two million" are one each."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_SIGNS)).translate(_SIGNS)
    found: list[Token] = []
    hyphen_end = -1
    for match in _TOKEN.finditer(text):
        if match[0] == "-":
            hyphen_end = match.end()
            continue
        found.append(_token(match, match.start() == hyphen_end, found[-1] if found else None))
    return tuple(_with_magnitudes(list(_with_ranges(found))))


def _token(match: re.Match[str], glued: bool, before: Token | None) -> Token:
    form, raw = match.lastgroup or "", match[0]
    if form == "punct":
        return Token(raw, raw, raw, glued=glued, word=False)
    quantity = None
    folded = fold(raw)
    if match["num"] is not None:
        quantity = parse_number(match, before.fold if before else "")
    elif form in DATE_FORMS:
        quantity = parse_date(form, raw.lower())
    elif folded in SPELLED:
        quantity = make_number(raw, SPELLED[folded], 1.0, "", "")
    word = form in ("word", "abbr", "han")
    caseless = word and raw[0].isalpha() and raw.lower() == raw.upper()
    return Token(raw, folded, stem(folded), word and raw[0].isupper(), glued, quantity, caseless=caseless)


def _with_ranges(found: list[Token]) -> Iterator[Token]:
    i = 0
    while i < len(found):
        step = _range_step(found, i)
        if _short_year(found, i):
            century = str(found[i - 1].fold)[:2]
            year = int(century + found[i].fold)
            yield replace(found[i], quantity=Quantity(found[i].raw, year, year, year, "year"))
            i += 1
            continue
        first, last = found[i].quantity, found[i + step].quantity
        if step and first and last:
            quantity = join(first, last)
            yield Token(quantity.text, quantity.text, quantity.text, quantity=quantity)
        else:
            yield found[i]
        i += step + 1


def _short_year(found: list[Token], i: int) -> bool:
    """The 05 of 1904-05."""
    before = found[i - 1].quantity if i else None
    short = found[i].glued and len(found[i].fold) == 2 and found[i].fold.isdecimal()
    return bool(short and before and before.unit == "year" and not before.date)


def _range_step(found: list[Token], i: int) -> int:
    """How far on the other end of a range stands that begins here; 0 where none does. Years are no range."""
    first = found[i].quantity
    if first is None or first.unit in ("year", "nth"):
        return 0
    after = [t.quantity for t in found[i + 1 : i + 3]]
    if after and after[0] and found[i + 1].glued and after[0].unit != "year":
        return 1
    if len(after) > 1 and after[1] and after[1].unit not in ("year", "nth"):
        between = found[i + 1].fold == "and" and i > 0 and found[i - 1].fold == "between"
        return 2 if between or found[i + 1].fold == "to" else 0
    return 0


def _with_magnitudes(found: list[Token]) -> Iterator[Token]:
    """Put "two" and "million" together."""
    skip = False
    for token, after in zip_longest(found, found[1:]):
        if skip:
            skip = False
        elif token.quantity and token.fold in SPELLED and after and after.fold in MAGNITUDES:
            text, scale = f"{token.raw} {after.raw}", MAGNITUDES[after.fold]
            quantity = make_number(text, token.quantity.value * scale, scale, "", "")
            yield Token(text, text, text, quantity=quantity)
            skip = True
        elif token.fold == "one":  # mostly a pronoun: "one of the largest"
            yield Token(token.raw, token.fold, token.stem, token.capital, token.glued)
        else:
            yield token

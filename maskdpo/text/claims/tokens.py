"""Text to words, numbers, dates and signs, folded so that different spellings of one word are equal."""

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
    join_range,
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
    hyphenated: bool = False
    """A hyphen joins it to the token before it."""
    quantity: Quantity | None = None
    word: bool = True
    caseless: bool = False
    """The token is in a script without capitals."""


@lru_cache(maxsize=65536)
def fold(word: str) -> str:
    """Without case, accents, dots and a possessive ending."""
    word = word.casefold().removesuffix("'s").replace(".", "").replace("'", "")
    if word.isascii():
        return word
    return "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """A rough stem of a folded word: "borders" and "bordering" have the same one, as have "metres" and "meter"."""
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
def tokenize(text: str) -> tuple[Token, ...]:
    """The tokens of a text; "between 5 and 6 million" is one token, and so is "two million"."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.translate(_SIGNS)).translate(_SIGNS)
    tokens: list[Token] = []
    hyphen_end = -1
    for match in _TOKEN.finditer(text):
        if match[0] == "-":
            hyphen_end = match.end()
            continue
        tokens.append(_token(match, match.start() == hyphen_end, tokens[-1] if tokens else None))
    if not any(token.quantity for token in tokens):
        return tuple(tokens)
    return tuple(_with_magnitudes(list(_with_ranges(tokens))))


def _token(match: re.Match[str], hyphenated: bool, before: Token | None) -> Token:
    form, raw = match.lastgroup or "", match[0]
    if form == "punct":
        return Token(raw, raw, raw, hyphenated=hyphenated, word=False)
    if form in ("word", "abbr", "han"):
        return _word(raw, hyphenated)
    folded = fold(raw)
    if match["num"] is not None:
        quantity = parse_number(match, before.fold if before else "")
    else:
        quantity = parse_date(form, raw.lower()) if form in DATE_FORMS else None
    return Token(raw, folded, stem(folded), False, hyphenated, quantity)


@lru_cache(maxsize=65536)
def _word(raw: str, hyphenated: bool) -> Token:
    folded = fold(raw)
    quantity = make_number(raw, SPELLED[folded], 1.0, "", "") if folded in SPELLED else None
    caseless = raw[0].isalpha() and raw.lower() == raw.upper()
    return Token(raw, folded, stem(folded), raw[0].isupper(), hyphenated, quantity, caseless=caseless)


def _with_ranges(tokens: list[Token]) -> Iterator[Token]:
    i = 0
    while i < len(tokens):
        step = _range_step(tokens, i)
        if _short_year(tokens, i):
            century = str(tokens[i - 1].fold)[:2]
            year = int(century + tokens[i].fold)
            yield replace(tokens[i], quantity=Quantity(tokens[i].raw, year, year, year, "year"))
            i += 1
            continue
        first, last = tokens[i].quantity, tokens[i + step].quantity
        if step and first and last:
            quantity = join_range(first, last)
            yield Token(quantity.text, quantity.text, quantity.text, quantity=quantity)
        else:
            yield tokens[i]
        i += step + 1


def _short_year(tokens: list[Token], i: int) -> bool:
    """The 05 of 1904-05."""
    before = tokens[i - 1].quantity if i else None
    short = tokens[i].hyphenated and len(tokens[i].fold) == 2 and tokens[i].fold.isdecimal()
    return bool(short and before and before.unit == "year" and not before.date)


def _range_step(tokens: list[Token], i: int) -> int:
    """The distance in tokens to the end of a range that begins here; 0 where none begins. Years make no range."""
    first = tokens[i].quantity
    if first is None or first.unit in ("year", "nth"):
        return 0
    after = [t.quantity for t in tokens[i + 1 : i + 3]]
    if after and after[0] and tokens[i + 1].hyphenated and after[0].unit != "year":
        return 1
    if len(after) > 1 and after[1] and after[1].unit not in ("year", "nth"):
        between = tokens[i + 1].fold == "and" and i > 0 and tokens[i - 1].fold == "between"
        return 2 if between or tokens[i + 1].fold == "to" else 0
    return 0


def _with_magnitudes(tokens: list[Token]) -> Iterator[Token]:
    """Put "two" and "million" together."""
    skip = False
    for token, after in zip_longest(tokens, tokens[1:]):
        if skip:
            skip = False
        elif token.quantity and token.fold in SPELLED and after and after.fold in MAGNITUDES:
            text, scale = f"{token.raw} {after.raw}", MAGNITUDES[after.fold]
            quantity = make_number(text, token.quantity.value * scale, scale, "", "")
            yield Token(text, text, text, quantity=quantity)
            skip = True
        elif token.fold == "one":  # mostly a pronoun: "one of the largest"
            yield Token(token.raw, token.fold, token.stem, token.capital, token.hyphenated)
        else:
            yield token

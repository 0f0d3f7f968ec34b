"""The words by which texts are looked up, and the library that looks them up (BM25)."""

import re
import unicodedata
from functools import lru_cache
from itertools import chain, pairwise
from typing import Any

from maskdpo.text.claims.tokens import fold, stem

# Scripts without spaces between words: Chinese, Japanese, Thai, Lao, Burmese, Khmer.
_UNSPACED = r"\u0e01-\u0ebf\u1000-\u109f\u1780-\u17d3\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
# Marks inside words of Hebrew, Arabic and Indic scripts, which are no letters for ``re``: points and vowel signs.
_MARKS = r"\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff"
_LETTER = rf"[^\W\d_{_UNSPACED}]"
_TOKEN = re.compile(
    rf"[{_UNSPACED}]+|\d+(?:,\d{{3}}(?!\d))*(?:\.\d+)?|{_LETTER}(?:[^\W_{_UNSPACED}]|[{_MARKS}])*(?:'{_LETTER}+)*"
)
# A text that has only these words in common with a sentence scores 0 for it.
_ENGLISH = """a an and are as at be been but by for from had has have in into is it its of on or that the their there
these they this to was were which will with"""
_STOP_WORDS = frozenset([*_ENGLISH.split(), *"的了是在和与也为于"])
_SHORT = 32  # characters up to which words are remembered; sentences without spaces are longer


TERMS = "1"
"""Changes with what ``terms`` finds: indexes on disk are made of that."""


def terms(text: str) -> list[str]:
    """The terms of a text, in their order: stems, numbers, Chinese characters and pairs of them; no stop words."""
    words = text.split()  # no term reaches across white space
    short = max(map(len, words), default=0) <= _SHORT
    return list(chain.from_iterable(map(_of_short_word if short else _of_word, words)))


def _of_word(word: str) -> tuple[str, ...]:
    plain = unicodedata.normalize("NFKC", word.replace("’", "'"))
    return tuple(chain.from_iterable(map(_terms, _TOKEN.findall(plain))))


_of_short_word = lru_cache(maxsize=262144)(_of_word)  # the pattern takes longer than all else in a million passages


def _terms(token: str) -> tuple[str, ...]:
    """The terms of a token: a stem, a number without thousands separators, Chinese characters and pairs of them."""
    if re.match(f"[{_UNSPACED}]", token):
        return (*(c for c in token if c not in _STOP_WORDS), *(a + b for a, b in pairwise(token)))
    if token[0].isdecimal():
        return (token.replace(",", ""),)
    word = fold(token)
    return () if word in _STOP_WORDS else (stem(word),)


def bm25s() -> Any:
    """The module ``bm25s``, without its progress bars: even a hidden one starts a thread. Slow to import."""
    import bm25s

    bm25s.tqdm = bm25s.scoring.tqdm = lambda steps, **_: steps
    return bm25s

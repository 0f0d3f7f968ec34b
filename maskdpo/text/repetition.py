"""How much an answer repeats itself, whatever its language."""

import re
from typing import NamedTuple

N = 4
_WORD = re.compile(r"[\u3041-\u30ff\u3400-\u9fff\u0e01-\u0e3a]|[^\W_]+")
"""A word; in scripts without spaces a character."""


class Repeated(NamedTuple):
    """Sequences of four words of an answer."""

    repeated: int
    """Those that stand in the answer for the second time or more."""
    grams: int


def repeated(answer: str) -> Repeated:
    """Count them, without regard to case. An answer of three words has none."""
    words = [word.lower() for word in _WORD.findall(answer)]
    grams = [tuple(words[i : i + N]) for i in range(len(words) - N + 1)]
    return Repeated(len(grams) - len(set(grams)), len(grams))

"""How much an answer says that can be checked: its names, numbers and dates, counted without reference and judge."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from maskdpo.text.claims.claims import find_claims
from maskdpo.text.claims.tokens import tokenize


class ClaimCounts(NamedTuple):
    """Different names, numbers and dates of one answer."""

    names: int = 0
    numbers: int = 0
    dates: int = 0


def named(sentence: str) -> set[tuple[str, object]]:
    """The different names, numbers and dates of a sentence, each with its kind (``name``, ``number`` or ``date``).

    The first word of a sentence is no name by its capital letter alone. Scripts without capitals, such as Chinese, have
    numbers, dates and Latin names only.
    """
    found: set[tuple[str, object]] = set()
    for claim in find_claims(tokenize(sentence), frozenset(), ()):
        quantity = claim.quantity
        if quantity is not None:
            found.add((quantity.kind, (quantity.low, quantity.high, quantity.unit, quantity.date)))
        elif not claim.weak:
            found.add(("name", claim.words))
    return found


def count_claims(sentences: Iterable[str]) -> ClaimCounts:
    """Count the claims of an answer, each once however often the answer repeats it."""
    found = set[tuple[str, object]]().union(*map(named, sentences))
    kinds = Counter(kind for kind, _ in found)
    return ClaimCounts(kinds["name"], kinds["number"], kinds["date"])

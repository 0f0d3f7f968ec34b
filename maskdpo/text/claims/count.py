"""How much an answer says that can be checked: its names, numbers and dates, counted without reference and judge."""

from collections.abc import Iterable
from typing import NamedTuple

from maskdpo.text.claims.claims import find_claims
from maskdpo.text.claims.tokens import tokenize


class ClaimCounts(NamedTuple):
    """Different names, numbers and dates of one answer."""

    names: int = 0
    numbers: int = 0
    dates: int = 0


def count_claims(sentences: Iterable[str]) -> ClaimCounts:
    """Count the claims of an answer, each once however often the answer repeats it.

    The first word of a sentence is no name by its capital letter alone. Scripts without capitals, such as Chinese, have
    numbers, dates and Latin names only.
    """
    found: dict[str, set[object]] = {kind: set() for kind in ("name", "number", "date")}
    for sentence in sentences:
        for claim in find_claims(tokenize(sentence), frozenset(), ()):
            quantity = claim.quantity
            if quantity is not None:
                found[quantity.kind].add((quantity.low, quantity.high, quantity.unit, quantity.date))
            elif not claim.weak:
                found["name"].add(claim.words)
    return ClaimCounts(len(found["name"]), len(found["number"]), len(found["date"]))

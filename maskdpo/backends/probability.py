"""How likely a choice was among the offered ones, from the log-probabilities that a server reports.

A reply spells its choice in tokens. At every token the offered choices are either all still possible or some
drop out; the probability of the chosen one is the product, over the tokens where some drop out, of its share
among the offered. Servers report a few alternatives a token only. Where what they leave out could matter, the
probability is None.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

TOLERANCE = 0.02
"""The largest share of a step's probability that may be in doubt."""


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token of a reply: its bytes, its log-probability, and the likeliest tokens at its place."""

    text: bytes
    logprob: float
    top: Mapping[bytes, float] = field(default_factory=dict)


def choice_probability(
    tokens: Sequence[ScoredToken], options: Sequence[bytes], chosen: bytes, *, head: int | None = None
) -> float | None:
    """The probability of ``chosen`` among ``options``, or None where the tokens do not tell.

    Args:
        tokens: the reply's tokens, from its first one on.
        options: the texts that the reply could have begun with, one per offered choice.
        chosen: the one it does begin with.
        head: for JSON, where so many bytes, the same for all, come before the choice, and a delimiter ends it,
            so that a token may run past an option's end (``y"}`` for ``y"``); the probability is that of the choice
            after this head. None: the options are bare texts.
    """
    closed = head is not None
    if not closed and any(option != chosen and option.startswith(chosen) for option in options):
        return None  # what follows decides between the two, and it is not among the reply's tokens
    probability, done = 1.0, b""
    for token in tokens:
        live = frozenset(option for option in options if option.startswith(done))
        if live == {chosen}:
            return probability
        in_head = head is not None and len(done) + len(token.text) <= head
        share = _share(token, live, chosen, done, closed, in_head)
        if share is None:
            return None
        probability *= share
        done += token.text
    decided = [option for option in options if _fits(option, done, closed)] == [chosen]
    return probability if decided else None


def _share(
    token: ScoredToken, live: frozenset[bytes], chosen: bytes, done: bytes, closed: bool, in_head: bool
) -> float | None:
    """The token's share among the tokens that go on with an offered choice."""
    path = _fitting(live, done + token.text, closed)
    if chosen not in path:
        return None
    same = other = doubtful = 0.0
    covered: frozenset[bytes] = frozenset()
    for text, logprob in {token.text: token.logprob, **token.top}.items():
        fitting = _fitting(live, done + text, closed) if text else frozenset()
        covered |= fitting
        if fitting == path and (text == token.text or path == {chosen} or in_head):
            same += math.exp(logprob)
        elif chosen in fitting:  # other tokens on the way to the same choice: what would have followed is unknown
            doubtful += math.exp(logprob)
        elif fitting:
            other += math.exp(logprob)
    # a choice that no reported token begins is at most as likely as the last reported one
    least = math.exp(min(token.top.values())) if token.top else 1.0
    seen = sum(math.exp(logprob) for logprob in {token.text: token.logprob, **token.top}.values())
    unseen = min(len(live - covered) * least, max(0.0, 1.0 - seen))
    total = same + other + doubtful
    sure = math.isfinite(total) and total > 0 and doubtful + unseen <= TOLERANCE * total
    return same / total if sure else None


def _fitting(options: frozenset[bytes], text: bytes, closed: bool) -> frozenset[bytes]:
    return frozenset(option for option in options if _fits(option, text, closed))


def _fits(option: bytes, text: bytes, closed: bool) -> bool:
    return option.startswith(text) or (closed and text.startswith(option))

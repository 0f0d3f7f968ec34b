"""The probabilities of the offered choices, from the log-probabilities that a server reports.

A reply spells its choice in tokens. Each token either fits all choices that are still possible, or excludes some.
The probability of the chosen one is the product of its shares at the tokens that exclude others; what a token excludes
is the probability of another choice where it leads to this one choice alone. Servers report only a few alternatives per
token. Where the alternatives that they leave out could matter, no probability is known.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

TOLERANCE = 0.02
"""The largest share of the probability at a token that may be unknown."""


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token of a reply: its bytes, its log-probability, and the most probable tokens at its position."""

    text: bytes
    logprob: float
    top: Mapping[bytes, float] = field(default_factory=dict)


def choice_probabilities(
    tokens: Sequence[ScoredToken], options: Sequence[bytes], chosen: bytes, *, head: int | None = None
) -> dict[bytes, float]:
    """The probabilities of ``chosen`` and of the other ``options``; empty where the tokens do not determine the first.

    An option is missing where no reported token leads to it, and where reported tokens lead to several options.

    Args:
        tokens: the tokens of the reply, from the first one.
        options: the texts that the reply could begin with, one per offered choice.
        chosen: the text that it begins with.
        head: for JSON, the number of bytes before the choice, which are the same for all options. A delimiter ends the
            choice, so a token may reach beyond the end of an option (``y"}`` for ``y"``). The probability is that of
            the choice after this head. None: the options are plain texts.
    """
    closed = head is not None
    if not closed and any(option != chosen and option.startswith(chosen) for option in options):
        return {}  # the text after it would decide between the two, and no token shows it
    probability, done = 1.0, b""
    others: dict[bytes, float] = defaultdict(float)
    shared: set[bytes] = set()
    for token in tokens:
        live = frozenset(option for option in options if option.startswith(done))
        if live == {chosen}:
            break
        in_head = head is not None and len(done) + len(token.text) <= head
        share = _share(token, live, chosen, done, closed, in_head)
        if share is None:
            return {}
        for fitting, other in share.others.items():
            if len(fitting) == 1:
                others[next(iter(fitting))] += probability * other
            else:
                shared |= fitting
        probability *= share.chosen
        done += token.text
    else:
        if [option for option in options if _fits(option, done, closed)] != [chosen]:
            return {}
    return {chosen: probability, **{option: share for option, share in others.items() if option not in shared}}


class _Share(NamedTuple):
    """The share of a token among the tokens that continue an offered choice, and those of the other tokens by the
    choices that they lead to.
    """

    chosen: float
    others: dict[frozenset[bytes], float]


def _share(
    token: ScoredToken, live: frozenset[bytes], chosen: bytes, done: bytes, closed: bool, in_head: bool
) -> _Share | None:
    path = _fitting(live, done + token.text, closed)
    if chosen not in path:
        return None
    same = doubtful = 0.0
    others: dict[frozenset[bytes], float] = defaultdict(float)
    covered: frozenset[bytes] = frozenset()
    for text, logprob in {token.text: token.logprob, **token.top}.items():
        fitting = _fitting(live, done + text, closed) if text else frozenset()
        covered |= fitting
        if fitting == path and (text == token.text or path == {chosen} or in_head):
            same += math.exp(logprob)
        elif chosen in fitting:  # another token that begins the chosen option: what would have followed is unknown
            doubtful += math.exp(logprob)
        elif fitting:
            others[fitting] += math.exp(logprob)
    # a choice that no reported token begins is at most as probable as the last reported one
    least = math.exp(min(token.top.values())) if token.top else 1.0
    seen = sum(math.exp(logprob) for logprob in {token.text: token.logprob, **token.top}.values())
    unseen = min(len(live - covered) * least, max(0.0, 1.0 - seen))
    total = same + sum(others.values()) + doubtful
    if not (math.isfinite(total) and total > 0 and doubtful + unseen <= TOLERANCE * total):
        return None
    return _Share(same / total, {fitting: other / total for fitting, other in others.items()})


def _fitting(options: frozenset[bytes], text: bytes, closed: bool) -> frozenset[bytes]:
    return frozenset(option for option in options if _fits(option, text, closed))


def _fits(option: bytes, text: bytes, closed: bool) -> bool:
    return option.startswith(text) or (closed and text.startswith(option))

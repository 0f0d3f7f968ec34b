"""Figures with their 95% intervals over topics, which are independent of each other, as the sentences of a topic are
not.

**Variance.** The jackknife (Tukey 1958): with theta_k the figure without topic k, of G topics,

    v = (G - 1) / G  sum over k of (theta_k - theta)^2.

Nothing is drawn, so there is no seed, and memory grows with the topics alone. Where G is large and theta_k is dear,
groups of topics are left out instead of single ones (``leave_out``).

**Interval.** Student's t with d degrees of freedom, because v itself is known from G topics only:

    d = min(G - 1, 2 G / (kappa - 1)),    kappa = G sum u_k^4 / (sum u_k^2)^2,    u_k = theta_k - theta.

The second term (Satterthwaite 1946) says what v is worth where few topics make most of it; for normal u_k it is about
G. The interval is symmetric on a scale without bounds: the log-odds for a share, the logarithm for a number per answer.

**All topics alike.** v = 0 does not say that nothing varies: if a share q = 1 - 0.025^(1/G) of all topics were
otherwise, G topics would still be alike with probability 0.025. So the interval reaches q times as far as a topic may
be away: to the farther bound of a share, to 0 for a number per answer, to the opposite of a difference. A share that is
0 everywhere has [0, q]. Where that is no way, as for a difference of 0, there is no interval.
docs/evaluate.md has what such intervals cover, measured.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bounds = tuple[float, float]

SHARE: Bounds = (0.0, 1.0)
BELOW_ONE: Bounds = (-1.0, 1.0)
"""Of agreement beyond chance."""
AT_LEAST_0: Bounds = (0.0, math.inf)
UNBOUNDED: Bounds = (-math.inf, math.inf)
"""Of differences."""

FEW_TOPICS = 10
"""Intervals over fewer topics rest on too little: no difference is called sure by them."""
TAIL = 0.025
ROUNDING = 1e-10
"""Differences that are as small as this come from floats."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval; NaN where it has none."""

    value: float
    low: float
    high: float
    topics: int = 0
    """On how many topics the figure rests; 0: on none, or this is not known."""

    @property
    def sure(self) -> bool:
        """Whether the figure, a difference, is told from 0: the interval leaves out 0 and rests on enough topics."""
        return self.topics >= FEW_TOPICS and (self.low > 0 or self.high < 0)

    @classmethod
    def of(cls, value: float, without: Floats, bounds: Bounds) -> Self:
        """The interval around ``value``.

        Args:
            without: [G], the figure without each topic (or group of topics) on which it rests.
            bounds: of the figure. Both may be infinite, or the upper one alone.
        """
        if math.isnan(value):
            return cls(math.nan, math.nan, math.nan)
        change, topics = without - value, len(without)
        if topics < 2 or not np.isfinite(change).all():
            return cls(float(value), math.nan, math.nan, topics)
        if np.abs(change).max() <= ROUNDING * max(1.0, abs(value)):
            return cls(float(value), *_where_all_are_alike(float(value), topics, bounds), topics)
        half = _half_width(change)
        return cls(float(value), *_around(float(value), half, bounds), topics)

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "-"
        return _short(self.value) + ("" if math.isnan(self.low) else f" [{_short(self.low)}, {_short(self.high)}]")

    def signed(self) -> str:
        """A difference as text: with signs, and a star where it is sure."""
        if math.isnan(self.value):
            return "-"
        if math.isnan(self.low):
            return _short(self.value, "+")
        star = " *" if self.sure else ""
        return f"{_short(self.value, '+')} [{_short(self.low, '+')}, {_short(self.high, '+')}]{star}"


def over_topics(figure: Callable[[Floats], Floats], sums: Floats, bounds: Bounds) -> Estimate:
    """A figure of sums over topics, with its interval.

    A topic counts if the figure rests on it: if the figure changes without it, or is defined for it alone. Where that
    tells of none (kappa of topics of one class each, all of them agreed upon), all count.

    Args:
        figure: maps sums [..., fields] to figures [...]; NaN where it is undefined.
        sums: [topics, fields]; fields may be of several dimensions.
    """
    whole = sums.sum(0)
    value, without, alone = float(figure(whole)), figure(whole - sums), figure(sums)
    counts = ~np.isnan(alone) | ~(np.abs(without - value) <= ROUNDING * max(1.0, abs(value)))
    return Estimate.of(value, without[counts] if counts.any() else without, bounds)


def few_topics(topics: int, more: str = "", figures: Sequence[str] = ()) -> list[str]:
    """What a reader must know of intervals over so few topics: a line, or none.

    Args:
        more: what follows from it, to be joined with "and".
        figures: those that rest on so few topics, where others rest on more.
    """
    said = f", and {more}" if more else ""
    of = f" for {', '.join(figures)}" if figures else ""
    if topics < 1:
        return [f"No topic{of}: intervals need two{said}."]
    if topics < 2:
        return [f"Only 1 topic{of}: intervals need two{said}; answers about one topic are not independent."]
    if topics < FEW_TOPICS:
        return [f"Only {topics} topics{of}: intervals over fewer than {FEW_TOPICS} rest on too little{said}."]
    return []


def few_topics_of(figures: Mapping[str, Estimate], topics: int, more: str = "") -> list[str]:
    """``few_topics`` of a table of figures over ``topics`` topics, of which each figure may rest on fewer."""
    of_all = few_topics(topics, more)
    if of_all:
        return of_all
    names: dict[int, list[str]] = {}
    for name, estimate in figures.items():
        if not math.isnan(estimate.value):
            names.setdefault(estimate.topics, []).append(name)
    return [line for count in sorted(names) for line in few_topics(count, more, names[count])]


def leave_out(topics: NDArray[np.int64], most: int = 500) -> NDArray[np.int64]:
    """[n]: the group of each sentence that is left out at once: its topic or, of more than ``most`` topics, a group of
    topics.

    Args:
        topics: [n], the number of the topic of each sentence.
    """
    return topics % min(most, int(topics.max()) + 1)


def _half_width(change: Floats) -> float:
    from scipy.stats import t  # late: it takes a second

    count, squares = len(change), change**2
    variance = (count - 1) / count * squares.sum()
    peaked = count * (squares**2).sum() / squares.sum() ** 2
    degrees = min(count - 1, 2 * count / (peaked - 1)) if peaked > 1 else count - 1
    return float(t.ppf(1 - TAIL, degrees) * np.sqrt(variance))


def _where_all_are_alike(value: float, topics: int, bounds: Bounds) -> tuple[float, float]:
    low, high = bounds
    farthest = max(value - low, high - value) if math.isfinite(high) else value - low
    if not math.isfinite(low):
        farthest = 2 * abs(value)
    if farthest <= ROUNDING:
        return math.nan, math.nan
    half = farthest * (1 - TAIL ** (1 / topics))
    return max(low, value - half), min(high, value + half)


def _around(value: float, half: float, bounds: Bounds) -> tuple[float, float]:
    low, high = bounds
    if not math.isfinite(low) or not low < value < high:
        return max(low, value - half), min(high, value + half)
    above = value - low
    if not math.isfinite(high):
        factor = math.exp(min(700.0, half / above))
        return low + above / factor, low + above * factor
    odds, width = above / (high - value), high - low
    factor = math.exp(min(700.0, half * width / (above * (high - value))))
    return tuple(low + width / (1 + 1 / at) for at in (odds / factor, odds * factor))  # type: ignore[return-value]


def _short(value: float, sign: str = "") -> str:
    """Three decimals for shares, fewer for larger figures."""
    decimals = 3 if abs(value) < 1 else 2 if abs(value) < 100 else 0
    return f"{value:{sign}.{decimals}f}"


def ratio(above: Floats, below: Floats) -> Floats:
    """``above / below``; NaN where ``below`` is 0."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)

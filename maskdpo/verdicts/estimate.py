"""Figures with their intervals: the percentile bootstrap over topics (Efron 1979), which are independent of each other,
as the sentences of one topic are not."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, samples: Floats) -> Self:
        """The interval holds the middle 95% of the samples in which the figure is defined."""
        low, high = (np.nan, np.nan) if np.isnan(samples).all() else np.nanquantile(samples, [0.025, 0.975])
        return cls(float(value), float(low), float(high))

    def __str__(self) -> str:
        return f"{_short(self.value)} [{_short(self.low)}, {_short(self.high)}]" if not np.isnan(self.value) else "-"

    def signed(self, *, star: bool = True) -> str:
        """A difference as text: with signs, and a star where the interval does not contain 0."""
        if np.isnan(self.value):
            return "-"
        sure = star and (self.low > 0 or self.high < 0)
        return f"{_short(self.value, '+')} [{_short(self.low, '+')}, {_short(self.high, '+')}]{' *' if sure else ''}"


def _short(value: float, sign: str = "") -> str:
    """Three decimals for shares, fewer for larger figures."""
    decimals = 3 if abs(value) < 1 else 2 if abs(value) < 100 else 0
    return f"{value:{sign}.{decimals}f}"


def ratio(above: Floats, below: Floats) -> Floats:
    """``above / below``; NaN where ``below`` is 0."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def topic_draws(topics: int, seed: int) -> Floats:
    """[RESAMPLES, topics]: how often each topic is drawn, where as many topics as there are are drawn with
    replacement."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(topics, np.full(topics, 1 / topics), RESAMPLES).astype(np.float64)

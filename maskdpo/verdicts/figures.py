"""How good the probabilities of a judge are, right against wrong: discrimination (AUROC), Brier score, calibration.

All figures take the probability that a sentence is right, among right and wrong (``right_probability``), for sentences
whose gold label is right or wrong. Arrays: ``probability`` float64 [n] in [0, 1]; ``right`` bool [n]; ``weights``
float64 [n], how often each sentence counts (None: once), 0 where its topic is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskdpo.schemas import RIGHT, WRONG, Label
from maskdpo.verdicts.estimate import SHARE, Estimate, Floats, leave_out, over_topics, ratio

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Figure = Callable[[Floats, Bools, Floats | None], float]

BINS = 10
PER_BIN = 10
"""Bins hold at least so many sentences: there are fewer bins where there are few sentences."""


def right_probability(scores: Mapping[Label, float]) -> float | None:
    """P(right) / (P(right) + P(wrong)), all wrong labels summed; None where neither has any probability."""
    right, wrong = (sum(scores.get(label, 0.0) for label in labels) for labels in (RIGHT, WRONG))
    return right / (right + wrong) if right + wrong > 0 else None


def auroc(probability: Floats, right: Bools, weights: Floats | None = None) -> float:
    """The area under the ROC curve: how often a right sentence has a higher probability than a wrong one, where ties
    count one half (Hanley and McNeil 1982). NaN without both."""
    values, group = np.unique(probability, return_inverse=True)
    weights = np.ones(len(probability)) if weights is None else weights
    of_right, of_wrong = (np.bincount(group, weights * which, len(values)) for which in (right, ~right))
    pairs = of_right.sum() * of_wrong.sum()
    below = np.cumsum(of_wrong) - of_wrong / 2
    return float((of_right * below).sum() / pairs) if pairs > 0 else np.nan


def brier(probability: Floats, right: Bools, weights: Floats | None = None) -> float:
    """The mean squared difference between the probability and 1 (right) or 0 (wrong) (Brier 1950)."""
    if weights is not None and not weights.any():
        return np.nan
    return float(np.average((probability - right) ** 2, weights=weights))


def ece(probability: Floats, right: Bools, weights: Floats | None = None, bins: Ints | None = None) -> float:
    """The expected calibration error: the mean over bins, by their sentences, of |mean probability - share right|.

    Bins of equal mass (Nixon et al. 2019, arXiv 1904.01685): ``bins_of``. The figure is above 0 even for perfect
    probabilities where bins are small.
    """
    weights = np.ones(len(probability)) if weights is None else weights
    if not weights.any():
        return np.nan
    gaps = np.bincount(bins_of(probability) if bins is None else bins, weights * (probability - right))
    return float(np.abs(gaps).sum() / weights.sum())


def bins_of(probability: Floats) -> Ints:
    """[n]: the bin of each sentence. Bins hold about equally many sentences, and equal probabilities share a bin."""
    count = max(1, min(BINS, len(probability) // PER_BIN))
    edges = np.unique(np.quantile(probability, np.arange(1, count) / count, method="higher"))
    return np.unique(np.searchsorted(edges, probability, side="right"), return_inverse=True)[1]


class Bin(NamedTuple):
    """One point of a reliability plot."""

    probability: float
    """Mean probability of being right, as the judge gave it."""
    share: Estimate
    """Share of the sentences that are right."""
    sentences: int


def reliability(probability: Floats, right: Bools, topics: Sequence[str], weights: Floats | None = None) -> list[Bin]:
    """The bins of ``ece``, from the least probability to the greatest, with intervals over topics."""
    weights = np.ones(len(probability)) if weights is None else weights
    bins = bins_of(probability)
    names, topic = np.unique(np.asarray(topics), return_inverse=True)
    count = np.zeros((int(bins.max()) + 1, len(names), 2))  # the last: wrong, right
    np.add.at(count, (bins, topic, right.astype(int)), weights)
    return [
        Bin(
            float(np.average(probability[bins == i], weights=weights[bins == i])),
            over_topics(_share_right, of_bin, SHARE),
            int((bins == i).sum()),
        )
        for i, of_bin in enumerate(count)
    ]


def _share_right(counts: Floats) -> Floats:
    return ratio(counts[..., 1], counts.sum(-1))


FIGURES: dict[str, Figure] = {"auroc": auroc, "brier": brier, "ece": ece}
FIGURE_NAMES = {"auroc": "AUROC", "brier": "Brier score", "ece": "expected calibration error"}
"""What they are called in tables."""


def probability_figures(
    probability: Floats, right: Bools, topics: Sequence[str], weights: Floats | None = None
) -> dict[str, Estimate]:
    """All of ``FIGURES`` with 95% intervals over topics.

    Args:
        topics: [n], the topic of each sentence.
        weights: [n], how much each sentence counts.
    """
    every = np.ones(len(probability)) if weights is None else weights
    group = leave_out(np.unique(np.asarray(topics), return_inverse=True)[1])
    figures = FIGURES | {"ece": partial(ece, bins=bins_of(probability))}
    without = [every * (group != left_out) for left_out in range(int(group.max()) + 1)]
    return {
        name: Estimate.of(
            figure(probability, right, every),
            np.array([figure(probability, right, rest) for rest in without]),
            SHARE,
        )
        for name, figure in figures.items()
    }

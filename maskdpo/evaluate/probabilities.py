"""How good the probabilities of a judge are, against gold: of the sentences that are right or wrong in gold."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from maskdpo.schemas import RIGHT, WRONG
from maskdpo.verdicts.estimate import Estimate
from maskdpo.verdicts.figures import Bin, probability_figures, reliability, right_probability
from maskdpo.verdicts.gold import Match


@dataclass(frozen=True)
class Probabilities:
    """The quality of P(right) / (P(right) + P(wrong)) out of ``scores``, as the judge gave them."""

    right: int
    wrong: int
    """Gold sentences with scores."""
    figures: dict[str, Estimate]
    """``auroc``, ``brier``, ``ece``, with 95% intervals over topics."""
    baseline: dict[str, float]
    """The figures of a judge that gives all sentences one probability, the share of right ones in gold."""
    bins: list[Bin]
    """From the least probability to the greatest."""


def probabilities(matched: Iterable[Match]) -> Probabilities | None:
    """The figures of all sentences that have scores and that are right or wrong in gold; None where there are none."""
    found = [
        (chance, one.gold.label in RIGHT, one.topic, one.weight)
        for one in matched
        if one.gold.label in RIGHT | WRONG and one.sentence is not None and one.sentence.scores
        if (chance := right_probability(one.sentence.scores)) is not None
    ]
    if not found:
        return None
    chances, rights, topics, weigh = zip(*found, strict=True)
    probability, right, weights = np.array(chances), np.array(rights), np.array(weigh)
    share = float(np.average(right, weights=weights))
    return Probabilities(
        int(right.sum()),
        int((~right).sum()),
        probability_figures(probability, right, topics, weights),
        {"auroc": 0.5, "brier": share * (1 - share), "ece": 0.0},
        reliability(probability, right, topics, weights),
    )

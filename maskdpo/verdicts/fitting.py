"""Fits the parameters of a calibration (``verdicts.decision``) to gold labels."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from maskdpo.errors import UserError
from maskdpo.schemas import Label, group_of
from maskdpo.verdicts.aim import Aim
from maskdpo.verdicts.decision import ROUNDING, Class, Parameters, classes, compatible
from maskdpo.verdicts.estimate import Floats
from maskdpo.verdicts.figures import Bools

OFFSET_SPREAD = 2.0
"""Standard deviation of the prior of an offset, in log-odds."""
TEMPERATURE_SPREAD = 1.0
"""Standard deviation of the prior of log(temperature). 50 sentences outweigh both priors where they speak clearly."""
FLOOR = 1e-6
LEAST_GIVEN = 5
"""A threshold rests on at least so many gold sentences."""


class Example(NamedTuple):
    """A sentence with the scores of the judge and its gold label."""

    scores: Mapping[Label, float]
    gold: Label
    weight: float | None = 1.0
    """How many sentences of all answers it stands for; None: it was chosen, by its scores for example, and stands for
    none. Temperature and offsets describe scores and need no weights; what labels are decided by does."""


def fit(examples: Sequence[Example], aim: Aim, *, abstain: float = 0.0, votes: int = 1) -> Parameters:
    """The parameters for a judge, with what its labels are decided by.

    Args:
        votes: of the judge. A label without a vote of N has the score 1 / 2N.

    Raises:
        UserError: no example has a gold label that any score speaks of.
    """
    fitted = _fit_probabilities(examples, FLOOR if votes == 1 else 1 / (2 * votes))
    if aim.precision is None:
        return fitted.model_copy(update={"weights": _balancing(examples), "abstain": abstain})
    return fitted.model_copy(update={"thresholds": _thresholds(examples, fitted, aim.precision), "abstain": abstain})


def _fit_probabilities(examples: Sequence[Example], floor: float) -> Parameters:
    """Temperature and offsets by penalised maximum likelihood.

    The likelihood of a gold label is the probability of all labels that are compatible with it; where the scores do not
    speak of any, it is the unassigned probability. Where there is none of that either, the example says nothing.
    The priors are normal, around what changes nothing: log T ~ N(0, 1), b_l ~ N(0, 2).
    """
    from scipy.optimize import minimize

    labels = [label for label in Label if any(label in example.scores for example in examples)]
    logs, fits = _tables(examples, labels, floor)
    told = fits.any(1)
    if not told.any():
        raise UserError("the judge gives no score to any label that gold has, so there is nothing to calibrate it with")
    start = np.zeros(1 + len(labels))
    values = minimize(_loss, start, (logs[told], fits[told]), method="L-BFGS-B", jac=True).x
    offsets = {label: float(value) for label, value in zip(labels, values[1:], strict=True)}
    return Parameters(temperature=float(np.exp(values[0])), offsets=offsets, floor=floor)


def _loss(values: Floats, logs: Floats, fits: Bools) -> tuple[float, Floats]:
    """Negative log posterior of (log T, b_1 ... b_labels), and its gradient: p(outcome) - p(outcome | it fits gold)."""
    scale = np.exp(-values[0])
    z = logs * scale + np.append(values[1:], 0.0)  # the last outcome: unassigned
    log_all, share = _softmax(z)
    log_fitting, share_fitting = _softmax(np.where(fits, z, -np.inf))
    by_z = share - share_fitting
    spread = np.array([TEMPERATURE_SPREAD, *[OFFSET_SPREAD] * (len(values) - 1)])
    by_scale = (by_z * np.where(np.isfinite(logs), logs, 0.0)).sum()
    gradient = np.append(-scale * by_scale, by_z[:, :-1].sum(0)) + values / spread**2
    loss = (log_all - log_fitting).sum() + ((values / spread) ** 2).sum() / 2
    return float(loss), gradient


def _softmax(z: Floats) -> tuple[Floats, Floats]:
    """log(sum(exp(z))) [n] and softmax(z) [n, outcomes]."""
    top = z.max(1, keepdims=True)
    weight = np.exp(z - top)
    total = weight.sum(1, keepdims=True)
    return (top + np.log(total))[:, 0], weight / total


def _tables(examples: Sequence[Example], labels: Sequence[Label], floor: float) -> tuple[Floats, Bools]:
    """[examples, labels + unassigned], twice: log scores (-inf: not spoken of), and what is compatible with gold."""
    logs = np.full((len(examples), len(labels) + 1), -np.inf)
    fits = np.zeros(logs.shape, dtype=bool)
    for i, (scores, gold, _) in enumerate(examples):
        left = 1.0 - sum(scores.values())
        known = [label for label in labels if label in scores or left <= ROUNDING]
        for label in known:
            logs[i, labels.index(label)] = np.log(max(scores.get(label, 0.0), floor))
        if left > ROUNDING:
            logs[i, -1] = np.log(left)
        agree = compatible(gold, known)
        for label in agree:
            fits[i, labels.index(label)] = True
        fits[i, -1] = not agree and left > ROUNDING
    return logs, fits


def _balancing(examples: Sequence[Example]) -> dict[Class, float]:
    """Weights with which the greatest weight * p maximises the balanced accuracy of right against wrong, where p are
    the true probabilities: 1 / the share of the class among both in gold, with a mean share of 1 / 2.

    no_fact is given where it is likeliest as it is. Few gold sentences are no_fact, and the great weight of a rare
    class would hand its label to many others.
    """
    right, wrong = (
        sum(example.weight or 0.0 for example in examples if group_of(example.gold) == name)
        for name in ("right", "wrong")
    )
    if not right or not wrong:
        return {}
    return {"right": (right + wrong) / (2 * right), "wrong": (right + wrong) / (2 * wrong), "no_fact": 1.0}


def _thresholds(examples: Sequence[Example], fitted: Parameters, precision: float) -> dict[Class, float | None]:
    """For right and for wrong the least probability from which on the precision is as great as is wanted."""
    found: dict[Class, list[tuple[float, bool, float]]] = {"right": [], "wrong": []}
    for example in examples:
        if example.weight is None:
            continue
        of_class = classes(fitted.apply(example.scores))
        best = max(of_class, key=of_class.__getitem__)
        if best in found:
            found[best].append((of_class[best], group_of(example.gold) == best, example.weight))
    return {name: least_threshold(given, precision) for name, given in found.items()}


def least_threshold(given: Sequence[tuple[float, bool, float]], precision: float) -> float | None:
    """The least probability p such that of all sentences with at least p the wanted share has the class in gold.

    Args:
        given: probability of the class, whether gold agrees, and the weight.

    Returns:
        None where there is none that leaves ``LEAST_GIVEN`` sentences.
    """
    least, agreeing, total = None, 0.0, 0.0
    ordered = sorted(given, key=lambda one: -one[0])
    for count, (probability, agrees, weight) in enumerate(ordered, 1):
        total += weight
        agreeing += weight * agrees
        last_of_equals = count == len(ordered) or ordered[count][0] < probability
        if last_of_equals and count >= LEAST_GIVEN and agreeing / total >= precision:
            least = probability
    return least

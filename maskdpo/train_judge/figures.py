"""How good the finished judge is: its scores on sentences, its calibration, and the figures of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from maskdpo.schemas import RIGHT, JudgeInfo, Label, group_of
from maskdpo.train_judge.examples import Example
from maskdpo.verdicts.confusion import balanced_accuracy
from maskdpo.verdicts.decision import CLASSES, Calibration, Parameters
from maskdpo.verdicts.estimate import Estimate
from maskdpo.verdicts.figures import probability_figures, right_probability
from maskdpo.verdicts.fitting import Aim, fit
from maskdpo.verdicts.fitting import Example as Scored

LEAST_TO_CALIBRATE = 20
"""Held-out sentences: fewer say too little about temperature and offsets."""
SHOWN = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy", "brier": "Brier score", "ece": "calibration error"}

Scores = Mapping[Label, float]


@dataclass(frozen=True)
class JudgeFigures:
    """Figures of a judge against gold labels, with 95% intervals over topics where they have one."""

    sentences: int
    topics: int
    before: dict[str, Estimate]
    """By the names of ``SHOWN``: of the scores as the judge gives them, and the likeliest label."""
    after: dict[str, Estimate] | None
    """After calibration."""


def fit_calibration(
    examples: Sequence[Example], scores: Sequence[Scores], judge: JudgeInfo, seed: int
) -> Calibration | None:
    """A calibration for balanced accuracy; None where there are too few sentences, or right or wrong ones are missing."""
    groups = {group_of(example.label) for example in examples}
    if len(examples) < LEAST_TO_CALIBRATE or not {"right", "wrong"} <= groups:
        return None
    cases = [Scored(one, example.label) for example, one in zip(examples, scores, strict=True)]
    aim = Aim(None)
    return Calibration(
        judge=judge,
        aim=str(aim),
        parameters=fit(cases, aim),
        gold_sentences=len(cases),
        gold_topics=len({example.topic for example in examples}),
        seed=seed,
    )


def judge_figures(
    examples: Sequence[Example], scores: Sequence[Scores], calibration: Calibration | None, seed: int
) -> JudgeFigures:
    """The figures of these scores. Sentences without a fact count for balanced accuracy only."""
    return JudgeFigures(
        sentences=len(examples),
        topics=len({example.topic for example in examples}),
        before=_figures(examples, scores, Parameters(), seed),
        after=_figures(examples, scores, calibration.parameters, seed) if calibration else None,
    )


def _figures(
    examples: Sequence[Example], scores: Sequence[Scores], parameters: Parameters, seed: int
) -> dict[str, Estimate]:
    calibrated = [parameters.apply(one) for one in scores]
    two = [
        (probability, example.label in RIGHT, example.topic)
        for example, one in zip(examples, calibrated, strict=True)
        if group_of(example.label) in ("right", "wrong") and (probability := right_probability(one)) is not None
    ]
    found: dict[str, Estimate] = {}
    if two:
        probability, right, topics = zip(*two, strict=True)
        found |= probability_figures(np.array(probability), np.array(right), topics, seed=seed)
    table = np.zeros((len(CLASSES), len(CLASSES)))
    for example, one in zip(examples, scores, strict=True):
        label = parameters.choose(one)[0]
        gold = group_of(example.label)
        if label is not None and gold != "not_judged":
            table[CLASSES.index(gold), CLASSES.index(group_of(label))] += 1  # type: ignore[arg-type]
    value = float(balanced_accuracy(table))
    return {"balanced_accuracy": Estimate(value, np.nan, np.nan), **found}

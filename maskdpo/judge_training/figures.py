"""How good the finished judge is: its scores on sentences, its calibration, and the figures of both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from maskdpo.judge_training.examples import LabelledSentence
from maskdpo.schemas import JudgeInfo, Label, Prompt, Response, Scores, Span, group_of
from maskdpo.verdicts.aim import Aim
from maskdpo.verdicts.confusion import balanced_accuracy, by_topic
from maskdpo.verdicts.decision import CLASSES, Calibration
from maskdpo.verdicts.estimate import SHARE, Estimate, over_topics
from maskdpo.verdicts.figures import FIGURE_NAMES, probability_figures, right_probability
from maskdpo.verdicts.fitting import Example, fit

LEAST_TO_CALIBRATE = 20
"""Held-out sentences: fewer say too little about temperature and offsets."""
SHOWN = {"balanced_accuracy": "balanced accuracy, three classes", **FIGURE_NAMES}
"""Figures by their names in ``maskdpo calibrate``."""


Judged = tuple[Label | None, Scores | None]
"""Label and scores of a sentence. No label: it could not be judged. No scores: that, or a rule has decided (filler)."""
ScoreSentences = Callable[
    [str, Sequence[tuple[Prompt, Response, list[Span], list[Span]]], str | None], tuple[JudgeInfo, list[list[Judged]]]
]
"""Judges sentences as ``annotate --judge classifier`` does: the folder of the judge, answers with the spans to judge
and their other spans, the device -> the judge, and its verdicts in the order of the spans. Given by who calls this
stage, for stages do not know each other."""


def judge_examples(
    score: ScoreSentences, judge: str, examples: Sequence[LabelledSentence], device: str | None
) -> tuple[JudgeInfo, list[Judged]]:
    """What a judge says of these sentences, in their order."""
    answers: dict[str, list[LabelledSentence]] = {}
    for example in examples:
        answers.setdefault(example.answer_id, []).append(example)
    asked = []
    for answer_id, many in answers.items():
        spans = [example.span for example in many]
        response = Response(id=answer_id, prompt_id=many[0].prompt.id, response=many[0].answer)
        asked.append((many[0].prompt, response, spans, [span for span in many[0].spans if span not in spans]))
    info, verdicts = score(judge, asked, device)
    found = {
        example.id: verdict
        for many, of_answer in zip(answers.values(), verdicts, strict=True)
        for example, verdict in zip(many, of_answer, strict=True)
    }
    return info, [found[example.id] for example in examples]


def shown(figure: Estimate | None) -> str:
    """A figure with its interval, where it has one."""
    return "-" if figure is None else str(figure)


@dataclass(frozen=True)
class JudgeFigures:
    """Figures of a judge against gold labels, with 95% intervals over topics."""

    sentences: int
    topics: int
    before: dict[str, Estimate]
    """By the names of ``SHOWN``: of the scores as the judge gives them, and the likeliest label."""
    after: dict[str, Estimate] | None
    """After calibration."""


class Fitted(NamedTuple):
    """A calibration, and whose labels it is fitted to."""

    calibration: Calibration
    labels: str


def fit_calibration(
    examples: Sequence[LabelledSentence], judged: Sequence[Judged], judge: JudgeInfo, seed: int
) -> Fitted | None:
    """A calibration for balanced accuracy: to labels without a judge where they suffice, else to all.

    None where there are few sentences, or right or wrong ones are missing.
    """
    scored = [(example, scores) for example, (_, scores) in zip(examples, judged, strict=True) if scores]
    people = [(example, scores) for example, scores in scored if not example.by_judge]
    by_judge = "labels of a judge" if not people else "labels of people and of a judge"
    if _suffices(people):
        return Fitted(_fit(people, judge, seed), "labels of people")
    return Fitted(_fit(scored, judge, seed), by_judge) if _suffices(scored) else None


def _suffices(scored: Sequence[tuple[LabelledSentence, Scores]]) -> bool:
    return len(scored) >= LEAST_TO_CALIBRATE and {"right", "wrong"} <= {
        group_of(example.label) for example, _ in scored
    }


def _fit(scored: Sequence[tuple[LabelledSentence, Scores]], judge: JudgeInfo, seed: int) -> Calibration:
    aim = Aim("balanced")
    return Calibration(
        judge=judge,
        aim=str(aim),
        parameters=fit([Example(scores, example.label) for example, scores in scored], aim),
        gold_sentences=len(scored),
        gold_topics=len({example.topic for example, _ in scored}),
        seed=seed,
    )


def judge_figures(
    examples: Sequence[LabelledSentence], judged: Sequence[Judged], calibration: Calibration | None
) -> JudgeFigures:
    """The figures of these verdicts. Sentences without a fact count for balanced accuracy only."""
    return JudgeFigures(
        sentences=len(examples),
        topics=len({example.topic for example in examples}),
        before=_figures(examples, judged, None),
        after=_figures(examples, judged, calibration) if calibration else None,
    )


def _figures(
    examples: Sequence[LabelledSentence], judged: Sequence[Judged], calibration: Calibration | None
) -> dict[str, Estimate]:
    two: list[tuple[float, bool, str]] = []
    rows: list[tuple[str, str, str, float]] = []
    for example, verdict in zip(examples, judged, strict=True):
        gold = group_of(example.label)
        label, scores = verdict if calibration is None else _calibrated(verdict, calibration)
        rows.append((example.topic, gold, group_of(label), 1.0))
        probability = right_probability(scores) if scores else None
        if gold in ("right", "wrong") and probability is not None:
            two.append((probability, gold == "right", example.topic))
    tables = by_topic(rows, CLASSES, (*CLASSES, "not_judged"))[..., :-1]
    found = {"balanced_accuracy": over_topics(balanced_accuracy, tables, SHARE)}
    if two:
        probabilities, right, of_topics = zip(*two, strict=True)
        found |= probability_figures(np.array(probabilities), np.array(right), of_topics)
    return found


def _calibrated(verdict: Judged, calibration: Calibration) -> Judged:
    scores = verdict[1]
    return (calibration.parameters.choose(scores)[0], calibration.parameters.apply(scores)) if scores else verdict

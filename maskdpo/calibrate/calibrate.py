"""``maskdpo calibrate``: fits a calibration to gold labels, and says by cross-validation what it is worth."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from maskdpo.calibrate.cases import BOTH, Case, read_cases
from maskdpo.calibrate.settings import CalibrateSettings
from maskdpo.console import counted, warn
from maskdpo.errors import UserError
from maskdpo.io import atomic_write, refuse_overwriting
from maskdpo.run_record import meta_file, refuse_replacing
from maskdpo.schemas import Label, group_of
from maskdpo.stage_run import Run
from maskdpo.verdicts import confusion
from maskdpo.verdicts.aim import Aim, parse_aim
from maskdpo.verdicts.confusion import Tables
from maskdpo.verdicts.decision import (
    CLASSES,
    Calibration,
    Figure,
    Held,
    Parameters,
    ReliabilityBin,
    scoring_judge,
)
from maskdpo.verdicts.estimate import BELOW_ONE, FEW_TOPICS, SHARE, Estimate, over_topics, ratio
from maskdpo.verdicts.figures import probability_figures, reliability, right_probability
from maskdpo.verdicts.fitting import Example, fit

FOLDS = 10
FEW_OF_A_CLASS = 10
"""With fewer the command warns."""
WANTED_WIDTH = 0.05
"""Half the width that the 95% interval of a useful balanced accuracy has."""

LABEL_FIGURES: dict[str, Callable[[Tables], Tables]] = {
    "balanced_accuracy": lambda tables: confusion.balanced_accuracy(tables[..., :3]),
    "balanced_accuracy_right_wrong": lambda tables: confusion.balanced_accuracy(tables[..., :2, :3]),
    "macro_f1": lambda tables: confusion.macro_f1(tables[..., :3]),
    "kappa": lambda tables: confusion.kappa(tables[..., :3]),
    "precision_right": partial(confusion.precision, given=0),
    "precision_wrong": partial(confusion.precision, given=1),
    "coverage": lambda tables: ratio(tables[..., :3].sum((-2, -1)), tables.sum((-2, -1))),
}
"""Figures of tables [..., gold class, given class or none]. All but the coverage are of the sentences with a label."""


class Given(NamedTuple):
    """What a gold sentence gets: a label, and the probability that it is right, among right and wrong."""

    label: Label | None
    right: float | None


@dataclass(frozen=True)
class Calibrated:
    """What the command prints."""

    calibration: Calibration
    gold_sentences: int
    """With and without scores."""
    chosen: int
    """Of them those that fit the calibration and are in no figure: others were drawn at random, these were chosen."""


def calibrate(settings: CalibrateSettings) -> Calibrated:
    """Fit a calibration and write it to ``settings.out``, with the figures of a cross-validation over topics.

    Raises:
        UserError: annotations and gold that no calibration can be made of.
    """
    inputs = {"annotations": settings.annotations, "gold": settings.gold}
    inputs |= {"prompts": settings.prompts} if settings.prompts else {}
    for out in (settings.out, settings.plot):
        if out is not None:
            refuse_overwriting(out, *inputs.values())
    refuse_replacing(settings.out, "calibrate", only_own=True)
    if settings.plot is not None:
        from maskdpo.io.plot import check_plot

        refuse_replacing(settings.plot)
        check_plot(settings.plot)
    found = read_cases(settings)
    scored, aim = found.scored, parse_aim(settings.aim)
    options = {"aim": settings.aim, "abstain": settings.abstain, "seed": settings.seed}
    run = Run(meta_file(settings.out), "calibrate", options, inputs, restart=None)
    before = [Given(case.label, right_probability(case.scores) if case.scores else None) for case in found.all]
    after = cross_validated(found.all, aim, abstain=settings.abstain, votes=found.judge.votes, seed=settings.seed)
    calibration = Calibration(
        judge=scoring_judge(found.judge),
        aim=settings.aim,
        parameters=fit(_examples(scored), aim, abstain=settings.abstain, votes=found.judge.votes),
        annotations_sha256=run.meta.inputs["annotations"],
        gold_sha256=run.meta.inputs["gold"],
        gold_sentences=len(scored),
        gold_topics=len({case.topic for case in scored}),
        seed=settings.seed,
        before=held(found.all, before),
        held_out=held(found.all, after),
    )
    with atomic_write(settings.out) as file:
        file.write(calibration.model_dump_json(indent=2).encode() + b"\n")
        run.begin()  # an earlier file and its record stand until the new one is complete
    if settings.plot is not None:
        from maskdpo.calibrate.plot import draw_reliability

        draw_reliability(settings.plot, calibration)
    run.finish({"gold_sentences": len(found.all), "with_scores": len(scored), "hash": calibration.hash})
    for warning in doubts(calibration, scored):
        warn(warning)
    return Calibrated(calibration, len(found.all), sum(case.weight is None for case in found.all))


def cross_validated(cases: Sequence[Case], aim: Aim, *, abstain: float, votes: int, seed: int) -> list[Given]:
    """What every sentence gets from a calibration that was fitted to other topics. Sentences without scores keep their
    label."""
    given = [Given(case.label, None) for case in cases]
    scored = [i for i, case in enumerate(cases) if case.scores]
    for train, test in _folds([cases[i] for i in scored], seed):
        parameters = _fitted([cases[scored[i]] for i in train], aim, abstain=abstain, votes=votes)
        for i in test:
            given[scored[i]] = _given(parameters, cases[scored[i]])
    return given


def _fitted(cases: Sequence[Case], aim: Aim, *, abstain: float, votes: int) -> Parameters:
    """The parameters for one part; those that change nothing where the other topics have no gold label that the judge
    has a score for, which says nothing about gold as a whole."""
    try:
        return fit(_examples(cases), aim, abstain=abstain, votes=votes)
    except UserError:
        return Parameters()


def _given(parameters: Parameters, case: Case) -> Given:
    assert case.scores is not None
    return Given(parameters.choose(case.scores)[0], right_probability(parameters.apply(case.scores)))


def _folds(cases: Sequence[Case], seed: int) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """Train and test indices: a topic is never split, and each fold has about the same share of right sentences.

    Where shares differ, a fold with more right sentences than the others is tested with offsets that expect fewer.
    There are no more folds than topics, or than sentences of the more frequent class; of two topics with a sentence of
    each class, each is a fold.
    """
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    topics = [case.topic for case in cases]
    right = [group_of(case.gold) == "right" for case in cases]
    most = min(FOLDS, len(set(topics)), max(right.count(True), right.count(False)))
    folds = StratifiedGroupKFold(most, shuffle=True, random_state=seed) if most > 1 else GroupKFold(2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")
        splits = list(folds.split(topics, right, groups=topics))
    for train, test in splits:
        yield train.tolist(), test.tolist()


def _examples(cases: Sequence[Case]) -> list[Example]:
    return [Example(case.scores, case.gold, case.weight) for case in cases if case.scores]


def held(cases: Sequence[Case], given: Sequence[Given]) -> Held:
    """The figures of labels and probabilities against gold, with intervals over topics, of all cases that count."""
    drawn = [(case, one) for case, one in zip(cases, given, strict=True) if case.weight is not None]
    figures = _label_figures(drawn)
    either = [
        (one.right, group_of(case.gold) == "right", case.topic, case.weight)
        for case, one in drawn
        if one.right is not None and group_of(case.gold) in BOTH
    ]
    if not either:
        return Held(figures={name: _figure(value) for name, value in figures.items()}, reliability=[])
    probability, right, topics, weights = (list(column) for column in zip(*either, strict=True))
    arrays = np.array(probability), np.array(right), topics, np.array(weights)
    figures |= probability_figures(*arrays)
    bins = [ReliabilityBin(probability=p, share=_figure(s), sentences=n) for p, s, n in reliability(*arrays)]
    return Held(figures={name: _figure(value) for name, value in figures.items()}, reliability=bins)


def _label_figures(cases: Sequence[tuple[Case, Given]]) -> dict[str, Estimate]:
    rows = ((c.topic, str(group_of(c.gold)), str(group_of(one.label)), c.weight or 0.0) for c, one in cases)
    tables = confusion.by_topic(rows, CLASSES, (*CLASSES, "not_judged"))
    bounds = {"kappa": BELOW_ONE}
    return {name: over_topics(figure, tables, bounds.get(name, SHARE)) for name, figure in LABEL_FIGURES.items()}


def _figure(estimate: Estimate) -> Figure:
    value, low, high = (None if math.isnan(x) else x for x in (estimate.value, estimate.low, estimate.high))
    return Figure(value=value, low=low, high=high)


def doubts(calibration: Calibration, scored: Sequence[Case]) -> Iterator[str]:
    """What the user should know before relying on the calibration."""
    count = {name: sum(group_of(case.gold) == name for case in scored) for name in BOTH}
    if len(scored) >= FEW_OF_A_CLASS and all(case.gold == case.label for case in scored):
        yield (
            "gold has the judge's own label for every sentence: is it a copy of the annotations that nobody has "
            "corrected? All figures are then worth nothing"
        )
    few = calibration.gold_topics < FEW_TOPICS or min(count.values()) < FEW_OF_A_CLASS
    if few and calibration.held_out is not None:
        yield (
            f"little gold: {counted(len(scored), 'sentence')} with scores ({count['right']} right, "
            f"{count['wrong']} wrong) of {counted(calibration.gold_topics, 'topic')}"
            f"{_how_much_more(calibration, len(scored))}"
        )
    auroc = calibration.before.figures.get("auroc") if calibration.before else None
    if auroc is not None and auroc.low is not None and auroc.low <= 0.5:
        yield (
            "on this gold the scores tell right from wrong no better than chance would (the interval of the AUROC "
            f"begins at {auroc.low:.2f}), and no calibration mends that: take another protocol or a stronger judge, or "
            "label more gold"
        )
    for name, threshold in (calibration.parameters.thresholds or {}).items():
        if threshold is None:
            yield (
                f"no probability of {name} reaches {calibration.aim} on gold: no sentence will get the label {name}; "
                "lower the precision of `aim`, label more gold, or take a stronger judge"
            )


def _how_much_more(calibration: Calibration, sentences: int) -> str:
    """The width of an interval falls with the square root of the number of sentences."""
    found = calibration.held_out.figures["balanced_accuracy_right_wrong"] if calibration.held_out else None
    if found is None or found.low is None or found.high is None or found.low == found.high:
        return "; label at least 10 topics, and 10 sentences of each class"
    half = (found.high - found.low) / 2
    if half <= WANTED_WIDTH:
        return f"; label sentences of more topics, {FEW_TOPICS} at least, or the intervals rest on too little"
    enough = math.ceil(sentences * (half / WANTED_WIDTH) ** 2 / 10) * 10
    return (
        f": the balanced accuracy is known to within +-{half:.2f} only; about {enough:,} gold sentences, of "
        f"proportionally more topics, would make that +-{WANTED_WIDTH:g}"
    )

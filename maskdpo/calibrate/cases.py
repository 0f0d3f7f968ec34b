"""What a calibration is fitted to: gold sentences with what the judge said of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from maskdpo.calibrate.settings import CalibrateSettings
from maskdpo.console import warn
from maskdpo.errors import InputError, UserError
from maskdpo.io import read_answers, read_prompts, read_records
from maskdpo.schemas import FAILED, NOT_ASKED, Annotation, JudgeInfo, Label, Prompt, Scores, group_of
from maskdpo.verdicts.decision import own_verdict, scoring_judge
from maskdpo.verdicts.gold import Match, check_gold, describing, matches

BOTH = ("right", "wrong")


class Case(NamedTuple):
    """A gold sentence beside the judge's verdict on it."""

    topic: str
    gold: Label
    label: Label | None
    """The judge's own; None: not judged."""
    scores: Scores | None
    weight: float | None = 1.0
    """How much the sentence counts in figures; None: not at all, as it was chosen where others were drawn at random."""


class Cases(NamedTuple):
    """All gold sentences of a file."""

    judge: JudgeInfo
    all: list[Case]

    @property
    def scored(self) -> list[Case]:
        return [case for case in self.all if case.scores]


def read_cases(settings: CalibrateSettings) -> Cases:
    """The gold sentences, with the verdicts of the one judge of the annotations.

    Raises:
        UserError: there are several judges or none, no scores, gold that is no gold, or too little of it.
    """
    prompts = read_prompts(settings.prompts) if settings.prompts else None
    judges: list[JudgeInfo] = []
    annotations = _of_one_judge(settings.annotations, prompts, judges)
    gold = {record.id: record for record in read_records(settings.gold, Annotation)}
    topics = {prompt.id: prompt.shared_topic for prompt in (prompts or {}).values()}
    found = list(matches(annotations, gold, topics))
    if not judges:
        raise InputError("has no judge: is it a gold file?", path=settings.annotations)
    judge = judges[0]
    check_gold(gold, settings.gold, [settings.annotations], judges)
    if not found:
        raise UserError(
            f"{settings.annotations} and {settings.gold} share no sentence: do the ids and the texts of the answers "
            "match?"
        )
    labelled = sum(sentence.label is not None for record in gold.values() for sentence in record.sentences)
    if len(found) < labelled:
        warn(
            f"{labelled - len(found):,} of {labelled:,} gold sentences are not used: {settings.annotations} has no "
            "answer of their id and text"
        )
    counted = set(map(id, describing(found)))
    cases = Cases(judge, [_case(match, judge, match.weight if id(match) in counted else None) for match in found])
    _refuse_too_little(cases, settings)
    return cases


def _of_one_judge(file: Path, prompts: dict[str, Prompt] | None, judges: list[JudgeInfo]) -> Iterator[Annotation]:
    """The annotations; ``judges`` gets their judge."""
    read = read_records(file, Annotation) if prompts is None else read_answers(file, Annotation, prompts)
    for record in read:
        if record.judge is None:
            raise InputError(
                f"{record.id!r} has no judge, as in a gold file; calibrate takes what `maskdpo annotate` wrote",
                path=file,
            )
        if judges and scoring_judge(record.judge) != scoring_judge(judges[0]):
            raise InputError(
                f"{record.id!r} has its labels from another judge than the answers before it; a calibration is for one "
                "judge: annotate each into a file of its own",
                path=file,
            )
        judges[:] = judges or [record.judge]
        yield record


def _case(match: Match, judge: JudgeInfo, weight: float | None) -> Case:
    assert match.gold.label is not None
    sentence = match.sentence
    if sentence is None or sentence.status in FAILED | NOT_ASKED:
        return Case(match.topic, match.gold.label, None, None, weight)
    return Case(match.topic, match.gold.label, own_verdict(sentence, judge)[0], sentence.scores, weight)


def _refuse_too_little(cases: Cases, settings: CalibrateSettings) -> None:
    scored = cases.scored
    if not scored:
        raise InputError(
            "no sentence that gold knows has scores: the judge must report probabilities. Take a backend that gives "
            "log-probabilities, `votes` greater than 1, or annotate again: files of earlier versions hold none",
            path=settings.annotations,
        )
    have = {group_of(case.gold) for case in scored}
    for name in BOTH:
        if name not in have:
            raise InputError(
                f"no sentence with scores is {name} in gold; a calibration needs right and wrong ones",
                path=settings.gold,
            )
    if len({case.topic for case in scored}) < 2:
        raise InputError(
            "all gold sentences with scores are of one topic; at least two topics are needed, to test on one what was "
            "fitted to the other",
            path=settings.gold,
        )

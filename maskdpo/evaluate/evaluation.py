"""``maskdpo evaluate``: all figures of a file of annotations, or of two."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from maskdpo.console import counted, warn
from maskdpo.errors import InputError, UserError
from maskdpo.evaluate.agreement import Agreement, agreement
from maskdpo.evaluate.compared import Seen, doubts
from maskdpo.evaluate.factuality import Comparison, TopicSums, compare, summary_of, sums_by_topic
from maskdpo.evaluate.outcome import Evaluation
from maskdpo.evaluate.prediction_powered import (
    Array,
    Powered,
    PoweredComparison,
    check_drawn,
    compare_powered,
    powered,
    topic_sums,
)
from maskdpo.evaluate.settings import EvaluateSettings
from maskdpo.io import Input, files_of, read_answers, read_prompts, read_records
from maskdpo.run_record import holds, read_meta, record_of
from maskdpo.schemas import Annotation, JudgeInfo, Prompt
from maskdpo.text.language_counts import LanguageCounts
from maskdpo.verdicts.decision import read_calibration
from maskdpo.verdicts.effects import read_effects
from maskdpo.verdicts.gold import check_gold

Gold = Mapping[str, Annotation]
"""By id."""


@dataclass(frozen=True)
class _Counted:
    """What is counted and noted of the annotations of an input, which is read once."""

    files: tuple[Path, ...]
    sums: TopicSums
    seen: Seen
    languages: LanguageCounts


def evaluate_files(settings: EvaluateSettings) -> Evaluation:
    """All figures of a file, or of two with ``compare`` (after); with ``gold`` also those that need gold labels.

    Each of several files of ``compare`` is compared with these annotations, and each further one with the first too.
    """
    _check_options(settings)
    effects = {file: read_effects(file) for file in settings.side_effects}
    prompts = read_prompts(settings.prompts) if settings.prompts else None
    penalty = settings.length_penalty
    before = _count(settings.annotations, prompts, settings)
    after = [_count((file,), prompts, settings) for file in settings.compare]
    comparisons = _beside(before, after, penalty)
    for file in settings.compare:
        if file not in comparisons:
            raise UserError(f"{listed(settings.annotations)} and {file} share no topic, so there is nothing to compare")
    agreed = estimates = None
    if settings.gold:
        gold = _read_gold(settings.gold, settings.annotations, before.seen.judges)
        agreed = _agreement(settings, gold, prompts)
        estimates = _powered(settings, gold, prompts, after[0].seen.judges if after else set())
    return Evaluation(
        annotations=settings.annotations,
        gold=settings.gold,
        summary=None if after else summary_of(before.sums, penalty),
        comparisons=comparisons,
        between=_beside(after[0], after[1:], penalty) if after else {},
        agreement=agreed,
        languages=tuple(one.languages for one in (before, *after[:1])),
        powered=estimates,
        side_effects=effects,
        labels=settings.labels,
    )


def _count(files: tuple[Path, ...], prompts: dict[str, Prompt] | None, settings: EvaluateSettings) -> _Counted:
    tags = {prompt.id: prompt.language for prompt in (prompts or {}).values() if prompt.language}
    seen, languages = Seen(), LanguageCounts(tags)
    read = _read(files, prompts, settings.limit, seen, languages)
    return _Counted(files, sums_by_topic(read, prompts, settings.length_penalty), seen, languages)


def _beside(before: _Counted, others: Sequence[_Counted], length_penalty: int | None) -> dict[Path, Comparison]:
    """Each of the others (after) beside the first, by its file; left out where it shares no topic with it."""
    found: dict[Path, Comparison] = {}
    for after in others:
        (file,) = after.files
        if one := compare(before.sums, after.sums, length_penalty):
            found[file] = one
            for doubt in doubts(before.seen, after.seen, before.files, file):
                warn(doubt)
    return found


def _check_options(settings: EvaluateSettings) -> None:
    before, after = ([file.resolve() for file in files] for files in (settings.annotations, settings.compare))
    for file, place in zip(settings.compare, after, strict=True):
        if place in before or after.count(place) > 1:
            twice = "without `compare` too" if place in before else "twice"
            raise UserError(f"`compare`: {file} is given {twice}; give each file once, none is set beside itself")
    if settings.compare_gold and not (settings.compared and settings.gold):
        raise UserError("`compare_gold` goes with `compare` and `gold`: it is the gold of the answers of after")
    if len(settings.compare) > 1 and settings.gold:
        raise UserError("`gold` goes with one file of `compare`: evaluate each of them with its gold alone")
    if settings.plot and not settings.compare:
        raise UserError("`plot` goes with `compare`: it sets the figures of several files beside each other")
    if settings.labels and len(set(settings.labels)) != 1 + len(settings.compare):
        raise UserError(
            f"`labels` names these annotations and each of the {len(settings.compare)} files of `compare`, each "
            f"differently, and is given {len(settings.labels)} names: {', '.join(settings.labels)}"
        )
    if settings.gold_drawn == "random" and not settings.gold:
        raise UserError("`gold_drawn` goes with `gold`")


def listed(given: Input) -> str:
    """The files of an input, in messages."""
    return ", ".join(str(file) for file in files_of(given))


def _read(
    given: Input, prompts: dict[str, Prompt] | None, limit: int | None, seen: Seen, languages: LanguageCounts
) -> Iterator[Annotation]:
    """The annotations, of which ``seen`` notes what comparisons need, and which are counted in ``languages``.

    With prompts, every answer must have a prompt: a topic is never guessed. Answers that lacked a reference to judge
    them by are left out, for they say nothing of the model.
    """
    read = lacked = 0
    part = (
        partial(read_records, limit=limit) if prompts is None else partial(read_answers, prompts=prompts, limit=limit)
    )
    for annotation in part(given, Annotation):
        seen.add(annotation)
        read, lacked = read + 1, lacked + annotation.lacked_reference
        if not annotation.lacked_reference:
            languages.add(annotation)
            yield annotation
    if read == lacked:
        raise InputError("no answer was judged: all prompts lacked a reference (no_reference)", path=listed(given))
    if lacked:
        missing = "their prompts had no reference (no_reference)"
        warn(f"{listed(given)}: {lacked:,} of {read:,} answers are left out: {missing}")


def _read_gold(file: Path, judged: Input, judges: set[JudgeInfo | None]) -> Gold:
    """Gold labels; refused where they are the very labels that they are to check."""
    gold = {record.id: record for record in read_records(file, Annotation)}
    check_gold(gold, file, files_of(judged), judges)
    if any(_was_fitted_to(file, each, judges) for each in files_of(judged)):
        warn(
            f"the labels of {listed(judged)} follow from a calibration that was fitted to {file}: the figures against "
            "this gold are too good. `maskdpo calibrate` has printed honest ones, of held-out topics"
        )
    return gold


def _was_fitted_to(gold: Path, judged: Path, judges: set[JudgeInfo | None]) -> bool:
    """Whether the labels are by a calibration that was fitted to this gold file, as far as the run record beside them
    leads to the calibration."""
    hashes = {judge.calibration for judge in judges if judge}
    try:
        record = record_of(judged)
        meta = read_meta(record) if record else None
        if record is None or meta is None or "calibration" not in meta.paths:
            return False
        calibration = read_calibration(record.parent / meta.paths["calibration"])
    except InputError:  # it is not there any more, or of another version: nothing is known
        return False
    return calibration.hash in hashes and holds(gold, calibration.gold_sha256)


def _agreement(settings: EvaluateSettings, gold: Gold, prompts: dict[str, Prompt] | None) -> Agreement | None:
    """The agreement of the (first) file with gold; None where a comparison has gold for the second file only."""
    file = listed(settings.annotations)
    records = read_records(settings.annotations, Annotation, settings.limit)
    result = agreement(records, gold, _topics(prompts), settings.gold_drawn)
    if result is None and settings.compared and _matched(settings, gold):
        return None
    if result is None:
        raise UserError(
            f"{file} and {settings.gold} share no judged sentence: do the ids and the texts of the answers match?"
        )
    if result.other_text and not settings.compared:
        answers = counted(result.other_text, "gold answer has", "gold answers have")
        warn(f"{answers} another text in {file}; counted as not annotated")
    if result.three.coverage < 0.95:
        warn(
            f"only {result.three.coverage:.0%} of the gold sentences were judged; the figures describe these "
            "sentences only"
        )
    return result


def _matched(settings: EvaluateSettings, gold: Gold) -> bool:
    assert settings.compared is not None
    answers = read_records(settings.compared, Annotation, settings.limit)
    return any(answer.id in gold and gold[answer.id].response == answer.response for answer in answers)


def _topics(prompts: Mapping[str, Prompt] | None) -> dict[str, str]:
    return {prompt.id: prompt.shared_topic for prompt in (prompts or {}).values()}


def _powered(
    settings: EvaluateSettings,
    gold: Gold,
    prompts: dict[str, Prompt] | None,
    judges_after: set[JudgeInfo | None],
) -> Powered | PoweredComparison | str:
    assert settings.gold is not None
    refused = check_drawn(gold, settings.gold_drawn, settings.gold.name)
    if refused:
        return refused
    before = _sums(settings.annotations, gold, settings, prompts)
    if settings.compared is None:
        return powered(before)
    other = gold
    if settings.compare_gold:
        other = _read_gold(settings.compare_gold, settings.compared, judges_after)
        refused = check_drawn(other, settings.gold_drawn, settings.compare_gold.name)
    after = _sums(settings.compared, other, settings, prompts)
    return refused or compare_powered(before, after)


def _sums(given: Input, gold: Gold, settings: EvaluateSettings, prompts: dict[str, Prompt] | None) -> dict[str, Array]:
    read = read_records(given, Annotation, settings.limit)
    answers = (answer for answer in read if not answer.lacked_reference)
    return topic_sums(answers, gold, _topics(prompts), settings.gold_drawn)

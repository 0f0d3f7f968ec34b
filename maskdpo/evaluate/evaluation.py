"""``maskdpo evaluate``: all figures of a file of annotations, or of two."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from maskdpo.console import warn
from maskdpo.errors import InputError, UserError
from maskdpo.evaluate import tables, values
from maskdpo.evaluate.agreement import Agreement, agreement
from maskdpo.evaluate.compared import Seen, doubts
from maskdpo.evaluate.factuality import MAIN_FIGURES, Comparison, Summary, compare, summarise
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
from maskdpo.html.render import SummaryTable
from maskdpo.io import Input, files_of, read_answers, read_prompts, read_records
from maskdpo.run_record import holds, read_meta, record_of
from maskdpo.schemas import Annotation, JudgeInfo, Prompt
from maskdpo.schemas.effects import SideEffects
from maskdpo.text.language_counts import LanguageCounts
from maskdpo.verdicts.decision import read_calibration
from maskdpo.verdicts.effects import read_effects
from maskdpo.verdicts.estimate import Estimate
from maskdpo.verdicts.gold import check_gold

Gold = Mapping[str, Annotation]
"""By id."""
Noted = dict[Input, Seen]
"""What was noted of the annotations of an input."""


@dataclass(frozen=True)
class Evaluation:
    """The figures of ``maskdpo evaluate``: a ``summary`` of one file, or a ``comparison`` of two."""

    annotations: tuple[Path, ...]
    compared: Path | None
    gold: Path | None
    summary: Summary | None
    comparison: Comparison | None
    agreement: Agreement | None
    languages: tuple[LanguageCounts, ...]
    """The counts of each file by the language of answers."""
    powered: Powered | PoweredComparison | str | None
    """Prediction-powered estimates, or why there are none although there is gold."""
    others: "tuple[Evaluation, ...]" = ()
    """The comparisons with further files."""
    between: Mapping[Path, Comparison] = field(default_factory=dict)
    """Of several compared files, each further one (after) beside the first (before)."""
    side_effects: Mapping[Path, SideEffects] = field(default_factory=dict)
    """What trainings have changed in other answers, by the file that says so."""
    labels: tuple[str, ...] = ()
    """What tables and plots call these annotations and each compared file; empty: they have the names of files."""

    def tables(self) -> list[SummaryTable]:
        made, name = [], named(self.annotations)
        refused = [self.powered] if isinstance(self.powered, str) else []
        if self.summary:
            made.append(tables.of_summary(name, self.summary, refused))
        if self.others:
            labels = self.labels or ("before", *self._names()[1:])
            made.append(tables.of_comparisons(name, self._comparisons(), labels))
        elif self.comparison and self.compared:
            made.append(tables.of_comparison(f"{name} -> {self.compared.name}", self.comparison, refused))
        if self.between and self.compared:
            made.append(tables.of_comparisons(self.compared.name, self.between, self._names()[1:]))
        names = [name, *([self.compared.name] if self.compared else [])]
        made += [tables.of_languages(*each) for each in zip(names, self.languages, strict=True) if each[1].of_several()]
        if self.gold and self.summary and isinstance(self.powered, Powered):
            made.append(tables.of_powered(self.powered, self.summary, self.gold.name))
        if self.gold and isinstance(self.powered, PoweredComparison):
            made.append(tables.of_powered_comparison(self.powered, self.gold.name))
        if self.gold and self.agreement:
            made += tables.of_agreement(f"{name} against {self.gold.name}", self.agreement)
        return [*made, *(tables.of_side_effects(file.name, found) for file, found in self.side_effects.items())]

    def write_json(self, out: Path) -> None:
        """Write the figures as JSON: unrounded; null where a figure is undefined or was not asked for."""
        found = {
            "summary": values.of_summary(self.summary) if self.summary else None,
            "comparison": values.of_comparison(self.comparison) if self.comparison else None,
            "comparisons": {str(file): values.of_comparison(found) for file, found in self._comparisons().items()},
            "between": {str(file): values.of_comparison(found) for file, found in self.between.items()},
            "languages": [counted.values() for counted in self.languages],
            "agreement": values.of_agreement(self.agreement) if self.agreement else None,
            "side_effects": {str(file): one.model_dump(mode="json") for file, one in self.side_effects.items()},
            "prediction_powered": values.of_powered(self.powered) if self.powered else None,
        }
        values.write(out, self.annotations, {"compare": self.compared, "gold": self.gold}, found)

    def main_figures(self) -> dict[str, dict[str, Estimate]]:
        """What a plot shows: ``MAIN_FIGURES`` of these annotations and of each compared file, by their names."""
        found = self._comparisons()
        summaries = [one.before for one in list(found.values())[:1]] + [one.after for one in found.values()]
        return {
            name: {key: summary.figures[key] for key in MAIN_FIGURES}
            for name, summary in zip(self._names(), summaries, strict=True)
        }

    def _names(self) -> list[str]:
        """What these annotations and each compared file are called."""
        files = [self.annotations[0], *self._comparisons()]
        names = list(self.labels) or [file.stem.removesuffix(".annotations") for file in files]
        # those of several folders may have one name
        return names if len(set(names)) == len(names) else [str(file) for file in files]

    def _comparisons(self) -> dict[Path, Comparison]:
        """All comparisons by the file that these annotations are compared with."""
        every = ((one.compared, one.comparison) for one in (self, *self.others))
        return {file: found for file, found in every if file and found}


def evaluate_files(settings: EvaluateSettings) -> Evaluation:
    """All figures of a file, or of two with ``compare`` (after); with ``gold`` also those that need gold labels.

    Each of several files of ``compare`` is compared with these annotations, and each further one with the first too.
    """
    _check_options(settings)
    effects = {file: read_effects(file) for file in settings.side_effects}
    first, *others = [_evaluate(settings.but(compare=(file,))) for file in settings.compare] or [_evaluate(settings)]
    between = _between(settings) if others else {}
    return replace(first, others=tuple(others), between=between, side_effects=effects, labels=settings.labels)


def _evaluate(settings: EvaluateSettings) -> Evaluation:
    prompts = read_prompts(settings.prompts) if settings.prompts else None
    summary = comparison = agreed = estimates = None
    penalty = settings.length_penalty
    seen: Noted = {settings.annotations: Seen()}
    tags = {prompt.id: prompt.language for prompt in (prompts or {}).values() if prompt.language}
    languages = tuple(LanguageCounts(tags) for file in (settings.annotations, settings.compared) if file)
    before = _read(settings.annotations, prompts, settings.limit, seen, languages[0])
    if settings.compared is None:
        summary = summarise(before, prompts, length_penalty=penalty)
    else:
        after = _read(settings.compared, prompts, settings.limit, seen, languages[1])
        comparison = compare(before, after, prompts, length_penalty=penalty)
        if comparison is None:
            raise UserError(
                f"{listed(settings.annotations)} and {settings.compared} share no topic, so there is nothing to compare"
            )
        for doubt in doubts(
            seen[settings.annotations], seen[settings.compared], files_of(settings.annotations), settings.compared
        ):
            warn(doubt)
    if settings.gold:
        gold = _read_gold(settings.gold, settings.annotations, seen[settings.annotations].judges)
        agreed = _agreement(settings, gold, prompts)
        estimates = _powered(settings, gold, prompts, seen)
    files = settings.annotations, settings.compared, settings.gold
    return Evaluation(*files, summary, comparison, agreed, languages, estimates)


def _between(settings: EvaluateSettings) -> dict[Path, Comparison]:
    """The further files of ``compare`` beside the first one; none where one of them shares no topic with it."""
    prompts = read_prompts(settings.prompts) if settings.prompts else None
    first, *others = settings.compare
    found: dict[Path, Comparison] = {}
    for file in others:
        before, after = (_judged(each, settings.limit) for each in (first, file))
        one = compare(before, after, prompts, length_penalty=settings.length_penalty)
        if one is None:
            return {}
        found[file] = one
    return found


def _check_options(settings: EvaluateSettings) -> None:
    for file in settings.compare:
        if [*settings.annotations, *settings.compare].count(file) > 1:
            raise UserError(f"`compare`: {file} is given twice; give each file once, none is set beside itself")
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


def named(given: Input) -> str:
    """The files of an input, in titles."""
    return " + ".join(file.name for file in files_of(given))


def _read(
    given: Input, prompts: dict[str, Prompt] | None, limit: int | None, seen: Noted, languages: LanguageCounts
) -> Iterator[Annotation]:
    """The annotations, of which ``seen`` notes what comparisons need, and which are counted in ``languages``.

    With prompts, every answer must have a prompt: a topic is never guessed. Answers that lacked a reference to judge
    them by are left out, for they say nothing of the model.
    """
    noted = seen.setdefault(given, Seen())
    read = lacked = 0
    part = (
        partial(read_records, limit=limit) if prompts is None else partial(read_answers, prompts=prompts, limit=limit)
    )
    for annotation in part(given, Annotation):
        noted.add(annotation)
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
        warn(f"{result.other_text} gold answers have another text in {file}; they count as not annotated")
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
    seen: Noted,
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
        other = _read_gold(settings.compare_gold, settings.compared, seen[settings.compared].judges)
        refused = check_drawn(other, settings.gold_drawn, settings.compare_gold.name)
    after = _sums(settings.compared, other, settings, prompts)
    return refused or compare_powered(before, after)


def _sums(given: Input, gold: Gold, settings: EvaluateSettings, prompts: dict[str, Prompt] | None) -> dict[str, Array]:
    return topic_sums(_judged(given, settings.limit), gold, _topics(prompts), settings.gold_drawn)


def _judged(given: Input, limit: int | None) -> Iterator[Annotation]:
    """What ``_read`` gives, without another check and notice."""
    return (answer for answer in read_records(given, Annotation, limit) if not answer.lacked_reference)

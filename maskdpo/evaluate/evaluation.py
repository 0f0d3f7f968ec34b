"""``maskdpo evaluate``: all figures of a file of annotations, or of two."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from maskdpo.console import warn
from maskdpo.errors import InputError, UserError
from maskdpo.evaluate import tables, values
from maskdpo.evaluate.agreement import Agreement, agreement
from maskdpo.evaluate.compared import Seen, doubts
from maskdpo.evaluate.factuality import MAIN_FIGURES, Comparison, Summary, TopicSums, compare, summary_of, sums_by_topic
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


@dataclass(frozen=True)
class Evaluation:
    """The figures of ``maskdpo evaluate``: a ``summary`` of one file, or its ``comparisons`` with others."""

    annotations: tuple[Path, ...]
    gold: Path | None
    summary: Summary | None
    comparisons: Mapping[Path, Comparison]
    """Each compared file (after) beside these annotations (before)."""
    between: Mapping[Path, Comparison]
    """Of several compared files, each further one (after) beside the first (before), if they share topics."""
    agreement: Agreement | None
    languages: tuple[LanguageCounts, ...]
    """The counts of these annotations, and of the first compared file, by the language of answers."""
    powered: Powered | PoweredComparison | str | None
    """Prediction-powered estimates, or why there are none although there is gold."""
    side_effects: Mapping[Path, SideEffects]
    """What trainings have changed in other answers, by the file that says so."""
    labels: tuple[str, ...]
    """What tables and plots call these annotations and each compared file; empty: they have the names of files."""

    @property
    def compared(self) -> Path | None:
        """The first compared file."""
        return next(iter(self.comparisons), None)

    @property
    def comparison(self) -> Comparison | None:
        """That with the first compared file."""
        return next(iter(self.comparisons.values()), None)

    def tables(self) -> list[SummaryTable]:
        made, name, labels = [], named(self.annotations), self.labels or tables.BEFORE_AFTER
        refused = [self.powered] if isinstance(self.powered, str) else []
        if self.summary:
            made.append(tables.of_summary(name, self.summary, refused))
        if len(self.comparisons) > 1:
            made += self._tables_of_several()
        elif self.comparison and self.compared:
            made.append(tables.of_comparison(f"{name} -> {self.compared.name}", self.comparison, refused, labels))
        names = [name, *([self.compared.name] if self.compared else [])]
        made += [tables.of_languages(*each) for each in zip(names, self.languages, strict=True) if each[1].of_several()]
        if self.gold and self.summary and isinstance(self.powered, Powered):
            made.append(tables.of_powered(self.powered, self.summary, self.gold.name))
        if self.gold and isinstance(self.powered, PoweredComparison):
            made.append(tables.of_powered_comparison(self.powered, self.gold.name, labels))
        if self.gold and self.agreement:
            made += tables.of_agreement(f"{name} against {self.gold.name}", self.agreement)
        return [*made, *(tables.of_side_effects(file.name, found) for file, found in self.side_effects.items())]

    def write_json(self, out: Path) -> None:
        """Write the figures as JSON: unrounded; null where a figure is undefined or was not asked for."""
        found = {
            "summary": values.of_summary(self.summary) if self.summary else None,
            "comparison": values.of_comparison(self.comparison) if self.comparison else None,
            "comparisons": {str(file): values.of_comparison(found) for file, found in self.comparisons.items()},
            "between": {str(file): values.of_comparison(found) for file, found in self.between.items()},
            "languages": [counted.values() for counted in self.languages],
            "agreement": values.of_agreement(self.agreement) if self.agreement else None,
            "side_effects": {str(file): one.model_dump(mode="json") for file, one in self.side_effects.items()},
            "prediction_powered": values.of_powered(self.powered) if self.powered else None,
        }
        values.write(out, self.annotations, {"compare": self.compared, "gold": self.gold}, found)

    def main_figures(self) -> dict[str, dict[str, Estimate]]:
        """What a plot shows: ``MAIN_FIGURES`` of these annotations and of each compared file, by their names."""
        found = list(self.comparisons.values())
        summaries = [one.before for one in found[:1]] + [one.after for one in found]
        return {
            name: {key: summary.figures[key] for key in MAIN_FIGURES}
            for name, summary in zip(self._names(), summaries, strict=True)
        }

    def _names(self) -> list[str]:
        """What these annotations and each compared file are called."""
        files = [self.annotations[0], *self.comparisons]
        names = list(self.labels) or [file.stem.removesuffix(".annotations") for file in files]
        # those of several folders may have one name
        return names if len(set(names)) == len(names) else [str(file) for file in files]

    def _tables_of_several(self) -> list[SummaryTable]:
        own, *names = self._names()
        called = dict(zip(self.comparisons, names, strict=True))
        first, *others = called
        apart = [
            f"{called[file]} is not set beside {called[first]}: they share no topic"
            for file in others
            if file not in self.between
        ]
        labels = [own if self.labels else "before", *names]
        if not self.between:
            return [tables.of_comparisons(named(self.annotations), self.comparisons, labels, apart)]
        return [
            tables.of_comparisons(named(self.annotations), self.comparisons, labels),
            tables.of_comparisons(first.name, self.between, [called[file] for file in (first, *self.between)], apart),
        ]


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


def named(given: Input) -> str:
    """The files of an input, in titles."""
    return " + ".join(file.name for file in files_of(given))


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

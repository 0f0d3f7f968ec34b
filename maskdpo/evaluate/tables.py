"""Figures as tables, for the terminal and for the page."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from maskdpo.console import counted
from maskdpo.evaluate.agreement import Agreement, ClassAgreement
from maskdpo.evaluate.factuality import CLAIMS, PRECISION, RIGHT_OF_ALL, Comparison, Summary
from maskdpo.evaluate.prediction_powered import FIGURES as POWERED
from maskdpo.evaluate.prediction_powered import Powered, PoweredComparison
from maskdpo.evaluate.probabilities import Probabilities
from maskdpo.html.render import SummaryTable
from maskdpo.schemas import Counts
from maskdpo.schemas.effects import SideEffects
from maskdpo.text.language import UNKNOWN
from maskdpo.text.language_counts import LanguageCounts
from maskdpo.verdicts import effects
from maskdpo.verdicts.estimate import few_topics_of
from maskdpo.verdicts.figures import FIGURE_NAMES

NO_STAR = "no difference gets a star"
INTERVALS = "with 95% intervals over topics"
BEFORE_AFTER = ("before", "after")

AGREEMENT_NAMES = {
    "accuracy": "accuracy",
    "kappa": "Cohen's kappa",
    "alpha": "Krippendorff's alpha",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
}

Row = tuple[str, ...]


def of_summary(file: str, summary: Summary, notes: Sequence[str] = ()) -> SummaryTable:
    """One file: every figure with its interval."""
    rows = [(name, str(estimate)) for name, estimate in summary.figures.items()]
    title = f"{file}: {counted(summary.answers, 'answer')}, {counted(summary.topics, 'topic')}"
    return SummaryTable(title, (INTERVALS, "value"), rows, [*few_topics_of(summary.figures, summary.topics), *notes])


def of_comparison(
    names: str, result: Comparison, notes: Sequence[str] = (), labels: Sequence[str] = BEFORE_AFTER
) -> SummaryTable:
    """Two files and their paired differences; a star marks a difference that is sure.

    Args:
        labels: what to call the two.
    """
    before, after = result.before, result.after
    sizes = f"{before.answers:,} and {after.answers:,} answers, the {counted(before.topics, 'topic')} of both"
    rows = [
        (name, str(before.figures[name]), str(after.figures[name]), difference.signed())
        for name, difference in result.difference.items()
    ]
    notes = [*few_topics_of(result.difference, before.topics, NO_STAR), *_filler(result), *notes]
    return SummaryTable(f"{names}: {sizes}", _columns_of_two(labels), rows, notes)


def _columns_of_two(labels: Sequence[str]) -> Row:
    before, after = labels
    return INTERVALS, before, after, f"{after} - {before}"


def of_comparisons(
    name: str, found: Mapping[Path, Comparison], labels: Sequence[str], notes: Sequence[str] = ()
) -> SummaryTable:
    """One file beside several others: what each is, and its paired difference from the first.

    Args:
        labels: what to call the first file and each of the others.
    """
    before, *names = labels
    every = list(zip(names, found.values(), strict=True))
    first = every[0][1]
    columns: list[str] = [INTERVALS, before]
    for other, _ in every:
        columns += [other, f"{other} - {before}"]
    rows = []
    for figure in first.difference:
        cells = [str(first.before.figures[figure])]
        for _, result in every:
            cells += [str(result.after.figures[figure]), result.difference[figure].signed()]
        rows.append((figure, *cells))
    noted = []
    for other, result in every:
        few = few_topics_of(result.difference, result.before.topics, NO_STAR)
        noted += [f"{other}: {note}" for note in (*few, *_filler(result))]
        if result.before.topics != first.before.topics:
            noted.append(
                f"{other}: compared on {counted(result.before.topics, 'topic')}, not on {first.before.topics:,}"
            )
    others = "1 other" if len(every) == 1 else f"{len(every)} others"
    return SummaryTable(f"{name}: beside {others}, by the topics of both", tuple(columns), rows, [*noted, *notes])


def of_languages(file: str, counted: LanguageCounts) -> SummaryTable:
    """One file by the language of its answers, without intervals."""
    rows = []
    for language, counts in counted.of_several().items():
        right, wrong = counts["right"], counts["wrong"]
        every = sum(counts[name] for name in Counts._fields)
        shares = [f"{right / whole:.3f}" if whole else "undefined" for whole in (every, right + wrong)]
        rows.append((language, *(f"{counts[name]:,}" for name in ("answers", *Counts._fields)), *shares))
    columns = ("language", "answers", *(name.replace("_", " ") for name in Counts._fields), RIGHT_OF_ALL, PRECISION)
    notes = ["und: the language is not named, and could not be told."] if UNKNOWN in counted.of_several() else []
    return SummaryTable(f"{file}: sentences by language", columns, rows, notes)


def _filler(result: Comparison) -> list[str]:
    if not result.won_by_filler:
        return []
    before, after = (summary.figures[CLAIMS].value for summary in (result.before, result.after))
    return [
        f"{' and '.join(result.won_by_filler)} rose while answers name less that can be checked: {before:.2f} -> "
        f"{after:.2f} different names, numbers and dates per answer. The answers may be right because they say less."
    ]


def of_powered(found: Powered, judge: Summary, gold: str) -> SummaryTable:
    """The prediction-powered figures of a file, beside those that the judge alone gives."""
    rows: list[Row] = [
        ("gold sentences of known probability", "", f"{found.gold_sentences:,}"),
        ("their topics", "", f"{found.gold_topics:,}"),
        *((name, str(judge.figures[name]), str(found.figures[name])) for name in POWERED),
    ]
    notes = few_topics_of(found.figures, found.gold_topics)
    return SummaryTable(_powered_title(gold), (INTERVALS, "judge alone", "with gold"), rows, notes)


def _powered_title(gold: str) -> str:
    return f"prediction-powered: the whole file, with the judge's errors taken from {gold}"


def of_powered_comparison(found: PoweredComparison, gold: str, labels: Sequence[str] = BEFORE_AFTER) -> SummaryTable:
    """The same of two files, and their difference where both have gold."""
    sides = tuple(zip(labels, (found.before, found.after), strict=True))
    known = [side for _, side in sides if isinstance(side, Powered)]
    topics = min((side.gold_topics for side in known), default=0)

    def cell(side: Powered | str, name: str) -> str:
        return str(side.figures[name]) if isinstance(side, Powered) else "-"

    def size(name: str) -> Row:
        return (*(f"{getattr(side, name):,}" if isinstance(side, Powered) else "-" for _, side in sides), "")

    rows: list[Row] = [
        ("gold sentences of known probability", *size("gold_sentences")),
        ("their topics", *size("gold_topics")),
    ]
    for name in POWERED:
        difference = found.difference[name].signed() if found.difference else "-"
        rows.append((name, *(cell(side, name) for _, side in sides), difference))
    notes = [f"{name}: {side}; a difference needs gold of both." for name, side in sides if isinstance(side, str)]
    if found.difference:
        notes += few_topics_of(found.difference, topics, NO_STAR)
    else:
        notes += [line for side in known for line in few_topics_of(side.figures, topics)]
    return SummaryTable(_powered_title(gold), _columns_of_two(labels), rows, notes)


def of_side_effects(file: str, found: SideEffects) -> SummaryTable:
    """What a training has changed in answers that it was not about."""
    return SummaryTable(
        f"{file}: {effects.title_of(found)}", effects.COLUMNS, effects.rows_of(found), effects.notes_of(found)
    )


def of_agreement(names: str, result: Agreement) -> list[SummaryTable]:
    """The agreement with gold labels in three classes, over four labels where the gold labels have them, and the
    quality of the probabilities where there are scores."""
    answers = [
        ("gold answers", f"{result.gold_answers:,}", ""),
        ("of them not annotated", f"{result.not_annotated:,}", ""),
        *([("gold sentences that were chosen, not drawn", f"{result.chosen:,}", "")] if result.chosen else []),
    ]
    tables = _classes(names, "class", answers, result.three, result.topics)
    if result.four:
        left_out = result.three.sentences - result.four.sentences
        note = f" (without {counted(left_out, 'sentence')} with the gold label hallucination)" if left_out else ""
        tables += _classes(f"{names}, four labels{note}", "label", [], result.four, result.topics)
    return [*tables, *_probabilities(result.probabilities, result.topics)] if result.probabilities else tables


def _classes(title: str, kind: str, head: Sequence[Row], found: ClassAgreement, topics: int) -> list[SummaryTable]:
    """The figures, beside those of always giving the most frequent class; the confusion matrix; figures per class."""
    figures = [
        *head,
        ("gold sentences", f"{found.sentences:,}", ""),
        ("of them judged", f"{found.judged:,}", ""),
        ("coverage", f"{found.coverage:.3f}", ""),
        *((AGREEMENT_NAMES[key], str(e), _decimal(found.baseline[key])) for key, e in found.figures.items()),
    ]
    notes = few_topics_of({AGREEMENT_NAMES[key]: estimate for key, estimate in found.figures.items()}, topics)
    confusion = [(name, *map(str, row)) for name, row in zip(found.classes, found.confusion, strict=True)]
    scores = [(name, *map(_decimal, row[:3]), f"{row.support:,}") for name, row in found.per_class.items()]
    return [
        SummaryTable(title, (INTERVALS, "value", f'always "{found.majority}"'), figures, notes),
        SummaryTable(f"confusion by {kind}", ("gold \\ judged", *found.classes, "not judged"), confusion),
        SummaryTable(f"by {kind}", ("of what was judged", "precision", "recall", "F1", "support"), scores),
    ]


def _probabilities(found: Probabilities, topics: int) -> list[SummaryTable]:
    """The figures of the probabilities, and how often sentences of like probability are right."""
    sizes = f"{found.right:,} right and {found.wrong:,} wrong sentences with scores"
    share = found.right / (found.right + found.wrong)
    figures = [
        (FIGURE_NAMES[name], str(estimate), _decimal(found.baseline[name])) for name, estimate in found.figures.items()
    ]
    notes = few_topics_of({FIGURE_NAMES[name]: estimate for name, estimate in found.figures.items()}, topics)
    bins = [(f"{one.probability:.3f}", str(one.share), f"{one.sentences:,}") for one in found.bins]
    return [
        SummaryTable(
            f"probability of right, as the judge gave it: {sizes}",
            (INTERVALS, "value", f"always {share:.2f}"),
            figures,
            notes,
        ),
        SummaryTable("reliability", ("mean probability of right", "right in gold", "sentences"), bins),
    ]


def _decimal(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"

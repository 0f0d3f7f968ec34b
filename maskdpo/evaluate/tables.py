"""Figures as tables, for the terminal and for the page alike."""

from collections.abc import Iterator
from pathlib import Path

from maskdpo.console import warn
from maskdpo.errors import UserError
from maskdpo.evaluate.agreement import CLASSES, agreement
from maskdpo.evaluate.factuality import Summary, compare, summarise
from maskdpo.evaluate.page import SummaryTable
from maskdpo.io import read_answers, read_prompts, read_records
from maskdpo.schemas import Annotation, Prompt


def summary_table(annotations: Path, prompts: Path | None, seed: int) -> SummaryTable:
    """One file: every figure with its interval."""
    known = read_prompts(prompts) if prompts else None
    summary = summarise(_read(annotations, known), known, seed=seed)
    rows = [(name, str(estimate)) for name, estimate in summary.metrics.items()]
    return SummaryTable(f"{annotations.name}: {_size(summary)}", ("with 95% intervals over topics", "value"), rows)


def comparison_table(before: Path, after: Path, prompts: Path | None, seed: int) -> SummaryTable:
    """Two files: both, and the paired difference; a star marks one whose interval leaves out 0."""
    known = read_prompts(prompts) if prompts else None
    result = compare(_read(before, known), _read(after, known), known, seed=seed)
    if result is None:
        raise UserError(f"{before} and {after} share no topic, so there is nothing to compare")
    sizes = f"before {_size(result.before)}; after {_size(result.after)}"
    columns = ("with 95% intervals over topics", "before", "after", "after - before")
    rows = [
        (name, str(result.before.metrics[name]), str(result.after.metrics[name]), difference.signed())
        for name, difference in result.difference.items()
    ]
    return SummaryTable(f"{before.name} -> {after.name}: {sizes}", columns, rows)


def _read(annotations: Path, prompts: dict[str, Prompt] | None) -> Iterator[Annotation]:
    """With prompts, every answer must have one: a topic is never guessed."""
    if prompts is None:
        return read_records(annotations, Annotation)
    return read_answers(annotations, Annotation, prompts)


def _size(summary: Summary) -> str:
    return f"{summary.answers:,} answers, {summary.topics:,} topics"


def agreement_tables(annotations: Path, gold: Path, seed: int) -> list[SummaryTable]:
    """How far the labels agree with gold ones, and the confusion matrix."""
    known = {record.id: record for record in read_records(gold, Annotation)}
    result = agreement(read_records(annotations, Annotation), known, seed=seed)
    if result is None:
        raise UserError(
            f"{annotations} and {gold} share no judged sentence: do the ids and the texts of the answers match?"
        )
    rows = [
        ("gold sentences", f"{result.gold_sentences:,}"),
        ("of them judged (coverage)", f"{result.coverage:.3f}"),
        ("accuracy", str(result.accuracy)),
        ("Cohen's kappa", str(result.kappa)),
        ("macro F1", f"{result.macro_f1:.3f}"),
    ]
    if result.coverage < 0.95:
        warn(f"only {result.coverage:.0%} of the gold sentences were judged; the figures speak of those alone")
    columns = ("gold \\ judged", *CLASSES, "precision", "recall", "F1")
    classes = [
        (name, *(str(n) for n in result.confusion[i]), *(f"{x:.3f}" for x in result.per_class[name][:3]))
        for i, name in enumerate(CLASSES)
    ]
    return [
        SummaryTable(f"{annotations.name} against {gold.name}", ("", "value"), rows),
        SummaryTable("by class", columns, classes),
    ]

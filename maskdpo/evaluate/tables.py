"""Figures as tables, for the terminal and for the page, and as JSON for scripts."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskdpo.console import warn
from maskdpo.errors import UserError
from maskdpo.evaluate.agreement import Agreement, ClassAgreement, agreement
from maskdpo.evaluate.factuality import Comparison, Summary, compare, summarise
from maskdpo.evaluate.settings import EvaluateSettings
from maskdpo.html.render import SummaryTable
from maskdpo.io import atomic_write, read_answers, read_prompts, read_records
from maskdpo.run_record import sha256_of
from maskdpo.schemas import Annotation, JudgeInfo, Prompt
from maskdpo.verdicts.estimate import Estimate

AGREEMENT_NAMES = {
    "accuracy": "accuracy",
    "kappa": "Cohen's kappa",
    "alpha": "Krippendorff's alpha",
    "macro_f1": "macro F1",
}


@dataclass(frozen=True)
class Evaluation:
    """The figures of ``maskdpo evaluate``: a ``summary`` of one file, or a ``comparison`` of two."""

    annotations: Path
    compared: Path | None
    gold: Path | None
    summary: Summary | None
    comparison: Comparison | None
    agreement: Agreement | None

    def tables(self) -> list[SummaryTable]:
        tables = []
        if self.summary:
            tables.append(_summary_table(self.annotations.name, self.summary))
        if self.comparison and self.compared:
            tables.append(_comparison_table(f"{self.annotations.name} -> {self.compared.name}", self.comparison))
        if self.agreement and self.gold:
            tables += _agreement_tables(f"{self.annotations.name} against {self.gold.name}", self.agreement)
        return tables

    def write_json(self, out: Path) -> None:
        """Write the figures as JSON: unrounded; null where a figure is undefined or was not asked for."""
        values = {
            "annotations": str(self.annotations),
            "annotations_sha256": sha256_of(self.annotations),  # so that they are not taken for figures of other labels
            "compare": str(self.compared) if self.compared else None,
            "gold": str(self.gold) if self.gold else None,
            "summary": _summary_values(self.summary) if self.summary else None,
            "comparison": _comparison_values(self.comparison) if self.comparison else None,
            "agreement": _agreement_values(self.agreement) if self.agreement else None,
        }
        with atomic_write(out) as file:
            file.write(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def evaluate_files(settings: EvaluateSettings) -> Evaluation:
    """All figures of a file, or of two with ``compare`` (after); with ``gold`` also the agreement with gold labels."""
    annotations, compared, gold, seed = settings.annotations, settings.compare, settings.gold, settings.seed
    length_penalty = settings.length_penalty
    prompts_by_id = read_prompts(settings.prompts) if settings.prompts else None
    summary = comparison = None
    if compared is None:
        summary = summarise(_read(annotations, prompts_by_id), prompts_by_id, length_penalty=length_penalty, seed=seed)
    else:
        judges: tuple[set[JudgeInfo | None], set[JudgeInfo | None]] = set(), set()
        before = _noting(_read(annotations, prompts_by_id), judges[0])
        after = _noting(_read(compared, prompts_by_id), judges[1])
        comparison = compare(before, after, prompts_by_id, length_penalty=length_penalty, seed=seed)
        if comparison is None:
            raise UserError(f"{annotations} and {compared} share no topic, so there is nothing to compare")
        if judges[0] != judges[1]:
            warn(
                f"{annotations} and {compared} have their labels from different judges; differences may come from the "
                "judges"
            )
    agreed = _agreement(annotations, gold, seed) if gold else None
    return Evaluation(annotations, compared, gold, summary, comparison, agreed)


def _noting(annotations: Iterable[Annotation], judges: set[JudgeInfo | None]) -> Iterator[Annotation]:
    """Pass annotations through and collect their judges."""
    for annotation in annotations:
        judges.add(annotation.judge)
        yield annotation


def _read(annotations: Path, prompts: dict[str, Prompt] | None) -> Iterator[Annotation]:
    """With prompts, every answer must have a prompt: a topic is never guessed."""
    if prompts is None:
        return read_records(annotations, Annotation)
    return read_answers(annotations, Annotation, prompts)


def _agreement(annotations: Path, gold: Path, seed: int) -> Agreement:
    gold_by_id = {record.id: record for record in read_records(gold, Annotation)}
    result = agreement(read_records(annotations, Annotation), gold_by_id, seed=seed)
    if result is None:
        raise UserError(
            f"{annotations} and {gold} share no judged sentence: do the ids and the texts of the answers match?"
        )
    if result.other_text:
        warn(f"{result.other_text} gold answers have another text in {annotations}; they count as not annotated")
    if result.three.coverage < 0.95:
        warn(
            f"only {result.three.coverage:.0%} of the gold sentences were judged; the figures describe these "
            "sentences only"
        )
    return result


def _summary_table(file: str, summary: Summary) -> SummaryTable:
    """One file: every figure with its interval."""
    rows = [(name, str(estimate)) for name, estimate in summary.figures.items()]
    title = f"{file}: {summary.answers:,} answers, {summary.topics:,} topics"
    return SummaryTable(title, ("with 95% intervals over topics", "value"), rows)


def _comparison_table(names: str, result: Comparison) -> SummaryTable:
    """Two files and their paired differences; a star marks a difference whose interval does not contain 0."""
    sizes = (
        f"{result.before.answers:,} and {result.after.answers:,} answers, the {result.before.topics:,} topics of both"
    )
    columns = ("with 95% intervals over topics", "before", "after", "after - before")
    rows = [
        (name, str(result.before.figures[name]), str(result.after.figures[name]), difference.signed())
        for name, difference in result.difference.items()
    ]
    return SummaryTable(f"{names}: {sizes}", columns, rows)


def _agreement_tables(names: str, result: Agreement) -> list[SummaryTable]:
    """The agreement with gold labels in three classes, and over four labels where the gold labels have them."""
    answers = [
        ("gold answers", f"{result.gold_answers:,}", ""),
        ("of them not annotated", f"{result.not_annotated:,}", ""),
    ]
    tables = _class_tables(names, "class", answers, result.three)
    if result.four:
        left_out = result.three.sentences - result.four.sentences
        note = f" ({left_out:,} sentences with the gold label hallucination are left out)" if left_out else ""
        tables += _class_tables(f"{names}, four labels{note}", "label", [], result.four)
    return tables


def _class_tables(title: str, kind: str, head: list[tuple[str, str, str]], found: ClassAgreement) -> list[SummaryTable]:
    """The figures, beside those of always giving the most frequent class; the confusion matrix; figures per class."""
    figures = [
        *head,
        ("gold sentences", f"{found.sentences:,}", ""),
        ("of them judged", f"{found.judged:,}", ""),
        ("coverage", f"{found.coverage:.3f}", ""),
        *((AGREEMENT_NAMES[key], str(e), _decimal(found.baseline[key])) for key, e in found.figures.items()),
    ]
    confusion = [(name, *map(str, row)) for name, row in zip(found.classes, found.confusion, strict=True)]
    scores = [(name, *map(_decimal, row[:3]), f"{row.support:,}") for name, row in found.per_class.items()]
    return [
        SummaryTable(title, ("with 95% intervals over answers", "value", f'always "{found.majority}"'), figures),
        SummaryTable(f"confusion by {kind}", ("gold \\ judged", *found.classes, "not judged"), confusion),
        SummaryTable(f"by {kind}", ("of what was judged", "precision", "recall", "F1", "support"), scores),
    ]


def _decimal(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _estimates(figures: Mapping[str, Estimate]) -> dict[str, Any]:
    return {
        name: {"value": _number(e.value), "low": _number(e.low), "high": _number(e.high)} for name, e in figures.items()
    }


def _summary_values(summary: Summary) -> dict[str, Any]:
    return {"answers": summary.answers, "topics": summary.topics, "figures": _estimates(summary.figures)}


def _comparison_values(result: Comparison) -> dict[str, Any]:
    return {
        "before": _summary_values(result.before),
        "after": _summary_values(result.after),
        "difference": _estimates(result.difference),
    }


def _agreement_values(result: Agreement) -> dict[str, Any]:
    return {
        "gold_answers": result.gold_answers,
        "not_annotated": result.not_annotated,
        "other_text": result.other_text,
        "three_classes": _class_values(result.three),
        "four_labels": _class_values(result.four) if result.four else None,
    }


def _class_values(found: ClassAgreement) -> dict[str, Any]:
    columns = (*found.classes, "not_judged")
    return {
        "gold_sentences": found.sentences,
        "judged": found.judged,
        "coverage": found.coverage,
        "figures": _estimates(found.figures),
        "baseline": {"always": found.majority, **{name: _number(value) for name, value in found.baseline.items()}},
        "per_class": {
            name: {"precision": _number(p), "recall": _number(r), "f1": _number(f1), "support": support}
            for name, (p, r, f1, support) in found.per_class.items()
        },
        "confusion": {
            name: dict(zip(columns, row.tolist(), strict=True))
            for name, row in zip(found.classes, found.confusion, strict=True)
        },
    }

"""Figures of ``annotate``: of one run, and of its whole output, which differ where a run was resumed."""

import time
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from maskdpo.annotate.judge import Usage
from maskdpo.schemas import FAILED, WITHOUT_CLAIM, Annotation, Label, Status, group_of
from maskdpo.text.language_counts import LanguageCounts

ALIKE, ALIKE_LEAST = 0.95, 20
"""A run in which so large a share of at least so many labels are of one class says more about its judge than about the
answers."""


@dataclass
class SentenceCounts:
    """The sentences of a file, by label and by status."""

    annotations: int = 0
    sentences: int = 0
    labels: Counter[Label] = field(default_factory=Counter)
    statuses: Counter[Status] = field(default_factory=Counter)
    languages: LanguageCounts = field(default_factory=LanguageCounts)
    reasons: dict[Status, str] = field(default_factory=dict)
    """Of each status of a judge that has not answered, the reason of one sentence."""
    of_judge: Counter[str] = field(default_factory=Counter)
    """Labels that a judge gave, by class: without headings and code."""
    without_scores: int = 0
    """Those of them without scores: no calibration has a say there."""
    without_confidence: int = 0
    """Those of them without a confidence: no least confidence has a say there."""

    def add(self, annotation: Annotation) -> None:
        self._count(annotation, 1)

    def remove(self, annotation: Annotation) -> None:
        """Undo ``add``, because another record replaces this one."""
        self._count(annotation, -1)

    def _count(self, annotation: Annotation, times: int) -> None:
        self.annotations += times
        self.sentences += times * len(annotation.sentences)
        self.languages.add(annotation, times)
        for sentence in annotation.sentences:
            self.statuses[sentence.status] += times
            if sentence.status in FAILED and sentence.reason:
                self.reasons.setdefault(sentence.status, sentence.reason)
            if sentence.label is not None:
                self.labels[sentence.label] += times
            if sentence.label is not None and sentence.kind not in WITHOUT_CLAIM:
                self.of_judge[group_of(sentence.label)] += times
                self.without_scores += times * (sentence.scores is None)
                self.without_confidence += times * (sentence.confidence is None)

    @property
    def failed(self) -> int:
        """Sentences that the judge has not answered."""
        return sum(self.statuses[status] for status in FAILED)

    @property
    def why_failed(self) -> str:
        """The most frequent status of these sentences with the reason of one; empty where nothing is known."""
        status = max(self.reasons, key=lambda one: self.statuses[one], default=None)
        return f"{status.value}: {self.reasons[status]}" if status else ""

    def summary(self) -> dict[str, Any]:
        """As JSON values; the keys are always the same."""
        return {
            "annotations": self.annotations,
            "sentences": self.sentences,
            "failed": self.failed,
            "labels": {label.value: self.labels[label] for label in Label},
            "statuses": {status.value: self.statuses[status] for status in Status},
            "languages": self.languages.values(),
        }

    @property
    def nearly_all(self) -> str | None:
        """The class that nearly all labels of the judge have, if there is one."""
        total = self.of_judge.total()
        name, most = max(self.of_judge.items(), key=lambda item: item[1], default=("", 0))
        return name if total >= ALIKE_LEAST and most >= ALIKE * total else None


@dataclass
class AnnotateStats:
    """``file`` counts the whole output, whichever run wrote it; the fields ``run_...`` count this run alone."""

    responses: int = 0
    already_there: int = 0
    """Responses that an earlier run had annotated."""
    file: SentenceCounts = field(default_factory=SentenceCounts)
    run_responses: int = 0
    """Answers annotated, or annotated again, by this run."""
    run_sentences: int = 0
    """Sentences of these answers; of an answer that was annotated again, those that were judged again."""
    run_retried: int = 0
    """Sentences that were judged again."""
    run_seconds: float = 0.0
    run_usage: Usage | None = None
    """What the calls of the judge took, where it reports them."""
    run_cost: float | None = None
    """Dollars; None where no price is known."""

    @property
    def run_rate(self) -> float | None:
        """Sentences per second."""
        return self.run_sentences / self.run_seconds if self.run_sentences and self.run_seconds else None

    def note(self, started: float) -> str:
        """The text behind the progress bar."""
        groups: Counter[str] = Counter()
        for label, count in self.file.labels.items():
            groups[group_of(label)] += count
        rate = self.run_sentences / max(1e-9, time.monotonic() - started)
        return (
            f"{rate:,.0f} sentences/s: {groups['right']:,} right, {groups['wrong']:,} wrong, "
            f"{groups['no_fact']:,} no fact, {self.file.statuses[Status.UNSURE]:,} unsure, {self.file.failed:,} failed"
        )

    def summary(self) -> dict[str, Any]:
        """As JSON values; the keys are always the same."""
        usage = self.run_usage
        return {
            "responses": self.responses,
            "already_there": self.already_there,
            "whole_file": self.file.summary(),
            "this_run": {
                "responses": self.run_responses,
                "sentences": self.run_sentences,
                "sentences_asked_again": self.run_retried,
                "seconds": round(self.run_seconds, 3),
                "sentences_per_second": round(self.run_rate, 3) if self.run_rate else None,
                "usage": {**asdict(usage), "cached_share": cached_share(usage)} if usage else None,
                "cost": self.run_cost,
            },
        }


def cached_share(usage: Usage) -> float | None:
    """Share of the prompt tokens that the server had in its prefix cache."""
    return round(usage.cached_tokens / usage.prompt_tokens, 4) if usage.prompt_tokens else None


def usage_since(now: Usage | None, before: Usage | None) -> Usage | None:
    """What this run added to the usage of a judge, which may have been used before."""
    if now is None or before is None:
        return now
    return Usage(**{part.name: getattr(now, part.name) - getattr(before, part.name) for part in fields(Usage)})

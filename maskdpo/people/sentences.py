"""Sentences that people have decided: all decisions that count, by sentence."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from maskdpo.errors import UserError
from maskdpo.schemas import Decision, Label, group_of
from maskdpo.verdicts.people import not_undone, read_decisions, standing

T = TypeVar("T")


@dataclass
class Decided:
    """One sentence, by answer, text and span, with the decisions that count."""

    first: Decision
    by_reviewer: dict[str, Decision] = field(default_factory=dict)
    """The labels that reviewers gave on their own."""
    skipped_by: set[str] = field(default_factory=set)
    settled: Decision | None = None
    """The newest adjudication."""
    draws: dict[str, float] = field(default_factory=dict)
    """By queue that draws at random, the probability with which the sentence was drawn, whoever decided it then and
    whatever was said of it later."""
    chosen: bool = False
    """Whether a queue has chosen it, as doubtful or because labels differ."""

    @property
    def topic(self) -> str:
        return self.first.topic or self.first.prompt_id

    @property
    def labels(self) -> list[Label]:
        return [one.label for one in self.by_reviewer.values() if one.label is not None]

    @property
    def given(self) -> dict[str, str]:
        """The label by reviewer."""
        return {name: one.label.value for name, one in self.by_reviewer.items() if one.label is not None}

    @property
    def differs(self) -> bool:
        """Whether people gave different labels, and nobody has settled them."""
        return self.settled is None and len(set(self.labels)) > 1

    @property
    def label(self) -> Label | None:
        """That of the adjudication, or of the majority; None: a tie, or nobody gave one.

        The class (right, wrong, no fact) is decided first. Where most say wrong, but not in one way, the label is
        ``hallucination``, which leaves the way open.
        """
        if self.settled is not None:
            return self.settled.label
        classes = _most([group_of(label) for label in self.labels])
        if len(classes) != 1:
            return None
        labels = _most([label for label in self.labels if group_of(label) == classes[0]])
        return labels[0] if len(labels) == 1 else Label.HALLUCINATION

    def overlaps(self, other: "Decided") -> bool:
        return self.first.start < other.first.end and other.first.start < self.first.end


def _most(given: Sequence[T]) -> list[T]:
    """The most frequent values: several in a tie."""
    count = Counter(given)
    return [value for value, times in count.items() if times == max(count.values())]


def decided_sentences(files: Iterable[Path]) -> list[Decided]:
    """The sentences that were decided in these files.

    Raises:
        UserError: bad input, or no decision that counts.
    """
    decisions = read_decisions(files)
    refuse_none(decisions, files)
    return decided(decisions)


def refuse_none(decisions: Iterable[Decision], files: Iterable[Path]) -> None:
    """Refuse decisions of which none is a label that counts."""
    if not any(one.act == "label" for one in not_undone(decisions)):
        names = ", ".join(map(str, files))
        raise UserError(f"{names}: there is no label in these decisions, or each was undone or skipped")


def decided(decisions: Iterable[Decision]) -> list[Decided]:
    """All sentences with a decision that counts, in the order in which they were first decided."""
    every = not_undone(decisions)
    found: dict[tuple[str, str, int, int], Decided] = {}
    for one in standing(every):
        sentence = found.setdefault(_place(one), Decided(one))
        if one.act == "skip":
            sentence.skipped_by.add(one.reviewer)
        elif one.adjudicates:
            sentence.settled = one
        else:
            sentence.by_reviewer[one.reviewer] = one
    for one in every:
        if (known := found.get(_place(one))) is not None and one.queue:
            known.chosen |= one.inclusion is None
            if one.inclusion is not None:
                known.draws[one.queue] = max(one.inclusion, known.draws.get(one.queue, 0.0))
    return list(found.values())


def _place(one: Decision) -> tuple[str, str, int, int]:
    return one.answer_id, one.response, one.start, one.end


def differing(sentences: Iterable[Decided]) -> list[Decided]:
    """The sentences to which people gave different labels, and which no adjudication covers."""
    found = []
    for of_answer in by_answer(sentences).values():
        settled = [one for one in of_answer if one.settled is not None]
        found += [one for one in of_answer if one.differs and not any(one.overlaps(other) for other in settled)]
    return found


def by_answer(sentences: Iterable[Decided]) -> dict[tuple[str, str], list[Decided]]:
    """By id and text of the answer, in the order of the text."""
    found: dict[tuple[str, str], list[Decided]] = defaultdict(list)
    for sentence in sentences:
        found[sentence.first.answer_id, sentence.first.response].append(sentence)
    for of_answer in found.values():
        of_answer.sort(key=lambda one: (one.first.start, one.first.end))
    return found

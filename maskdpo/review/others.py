"""Other labels beside those of the judge, for the queue of disagreement: of another judge, or of reviewers."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from maskdpo.errors import InputError, UserError
from maskdpo.io import read_records, record_type
from maskdpo.schemas import WRONG, Annotation, Decision, JudgeInfo, Label, Sentence
from maskdpo.verdicts.gold import Spanned, overlapping
from maskdpo.verdicts.people import read_decisions, standing


class Opinion(NamedTuple):
    """What another judge or a reviewer says of a sentence."""

    who: str
    label: Label
    note: str | None
    """The reason of a judge, or the note of a reviewer."""
    text: str | None = None
    """What the reviewer has decided, where that is not this sentence as it was: it was joined or split."""


class Others:
    """The labels of other files, by answer. Labels of another text than that of the annotation are left out."""

    def __init__(self, files: Sequence[Path]) -> None:
        kinds = {file: record_type(file) for file in files}
        wrong = [file for file, kind in kinds.items() if kind not in (Annotation, Decision)]
        if wrong:
            raise InputError("holds neither annotations nor decisions, and only these have labels", path=wrong[0])
        if len(set(kinds.values())) > 1:
            raise UserError("`against` must be files of one kind: annotations of judges, or decisions of reviewers")
        self.people = Decision in kinds.values()
        """Whether reviewers differ among each other; else judges differ from the judge of the annotations."""
        self._judges: dict[str, list[Annotation]] = defaultdict(list)
        self._reviewers: dict[str, list[Decision]] = defaultdict(list)
        self._settled: dict[str, list[Decision]] = defaultdict(list)
        """Adjudications: who has settled what others differ on is none of those who differ."""
        if self.people:
            for decision in standing(read_decisions(files)):
                kind = self._settled if decision.adjudicates else self._reviewers
                if decision.label is not None:
                    kind[decision.answer_id].append(decision)
        else:
            for annotation in (record for file in files for record in read_records(file, Annotation)):
                self._judges[annotation.id].append(annotation)

    def opinions(self, annotation: Annotation, sentence: Sentence) -> list[Opinion]:
        """What judges say of what shares most characters with the sentence, or reviewers of all that shares some."""
        if self.people:
            return [_opinion(one, sentence) for one in self._of_reviewers(annotation, sentence)]
        found = []
        for other in self._judges[annotation.id]:
            said = overlapping(other.sentences, sentence) if other.response == annotation.response else None
            if said is not None and said.label is not None:
                found.append(Opinion(name_of(other.judge), said.label, said.reason))
        return found

    def _of_reviewers(self, annotation: Annotation, sentence: Sentence) -> list[Decision]:
        """By reviewer, in the order of the text."""
        there = (one for one in self._reviewers[annotation.id] if one.response == annotation.response)
        return sorted((one for one in there if _share(one, sentence)), key=lambda one: (one.reviewer, one.start))

    def who_differ(self, annotation: Annotation, sentence: Sentence) -> tuple[str, ...] | None:
        """The reviewers who differ on a sentence, in its label or in its cut; without a name where judges do.

        None: they agree, one is alone, or a named person has settled the whole sentence.
        """
        if self.people:
            made = self._of_reviewers(annotation, sentence)
            settled = [one for one in self._settled[annotation.id] if one.response == annotation.response]
            if not any(_contest(one, other) for one, other in combinations(made, 2)):
                return None
            return tuple({one.reviewer: None for one in made}) if left_of(annotation, sentence, settled) else None
        labels = [one.label for one in self.opinions(annotation, sentence)]
        labels += [] if sentence.label is None else [sentence.label]
        return () if any(_differ(one, other) for one, other in combinations(labels, 2)) else None


def left_of(annotation: Annotation, sentence: Sentence, decided: Iterable[Spanned]) -> str:
    """What is left of a sentence beside what was decided of its answer, without white space."""
    spans = list(decided)
    inside = range(sentence.start, sentence.end)
    return "".join(annotation.response[i] for i in inside if not any(one.start <= i < one.end for one in spans)).strip()


def name_of(judge: JudgeInfo | None) -> str:
    parts = (judge.name, judge.model, judge.protocol) if judge else ("people",)
    return " · ".join(part for part in parts if part)


def _opinion(one: Decision, sentence: Sentence) -> Opinion:
    assert one.label is not None
    same = (one.start, one.end) == (sentence.start, sentence.end)
    return Opinion(one.reviewer, one.label, one.note, None if same else one.response[one.start : one.end])


def _share(one: Spanned, other: Spanned) -> bool:
    return one.start < other.end and other.start < one.end


def _contest(one: Decision, other: Decision) -> bool:
    """Whether two reviewers have given the same text different labels, or have cut it in different ways."""
    if one.reviewer == other.reviewer or not _share(one, other) or one.label is None or other.label is None:
        return False
    return (one.start, one.end) != (other.start, other.end) or _differ(one.label, other.label)


def _differ(one: Label, other: Label) -> bool:
    """``hallucination`` does not say in which way a sentence is wrong, so it agrees with every wrong label."""
    return one != other and not (Label.HALLUCINATION in (one, other) and {one, other} <= WRONG)

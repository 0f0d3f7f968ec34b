"""Other labels beside those of the judge, for the queue of disagreement: of another judge, or of reviewers."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from maskdpo.errors import InputError, UserError
from maskdpo.io import read_records, record_type
from maskdpo.schemas import WRONG, Annotation, Decision, JudgeInfo, Label, Sentence
from maskdpo.verdicts.gold import overlapping
from maskdpo.verdicts.people import read_decisions, standing


class Opinion(NamedTuple):
    """What another judge or a reviewer says of a sentence."""

    who: str
    label: Label
    note: str | None
    """The reason of a judge, or the note of a reviewer."""


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
        if self.people:
            for decision in standing(read_decisions(files)):
                self._reviewers[decision.answer_id].append(decision)
        else:
            for annotation in (record for file in files for record in read_records(file, Annotation)):
                self._judges[annotation.id].append(annotation)

    def opinions(self, annotation: Annotation, sentence: Sentence) -> list[Opinion]:
        """One for every judge or reviewer who has labelled what shares most characters with the sentence."""
        if self.people:
            return self._of_reviewers(annotation, sentence)
        found = []
        for other in self._judges[annotation.id]:
            said = overlapping(other.sentences, sentence) if other.response == annotation.response else None
            if said is not None and said.label is not None:
                found.append(Opinion(name_of(other.judge), said.label, said.reason))
        return found

    def _of_reviewers(self, annotation: Annotation, sentence: Sentence) -> list[Opinion]:
        by_reviewer: dict[str, list[Decision]] = defaultdict(list)
        for decision in self._reviewers[annotation.id]:
            if decision.response == annotation.response:
                by_reviewer[decision.reviewer].append(decision)
        chosen = ((who, overlapping(made, sentence)) for who, made in sorted(by_reviewer.items()))
        return [Opinion(who, one.label, one.note) for who, one in chosen if one is not None and one.label is not None]

    def who_differ(self, annotation: Annotation, sentence: Sentence) -> tuple[str, ...] | None:
        """The reviewers who differ on a sentence; without a name where judges do. None: they agree, or one is alone."""
        opinions = self.opinions(annotation, sentence)
        labels = [one.label for one in opinions]
        if not self.people and sentence.label is not None:
            labels.append(sentence.label)
        if not _differ(labels):
            return None
        return tuple(one.who for one in opinions) if self.people else ()


def name_of(judge: JudgeInfo | None) -> str:
    parts = (judge.name, judge.model, judge.protocol) if judge else ("people",)
    return " · ".join(part for part in parts if part)


def _differ(labels: Iterable[Label]) -> bool:
    """``hallucination`` does not say in which way a sentence is wrong, so it agrees with every wrong label."""
    found = set(labels)
    return len(found) > 1 and not (Label.HALLUCINATION in found and found <= WRONG)

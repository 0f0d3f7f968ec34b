"""What people decide of sentences: one line per act of a reviewer, appended to a file that only grows."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from maskdpo.schemas.labels import Kind, Label
from maskdpo.schemas.records import FileRecord, Fraction, Id, JudgeInfo, Probability, Record

Queue = Literal["uncertain", "disagreement", "random", "stratified"]
"""How sentences are chosen for people."""
Act = Literal["label", "skip", "undo"]


def _with_zone(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError("must have a time zone, such as 2026-11-28T13:30:00Z")
    return at


class Part(Record):
    """A sentence as the splitter has cut it: code points ``start <= i < end`` of the response."""

    start: Annotated[int, Field(ge=0)]
    end: int


class Decision(FileRecord):
    """One act of a reviewer on a sentence, with all that is needed to make gold of it.

    ``verdicts.people.standing`` says which of the decisions of a file count.
    """

    prompt_id: Id
    answer_id: Id
    """The id of the annotation that the sentence is from."""
    response: str
    """The whole answer, exactly."""
    topic: Id | None = None
    """``Prompt.shared_topic``; None: the prompt was not known."""
    start: Annotated[int, Field(ge=0)]
    end: int
    """The sentence that was decided: code points ``start <= i < end`` of the response."""
    kind: Kind = Kind.PROSE
    made_of: list[Part] = []
    """The sentences that the judge saw here, where the reviewer has joined or split them; else empty."""

    reviewer: Id
    at: Annotated[datetime, AfterValidator(_with_zone)] | None = None
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """How long the sentence was before the reviewer."""
    act: Act = "label"
    label: Label | None = None
    """There is one exactly if ``act`` is ``label``."""
    undoes: Id | None = None
    """The id of the decision that an ``undo`` takes back; the undo repeats its sentence."""
    note: str | None = None

    judged: Label | None = None
    """The label of the judge: that of its sentence that shares most with this one. None: it has none."""
    judged_confidence: Fraction | None = None
    judge: JudgeInfo | None = None
    shown: bool | None = None
    """Whether the reviewer saw the label of the judge before the decision; None: unknown."""

    queue: Queue | None = None
    inclusion: Probability | None = None
    """The probability with which the sentence came into the queue; None: it was not drawn at random."""
    adjudicates: list[Id] = []
    """The reviewers who differ on the sentence and whose labels were shown: this decision settles it."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if not self.start < self.end <= len(self.response):
            raise ValueError(
                f"the span {self.start}:{self.end} is empty or outside of the response "
                f"({len(self.response)} characters)"
            )
        if (self.label is not None) != (self.act == "label"):
            raise ValueError(f"act is {self.act!r} but label is {self.label}: a label goes with the act 'label'")
        if (self.undoes is not None) != (self.act == "undo"):
            raise ValueError(f"act is {self.act!r} but undoes is {self.undoes!r}: 'undo' names what it takes back")
        if (self.inclusion is not None) != (self.queue in ("random", "stratified")) and self.queue is not None:
            raise ValueError(
                f"queue is {self.queue!r} but inclusion is {self.inclusion}: sentences of the queues random and "
                "stratified have a probability, others have none"
            )
        return self

    @property
    def cut(self) -> Literal["joined", "split"] | None:
        """What the reviewer has done to the sentences of the judge; both count as ``joined``."""
        return None if not self.made_of else "joined" if len(self.made_of) > 1 else "split"

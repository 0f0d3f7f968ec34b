"""What can be said of a sentence. The taxonomy is ANAH's (arXiv 2405.20315)."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal, NamedTuple, Self


class Label(StrEnum):
    """The verdict on a sentence, given its reference."""

    NO_HALLUCINATION = "no_hallucination"
    """Every claim of the sentence is supported by the reference."""
    CONTRADICTORY = "contradictory"
    """The reference says otherwise."""
    UNVERIFIABLE = "unverifiable"
    """The reference neither supports nor contradicts it."""
    HALLUCINATION = "hallucination"
    """Wrong, from a source that does not say in which way (human labels, mostly)."""
    NO_FACT = "no_fact"
    """Nothing to check: an opinion, a question, a transition."""


RIGHT = frozenset({Label.NO_HALLUCINATION})
WRONG = frozenset({Label.CONTRADICTORY, Label.UNVERIFIABLE, Label.HALLUCINATION})

Group = Literal["right", "wrong", "no_fact", "not_judged"]


def group_of(label: Label | None) -> Group:
    """The four groups in which sentences are counted and compared; None stands for a sentence without a verdict."""
    if label is None:
        return "not_judged"
    return "right" if label in RIGHT else "wrong" if label in WRONG else "no_fact"


class Counts(NamedTuple):
    """Sentences by group."""

    right: int = 0
    wrong: int = 0
    no_fact: int = 0
    not_judged: int = 0

    @classmethod
    def of(cls, labels: Iterable[Label | None]) -> Self:
        groups = [group_of(label) for label in labels]
        return cls(*(groups.count(name) for name in ("right", "wrong", "no_fact", "not_judged")))

    @property
    def judged(self) -> int:
        return self.right + self.wrong + self.no_fact


class Status(StrEnum):
    """Whether there is a verdict at all. Anything but ``ok`` means: no label, and no part in training."""

    OK = "ok"
    REFUSED = "refused"
    """The judge declined to answer."""
    PARSE_ERROR = "parse_error"
    """The judge answered something that is not one of the offered verdicts."""
    API_ERROR = "api_error"
    """The call failed for good, after retries."""
    TRUNCATED = "truncated"
    """The judge's reply was cut off, or its input does not fit into its context."""


class Kind(StrEnum):
    """What a span is in the Markdown of the answer."""

    PROSE = "prose"
    HEADING = "heading"
    LIST_ITEM = "list_item"
    CODE = "code"
    TABLE = "table"

"""The labels and statuses of a sentence. The taxonomy is that of ANAH (arXiv 2405.20315)."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal, NamedTuple, Self


class Label(StrEnum):
    """The verdict on a sentence, given its reference."""

    NO_HALLUCINATION = "no_hallucination"
    """Every claim of the sentence is supported by the reference."""
    CONTRADICTORY = "contradictory"
    """The reference contradicts a claim of the sentence."""
    UNVERIFIABLE = "unverifiable"
    """The reference neither supports nor contradicts a claim of the sentence."""
    HALLUCINATION = "hallucination"
    """Wrong, from a source that does not say in which way (mostly human labels)."""
    NO_FACT = "no_fact"
    """Nothing to check: an opinion, a question, a transition."""


RIGHT = frozenset({Label.NO_HALLUCINATION})
WRONG = frozenset({Label.CONTRADICTORY, Label.UNVERIFIABLE, Label.HALLUCINATION})

Group = Literal["right", "wrong", "no_fact", "not_judged"]


def group_of(label: Label | None) -> Group:
    """The group of a label: sentences are counted and compared in four groups. None: a sentence without a verdict."""
    if label is None:
        return "not_judged"
    return "right" if label in RIGHT else "wrong" if label in WRONG else "no_fact"


class Counts(NamedTuple):
    """Number of sentences per group."""

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
    """Whether there is a label. A sentence with another status than ``ok`` has none and does not train."""

    OK = "ok"
    REFUSED = "refused"
    """The judge declined to answer."""
    PARSE_ERROR = "parse_error"
    """The reply of the judge is none of the offered verdicts."""
    API_ERROR = "api_error"
    """The call failed, after retries."""
    TRUNCATED = "truncated"
    """The reply of the judge was cut off, or its input does not fit into its context."""
    UNSURE = "unsure"
    """The judge has answered (``scores``), but too weakly for a label, by its calibration or a least confidence."""
    FRAGMENT = "fragment"
    """No judge was asked: the sentence is torn, at the end of an answer that was cut off (``Kind.FRAGMENT``)."""
    NO_REFERENCE = "no_reference"
    """No judge was asked: the prompt has no reference to compare with (``annotate --missing-reference skip``)."""


NOT_ASKED = frozenset({Status.FRAGMENT, Status.NO_REFERENCE})
FAILED = frozenset(Status) - {Status.OK, Status.UNSURE} - NOT_ASKED
"""The judge has not answered: asking again may help."""


class Kind(StrEnum):
    """The kind of Markdown block that a span is in, or that it is no whole sentence."""

    PROSE = "prose"
    HEADING = "heading"
    LIST_ITEM = "list_item"
    CODE = "code"
    TABLE = "table"
    FRAGMENT = "fragment"
    """The torn end of an answer that was cut off. It has no label, does not train, and counts in no figure."""


WITHOUT_CLAIM = frozenset({Kind.HEADING, Kind.CODE})
"""Kinds of spans that state nothing to check: they are ``no_fact`` without a judge. Rows of tables are judged."""

"""What can be said of a sentence. The taxonomy is ANAH's (arXiv 2405.20315)."""

from enum import StrEnum


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

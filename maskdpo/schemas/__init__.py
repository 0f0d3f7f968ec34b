"""The records that stages hand to each other. One JSON object a line; see docs/records.md."""

from maskdpo.schemas.labels import RIGHT, WRONG, Counts, Group, Kind, Label, Status, group_of
from maskdpo.schemas.records import (
    SIDES,
    Annotation,
    FileRecord,
    FinishReason,
    JudgeInfo,
    Message,
    Pair,
    PairSentence,
    Prompt,
    Record,
    Response,
    Sentence,
    Side,
    Span,
)

__all__ = [
    "RIGHT",
    "SIDES",
    "WRONG",
    "Annotation",
    "Counts",
    "FileRecord",
    "FinishReason",
    "Group",
    "JudgeInfo",
    "Kind",
    "Label",
    "Message",
    "Pair",
    "PairSentence",
    "Prompt",
    "Record",
    "Response",
    "Sentence",
    "Side",
    "Span",
    "Status",
    "group_of",
]

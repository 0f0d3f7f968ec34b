"""The records that stages exchange, one JSON object per line; see docs/records.md."""

from maskdpo.schemas.labels import RIGHT, WRONG, Counts, Kind, Label, Status, group_of
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

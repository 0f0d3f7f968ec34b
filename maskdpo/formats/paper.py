"""The training data of the Mask-DPO paper's own code (open-compass/ANAH, ``maskdpo/dataset.py``), from and to pairs.

That code knows two types of sentences: ``hallucination`` does not train in the chosen answer, ``no_hallucination`` does
not train in the rejected one; all other sentences train. The code adds up the lengths of the sentences, so exported
sentences cover the whole answer. The exact labels and spans, and the other fields of a pair, are in further keys, which
that code does not read.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import date
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from maskdpo.formats import NOT_JUDGED
from maskdpo.formats.align import align
from maskdpo.schemas import SIDES, WRONG, Label, Message, Pair, PairSentence, Side
from maskdpo.schemas.records import FinishReason, Fraction, Score

LABELS: dict[str, Label | None] = {
    **{label.value.replace("_", ""): label for label in Label},
    "ok": Label.NO_HALLUCINATION,
    "notjudged": None,
}
"""Labels by the names that are in use, in lower case and without spaces, ``_``, ``-`` and ``<>`` (ANAH's prompts)."""


class Item(BaseModel):
    """The sentences of one answer. Only files that maskdpo wrote have more than ``sents`` and ``type``."""

    model_config = ConfigDict(extra="ignore")

    sents: list[str]
    type: list[str | None]
    label: list[Label | None] | None = None
    span: list[tuple[int, int]] | None = None
    confidence: list[Fraction | None] | None = None


class PaperRow(BaseModel):
    """A row of the paper's data. The fields after the items are maskdpo's."""

    model_config = ConfigDict(extra="ignore")

    prompt: str | list[Message]
    chosen: str | list[Message]
    rejected: str | list[Message]
    chosen_item: Item
    rejected_item: Item
    id: str | None = Field(None, min_length=1)
    prompt_id: str | None = Field(None, min_length=1)
    topic: str | None = Field(None, min_length=1)
    chosen_score: Score | None = None
    rejected_score: Score | None = None
    chosen_finish_reason: FinishReason | None = None
    rejected_finish_reason: FinishReason | None = None
    chosen_reasoning: str | None = None
    rejected_reasoning: str | None = None
    template_options: dict[str, Any] | None = None
    prompt_date: date | None = None
    weight: float = Field(1.0, gt=0.0, allow_inf_nan=False)


def to_paper(pair: Pair) -> dict[str, Any]:
    """A pair in the form of the paper's code, with its other fields in keys that this code does not read."""
    row = pair.model_dump(mode="json", exclude={"chosen_sentences", "rejected_sentences"})
    return row | {f"{side}_item": _item(pair.response(side), pair.sentences(side)) for side in SIDES}


def _item(text: str, sentences: Sequence[PairSentence]) -> dict[str, Any]:
    ends = [sentence.end for sentence in sentences[:-1]] + [len(text)] * bool(sentences)
    begins = [0, *ends[:-1]]
    return {
        "sents": [text[begin:end] for begin, end in zip(begins, ends, strict=False)],
        "type": [type_name(sentence.label) for sentence in sentences],
        "label": [sentence.label and sentence.label.value for sentence in sentences],
        "span": [[sentence.start, sentence.end] for sentence in sentences],
        "confidence": [sentence.confidence for sentence in sentences],
    }


def type_name(label: Label | None) -> str:
    """The type of a label. Every wrong sentence is a ``hallucination``, or the paper's code would train on it."""
    if label is None:
        return NOT_JUDGED
    return Label.HALLUCINATION.value if label in WRONG else label.value


def from_paper(row: PaperRow, line: int) -> Pair:
    """The pair of a row. Without ids, equal prompts get the same id, and each prompt is its own topic.

    Raises:
        ValueError: the sentences do not fit the answer, or the types do not fit the sentences.
    """
    prompt_id = row.prompt_id or _id_of(row.prompt)
    shared = {name: getattr(row, name) for name in PaperRow.model_fields.keys() & Pair.model_fields.keys()}
    ids = {"id": row.id or f"{prompt_id}-{line}", "prompt_id": prompt_id, "topic": row.topic or prompt_id}
    items = zip(SIDES, (row.chosen_item, row.rejected_item), strict=True)
    outdated: dict[str, Any] = {f"{side}_score": None for side, item in items if not _as_written(item)}
    made = Pair(**shared | ids | outdated, chosen_sentences=[], rejected_sentences=[])
    found = {f"{side}_sentences": _sentences(made.response(side), row, side) for side in SIDES}
    return Pair(**dict(made) | found)


def _sentences(text: str, row: PaperRow, side: Side) -> list[PairSentence]:
    item = row.chosen_item if side == "chosen" else row.rejected_item
    if len(item.sents) != len(item.type):
        raise ValueError(f"{side}_item: {len(item.sents)} sentences, but {len(item.type)} types")
    try:
        labels, confidences = _labels(item), _confidences(item)
        spans = item.span if item.span and _tiled(text, item) else align(text, item.sents)
    except ValueError as error:
        raise ValueError(f"{side}_item: {error}") from None
    return [
        PairSentence(start=span[0], end=span[1], label=label, confidence=confidence)
        for span, label, confidence in zip(spans, labels, confidences, strict=True)
        if span is not None
    ]


def _labels(item: Item) -> list[Label | None]:
    """The labels of the types, or the exact labels where they agree with the types."""
    labels = [_label(name) for name in item.type]
    exact = item.label if item.label and len(item.label) == len(labels) else labels
    return [
        finer if type_name(finer) == type_name(label) and label in (Label.HALLUCINATION, finer) else label
        for finer, label in zip(exact, labels, strict=True)
    ]


def _kept(item: Item) -> list[bool]:
    """Whether each type is that of the label beside it, so that nobody has changed it since the export."""
    if item.label is None or len(item.label) != len(item.type):
        return [False] * len(item.type)
    return [name == type_name(label) for name, label in zip(item.type, item.label, strict=True)]


def _as_written(item: Item) -> bool:
    """Whether no type has changed since the export, so that the score is still that of the labels."""
    return item.label is not None and len(item.label) == len(item.type) and all(_kept(item))


def _confidences(item: Item) -> list[float | None]:
    """The confidences of the judge; None for a label that has been changed since the export."""
    given = item.confidence if item.confidence and len(item.confidence) == len(item.type) else [None] * len(item.type)
    return [confidence if kept else None for confidence, kept in zip(given, _kept(item), strict=True)]


def _label(name: str | None) -> Label | None:
    if not name:
        return None
    plain = name.lower().translate(str.maketrans("", "", "_- <>"))
    for known in (plain, plain.removesuffix("s")):
        if known in LABELS:
            return LABELS[known]
    raise ValueError(f"unknown type {name!r}; known: {', '.join((*Label, 'ok', 'nofact', NOT_JUDGED))}")


def _tiled(text: str, item: Item) -> bool:
    """Whether no sentence has changed since the export, so that its spans are valid."""
    if item.span is None or len(item.span) != len(item.sents) or "".join(item.sents) != text:
        return False
    begin = 0
    for (start, end), sentence in zip(item.span, item.sents, strict=True):
        if not begin <= start < end <= begin + len(sentence):
            return False
        begin += len(sentence)
    return True


def _id_of(prompt: str | list[Message]) -> str:
    plain = prompt if isinstance(prompt, str) else [message.model_dump() for message in prompt]
    return "q-" + hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]

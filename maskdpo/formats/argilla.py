"""Argilla 2: records whose labels are suggestions of a span question, for ``dataset.records.from_json``; what people
made of them (``dataset.records.to_json``) comes back as decisions.

``docs/formats.md`` has the settings of a dataset for such records.
"""

from typing import Any

from pydantic import BaseModel

from maskdpo.formats import NOT_JUDGED
from maskdpo.formats.corrections import Corrected, Suggested, corrections, label_named
from maskdpo.schemas import Annotation, Decision, Prompt

QUESTION = "sentences"


def to_argilla(annotation: Annotation, prompt: Prompt) -> dict[str, Any]:
    """A record. The score of its suggestion is a list of one confidence per span, if the judge gave all of them."""
    spans = [
        {"start": sentence.start, "end": sentence.end, "label": sentence.label.value if sentence.label else NOT_JUDGED}
        for sentence in annotation.sentences
    ]
    suggestion: dict[str, Any] = {"value": spans}
    if annotation.judge:
        suggestion["agent"] = annotation.judge.model or annotation.judge.name
    scores = [sentence.confidence for sentence in annotation.sentences]
    if scores and None not in scores:
        suggestion["score"] = scores
    fields = {"prompt": prompt.question, "response": annotation.response, "reference": "\n\n".join(prompt.passages)}
    metadata = {"prompt_id": annotation.prompt_id, "topic": prompt.shared_topic}
    if annotation.reasoning is not None:
        metadata["reasoning"] = annotation.reasoning
    return {
        "id": annotation.id,
        "fields": fields,
        "metadata": metadata,
        "suggestions": {QUESTION: suggestion} if spans else {},
    }


# --- what comes back -----------------------------------------------------------------------------------


class Span(BaseModel):
    start: int
    end: int
    label: str


class Fields(BaseModel):
    response: str


class Metadata(BaseModel):
    prompt_id: str
    topic: str | None = None


class Suggestion(BaseModel):
    value: list[Span]
    score: list[float] | float | None = None


class Given(BaseModel):
    """The spans of one person."""

    value: list[Span]
    user_id: str | None = None
    status: str | None = None
    """Some versions write it: ``submitted``, ``draft`` or ``discarded``."""


class ArgillaRecord(BaseModel):
    """A record as ``to_json`` writes it; its answers to other questions are left alone."""

    id: str
    fields: Fields
    metadata: Metadata
    suggestions: dict[str, Any] = {}
    responses: dict[str, Any]


def from_argilla(record: ArgillaRecord, line: int) -> list[Decision]:
    """Every labelled span of every person as a decision; drafts and discarded answers are none.

    Raises:
        ValueError: a label that is unknown, or a span that cannot be placed.
    """
    del line
    text = record.fields.response
    suggestion = record.suggestions.get(QUESTION)
    shown = Suggestion.model_validate(suggestion) if suggestion else Suggestion(value=[])
    scores = shown.score if isinstance(shown.score, list) and len(shown.score) == len(shown.value) else []
    suggested = [
        Suggested(one.start, one.end, label_named(one.label), scores[i] if scores else None)
        for i, one in enumerate(shown.value)
    ]
    known = {(one.start, one.end) for one in suggested}
    found: list[Decision] = []
    for i, values in enumerate(record.responses.get(QUESTION) or []):
        given = Given.model_validate(values)
        if given.status not in (None, "submitted"):
            continue
        spans = []
        for span in given.value:
            label = label_named(span.label)
            _check_place(span, text, known)
            if label is not None:
                spans.append(Corrected(span.start, span.end, label))
        reviewer = given.user_id or f"argilla-{i + 1}"
        found += corrections(
            spans,
            suggested,
            id_prefix=f"argilla-{record.id}-{reviewer}",
            prompt_id=record.metadata.prompt_id,
            answer_id=record.id,
            response=text,
            topic=record.metadata.topic,
            reviewer=reviewer,
            shown=bool(suggested),
        )
    return found


def _check_place(span: Span, text: str, known: set[tuple[int, int]]) -> None:
    """Refuse a span that a person drew behind an emoji: the page of Argilla counts UTF-16 units (argilla#5729)."""
    if (span.start, span.end) not in known and any(ord(character) > 0xFFFF for character in text[: span.end]):
        raise ValueError(
            f"the span {span.start}:{span.end} was drawn behind a character that the page of Argilla counts twice, "
            "such as an emoji, so its place is not known"
        )

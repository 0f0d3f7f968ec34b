"""Sentences with a reference and a label each, as datasets of fact verification hold them, to prompts and annotations.

    {"id": "1", "reference": "...", "sentence": "...", "label": "no_hallucination", "context": "..."}

Every row becomes a prompt with this reference, and an annotation of one sentence. What stands before the sentence in
its text (``context``) becomes the beginning of the answer. Rows without a topic share one with all rows of their
reference.
"""

from typing import Annotated

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from maskdpo.schemas import Annotation, Label, Prompt, Scores, Sentence
from maskdpo.schemas.language import Language
from maskdpo.schemas.records import reference_topic

SEPARATOR = "\n"  # between context and sentence


class ClaimRow(BaseModel):
    """A sentence and what it is judged against."""

    model_config = ConfigDict(extra="ignore")

    id: Annotated[str, Field(min_length=1)] | None = None
    reference: str | Annotated[list[str], Field(min_length=1)]
    sentence: Annotated[str, Field(min_length=1)]
    label: Label
    scores: Scores | None = None
    question: str | None = None
    context: str | None = None
    topic: Annotated[str | None, Field(validation_alias=AliasChoices("topic", "doc_id"))] = None
    language: Annotated[Language | None, Field(validation_alias=AliasChoices("language", "lang"))] = None


def claim_prompt(row: ClaimRow, line: int) -> Prompt:
    return Prompt(
        id=_id(row, line),
        prompt=row.question or "",
        reference=row.reference,
        topic=row.topic or reference_topic([row.reference] if isinstance(row.reference, str) else row.reference),
        language=row.language,
    )


def claim_annotation(row: ClaimRow, line: int) -> Annotation:
    before = f"{row.context}{SEPARATOR}" if row.context else ""
    sentence = Sentence(start=len(before), end=len(before) + len(row.sentence), label=row.label, scores=row.scores)
    return Annotation(id=_id(row, line), prompt_id=_id(row, line), response=before + row.sentence, sentences=[sentence])


def _id(row: ClaimRow, line: int) -> str:
    return row.id or f"row-{line}"

"""The inputs of ANAH's annotator: ``{question, document, language}`` are prompts, ``{question, response}`` are answers.

These files have no ids: an answer repeats the text of its question. So the id of a prompt is a hash of its question.
"""

import hashlib

from pydantic import BaseModel, ConfigDict

from maskdpo.schemas import Prompt, Response
from maskdpo.schemas.language import Language


class DocumentRow(BaseModel):
    """A question with the text that has the answer."""

    model_config = ConfigDict(extra="ignore")

    question: str
    document: str | list[str]
    language: Language | None = None


class AnswerRow(BaseModel):
    """An answer of a model to a question."""

    model_config = ConfigDict(extra="ignore")

    question: str
    response: str


def to_prompt(row: DocumentRow, line: int) -> Prompt:
    return Prompt(id=question_id(row.question), prompt=row.question, reference=row.document, language=row.language)


def to_response(row: AnswerRow, line: int) -> Response:
    prompt_id = question_id(row.question)
    return Response(id=f"{prompt_id}-{line}", prompt_id=prompt_id, response=row.response)


def question_id(question: str) -> str:
    return "q-" + hashlib.sha256(question.encode(errors="replace")).hexdigest()[:12]

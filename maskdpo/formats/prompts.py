"""Prompts as they are in other people's tables: rows with a question, and a text that has the answer."""

import json
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from maskdpo.formats.anah import question_id
from maskdpo.schemas import Message, Prompt

Name = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)]
"""A text; tables number their rows and topics."""


class PromptRow(BaseModel):
    """A prompt; a row without an id gets a hash of its prompt and reference, so that rows which are added later leave
    the ids of the others as they are."""

    model_config = ConfigDict(extra="ignore")

    prompt: str | list[Message]
    reference: str | list[str] | None = None
    topic: Name | None = None
    language: str | None = None
    id: Name | None = None


def plain_prompt(row: PromptRow, line: int) -> Prompt:
    del line
    values = row.model_dump(exclude_none=True)
    said = json.dumps([values["prompt"], values.get("reference")], ensure_ascii=False)
    return Prompt.model_validate({"id": question_id(said)} | values)

"""``maskdpo validate``: the errors of a record file, up to a limit."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from maskdpo.errors import InputError
from maskdpo.io import Input, Located, files_of, read_prompts, record_type, scan
from maskdpo.schemas import FileRecord, Message, Pair, Prompt
from maskdpo.settings import Option, OptionalPrompts, Settings


class ValidateSettings(Settings):
    """What ``maskdpo validate`` can be told."""

    files: Annotated[
        tuple[Path, ...],
        Field(min_length=1),
        Option("Record files of one kind; an id may be in one of them only.", argument=True, metavar="FILE..."),
    ]
    prompts: OptionalPrompts = None
    max_errors: Annotated[int, Field(ge=1), Option("Errors to print before giving up.")] = 20


@dataclass(frozen=True)
class Validation:
    """The result of checking a file."""

    kind: str
    valid: int
    errors: list[InputError]
    stopped: bool
    """Whether there are more errors than these."""


def validate_file(given: Input, prompts_file: Path | None, limit: int) -> Validation:
    """Check every line: JSON, fields, ids, spans; with ``prompts_file`` also whether records fit their prompts.

    Args:
        given: one file, or several of one kind, which are checked as if they were one.
        limit: the most errors to return.
    """
    first, *others = files_of(given)
    model = record_type(first)
    for file in others:
        if (other := record_type(file)) is not model:
            message = f"holds {other.__name__.lower()} records, and {first} {model.__name__.lower()} records"
            raise InputError(f"{message}: check files of one kind at a time", path=file)
    prompts = read_prompts(prompts_file) if prompts_file else None
    valid, errors = 0, []
    for item in scan(given, model):
        found = [item] if isinstance(item, InputError) else list(_against_prompts(item, prompts))
        valid += not found
        errors += found
        if len(errors) > limit:
            break
    return Validation(model.__name__.lower(), valid, errors[:limit], len(errors) > limit)


def _against_prompts(item: Located[FileRecord], prompts: Mapping[str, Prompt] | None) -> Iterator[InputError]:
    """Errors where the prompt of a record does not exist, or a pair has another topic or prompt text."""
    prompt_id = getattr(item.record, "prompt_id", None)
    if prompts is None or prompt_id is None:
        return
    prompt = prompts.get(prompt_id)
    if prompt is None:
        yield item.error("prompt_id", f"no prompt has the id {prompt_id!r}")
    elif isinstance(item.record, Pair):
        if item.record.topic != prompt.topic_or_id:
            yield item.error(
                "topic", f"is {item.record.topic!r}, but that of prompt {prompt_id!r} is {prompt.topic_or_id!r}"
            )
        if item.record.prompt not in (prompt.prompt, _as_chat(prompt)):
            yield item.error("prompt", f"is not the text of prompt {prompt_id!r}")


def _as_chat(prompt: Prompt) -> list[Message] | None:
    """A string prompt as ``build-pairs`` writes it, where it was not sampled with ``--raw``."""
    return [Message(role="user", content=prompt.prompt)] if isinstance(prompt.prompt, str) else None

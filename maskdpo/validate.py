"""``maskdpo validate``: all errors of a record file, up to a limit."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from maskdpo.errors import InputError
from maskdpo.io import Located, read_prompts, record_type, scan
from maskdpo.schemas import Prompt, Record


@dataclass(frozen=True)
class Validation:
    """What was found in a file."""

    kind: str
    valid: int
    errors: list[InputError]
    stopped: bool
    """Whether there may be more errors than were looked for."""


def validate_file(file: Path, prompts_file: Path | None, limit: int) -> Validation:
    """Check every line: JSON, fields, ids, spans; with ``prompts_file`` also that prompt ids are known."""
    model = record_type(file)
    prompts = read_prompts(prompts_file) if prompts_file else None
    valid, errors = 0, []
    for item in scan(file, model):
        problem = item if isinstance(item, InputError) else _dangling(item, prompts)
        if problem is None:
            valid += 1
        else:
            errors.append(problem)
        if len(errors) >= limit:
            break
    return Validation(model.__name__.lower(), valid, errors, len(errors) >= limit)


def _dangling(item: Located[Record], prompts: Mapping[str, Prompt] | None) -> InputError | None:
    prompt_id = getattr(item.record, "prompt_id", None)
    if prompts is None or prompt_id is None or prompt_id in prompts:
        return None
    return item.error("prompt_id", f"no prompt has the id {prompt_id!r}")

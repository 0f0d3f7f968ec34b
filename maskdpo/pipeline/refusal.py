"""Whether a stage will refuse to continue its output, as far as records and answers tell without running it."""

from collections.abc import Container, Iterator
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, ValidationError

from maskdpo.io import numbered_lines
from maskdpo.pipeline.spec import Stage
from maskdpo.pipeline.state import changed_inputs
from maskdpo.run_record import is_fixed, meta_file, read_meta, recorded_models


class _Answer(BaseModel):
    """What a response and its annotation have in common."""

    id: str
    prompt_id: str
    response: str


def refusal(stage: Stage, written: Container[Path]) -> str | None:
    """Why ``stage``, whose state is ``continue``, will refuse to; None where nothing shows that it will.

    Two things are seen: another model or fixed input than the recorded one, and an answer that ``annotate`` has
    labelled with another text or prompt. To read the answers takes a part of the time that its own start takes.

    Args:
        written: resolved paths that an earlier stage is about to write, so that their present content says nothing.
    """
    meta = read_meta(meta_file(stage.out)) if stage.out is not None else None
    if stage.out is None or meta is None or not stage.settings.continues:
        return None
    for role, path in changed_inputs(stage, meta):
        if (role in recorded_models(meta) or is_fixed(meta.command, role)) and path.resolve() not in written:
            return f"{role} changed"
    if stage.command != "annotate":
        return None
    labelled = dict(_answers(stage.out))
    answers = islice(_answers(stage.inputs["responses"]), stage.given.get("limit"))
    edited = next((name for name, content in answers if labelled.get(name, content) != content), None)
    return None if edited is None else f"{edited!r} is labelled with another text or prompt"


def _answers(file: Path) -> Iterator[tuple[str, int]]:
    """Id of every answer, and a hash of the rest. A bad line is for the stage to judge, and so is a torn end."""
    for _, line in numbered_lines(file):
        try:
            answer = _Answer.model_validate_json(line)
        except ValidationError:
            continue
        yield answer.id, hash((answer.prompt_id, answer.response))

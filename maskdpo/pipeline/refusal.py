"""Whether a stage will refuse to continue its output, as far as files tell without running it."""

from collections.abc import Container, Iterator
from itertools import islice
from pathlib import Path

from pydantic import BaseModel, ValidationError

from maskdpo.io import numbered_lines
from maskdpo.pipeline.spec import Stage
from maskdpo.pipeline.state import changed_inputs
from maskdpo.run_record import meta_file, read_meta

FIXED = {
    "sample": {"model"},
    "ground": {"corpus"},
    "annotate": {"model", "calibration"},
    "train": {"model", "reference", "pairs", "eval"},
}
"""The inputs that must not change, by command: an output that was begun with others is not continued."""


class _Answer(BaseModel):
    """What a response and its annotation have in common."""

    id: str
    prompt_id: str
    response: str


def refusal(stage: Stage, written: Container[Path]) -> str | None:
    """Why ``stage``, which has an output to continue, will refuse to; None where nothing shows that it will.

    What is in the code is not seen, such as another version of a judge. The answers of ``annotate`` are read, and what
    it made of them, which takes a part of the time that its own start takes.

    Args:
        written: files that an earlier stage is about to write, so that their present content says nothing.
    """
    meta = read_meta(meta_file(stage.out)) if stage.out is not None else None
    if stage.out is None or meta is None:
        return None
    for role, path in changed_inputs(stage, meta):
        if role.partition("-")[0] in FIXED.get(stage.command, ()) and path.resolve() not in written:
            return f"{role} changed"
        if stage.command == "annotate" and role == "responses":
            labelled = {answer.id: _key(answer) for answer in _answers(stage.out)}
            answers = islice(_answers(path), stage.given.get("limit"))
            other = next((one.id for one in answers if labelled.get(one.id, _key(one)) != _key(one)), None)
            if other is not None:
                return f"{other!r} is labelled with another text or prompt"
    return None


def _key(answer: _Answer) -> int:
    return hash((answer.prompt_id, answer.response))


def _answers(file: Path) -> Iterator[_Answer]:
    """The answers of a file of responses or annotations. A bad line is for the stage to judge, and so is a torn end."""
    for _, line in numbered_lines(file):
        try:
            yield _Answer.model_validate_json(line)
        except ValidationError:
            continue

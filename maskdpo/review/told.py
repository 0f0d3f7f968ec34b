"""What the page tells of the acts of a reviewer, and what it is answered."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from maskdpo.schemas import Label
from maskdpo.schemas.decisions import Act

A_YEAR = 365 * 24 * 3600.0


def _within_a_year(seconds: float) -> float:
    """A clock that was set meanwhile costs no decision."""
    return min(max(seconds, 0.0), A_YEAR)


Seconds = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_within_a_year)]


class Told(BaseModel):
    """An act as the page tells it. What else a decision holds is known here, and is not for the page to say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    """Drawn by the page, so that an act that is sent twice is there once."""
    act: Act
    item: Annotated[int, Field(ge=0)]
    start: Annotated[int, Field(ge=0)]
    end: int
    label: Label | None = None
    note: Annotated[str, Field(max_length=10_000)] | None = None
    undoes: str | None = None
    seconds: Seconds = 0.0
    ago: Seconds = 0.0
    """Seconds since the reviewer acted: it may be sent late."""
    known: list[str] = []
    """The decisions that the page knows to stand where this act is: others were made on another page meanwhile."""


@dataclass(frozen=True)
class Reply:
    """What became of acts: by id either saved or, with a reason, refused."""

    saved: list[str]
    refused: dict[str, str]

"""The file that ``maskdpo side-effects`` writes, and that ``evaluate`` and ``report`` show."""

from typing import Annotated, Any, Literal

from pydantic import Field

from maskdpo.schemas.records import Record

DIVERGENCE = "divergence / token (nats)"


class Interval(Record):
    """A figure with its 95% interval over prompts; None where it is undefined, or has none."""

    value: float | None
    low: float | None
    high: float | None
    topics: Annotated[int, Field(ge=0)]
    """Prompts on which the figure rests."""


class Effect(Record):
    """One figure before and after a training, and its paired difference."""

    before: Interval
    after: Interval
    difference: Interval


class SideEffects(Record):
    """What a training has changed in answers to prompts that it was not about."""

    format_version: Literal[1] = 1
    model: str
    """The trained model, whose answers are those of after."""
    reference_model: str
    """The model before the training, whose answers are those of before."""
    prompts: int
    answers: int
    """Of either model."""
    sampling: dict[str, Any] = {}
    """How the answers of after were sampled."""
    refusal_rule: str
    figures: dict[str, Effect]

"""The table of what a training has changed, for the terminal, for pages and for model cards."""

import math
from pathlib import Path

from pydantic import ValidationError

from maskdpo.console import counted
from maskdpo.errors import InputError
from maskdpo.schemas.effects import Interval, SideEffects
from maskdpo.verdicts.estimate import Estimate, few_topics

COLUMNS = ("with 95% intervals over prompts", "before", "after", "after - before")


def read_effects(file: Path) -> SideEffects:
    """A file of ``maskdpo side-effects``.

    Raises:
        InputError: there is no such file, or it is of another kind.
    """
    try:
        return SideEffects.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise InputError("no such file", path=file) from None
    except (OSError, ValidationError):
        raise InputError("is no file that `maskdpo side-effects` has written", path=file) from None


def rows_of(found: SideEffects) -> list[tuple[str, str, str, str]]:
    """A row for every figure; a star marks a difference that is sure."""
    return [
        (name, str(_estimate(one.before)), str(_estimate(one.after)), _estimate(one.difference).signed())
        for name, one in found.figures.items()
    ]


def title_of(found: SideEffects) -> str:
    answers, prompts = counted(found.answers, "answer"), counted(found.prompts, "general prompt")
    return f"side effects: {answers} of each model to {prompts}"


def notes_of(found: SideEffects) -> list[str]:
    """What a reader must know of the figures."""
    few = few_topics(found.prompts, "no difference gets a star")
    return [line.replace("topics", "prompts").replace("topic", "prompt") for line in few]


def _estimate(found: Interval) -> Estimate:
    value, low, high = (math.nan if one is None else one for one in (found.value, found.low, found.high))
    return Estimate(value, low, high, found.topics)

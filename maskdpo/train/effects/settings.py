"""The settings of ``maskdpo side-effects``."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from maskdpo.devices import Dtype
from maskdpo.settings import DEVICE_HELP, Option, Settings, records


class SideEffectsSettings(Settings):
    """What ``maskdpo side-effects`` can be told."""

    before: Annotated[Path, Option("Response records of the model before the training.", argument=True)]
    after: Annotated[Path, Option("Response records of the trained model, to the same prompts.", argument=True)]
    out: Annotated[Path, Option("The figures, as JSON, for `evaluate` and `report`.")]
    prompts: Annotated[
        Path | None,
        records("prompts"),
        Option("The prompts of both. [default: builtin:general, prompts of everyday kinds]", metavar="PROMPTS"),
    ] = None
    model: Annotated[
        str | None, Option("The trained model, to compute with. [default: the one that the answers name]")
    ] = None
    reference_model: Annotated[
        str | None,
        Option("The model before the training. [default: the one that its answers name]", metavar="MODEL"),
    ] = None
    dtype: Annotated[Dtype, Option("Compute type; `auto`: bfloat16 where the hardware computes in it.")] = "auto"
    tokens_per_batch: Annotated[int, Field(ge=1), Option("Tokens per forward pass: memory against speed.")] = 2048
    device: Annotated[str | None, Option(DEVICE_HELP)] = None

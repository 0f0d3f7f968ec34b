"""The settings of a training run: one pydantic type, filled from flags or one YAML file, saved with the model."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from maskdpo.errors import InputError, UserError
from maskdpo.io import open_input
from maskdpo.models import Dtype
from maskdpo.train.encode import EosPolicy
from maskdpo.train.weights import METHODS

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class TrainConfig(BaseModel):
    """Every setting that changes the result. A run resumes only with the same ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    method: Literal["mask-dpo", "dpo"] = "mask-dpo"
    beta: Positive = 0.1
    """Strength of the pull towards the reference model."""
    lr: Positive = 1e-6
    """Peak learning rate of AdamW."""
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the steps over which the rate rises to its peak; it then falls linearly to zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Positive = 1.0
    epochs: Count = 1
    max_steps: Count | None = None
    """Stop after this many optimiser steps, whatever ``epochs`` says."""
    batch_size: Count = 16
    """Pairs an optimiser step."""
    tokens_per_batch: Count = 2048
    """Tokens a forward pass: a memory setting; the result does not depend on it (but for rounding)."""
    max_length: Count = 2048
    """Longest prompt + answer, in tokens."""
    eos: EosPolicy = "keep"
    """What becomes of the end-of-turn token: see ``Encoder``."""
    dtype: Dtype = "auto"
    """Compute type; ``auto`` is bfloat16 where the hardware computes in it. The weights and AdamW stay float32."""
    gradient_checkpointing: bool = False
    """Recompute activations layer by layer: about a third slower, far less memory."""
    seed: Annotated[int, Field(ge=0)] = 0


assert set(METHODS) == {"mask-dpo", "dpo"}, "TrainConfig.method must name the methods"


def make_config(settings: dict[str, Any], file: Path | None) -> TrainConfig:
    """Settings from a YAML file, overridden by the flags that were given (those that are not None).

    Raises:
        UserError: an unknown key (with the nearest known one), a value of the wrong type or out of range.
    """
    values = _load_yaml(file) if file else {}
    values |= {key: value for key, value in settings.items() if value is not None}
    try:
        return TrainConfig(**values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "missing":
            raise UserError(f"--{key} is missing: give it as a flag or in the config file") from None
        message = problem["msg"]
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, TrainConfig.model_fields, 1)
            message = "unknown setting" + (f"; did you mean {near[0]!r}?" if near else "")
        raise InputError(message, path=file or "command line", field=key) from None


def _load_yaml(file: Path) -> dict[str, Any]:
    with open_input(file) as handle:
        try:
            values = yaml.safe_load(handle)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else None
            raise InputError(f"not valid YAML: {getattr(error, 'problem', error)}", path=file, line=line) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError("must be a mapping of settings, such as 'beta: 0.1'", path=file)
    return {str(key): value for key, value in values.items()}  # YAML reads 'on' and '1' as no text

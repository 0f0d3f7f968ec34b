"""The settings of a training run: one pydantic type, filled from flags or one YAML file, saved with the model."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from maskdpo.errors import InputError, UserError
from maskdpo.io import open_input
from maskdpo.models import Dtype
from maskdpo.train.data.encode import EosPolicy, ReasoningPolicy
from maskdpo.train.data.weights import METHODS

MethodName = Literal["mask-dpo", "dpo", "chosen-only", "rejected-only", "strict", "soft"]
LossName = Literal[
    "sigmoid", "ipo", "hinge", "conservative", "robust", "simpo", "sigmoid-norm", "ld-dpo", "fdpo-margin"
]

LOSS_PARAMETERS: dict[str, tuple[float, tuple[LossName, ...]]] = {
    "label_smoothing": (0.1, ("conservative", "robust")),
    "simpo_gamma": (0.5, ("simpo",)),
    "ld_alpha": (0.5, ("ld-dpo",)),
    "margin_gamma": (10.0, ("fdpo-margin",)),
}
"""Settings that belong to some losses only: their default, and which losses."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class TrainConfig(BaseModel):
    """Every setting that changes the result. A run resumes only with the same ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    method: MethodName = "mask-dpo"
    """What sentences count: see ``weights.METHODS``."""
    loss: LossName = "sigmoid"
    """What is made of the log ratios: see ``losses.LOSSES``."""
    beta: Positive = 0.1
    """Strength of the pull towards the reference model; for simpo the scale of the reward (the paper: 2 to 2.5)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] | None = None
    """conservative, robust: the share of pairs that are taken to be the wrong way round."""
    simpo_gamma: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """simpo: the margin that the chosen answer must win by."""
    ld_alpha: Annotated[float, Field(ge=0, le=1)] | None = None
    """ld-dpo: the factor on the tokens of the longer answer beyond the length of the shorter one."""
    margin_gamma: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """fdpo-margin: the log ratio, in nats, that a score higher by 1 must win by."""
    sft_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Factor on the chosen answer's negative log-likelihood a token, added to any loss."""
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
    reasoning: ReasoningPolicy = "keep"
    """The reasoning before an answer: kept as context with weight 0, or left out."""
    template_options: dict[str, Any] = {}
    """What the chat template is told beside the messages, for pairs that do not say how they were sampled."""
    dtype: Dtype = "auto"
    """Compute type; ``auto`` is bfloat16 where the hardware computes in it. The weights and AdamW stay float32."""
    gradient_checkpointing: bool = False
    """Recompute activations layer by layer: about a third slower, far less memory."""
    compile: bool = False
    """Let torch.compile fuse the operations of a layer: half a minute at the start, then less memory."""
    lora_r: Annotated[int, Field(ge=0)] = 0
    """Rank of a LoRA adapter; 0 trains the model whole. With one, the frozen weights are kept in the compute type."""
    lora_alpha: Count = 32
    """The adapter counts lora_alpha / lora_r times."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    lora_targets: str = "all-linear"
    """Layers with an adapter: all linear ones but lm_head, or their names with commas between."""
    merge: bool = True
    """Write the adapter added to the weights, as a whole model; else the adapter alone, as PEFT does."""
    eval_every: Count = 100
    """Steps between looks at the held-out pairs; there is one before the first step and one after the last."""
    keep_best: bool = False
    """Write the weights with the lowest loss on the held-out pairs, not the last ones."""
    export_dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the written weights. bfloat16 halves the folder, and rounds away updates below 1/512 of a weight."""
    trust_remote_code: bool = False
    """Run code out of the model's repository."""
    seed: Annotated[int, Field(ge=0)] = 0
    log_masked_every: Annotated[int, Field(ge=0)] = 10
    """Steps between looks at the rewards of the masked tokens, which cost one more forward pass; 0: never. The result
    does not depend on it."""

    @model_validator(mode="before")
    @classmethod
    def _default_parameters_of_the_loss(cls, values: dict[str, Any]) -> dict[str, Any]:
        loss = values.get("loss", "sigmoid")
        missing = {
            name: default
            for name, (default, losses) in LOSS_PARAMETERS.items()
            if loss in losses and values.get(name) is None
        }
        return values | missing

    @model_validator(mode="after")
    def _no_parameters_of_other_losses(self) -> Self:
        for name, (_, losses) in LOSS_PARAMETERS.items():
            if getattr(self, name) is not None and self.loss not in losses:
                raise ValueError(f"{name}: only for --loss {' or '.join(losses)}; --loss {self.loss} does not use it")
        return self

    @model_validator(mode="after")
    def _no_settings_of_an_adapter_without_one(self) -> Self:
        for name in ("lora_alpha", "lora_dropout", "lora_targets", "merge"):
            if not self.lora_r and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name}: only with --lora-r")
        return self

    def value(self, name: str) -> float:
        """A setting in ``LOSS_PARAMETERS``, of a loss that uses it."""
        value = getattr(self, name)
        assert isinstance(value, float), f"{name} belongs to another loss than {self.loss}"
        return value


assert set(METHODS) == set(get_args(MethodName)), "TrainConfig.method must name the methods"


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
        message = problem["msg"].removeprefix("Value error, ")
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

"""What decides the result of a training: ``TrainConfig``."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from maskdpo.devices import Dtype
from maskdpo.registry import checked_options, named_in
from maskdpo.settings import KeyValues, Option
from maskdpo.train.data.settings import IN_AND_OUT, EncodeSettings
from maskdpo.train.loss_registry import LOSS_PARAMETERS, LOSSES

LOSS = "Loss: what is made of their log-probs"
OPTIMISER = "Optimisation"
LORA = "LoRA: train a small adapter instead of all weights"
SPEED = "Speed and memory (the result stays the same, but for rounding)"
LOGGING = "Logging and checkpoints"
EVAL = "Held-out pairs"
EXPORT = "The trained model"

Positive = Field(gt=0, allow_inf_nan=False)
NotNegative = Field(ge=0, allow_inf_nan=False)
Count = Field(ge=1)


def _of_some_losses(name: str, meaning: str) -> Option:
    """The option of a parameter that only some losses have; their default is said once, in ``LOSS_PARAMETERS``."""
    default, losses = LOSS_PARAMETERS[name]
    return Option(f"{meaning} [default: {default}]", LOSS, used_by=losses)


class TrainConfig(EncodeSettings):
    """Every setting that changes the result, saved with the model. A run resumes only with the same ones."""

    loss: Annotated[
        str,
        named_in("maskdpo.train.loss_registry:LOSSES"),
        Option(
            "`sigmoid`: DPO. `sigmoid-norm`: log ratios per token. `ipo`, `hinge`: other shapes. `conservative` "
            "(cDPO), `robust` (rDPO): some pairs are the wrong way round. `simpo`: without a reference model; wants "
            "`--beta` 2 or more. `ld-dpo`: less weight on what only the longer answer has. `fdpo-margin`: a margin "
            "from the scores of the pair. Or a loss of your own.",
            LOSS,
        ),
    ] = "sigmoid"
    beta: Annotated[
        float,
        Positive,
        Option("Strength of the pull towards the reference model; for simpo scale of the reward.", LOSS),
    ] = 0.1
    reference: Annotated[
        str | None,
        Field(min_length=1),
        Option(
            "Reference of the loss, if not the model before this training: a folder or a Hub id, with the same "
            "vocabulary. [default: the model of `--model`]",
            LOSS,
            metavar="MODEL",
        ),
    ] = None
    label_smoothing: Annotated[
        float | None,
        Field(ge=0, lt=0.5),
        _of_some_losses("label_smoothing", "share of pairs that are the wrong way round."),
    ] = None
    simpo_gamma: Annotated[
        float | None, NotNegative, _of_some_losses("simpo_gamma", "margin by which the chosen answer must win.")
    ] = None
    ld_alpha: Annotated[
        float | None,
        Field(ge=0, le=1),
        _of_some_losses("ld_alpha", "factor on the tokens beyond the length of the shorter answer."),
    ] = None
    margin_gamma: Annotated[
        float | None,
        NotNegative,
        _of_some_losses("margin_gamma", "nats by which a score that is higher by 1 must win."),
    ] = None
    loss_options: Annotated[
        KeyValues,
        Field(alias="loss_option"),
        Option("KEY=VALUE for a loss of your own; repeat the option for more.", LOSS, metavar="KEY=VALUE"),
    ] = {}
    sft_weight: Annotated[
        float,
        NotNegative,
        Option("Any loss: add this times the negative log-likelihood per trained token of the chosen answer.", LOSS),
    ] = 0.0
    hold_weight: Annotated[
        float,
        NotNegative,
        Option(
            "Any loss with a reference: add this times half the squared log ratio of every token, masked or not, which "
            "holds the model near the reference token by token.",
            LOSS,
        ),
    ] = 0.0
    optim: Annotated[
        Literal["adamw", "adamw8bit"],
        Option("`adamw8bit`: AdamW with moments of 8 bits, 2 bytes per parameter in place of 8.", OPTIMISER),
    ] = "adamw"
    weights: Annotated[
        Literal["float32", "bfloat16"],
        Option(
            "What trained weights and their gradients are kept in. `bfloat16`: 4 bytes per parameter in place of 8; "
            "updates are rounded stochastically, because ordinary rounding would lose nearly all of them.",
            OPTIMISER,
        ),
    ] = "float32"
    lr: Annotated[float, Positive, Option("Peak learning rate of AdamW.", OPTIMISER)] = 1e-6
    warmup_ratio: Annotated[
        float,
        Field(ge=0, le=1),
        Option("Share of the steps over which the rate rises; it then falls linearly to zero.", OPTIMISER),
    ] = 0.1
    weight_decay: Annotated[float, Field(ge=0), Option("Weight decay of AdamW, on matrices only.", OPTIMISER)] = 0.0
    max_grad_norm: Annotated[float, Positive, Option("Longer gradients are scaled down to this.", OPTIMISER)] = 1.0
    batch_size: Annotated[int, Count, Option("Pairs per optimiser step.", OPTIMISER)] = 16
    epochs: Annotated[int, Count, Option("Passes over the pairs.", OPTIMISER)] = 1
    max_steps: Annotated[
        int | None, Count, Option("At most this many optimiser steps, also where `--epochs` asks for more.", OPTIMISER)
    ] = None
    limit: Annotated[
        int | None,
        Count,
        Option(
            "Train on the first N pairs only, for a first try; the command without this option sets the try aside and "
            "begins anew.",
            OPTIMISER,
            metavar="N",
        ),
    ] = None
    seed: Annotated[
        int, Field(ge=0), Option("Seed of the order of the pairs, of dropout and of stochastic rounding.", OPTIMISER)
    ] = 0
    lora_r: Annotated[int, Field(ge=0), Option("Rank of the adapter; 0 trains all weights.", LORA)] = 0
    lora_alpha: Annotated[int, Count, Option("What the adapter adds is scaled by alpha / rank.", LORA)] = 32
    lora_dropout: Annotated[float, Field(ge=0, lt=1), Option("Dropout in front of the adapter.", LORA)] = 0.0
    lora_targets: Annotated[
        str, Option("Layers: all linear ones but lm_head, or names such as `q_proj,v_proj`.", LORA)
    ] = "all-linear"
    merge: Annotated[
        bool, Option("Write the whole model with the adapter added to its weights, or the adapter alone.", LORA)
    ] = True
    load_in_4bit: Annotated[
        bool,
        Option("Keep the frozen weights of linear layers in 4 bits (NF4 of bitsandbytes); in one process only.", LORA),
    ] = False
    dtype: Annotated[
        Dtype,
        Option("Compute type; `auto`: bfloat16 where the hardware computes in it. Weights keep their type.", SPEED),
    ] = "auto"
    tokens_per_batch: Annotated[int, Count, Option("Tokens per forward pass: memory against speed.", SPEED)] = 2048
    gradient_checkpointing: Annotated[
        bool, Option("Recompute activations: about a third slower, far less memory.", SPEED)
    ] = False
    compile: Annotated[
        bool,
        Option("Let torch.compile fuse the operations of each layer: less memory, half a minute at the start.", SPEED),
    ] = False
    attention: Annotated[
        Literal["auto", "sdpa", "flex"],
        Option(
            "`auto`: what is quickest on the device, where the log-probs stay the same: FlexAttention on CUDA, matrix "
            "products on a CPU. `sdpa`: PyTorch's own. `flex`: FlexAttention, or an error.",
            SPEED,
        ),
    ] = "auto"
    log_masked_every: Annotated[
        int,
        Field(ge=0),
        Option(
            "Steps between figures of the masked tokens, which cost a forward pass each; 0: none. With `--hold-weight` "
            "every step has them.",
            LOGGING,
        ),
    ] = 10
    eval_every: Annotated[
        int,
        Count,
        Option("Steps between evaluations; there is one before the first and one after the last step, too.", EVAL),
    ] = 100
    keep_best: Annotated[
        bool, Option("Write the weights with the lowest loss on the held-out pairs, not the last weights.", EVAL)
    ] = False
    export_dtype: Annotated[
        Literal["float32", "bfloat16"] | None,
        Option(
            "Type of the written weights; bfloat16 rounds updates of float32 weights below 1/512 of a weight away. "
            "[default: that of `--weights`]",
            EXPORT,
        ),
    ] = None
    trust_remote_code: Annotated[bool, Option("Run code from the repository of the model.", IN_AND_OUT)] = False

    @model_validator(mode="before")
    @classmethod
    def _default_parameters_of_the_loss(cls, values: dict[str, Any]) -> dict[str, Any]:
        loss = values.get("loss", "sigmoid")  # of any type: not checked yet
        defaults = {name: default for name, (default, losses) in LOSS_PARAMETERS.items() if loss in losses}
        return values | {name: default for name, default in defaults.items() if values.get(name) is None}

    @model_validator(mode="before")
    @classmethod
    def _the_model_itself_is_the_default_reference(cls, values: dict[str, Any]) -> dict[str, Any]:
        given, model = values.get("reference"), values.get("model")  # of any type: not checked yet
        if isinstance(given, str) and isinstance(model, str) and Path(given).resolve() == Path(model).resolve():
            return values | {"reference": None}
        return values

    @model_validator(mode="after")
    def _no_parameters_of_other_losses(self) -> Self:
        for name, (_, losses) in LOSS_PARAMETERS.items():
            if getattr(self, name) is not None and self.loss not in losses:
                raise ValueError(
                    f"`{name}` is only for `loss` {' or '.join(losses)}; `loss` {self.loss} does not use it"
                )
        if self.loss in LOSSES and self.loss_options:
            raise ValueError(f"`loss` {self.loss} takes no `loss_options`: its parameters are settings of their own")
        if self.loss not in LOSSES:
            self.loss_parameters()
        return self

    @model_validator(mode="after")
    def _no_reference_for_a_loss_without_one(self) -> Self:
        if self.reference is not None and LOSSES[self.loss].reference_free:
            raise ValueError(f"`loss` {self.loss} has no reference; leave `reference` out")
        return self

    @model_validator(mode="after")
    def _hold_only_near_a_reference(self) -> Self:
        if self.hold_weight and LOSSES[self.loss].reference_free:
            raise ValueError(f"`loss` {self.loss} has no reference to hold tokens at; leave `hold_weight` out")
        return self

    @model_validator(mode="after")
    def _no_settings_of_an_adapter_without_one(self) -> Self:
        for name in ("lora_alpha", "lora_dropout", "lora_targets", "merge", "load_in_4bit"):
            if not self.lora_r and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` goes with `lora_r`")
        whole = [n for n in ("optim", "weights") if getattr(self, n) != type(self).model_fields[n].default]
        if self.lora_r and whole:
            named = " and ".join(f"`{name}` {getattr(self, name)}" for name in whole)
            raise ValueError(
                f"{named} {'is' if len(whole) == 1 else 'are'} for training all weights: an adapter is small, and "
                "weights that are frozen beside it are kept in the compute type; leave `lora_r` out, or "
                + " and ".join(f"`{name}`" for name in whole)
            )
        return self

    @property
    def written_dtype(self) -> str:
        """The type of the written weights, of which ``export_dtype`` may say nothing."""
        return self.export_dtype or self.weights

    @property
    def factor_beyond_shorter(self) -> float:
        """1, or the factor of ``ld-dpo``."""
        return 1.0 if self.ld_alpha is None else self.ld_alpha

    @property
    def needs_scores(self) -> bool:
        """Whether the loss is computed from the scores of a pair."""
        return LOSSES[self.loss].needs_scores

    @property
    def predicts_every_token(self) -> bool:
        """Whether a step needs log-probs of all tokens of the answers, not only of those with weight."""
        return self.hold_weight > 0

    @property
    def masked_pass_every(self) -> int:
        """Steps between forward passes for the figures of masked tokens alone; 0: none, as where steps have them."""
        return 0 if self.predicts_every_token else self.log_masked_every

    @property
    def of_reference(self) -> Self | None:
        """The settings of a training of ``reference``, whose own reference it would be; None where none is named.

        Its layers may have other names than those of ``lora_targets``, and its log-probs are those without an adapter.
        """
        own = {"model": self.reference, "reference": None, "lora_targets": "all-linear"}
        return self.model_copy(update=own) if self.reference else None

    def recorded(self) -> dict[str, Any]:
        """All settings, with the defaults that follow from other settings: for records and cards."""
        return self.model_dump() | {"export_dtype": self.written_dtype}

    def loss_parameters(self) -> "BaseModel":
        """What the function of the loss is given: these settings, or the checked options of a loss of one's own.

        Raises:
            UserError: ``loss_options`` do not fit.
        """
        options = LOSSES[self.loss].options
        return self if options is None else checked_options("loss", self.loss, options, self.loss_options)

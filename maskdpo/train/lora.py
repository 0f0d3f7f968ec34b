"""LoRA through PEFT: small matrices beside frozen ones. The reference is the same model with the adapter switched off.

The adapter is put into the model in place: the model stays a ``PreTrainedModel`` whose decoder and ``lm_head`` are
reached as before (``logps.py``), and the ``PeftModel`` around it is only needed to export.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from maskdpo.errors import UserError
from maskdpo.extras import require
from maskdpo.models import compute_type
from maskdpo.train.config import TrainConfig
from maskdpo.train.decoder import beside_the_decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INSTALL = "'maskdpo[lora]'"


def weight_type(config: TrainConfig, device: str) -> torch.dtype:
    """What the weights are kept in. Trained ones need float32: in bfloat16 small updates round to nothing. Frozen ones
    are kept in the type that is computed in: half the memory where that is bfloat16."""
    if config.lora_r and compute_type(config.dtype, device) == "bfloat16":
        return torch.bfloat16
    return torch.float32


def require_peft() -> None:
    require("peft", install=INSTALL, purpose="--lora-r")


def add_adapter(model: "PreTrainedModel", config: TrainConfig) -> Any:
    """Freeze the model and put a float32 adapter into it that changes nothing yet (B = 0).

    Returns:
        The ``PeftModel`` around the same model.

    Raises:
        UserError: peft is missing, no layer has such a name, or one is tied to the embedding.
    """
    require_peft()
    from peft import LoraConfig, get_peft_model

    targets: str | list[str] = config.lora_targets
    if targets != "all-linear":
        targets = [name.strip() for name in config.lora_targets.split(",")]
    settings = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
        exclude_modules=_never_adapted(model),
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(config.seed)  # A is random
    try:
        adapter = get_peft_model(model, settings)
    except ValueError as error:
        raise UserError(f"--lora-targets {config.lora_targets}: {' '.join(str(error).split())}") from None
    layers = adapter_layers(model)
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    if ends[0].weight is ends[1].weight and any(layer in ends for layer in layers):
        raise UserError(
            f"--lora-targets {config.lora_targets}: lm_head and embedding of this model are one matrix, which an "
            "adapter of one of them would tear apart; leave them out"
        )
    for layer in layers:
        for dropout in layer.lora_dropout.values():
            dropout.register_forward_pre_hook(_only_where_gradients_flow)
    return adapter


def _never_adapted(model: "PreTrainedModel") -> str | None:
    """A pattern for the names of modules that no pair reaches, and of those that do more than a linear layer, such as
    the routers of Llama 4, which PEFT would take for one; None where there are none."""
    more = [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and type(part) is not nn.Linear]
    names = "|".join(re.escape(name) for name in [*beside_the_decoder(model), *more])
    return rf"({names})(\..*)?" if names else None


def _only_where_gradients_flow(dropout: nn.Module, _: object) -> None:
    """What is only looked at (reference, held-out pairs, masked tokens) is looked at without dropout."""
    dropout.train(torch.is_grad_enabled())


def adapter_layers(model: nn.Module) -> list[Any]:
    """The layers that an adapter was put into; none for a model that is trained whole."""
    return [module for module in model.modules() if hasattr(module, "lora_A")]


@contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """The model as it was before the adapter: the reference. Nothing changes for a model without one."""
    layers = adapter_layers(model)
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merge(adapter: Any) -> "PreTrainedModel":
    """The adapter added to the weights, in float32 on the CPU: bfloat16 would round most of it away.

    The adapter is no longer one after this.
    """
    model: PreTrainedModel = adapter.to(device="cpu", dtype=torch.float32).merge_and_unload()
    return model


def seed_dropout(config: TrainConfig, step: int) -> None:
    """Before every step, so that a resumed run drops what the whole run would have dropped."""
    if config.lora_dropout:
        torch.manual_seed(config.seed * 1_000_003 + step)

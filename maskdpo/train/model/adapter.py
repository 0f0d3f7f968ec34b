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

from maskdpo.devices import compute_type
from maskdpo.errors import UserError
from maskdpo.extras import require
from maskdpo.train.config import TrainConfig
from maskdpo.train.model.decoder import beside_the_decoder
from maskdpo.train.model.fourbit import is_quantised

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INSTALL = "'maskdpo[lora]'"


def weight_type(config: TrainConfig, device: str) -> torch.dtype:
    """What the weights are kept in: trained ones in ``config.weights``, frozen ones in the type that is computed in."""
    if config.weights == "bfloat16" or (config.lora_r and compute_type(config.dtype, device) == "bfloat16"):
        return torch.bfloat16
    return torch.float32


def require_peft() -> None:
    require("peft", install=INSTALL, purpose="`lora_r`")


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
        task_type="CAUSAL_LM",
    )
    never = _never_adapted(model, settings)
    if isinstance(targets, list):
        _check_targets(model, targets, never)
    if never:
        settings.exclude_modules = rf"({'|'.join(map(re.escape, never))})(\..*)?"
    torch.manual_seed(config.seed)  # A is random
    try:
        adapter = get_peft_model(model, settings)
    except ValueError as error:
        raise UserError(f"`lora_targets` {config.lora_targets}: {' '.join(str(error).split())}") from None
    layers = adapter_layers(model)
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    if ends[0].weight is ends[1].weight and any(layer in ends for layer in layers):
        raise UserError(
            f"`lora_targets` {config.lora_targets}: lm_head and embedding of this model are one matrix, which an "
            "adapter of one of them would tear apart; leave them out"
        )
    for layer in layers:
        for dropout in layer.lora_dropout.values():
            dropout.register_forward_pre_hook(_only_where_gradients_flow)
    return adapter


def _never_adapted(model: "PreTrainedModel", settings: Any) -> list[str]:
    """Names of the modules that can have no adapter: modules that no pair reaches, modules that compute more than a
    linear layer, and modules that PEFT refuses because the layers around them (Mamba's) use their weights directly."""
    linear = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    overridden = {type(part): part for _, part in linear if type(part).forward is not nn.Linear.forward}
    more = {kind for kind, part in overridden.items() if not (is_quantised(part) or _is_linear(part))}
    names = [name for name, part in linear if type(part) in more]
    names += [name for name, _ in model.named_modules() if name and _refused_by_peft(model, settings, name)]
    return [*beside_the_decoder(model), *names]


def _is_linear(part: nn.Linear) -> bool:
    """Whether a layer with a forward of its own computes x @ W.T + b, as Falcon's does and Llama 4's router does not.
    The test uses small weights, because those of the layer may be large or not loaded yet."""
    x = torch.linspace(-1, 1, 8, device="cpu").view(4, 2)
    weights = {"weight": torch.linspace(-2, 1, 6, device="cpu").view(3, 2)}
    if part.bias is not None:
        weights["bias"] = torch.linspace(0, 1, 3, device="cpu")
    try:
        found = torch.func.functional_call(part, weights, (x,))
    except (ValueError, TypeError, RuntimeError, IndexError, AttributeError, NotImplementedError):
        return False  # its forward takes other inputs than a linear layer
    expected = nn.functional.linear(x, **weights)
    return isinstance(found, torch.Tensor) and found.shape == expected.shape and torch.allclose(found, expected)


def _refused_by_peft(model: "PreTrainedModel", settings: Any, name: str) -> bool:
    from peft.tuners.tuners_utils import _check_lora_target_modules_mamba as check  # the only place of PEFT's table

    try:
        check(settings, model, name.rpartition(".")[2])
    except ValueError:
        return True
    return False


def _check_targets(model: "PreTrainedModel", targets: list[str], never: list[str]) -> None:
    """
    Raises:
        UserError: all modules of some name are among those that can have no adapter.
    """
    outer = tuple(f"{name}." for name in never)
    for target in targets:
        named = [name for name, _ in model.named_modules() if f".{name}".endswith(f".{target}")]
        if named and all(f"{name}.".startswith(outer) for name in named):
            raise UserError(
                f"`lora_targets` {target}: {model.config.model_type} does not use its {target} as a plain linear layer "
                "of the text model, so that an adapter of it would have no effect or a wrong one; leave it out"
            )


def _only_where_gradients_flow(dropout: nn.Module, _: object) -> None:
    """Use dropout in training only: reference, held-out pairs and masked tokens are computed without gradients."""
    dropout.train(torch.is_grad_enabled())


def adapter_layers(model: nn.Module) -> list[Any]:
    """The layers that have an adapter; none for a model that is trained whole."""
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

    The adapter cannot be used after this.
    """
    model: PreTrainedModel = adapter.to(device="cpu", dtype=torch.float32).merge_and_unload()
    return model


def seed_dropout(config: TrainConfig, step: int) -> None:
    """Before every step, so that a resumed run drops what the whole run would have dropped."""
    if config.lora_dropout:
        torch.manual_seed(config.seed * 1_000_003 + step)

"""Gated feed-forward layers, down(act(gate(x)) * up(x)), that keep gate and up for the backward pass and nothing else.

act(gate) and the product are computed again, element by element, which costs less than 1% of a step. Automatic
differentiation keeps both: a quarter to a third of all that a Llama keeps of a forward pass.
"""

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from maskdpo.train.config import TrainConfig
from maskdpo.train.model.decoder import decoder_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PARTS = ("gate_proj", "up_proj", "down_proj")


def recomputes_gates(config: TrainConfig) -> bool:
    """Not where whole layers are computed again or compiled; nor with an adapter, whose product would be, too."""
    return not (config.gradient_checkpointing or config.compile or config.lora_r)


def recompute_gates(model: "PreTrainedModel") -> None:
    """From now on the gated layers of the decoder keep less; the numbers stay the same to the bit."""
    for layer in gated_layers(model):
        layer.forward = functools.partial(_forward, layer)


def gated_layers(model: "PreTrainedModel") -> list[Any]:
    """The layers that are down(act(gate(x)) * up(x)) by the names of their parts and by what they compute."""
    return [module for module in decoder_of(model).modules() if _is_gated(module)]


def _is_gated(module: Any) -> bool:
    parts = [getattr(module, name, None) for name in PARTS]
    if not all(type(part) is nn.Linear for part in parts) or not callable(getattr(module, "act_fn", None)):
        return False
    if module.down_proj.weight.is_meta:
        return True
    random = torch.Generator().manual_seed(0)
    some = torch.randn(4, module.gate_proj.in_features, generator=random) * torch.tensor([[0.1], [1], [10], [100]])
    with torch.no_grad():
        weight = module.gate_proj.weight
        x = some.to(weight.device, getattr(module.gate_proj, "computes_in", weight.dtype))  # ``decoder.widen_weights``
        found, expected = module(x), _down(module, module.gate_proj(x), module.up_proj(x))
        return torch.equal(found.nan_to_num(), expected.nan_to_num())  # ranks but the first have no weights yet


def _forward(module: Any, x: Tensor) -> Tensor:
    gate, up = module.gate_proj(x), module.up_proj(x)
    if not torch.is_grad_enabled():
        return _down(module, gate, up)
    # What is computed again ends where ``down_proj`` saves its input: before its product.
    found: Tensor = checkpoint(_down, module, gate, up, use_reentrant=False, preserve_rng_state=False)
    return found


def _down(module: Any, gate: Tensor, up: Tensor) -> Tensor:
    found: Tensor = module.down_proj(module.act_fn(gate) * up)
    return found

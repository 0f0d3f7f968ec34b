"""Frozen weights in 4 bits (NF4 of bitsandbytes) under an adapter: half a byte per parameter of the linear layers.

Embedding, norms and ``lm_head`` stay as they were. A layer's weights are widened for each product.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from maskdpo.errors import UserError
from maskdpo.extras import require

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Of one parameter: 4 bits, a scale of 8 bits for each 64 of them, and a float32 scale for 256 scales."""

WORST_ROUNDING = 0.15
"""Relative to the weights. NF4 rounds normal numbers by 0.09."""


def require_bitsandbytes() -> None:
    require("bitsandbytes", install="'maskdpo[bits]'", purpose="`load_in_4bit`")


def loading_options(device: str) -> dict[str, Any]:
    """Arguments of ``from_pretrained`` by which the weights are quantised as they are read.

    Raises:
        UserError: bitsandbytes is missing.
    """
    require_bitsandbytes()
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    return {"quantization_config": settings, "device_map": {"": device}}


def check_widening(model: "PreTrainedModel") -> None:
    """Check with numbers drawn by lot that rows as wide as those of the model come back as about what they were.

    bitsandbytes 0.50.2 widens rows that are no multiple of 64 weights wrongly on processors with AVX-512.

    Raises:
        UserError: they do not.
    """
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    kinds = {(layer.in_features, layer.weight.quant_state.dtype) for layer in quantised_layers(model)}
    for width, dtype in sorted(kinds, key=lambda kind: kind[0]):
        rows = torch.randn(8, width, generator=torch.Generator().manual_seed(width)).to(model.device, dtype)
        widened = dequantize_4bit(*quantize_4bit(rows, quant_type="nf4", compress_statistics=True))
        error = float((widened - rows).norm() / rows.norm())
        if error > WORST_ROUNDING:
            raise UserError(
                f"`load_in_4bit`: the model has rows of {width} weights, which bitsandbytes rounds by {error:.0%} on "
                "this device, where 4 bits cost 9%: on a CPU with AVX-512 it needs rows of a multiple of 64 weights. "
                "Leave `load_in_4bit` out, or take another device"
            )


def is_quantised(layer: nn.Module) -> bool:
    return hasattr(dict(layer.named_parameters(recurse=False)).get("weight"), "quant_state")


def size_of(parameter: Any) -> int:
    """How many weights it stands for: in 4 bits they lie in pairs in bytes."""
    state = getattr(parameter, "quant_state", None)
    return int(parameter.numel() if state is None else state.shape.numel())


def quantised_layers(model: "PreTrainedModel") -> list[Any]:
    return [layer for layer in model.modules() if is_quantised(layer)]


def compute_in(model: "PreTrainedModel", dtype: torch.dtype) -> None:
    """Let the quantised layers compute in this type. By themselves they would take that of the first input they see,
    and repack their weights on some CPUs where no gradient is asked for."""
    for layer in quantised_layers(model):
        layer.compute_dtype, layer.compute_type_is_set = dtype, True
        layer.support_avx512bf16_for_cpu = False

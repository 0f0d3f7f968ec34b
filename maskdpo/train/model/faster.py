"""Attention made for rows of the ``shared`` layout, in place of PyTorch's: which one is used, and if it is exact."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from maskdpo.console import say
from maskdpo.devices import compute_type
from maskdpo.errors import UserError
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.batch import Layout
from maskdpo.train.data.encoded_pair import EncodedPair
from maskdpo.train.data.measures import longest
from maskdpo.train.model.attention import use_cpu_attention
from maskdpo.train.model.decoder import text_config
from maskdpo.train.model.flex import Heads, kernel_problem, use_flex_attention
from maskdpo.train.model.probe import sharing_failure
from maskdpo.train.ranks import Ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def use_fastest_attention(
    model: "PreTrainedModel",
    pairs: Sequence[EncodedPair],
    layout: Layout,
    config: TrainConfig,
    device: str,
    ranks: Ranks,
) -> None:
    """Set the attention that ``config.attention`` asks for; PyTorch's stays where log-probs would change. Every rank
    must call.

    Raises:
        UserError: FlexAttention is asked for and cannot be used.
    """
    asked, own = config.attention, text_config(model)._attn_implementation
    wants_flex = asked == "flex" or (asked == "auto" and device.startswith("cuda"))
    if layout != "shared" or own != "sdpa":
        problem = "FlexAttention is for models whose answers share one row and that use PyTorch's attention"
    elif wants_flex:
        problem = _flex_problem(model, pairs, compute_type(config.dtype, device), device, ranks)
    elif asked == "auto" and device == "cpu":
        use_cpu_attention(model)
        problem = ranks.from_first(sharing_failure(model, pairs) if ranks.first else "")
    else:
        return
    if problem and asked == "flex":
        raise UserError(f"`attention` flex: cannot be used for {model.config.model_type}: {problem}; take auto or sdpa")
    if problem and own == "sdpa" and layout == "shared":
        model.set_attn_implementation(own)
        if wants_flex:
            say(f"{model.config.model_type}: trains with PyTorch's attention (slower, same result): {problem}")


def _flex_problem(
    model: "PreTrainedModel", pairs: Sequence[EncodedPair], compute: str, device: str, ranks: Ranks
) -> str:
    """Use FlexAttention, and say why it cannot be used; empty where it can. The log-probs are tried where the model is,
    which is the CPU of rank 0 where there are many ranks, and the kernels on every device, in the compute type. On a
    CPU, where FlexAttention makes whole squares of scores, the shortest pair must do."""
    seen: set[Heads] = set()
    use_flex_attention(model, seen)
    tried = [pairs[int(longest(pairs).argmin())]] if model.device.type == "cpu" else pairs
    failure, seen = ranks.from_first((sharing_failure(model, tried) if ranks.first else "", seen))
    use_flex_attention(model)
    dtype = torch.bfloat16 if compute == "bfloat16" else torch.float32
    own = next((problem for heads in sorted(seen) if (problem := kernel_problem(heads, device, dtype))), "")
    if ranks.any(bool(own)):
        return own or "FlexAttention fails on the device of another process"
    return failure and f"with FlexAttention {failure}"

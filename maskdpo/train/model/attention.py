"""Attention on the CPU for rows of the ``shared`` layout: plain matrix products, a row at a time.

PyTorch's own kernel for the CPU works through small blocks and repeats keys and values for every query head. With the
queries of all heads that share a key as one matrix, rows of some hundred tokens take half its time. As there, nothing
of size [L, L] is kept for the backward pass: it is computed again.

Shape letters: B rows, G key heads, H query heads, M = H / G * L queries that share a key head, L tokens, D head size.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "maskdpo_cpu"

LONGEST = 640
"""Longer rows go to PyTorch's kernel: their [H, L, L] no longer fits the caches, and it is as quick."""


def use_cpu_attention(model: PreTrainedModel) -> None:
    """From now on the model's attention is ``cpu_attention``. What it writes to disk does not change."""
    AttentionInterface.register(NAME, cpu_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


# Compiled, the loop over rows would be unrolled anew for every number of rows.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def cpu_attention(
    module: torch.nn.Module,
    query_BHLD: Tensor,
    key_BGLD: Tensor,
    value_BGLD: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """[B, L, H, D], as transformers asks of attention functions. ``attention_mask``: [B, 1, L, L], True where a query
    may see a key; anything else is left to PyTorch's kernel."""
    length = query_BHLD.shape[2]
    if not _is_plain(query_BHLD, value_BGLD, attention_mask, kwargs) or length > LONGEST or dropout:
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query_BHLD, key_BGLD, value_BGLD, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return found
    assert attention_mask is not None
    compute = value_BGLD.dtype  # under autocast queries and keys come out of the rotation in float32
    q_BHLD, k_BGLD, v_BGLD = (x.to(compute).contiguous() for x in (query_BHLD, key_BGLD, value_BGLD))
    out_BHLD: Tensor = _RowAttention.apply(  # type: ignore[no-untyped-call]
        q_BHLD, k_BGLD, v_BGLD, attention_mask, scaling
    )
    return out_BHLD.transpose(1, 2).contiguous(), None


def _is_plain(query_BHLD: Tensor, value_BGLD: Tensor, mask: Tensor | None, extras: dict[str, Any]) -> bool:
    """Whether this is softmax(scaling * Q K^T + mask) V for whole rows, and no more."""
    batch, _, length, size = query_BHLD.shape
    masked = mask is not None and mask.dtype == torch.bool and mask.shape == (batch, 1, length, length)
    changed = any(extras.get(name) is not None for name in ("position_bias", "softcap", "s_aux"))
    return masked and value_BGLD.shape[-1] == size and not changed


class _RowAttention(torch.autograd.Function):
    """softmax(scaling * Q K^T + mask) V. Scores and their gradients are float32, as in PyTorch's kernel: rounded to
    bfloat16 before the softmax, scores of some hundreds, which real models have, would be off by whole units."""

    @staticmethod
    def forward(ctx: Any, q_BHLD: Tensor, k_BGLD: Tensor, v_BGLD: Tensor, mask: Tensor, scaling: float) -> Tensor:
        out_BHLD = torch.empty_like(q_BHLD)
        q_BGMD, out_BGMD = (_grouped(x, k_BGLD) for x in (q_BHLD, out_BHLD))
        with torch.autocast("cpu", enabled=False):
            for q_GMD, k_GLD, v_GLD, mask_1LL, out_GMD in zip(q_BGMD, k_BGLD, v_BGLD, mask, out_BGMD, strict=True):
                p_GML = _probabilities(q_GMD, k_GLD, mask_1LL, scaling).to(v_GLD.dtype)
                torch.bmm(p_GML, v_GLD, out=out_GMD)
        ctx.save_for_backward(q_BHLD, k_BGLD, v_BGLD, mask, out_BHLD)
        ctx.scaling = scaling
        return out_BHLD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """With P the probabilities and dO the gradient: dV = P^T dO, dS = P * (dO V^T - rowsum(dO * O)),
        dQ = scaling * dS K, dK = scaling * dS^T Q (FlashAttention, arXiv 2205.14135, appendix B.2)."""
        q_BHLD, k_BGLD, v_BGLD, mask, out_BHLD = ctx.saved_tensors
        grad_BHLD = grads[0].contiguous()
        dq_BHLD, dk_BGLD, dv_BGLD = (torch.empty_like(x) for x in (q_BHLD, k_BGLD, v_BGLD))
        sums_BHL1 = (grad_BHLD.float() * out_BHLD).sum(-1, keepdim=True)
        q_BGMD, grad_BGMD, dq_BGMD, sums_BGM1 = (_grouped(x, k_BGLD) for x in (q_BHLD, grad_BHLD, dq_BHLD, sums_BHL1))
        for b, mask_1LL in enumerate(mask):
            q_GMD, k_GLD, v_GLD, grad_GMD = q_BGMD[b], k_BGLD[b], v_BGLD[b], grad_BGMD[b]
            p_GML = _probabilities(q_GMD, k_GLD, mask_1LL, ctx.scaling)
            torch.bmm(p_GML.to(grad_GMD.dtype).transpose(1, 2), grad_GMD, out=dv_BGLD[b])
            dp_GML = torch.bmm(grad_GMD.float(), v_GLD.float().transpose(1, 2))
            ds_GML = dp_GML.sub_(sums_BGM1[b]).mul_(p_GML).to(q_GMD.dtype)
            torch.bmm(ds_GML, k_GLD, out=dq_BGMD[b])
            torch.bmm(ds_GML.transpose(1, 2), q_GMD, out=dk_BGLD[b])
        return dq_BHLD.mul_(ctx.scaling), dk_BGLD.mul_(ctx.scaling), dv_BGLD, None, None


def _grouped(x_BHLD: Tensor, k_BGLD: Tensor) -> Tensor:
    """[B, G, M, D], a view: the heads of a key head lie behind each other."""
    return x_BHLD.view(*k_BGLD.shape[:2], -1, x_BHLD.shape[-1])


def _probabilities(q_GMD: Tensor, k_GLD: Tensor, mask_1LL: Tensor, scaling: float) -> Tensor:
    """[G, M, L] float32."""
    length = k_GLD.shape[1]
    # Not -inf: padding on the left sees no key at all, and its NaN would reach all rows through the next layer.
    hidden_1LL = torch.zeros(mask_1LL.shape).masked_fill_(~mask_1LL, torch.finfo(torch.float32).min)
    scores_GML = torch.bmm(q_GMD.float(), k_GLD.float().transpose(1, 2))
    scores_HLL = torch.add(hidden_1LL, scores_GML.view(-1, length, length), alpha=scaling)
    return torch.softmax(scores_HLL, -1).view_as(scores_GML)

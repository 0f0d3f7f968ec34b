"""Attention on the CPU for rows of the ``shared`` layout: plain matrix products over the keys that queries may see.

PyTorch's own kernel for the CPU computes all scores that are not later than the query, and repeats keys and values for
every query head. Here the queries of a block, of all heads that share a key, are one matrix, and only the keys that any
query of the block sees take part: not the tokens behind it, and for the rejected answer not the chosen one. As there,
nothing of size [L, L] is kept for the backward pass: it is computed again.

Shape letters: B rows, G key heads, H query heads, L tokens, D head size; of a block: S seen keys, Q queries, M =
H / G * Q queries that share a key head.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "maskdpo_cpu"

BLOCK = 128
"""Queries of a block: fewer see less in vain, more make larger matrices."""


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
    if not _is_plain(query_BHLD, value_BGLD, attention_mask, kwargs) or dropout:
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query_BHLD, key_BGLD, value_BGLD, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return found
    assert attention_mask is not None
    compute = value_BGLD.dtype  # under autocast queries and keys come out of the rotation in float32
    q_BHLD, k_BGLD, v_BGLD = (x.to(compute).contiguous() for x in (query_BHLD, key_BGLD, value_BGLD))
    out_BHLD: Tensor = _BlockAttention.apply(  # type: ignore[no-untyped-call]
        q_BHLD, k_BGLD, v_BGLD, attention_mask, scaling
    )
    return out_BHLD.transpose(1, 2).contiguous(), None


def _is_plain(query_BHLD: Tensor, value_BGLD: Tensor, mask: Tensor | None, extras: dict[str, Any]) -> bool:
    """Whether this is softmax(scaling * Q K^T + mask) V for whole rows, and no more."""
    batch, _, length, size = query_BHLD.shape
    masked = mask is not None and mask.dtype == torch.bool and mask.shape == (batch, 1, length, length)
    changed = any(extras.get(name) is not None for name in ("position_bias", "softcap", "s_aux"))
    return masked and value_BGLD.shape[-1] == size and not changed


class _BlockAttention(torch.autograd.Function):
    """softmax(scaling * Q K^T + mask) V. Scores and their gradients are float32, as in PyTorch's kernel: rounded to
    bfloat16 before the softmax, scores of some hundreds, which real models have, would be off by whole units."""

    @staticmethod
    def forward(ctx: Any, q_BHLD: Tensor, k_BGLD: Tensor, v_BGLD: Tensor, mask: Tensor, scaling: float) -> Tensor:
        out_BHLD = torch.empty_like(q_BHLD)
        with torch.autocast("cpu", enabled=False):
            for b, block, seen_S, hidden_QS in _blocks(mask):
                q_GMD, k_GSD, v_GSD = (
                    _grouped(q_BHLD[b, :, block], k_BGLD[b]),
                    k_BGLD[b, :, seen_S],
                    v_BGLD[b, :, seen_S],
                )
                p_GMS = _probabilities(q_GMD, k_GSD, hidden_QS, scaling).to(v_GSD.dtype)
                out_BHLD[b, :, block] = torch.bmm(p_GMS, v_GSD).view_as(out_BHLD[b, :, block])
        ctx.save_for_backward(q_BHLD, k_BGLD, v_BGLD, mask, out_BHLD)
        ctx.scaling = scaling
        return out_BHLD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """With P the probabilities and dO the gradient: dV = P^T dO, dS = P * (dO V^T - rowsum(dO * O)),
        dQ = scaling * dS K, dK = scaling * dS^T Q (FlashAttention, arXiv 2205.14135, appendix B.2)."""
        q_BHLD, k_BGLD, v_BGLD, mask, out_BHLD = ctx.saved_tensors
        dq_BHLD = torch.empty_like(q_BHLD)
        dk_BGLD, dv_BGLD = (torch.zeros(x.shape) for x in (k_BGLD, v_BGLD))  # float32, as blocks add up
        for b, block, seen_S, hidden_QS in _blocks(mask):
            q_GMD, grad_GMD, out_GMD = (_grouped(x[b, :, block], k_BGLD[b]) for x in (q_BHLD, grads[0], out_BHLD))
            k_GSD, v_GSD = k_BGLD[b, :, seen_S], v_BGLD[b, :, seen_S]
            p_GMS = _probabilities(q_GMD, k_GSD, hidden_QS, ctx.scaling)
            dv_BGLD[b].index_add_(1, seen_S, torch.bmm(p_GMS.to(grad_GMD.dtype).transpose(1, 2), grad_GMD).float())
            dp_GMS = torch.bmm(grad_GMD.float(), v_GSD.float().transpose(1, 2))
            sums_GM1 = (grad_GMD.float() * out_GMD).sum(-1, keepdim=True)
            ds_GMS = dp_GMS.sub_(sums_GM1).mul_(p_GMS).to(q_GMD.dtype)
            dq_BHLD[b, :, block] = torch.bmm(ds_GMS, k_GSD).view_as(dq_BHLD[b, :, block])
            dk_BGLD[b].index_add_(1, seen_S, torch.bmm(ds_GMS.transpose(1, 2), q_GMD).float())
        dk_BGLD, dv_BGLD = dk_BGLD.mul_(ctx.scaling).to(k_BGLD.dtype), dv_BGLD.to(v_BGLD.dtype)
        return dq_BHLD.mul_(ctx.scaling), dk_BGLD, dv_BGLD, None, None


def _blocks(mask_B1LL: Tensor) -> Iterator[tuple[int, slice, Tensor, Tensor]]:
    """(row, block of its queries, the keys that any of these sees, what is added to their scores [Q, S])."""
    for b, mask_LL in enumerate(mask_B1LL[:, 0]):
        for start in range(0, len(mask_LL), BLOCK):
            block = slice(start, start + BLOCK)
            mask_QL = mask_LL[block]
            seen_S = mask_QL.any(0).nonzero()[:, 0]
            if not len(seen_S):  # padding on the left may see no key at all
                seen_S = torch.zeros(1, dtype=torch.long)
            visible_QS = mask_QL[:, seen_S]
            # Not -inf: a query that sees no key would become NaN, which would reach all rows through the next layer.
            yield (
                b,
                block,
                seen_S,
                torch.zeros(visible_QS.shape).masked_fill_(~visible_QS, torch.finfo(torch.float32).min),
            )


def _grouped(x_HQD: Tensor, k_GLD: Tensor) -> Tensor:
    """[G, M, D]: the heads of a key head lie behind each other."""
    return x_HQD.reshape(len(k_GLD), -1, x_HQD.shape[-1])


def _probabilities(q_GMD: Tensor, k_GSD: Tensor, hidden_QS: Tensor, scaling: float) -> Tensor:
    """[G, M, S] float32."""
    scores_GMS = torch.bmm(q_GMD.float(), k_GSD.float().transpose(1, 2))
    scores_HQS = torch.add(hidden_QS, scores_GMS.view(-1, *hidden_QS.shape), alpha=scaling)
    return torch.softmax(scores_HQS, -1).view_as(scores_GMS)

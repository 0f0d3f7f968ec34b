"""Attention on CUDA for rows of the ``shared`` layout: PyTorch's FlexAttention, which skips what no token may see.

With a mask of [R, 1, L, L] PyTorch's own attention (SDPA) cannot take its flash kernels: it computes every (query, key)
pair, reads the mask for each head, and repeats keys and values for all heads that share them. FlexAttention compiles a
kernel from the rule by which one token sees another, and computes only blocks in which there is something to see.
(flash-attn's variable lengths know rows one behind the other, and no prompt that two answers share.)

Shape letters: R rows, L tokens, K blocks of a row, H query heads, G key heads, D head size.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import flex_attention as torch_flex
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from maskdpo.train.data.batch import CHOSEN, PAD, PROMPT, REJECTED
from maskdpo.train.model.decoder import text_config

NAME = "maskdpo_flex"

BLOCK = 128
"""Tokens of a block. Queries, keys and values are filled up to whole blocks, so that one kernel serves every length."""

SHORTEST = 2 * BLOCK
"""A single block would be compiled anew, and queries of less than a block are given to a kernel for decoding."""

TRIED = ((2, 3 * BLOCK), (3, 5 * BLOCK), (1, 4 * BLOCK))
"""Rows and tokens of the passes by which kernels are tried, in this order: a kernel is compiled for the first sizes,
then for many rows of any length, then for one row. Training uses the latter two, which would end its first step if
they could not be compiled."""

RECOMPILES = 64
"""Kernels of one process: one for each type and number of heads, with and without gradients, for one row and for many.
Beyond PyTorch's limit of 8 it would compute every (query, key) pair in main memory instead."""

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}
"""Largest difference from SDPA in float32, relative to the largest number: a few roundings of the type."""

FAILURES = (ValueError, TypeError, RuntimeError, IndexError, AttributeError, NotImplementedError, AssertionError)
"""What a kernel that cannot be compiled or run raises; errors of the compilers are RuntimeErrors."""


class Heads(NamedTuple):
    """Sizes of an attention layer."""

    query: int
    key: int
    size: int
    value_size: int


def use_flex_attention(model: PreTrainedModel, seen: set[Heads] | None = None) -> None:
    """From now on the model's attention is ``flex_attention``. What it writes to disk does not change.

    Args:
        seen: gets the sizes of all layers that are computed from now on.
    """

    def noting(module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
        if seen is not None:
            seen.add(Heads(query.shape[1], key.shape[1], query.shape[3], value.shape[3]))
        return flex_attention(module, query, key, value, *args, **kwargs)

    AttentionInterface.register(NAME, flex_attention if seen is None else noting)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def uses_flex_attention(model: PreTrainedModel) -> bool:
    return bool(text_config(model)._attn_implementation == NAME)


def block_mask(segments_RL: Tensor) -> BlockMask:
    """The mask of ``Batch.attention_mask`` for the ``shared`` layout, of rows filled up to whole blocks.

    Segments only rise along a row, so that the first and the last segment of each block tell what its queries see of a
    block of keys: nothing, all, or what ``visible`` says. Nothing of [L, L] is ever made.
    """
    length = segments_RL.shape[1]
    whole = max(SHORTEST, length + -length % BLOCK)
    filled_RL = F.pad(segments_RL, (0, whole - length), value=PAD).int()

    prompt_R, chosen_R, rejected_R = ((filled_RL <= segment).sum(1) for segment in (PROMPT, CHOSEN, REJECTED))

    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """By where the segments of the row end: a kernel then reads three numbers a row, and none for each token."""
        chosen, rejected = chosen_R[row], rejected_R[row]
        same = ((query >= chosen) == (key >= chosen)) & ((query >= rejected) == (key >= rejected))
        return (query >= key) & ((key < prompt_R[row]) | same)

    first_RK, last_RK = filled_RL[:, ::BLOCK], filled_RL[:, BLOCK - 1 :: BLOCK]
    key_first, key_last = first_RK[:, None, :], last_RK[:, None, :]
    query_first, query_last = first_RK[:, :, None], last_RK[:, :, None]
    own_KK = torch.eye(whole // BLOCK, dtype=torch.bool, device=segments_RL.device)
    earlier_KK = torch.ones_like(own_KK).tril(-1)
    all_RKK = earlier_KK & ((key_last == PROMPT) | (key_first == query_last))
    some_RKK = earlier_KK & ((key_first == PROMPT) | (key_last == query_first))
    return BlockMask.from_kv_blocks(
        *_listed(own_KK | (some_RKK & ~all_RKK)),
        *_listed(all_RKK),
        BLOCK_SIZE=BLOCK,
        mask_mod=visible,
        seq_lengths=(whole, whole),
    )


def _listed(blocks_RKK: Tensor) -> tuple[Tensor, Tensor]:
    """For every block of queries the number of its blocks of keys [R, 1, K] and, first in [R, 1, K, K], which."""
    marked = blocks_RKK[:, None].int()
    return marked.sum(-1, dtype=torch.int32), marked.argsort(dim=-1, descending=True, stable=True).int()


# In a compiled layer the kernel is compiled by itself, too: it stays the one that was tried before the first step.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def flex_attention(
    module: torch.nn.Module,
    query_RHLD: Tensor,
    key_RGLD: Tensor,
    value_RGLD: Tensor,
    attention_mask: Tensor | BlockMask | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """[R, L, H, D], as transformers asks of attention functions; without a ``BlockMask``, PyTorch's attention.

    Raises:
        NotImplementedError: the layer wants more than softmax(scaling * Q K^T + mask) V.
    """
    if not isinstance(attention_mask, BlockMask):
        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query_RHLD, key_RGLD, value_RGLD, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return found
    if dropout or any(kwargs.get(name) is not None for name in ("position_bias", "softcap", "s_aux")):
        raise NotImplementedError("attention with a bias, a soft cap, sinks or dropout")
    length = query_RHLD.shape[2]
    fill = (0, 0, 0, attention_mask.seq_lengths[0] - length)
    compute = value_RGLD.dtype  # under autocast queries and keys come out of the rotation in float32
    q, k, v = (F.pad(x.to(compute), fill).contiguous() for x in (query_RHLD, key_RGLD, value_RGLD))
    # A factor that changes from model to model must stay a number of the kernel, or it cannot be compiled.
    settings = torch._dynamo.config.patch(recompile_limit=RECOMPILES, specialize_float=True)
    with torch.autocast(q.device.type, enabled=False), settings:
        out = _kernel(q.device.type)(
            q, k, v, block_mask=attention_mask, scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
    return out[:, :, :length].transpose(1, 2).contiguous(), None


@functools.cache
def _kernel(device: str) -> Callable[..., Tensor]:
    """Compiled for the first length, once more for all others. On a CPU the definition, which computes all pairs of
    tokens: it is there to be compared with."""
    if device == "cpu":
        return _uncompiled
    return torch.compile(torch_flex.flex_attention, fullgraph=True)


def _uncompiled(*args: Any, **kwargs: Any) -> Any:
    with warnings.catch_warnings():  # that it is slow, in many lines
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        return torch_flex.flex_attention(*args, **kwargs)


def kernel_problem(heads: Heads, device: str, dtype: torch.dtype) -> str:
    """What is wrong with the kernels of these sizes on this device, as a sentence; empty where they can be used.

    Forward and backward pass over random numbers in rows of several segments are compared with PyTorch's attention in
    float32.
    """
    return next((problem for sizes in TRIED if (problem := _problem_of(heads, device, dtype, *sizes))), "")


def _problem_of(heads: Heads, device: str, dtype: torch.dtype, rows: int, length: int) -> str:
    segments_RL = torch.full((rows, length), PAD)
    for i, row in enumerate(segments_RL):
        prompt, chosen = ((share + i) * length // 10 + 5 for share in (2, 6))
        row[: length - 4 * i], row[:chosen], row[:prompt] = REJECTED, CHOSEN, PROMPT
    segments_RL = segments_RL.to(device)
    random = torch.Generator(device).manual_seed(0)
    shapes = ((heads.query, heads.size), (heads.key, heads.size), (heads.key, heads.value_size))
    inputs = [torch.randn(rows, h, length, d, generator=random, device=device) for h, d in shapes]
    grad = torch.randn(rows, length, heads.query, heads.value_size, generator=random, device=device)
    module = torch.nn.Module()
    module.num_key_value_groups = heads.query // heads.key  # type: ignore[assignment]

    def tried(attention: Callable[..., Any], mask: Any, compute: torch.dtype) -> list[Tensor]:
        given = [x.to(dtype).to(compute).requires_grad_() for x in inputs]
        with torch.enable_grad():
            out = attention(module, *given, mask, scaling=heads.size**-0.5)[0]
            return [out.detach(), *torch.autograd.grad(out, given, grad.to(compute))]

    key = segments_RL[:, None, None, :]
    causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    expected = tried(
        sdpa_attention_forward, causal & ((segments_RL[:, None, :, None] == key) | (key == PROMPT)), torch.float32
    )
    try:
        found = tried(flex_attention, block_mask(segments_RL), dtype)
    except torch.OutOfMemoryError:
        raise
    except FAILURES as error:
        return f"FlexAttention fails ({' '.join(str(error).split())[:200]})"
    apart = [float((a.float() - b).abs().max() / b.abs().max()) for a, b in zip(found, expected, strict=True)]
    allowed = TOLERANCE.get(dtype, TOLERANCE[torch.float32])
    return "" if max(apart) <= allowed else f"FlexAttention differs from PyTorch's attention by {max(apart):.2g}"

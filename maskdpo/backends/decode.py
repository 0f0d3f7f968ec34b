"""A decoding loop with a KV cache: the prompt is read once for all its samples, finished rows leave the batch, and
every row draws from its own random stream, so that its batch does not change a sample (but for rounding).

Why not ``model.generate``: on two CPU cores it was several times slower for many samples of one prompt (docs/log.md).
Shape letters: R rows still decoding, T prompt tokens, V vocabulary.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

COMPACT_BELOW = 0.75
"""Finished rows are taken out of the cache once fewer than this share of its rows are still decoding."""


@dataclass
class Row:
    """One sample in the making."""

    prompt: int
    """Index of its prompt."""
    random: np.random.Generator
    ids: list[int]


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[Row],
    *,
    max_tokens: int,
    temperature: float,
    top_p: float,
    is_finished: Callable[[Row], bool],
    pad_id: int,
) -> None:
    """Sample token ids into ``row.ids`` of every row until it is finished or has ``max_tokens``.

    Args:
        prompts: token ids, each at least one.
        rows: the samples, sorted by ``row.prompt``; every prompt has the same number of them.
        temperature: 0 takes the most probable token.
        is_finished: called with a row after each of its new tokens.
    """
    input_ids, mask = left_pad(prompts, pad_id, model.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    keyword = cache_keyword(model)
    output = model(
        input_ids=input_ids, attention_mask=mask, position_ids=positions, logits_to_keep=1, **{keyword: cache}
    )
    logits_RV = last_logits(output)
    each = len(rows) // len(prompts)
    if each > 1:
        cache.batch_repeat_interleave(each)
        logits_RV, mask, positions = (x.repeat_interleave(each, 0) for x in (logits_RV, mask, positions))
    position_R1 = positions[:, -1:] + 1
    live = list(range(len(rows)))  # which row each row of the cache belongs to
    active = [True] * len(rows)
    for _ in range(max_tokens):
        uniform_R = torch.tensor([rows[i].random.random() for i in live], device=model.device)
        token_R = pick(logits_RV, uniform_R, temperature, top_p)
        for i, token in zip(live, token_R.tolist(), strict=True):
            if active[i]:
                rows[i].ids.append(token)
                active[i] = len(rows[i].ids) < max_tokens and not is_finished(rows[i])
        going = sum(active[i] for i in live)
        if going == 0:
            return
        if going < COMPACT_BELOW * len(live):
            keep = torch.tensor([k for k, i in enumerate(live) if active[i]], device=model.device)
            cache.batch_select_indices(keep)
            token_R, mask, position_R1 = token_R[keep], mask[keep], position_R1[keep]
            live = [i for i in live if active[i]]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        output = model(input_ids=token_R[:, None], attention_mask=mask, position_ids=position_R1, **{keyword: cache})
        logits_RV = last_logits(output)
        position_R1 = position_R1 + 1


def pick(logits_RV: Tensor, uniform_R: Tensor, temperature: float, top_p: float) -> Tensor:
    """Draw a token a row by inverting the cumulative distribution at ``uniform_R``; [R] int64."""
    if temperature == 0:
        return logits_RV.argmax(-1)
    probs_RV = (logits_RV / temperature).softmax(-1)
    if top_p < 1:
        ranked_RV, order_RV = probs_RV.sort(descending=True)
        outside_RV = ranked_RV.cumsum(-1) - ranked_RV >= top_p
        probs_RV = probs_RV.scatter(1, order_RV, ranked_RV.masked_fill(outside_RV, 0))
    cumulative_RV = probs_RV.cumsum(-1)
    threshold_R1 = (uniform_R * cumulative_RV[:, -1]).to(cumulative_RV.dtype)[:, None]
    return torch.searchsorted(cumulative_RV, threshold_R1, right=True)[:, 0].clamp(max=logits_RV.shape[1] - 1)


def left_pad(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """[R, T] ids and [R, T] mask (1 for real tokens), padded on the left so that all rows end together."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[pad_id] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids.to(device), mask.to(device)


def last_logits(output: Any) -> Tensor:
    """[R, V] float32 logits of the token that follows each row."""
    logits: Tensor = output.logits[:, -1].float()
    return logits


def cache_keyword(model: PreTrainedModel) -> str:
    """transformers renamed ``past_key_values`` to ``cache`` during its version 5."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"

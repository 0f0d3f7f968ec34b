"""A decoding loop with a KV cache. The prompt is read once for all its samples, finished rows leave the batch, and
every row draws from its own random stream, so that a sample does not depend on its batch (except for rounding).

``model.generate`` was several times slower on two CPU cores for many samples of one prompt (docs/log.md).
Shape letters: R rows still decoding, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from maskdpo.backends.rows import TokenRows, readable_together

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COMPACT_BELOW = 0.75
"""Finished rows leave the cache once fewer than this share of its rows are still decoding."""


@dataclass
class Row:
    """One sample that is being generated."""

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
) -> None:
    """Sample token ids into ``row.ids`` of every row until it is finished or has ``max_tokens``.

    Args:
        prompts: token ids, each at least one.
        rows: the samples, sorted by ``row.prompt``; every prompt has the same number of them.
        temperature: 0 takes the most probable token.
        is_finished: whether a row is finished; called after each new token of the row.
    """
    for members in readable_together(model, prompts, max_tokens):
        own = [row for row in rows if row.prompt in members]
        longest = max(len(prompts[i]) for i in members) + max_tokens
        read = TokenRows(model, [prompts[i] for i in members], longest)
        _decode(read, own, len(own) // len(members), max_tokens, temperature, top_p, is_finished)


def _decode(
    read: TokenRows, rows: Sequence[Row], each: int, max_tokens: int, temperature: float, top_p: float,
    is_finished: Callable[[Row], bool],
) -> None:  # fmt: skip
    """``decode`` for prompts that are read together, with ``each`` samples per prompt."""
    logits_RV = read.next_logits()
    if each > 1:
        of_prompt_R = torch.arange(len(logits_RV), device=logits_RV.device).repeat_interleave(each)
        read.pick(of_prompt_R)
        logits_RV = logits_RV[of_prompt_R]
    live = list(rows)
    active = [True] * len(rows)
    while True:
        uniform_R = torch.tensor([row.random.random() for row in live], device=logits_RV.device, dtype=torch.float32)
        token_R = pick(logits_RV, uniform_R, temperature, top_p)
        for i, (row, token) in enumerate(zip(live, token_R.tolist(), strict=True)):
            if active[i]:
                row.ids.append(token)
                active[i] = len(row.ids) < max_tokens and not is_finished(row)
        going = [i for i, still in enumerate(active) if still]
        if not going:
            return
        if len(going) < COMPACT_BELOW * len(live):
            keep_R = torch.tensor(going, device=token_R.device)
            read.pick(keep_R)
            token_R = token_R[keep_R]
            live, active = [live[i] for i in going], [True] * len(going)
        read.append(token_R)
        logits_RV = read.next_logits()


def pick(logits_RV: Tensor, uniform_R: Tensor, temperature: float, top_p: float) -> Tensor:
    """[R] int64: one token per row, drawn by inverting the cumulative distribution at ``uniform_R`` (in [0, 1))."""
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


def end_ids(model: PreTrainedModel, tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """The tokens that end an answer: that of the tokenizer, and those in the generation config of the model."""
    named = getattr(model.generation_config, "eos_token_id", None)
    listed = named if isinstance(named, list | tuple) else [named]
    return {token for token in (tokenizer.eos_token_id, *listed) if token is not None}

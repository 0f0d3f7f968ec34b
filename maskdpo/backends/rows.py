"""Rows of tokens, and the cache that the model makes of the tokens that it has read.

Which rows may be in one batch depends on the model. Attention ignores masked padding; a recurrent layer may keep
padding in its state; some models count padding as positions; and rotary scalings that depend on length (longrope,
dynamic NTK) rotate all rows by the longest one. So rows of different lengths are padded only where padding has no
effect, which is tested with the cache of the model.

Shape letters: R rows, T tokens, V vocabulary.
"""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from maskdpo.models import rotary_settings

PROBE_TOKENS = 8
"""Tokens of padding that the test for its effect reads: more than the width of usual convolutions."""


class TokenRows:
    """Rows of tokens that grow by the tokens that are sampled after them.

    Where the cache of a model does not allow picking rows (RWKV, xLSTM, MiniMax, RecurrentGemma), all tokens are read
    again for every new token: slow, but correct.

    Args:
        longest: the most tokens that a row can reach.
    """

    def __init__(self, model: PreTrainedModel, rows: Sequence[Sequence[int]], longest: int) -> None:
        self._model = model
        self._ids_RT, self._mask_RT = left_pad(rows, model.device)
        self._padded = not bool(self._mask_RT.all())
        self._cache: DynamicCache | None = None
        self._caches = True
        self._read = 0
        self._switch = rotation_switch(model)
        self._rereads = self._switch is not None and _has_rope(model, "longrope")
        if rotates_by_longest(model, longest):
            reset_rotation(model, self._ids_RT)

    def next_logits(self) -> Tensor:
        """[R, V] float32 logits of the next token of each row."""
        tokens = self._ids_RT.shape[1]
        if self._rereads and self._switch is not None and self._read <= self._switch < tokens:
            # as Phi-3 in transformers does: the cached keys were rotated by the short factors
            self._read, self._cache = 0, None
        positions_RT = (self._mask_RT.cumsum(1) - 1).clamp(min=0)
        output = forward(
            self._model,
            self._ids_RT[:, self._read :],
            mask=self._mask_RT if self._padded else None,
            positions=positions_RT[:, self._read :],
            cache=self._cache,
            use_cache=self._caches,
        )
        if self._caches and self._cache is None:
            self._cache = model_cache(self._model, output)
            self._caches = self._cache is not None
        self._read = tokens if self._caches else 0
        logits_RV: Tensor = output.logits[:, -1].float()
        return logits_RV

    def pick(self, index_R: Tensor) -> None:
        """Continue with these rows only; a row may be repeated."""
        self._ids_RT, self._mask_RT = self._ids_RT[index_R], self._mask_RT[index_R]
        if self._cache is not None:
            self._cache.reorder_cache(index_R)

    def append(self, token_R: Tensor) -> None:
        self._ids_RT = torch.cat([self._ids_RT, token_R[:, None]], 1)
        self._mask_RT = torch.cat([self._mask_RT, self._mask_RT.new_ones(len(token_R), 1)], 1)


def forward(
    model: PreTrainedModel,
    ids_RT: Tensor,
    *,
    mask: Tensor | None = None,
    positions: Tensor | None = None,
    cache: Cache | None = None,
    use_cache: bool = False,
    keep_last: bool = True,
) -> Any:
    """The output of the model, called with those arguments that its forward method has."""
    names = inspect.signature(model.forward).parameters
    cache_name = "cache" if "cache" in names else "past_key_values"  # renamed during version 5 of transformers
    optional = {"attention_mask": mask, "position_ids": positions, cache_name: cache}
    given: dict[str, Any] = {name: value for name, value in optional.items() if name in names and value is not None}
    if keep_last and "logits_to_keep" in names:
        given["logits_to_keep"] = 1
    return model(input_ids=ids_RT, use_cache=use_cache, **given)


def model_cache(model: PreTrainedModel, output: Any) -> DynamicCache | None:
    """The cache that the model made, if rows can be picked from it and it holds the whole state of the model."""
    cache: Any = getattr(output, "cache", None) or getattr(output, "past_key_values", None)
    if type(cache) is not DynamicCache:  # another class may hold state that ``reorder_cache`` does not move
        return None
    elsewhere = getattr(model, "_is_stateful", False) and not any(recurrent_states(layer) for layer in cache.layers)
    return None if elsewhere else cache


def recurrent_states(layer: Any) -> list[Tensor]:
    """The tensors in a layer of a cache beside keys and values: recurrent and convolution states, indexers."""
    held = [value for name, value in vars(layer).items() if name not in ("keys", "values")]
    flat = [x for value in held for x in (value.values() if isinstance(value, dict) else [value])]
    return [x for x in flat if isinstance(x, Tensor) and x.ndim]


@torch.inference_mode()
def ignores_padding(model: PreTrainedModel) -> bool:
    """Whether masked padding at the beginning of a row has no effect.

    The model must take positions, and a row of only padding must leave all recurrent states at zero, their start.
    Attention masks keys and values itself.
    """
    if not {"position_ids", "attention_mask"} <= inspect.signature(model.forward).parameters.keys():
        return False
    if getattr(model.config.get_text_config(), "attention_chunk_size", None):
        return False  # chunks (Llama 4) and scales by position count the padding of a row
    ids_RT = torch.zeros(2, PROBE_TOKENS, dtype=torch.long, device=model.device)
    mask_RT = torch.tensor([[1], [0]], device=model.device).expand_as(ids_RT)
    output = forward(model, ids_RT, mask=mask_RT, positions=(mask_RT.cumsum(1) - 1).clamp(min=0), use_cache=True)
    cache = model_cache(model, output)
    return cache is not None and not any(
        bool(state[1].any()) for layer in cache.layers for state in recurrent_states(layer)
    )


def readable_together(model: PreTrainedModel, rows: Sequence[Sequence[int]], growth: int) -> Iterator[list[int]]:
    """Groups of indices of rows that may be read in one batch: all rows, or those of the same length.

    Args:
        growth: tokens by which a row may grow.
    """
    by_length: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        by_length.setdefault(len(row), []).append(i)
    if len(by_length) == 1 or (not rotates_by_longest(model, max(by_length) + growth) and ignores_padding(model)):
        yield list(range(len(rows)))
    else:
        yield from by_length.values()


def rotates_by_longest(model: PreTrainedModel, longest: int) -> bool:
    """Whether a row of ``longest`` tokens changes the rotary positions of the other rows."""
    switch = rotation_switch(model)
    return switch is not None and longest >= switch  # at exactly this length dynamic NTK is not reset


def reset_rotation(model: PreTrainedModel, ids_RT: Tensor) -> None:
    """Reset dynamic NTK, which keeps the scaling of the longest row so far until it reads a short one."""
    forward(model, ids_RT[:1, :1])


def rotation_switch(model: PreTrainedModel) -> int | None:
    """The length from which on a rotary scaling depends on the longest row; None where none does."""
    if not (_has_rope(model, "longrope") or _has_rope(model, "dynamic")):
        return None
    config = model.config.get_text_config()
    named = [rope.get("original_max_position_embeddings") for rope in rotary_settings(config)]
    candidates = [*named, getattr(config, "original_max_position_embeddings", None), config.max_position_embeddings]
    return min(int(tokens) for tokens in candidates if tokens)


def _has_rope(model: PreTrainedModel, kind: str) -> bool:
    return any(kind in str(rope.get("rope_type", "")) for rope in rotary_settings(model.config.get_text_config()))


def left_pad(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """[R, T] ids and [R, T] mask (1 for real tokens), padded on the left so that all rows end together.

    A row is padded with its own first token, which is in every vocabulary.
    """
    width = max(len(row) for row in rows)
    ids_RT = torch.tensor([[row[0]] * (width - len(row)) + list(row) for row in rows])
    mask_RT = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids_RT.to(device), mask_RT.to(device)

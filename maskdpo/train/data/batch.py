"""Batches: pairs as rows of token ids, and the positions that predict the tokens with weight.

Shape letters: R rows, L row length, N predicted tokens of all answers, A answers (pair i: chosen 2i, rejected 2i + 1).
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from maskdpo.schemas import SIDES
from maskdpo.train.data.encoded_pair import EncodedPair
from maskdpo.train.data.tokens import Ids
from maskdpo.train.ranks import Ranks

Layout = Literal["shared", "padded"]
"""``shared``: one row per pair, [prompt | chosen | rejected]. ``padded``: two rows per pair, [prompt | answer], for
models in which the answers of one row would influence each other (``decoder.may_share_prompts``). Both give the same
log-probs."""

PROMPT, CHOSEN, REJECTED, PAD = range(4)


@dataclass(frozen=True)
class Batch:
    """What one forward pass takes, and which of its positions predict which token."""

    input_ids_RL: Tensor
    position_ids_RL: Tensor
    segments_RL: Tensor
    """PROMPT, CHOSEN, REJECTED or PAD: which token may attend to which (``attention_mask``)."""
    row_N: Tensor
    column_N: Tensor
    """Place of the hidden state that predicts the token."""
    target_N: Tensor
    weight_N: Tensor
    answer_N: Tensor
    pair_weight_B: Tensor
    score_gap_B: Tensor
    layout: Layout

    @property
    def pairs(self) -> int:
        return len(self.pair_weight_B)

    def to(self, device: str) -> Self:
        moved = {
            field.name: value.to(device, non_blocking=device.startswith("cuda"))
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return type(self)(**moved, layout=self.layout)

    def attention_mask(self) -> Tensor:
        """``padded``: [R, L] 1 for real tokens. ``shared``: [R, 1, L, L] bool, True where a query attends to a key: a
        key that is not later, in the same segment or in the prompt. Padding attends to itself, so that no row is
        empty."""
        if self.layout == "padded":
            return (self.segments_RL != PAD).long()
        length = self.segments_RL.shape[1]
        causal_LL = torch.ones(length, length, dtype=torch.bool, device=self.segments_RL.device).tril()
        query, key = self.segments_RL[:, :, None], self.segments_RL[:, None, :]
        return (causal_LL & ((query == key) | (key == PROMPT)))[:, None]


def collate(pairs: Sequence[EncodedPair], layout: Layout, *, every_token: bool = False) -> Batch:
    """Lay out pairs as rows.

    Args:
        every_token: predict all tokens of the answers, not only those with weight (for the reference cache, and for the
            figures of masked tokens).
    """
    rows = [row for pair in pairs for row in _rows(pair, layout)]
    length = max(len(row[0]) for row in rows)
    input_ids, positions, segments = zip(*rows, strict=True)
    places = [_places(i, pair, layout, every_token) for i, pair in enumerate(pairs)]
    row_N, column_N, target_N, weight_N, answer_N = (np.concatenate(part) for part in zip(*places, strict=True))
    return Batch(
        input_ids_RL=_pad(input_ids, length, 0),
        position_ids_RL=_pad(positions, length, 0),
        segments_RL=_pad(segments, length, PAD),
        row_N=torch.from_numpy(row_N),
        column_N=torch.from_numpy(column_N),
        target_N=torch.from_numpy(target_N),
        weight_N=torch.from_numpy(weight_N.astype(np.float32)),
        answer_N=torch.from_numpy(answer_N),
        pair_weight_B=torch.tensor([pair.weight for pair in pairs], dtype=torch.float32),
        score_gap_B=torch.tensor([pair.score_gap for pair in pairs], dtype=torch.float32),
        layout=layout,
    )


def _rows(pair: EncodedPair, layout: Layout) -> list[tuple[Ids, ...]]:
    """(token ids, positions, segments) of the rows of a pair, each [row length]. Both answers start at the position
    behind the prompt."""
    prompt, chosen, rejected = (
        (ids, np.arange(start, start + len(ids)), np.full(len(ids), segment))
        for ids, start, segment in (
            (pair.prompt_ids, 0, PROMPT),
            (pair.chosen.ids, len(pair.prompt_ids), CHOSEN),
            (pair.rejected.ids, len(pair.prompt_ids), REJECTED),
        )
    )
    rows = [(prompt, chosen, rejected)] if layout == "shared" else [(prompt, chosen), (prompt, rejected)]
    return [tuple(np.concatenate(parts) for parts in zip(*row, strict=True)) for row in rows]


def _places(i: int, pair: EncodedPair, layout: Layout, every_token: bool) -> tuple[Ids, ...]:
    """(row, column, target, weight, answer) of the predicted tokens of pair number ``i``.

    The first token of either answer is predicted at the end of the prompt, every other one at the token before it.
    """
    parts = []
    prompt = len(pair.prompt_ids)
    for k, side in enumerate(SIDES):
        answer = pair.side(side)
        picked = np.arange(len(answer.ids)) if every_token else np.flatnonzero(answer.weights)
        begin = prompt + (len(pair.chosen.ids) if layout == "shared" and side == "rejected" else 0)
        column = np.where(picked == 0, prompt - 1, begin + picked - 1)
        row = np.full(len(picked), i if layout == "shared" else 2 * i + k)
        parts.append((row, column, answer.ids[picked], answer.weights[picked], np.full(len(picked), 2 * i + k)))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _pad(rows: Sequence[Ids], length: int, value: int) -> Tensor:
    padded = np.full((len(rows), length), value, dtype=np.int64)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return torch.from_numpy(padded)


def pass_tokens(pairs: Sequence[EncodedPair], layout: Layout) -> int:
    """Tokens of one forward pass over the pairs, padding counted: its rows times the longest."""
    return padded_tokens(len(pairs), max(_row_length(pair, layout) for pair in pairs), layout)


def padded_tokens(pairs: int, longest: int, layout: Layout) -> int:
    """Tokens of so many pairs in rows that are all as long as the longest."""
    return (1 if layout == "shared" else 2) * pairs * longest


def _row_length(pair: EncodedPair, layout: Layout) -> int:
    return pair.tokens if layout == "shared" else pair.longest


def micro_batches(pairs: Sequence[EncodedPair], tokens_per_batch: int, layout: Layout) -> list[list[EncodedPair]]:
    """Group pairs of similar length so that rows x longest row stays within the budget; a longer pair is alone."""
    ordered = sorted(pairs, key=lambda pair: (-_row_length(pair, layout), pair.id))
    sizes = group_sizes([_row_length(pair, layout) for pair in ordered], tokens_per_batch, layout)
    rest = iter(ordered)
    return [list(islice(rest, size)) for size in sizes]


def group_sizes(longest_first: Sequence[int], tokens_per_batch: int, layout: Layout) -> list[int]:
    """How many pairs each group of ``micro_batches`` has, from the lengths of their rows.

    The groups are as few as the budget allows, because every pass casts all weights and adds up all gradients, and of
    about the same size, because the largest one decides how much memory is needed.
    """
    few = len(_packed(longest_first, tokens_per_batch, layout))
    budgets = range(1, tokens_per_batch + 1)
    smallest = bisect_left(budgets, True, key=lambda budget: len(_packed(longest_first, budget, layout)) <= few)
    return _packed(longest_first, budgets[smallest] if smallest < len(budgets) else tokens_per_batch, layout)


def _packed(longest_first: Sequence[int], tokens: int, layout: Layout) -> list[int]:
    sizes: list[int] = []
    longest = 0
    for length in longest_first:
        if sizes and padded_tokens(sizes[-1] + 1, longest, layout) <= tokens:
            sizes[-1] += 1
        else:
            sizes.append(1)
            longest = length
    return sizes


def parts(pairs: Sequence[EncodedPair], size: int) -> list[list[EncodedPair]]:
    """One part per rank, of about as many tokens: the longest remaining pair goes to the rank with the fewest
    tokens."""
    found: list[list[EncodedPair]] = [[] for _ in range(size)]
    tokens = [0] * size
    for pair in sorted(pairs, key=lambda pair: (-pair.tokens, pair.id)):
        rank = tokens.index(min(tokens))
        found[rank].append(pair)
        tokens[rank] += pair.tokens
    return found


def passes(
    pairs: Sequence[EncodedPair], tokens_per_batch: int, layout: Layout, ranks: Ranks
) -> list[tuple[list[EncodedPair], bool]]:
    """The forward passes of this rank over its part of the pairs, and whether each counts.

    All ranks make the same number of passes, because every pass gathers the weights from all of them. A rank with fewer
    pairs repeats the shortest pair, and the repeated pass does not count.
    """
    groups = [micro_batches(part, tokens_per_batch, layout) for part in parts(pairs, ranks.size)]
    own = groups[ranks.rank]
    idle = max(len(group) for group in groups) - len(own)
    filler = [min(pairs, key=lambda pair: (pair.tokens, pair.id))]
    return [(group, True) for group in own] + [(filler, False)] * idle

"""Constrained choices in transformers: the probability of each offered text at each slot, and a pick from them.

Where the offered texts differ in the next token, the probabilities of the possible tokens are renormalised; the product
over these positions is the probability of a text. Constrained decoding samples from the same distribution. Requests
with the same beginning (all sentences of one answer) read it once.
"""

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from maskdpo.backends.rows import forward, model_cache, recurrent_states, reset_rotation, rotates_by_longest

TOKENS_PER_PASS = 8192
"""Rows times their length, with the cached prefix: prompts of judges may hold whole references."""
WORTH_SHARING = 64
"""The least number of tokens that two prompts must begin with in common to share a cache."""


@dataclass(frozen=True)
class Slot:
    """A slot for a choice: the token ids before it, and those of the choices, none of which begins another one."""

    lead: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]


@dataclass
class PartialReply:
    """One reply to one prompt that is being generated."""

    prompt: int
    """Index of its prompt."""
    slots: Sequence[Slot]
    random: np.random.Generator | None = None
    """None takes the most probable choice."""
    temperature: float = 1.0
    ids: tuple[int, ...] = ()
    """Token ids so far."""
    picks: list[tuple[int, Sequence[float]]] = field(default_factory=list)
    """Per slot so far the index of its choice, and the probabilities of all its choices."""


@torch.inference_mode()
def fill_slots(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], replies: Sequence[PartialReply], batch_size: int
) -> None:
    """Pick a choice for every slot of every reply, in place."""
    of_prompt: dict[int, list[PartialReply]] = defaultdict(list)
    for reply in replies:
        of_prompt[reply.prompt].append(reply)
    for members, shared in _groups(model, prompts, of_prompt, batch_size):
        reader = CachedPrefix(model, list(prompts[members[0]][:shared]), batch_size)
        mine = [reply for i in members for reply in of_prompt[i]]
        for depth in range(max(len(reply.slots) for reply in mine)):
            going = [reply for reply in mine if depth < len(reply.slots)]
            rests = [(*prompts[reply.prompt][shared:], *reply.ids, *reply.slots[depth].lead) for reply in going]
            offered = [reply.slots[depth].choices for reply in going]
            for reply, shares in zip(going, _shares(reader, rests, offered), strict=True):
                _pick(reply, shares, depth)


def _pick(reply: PartialReply, shares: Sequence[float], depth: int) -> None:
    slot = reply.slots[depth]
    if reply.random is None:
        best = max(range(len(shares)), key=shares.__getitem__)
    else:
        weights = np.power(np.maximum(shares, 1e-12), 1 / reply.temperature)
        best = int(reply.random.choice(len(shares), p=weights / weights.sum()))
    reply.picks.append((best, shares))
    reply.ids = (*reply.ids, *slot.lead, *slot.choices[best])


def _groups(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], of_prompt: Mapping[int, Sequence[PartialReply]], most: int
) -> Iterator[tuple[list[int], int]]:
    """Groups of prompts that are read together, and the length of the prefix that is read once per group.

    A prompt with several slots is read once for all of them; neighbouring prompts share a long common prefix. The other
    prompts, and all prompts of a model that cannot continue from a cache, are grouped by length.
    """
    alone = list(of_prompt)
    longest = max(_reach(prompts[i], mine) for i, mine in of_prompt.items())
    if not rotates_by_longest(model, longest) and continues_from_cache(model):
        long = [i for i, mine in of_prompt.items() if len(mine[0].slots) > 1]
        yield from (([i], len(prompts[i]) - 1) for i in long)
        alone = []
        for group in _alike(prompts, [i for i in of_prompt if i not in long], most):
            if len(group) > 1:
                yield group, min(_common_length(prompts[group[0]], prompts[i]) for i in group)
            else:
                alone += group
    alone.sort(key=lambda i: len(prompts[i]))
    for start in range(0, len(alone), most):
        yield alone[start : start + most], 0


def _alike(prompts: Sequence[Sequence[int]], wanted: Sequence[int], most: int) -> Iterator[list[int]]:
    group: list[int] = []
    for i in wanted:
        common = _common_length(prompts[group[0]], prompts[i]) if group else 0
        if group and (len(group) == most or common < WORTH_SHARING or 2 * common < len(prompts[i])):
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _reach(prompt: Sequence[int], replies: Sequence[PartialReply]) -> int:
    """The most tokens that the prompt and one of its replies can have together."""
    return len(prompt) + max(
        sum(len(slot.lead) + max(map(len, slot.choices)) for slot in reply.slots) for reply in replies
    )


def _common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """Number of tokens that both begin with, leaving at least one token of each for the model to read."""
    most = min(len(a), len(b)) - 1
    return next((i for i in range(most) if a[i] != b[i]), max(most, 0))


class CachedPrefix:
    """The model with a cached prefix, which is read once."""

    def __init__(self, model: PreTrainedModel, prefix: list[int], batch_size: int) -> None:
        self._model = model
        self._length = len(prefix)
        self._rows = batch_size
        self._cache: DynamicCache | None = None
        if prefix:
            ids = torch.tensor([prefix], device=model.device)
            self._cache = model_cache(model, forward(model, ids, use_cache=True))

    def next_logits(self, rests: Sequence[Sequence[int]]) -> list[Tensor]:
        """Per continuation the [V] float32 logits of the next token."""
        longest = max(len(rest) for rest in rests)
        rows = max(1, min(self._rows, TOKENS_PER_PASS // (self._length + longest)))
        order = sorted(range(len(rests)), key=lambda i: len(rests[i]))
        found: dict[int, Tensor] = {}
        while order:
            first = rests[order[0]]
            some = [
                i
                for i in order[:rows]
                if len(rests[i]) == len(first) or not rotates_by_longest(self._model, len(rests[i]))
            ]
            order = order[len(some) :]
            found |= zip(some, self._pass([rests[i] for i in some]), strict=True)
        return [found[i] for i in range(len(rests))]

    def _pass(self, rests: Sequence[Sequence[int]]) -> Tensor:
        """[R, V]. Rows are padded on the right, which causal layers of every kind ignore; the cache is discarded."""
        model, width = self._model, max(len(rest) for rest in rests)
        last_R = torch.tensor([len(rest) - 1 for rest in rests], device=model.device)
        ids_RT = torch.tensor([[*rest, *[rest[-1]] * (width - len(rest))] for rest in rests], device=model.device)
        positions_RT = torch.arange(self._length, self._length + width, device=model.device).expand_as(ids_RT)
        cache = self._copy(len(rests))
        if rotates_by_longest(model, self._length + width):
            reset_rotation(model, ids_RT)
        row_R = torch.arange(len(rests), device=model.device)
        with head_reads(model, row_R, last_R):
            output = forward(
                model, ids_RT, positions=positions_RT, cache=cache, use_cache=cache is not None, keep_last=False
            )
        logits: Tensor = output.logits
        return (logits[:, 0] if logits.shape[1] == 1 else logits[row_R, last_R]).float()

    def _copy(self, rows: int) -> DynamicCache | None:
        """The cache of the prefix for ``rows`` rows. It is copied, because a forward pass appends to its cache."""
        cache = copy.deepcopy(self._cache)
        if cache is not None:
            cache.reorder_cache(torch.zeros(rows, dtype=torch.long, device=self._model.device))
        return cache


@contextmanager
def head_reads(model: PreTrainedModel, row_R: Tensor, last_R: Tensor) -> Iterator[None]:
    """Pass one token of each row to the output layer: the logits of all would take far more memory than the model."""
    head = model.get_output_embeddings()
    if head is None:
        yield
        return
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][row_R, last_R][:, None], *inputs[1:]))
    try:
        yield
    finally:
        hook.remove()


@torch.inference_mode()
def continues_from_cache(model: PreTrainedModel) -> bool:
    """Whether the model can read several tokens after a cached prefix. Attention can; recurrent layers of some models
    (Mamba, Jamba) would silently start again there."""
    one = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    cache = model_cache(model, forward(model, one, use_cache=True))
    return cache is not None and not any(recurrent_states(layer) for layer in cache.layers)


_Node = tuple[int, tuple[int, ...], list[int]]
"""A row, a prefix of token ids, and the choices of that row that begin with it."""


def _shares(
    reader: CachedPrefix, rests: Sequence[tuple[int, ...]], offered: Sequence[Sequence[tuple[int, ...]]]
) -> list[list[float]]:
    """Per row the probabilities of its choices, which sum to 1. Equal rows are read once."""
    keys = [(rest, tuple(choices)) for rest, choices in zip(rests, offered, strict=True)]
    unique = list(dict.fromkeys(keys))
    shares = [[1.0] * len(choices) for _, choices in unique]
    nodes: list[_Node] = [(i, (), list(range(len(choices)))) for i, (_, choices) in enumerate(unique)]
    while branches := [branch for node in nodes if (branch := _next_branch(node, unique[node[0]][1]))]:
        nodes = []
        logits = reader.next_logits([(*unique[i][0], *prefix) for i, prefix, _ in branches])
        for (i, prefix, members), logits_V in zip(branches, logits, strict=True):
            choices = unique[i][1]
            tokens = sorted({choices[m][len(prefix)] for m in members})
            for token, share in zip(tokens, logits_V[tokens].softmax(0).tolist(), strict=True):
                followers = [m for m in members if choices[m][len(prefix)] == token]
                for m in followers:
                    shares[i][m] *= share
                nodes.append((i, (*prefix, token), followers))
    found = dict(zip(unique, shares, strict=True))
    return [found[key] for key in keys]


def _next_branch(node: _Node, choices: Sequence[tuple[int, ...]]) -> _Node | None:
    """Follow the only possible token until the choices differ; None where a single choice is left."""
    i, prefix, members = node
    while len(members) > 1:
        tokens = {choices[m][len(prefix)] for m in members}
        if len(tokens) > 1:
            return i, prefix, members
        prefix = (*prefix, *tokens)
    return None

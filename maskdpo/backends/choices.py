"""Constrained choices in transformers: the probability of each offered text at each slot, and a pick by it.

At every point where the offered texts part, the model's probabilities of the next tokens that some of them allows,
renormalised; the product along the way is the probability of a text. That is what constrained decoding samples from.
Requests that begin alike (all sentences of one answer) read their common beginning once.
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

from maskdpo.backends.rows import forget_longest, forward, own_cache, states, turns_by_longest

TOKENS_PER_PASS = 8192
"""Rows times their length, the cached beginning included: judge prompts carry whole references."""
WORTH_SHARING = 64
"""Tokens that two prompts must have in common before they share a cache."""


@dataclass(frozen=True)
class Slot:
    """A place for a choice: token ids that come before it, and the choices', none the beginning of another."""

    lead: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]


@dataclass
class Path:
    """One reply in the making to one prompt."""

    prompt: int
    """Index of its prompt."""
    slots: Sequence[Slot]
    random: np.random.Generator | None = None
    """None takes the most probable choice."""
    temperature: float = 1.0
    ids: tuple[int, ...] = ()
    """What is said so far."""
    picks: list[tuple[int, float]] = field(default_factory=list)
    """For every slot so far the index of its choice and its probability."""


@torch.inference_mode()
def fill_slots(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], paths: Sequence[Path], batch_size: int
) -> None:
    """Pick a choice at every slot of every path, in place."""
    of_prompt: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        of_prompt[path.prompt].append(path)
    for members, shared in _groups(model, prompts, of_prompt, batch_size):
        reader = _Reader(model, list(prompts[members[0]][:shared]), batch_size)
        mine = [path for i in members for path in of_prompt[i]]
        for depth in range(max(len(path.slots) for path in mine)):
            going = [path for path in mine if depth < len(path.slots)]
            rests = [(*prompts[path.prompt][shared:], *path.ids, *path.slots[depth].lead) for path in going]
            offered = [path.slots[depth].choices for path in going]
            for path, shares in zip(going, _shares(reader, rests, offered), strict=True):
                _pick(path, shares, depth)


def _pick(path: Path, shares: Sequence[float], depth: int) -> None:
    slot = path.slots[depth]
    if path.random is None:
        best = max(range(len(shares)), key=shares.__getitem__)
    else:
        weights = np.power(np.maximum(shares, 1e-12), 1 / path.temperature)
        best = int(path.random.choice(len(shares), p=weights / weights.sum()))
    path.picks.append((best, shares[best]))
    path.ids = (*path.ids, *slot.lead, *slot.choices[best])


def _groups(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], of_prompt: Mapping[int, Sequence[Path]], most: int
) -> Iterator[tuple[list[int], int]]:
    """Prompts that are worked on together, and the length of the beginning that is read once for all of them.

    A prompt with several slots is read once for these; neighbours share a beginning that is worth it. What is left, and
    all prompts where the model cannot go on from a cache, goes together by length.
    """
    alone = list(of_prompt)
    longest = max(_reach(prompts[i], mine) for i, mine in of_prompt.items())
    if not turns_by_longest(model, longest) and goes_on_from_cache(model):
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


def _reach(prompt: Sequence[int], paths: Sequence[Path]) -> int:
    """The most tokens that the prompt and what is said of its paths can come to."""
    return len(prompt) + max(sum(len(slot.lead) + max(map(len, slot.choices)) for slot in path.slots) for path in paths)


def _common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """Tokens that both begin with; at least one of each is left over, for the model to read."""
    most = min(len(a), len(b)) - 1
    return next((i for i in range(most) if a[i] != b[i]), max(most, 0))


class _Reader:
    """The model behind a beginning that is read once."""

    def __init__(self, model: PreTrainedModel, beginning: list[int], batch_size: int) -> None:
        self._model = model
        self._length = len(beginning)
        self._rows = batch_size
        self._cache: DynamicCache | None = None
        if beginning:
            ids = torch.tensor([beginning], device=model.device)
            self._cache = own_cache(model, forward(model, ids, use_cache=True))

    def next_logits(self, rests: Sequence[Sequence[int]]) -> list[Tensor]:
        """For every continuation the [V] float32 logits of the token behind it."""
        longest = max(len(rest) for rest in rests)
        rows = max(1, min(self._rows, TOKENS_PER_PASS // (self._length + longest)))
        order = sorted(range(len(rests)), key=lambda i: len(rests[i]))
        found: dict[int, Tensor] = {}
        while order:
            first = rests[order[0]]
            some = [
                i
                for i in order[:rows]
                if len(rests[i]) == len(first) or not turns_by_longest(self._model, len(rests[i]))
            ]
            order = order[len(some) :]
            found |= zip(some, self._pass([rests[i] for i in some]), strict=True)
        return [found[i] for i in range(len(rests))]

    def _pass(self, rests: Sequence[Sequence[int]]) -> Tensor:
        """[R, V]. Rows are padded on their right, where no token of theirs sees it: whatever the layers are, causal
        ones read no padding, and the cache is thrown away."""
        model, width = self._model, max(len(rest) for rest in rests)
        last_R = torch.tensor([len(rest) - 1 for rest in rests], device=model.device)
        ids_RT = torch.tensor([[*rest, *[rest[-1]] * (width - len(rest))] for rest in rests], device=model.device)
        positions_RT = torch.arange(self._length, self._length + width, device=model.device).expand_as(ids_RT)
        cache = self._copy(len(rests))
        if turns_by_longest(model, self._length + width):
            forget_longest(model, ids_RT)
        row_R = torch.arange(len(rests), device=model.device)
        with _head_reads(model, row_R, last_R):
            output = forward(
                model, ids_RT, positions=positions_RT, cache=cache, use_cache=cache is not None, keep_last=False
            )
        logits: Tensor = output.logits
        return (logits[:, 0] if logits.shape[1] == 1 else logits[row_R, last_R]).float()

    def _copy(self, rows: int) -> DynamicCache | None:
        """Reading appends to a cache, and every pass needs the bare beginning."""
        cache = copy.deepcopy(self._cache)
        if cache is not None:
            cache.reorder_cache(torch.zeros(rows, dtype=torch.long, device=self._model.device))
        return cache


@contextmanager
def _head_reads(model: PreTrainedModel, row_R: Tensor, last_R: Tensor) -> Iterator[None]:
    """The model's head sees one token of each row: logits of all would take far more memory than the model."""
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
def goes_on_from_cache(model: PreTrainedModel) -> bool:
    """Whether a text of several tokens can be read behind a cached beginning. Plain attention can; recurrent layers of
    some models (Mamba, Jamba) would begin anew there, without a word."""
    one = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    cache = own_cache(model, forward(model, one, use_cache=True))
    return cache is not None and not any(states(layer) for layer in cache.layers)


_Node = tuple[int, tuple[int, ...], list[int]]
"""A row, a prefix of token ids, and the choices of that row that begin with it."""


def _shares(
    reader: _Reader, rests: Sequence[tuple[int, ...]], offered: Sequence[Sequence[tuple[int, ...]]]
) -> list[list[float]]:
    """For every row the probabilities of its choices behind it; they sum to 1. Equal rows are read once."""
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
    """Follow the only possible token until the choices part; None where a single one is left."""
    i, prefix, members = node
    while len(members) > 1:
        tokens = {choices[m][len(prefix)] for m in members}
        if len(tokens) > 1:
            return i, prefix, members
        prefix = (*prefix, *tokens)
    return None

"""Checks with real pairs before the first step, because no architecture can be taken for granted: which layout gives
the log-probs of the model's ordinary forward pass, and whether they depend on the seed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from maskdpo.errors import UserError
from maskdpo.train.data.batch import Layout, collate
from maskdpo.train.data.encoded_pair import EncodedPair
from maskdpo.train.data.measures import longest
from maskdpo.train.data.processes import cores
from maskdpo.train.model.decoder import in_float32, may_share_prompts, text_config, window_of
from maskdpo.train.model.logps import chunks, token_logps
from maskdpo.train.ranks import Ranks

TOLERANCE = 2e-3
"""Largest difference of a token's log-prob, in nats, between two ways to compute it in float32."""

ROUNDED = {torch.bfloat16: 0.25, torch.float16: 0.05}
"""Largest mean difference over the tokens between weights of these types and the same weights in float32."""

SMALLEST_NOISE = 1e-5
"""Nats: smaller differences between two passes are rounding of the device, even where two other passes were equal."""

SEEDS = (1, 2, 3)
"""Seeds of the passes that must agree."""

LONGEST_PASSES = 12
"""How often the longest pair is computed by all that is tried before the first step, for the forecast of ``--dry-run``:
4 times for the layout, 4 under seeds, and 4 for an attention of maskdpo's own."""


def choose_layout(model: PreTrainedModel, pairs: Sequence[EncodedPair]) -> Layout:
    """The layout that is exact for this model.

    The types of the layers decide which layouts are tried. For each, the log-probs of the longest pair, of the
    shortest, of one that is longer than the window, and of two pairs in one pass are compared with the model's ordinary
    forward pass, one answer at a time. Weights of 16 bits are compared in float32, because their rounding would hide a
    wrong layout; then one pass in their own type must give about the same.

    Raises:
        UserError: no layout reproduces the model's own forward pass, or the model's attention is not what its eager
            implementation computes.
    """
    groups = _groups(pairs, window_of(text_config(model)))
    with in_float32(model):
        layout, expected = _exact_layout(model, groups)
    if model.dtype in ROUNDED and (failure := _failure(model, groups[:1], layout, expected, ROUNDED[model.dtype])):
        raise UserError(f"{model.config.model_type}: with weights in {model.dtype} {failure}; take `dtype` float32")
    return layout


def sharing_failure(model: PreTrainedModel, pairs: Sequence[EncodedPair]) -> str:
    """What is wrong with the ``shared`` layout with an attention made for it, as a sentence; empty where its log-probs
    are right: in float32, as in ``choose_layout``, which has tried the model with PyTorch's attention before."""
    groups = _groups(pairs, None)
    with in_float32(model):
        expected = {id(group[0]): _plain_logps(model, group[0]) for group in groups if len(group) == 1}
        return _failure(model, groups, "shared", expected)


@contextmanager
def on_all_cores(ranks: Ranks) -> Iterator[None]:
    """Let rank 0 compute with all cores of its machine: the other ranks wait for what it finds."""
    own = torch.get_num_threads()
    if ranks.size > 1 and ranks.first:
        torch.set_num_threads(max(own, cores()))
    try:
        yield
    finally:
        torch.set_num_threads(own)


def _exact_layout(model: PreTrainedModel, groups: Sequence[Sequence[EncodedPair]]) -> tuple[Layout, dict[int, Tensor]]:
    """The layout, and the expected log-probs by Python's ``id`` of the pair: a held-out pair may have the ``pair.id``
    of another pair."""
    alone = [group[0] for group in groups if len(group) == 1]
    expected = {id(pair): _plain_logps(model, pair) for pair in alone}
    _check_causal(model, alone[0])
    _check_attention(model, alone[0], expected[id(alone[0])])
    layouts: tuple[Layout, ...] = ("shared", "padded") if may_share_prompts(model) else ("padded",)
    failure = ""
    for layout in layouts:
        failure = _failure(model, groups, layout, expected)
        if not failure:
            return layout, expected
    raise UserError(f"{model.config.model_type}: {failure}; maskdpo cannot train this architecture exactly")


def _groups(pairs: Sequence[EncodedPair], window: int | None) -> list[list[EncodedPair]]:
    """The pairs of each pass that is compared; the first pass has the shortest pair alone."""
    longest_N = longest(pairs)
    first, last = int(longest_N.argmin()), int(longest_N.argmax())
    crossing = np.flatnonzero(longest_N > window).tolist() if window is not None else []
    crossing = [min(crossing, key=lambda i: longest_N[i])] if crossing else []
    found = {i: pairs[i] for i in (first, *crossing, last)}
    return [*([pair] for pair in found.values()), [found[last], found[first]]]


def _failure(
    model: PreTrainedModel,
    groups: Sequence[Sequence[EncodedPair]],
    layout: Layout,
    expected: dict[int, Tensor],
    rounded: float = 0,
) -> str:
    """What is wrong with the log-probs of a layout, as a sentence; empty where they are right.

    Args:
        rounded: the largest mean difference; 0: the difference of every token must be within ``TOLERANCE``.
    """
    for group in groups:
        batch = collate(group, layout, every_token=True).to(str(model.device))
        try:
            with torch.no_grad():
                found_N = token_logps(model, batch)
        except torch.OutOfMemoryError:
            raise
        except (ValueError, TypeError, RuntimeError, IndexError, AttributeError, NotImplementedError) as error:
            return f"its decoder fails on these pairs ({' '.join(str(error).split())[:200]})"
        apart_N = (found_N - torch.cat([expected[id(pair)] for pair in group])).abs()
        difference = (apart_N.mean() if rounded else apart_N.max()).item()
        if not difference <= (rounded or TOLERANCE):
            return f"its log-probs differ by {difference:.3g} from those of its own forward pass"
    return ""


@torch.no_grad()
def _check_causal(model: PreTrainedModel, pair: EncodedPair) -> None:
    """The prediction of a token must not depend on the tokens behind it, as it does in BERT."""
    ids = torch.tensor([[*pair.prompt_ids, *pair.chosen.ids]], device=model.device)
    whole, without_last = (model(input_ids=some, use_cache=False).logits[0].float() for some in (ids, ids[:, :-1]))
    if not (whole[:-1] - without_last).abs().max() <= TOLERANCE:
        raise UserError(
            f"{model.config.model_type}: not a causal language model: its tokens attend to those behind them"
        )


def _check_attention(model: PreTrainedModel, pair: EncodedPair, expected_N: Tensor) -> None:
    """Eager attention is the definition of an architecture (soft caps and sinks included); a faster one must agree."""
    if text_config(model)._attn_implementation == "eager" or not model._can_set_attn_implementation():
        return
    with attention(model, "eager"):
        eager_N = _plain_logps(model, pair)
    difference = (eager_N - expected_N).abs().max().item()
    if not difference <= TOLERANCE:
        raise UserError(
            f"{model.config.model_type}: log-probs with PyTorch's attention differ by {difference:.3g} from those with "
            "eager attention, by which transformers defines this architecture"
        )


@contextmanager
def attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    """Run the model with another implementation of attention."""
    own = text_config(model)._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(own)


@torch.no_grad()
def _plain_logps(model: PreTrainedModel, pair: EncodedPair) -> Tensor:
    """[N] log-probs of all answer tokens by the model's ordinary forward pass, one answer at a time, without
    padding."""
    parts = []
    for answer in (pair.chosen, pair.rejected):
        ids = torch.tensor([[*pair.prompt_ids, *answer.ids]], device=model.device)
        logits_TV = model(input_ids=ids, use_cache=False).logits[0, len(pair.prompt_ids) - 1 : -1]
        targets_T = ids[0, len(pair.prompt_ids) :, None]
        for some in chunks(*logits_TV.shape):
            some_TV = logits_TV[some]
            exact_TV = some_TV if some_TV.dtype == torch.float64 else some_TV.float()
            parts.append(exact_TV.log_softmax(1).gather(1, targets_T[some])[:, 0])
    return torch.cat(parts)


def check_nothing_is_random(model: PreTrainedModel, pairs: Sequence[EncodedPair], layout: Layout) -> None:
    """Passes under different seeds must give the same log-probs, or policy and reference would not be one function.

    The shortest and the longest pair are computed, each alone. On some devices even passes under one seed differ,
    because sums are added in another order each time; such differences, and those of the type of the weights, are
    allowed.

    Raises:
        UserError: they differ; the message names the first module whose result depends on the seed.
    """
    longest_N = longest(pairs)
    ends = dict.fromkeys((int(longest_N.argmin()), int(longest_N.argmax())))
    batches = [collate([pairs[i]], layout, every_token=True).to(str(model.device)) for i in ends]

    def under(seed: int) -> Tensor:
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            return torch.cat([token_logps(model, batch) for batch in batches])

    first_N = under(SEEDS[0])
    rounding = (under(SEEDS[0]) - first_N).abs().max().item()
    difference = max((under(seed) - first_N).abs().max().item() for seed in SEEDS[1:])
    if difference > max(10 * rounding, SMALLEST_NOISE, 4 * torch.finfo(model.dtype).eps):
        raise UserError(
            f"{model.config.model_type}: its log-probs change by {difference:.3g} from one seed to another "
            f"({_first_random_part(model, under)}), so policy and reference would differ before the first step"
        )


def _first_random_part(model: PreTrainedModel, under: Callable[[int], Tensor]) -> str:
    """The first module whose result depends on the seed."""
    results: list[tuple[str, float]] = []

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, result: Any) -> None:
            first = result[0] if isinstance(result, tuple) else result
            if isinstance(first, Tensor):
                results.append((f"{name}, {type(module).__name__}", first.detach().float().sum().item()))

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in model.named_modules()]
    try:
        runs = []
        for seed in SEEDS[:2]:
            results.clear()
            under(seed)
            runs.append(list(results))
    finally:
        for hook in hooks:
            hook.remove()
    return next((name for (name, a), (_, b) in zip(*runs, strict=False) if a != b), "in no single module")

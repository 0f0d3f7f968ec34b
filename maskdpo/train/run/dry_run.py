"""``maskdpo train --dry-run``: what a run would do, take and need. Nothing is written."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from maskdpo.console import say
from maskdpo.devices import pick_device
from maskdpo.io import read_records
from maskdpo.models import load_tokenizer, meta_model
from maskdpo.schemas import Pair
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.batch import Layout, group_sizes, padded_tokens
from maskdpo.train.data.encoded_pair import Drop, EncodedPair
from maskdpo.train.data.measures import kept, lengths, longest, predicted
from maskdpo.train.data.read import read_pairs
from maskdpo.train.data.store import StoredPairs
from maskdpo.train.loss_registry import LOSSES
from maskdpo.train.model.adapter import add_adapter, weight_type
from maskdpo.train.model.decoder import freeze_the_rest, may_share_prompts
from maskdpo.train.model.flops import ModelShape, flops_of, model_shape, step_flops
from maskdpo.train.model.load import Policy, check_fit, load_policy
from maskdpo.train.model.memory import free_bytes, memory_parts, sizes_of
from maskdpo.train.run.figures import kept_tokens
from maskdpo.train.run.forecast import Forecast, forecast, has_weights
from maskdpo.train.run.loop import batch_indices, total_steps, warn_of_few_steps
from maskdpo.train.run.reference import check_vocabulary, compute_reference
from maskdpo.train.step import Trainer
from maskdpo.verdicts.mix import Mix, MixCounts

MIXED = 10_000
"""The mix is that of so many pairs at most, because all of a large file take minutes to read."""


@dataclass(frozen=True)
class Plan:
    """What a run would be."""

    pairs: int
    dropped: Counter[Drop]
    kept: dict[str, Any]
    """``kept_tokens_chosen`` ... (``figures.kept_tokens``)."""
    mix: Mix
    """Of the pairs that train; what the masks leave out is a share of tokens."""
    mix_of_first: int | None
    """The mix is that of the first so many pairs of the file; None: of all."""
    tokens: int
    """Tokens of all pairs, each prompt once."""
    steps: int
    passes: int
    """Forward passes of all steps."""
    largest_pass: int
    """Tokens of the largest forward pass, padding counted."""
    parameters: int
    trained: int
    memory: dict[str, float]
    """GB of each device by part."""
    reference_memory: dict[str, float] | None
    """GB of each device by part before that, for the log-probs of a reference that is another model; None without."""
    forecast: Forecast
    """The same for other settings, and what it takes to start."""
    seconds: dict[str, float] | None
    """By part; None: not measured, because there is too little memory."""


def plan_run(pairs_file: Path, config: TrainConfig, *, device: str | None = None, ranks: int = 1) -> Plan:
    """Read the pairs, size the model, and time one forward and backward pass of it where it fits.

    The weights of a model need not be there. With many ranks no pass is timed.

    Raises:
        UserError: bad input, no pair to train on, a model that does not load. A run also refuses what
            ``checks`` finds.
    """
    device = pick_device(device)
    tokenizer = load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
    check_vocabulary(config, tokenizer)
    pairs = read_pairs(
        pairs_file, config, tokenizer, limit=config.limit, trust_remote_code=config.trust_remote_code, keep=False
    )
    steps = total_steps(len(pairs), config)
    warn_of_few_steps(len(pairs), config)
    model = _on_meta(config, pairs, device)
    other = _on_meta(config.of_reference, pairs, device) if config.of_reference else None
    sizes = sizes_of(model)
    layout: Layout = "shared" if may_share_prompts(model) else "padded"
    passes = _passes(pairs, config, layout, steps)
    memory = memory_parts(sizes, config, device, passes.largest, ranks)
    untimed = _why_untimed(config, device, sum(memory.values()) * 1e9, ranks)
    timing = f"loading the model on {device}, to time one forward and backward pass ..."
    say(f"{untimed}, so no pass is timed" if untimed else timing)
    policy = None if untimed else load_policy(config, pairs, device)
    if policy is not None and policy.layout != layout:
        # the architecture allows a layout, the comparison with real pairs chooses it
        passes = _passes(pairs, config, policy.layout, steps)
    return Plan(
        pairs=len(pairs),
        dropped=pairs.dropped,
        kept=kept_tokens(pairs),
        mix=_mix(pairs_file, pairs, config.limit),
        mix_of_first=MIXED if len(pairs) + pairs.dropped.total() > MIXED else None,
        tokens=int(lengths(pairs).sum()),
        steps=steps,
        passes=len(passes.groups),
        largest_pass=passes.largest,
        parameters=sizes.parameters,
        trained=sizes.trained,
        memory=memory_parts(sizes, config, device, passes.largest, ranks),
        reference_memory=(
            memory_parts(sizes_of(other), config, device, passes.largest, ranks, trains=False) if other else None
        ),
        forecast=forecast(model, sizes, config, device, passes.largest, ranks),
        seconds=_timed(policy, config, pairs, passes, steps, model_shape(other or model)) if policy else None,
    )


def _mix(file: Path, encoded: StoredPairs, limit: int | None) -> Mix:
    counts, mixed = MixCounts(), list[int]()
    for pair in read_records(file, Pair, min(limit or MIXED, MIXED)):
        with suppress(KeyError):  # dropped
            mixed.append(encoded.index_of(pair.id))
            counts.add(pair)
    tokens = int(lengths(encoded)[mixed, 1:].sum())
    left_out = 1 - int(kept(encoded)[mixed].sum()) / tokens if tokens else None
    return counts.mix().model_copy(update={"left_out": left_out})


def _why_untimed(config: TrainConfig, device: str, needed: float, ranks: int) -> str:
    """Empty where a pass can be timed."""
    if ranks > 1:
        return f"the run has {ranks} processes"
    if not has_weights(config.model):
        return f"{config.model} holds no weights"
    free = free_bytes(device)
    return "" if free is None or needed < free else f"{device} has {free / 1e9:.1f} GB left, which is too little"


@dataclass(frozen=True)
class _Passes:
    """The forward passes of all steps: the indices of their pairs, and their tokens with padding."""

    groups: list[NDArray[np.int64]]
    tokens: list[int]

    @property
    def largest(self) -> int:
        return max(self.tokens)

    @property
    def median(self) -> NDArray[np.int64]:
        return self.groups[int(np.argsort(self.tokens, kind="stable")[len(self.tokens) // 2])]


def _passes(pairs: Sequence[EncodedPair], config: TrainConfig, layout: Layout, steps: int) -> _Passes:
    """By the lengths of the pairs alone: no pair is put together."""
    rows_N = lengths(pairs).sum(1) if layout == "shared" else longest(pairs)
    groups: list[NDArray[np.int64]] = []
    tokens: list[int] = []
    for batch in batch_indices(len(pairs), config, 0, steps):
        ordered = batch[np.argsort(-rows_N[batch], kind="stable")]
        begin = 0
        for size in group_sizes(rows_N[ordered].tolist(), config.tokens_per_batch, layout):
            groups.append(ordered[begin : begin + size])
            tokens.append(padded_tokens(size, int(rows_N[ordered[begin]]), layout))
            begin += size
    return _Passes(groups, tokens)


def _on_meta(config: TrainConfig, pairs: Sequence[EncodedPair], device: str) -> Any:
    """The model with its adapter on the meta device, checked against the pairs as in a run."""
    model = meta_model(config.model, dtype=weight_type(config, device), trust_remote_code=config.trust_remote_code)
    check_fit(model, pairs, config.model)
    freeze_the_rest(model)
    if config.lora_r:
        with torch.device("meta"):
            add_adapter(model, config)
    return model


def _timed(
    policy: Policy,
    config: TrainConfig,
    pairs: Sequence[EncodedPair],
    passes: _Passes,
    steps: int,
    reference: ModelShape,
) -> dict[str, float]:
    """Seconds of the whole run by part, from one forward and backward pass of median size and one update."""
    trainer = Trainer(policy.model, config, policy.layout)
    shape = model_shape(policy.model)
    group = [pairs[i] for i in passes.median]
    trainer.reference = compute_reference(trainer, group)  # also warms up
    began = time.perf_counter()
    loss = trainer.forward(group).loss_B.sum()
    torch.autograd.backward(loss)
    loss.item()  # waits for the device
    passed = time.perf_counter()
    trainer.optimizer.step()
    allocated = time.perf_counter()  # the first update allocates the state of AdamW
    trainer.optimizer.step()
    next(p for p in policy.model.parameters() if p.requires_grad).sum().item()
    updated = time.perf_counter()
    rate = step_flops(shape, group, policy.layout, every_token=config.predicts_every_token) / (passed - began)
    every = np.concatenate(passes.groups)
    lengths_N3, predicted_N2 = lengths(pairs), predicted(pairs, config.predicts_every_token)
    training = flops_of(shape, lengths_N3[every], predicted_N2[every], policy.layout) / rate
    logged = steps // config.masked_pass_every + 1 if config.masked_pass_every else 0
    whole = flops_of(reference, lengths_N3, predicted(pairs, every_token=True), policy.layout) / rate
    return {
        "reference log-probs (if not kept from before)": 0 if LOSSES[config.loss].reference_free else whole / 3,
        "forward and backward passes": training,
        "updates": steps * (updated - allocated),
        "rewards of masked tokens": training / 3 * logged / steps,
    }

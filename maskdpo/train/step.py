"""The training loop: batches in a seeded order, one optimiser step each, figures for every step."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from maskdpo.errors import UserError
from maskdpo.models import compute_type
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.batch import Batch, Layout, collate
from maskdpo.train.data.encode import EncodedPair
from maskdpo.train.losses import LOSSES
from maskdpo.train.model.distributed import ALONE, Ranks, clip_gradients, logps_of, passes
from maskdpo.train.model.flops import device_peak, model_shape, step_flops
from maskdpo.train.model.reference import Reference, reference_logps, reference_of, share_reference
from maskdpo.train.run.figures import (
    Figures,
    StepStats,
    add_sums,
    kept_tokens,
    masked_rewards,
    means,
    pair_figures,
    peak_memory_gb,
)

FIRST_MARGIN_TOLERANCE = {"float32": 1e-2, "bfloat16": 5e-1}
"""At the first step policy and reference are the same model: every log ratio is 0, up to rounding."""


class Trainer:
    """A policy, its reference and its optimiser; ``step`` trains on one batch of pairs.

    All ranks call the same methods with the same pairs. Each works on its part of them, and all get the same figures.
    """

    def __init__(self, model: PreTrainedModel, config: TrainConfig, layout: Layout, ranks: Ranks = ALONE) -> None:
        self.model = model
        self.config = config
        self.layout = layout
        self.ranks = ranks
        self.reference: Reference = {}
        self.compute = compute_type(config.dtype, model.device.type)
        decayed = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, fused=True)

    def logps(self, batch: Batch) -> Tensor:
        with self._autocast():
            return logps_of(self.model, batch)

    def collate(self, pairs: Sequence[EncodedPair], *, every_token: bool = False) -> Batch:
        return collate(pairs, self.layout, every_token=every_token).to(str(self.model.device))

    @torch.no_grad()
    def compute_reference(self, pairs: Sequence[EncodedPair], advance: Callable[[int], None]) -> Reference:
        """Log-probs under the present weights, which must still be the reference's."""
        own: Reference = {}
        for group, counts in self.passes(pairs):
            found = reference_of(group, self.logps(self.collate(group, every_token=True)))
            if counts:
                own |= found
                advance(self.ranks.size * len(group))  # the others are about as far
        return share_reference(own, pairs, self.ranks)

    def figures(self, pairs: Sequence[EncodedPair]) -> Figures:
        """One forward pass: the losses of these pairs, with their gradient, and what is logged of each; [B] by name."""
        batch = self.collate(pairs)
        return pair_figures(batch, self.logps(batch), self._reference_logps(pairs, batch), self.config)

    @torch.no_grad()
    def masked_rewards(self, pairs: Sequence[EncodedPair]) -> dict[str, float]:
        """Means over the pairs. It takes a forward pass of its own, as training computes no log-probs of masked tokens:
        about a third of a step."""
        totals: Figures = {}
        for group, counts in self.passes(pairs):
            batch = self.collate(group, every_token=True)
            ref_logps_N = self._reference_logps(group, batch, every_token=True)
            figures = masked_rewards(batch, self.logps(batch), ref_logps_N, self.config.beta)
            totals = add_sums(totals, figures if counts else _zeros(figures))
        return means(self._sum(totals), len(pairs))

    def step(self, pairs: Sequence[EncodedPair], lr: float) -> dict[str, float]:
        """One optimiser step on these pairs, in as many forward passes as the token budget asks for.

        The loss is divided by the number of pairs of the whole step: how they fall into passes and to ranks changes
        nothing.

        Raises:
            UserError: a loss or the gradient is not finite; no weight has been changed then.
        """
        totals: Figures = {}
        for group, counts in self.passes(pairs):
            figures = self.figures(group)
            loss = figures["loss"].sum() / len(pairs)
            if counts:
                _check_finite(figures["loss"], group)
            torch.autograd.backward(loss if counts else 0 * loss)
            totals = add_sums(totals, figures if counts else _zeros(figures))
        grad_norm = clip_gradients(self.model, self.config.max_grad_norm)
        if not math.isfinite(grad_norm):  # the same number on every rank; weights and AdamW are as they were
            raise UserError(
                f"the gradient is not finite (its norm is {grad_norm}) in the step with the pairs "
                f"{', '.join(pair.id for pair in pairs)}; no weight was changed. A smaller --lr may help, or --dtype "
                "float32"
            )
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return means(self._sum(totals), len(pairs)) | {"grad_norm": grad_norm, "lr": lr}

    def passes(self, pairs: Sequence[EncodedPair]) -> list[tuple[list[EncodedPair], bool]]:
        """This rank's forward passes over the pairs, and whether each counts (``distributed.passes``)."""
        return passes(pairs, self.config.tokens_per_batch, self.layout, self.ranks)

    def _sum(self, totals: Figures) -> Figures:
        """Over all ranks, in one exchange."""
        if self.ranks.size == 1 or not totals:
            return totals
        return dict(zip(totals, self.ranks.sum(torch.stack(list(totals.values()))).unbind(), strict=True))

    def _reference_logps(self, pairs: Sequence[EncodedPair], batch: Batch, *, every_token: bool = False) -> Tensor:
        """[N] log pi_ref of the batch's tokens; 0 for a loss without a reference, whose log ratios are then log pi."""
        if LOSSES[self.config.loss].reference_free:
            return torch.zeros_like(batch.weight_N)
        return reference_logps(self.reference, pairs, every_token=every_token).to(self.model.device)

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.model.device.type, dtype=torch.bfloat16, enabled=self.compute == "bfloat16")


def _zeros(figures: Figures) -> Figures:
    """Of a pass that only keeps step with the other ranks."""
    return {name: torch.zeros_like(value_B) for name, value_B in figures.items()}


def _check_finite(loss_B: Tensor, pairs: Sequence[EncodedPair]) -> None:
    finite_B = torch.isfinite(loss_B)
    if not finite_B.all():
        bad = [pair.id for pair, finite in zip(pairs, finite_B, strict=True) if not finite]
        raise UserError(f"the loss is not a finite number for the pairs {', '.join(bad)}; a smaller --lr may help")


def total_steps(pairs: int, config: TrainConfig) -> int:
    steps = config.epochs * math.ceil(pairs / config.batch_size)
    return min(steps, config.max_steps) if config.max_steps else steps


def learning_rate(step: int, total: int, config: TrainConfig) -> float:
    """Linear rise over the warm-up, then linear fall to zero; ``step`` counts from 0."""
    warmup = math.ceil(config.warmup_ratio * total)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return config.lr * (total - step) / max(1, total - warmup)


def batches(pairs: Sequence[EncodedPair], config: TrainConfig, first: int, last: int) -> Iterator[list[EncodedPair]]:
    """The batches of steps ``first`` <= step < ``last``. The order follows from seed and epoch alone, so that a resumed
    run goes on where it stopped."""
    per_epoch = math.ceil(len(pairs) / config.batch_size)
    for step in range(first, last):
        epoch, position = divmod(step, per_epoch)
        order = np.random.default_rng([config.seed, epoch]).permutation(len(pairs))
        yield [pairs[i] for i in order[position * config.batch_size : (position + 1) * config.batch_size]]


def run_steps(trainer: Trainer, pairs: Sequence[EncodedPair], first: int, last: int) -> Iterator[StepStats]:
    """Train from step ``first`` (0: a fresh run) up to ``last``, yielding what every step measured.

    Raises:
        UserError: a loss or a gradient is not finite, or the margin before the first step is not 0.
    """
    config = trainer.config
    per_epoch = math.ceil(len(pairs) / config.batch_size)
    peak = trainer.ranks.size * device_peak(str(trainer.model.device), trainer.compute)
    shape = model_shape(trainer.model)
    for step, batch in enumerate(batches(pairs, config, first, last), first):
        masked = trainer.masked_rewards(batch) if _looks_at_masked(step + 1, last, config.log_masked_every) else {}
        started = time.perf_counter()
        stats = trainer.step(batch, learning_rate(step, last, config))
        seconds = time.perf_counter() - started
        measured: dict[str, Any] = stats | masked | kept_tokens(batch)
        if step == 0 and not LOSSES[config.loss].reference_free:
            _check_first_margin(stats["margin"] / config.beta, trainer.compute)
        yield StepStats(
            step=step + 1,
            epoch=(step + 1) / per_epoch,
            seconds=seconds,
            pairs_per_s=len(batch) / seconds,
            tokens_per_s=sum(pair.tokens for pair in batch) / seconds,
            peak_share=step_flops(shape, batch, trainer.layout) / seconds / peak,
            memory_gb=trainer.ranks.largest(peak_memory_gb(trainer.model.device)),
            **measured,
        )


def _looks_at_masked(step: int, last: int, every: int) -> bool:
    """At every n-th step, counted from 1, and at the last one; never where ``every`` is 0."""
    return every > 0 and (step % every == 0 or step == last)


def _check_first_margin(margin: float, compute: str) -> None:
    if abs(margin) > FIRST_MARGIN_TOLERANCE[compute]:
        raise UserError(
            f"before the first step the margin must be 0, it is {margin:.3g}: the reference log-probs do not belong to "
            "this model. Go on with --no-cache, and report this as a bug"
        )

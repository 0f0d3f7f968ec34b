"""All steps of a run: the pairs in a seeded order, the learning rate of every step, and what is logged of each."""

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskdpo.console import counted, warn
from maskdpo.errors import UserError
from maskdpo.schemas.training import StepStats
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.encoded_pair import EncodedPair
from maskdpo.train.loss_registry import LOSSES
from maskdpo.train.model.flops import device_peak, model_shape, step_flops
from maskdpo.train.run.figures import kept_tokens, masked_rewards, mean_figures, peak_memory_gb
from maskdpo.train.step import Trainer

FIRST_MARGIN_TOLERANCE = {"float32": 1e-2, "bfloat16": 5e-1}
"""At the first step policy and reference are the same model, unless another one is named: every log ratio is 0, up to
rounding."""


FEW_STEPS = 5
"""A run with fewer steps is warned of."""


def total_steps(pairs: int, config: TrainConfig) -> int:
    steps = config.epochs * math.ceil(pairs / config.batch_size)
    return min(steps, config.max_steps) if config.max_steps else steps


def warn_of_few_steps(pairs: int, config: TrainConfig) -> None:
    """Warn where the pairs make few steps, unless ``max_steps`` asks for so few."""
    steps = total_steps(pairs, config)
    if steps < FEW_STEPS and steps != config.max_steps:
        warn(
            f"{counted(steps, 'optimiser step')} over {counted(pairs, 'pair')} can hardly change a model; more "
            "prompts, or more answers to each, give more pairs"
        )


def learning_rate(step: int, total: int, config: TrainConfig) -> float:
    """Linear rise over the warm-up, then linear fall to zero; ``step`` counts from 0."""
    warmup = math.ceil(config.warmup_ratio * total)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return config.lr * (total - step) / max(1, total - warmup)


def batches(pairs: Sequence[EncodedPair], config: TrainConfig, first: int, last: int) -> Iterator[list[EncodedPair]]:
    """The batches of steps ``first`` <= step < ``last``."""
    for indices in batch_indices(len(pairs), config, first, last):
        yield [pairs[i] for i in indices]


def batch_indices(pairs: int, config: TrainConfig, first: int, last: int) -> Iterator[NDArray[np.int64]]:
    """Which pairs are in the batches of steps ``first`` <= step < ``last``. The order follows from seed and epoch
    alone, so that a resumed run goes on where it stopped."""
    per_epoch = math.ceil(pairs / config.batch_size)
    order, of_epoch = np.empty(0, dtype=np.int64), -1
    for step in range(first, last):
        epoch, position = divmod(step, per_epoch)
        if epoch != of_epoch:
            order, of_epoch = np.random.default_rng([config.seed, epoch]).permutation(pairs), epoch
        yield order[position * config.batch_size : (position + 1) * config.batch_size]


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
        masked = masked_rewards(trainer, batch) if _logs_masked(step + 1, last, config.masked_pass_every) else {}
        lr = learning_rate(step, last, config)
        started = time.perf_counter()
        passes, grad_norm = trainer.step(batch, lr)
        means = mean_figures(trainer, passes, len(batch))  # waits for the device
        seconds = time.perf_counter() - started
        if step == 0 and config.reference is None and not LOSSES[config.loss].reference_free:
            _check_first_margin(means["margin"] / config.beta, trainer.compute)
        flops = step_flops(shape, batch, trainer.layout, every_token=config.predicts_every_token)
        measured: dict[str, Any] = means | masked | kept_tokens(batch)
        yield StepStats(
            lr=lr,
            grad_norm=grad_norm,
            step=step + 1,
            epoch=(step + 1) / per_epoch,
            seconds=seconds,
            pairs_per_s=len(batch) / seconds,
            tokens_per_s=sum(pair.tokens for pair in batch) / seconds,
            peak_share=flops / seconds / peak,
            memory_gb=trainer.ranks.largest(peak_memory_gb(trainer.model.device)),
            **measured,
        )


def _logs_masked(step: int, last: int, every: int) -> bool:
    """Whether ``masked_rewards`` are due: at every n-th step, counted from 1, and at the last; never where n is 0."""
    return every > 0 and (step % every == 0 or step == last)


def _check_first_margin(margin: float, compute: str) -> None:
    if abs(margin) > FIRST_MARGIN_TOLERANCE[compute]:
        raise UserError(
            f"before the first step the margin must be 0, it is {margin:.3g}: the reference log-probs do not belong to "
            "this model. Train once without the cache (`use_cache`), and report this as a bug"
        )

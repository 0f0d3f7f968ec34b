"""The training loop: batches in a seeded order, one optimiser step each, figures for every step."""

import functools
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from maskdpo.errors import UserError
from maskdpo.models import compute_type
from maskdpo.train.batch import Batch, Layout, collate, micro_batches
from maskdpo.train.config import TrainConfig
from maskdpo.train.encode import EncodedPair
from maskdpo.train.logps import token_logps
from maskdpo.train.losses import masked_log_ratios, sigmoid_loss
from maskdpo.train.reference import Reference, compute_reference, reference_logps

FIRST_LOSS_TOLERANCE = {"float32": 1e-2, "bfloat16": 5e-1}
"""At the first step policy and reference are the same model: every log ratio is 0, every loss ln 2, up to rounding."""


@dataclass(frozen=True)
class StepStats:
    """What is logged at every step. Rewards are beta times the weighted log ratio, means over the pairs of the step."""

    step: int
    epoch: float
    loss: float
    reward_chosen: float
    reward_rejected: float
    margin: float
    accuracy: float
    """Share of pairs whose chosen answer has the larger reward."""
    logps_chosen: float
    logps_rejected: float
    """Sums of log pi over the tokens with weight, per answer."""
    kept_chosen: float
    kept_rejected: float
    """Share of the answers' tokens with weight."""
    lr: float
    grad_norm: float
    seconds: float
    pairs_per_s: float
    tokens_per_s: float
    """Tokens of all rows, prompts once per pair."""
    memory_gb: float
    """Peak so far: of the process on a CPU, of the allocator on CUDA."""


class Trainer:
    """A policy, its reference and its optimiser; ``step`` trains on one batch of pairs."""

    def __init__(self, model: PreTrainedModel, config: TrainConfig, layout: Layout) -> None:
        self.model = model
        self.config = config
        self.layout = layout
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
            return token_logps(self.model, batch)

    def collate(self, pairs: Sequence[EncodedPair], *, every_token: bool = False) -> Batch:
        return collate(pairs, self.layout, every_token=every_token).to(str(self.model.device))

    def compute_reference(self, pairs: Sequence[EncodedPair], advance: Callable[[int], None]) -> Reference:
        """Log-probs under the present weights, which must still be the reference's."""
        all_tokens = functools.partial(self.collate, every_token=True)
        return compute_reference(self.logps, pairs, all_tokens, self.config.tokens_per_batch, advance)

    def step(self, pairs: Sequence[EncodedPair], lr: float) -> dict[str, float]:
        """One optimiser step on these pairs, in as many forward passes as the token budget asks for.

        The loss is divided by the number of pairs of the whole step: how they fall into passes changes nothing.
        """
        sums = torch.zeros(6)
        for group in micro_batches(pairs, self.config.tokens_per_batch):
            batch = self.collate(group)
            ref_logps_N = reference_logps(self.reference, group).to(self.model.device)
            logps_N = self.logps(batch)
            ratios_A = masked_log_ratios(logps_N, ref_logps_N, batch.weight_N, batch.answer_N, 2 * len(group))
            chosen_B, rejected_B = ratios_A[0::2], ratios_A[1::2]
            loss_B = batch.pair_weight_B * sigmoid_loss(chosen_B, rejected_B, self.config.beta)
            if not torch.isfinite(loss_B).all():
                bad = [pair.id for pair, finite in zip(group, torch.isfinite(loss_B), strict=True) if not finite]
                raise UserError(
                    f"the loss is not a finite number for the pairs {', '.join(bad)}; a smaller --lr may help"
                )
            torch.autograd.backward(loss_B.sum() / len(pairs))
            sums += _sums(loss_B, chosen_B, rejected_B, logps_N, batch).cpu()
        grad_norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return self._stats(sums / len(pairs), pairs) | {"grad_norm": grad_norm.item(), "lr": lr}

    def _stats(self, means: Tensor, pairs: Sequence[EncodedPair]) -> dict[str, float]:
        loss, chosen, rejected, accuracy, logps_chosen, logps_rejected = means.tolist()
        kept = {
            f"kept_{side}": sum(np.count_nonzero(getattr(pair, side).weights) for pair in pairs)
            / sum(len(getattr(pair, side).ids) for pair in pairs)
            for side in ("chosen", "rejected")
        }
        return {
            "loss": loss,
            "reward_chosen": self.config.beta * chosen,
            "reward_rejected": self.config.beta * rejected,
            "margin": self.config.beta * (chosen - rejected),
            "accuracy": accuracy,
            "logps_chosen": logps_chosen,
            "logps_rejected": logps_rejected,
            **kept,
        }

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.model.device.type, dtype=torch.bfloat16, enabled=self.compute == "bfloat16")


@torch.no_grad()
def _sums(loss_B: Tensor, chosen_B: Tensor, rejected_B: Tensor, logps_N: Tensor, batch: Batch) -> Tensor:
    """Sums over pairs, in the order that ``Trainer._stats`` reads them."""
    logps_A = torch.zeros(2 * batch.pairs, device=logps_N.device).index_add(0, batch.answer_N, batch.weight_N * logps_N)
    per_pair = (loss_B, chosen_B, rejected_B, (chosen_B > rejected_B).float(), logps_A[0::2], logps_A[1::2])
    return torch.stack([values_B.sum() for values_B in per_pair])


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
        UserError: a loss is not finite, or the first one is not ln 2.
    """
    per_epoch = math.ceil(len(pairs) / trainer.config.batch_size)
    for step, batch in enumerate(batches(pairs, trainer.config, first, last), first):
        started = time.perf_counter()
        stats = trainer.step(batch, learning_rate(step, last, trainer.config))
        if step == 0:
            _check_first_loss(stats["margin"] / trainer.config.beta, trainer.compute)
        seconds = time.perf_counter() - started
        yield StepStats(
            step=step + 1,
            epoch=(step + 1) / per_epoch,
            seconds=seconds,
            pairs_per_s=len(batch) / seconds,
            tokens_per_s=sum(pair.tokens for pair in batch) / seconds,
            memory_gb=peak_memory_gb(),
            **stats,
        )


def _check_first_loss(margin: float, compute: str) -> None:
    if abs(margin) > FIRST_LOSS_TOLERANCE[compute]:
        raise UserError(
            f"before the first step the margin must be 0, it is {margin:.3g}: the reference log-probs do not belong to "
            "this model. Go on with --no-cache, and report this as a bug"
        )


def peak_memory_gb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9

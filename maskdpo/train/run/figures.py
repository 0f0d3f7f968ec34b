"""What is measured of every pair and logged of every step. The loss is one of these figures: the one with a gradient.

Shape letters: N predicted tokens of all answers of a batch, A answers (pair i: chosen 2i, rejected 2i + 1), B pairs.
"""

import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskdpo.schemas import SIDES
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.batch import Batch
from maskdpo.train.data.encode import EncodedPair
from maskdpo.train.losses import LOSSES, masked_log_ratios, pair_losses, sft_loss, sum_per_answer

Figures = dict[str, Tensor]
"""By name: [B] values of the pairs, or [] sums over them."""


@dataclass(frozen=True, kw_only=True)
class StepStats:
    """What is logged at every step; means are over the pairs of the step.

    A reward is beta times an answer's log ratio log pi - log pi_ref (without a reference: log pi), in nats, summed over
    tokens; for losses that are averaged the first three are per token.
    """

    step: int
    epoch: float
    loss: float
    reward_chosen: float
    reward_rejected: float
    """With the weights, as the loss sees them."""
    margin: float
    accuracy: float
    """Share of pairs whose chosen answer has the larger reward."""
    reward_kept_chosen: float
    reward_kept_rejected: float
    """Unweighted, over the tokens with weight."""
    reward_masked_chosen: float | None = None
    reward_masked_rejected: float | None = None
    """Unweighted, over the tokens without weight: what training does to text that it was not to touch. None at steps
    where it was not computed (``log_masked_every``)."""
    logps_chosen: float
    logps_rejected: float
    """Weighted sums of log pi, per answer."""
    nll_chosen: float
    """-log pi of the chosen answer a token, weighted: the term that ``sft_weight`` multiplies."""
    kept_chosen: float
    kept_rejected: float
    """Share of the answers' tokens with weight."""
    kept_tokens_chosen: int
    kept_tokens_rejected: int
    """Their number in the whole step."""
    lr: float
    grad_norm: float
    """Before clipping."""
    seconds: float
    """Of the step alone, without the look at masked tokens."""
    pairs_per_s: float
    tokens_per_s: float
    """Tokens of all rows, prompts once per pair."""
    peak_share: float
    """Useful floating-point operations a second over what the device can do: see ``flops``."""
    memory_gb: float
    """Peak so far: of the process on a CPU, of the allocator on CUDA."""


def pair_figures(batch: Batch, logps_N: Tensor, ref_logps_N: Tensor, config: TrainConfig) -> Figures:
    """Everything that the log-probs of the tokens with weight say of every pair.

    Args:
        logps_N, ref_logps_N: float32 log-probs of ``batch.target_N`` under policy and reference.

    Returns:
        [B] float32 by name. ``loss`` includes the SFT term and the pair's weight, and carries the gradient.
    """
    answers = 2 * batch.pairs
    ratio_A = masked_log_ratios(logps_N, ref_logps_N, batch.weight_N, batch.answer_N, answers)
    weight_A = sum_per_answer(batch.weight_N, batch.answer_N, answers)
    logps_A = sum_per_answer(batch.weight_N * logps_N, batch.answer_N, answers)
    if LOSSES[config.loss].averaged:
        ratio_A = ratio_A / weight_A
    chosen_B, rejected_B = ratio_A[0::2], ratio_A[1::2]
    loss_B = pair_losses(chosen_B, rejected_B, batch.score_gap_B, config)
    nll_B = sft_loss(logps_A, weight_A)
    if config.sft_weight:
        loss_B = loss_B + config.sft_weight * nll_B
    kept_A = config.beta * sum_per_answer(logps_N - ref_logps_N, batch.answer_N, answers)
    logged = {
        "reward_chosen": config.beta * chosen_B,
        "reward_rejected": config.beta * rejected_B,
        "margin": config.beta * (chosen_B - rejected_B),
        "accuracy": (chosen_B > rejected_B).float(),
        "reward_kept_chosen": kept_A[0::2],
        "reward_kept_rejected": kept_A[1::2],
        "logps_chosen": logps_A[0::2],
        "logps_rejected": logps_A[1::2],
        "nll_chosen": nll_B,
    }
    return {"loss": batch.pair_weight_B * loss_B} | {name: value_B.detach() for name, value_B in logged.items()}


def masked_rewards(batch: Batch, logps_N: Tensor, ref_logps_N: Tensor, beta: float) -> Figures:
    """beta times the unweighted log ratio over the tokens without weight, from a batch of every token: [B] by side."""
    ratio_N = (logps_N - ref_logps_N) * (batch.weight_N == 0)
    ratio_A = beta * sum_per_answer(ratio_N, batch.answer_N, 2 * batch.pairs)
    return {f"reward_masked_{side}": ratio_A[k::2] for k, side in enumerate(SIDES)}


def add_sums(totals: Figures, figures: Figures) -> Figures:
    """Running sums over pairs: [] totals (empty at first) plus the sums of [B] figures."""
    return {name: totals.get(name, 0.0) + value_B.detach().sum() for name, value_B in figures.items()}


def means(totals: Figures, pairs: int) -> dict[str, float]:
    """Means over the pairs of a step; one transfer from the device for all of them."""
    return dict(zip(totals, (torch.stack(list(totals.values())) / pairs).tolist(), strict=True)) if totals else {}


def kept_tokens(pairs: Sequence[EncodedPair]) -> dict[str, Any]:
    """How many of the answers' tokens have weight, and which share of them, by side."""
    counts: dict[str, Any] = {}
    for side in SIDES:
        kept = sum(int(np.count_nonzero(pair.side(side).weights)) for pair in pairs)
        counts[f"kept_tokens_{side}"] = kept
        counts[f"kept_{side}"] = kept / sum(len(pair.side(side).ids) for pair in pairs)
    return counts


def peak_memory_gb(device: torch.device) -> float:
    """Of the device's own memory, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if device.type == "mps":
        return torch.mps.driver_allocated_memory() / 1e9  # what is held now: torch keeps no peak of it
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9

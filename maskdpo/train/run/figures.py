"""What is logged of a step: means over its pairs, counts of tokens, memory (``schemas.training.StepStats``).

Shape letters: A answers of a batch (pair i: chosen 2i, rejected 2i + 1), B pairs.
"""

import resource
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from maskdpo.schemas import SIDES
from maskdpo.train.data.batch import Batch
from maskdpo.train.data.encoded_pair import EncodedPair
from maskdpo.train.data.measures import kept, lengths
from maskdpo.train.losses import sum_per_answer
from maskdpo.train.ranks import Ranks
from maskdpo.train.step import ForwardPass, Trainer

Figures = dict[str, Tensor]
"""By name: [B] values of the pairs of a pass."""


def pair_figures(forward: ForwardPass, beta: float) -> Figures:
    """The loss of every pair, and what is logged beside it; [B] float32 by name."""
    batch, logps_A = forward.batch, forward.logps_A
    chosen_B, rejected_B = forward.ratio_A[0::2], forward.ratio_A[1::2]
    ratio_N = forward.logps_N - forward.ref_logps_N
    kept_A = beta * sum_per_answer(ratio_N * (batch.weight_N > 0), batch.answer_N, 2 * batch.pairs)
    held = {} if forward.hold_B is None else {"hold": forward.hold_B} | _masked_rewards(ratio_N, batch, beta)
    return {
        "loss": forward.loss_B,
        "reward_chosen": beta * chosen_B,
        "reward_rejected": beta * rejected_B,
        "margin": beta * (chosen_B - rejected_B),
        "accuracy": (chosen_B > rejected_B).float(),
        "reward_kept_chosen": kept_A[0::2],
        "reward_kept_rejected": kept_A[1::2],
        "logps_chosen": logps_A[0::2],
        "logps_rejected": logps_A[1::2],
        "nll_chosen": forward.nll_B,
        **held,
    }


def mean_figures(trainer: Trainer, passes: Iterable[ForwardPass], pairs: int) -> dict[str, float]:
    """Means of ``pair_figures`` over all pairs of a step. Every rank must call, with its own passes."""
    beta = trainer.config.beta
    return _means(((pair_figures(forward, beta), forward.counts) for forward in passes), pairs, trainer.ranks)


@torch.no_grad()
def masked_rewards(trainer: Trainer, pairs: Sequence[EncodedPair]) -> dict[str, float]:
    """Means of beta times the unweighted log ratio over the tokens without weight, by side. Every rank must call.

    A step that is not held computes no log-probs of these tokens, so they take a forward pass of their own: about a
    third of a step.
    """
    figures: list[tuple[Figures, bool]] = []
    for group, counts in trainer.passes(pairs):
        batch = trainer.collate(group, every_token=True)
        ref_logps_N = trainer.reference_logps(group, batch, every_token=True)
        ratio_N = trainer.logps(batch) - ref_logps_N
        figures.append((_masked_rewards(ratio_N, batch, trainer.config.beta), counts))
    return _means(figures, len(pairs), trainer.ranks)


def _masked_rewards(ratio_N: Tensor, batch: Batch, beta: float) -> Figures:
    """From the log ratios of all tokens of the answers."""
    reward_A = beta * sum_per_answer(ratio_N * (batch.weight_N == 0), batch.answer_N, 2 * batch.pairs)
    return {f"reward_masked_{side}": reward_A[k::2] for k, side in enumerate(SIDES)}


def _means(figures: Iterable[tuple[Figures, bool]], pairs: int, ranks: Ranks) -> dict[str, float]:
    """Means over the pairs of all ranks, of the passes that count: one exchange between ranks, one transfer to the
    CPU."""
    totals: Figures = {}
    for found, counts in figures:
        for name, value_B in found.items():
            totals[name] = totals.get(name, 0.0) + (value_B if counts else torch.zeros_like(value_B)).sum()
    summed = ranks.sum(torch.stack(list(totals.values())))
    return dict(zip(totals, (summed / pairs).tolist(), strict=True))


def kept_tokens(pairs: Sequence[EncodedPair]) -> dict[str, Any]:
    """How many of the answers' tokens have weight, and which share of them, by side."""
    counts: dict[str, Any] = {}
    kept_N2, lengths_N2 = kept(pairs), lengths(pairs)[:, 1:]
    for k, side in enumerate(SIDES):
        counts[f"kept_tokens_{side}"] = int(kept_N2[:, k].sum())
        counts[f"kept_{side}"] = counts[f"kept_tokens_{side}"] / int(lengths_N2[:, k].sum())
    return counts


def peak_memory_gb(device: torch.device) -> float:
    """Of the device's own memory, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if device.type == "mps":
        return torch.mps.driver_allocated_memory() / 1e9  # what is held now: torch keeps no peak of it
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9

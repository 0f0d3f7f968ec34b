"""The losses, as free functions over tensors: log ratios of answers -> difference of a pair -> loss of a pair.

    r(x, y) = sum_t w_t (log pi(y_t) - log pi_ref(y_t))          masked_log_ratios: Mask-DPO, arXiv 2503.02846, eq. 4
    d       = r(x, y_chosen) - r(x, y_rejected)
    L       = f(d)                                               LOSSES, by the name that ``--loss`` takes

Two terms may be added to L: ``sft_loss`` and ``hold_loss``. Losses that are ``averaged`` divide r by sum_t w_t first;
``reference_free`` ones leave out log pi_ref. docs/method.md has every formula with its source.
Shape letters: N predicted tokens of all answers of a batch, A answers (pair i: chosen 2i, rejected 2i + 1), B pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor
from torch.nn.functional import logsigmoid

from maskdpo.train.config import TrainConfig
from maskdpo.train.loss_registry import LOSSES


def sum_per_answer(values_N: Tensor, answer_N: Tensor, answers: int) -> Tensor:
    """[A] float32 sums of [N] values over the tokens of every answer; ``answer_N`` int64, 0 <= i < A = answers."""
    zero_A = torch.zeros(answers, dtype=torch.float32, device=values_N.device)
    return zero_A.index_add(0, answer_N, values_N)


def masked_log_ratios(
    logps_N: Tensor, ref_logps_N: Tensor, weights_N: Tensor, answer_N: Tensor, answers: int
) -> Tensor:
    """r(x, y): the weighted sum of log pi - log pi_ref over the tokens of every answer, in nats.

    Args:
        logps_N, ref_logps_N, weights_N: float32, one entry per token.
        answer_N: int64, the answer (0 <= i < answers) that the token belongs to.

    Returns:
        [A] float32, A = answers.
    """
    return sum_per_answer(weights_N * (logps_N - ref_logps_N), answer_N, answers)


def sigmoid_loss(logit_B: Tensor) -> Tensor:
    """-log sigmoid(z): the loss of DPO (Rafailov et al. 2023, arXiv 2305.18290, eq. 7) for z = beta d. [B] -> [B]."""
    return -logsigmoid(logit_B)


def hinge_loss(logit_B: Tensor) -> Tensor:
    """max(0, 1 - z): SLiC (Zhao et al. 2023, arXiv 2305.10425), with log ratios as in RSO (arXiv 2309.06657).

    [B] -> [B].
    """
    return torch.relu(1 - logit_B)


def ipo_loss(delta_B: Tensor, beta: float) -> Tensor:
    """(d - 1 / (2 beta))^2: IPO (Azar et al. 2023, arXiv 2310.12036, eq. 17, where beta is called tau). [B] -> [B]."""
    return (delta_B - 1 / (2 * beta)) ** 2


def conservative_loss(logit_B: Tensor, label_smoothing: float) -> Tensor:
    """cDPO (Mitchell 2023): the cross-entropy with a label that is wrong with probability e = ``label_smoothing``.

    -(1 - e) log sigmoid(z) - e log sigmoid(-z), [B] -> [B].
    """
    return -(1 - label_smoothing) * logsigmoid(logit_B) - label_smoothing * logsigmoid(-logit_B)


def robust_loss(logit_B: Tensor, label_smoothing: float) -> Tensor:
    """rDPO (Chowdhury et al. 2024, arXiv 2403.00409): unbiased if labels are flipped with probability e < 1/2.

    (-(1 - e) log sigmoid(z) + e log sigmoid(-z)) / (1 - 2e), [B] -> [B]; it may be negative.
    """
    flipped_B = label_smoothing * logsigmoid(-logit_B)
    return (-(1 - label_smoothing) * logsigmoid(logit_B) + flipped_B) / (1 - 2 * label_smoothing)


def factuality_margin(score_gap_B: Tensor) -> Tensor:
    """How much more factual the chosen answer is, never below 0: F-DPO (arXiv 2601.03027) has labels h in {0, 1} and
    takes h_rejected - h_chosen; here the scores of the pair are in their place. [B] -> [B]."""
    return score_gap_B.clamp(min=0)


@dataclass(frozen=True)
class Loss:
    """A loss over pairs. One of your own is such an object in a file: ``--loss ./file.py:object``."""

    function: Callable[[Tensor, Tensor, float, Any], Tensor]
    """(differences d [B], chosen score - rejected score [B], beta, parameters) -> [B] losses."""
    options: type[BaseModel] | None = None
    """The parameters of the loss, with their defaults: what ``--loss-option`` gives. None: those in ``TrainConfig``."""
    averaged: bool = False
    """Whether log ratios are per token with weight, r / sum_t w_t."""
    reference_free: bool = False
    """Whether log ratios leave out log pi_ref."""
    needs_scores: bool = False
    """Whether a pair needs the scores of both answers."""


sigmoid = Loss(lambda d_B, gap_B, beta, p: sigmoid_loss(beta * d_B))
# for IPO, averaging is TRL's reading, which the authors of IPO confirmed there
ipo = Loss(lambda d_B, gap_B, beta, p: ipo_loss(d_B, beta), averaged=True)
hinge = Loss(lambda d_B, gap_B, beta, p: hinge_loss(beta * d_B))
conservative = Loss(lambda d_B, gap_B, beta, p: conservative_loss(beta * d_B, p.label_smoothing))
robust = Loss(lambda d_B, gap_B, beta, p: robust_loss(beta * d_B, p.label_smoothing))
# SimPO (Meng et al. 2024, arXiv 2405.14734, eq. 6)
simpo = Loss(lambda d_B, gap_B, beta, p: sigmoid_loss(beta * d_B - p.simpo_gamma), averaged=True, reference_free=True)
sigmoid_norm = Loss(lambda d_B, gap_B, beta, p: sigmoid_loss(beta * d_B), averaged=True)
# LD-DPO (Liu et al. 2024, arXiv 2409.06411) is in the weights: weights.desensitise
ld_dpo = Loss(lambda d_B, gap_B, beta, p: sigmoid_loss(beta * d_B))
fdpo_margin = Loss(
    lambda d_B, gap_B, beta, p: sigmoid_loss(beta * (d_B - p.margin_gamma * factuality_margin(gap_B))),
    needs_scores=True,
)
# Another loss is one more object here, its name in ``loss_registry.LOSSES``, and its formula in docs/method.md.


def pair_losses(chosen_B: Tensor, rejected_B: Tensor, score_gap_B: Tensor, config: TrainConfig) -> Tensor:
    """The chosen loss of every pair, without the SFT term.

    Args:
        chosen_B, rejected_B: the log ratios of the answers, averaged where the loss is ``averaged``.
        score_gap_B: the score of the chosen answer less that of the rejected answer.

    Returns:
        [B] float32.
    """
    loss = LOSSES[config.loss]
    return loss.function(chosen_B - rejected_B, score_gap_B, config.beta, config.loss_parameters())


def sft_loss(logps_A: Tensor, weight_A: Tensor) -> Tensor:
    """-(sum_t w_t log pi(y_t)) / sum_t w_t of the chosen answers: the NLL term of Pang et al. 2024 (arXiv 2404.19733,
    eq. 1), over the tokens that the mask keeps.

    Args:
        logps_A: weighted sums of log pi of all answers; ``weight_A``: sums of their weights.

    Returns:
        [B] nats per token.
    """
    return -logps_A[0::2] / weight_A[0::2]


def hold_loss(logps_N: Tensor, ref_logps_N: Tensor, answer_N: Tensor, answers: int) -> Tensor:
    """sum_t (log pi(y_t) - log pi_ref(y_t))^2 / 2 over all tokens of both answers, whatever their weight.

    This term is ours. For an answer drawn from the reference, the sum over its tokens is in expectation and to second
    order the Kullback-Leibler divergence (the estimator k2 of Schulman, "Approximating KL divergence", 2020).

    Args:
        logps_N, ref_logps_N, answer_N: as of ``masked_log_ratios``, of all tokens of the answers.

    Returns:
        [B] nats squared.
    """
    drift_A = sum_per_answer((logps_N - ref_logps_N) ** 2 / 2, answer_N, answers)
    return drift_A[0::2] + drift_A[1::2]

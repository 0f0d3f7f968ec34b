"""The Mask-DPO loss (Gu et al., ICLR 2025, arXiv 2503.02846, equation 4), as free functions over tensors.

    r(x, y) = sum_t w_t (log pi(y_t) - log pi_ref(y_t))
    L       = -log sigmoid(beta (r(x, y_chosen) - r(x, y_rejected)))

With all w_t = 1 this is DPO (Rafailov et al., 2023, arXiv 2305.18290, equation 7).
Shape letters: N predicted tokens of all answers of a batch, A answers, B pairs.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def masked_log_ratios(
    logps_N: Tensor, ref_logps_N: Tensor, weights_N: Tensor, answer_N: Tensor, answers: int
) -> Tensor:
    """r(x, y): the weighted sum of log pi - log pi_ref over the tokens of every answer.

    Args:
        logps_N, ref_logps_N, weights_N: float32, one entry a token.
        answer_N: int64, the answer (0 <= i < answers) that the token belongs to.

    Returns:
        [A] float32, A = answers.
    """
    zero = torch.zeros(answers, dtype=torch.float32, device=logps_N.device)
    return zero.index_add(0, answer_N, weights_N * (logps_N - ref_logps_N))


def sigmoid_loss(chosen_B: Tensor, rejected_B: Tensor, beta: float) -> Tensor:
    """-log sigmoid(beta (r_chosen - r_rejected)): [B] losses from [B] log ratios."""
    return -logsigmoid(beta * (chosen_B - rejected_B))

"""One training step of Mask-DPO, from encoded pairs to changed weights, in the order in which it is computed.

For a pair of a chosen and a rejected answer to the prompt x (arXiv 2503.02846, eq. 4)

    r(x, y) = sum_t w_t (log pi(y_t | x, y_<t) - log pi_ref(y_t | x, y_<t))
    L       = -log sigmoid(beta * (r(x, y_chosen) - r(x, y_rejected)))

where w_t is 1 for a token of a right sentence of the chosen answer or of a wrong sentence of the rejected one, and 0
for every other token (``data/weights.py``). ``losses.py`` has the formulas, and the other losses of the same r.

    Trainer.step      all forward and backward passes of a step, then the gradient's norm, then AdamW
    Trainer.forward   one forward pass: log pi and log pi_ref
    with_losses       r and L from both

Shape letters: N predicted tokens of all answers of a batch, A answers (pair i: chosen 2i, rejected 2i + 1), B pairs.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from maskdpo.devices import compute_type
from maskdpo.errors import UserError
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.batch import Batch, Layout, collate, passes
from maskdpo.train.data.encoded_pair import EncodedPair
from maskdpo.train.loss_registry import LOSSES
from maskdpo.train.losses import hold_loss, masked_log_ratios, pair_losses, sft_loss, sum_per_answer
from maskdpo.train.model.sharding import logps_of
from maskdpo.train.optim import make_optimizer
from maskdpo.train.ranks import ALONE, Ranks

Reference = Mapping[str, NDArray[np.float32]]
"""log pi_ref of all answer tokens by pair id: [chosen tokens + rejected tokens] float32 (``run/reference.py``)."""


@dataclass(frozen=True)
class ForwardPass:
    """One forward pass over some of the pairs of a step, and what follows from its log-probs; all float32."""

    batch: Batch
    logps_N: Tensor
    ref_logps_N: Tensor
    ratio_A: Tensor
    """r(x, y); for a loss that is ``averaged`` divided by the sum of the weights."""
    logps_A: Tensor
    """sum_t w_t log pi(y_t | x, y_<t)."""
    nll_B: Tensor
    """-log pi of the chosen answer per token, weighted: the term that ``sft_weight`` multiplies."""
    hold_B: Tensor | None
    """Half the squared log ratios of all tokens: the term that ``hold_weight`` multiplies, computed only with it."""
    loss_B: Tensor
    """The loss with these terms, times the pair's weight."""
    counts: bool = True
    """False for a pass without which the ranks would make different numbers of passes (``data.batch.passes``)."""

    def detached(self) -> "ForwardPass":
        """The same numbers without their gradients."""
        tensors: dict[str, Any] = {
            name: value.detach() for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **tensors)


class Trainer:
    """A policy, the log-probs of its reference, and its optimiser; ``step`` trains on one batch of pairs.

    All ranks call the same methods with the same pairs. Each rank works on its part of them.
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
        self.optimizer = make_optimizer(groups, config, ranks)

    def step(self, pairs: Sequence[EncodedPair], lr: float) -> tuple[list[ForwardPass], float]:
        """One optimiser step on these pairs, in as many forward passes as the token budget asks for.

        The loss is divided by the number of pairs of the whole step: how the pairs fall into passes and to ranks does
        not change the gradient.

        Returns:
            This rank's forward passes, without gradients, and the norm of the gradient before clipping.

        Raises:
            UserError: a loss or the gradient is not finite; no weight has been changed then.
        """
        done: list[ForwardPass] = []
        for group, counts in self.passes(pairs):
            forward = replace(self.forward(group), counts=counts)
            loss = forward.loss_B.sum() / len(pairs)
            if counts:
                _check_finite(forward.loss_B, group)
            torch.autograd.backward(loss if counts else 0 * loss)
            done.append(forward.detached())
        grad_norm = clip_gradients(self.model, self.config.max_grad_norm)
        if not math.isfinite(grad_norm):  # the same number on every rank; weights and AdamW are as they were
            raise UserError(
                f"the gradient is not finite (its norm is {grad_norm}) in the step with the pairs "
                f"{', '.join(pair.id for pair in pairs)}; no weight was changed. A smaller `lr` may help, or `dtype` "
                "float32"
            )
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return done, grad_norm

    def passes(self, pairs: Sequence[EncodedPair]) -> list[tuple[list[EncodedPair], bool]]:
        """This rank's forward passes over the pairs, and whether each counts (``data.batch.passes``)."""
        return passes(pairs, self.config.tokens_per_batch, self.layout, self.ranks)

    def forward(self, pairs: Sequence[EncodedPair]) -> ForwardPass:
        """One forward pass over these pairs, with the loss of each."""
        every = self.config.predicts_every_token
        batch = self.collate(pairs, every_token=every)
        ref_logps_N = self.reference_logps(pairs, batch, every_token=every)
        return with_losses(batch, self.logps(batch), ref_logps_N, self.config)

    def collate(self, pairs: Sequence[EncodedPair], *, every_token: bool = False) -> Batch:
        """The pairs as rows on the model's device."""
        return collate(pairs, self.layout, every_token=every_token).to(str(self.model.device))

    def logps(self, batch: Batch) -> Tensor:
        """[N] float32 log pi(y_t | x, y_<t) of the batch's tokens."""
        with self.autocast():
            return logps_of(self.model, batch)

    def autocast(self) -> AbstractContextManager[object]:
        """Matrix products in the compute type; the weights keep theirs. Where layers are computed again, no casts are
        cached: the cache would hold those of all layers until the end of the forward pass, for one use each."""
        return torch.autocast(
            self.model.device.type,
            dtype=torch.bfloat16,
            enabled=self.compute == "bfloat16",
            cache_enabled=not self.config.gradient_checkpointing,
        )

    def reference_logps(self, pairs: Sequence[EncodedPair], batch: Batch, *, every_token: bool = False) -> Tensor:
        """[N] log pi_ref of the batch's tokens; 0 for a loss without a reference, whose log ratios are then log pi."""
        if LOSSES[self.config.loss].reference_free:
            return torch.zeros_like(batch.weight_N)
        parts = []
        for pair in pairs:
            weights = np.concatenate([pair.chosen.weights, pair.rejected.weights])
            found = self.reference[pair.id]
            parts.append(found if every_token else found[np.flatnonzero(weights)])
        return torch.from_numpy(np.concatenate(parts)).to(self.model.device)


def with_losses(batch: Batch, logps_N: Tensor, ref_logps_N: Tensor, config: TrainConfig) -> ForwardPass:
    """The losses of a forward pass from the log-probs of its tokens.

    Args:
        logps_N, ref_logps_N: float32 log-probs of ``batch.target_N`` under policy and reference: of the tokens with
            weight, and of all others where the config ``predicts_every_token``.
    """
    answers = 2 * batch.pairs
    ratio_A = masked_log_ratios(logps_N, ref_logps_N, batch.weight_N, batch.answer_N, answers)
    weight_A = sum_per_answer(batch.weight_N, batch.answer_N, answers)
    logps_A = sum_per_answer(batch.weight_N * logps_N, batch.answer_N, answers)
    if LOSSES[config.loss].averaged:
        ratio_A = ratio_A / weight_A
    loss_B = pair_losses(ratio_A[0::2], ratio_A[1::2], batch.score_gap_B, config)
    nll_B = sft_loss(logps_A, weight_A)
    if config.sft_weight:
        loss_B = loss_B + config.sft_weight * nll_B
    hold_B = None
    if config.hold_weight:
        hold_B = hold_loss(logps_N, ref_logps_N, batch.answer_N, answers)
        loss_B = loss_B + config.hold_weight * hold_B
    return ForwardPass(batch, logps_N, ref_logps_N, ratio_A, logps_A, nll_B, hold_B, batch.pair_weight_B * loss_B)


def clip_gradients(model: PreTrainedModel, largest: float) -> float:
    """Scale gradients down to the norm ``largest``, taken over the shards of all ranks; returns the norm before."""
    parameters = [p for p in model.parameters() if p.grad is not None]
    # One norm for each gradient in float32, because a norm of the type of a bfloat16 gradient has three digits.
    norms = [torch.linalg.vector_norm(p.grad, dtype=torch.float32) for p in parameters if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    torch.nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return float(norm.item())


def _check_finite(loss_B: Tensor, pairs: Sequence[EncodedPair]) -> None:
    finite_B = torch.isfinite(loss_B)
    if not finite_B.all():
        bad = [pair.id for pair, finite in zip(pairs, finite_B, strict=True) if not finite]
        raise UserError(f"the loss is not a finite number for the pairs {', '.join(bad)}; a smaller `lr` may help")

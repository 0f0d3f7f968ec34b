"""One training step of a judge, and its figures on held-out sentences.

Shape letters: B sentences, K sets of a target, L labels of the model, T tokens.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maskdpo.classifier.inputs import Encoded
from maskdpo.classifier.model import collate, label_logits
from maskdpo.devices import compute_type
from maskdpo.errors import UserError
from maskdpo.judge_training.base import Base
from maskdpo.judge_training.settings import TrainJudgeConfig
from maskdpo.judge_training.targets import Target
from maskdpo.schemas import Label, group_of
from maskdpo.verdicts.confusion import balanced_accuracy
from maskdpo.verdicts.decision import likeliest
from maskdpo.verdicts.figures import auroc, right_probability


@dataclass(frozen=True, slots=True)
class Row:
    """A labelled sentence as the model reads it."""

    id: str
    encoded: Encoded
    target: Target
    label: Label
    weight: float = 1.0

    @property
    def tokens(self) -> int:
        return len(self.encoded.ids)


@dataclass(frozen=True)
class HeldOutFigures:
    """On held-out sentences, read as in training: with the best passage alone."""

    step: int
    loss: float
    auroc: float | None
    """Right against wrong, by P(right) / (P(right) + P(wrong)); None where there is only one of them."""
    accuracy: float | None
    """Balanced: the mean recall of right, wrong and no fact, before any calibration."""


def target_losses(logits_BL: Tensor, sets_BKL: Tensor, shares_BK: Tensor) -> Tensor:
    """[B]: - sum_k q_k log sum_(l in S_k) p_l (``targets``).

    Args:
        sets_BKL: bool; a set that only fills up a row has all labels.
        shares_BK: 0 for such a set.
    """
    logps_BL = logits_BL.log_softmax(-1)
    logps_BK = logps_BL[:, None].masked_fill(~sets_BKL, -torch.inf).logsumexp(-1)
    return -(shares_BK * logps_BK).sum(-1)


def target_tensors(targets: Sequence[Target], labels: Sequence[Label], device: torch.device) -> tuple[Tensor, Tensor]:
    """The sets [B, K, L] and shares [B, K] of ``target_losses``."""
    most = max(len(target) for target in targets)
    everything = [(0.0, frozenset(labels))]
    rows = [[*target, *everything * (most - len(target))] for target in targets]
    sets = torch.tensor([[[label in meant for label in labels] for _, meant in row] for row in rows], device=device)
    return sets, torch.tensor([[share for share, _ in row] for row in rows], device=device)


class Trainer:
    """A base, its optimiser, and what one step does."""

    def __init__(self, base: Base, config: TrainJudgeConfig) -> None:
        self.base = base
        self.config = config
        self.labels = [each.label for each in base.classifier.spec.labels]
        self.device = base.model.device
        self.compute = compute_type(config.dtype, self.device.type)
        trained = [p for p in base.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.peak_lr, fused=True)

    def step(self, rows: Sequence[Row], step: int, lr: float) -> tuple[float, float]:
        """One optimiser step, in as many forward passes as the token budget asks for.

        Args:
            step: its number, from which dropout follows.

        Returns:
            The mean loss, and the norm of the gradient before clipping.

        Raises:
            UserError: the loss or the gradient is not finite; no weight has been changed then.
        """
        self.base.model.train()
        torch.manual_seed(self.config.seed * 1_000_003 + step)
        total = 0.0
        for some in passes(rows, self.config.tokens_per_batch):
            loss = self._weighted(some).sum() / len(rows)
            torch.autograd.backward(loss)
            total += loss.item()
        trained = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(trained, self.config.max_grad_norm).item()
        if not (math.isfinite(total) and math.isfinite(norm)):
            raise UserError(
                f"the loss ({total:g}) or its gradient ({norm:g}) is not finite in step {step + 1}; no weight was "
                "changed. A smaller `lr` may help, or `dtype` float32"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total, norm

    def _weighted(self, rows: Sequence[Row]) -> Tensor:
        """[B]: the losses times the weights of the rows."""
        sets, shares = target_tensors([row.target for row in rows], self.labels, self.device)
        weight_B = torch.tensor([row.weight for row in rows], device=self.device)
        return weight_B * target_losses(self._logits(rows), sets, shares)

    def _logits(self, rows: Sequence[Row]) -> Tensor:
        with self._autocast():
            return label_logits(self.base.classifier, collate(self.base.classifier, [row.encoded for row in rows]))

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.compute == "bfloat16")

    @torch.no_grad()
    def evaluate(self, rows: Sequence[Row], step: int) -> HeldOutFigures:
        """The figures of the present weights."""
        self.base.model.eval()
        losses: dict[str, float] = {}
        probabilities: dict[str, list[float]] = {}
        for some in passes(rows, 2 * self.config.tokens_per_batch):
            logits_BL = self._logits(some)
            sets, shares = target_tensors([row.target for row in some], self.labels, self.device)
            found = target_losses(logits_BL, sets, shares).tolist()
            losses |= zip((row.id for row in some), found, strict=True)
            probabilities |= zip((row.id for row in some), logits_BL.softmax(-1).tolist(), strict=True)
        weights = np.array([row.weight for row in rows])
        scores = [scores_of(self.labels, probabilities[row.id]) for row in rows]
        return HeldOutFigures(
            step,
            float(np.average([losses[row.id] for row in rows], weights=weights)),
            *_figures(scores, [row.label for row in rows]),
        )


def scores_of(labels: Sequence[Label], probabilities: Sequence[float]) -> dict[Label, float]:
    """The probability of each label; outputs of the same label are summed."""
    found: dict[Label, float] = {}
    for label, probability in zip(labels, probabilities, strict=True):
        found[label] = min(1.0, found.get(label, 0.0) + probability)
    return found


def _figures(scores: Sequence[dict[Label, float]], labels: Sequence[Label]) -> tuple[float | None, float | None]:
    groups = ("right", "wrong", "no_fact")
    gold = np.array([groups.index(group_of(label)) for label in labels])
    said = np.array([groups.index(group_of(likeliest(one))) for one in scores])
    table = np.zeros((3, 3))
    np.add.at(table, (gold, said), 1)
    two = [i for i, label in enumerate(labels) if group_of(label) != "no_fact"]
    support = np.array([right_probability(scores[i]) or 0.0 for i in two])
    area = auroc(support, gold[two] == 0) if two else math.nan
    accuracy = float(balanced_accuracy(table))
    return None if math.isnan(area) else area, None if math.isnan(accuracy) else accuracy


def passes(rows: Sequence[Row], tokens: int) -> Iterator[list[Row]]:
    """The rows in groups of similar length, each of at most so many tokens with its padding."""
    ordered = sorted(rows, key=lambda row: -row.tokens)
    while ordered:
        size = max(1, tokens // ordered[0].tokens)
        yield ordered[:size]
        ordered = ordered[size:]

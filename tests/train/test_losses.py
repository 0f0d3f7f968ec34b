"""The loss: by hand, against plain DPO written anew, and what may not change its gradient."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from train_helpers import random_model, random_pair
from transformers import PreTrainedModel

from maskdpo.errors import UserError
from maskdpo.schemas import SIDES
from maskdpo.train.batch import Layout, collate
from maskdpo.train.config import TrainConfig
from maskdpo.train.encode import EncodedPair, EncodedSide
from maskdpo.train.loop import Trainer
from maskdpo.train.losses import masked_log_ratios, sigmoid_loss

BETA = 0.5


class KeepGradients:
    """In place of the optimiser: keeps the gradients of the step and changes nothing."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.param_groups: list[dict[str, float]] = []
        self.gradients = torch.empty(0)

    def step(self) -> None:
        self.gradients = flat_gradient(self.model)

    def zero_grad(self, *, set_to_none: bool) -> None:
        self.model.zero_grad(set_to_none=set_to_none)


def flat_gradient(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])


def some_pairs(count: int = 6) -> list[EncodedPair]:
    rng = np.random.default_rng(3)
    return [replace(random_pair(rng, str(i)), weight=float(rng.uniform(0.5, 2))) for i in range(count)]


def without_mask(pair: EncodedPair) -> EncodedPair:
    sides = [EncodedSide(s.ids, np.ones(len(s.ids), dtype=np.float32)) for s in (pair.chosen, pair.rejected)]
    return replace(pair, chosen=sides[0], rejected=sides[1], weight=1.0)


def moved(model: PreTrainedModel, seed: int = 7) -> PreTrainedModel:
    """The same model some steps of training later, as it were."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model


def make_trainer(
    pairs: Sequence[EncodedPair], *, tokens_per_batch: int = 60, layout: Layout = "shared", move: bool = True
) -> tuple[Trainer, KeepGradients]:
    """A trainer whose policy has moved away from its reference."""
    config = TrainConfig(model="tiny", beta=BETA, tokens_per_batch=tokens_per_batch, max_grad_norm=1e9, dtype="float32")
    trainer = Trainer(random_model(), config, layout)
    trainer.reference = trainer.compute_reference(pairs, lambda done: None)
    if move:
        moved(trainer.model)
    keep = KeepGradients(trainer.model)
    trainer.optimizer = keep  # type: ignore[assignment]
    return trainer, keep


def plain_loss(pairs: Sequence[EncodedPair]) -> tuple[float, Tensor]:
    """Mean loss and gradient, straight from the papers: every answer on its own, in float64."""

    def log_likelihood(model: PreTrainedModel, pair: EncodedPair, side: EncodedSide) -> Tensor:
        ids = torch.tensor(np.concatenate([pair.prompt_ids, side.ids]))
        logps_TV = model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
        logps_T = logps_TV[torch.arange(len(ids) - 1), ids[1:]][len(pair.prompt_ids) - 1 :]
        return (logps_T * torch.tensor(side.weights)).sum()

    reference, policy = random_model().double(), moved(random_model()).double()
    losses = []
    for pair in pairs:
        ratio = [
            log_likelihood(policy, pair, pair.side(side)) - log_likelihood(reference, pair, pair.side(side)).detach()
            for side in SIDES
        ]
        losses.append(pair.weight * torch.log1p(torch.exp(-BETA * (ratio[0] - ratio[1]))))
    loss = torch.stack(losses).mean()
    loss.backward()
    return loss.item(), flat_gradient(policy)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_loss_by_hand() -> None:
    """chosen: 1 * (-1 - -2) + 0 * 5 + 0.5 * (-3 - -1) = 0; rejected: 1 * (-4 - -2) = -2; beta 0.5: -log sigmoid(1)."""
    logps = torch.tensor([-1.0, -5.0, -3.0, -4.0])
    reference = torch.tensor([-2.0, -10.0, -1.0, -2.0])
    weights = torch.tensor([1.0, 0.0, 0.5, 1.0])
    ratios = masked_log_ratios(logps, reference, weights, torch.tensor([0, 0, 0, 1]), 2)
    assert ratios.tolist() == [0, -2]
    loss = sigmoid_loss(ratios[:1], ratios[1:], beta=0.5)
    assert loss.item() == pytest.approx(0.3132616875182228, rel=1e-6)


def test_loss_far_out_stays_finite() -> None:
    losses = sigmoid_loss(torch.tensor([-1e6, 1e6]), torch.tensor([0.0, 0.0]), beta=1.0)
    assert losses.tolist() == [1e6, 0]


def test_masked_positions_get_exactly_no_gradient() -> None:
    logps = torch.randn(8, requires_grad=True)
    weights = torch.tensor([1.0, 0, 1, 0, 0, 1, 0, 1])
    answers = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    ratios = masked_log_ratios(logps, torch.randn(8), weights, answers, 2)
    sigmoid_loss(ratios[0::2], ratios[1::2], BETA).sum().backward()
    assert logps.grad is not None
    assert torch.equal(logps.grad == 0, weights == 0)
    assert (logps.grad[[0, 2]] < 0).all()
    assert (logps.grad[[5, 7]] > 0).all()


def test_what_is_predicted_at_masked_positions_does_not_matter() -> None:
    """Another token at the end of an answer, where it has no weight and nothing follows, changes nothing."""
    pairs = [without_mask(pair) for pair in some_pairs(3)]
    for pair in pairs:
        pair.chosen.weights[-1] = pair.rejected.weights[-1] = 0
    results = []
    for other in (0, 17):
        for pair in pairs:
            pair.chosen.ids[-1] = (pair.chosen.ids[-1] + other) % 200
        trainer, keep = make_trainer(pairs)
        results.append((trainer.step(pairs, lr=0.0)["loss"], keep.gradients))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    assert relative(results[0][1], results[1][1]) < 1e-5


@pytest.mark.parametrize("layout", ["shared", "padded"])
def test_all_ones_is_vanilla_dpo(layout: Layout) -> None:
    pairs = [without_mask(pair) for pair in some_pairs()]
    trainer, keep = make_trainer(pairs, layout=layout)
    loss, gradient = plain_loss(pairs)
    assert abs(loss - math.log(2)) > 0.01, "the models are too close for this test to say anything"
    assert trainer.step(pairs, lr=0.0)["loss"] == pytest.approx(loss, rel=1e-5)
    assert relative(keep.gradients, gradient) < 1e-4


@pytest.mark.parametrize("layout", ["shared", "padded"])
def test_masks_and_pair_weights_are_those_of_the_definition(layout: Layout) -> None:
    pairs = some_pairs()
    trainer, keep = make_trainer(pairs, layout=layout)
    loss, gradient = plain_loss(pairs)
    assert trainer.step(pairs, lr=0.0)["loss"] == pytest.approx(loss, rel=1e-5)
    assert relative(keep.gradients, gradient) < 1e-4


@pytest.mark.parametrize("masked", [True, False])
def test_the_first_loss_is_ln_2(masked: bool) -> None:
    pairs = [replace(pair, weight=1.0) if masked else without_mask(pair) for pair in some_pairs()]
    trainer, _ = make_trainer(pairs, move=False)
    stats = trainer.step(pairs, lr=0.0)
    assert stats["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert stats["margin"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("tokens_per_batch", [1, 25, 60, 10_000])
def test_order_and_budget_do_not_change_the_gradient(tokens_per_batch: int) -> None:
    pairs = some_pairs(9)
    trainer, keep = make_trainer(pairs)
    loss = trainer.step(pairs, lr=0.0)["loss"]
    other, other_keep = make_trainer(pairs, tokens_per_batch=tokens_per_batch)
    shuffled = [pairs[i] for i in np.random.default_rng(tokens_per_batch).permutation(len(pairs))]
    assert other.step(shuffled, lr=0.0)["loss"] == pytest.approx(loss, rel=1e-6)
    assert relative(other_keep.gradients, keep.gradients) < 2e-6


def test_the_figures_of_a_step() -> None:
    pairs = some_pairs()
    trainer, _ = make_trainer(pairs)
    stats = trainer.step(pairs, lr=0.25)
    kept = sum(np.count_nonzero(pair.chosen.weights) for pair in pairs) / sum(len(pair.chosen.ids) for pair in pairs)
    assert stats["kept_chosen"] == pytest.approx(kept)
    assert stats["margin"] == pytest.approx(stats["reward_chosen"] - stats["reward_rejected"], abs=1e-6)
    assert 0 <= stats["accuracy"] <= 1
    assert stats["lr"] == 0.25


def test_a_loss_that_is_not_finite_names_the_pair() -> None:
    pairs = some_pairs()
    trainer, _ = make_trainer(pairs)
    trainer.reference["4"] = np.full_like(trainer.reference["4"], np.nan)
    with pytest.raises(UserError, match="not a finite number for the pairs 4;"):
        trainer.step(pairs, lr=0.0)


def test_weights_of_a_batch_stand_beside_their_tokens() -> None:
    pairs = some_pairs()
    batch = collate(pairs, "shared")
    expected = [
        (token, weight, 2 * i + k)
        for i, pair in enumerate(pairs)
        for k, side in enumerate(SIDES)
        for token, weight in zip(pair.side(side).ids.tolist(), pair.side(side).weights.tolist(), strict=True)
        if weight
    ]
    found = zip(batch.target_N.tolist(), batch.weight_N.tolist(), batch.answer_N.tolist(), strict=True)
    assert list(found) == expected

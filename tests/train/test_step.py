"""A step of training: losses and gradients against the papers written anew, one answer at a time in float64; what may
not change them; what is measured."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from train_helpers import random_model, random_pair
from transformers import PreTrainedModel

from maskdpo.errors import UserError
from maskdpo.schemas import SIDES
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.batch import Layout, collate
from maskdpo.train.data.encoded_pair import EncodedPair, EncodedSide
from maskdpo.train.loss_registry import LOSSES
from maskdpo.train.run.figures import kept_tokens, masked_rewards, mean_figures
from maskdpo.train.run.loop import run_steps
from maskdpo.train.run.reference import compute_reference
from maskdpo.train.step import Trainer

BETA = 0.5
NAMES: Sequence[str] = list(LOSSES)


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
    weights, gaps = rng.uniform(0.5, 2, count), rng.uniform(-0.2, 0.5, count)
    return [
        replace(random_pair(rng, str(i)), weight=float(weight), score_gap=float(gap))
        for i, (weight, gap) in enumerate(zip(weights, gaps, strict=True))
    ]


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
    pairs: Sequence[EncodedPair],
    *,
    tokens_per_batch: int = 60,
    layout: Layout = "shared",
    move: bool = True,
    **settings: Any,
) -> tuple[Trainer, KeepGradients]:
    """A trainer whose policy has moved away from its reference."""
    fixed = {"model": "tiny", "beta": BETA, "max_grad_norm": 1e9, "dtype": "float32"}
    config = TrainConfig.model_validate(fixed | {"tokens_per_batch": tokens_per_batch} | settings)
    trainer = Trainer(random_model(), config, layout)
    if not LOSSES[config.loss].reference_free:
        trainer.reference = compute_reference(trainer, pairs)
    if move:
        moved(trainer.model)
    keep = KeepGradients(trainer.model)
    trainer.optimizer = keep  # type: ignore[assignment]
    return trainer, keep


def step(trainer: Trainer, pairs: Sequence[EncodedPair], lr: float) -> dict[str, float]:
    """What a step measures."""
    passes, _ = trainer.step(pairs, lr)
    return mean_figures(trainer, passes, len(pairs))


def log_likelihoods(model: PreTrainedModel, pair: EncodedPair, side: EncodedSide) -> Tensor:
    """[T] log-probs of an answer's tokens: unpadded, alone, all logits."""
    ids = torch.tensor(np.concatenate([pair.prompt_ids, side.ids]))
    logps_TV = model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
    return logps_TV[torch.arange(len(ids) - 1), ids[1:]][len(pair.prompt_ids) - 1 :]


def log_sigmoid(z: Tensor) -> Tensor:
    return -torch.log1p(torch.exp(-z))


FROM_THE_PAPERS: dict[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {
    "sigmoid": lambda d, mean, free, gap: -log_sigmoid(BETA * d),
    "sigmoid-norm": lambda d, mean, free, gap: -log_sigmoid(BETA * mean),
    "ld-dpo": lambda d, mean, free, gap: -log_sigmoid(BETA * d),  # the rest is in the weights
    "ipo": lambda d, mean, free, gap: (mean - 0.5 / BETA) ** 2,
    "hinge": lambda d, mean, free, gap: (1 - BETA * d).clamp(min=0),
    "conservative": lambda d, mean, free, gap: -0.9 * log_sigmoid(BETA * d) - 0.1 * log_sigmoid(-BETA * d),
    "robust": lambda d, mean, free, gap: (-0.9 * log_sigmoid(BETA * d) + 0.1 * log_sigmoid(-BETA * d)) / 0.8,
    "simpo": lambda d, mean, free, gap: -log_sigmoid(BETA * free - 0.5),
    "fdpo-margin": lambda d, mean, free, gap: -log_sigmoid(BETA * (d - 10.0 * max(0.0, gap))),
}
"""(difference of the weighted sums of log ratios, of their means, of the means of log pi; score gap) -> loss, with the
default parameters."""


def plain_loss(
    pairs: Sequence[EncodedPair], name: str = "sigmoid", sft_weight: float = 0.0, hold_weight: float = 0.0
) -> tuple[float, Tensor]:
    """Mean loss and gradient, straight from the papers: every answer on its own, in float64."""
    reference, policy = random_model().double(), moved(random_model()).double()
    losses = []
    for pair in pairs:
        sums, means, free, drift = [], [], [], []
        for answer in (pair.chosen, pair.rejected):
            weights = torch.tensor(answer.weights).double()
            logps_T = log_likelihoods(policy, pair, answer)
            ratio_T = logps_T - log_likelihoods(reference, pair, answer).detach()
            ratio = (weights * ratio_T).sum()
            drift.append((ratio_T**2).sum() / 2)
            sums.append(ratio)
            means.append(ratio / weights.sum())
            free.append((weights * logps_T).sum() / weights.sum())
        differences = [values[0] - values[1] for values in (sums, means, free)]
        loss = FROM_THE_PAPERS[name](*differences, pair.score_gap) - sft_weight * free[0]
        loss = loss + hold_weight * (drift[0] + drift[1])
        losses.append(pair.weight * loss)
    loss = torch.stack(losses).mean()
    loss.backward()
    return loss.item(), flat_gradient(policy)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


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
        results.append((step(trainer, pairs, lr=0.0)["loss"], keep.gradients))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    assert relative(results[0][1], results[1][1]) < 1e-5


@pytest.mark.parametrize("layout", ["shared", "padded"])
def test_all_ones_is_vanilla_dpo(layout: Layout) -> None:
    pairs = [without_mask(pair) for pair in some_pairs()]
    trainer, keep = make_trainer(pairs, layout=layout)
    loss, gradient = plain_loss(pairs)
    assert abs(loss - math.log(2)) > 0.01, "the models are too close for this test to say anything"
    assert step(trainer, pairs, lr=0.0)["loss"] == pytest.approx(loss, rel=1e-5)
    assert relative(keep.gradients, gradient) < 1e-4


def with_soft_weights(pairs: Sequence[EncodedPair]) -> list[EncodedPair]:
    """Weights between 0 and 1 in place of the ones."""
    rng = np.random.default_rng(5)

    def soft(side: EncodedSide) -> EncodedSide:
        factors = rng.uniform(0.1, 1, len(side.ids)).astype(np.float32)
        return EncodedSide(side.ids, side.weights * factors)

    return [replace(pair, chosen=soft(pair.chosen), rejected=soft(pair.rejected)) for pair in pairs]


@pytest.mark.parametrize("layout", ["shared", "padded"])
@pytest.mark.parametrize("name", NAMES)
def test_losses_and_gradients_are_those_of_the_papers(name: str, layout: Layout) -> None:
    pairs = with_soft_weights(some_pairs())
    trainer, keep = make_trainer(pairs, layout=layout, loss=name, sft_weight=0.3)
    loss, gradient = plain_loss(pairs, name, sft_weight=0.3)
    assert step(trainer, pairs, lr=0.0)["loss"] == pytest.approx(loss, rel=1e-5)
    assert relative(keep.gradients, gradient) < 1e-5


@pytest.mark.parametrize("layout", ["shared", "padded"])
@pytest.mark.parametrize("name", ["sigmoid", "ipo"])
def test_all_tokens_are_held_at_the_reference(name: str, layout: Layout) -> None:
    """The term by itself in float64; figures of the tokens with weight are those without the term."""
    pairs = [replace(pair, weight=1.0) for pair in with_soft_weights(some_pairs())]
    trainer, keep = make_trainer(pairs, layout=layout, loss=name, hold_weight=0.2)
    loss, gradient = plain_loss(pairs, name, hold_weight=0.2)
    figures = step(trainer, pairs, lr=0.0)
    assert figures["loss"] == pytest.approx(loss, rel=1e-5)
    assert relative(keep.gradients, gradient) < 1e-5
    without, _ = make_trainer(pairs, layout=layout, loss=name)
    plain = step(without, pairs, lr=0.0)
    assert figures.pop("hold") == pytest.approx((loss - plain["loss"]) / 0.2, rel=1e-4)
    plain |= masked_rewards(without, pairs)
    assert figures.keys() == plain.keys()
    for figure in figures.keys() - {"loss"}:
        assert figures[figure] == pytest.approx(plain[figure], rel=1e-4), figure


@pytest.mark.parametrize("name", NAMES)
def test_the_first_margin_is_0_whatever_the_loss_and_the_mask(name: str) -> None:
    for pairs in (some_pairs(), [without_mask(pair) for pair in some_pairs()], with_soft_weights(some_pairs())):
        trainer, _ = make_trainer(pairs, move=False, loss=name)
        margin = step(trainer, pairs, lr=0.0)["margin"]
        assert (abs(margin) < 1e-5) == (not LOSSES[name].reference_free)


@pytest.mark.parametrize("masked", [True, False])
def test_the_first_loss_is_ln_2(masked: bool) -> None:
    pairs = [replace(pair, weight=1.0) if masked else without_mask(pair) for pair in some_pairs()]
    trainer, _ = make_trainer(pairs, move=False)
    assert step(trainer, pairs, lr=0.0)["loss"] == pytest.approx(math.log(2), abs=1e-5)


@pytest.mark.parametrize("name", ["sigmoid", "ipo", "simpo", "fdpo-margin"])
@pytest.mark.parametrize("tokens_per_batch", [1, 25, 60, 10_000])
def test_order_and_budget_do_not_change_the_gradient(tokens_per_batch: int, name: str) -> None:
    pairs = some_pairs(9)
    trainer, keep = make_trainer(pairs, loss=name, sft_weight=0.1)
    loss = step(trainer, pairs, lr=0.0)["loss"]
    other, other_keep = make_trainer(pairs, tokens_per_batch=tokens_per_batch, loss=name, sft_weight=0.1)
    shuffled = [pairs[i] for i in np.random.default_rng(tokens_per_batch).permutation(len(pairs))]
    assert step(other, shuffled, lr=0.0)["loss"] == pytest.approx(loss, rel=1e-6)
    assert relative(other_keep.gradients, keep.gradients) < 2e-6


def test_the_figures_of_a_step() -> None:
    pairs = some_pairs()
    trainer, _ = make_trainer(pairs)
    stats = step(trainer, pairs, lr=0.25)
    assert stats["margin"] == pytest.approx(stats["reward_chosen"] - stats["reward_rejected"], abs=1e-6)
    assert 0 <= stats["accuracy"] <= 1


@pytest.mark.parametrize("tokens_per_batch", [1, 10_000])
@pytest.mark.parametrize("name", ["sigmoid", "sigmoid-norm", "simpo"])
def test_rewards_of_kept_and_masked_tokens_are_those_of_the_definition(name: str, tokens_per_batch: int) -> None:
    pairs = with_soft_weights(some_pairs())
    trainer, keep = make_trainer(pairs, tokens_per_batch=tokens_per_batch, loss=name)
    masked = masked_rewards(trainer, pairs)
    assert flat_gradient_is_empty(trainer.model), "the look at masked tokens leaves no gradient"
    stats = step(trainer, pairs, lr=0.0) | masked
    reference, policy = random_model(), moved(random_model())
    for side in SIDES:
        expected = {"kept": 0.0, "masked": 0.0}
        for pair in pairs:
            answer = pair.side(side)
            ratio_T = log_likelihoods(policy, pair, answer).detach()
            if name != "simpo":
                ratio_T = ratio_T - log_likelihoods(reference, pair, answer).detach()
            kept_T = torch.tensor(answer.weights) > 0
            expected["kept"] += BETA * ratio_T[kept_T].sum().item() / len(pairs)
            expected["masked"] += BETA * ratio_T[~kept_T].sum().item() / len(pairs)
        for which, value in expected.items():
            assert abs(value) > 1e-3, "the models are too close for this test to say anything"
            assert stats[f"reward_{which}_{side}"] == pytest.approx(value, rel=1e-4, abs=1e-5)
    assert keep.gradients.abs().sum() > 0


def flat_gradient_is_empty(model: nn.Module) -> bool:
    return all(parameter.grad is None for parameter in model.parameters())


def test_kept_tokens_are_counted_by_side() -> None:
    pairs = some_pairs()
    counts = kept_tokens(pairs)
    for side in SIDES:
        kept = sum(int((pair.side(side).weights > 0).sum()) for pair in pairs)
        assert counts[f"kept_tokens_{side}"] == kept
        assert counts[f"kept_{side}"] == pytest.approx(kept / sum(len(pair.side(side).ids) for pair in pairs))


def look_steps(every: int, last: int) -> list[int]:
    pairs = some_pairs(4)
    trainer, _ = make_trainer(pairs, move=False, log_masked_every=every, batch_size=2)
    stats = list(run_steps(trainer, pairs, 0, last))
    assert all((s.reward_masked_chosen is None) == (s.reward_masked_rejected is None) for s in stats)
    return [s.step for s in stats if s.reward_masked_chosen is not None]


@pytest.mark.parametrize(("every", "expected"), [(0, []), (1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (10, [5])])
def test_masked_tokens_are_looked_at_every_n_steps_and_at_the_last(every: int, expected: list[int]) -> None:
    assert look_steps(every, 5) == expected


def test_looking_at_masked_tokens_changes_nothing() -> None:
    pairs = some_pairs()
    losses = []
    for every in (0, 1):
        config = TrainConfig(model="tiny", lr=1e-2, batch_size=2, dtype="float32", log_masked_every=every)
        trainer = Trainer(random_model(), config, "shared")
        trainer.reference = compute_reference(trainer, pairs)
        losses.append([stats.loss for stats in run_steps(trainer, pairs, 0, 6)])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_reference_of_another_model_stops_at_the_first_step(name: str) -> None:
    pairs = some_pairs()
    trainer, _ = make_trainer(pairs, move=False, loss=name, batch_size=len(pairs))
    trainer.reference = {
        name: logps - np.arange(len(logps), dtype=np.float32) for name, logps in trainer.reference.items()
    }
    if LOSSES[name].reference_free:
        assert len(list(run_steps(trainer, pairs, 0, 1))) == 1
        return
    with pytest.raises(UserError, match="before the first step the margin must be 0"):
        list(run_steps(trainer, pairs, 0, 1))


def test_a_loss_that_is_not_finite_names_the_pair() -> None:
    pairs = some_pairs()
    trainer, _ = make_trainer(pairs)
    trainer.reference["4"] = np.full_like(trainer.reference["4"], np.nan)
    with pytest.raises(UserError, match="not a finite number for the pairs 4;"):
        step(trainer, pairs, lr=0.0)


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


def test_a_gradient_that_is_not_finite_changes_no_weight() -> None:
    """Scales that leave every log-prob as it is, and make the squares of the gradient overflow."""
    model = random_model(tie_word_embeddings=False)
    with torch.no_grad():
        model.model.norm.weight *= 1e-30
        model.lm_head.weight *= 1e30
    pairs = some_pairs(3)
    trainer = Trainer(model, TrainConfig(model="m", dtype="float32"), "shared")
    trainer.reference = compute_reference(trainer, pairs)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(
        UserError, match=r"the gradient is not finite \(its norm is inf\) .* the pairs 0, 1, 2; no weight"
    ):
        trainer.step(pairs, 1e-3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not trainer.optimizer.state

"""Every loss against values computed by hand, and what holds for all of them: masks, first step, signs."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from maskdpo.train.config import TrainConfig
from maskdpo.train.data.batch import Batch
from maskdpo.train.loss_registry import LOSSES
from maskdpo.train.losses import hold_loss, masked_log_ratios, pair_losses, sft_loss
from maskdpo.train.run.figures import pair_figures
from maskdpo.train.step import with_losses

LN_3_2, LN_3 = math.log(1.5), math.log(3)
NAMES: Sequence[str] = list(LOSSES)


def config_for(loss: str, **settings: Any) -> TrainConfig:
    return TrainConfig.model_validate({"model": "tiny", "loss": loss, "beta": 0.5} | settings)


def make_batch(weights: list[float], answers: list[int], gaps: list[float]) -> Batch:
    """A batch without rows: what the loss needs of it."""
    rows_RL, places_N = torch.zeros(1, 1, dtype=torch.long), torch.zeros(len(weights), dtype=torch.long)
    return Batch(
        input_ids_RL=rows_RL,
        position_ids_RL=rows_RL,
        segments_RL=rows_RL,
        row_N=places_N,
        column_N=places_N,
        target_N=places_N,
        weight_N=torch.tensor(weights),
        answer_N=torch.tensor(answers),
        pair_weight_B=torch.ones(len(gaps)),
        score_gap_B=torch.tensor(gaps),
        layout="shared",
    )


# beta 0.5 and d = 2 ln 2: z = ln 2, sigmoid(z) = 2/3, -log sigmoid(z) = ln 3/2, -log sigmoid(-z) = ln 3.
BY_HAND: list[tuple[str, dict[str, float], float]] = [
    ("sigmoid", {}, LN_3_2),
    ("sigmoid-norm", {}, LN_3_2),
    ("ld-dpo", {"ld_alpha": 0.25}, LN_3_2),
    ("ipo", {}, (2 * math.log(2) - 1) ** 2),
    ("hinge", {}, 1 - math.log(2)),
    ("hinge", {"beta": 2.0}, 0.0),
    ("conservative", {"label_smoothing": 0.25}, 0.75 * LN_3_2 + 0.25 * LN_3),
    ("conservative", {"label_smoothing": 0.0}, LN_3_2),
    ("robust", {"label_smoothing": 0.25}, (0.75 * LN_3_2 - 0.25 * LN_3) / 0.5),
    ("robust", {"label_smoothing": 0.0}, LN_3_2),
    ("simpo", {"simpo_gamma": 2 * math.log(2)}, LN_3),
    ("simpo", {"simpo_gamma": 0.0}, LN_3_2),
    # the score gap is 0.5: z = ln 2 - 0.5 * (8 ln 2) * 0.5 = -ln 2
    ("fdpo-margin", {"margin_gamma": 8 * math.log(2)}, LN_3),
    ("fdpo-margin", {"margin_gamma": 0.0}, LN_3_2),
]


@pytest.mark.parametrize(("name", "settings", "expected"), BY_HAND)
def test_losses_by_hand(name: str, settings: dict[str, float], expected: float) -> None:
    chosen, rejected = torch.tensor([3 * math.log(2)]), torch.tensor([math.log(2)])
    loss_B = pair_losses(chosen, rejected, torch.tensor([0.5]), config_for(name, **settings))
    assert loss_B.tolist() == pytest.approx([expected], abs=1e-6)


def test_every_loss_has_a_value_by_hand() -> None:
    assert {name for name, *_ in BY_HAND} == set(LOSSES) == set(NAMES)


def test_a_factuality_margin_is_never_negative() -> None:
    """A chosen answer with the lower score is trained as in DPO."""
    config = config_for("fdpo-margin", margin_gamma=3.0)
    losses = pair_losses(torch.zeros(2), torch.zeros(2), torch.tensor([-0.5, 0.0]), config)
    assert losses.tolist() == pytest.approx([math.log(2)] * 2)


# Two pairs; the log ratios of the tokens are 1, 5, -2 (chosen) and -2 (rejected), then 1 and 3.
LOGPS = [-1.0, -5.0, -3.0, -4.0, -1.0, -1.0]
REFERENCE = [-2.0, -10.0, -1.0, -2.0, -2.0, -4.0]
WEIGHTS = [1.0, 0.0, 0.5, 1.0, 0.5, 0.25]
ANSWERS = [0, 0, 0, 1, 2, 3]


def figures_of(
    config: TrainConfig, logps_N: Tensor, reference_N: Tensor, batch: Batch | None = None
) -> dict[str, Tensor]:
    batch = batch or make_batch(WEIGHTS, ANSWERS, [0.5, 0.0])
    return pair_figures(with_losses(batch, logps_N, reference_N, config), config.beta)


def test_log_ratios_by_hand() -> None:
    """1 * 1 + 0 * 5 + 0.5 * -2 = 0; 1 * -2 = -2; 0.5 * 1 = 0.5; 0.25 * 3 = 0.75."""
    ratios = masked_log_ratios(
        torch.tensor(LOGPS), torch.tensor(REFERENCE), torch.tensor(WEIGHTS), torch.tensor(ANSWERS), 4
    )
    assert ratios.tolist() == [0, -2, 0.5, 0.75]


@pytest.mark.parametrize(
    ("name", "chosen", "rejected"),
    [("sigmoid", [0.0, 0.5], [-2.0, 0.75]), ("ipo", [0.0, 1.0], [-2.0, 3.0]), ("sigmoid-norm", [0, 1], [-2, 3])],
)
def test_averaged_losses_divide_by_the_sum_of_the_weights(
    name: str, chosen: list[float], rejected: list[float]
) -> None:
    figures = figures_of(config_for(name), torch.tensor(LOGPS), torch.tensor(REFERENCE))
    assert figures["reward_chosen"].tolist() == pytest.approx([0.5 * r for r in chosen])
    assert figures["reward_rejected"].tolist() == pytest.approx([0.5 * r for r in rejected])
    assert figures["accuracy"].tolist() == [1, 0]


def test_simpo_by_hand_from_its_tokens() -> None:
    """Mean log pi: chosen (1 * -1 + 0.5 * -3) / 1.5 = -5/3, rejected -4; z = 0.5 * 7/3 - 0.5 = 2/3."""
    figures = figures_of(config_for("simpo", simpo_gamma=0.5), torch.tensor(LOGPS), torch.zeros(6))
    assert figures["loss"][0].item() == pytest.approx(math.log1p(math.exp(-2 / 3)))


def test_the_sft_term_by_hand() -> None:
    """-(1 * -1 + 0.5 * -3) / 1.5 = 5/3; -(0.5 * -1) / 0.5 = 1."""
    logps_A = torch.tensor([-2.5, -4.0, -0.5, -0.25])
    assert sft_loss(logps_A, torch.tensor([1.5, 1.0, 0.5, 0.25])).tolist() == pytest.approx([5 / 3, 1])


@pytest.mark.parametrize("name", NAMES)
def test_the_sft_term_is_added_to_any_loss(name: str) -> None:
    logps, reference = torch.tensor(LOGPS), torch.tensor(REFERENCE)
    without, with_ = (figures_of(config_for(name, sft_weight=w), logps, reference)["loss"] for w in (0.0, 2.0))
    assert (with_ - without).tolist() == pytest.approx([2 * 5 / 3, 2 * 1], abs=1e-5)


def test_rewards_of_kept_tokens_are_unweighted() -> None:
    """The batch holds tokens with weight only, as training does: 1 - 2, -2 and 1, 3, each times beta = 0.5."""
    kept = [i for i, weight in enumerate(WEIGHTS) if weight]
    batch = make_batch([WEIGHTS[i] for i in kept], [ANSWERS[i] for i in kept], [0.5, 0.0])
    logps, reference = (torch.tensor([values[i] for i in kept]) for values in (LOGPS, REFERENCE))
    figures = figures_of(config_for("sigmoid"), logps, reference, batch)
    assert figures["reward_kept_chosen"].tolist() == [-0.5, 0.5]
    assert figures["reward_kept_rejected"].tolist() == [-1, 1.5]


def test_the_term_that_holds_tokens_at_the_reference_by_hand() -> None:
    answer_N = torch.tensor([0, 0, 1, 2, 3])
    logps_N = torch.tensor([-1.0, -2.0, -4.0, -1.0, -2.0], requires_grad=True)
    held_B = hold_loss(logps_N, torch.tensor([-2.0] * 5), answer_N, 4)
    assert held_B.tolist() == pytest.approx([0.5 + 2.0, 0.5])
    held_B.sum().backward()
    assert logps_N.grad is not None and logps_N.grad.tolist() == [1.0, 0.0, -2.0, 1.0, 0.0]


def test_nothing_is_held_without_a_reference() -> None:
    with pytest.raises(ValueError, match="simpo has no reference to hold tokens at"):
        config_for("simpo", hold_weight=0.1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sft_weight", [0.0, 1.0])
def test_masked_positions_get_exactly_no_gradient(name: str, sft_weight: float) -> None:
    generator = torch.Generator().manual_seed(3)
    logps_N = (-torch.rand(8, generator=generator)).requires_grad_()
    weights = [1.0, 0, 0.5, 0, 0, 1, 0, 1]
    batch = make_batch(weights, [0, 0, 0, 0, 1, 1, 1, 1], [0.5])
    reference_N = torch.zeros(8) if LOSSES[name].reference_free else -torch.rand(8, generator=generator)
    with_losses(batch, logps_N, reference_N, config_for(name, sft_weight=sft_weight)).loss_B.sum().backward()
    assert logps_N.grad is not None
    assert torch.equal(logps_N.grad == 0, torch.tensor(weights) == 0)
    assert (logps_N.grad[[0, 2]] < 0).all(), "the chosen answer becomes more likely"
    assert (logps_N.grad[[5, 7]] > 0).all(), "the rejected answer becomes less likely"


# What a loss is where policy and reference are equal: d = 0.
AT_FIRST: dict[str, float] = {
    "sigmoid": math.log(2),
    "sigmoid-norm": math.log(2),
    "ld-dpo": math.log(2),
    "ipo": 1.0,  # (1 / (2 * 0.5))^2
    "hinge": 1.0,
    "conservative": math.log(2),
    "robust": math.log(2),
    "fdpo-margin": math.log(2),  # where the scores are equal
}


@pytest.mark.parametrize("name", AT_FIRST)
@pytest.mark.parametrize("weights", [[1.0, 0, 0, 1], [1.0] * 4, [0.5, 0.25, 1, 0]])
def test_the_first_loss_is_known_for_any_mask(name: str, weights: list[float]) -> None:
    logps = torch.tensor([-1.0, -2, -3, -4])
    figures = figures_of(config_for(name), logps, logps, make_batch(weights, [0, 0, 1, 1], [0.0]))
    assert figures["loss"].tolist() == pytest.approx([AT_FIRST[name]])
    assert figures["margin"].tolist() == [0]


def test_the_first_loss_is_known_of_all_but_those_without_a_reference() -> None:
    assert set(NAMES) - set(AT_FIRST) == {name for name in NAMES if LOSSES[name].reference_free}


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"ipo"}))
def test_losses_far_out_stay_finite(name: str) -> None:
    """With beta 0.5 and gaps of 0 all fall, or rise, in step with the difference."""
    losses = pair_losses(torch.tensor([-1e6, 1e6]), torch.zeros(2), torch.zeros(2), config_for(name))
    assert torch.isfinite(losses).all()
    assert losses[0] > 1e5


def test_averaged_losses_are_the_three_of_the_manual() -> None:
    assert {name for name in NAMES if LOSSES[name].averaged} == {"ipo", "simpo", "sigmoid-norm"}

"""What a labelled sentence says about the classes of a judge, and the loss of it."""

import math

import pytest
import torch

from maskdpo.errors import UserError
from maskdpo.judge_training.examples import LabelledSentence
from maskdpo.judge_training.step import _figures, target_losses, target_tensors
from maskdpo.judge_training.targets import CLASS_SETS, choose_classes, target_of
from maskdpo.schemas import Label, Prompt, Scores

RIGHT, WRONG, CONTRA, UNVER, NONE = (
    Label.NO_HALLUCINATION, Label.HALLUCINATION, Label.CONTRADICTORY, Label.UNVERIFIABLE, Label.NO_FACT,
)  # fmt: skip
FOUR, THREE, TWO = (CLASS_SETS[name] for name in ("four", "three", "two"))


def example(label: Label, scores: Scores | None = None) -> LabelledSentence:
    return LabelledSentence("a#0", Prompt(id="p", prompt="", reference="x"), "t", "y", (0, 1), "y", label, scores)


def examples(**counts: int) -> list[LabelledSentence]:
    return [example(Label(name)) for name, count in counts.items() for _ in range(count)]


@pytest.mark.parametrize(
    ("counts", "classes"),
    [
        ({"no_hallucination": 5, "hallucination": 5}, TWO),
        ({"no_hallucination": 5, "hallucination": 5, "no_fact": 2}, THREE),
        ({"no_hallucination": 5, "contradictory": 5, "unverifiable": 5, "no_fact": 2}, FOUR),
        ({"no_hallucination": 5, "contradictory": 5, "unverifiable": 5}, FOUR[:3]),
        ({"no_hallucination": 5, "contradictory": 5, "no_fact": 2}, THREE),  # one kind of wrong is just wrong
        ({"no_hallucination": 500, "hallucination": 499, "no_fact": 1}, TWO),  # one row teaches no class
    ],
)
def test_the_data_decides_the_classes(counts: dict[str, int], classes: tuple[Label, ...]) -> None:
    assert choose_classes("auto", examples(**counts), soft=True) == classes


def test_the_probabilities_of_a_large_judge_are_classes_too() -> None:
    rows = [example(RIGHT, {RIGHT: 0.6, CONTRA: 0.2, UNVER: 0.2}), example(CONTRA, {RIGHT: 0.1, CONTRA: 0.8})]
    assert choose_classes("auto", rows, soft=True) == FOUR[:3]
    assert choose_classes("auto", rows, soft=False) == TWO


def test_sentences_of_one_kind_teach_nothing() -> None:
    with pytest.raises(UserError, match=r"of one kind only \(3 no_hallucination\).*`augment`"):
        choose_classes("auto", examples(no_hallucination=3), soft=True)
    with pytest.raises(UserError, match="of one kind only"):
        choose_classes("auto", examples(no_fact=3, unverifiable=2), soft=True)


def test_a_class_that_nobody_has_seen_is_refused() -> None:
    with pytest.raises(UserError, match="no sentence has the label no_fact"):
        choose_classes("three", examples(no_hallucination=3, hallucination=3), soft=True)


@pytest.mark.parametrize(
    ("label", "scores", "classes", "target"),
    [
        (RIGHT, None, TWO, {frozenset({RIGHT}): 1}),
        (WRONG, None, FOUR, {frozenset({CONTRA, UNVER}): 1}),  # only "wrong": the sum of the wrong labels
        (CONTRA, None, FOUR, {frozenset({CONTRA}): 1}),
        (CONTRA, None, THREE, {frozenset({WRONG}): 1}),
        (NONE, None, TWO, None),
        (RIGHT, {RIGHT: 0.7, WRONG: 0.3}, TWO, {frozenset({RIGHT}): 0.7, frozenset({WRONG}): 0.3}),
        (RIGHT, {RIGHT: 0.7, CONTRA: 0.1, UNVER: 0.2}, TWO, {frozenset({RIGHT}): 0.7, frozenset({WRONG}): 0.3}),
        (RIGHT, {RIGHT: 0.6, WRONG: 0.2, NONE: 0.2}, TWO, {frozenset({RIGHT}): 0.75, frozenset({WRONG}): 0.25}),
        # the judge stopped after its first question: nothing tells the other labels apart
        (NONE, {NONE: 0.9}, THREE, {frozenset({NONE}): 0.9, frozenset({RIGHT, WRONG}): 0.1}),
        (NONE, {NONE: 1.0}, TWO, None),
    ],
)
def test_targets(
    label: Label, scores: Scores | None, classes: tuple[Label, ...], target: dict[frozenset[Label], float] | None
) -> None:
    found = target_of(label, scores, classes)
    if target is None:
        assert found is None
        return
    assert found is not None
    assert {meant: share for share, meant in found} == pytest.approx(target)


def test_the_loss_is_minus_the_log_of_the_summed_probability() -> None:
    logits = torch.tensor([[1.0, 2.0, -1.0, 0.5], [0.3, 0.1, 0.2, 0.0]], dtype=torch.float64, requires_grad=True)
    found = [target_of(WRONG, None, FOUR), target_of(RIGHT, {RIGHT: 0.8, UNVER: 0.2}, FOUR)]
    targets = [target for target in found if target]
    assert len(targets) == 2
    sets, shares = target_tensors(targets, FOUR, logits.device)
    losses = target_losses(logits, sets, shares.double())
    p, q = logits.detach().softmax(-1).tolist()
    assert losses[0].item() == pytest.approx(-math.log(p[1] + p[2]))
    assert losses[1].item() == pytest.approx(-0.8 * math.log(q[0]) - 0.2 * math.log(q[2]), rel=1e-6)
    losses.sum().backward()
    assert logits.grad is not None
    # of the wrong labels, each is pushed up in proportion to what it has: the row does not say which one it is
    up = (-logits.grad[0, 1:3]).tolist()
    assert up[0] / up[1] == pytest.approx(p[1] / p[2])
    assert torch.isfinite(logits.grad).all()


def test_held_out_figures_are_of_the_label_that_the_judge_gives() -> None:
    """The class first: wrong at .6 in two labels beats right at .4."""
    scores = [{RIGHT: 0.4, UNVER: 0.35, CONTRA: 0.25}, {RIGHT: 0.9, UNVER: 0.1}]
    assert _figures(scores, [CONTRA, RIGHT])[1] == 1.0

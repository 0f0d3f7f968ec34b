"""Calibrations that are fitted to gold labels: what distorts the scores of a judge is found and undone."""

import numpy as np
import pytest

from maskdpo.errors import UserError
from maskdpo.schemas import Label
from maskdpo.verdicts.aim import Aim, parse_aim
from maskdpo.verdicts.fitting import LEAST_GIVEN, Example, fit, least_threshold

RIGHT, CONTRA, UNVER, WRONG, NO_FACT = Label
LABELS = (RIGHT, CONTRA, UNVER)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def distorted(
    count: int, temperature: float, offsets: tuple[float, ...], *, coarse: bool, seed: int = 0
) -> list[Example]:
    """Gold drawn from known probabilities, and scores such that temperature and offsets give these probabilities."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.5, (count, len(LABELS)))
    truth = softmax(z)
    gold = [LABELS[rng.choice(len(LABELS), p=p)] for p in truth]
    scores = softmax((np.log(truth) - np.array(offsets)) * temperature)
    rows = [dict(zip(LABELS, map(float, row), strict=True)) for row in scores]
    return [
        Example(row, WRONG if coarse and label is not RIGHT else label) for row, label in zip(rows, gold, strict=True)
    ]


@pytest.mark.parametrize("coarse", [False, True])
def test_temperature_and_offsets_are_found(coarse: bool) -> None:
    """Also where gold says only that a sentence is wrong, up to what such gold can tell."""
    found = fit(distorted(4000, 2.5, (1.0, -1.0, 0.0), coarse=coarse), Aim())
    assert found.temperature == pytest.approx(2.5, rel=0.1)
    if not coarse:
        differences = np.diff([found.offsets[label] for label in LABELS])
        assert differences == pytest.approx([-2.0, 1.0], abs=0.15)


def test_little_gold_changes_little() -> None:
    found = fit(distorted(2, 2.5, (3.0, 0.0, 0.0), coarse=False), Aim())
    assert 0.4 < found.temperature < 2.5
    assert max(map(abs, found.offsets.values())) < 1.5


def test_a_gold_label_that_the_scores_do_not_speak_of_is_the_unassigned_probability() -> None:
    """``staged`` stops at no_fact: then nothing is known of the other labels."""
    early = [Example({NO_FACT: 0.6}, RIGHT)] * 60 + [Example({NO_FACT: 0.6}, NO_FACT)] * 20
    found = fit(early, Aim())
    assert found.apply({NO_FACT: 0.6})[NO_FACT] == pytest.approx(0.25, abs=0.03)
    assert found.choose({NO_FACT: 0.6})[0] == NO_FACT  # no label gets what is unassigned


def test_a_judge_that_never_speaks_of_a_gold_label() -> None:
    spoken = distorted(200, 1.0, (0.0, 0.0, 0.0), coarse=False)
    with_facts = fit([*spoken, *[Example({RIGHT: 0.5, CONTRA: 0.5}, NO_FACT)] * 50], Aim())
    alone = fit(spoken, Aim())
    assert with_facts.temperature == pytest.approx(alone.temperature)
    assert with_facts.offsets == pytest.approx(alone.offsets)
    with pytest.raises(UserError, match="no score to any label that gold has"):
        fit([Example({NO_FACT: 1.0}, RIGHT)], Aim())


def test_votes_are_smoothed() -> None:
    """2 of 3 votes and 3 of 3 votes differ, and neither is certain."""
    told = [Example({RIGHT: 1.0}, RIGHT)] * 45 + [Example({RIGHT: 1.0}, WRONG)] * 5
    told += [Example({WRONG: 2 / 3, RIGHT: 1 / 3}, WRONG)] * 30 + [Example({WRONG: 2 / 3, RIGHT: 1 / 3}, RIGHT)] * 20
    found = fit(told, Aim(), votes=3)
    assert found.apply({RIGHT: 1.0})[RIGHT] == pytest.approx(0.9, abs=0.04)
    assert found.apply({WRONG: 2 / 3, RIGHT: 1 / 3})[WRONG] == pytest.approx(0.6, abs=0.04)


def test_balanced_weighs_by_the_classes_of_gold() -> None:
    told = [Example({RIGHT: 0.9, WRONG: 0.1}, RIGHT)] * 30 + [Example({RIGHT: 0.8, WRONG: 0.2}, WRONG)] * 10
    found = fit(told, Aim())
    assert found.weights == {"right": pytest.approx(2 / 3), "wrong": pytest.approx(2), "no_fact": 1}
    assert found.thresholds is None
    assert found.choose({RIGHT: 0.9, WRONG: 0.1})[0] == RIGHT
    assert found.choose({RIGHT: 0.8, WRONG: 0.2})[0] == WRONG


def test_rare_sentences_without_a_fact_win_only_where_they_are_likeliest() -> None:
    """A judge whose probability of no_fact says nothing."""
    rng = np.random.default_rng(2)
    told = []
    for value, share in zip(rng.random(600).tolist(), rng.dirichlet((3, 3, 1), 600).tolist(), strict=True):
        scores = dict(zip((RIGHT, WRONG, NO_FACT), share, strict=True))
        told.append(Example(scores, NO_FACT if value < 0.08 else RIGHT if value < 0.7 else WRONG))
    found = fit(told, Aim())
    assert [found.choose(example.scores)[0] for example in told].count(NO_FACT) < 10
    assert found.weights["no_fact"] == 1
    assert found.weights["wrong"] > 1 > found.weights["right"] > 0.5


def test_precision_gives_a_label_from_the_least_threshold_on() -> None:
    rng = np.random.default_rng(1)
    told = [
        Example({RIGHT: float(p), WRONG: float(1 - p)}, RIGHT if rng.random() < p else WRONG) for p in rng.random(400)
    ]
    found = fit(told, Aim("precision", 0.9))
    assert found.thresholds is not None
    for name, label in (("right", RIGHT), ("wrong", WRONG)):
        threshold = found.thresholds[name]
        assert threshold is not None
        given = [e for e in told if found.choose(e.scores)[0] == label]
        assert sum(e.gold == label for e in given) / len(given) >= 0.9
        assert 0.6 < threshold < 0.95
    assert found.choose({RIGHT: 0.55, WRONG: 0.45})[0] is None


def test_the_least_threshold() -> None:
    good, bad = [(0.9, True, 1.0)] * 5, [(0.8, False, 1.0)] * 5
    assert least_threshold([*good, *bad], 0.9) == 0.9
    assert least_threshold([*good, *bad, *[(0.7, True, 1.0)] * 90], 0.9) == 0.7  # equal or better further below
    assert least_threshold(bad, 0.9) is None
    assert least_threshold([(0.9, True, 1.0)] * (LEAST_GIVEN - 1), 0.9) is None
    assert least_threshold([], 0.9) is None
    tie = [(0.9, True, 1.0)] * 9 + [(0.9, False, 1.0)] * 3
    assert least_threshold(tie, 0.9) is None  # whatever the order of equal probabilities
    assert least_threshold(tie[::-1], 0.9) is None
    heavy = [(0.8, True, 1.0)] * 9 + [(0.8, False, 4.0)]
    assert least_threshold(heavy, 0.9) is None  # the one that is wrong stands for four


def test_weights_balance_the_answers_and_not_the_sample() -> None:
    """Nine in ten sentences are right; the sample has as many wrong ones as right ones, by their probabilities."""
    rows = [Example({RIGHT: 0.8, WRONG: 0.2}, RIGHT)] * 9 + [Example({RIGHT: 0.3, WRONG: 0.7}, WRONG)]
    whole = fit(rows * 10, Aim()).weights
    drawn = [Example(rows[0].scores, RIGHT, 9.0)] * 10 + [Example(rows[-1].scores, WRONG, 1.0)] * 10
    assert fit(drawn, Aim()).weights == pytest.approx(whole)
    doubtful = [Example({RIGHT: 0.5, WRONG: 0.5}, WRONG, None)] * 50
    assert fit([*drawn, *doubtful], Aim()).weights == pytest.approx(whole)


@pytest.mark.parametrize(
    "text", ["precision", "precision=", "precision=0.5", "precision=1", "recall=0.9", "precision=nan"]
)
def test_aims_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="neither balanced nor precision"):
        parse_aim(text)


def test_aims() -> None:
    assert [str(parse_aim(text)) for text in ("balanced", "precision=0.950")] == ["balanced", "precision=0.95"]

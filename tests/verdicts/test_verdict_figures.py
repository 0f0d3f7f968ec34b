"""Figures of probabilities, against those of scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, confusion_matrix, roc_auc_score

from maskdpo.schemas import Label
from maskdpo.verdicts import confusion
from maskdpo.verdicts.figures import auroc, bins_of, brier, ece, probability_figures, reliability, right_probability


@pytest.mark.parametrize("seed", range(5))
def test_auroc_and_brier_with_ties_and_weights(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, right = rng.integers(0, 12, 80) / 11, rng.random(80) < 0.4
    weights = rng.integers(0, 4, 80).astype(float)
    assert auroc(p, right) == pytest.approx(roc_auc_score(right, p))
    assert auroc(p, right, weights) == pytest.approx(roc_auc_score(right, p, sample_weight=weights))
    assert brier(p, right, weights) == pytest.approx(brier_score_loss(right, p, sample_weight=weights))


def test_one_class_has_no_auroc() -> None:
    assert np.isnan(auroc(np.array([0.1, 0.9]), np.array([True, True])))


def test_calibration_error_of_known_gaps() -> None:
    p = np.array([0.2] * 50 + [0.7] * 50)
    right = np.array([True] * 20 + [False] * 30 + [True] * 30 + [False] * 20)  # .4 and .6
    assert ece(p, right) == pytest.approx((0.2 + 0.1) / 2)
    assert ece(np.array([0.4] * 50 + [0.6] * 50), right) == pytest.approx(0, abs=1e-12)


def test_bins_hold_about_equally_many_and_equal_probabilities_share_one() -> None:
    rng = np.random.default_rng(0)
    assert np.bincount(bins_of(rng.random(200))).tolist() == [20] * 10
    assert np.bincount(bins_of(rng.random(35))).tolist() == pytest.approx([12, 12, 11], abs=1)
    assert bins_of(np.full(50, 0.3)).tolist() == [0] * 50
    p = rng.integers(0, 3, 90) / 2
    assert len(set(zip(bins_of(p).tolist(), p.tolist(), strict=True))) == 3


def test_intervals_are_over_topics() -> None:
    """Ten sentences of a topic that are all alike say no more than one."""
    rng = np.random.default_rng(3)
    p = np.repeat(rng.random(40), 10)
    right = np.repeat(rng.random(40) < p[::10], 10)
    of_topics = probability_figures(p, right, [str(i // 10) for i in range(400)])["auroc"]
    of_sentences = probability_figures(p, right, [str(i) for i in range(400)])["auroc"]
    assert of_topics.value == of_sentences.value
    assert of_topics.high - of_topics.low > 2 * (of_sentences.high - of_sentences.low)


def test_reliability() -> None:
    rng = np.random.default_rng(4)
    p = rng.random(300)
    right = rng.random(300) < p
    bins = reliability(p, right, [str(i // 3) for i in range(300)])
    assert [one.sentences for one in bins] == [30] * 10
    assert all(one.share.low <= one.share.value <= one.share.high for one in bins)
    assert np.corrcoef([one.probability for one in bins], [one.share.value for one in bins])[0, 1] > 0.9
    assert sum(one.share.value * one.sentences for one in bins) == pytest.approx(right.sum())


def test_right_among_right_and_wrong() -> None:
    right, contra, unver, wrong, no_fact = Label
    assert right_probability({right: 0.3, contra: 0.2, unver: 0.1, no_fact: 0.4}) == pytest.approx(0.5)
    assert right_probability({wrong: 0.3}) == 0
    assert right_probability({no_fact: 0.6}) is None


def test_balanced_accuracy() -> None:
    rng = np.random.default_rng(5)
    gold, given = rng.integers(0, 3, 100), rng.integers(0, 3, 100)
    table = confusion_matrix(gold, given).astype(float)
    assert confusion.balanced_accuracy(table) == pytest.approx(balanced_accuracy_score(gold, given))
    assert confusion.balanced_accuracy(table[:2]) == pytest.approx(
        np.mean([(given[gold == c] == c).mean() for c in (0, 1)])
    )
    assert np.isnan(confusion.balanced_accuracy(np.zeros((3, 3))))

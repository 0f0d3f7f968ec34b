"""Intervals over topics: by hand, and whether 95% of them hold the truth."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from maskdpo.verdicts.estimate import (
    AT_LEAST_0,
    BELOW_ONE,
    SHARE,
    UNBOUNDED,
    Estimate,
    Floats,
    few_topics,
    leave_out,
    over_topics,
    ratio,
)

Draw = Callable[[np.random.Generator, int], Floats]
"""[topics, 2]: right sentences and all sentences of each topic."""


def right_of_all(sums: Floats) -> Floats:
    return ratio(sums[..., 0], sums[..., 1])


def mean(sums: Floats) -> Floats:
    return sums[..., 0] / np.maximum(1, sums[..., 1])


def test_the_interval_of_a_mean_is_students() -> None:
    values = np.array([0.0, 1.0, 1.0, 3.0, 4.0, 9.0])
    found = over_topics(mean, np.stack([values, np.ones(6)], 1), UNBOUNDED)
    expected = stats.t.interval(0.95, 5, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)


def test_shares_and_numbers_stay_within_their_bounds() -> None:
    sums = np.array([[9.0, 10.0], [19.0, 20.0], [6.0, 10.0]])
    wide = over_topics(right_of_all, sums, UNBOUNDED)
    share = over_topics(right_of_all, sums, SHARE)
    assert wide.high > 1 > share.high > share.value > share.low > 0
    few = over_topics(mean, np.array([[0.0, 1.0], [0.0, 1.0], [7.0, 1.0]]), AT_LEAST_0)
    assert 0 < few.low < few.value < few.high < math.inf


@pytest.mark.parametrize(
    ("value", "bounds", "low", "high"),
    [
        (0.0, SHARE, 0.0, 1.0),
        (1.0, SHARE, 0.0, 1.0),
        (0.25, SHARE, -0.5, 1.0),
        (1.0, BELOW_ONE, -1.0, 1.0),
        (3.0, AT_LEAST_0, 0.0, 6.0),
        (-2.0, UNBOUNDED, -6.0, 2.0),
    ],
)
def test_topics_that_are_all_alike_may_be_so_by_chance(
    value: float, bounds: tuple[float, float], low: float, high: float
) -> None:
    """``low`` and ``high``: how far the interval would reach if all topics but those seen were otherwise."""
    others = 1 - 0.025 ** (1 / 12)
    found = Estimate.of(value, np.full(12, value), bounds)
    reached = value + others * (low - value), value + others * (high - value)
    assert (found.low, found.high) == pytest.approx((max(bounds[0], reached[0]), min(bounds[1], reached[1])))


@pytest.mark.parametrize("bounds", [AT_LEAST_0, UNBOUNDED])
def test_where_nothing_is_known_there_is_no_interval(bounds: tuple[float, float]) -> None:
    found = Estimate.of(0.0, np.zeros(30), bounds)
    assert (str(found), found.signed()) == ("0.000", "+0.000")
    assert str(Estimate.of(0.5, np.array([]), bounds)) == str(Estimate.of(0.5, np.array([0.4]), bounds)) == "0.500"


def test_only_topics_on_which_the_figure_rests_count() -> None:
    sums = np.array([[9.0, 10.0], [19.0, 20.0], [6.0, 10.0]])
    more = np.concatenate([sums, np.zeros((40, 2))])
    assert over_topics(right_of_all, more, SHARE) == over_topics(right_of_all, sums, SHARE)
    one = np.concatenate([sums[:1], np.zeros((40, 2))])
    assert over_topics(right_of_all, one, SHARE).signed() == "+0.900"
    counted = [over_topics(right_of_all, each, SHARE).topics for each in (sums, more, one)]
    assert counted == [3, 3, 1]


def test_a_star_needs_an_interval_that_leaves_out_0_and_ten_topics() -> None:
    assert Estimate(0.2, 0.1, 0.3, topics=10).signed() == "+0.200 [+0.100, +0.300] *"
    assert Estimate(-0.2, -0.3, -0.1, topics=10).signed() == "-0.200 [-0.300, -0.100] *"
    assert Estimate(0.2, 0.1, 0.3, topics=9).signed() == "+0.200 [+0.100, +0.300]"
    assert Estimate(0.2, -0.1, 0.5, topics=10).signed() == "+0.200 [-0.100, +0.500]"


def test_few_topics_are_said() -> None:
    assert few_topics(1, "no star") == [
        "Only 1 topic: intervals need two, and no star; answers about one topic are not independent."
    ]
    assert few_topics(0) == ["No topic: intervals need two."]
    assert few_topics(9)[0].startswith("Only 9 topics:")
    assert few_topics(10) == []


def test_many_topics_are_left_out_in_groups() -> None:
    few, many = np.repeat(np.arange(20), 3), np.arange(3000)
    assert leave_out(few).tolist() == few.tolist()
    assert np.bincount(leave_out(many)).tolist() == [6] * 500


def even(rng: np.random.Generator, topics: int) -> Floats:
    """Topics of about 40 sentences, of which 70% are right, more in one topic than in another."""
    size = rng.poisson(40, topics) + 1
    return np.stack([rng.binomial(size, rng.beta(7, 3, topics)), size], 1).astype(float)


def uneven(rng: np.random.Generator, topics: int) -> Floats:
    """Topics of 5 to 80 sentences."""
    size = np.ceil(rng.lognormal(3, 0.8, topics)).astype(int)
    return np.stack([rng.binomial(size, rng.beta(3.5, 1.5, topics)), size], 1).astype(float)


def rare(rng: np.random.Generator, topics: int) -> Floats:
    """5% of the sentences, most of them in few topics."""
    size = np.ceil(rng.lognormal(2.5, 0.6, topics)).astype(int)
    return np.stack([rng.binomial(size, rng.beta(0.5, 9.5, topics)), size], 1).astype(float)


WORLDS: dict[str, tuple[Draw, float]] = {"even": (even, 0.7), "uneven": (uneven, 0.7), "rare": (rare, 0.05)}


@pytest.mark.parametrize("topics", [5, 10, 20, 50])
@pytest.mark.parametrize("world", WORLDS)
def test_95_of_100_intervals_of_a_share_hold_the_truth(world: str, topics: int) -> None:
    """The middle 95% of bootstrap samples hold it in 75 to 83 of 100 draws of 5 topics (docs/log.md)."""
    draw, truth = WORLDS[world]
    rng = np.random.default_rng(topics)
    found = [over_topics(right_of_all, draw(rng, topics), SHARE) for _ in range(400)]
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.95 - 2.5 * math.sqrt(0.95 * 0.05 / 400)


@pytest.mark.parametrize("topics", [5, 10, 20, 50])
def test_95_of_100_intervals_of_a_paired_difference_hold_the_truth(topics: int) -> None:
    rng = np.random.default_rng(topics)

    def change(sums: Floats) -> Floats:
        return ratio(sums[..., 2], sums[..., 3]) - ratio(sums[..., 0], sums[..., 1])

    def draw() -> Floats:
        size, p = rng.poisson(20, (2, topics)) + 1, rng.beta(6, 4, topics)
        right = rng.binomial(size, [p, p + 0.3 * (1 - p)])  # on average .6 and .72
        return np.stack([right[0], size[0], right[1], size[1]], 1).astype(float)

    found = [over_topics(change, draw(), UNBOUNDED) for _ in range(400)]
    assert np.mean([one.low <= 0.12 <= one.high for one in found]) >= 0.95 - 2.5 * math.sqrt(0.95 * 0.05 / 400)

"""Strategies: which answers are put together, by hand and for all inputs."""

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdpo.dataset.candidates import Candidate
from maskdpo.dataset.draw import draw, split_of
from maskdpo.dataset.filters import may_be_chosen, may_be_rejected
from maskdpo.dataset.options import PairOptions
from maskdpo.dataset.strategies import STRATEGIES, Eligible, Proposal
from maskdpo.schemas import Counts


def candidate(name: str, score: float, right: int = 1, wrong: int = 1, no_fact: int = 0) -> Candidate:
    return Candidate(name, "q", Path("a.jsonl"), 1, score, Counts(right, wrong, no_fact), 10, name.encode(), False)


def ids(candidates: list[Candidate], **options: object) -> list[str]:
    chosen = PairOptions(**options)  # type: ignore[arg-type]
    return [proposal.id for proposal in STRATEGIES[chosen.strategy](Eligible.of(candidates, chosen), chosen)]


FIVE = [candidate(name, score) for name, score in zip("abcde", (0.9, 0.7, 0.5, 0.3, 0.1), strict=True)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"strategy": "best-worst"}, ["a|e"]),
        ({"strategy": "top-bottom"}, ["a|e", "b|d"]),
        ({"strategy": "top-bottom", "k": 1}, ["a|e"]),
        ({"strategy": "top-bottom", "k": 9}, ["a|e", "b|d"]),  # c would be paired with itself
        ({"strategy": "all"}, ["a|e", "a|d", "a|c", "a|b", "b|e", "b|d", "b|c", "c|e", "c|d", "d|e"]),
        ({"strategy": "best-random", "min_margin": 0.7}, ["a|e"]),  # 0.2 is out, 0.6 is out
    ],
)
def test_five_answers(options: dict[str, object], expected: list[str]) -> None:
    assert ids(FIVE, **options) == expected


@pytest.mark.parametrize("strategy", ["best-worst", "top-bottom", "all", "best-random"])
def test_answers_that_score_the_same_are_never_put_together(strategy: str) -> None:
    assert ids([candidate("a", 0.5, right=5), candidate("b", 0.5, wrong=5)], strategy=strategy, min_margin=0.0) == []


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        # the best by score has no right sentence, the worst no wrong one: the next ones take their places
        ([candidate("a", 1.0, 0), candidate("b", 0.8), candidate("c", 0.2), candidate("d", 0.0, 0, 0, 3)], "b|c"),
        ([candidate("a", 0.9, right=1), candidate("b", 0.9, right=2), candidate("c", 0.1)], "b|c"),
        ([candidate("a", 0.9), candidate("b", 0.1, wrong=1), candidate("c", 0.1, wrong=2)], "a|c"),
        ([candidate("b", 0.9), candidate("a", 0.9), candidate("d", 0.1), candidate("c", 0.1)], "a|c"),
    ],
)
def test_who_is_best_and_worst(candidates: list[Candidate], expected: str) -> None:
    assert ids(candidates) == [expected]


def test_min_right_decides_who_may_be_chosen() -> None:
    short, long = candidate("a", 1.0, right=1, wrong=0), candidate("b", 0.8, right=4)
    worst = candidate("c", 0.1)
    assert ids([short, long, worst], min_right=1) == ["a|c"]
    assert ids([short, long, worst], min_right=2) == ["b|c"]
    nothing = PairOptions(min_right=0)
    assert may_be_chosen(candidate("n", 0.0, 0, 1, no_fact=1), nothing)
    assert not may_be_chosen(candidate("w", 0.0, 0, 1), nothing)  # no token of it would train


def test_best_random_draws_evenly_among_those_that_are_worse_by_the_margin() -> None:
    drawn = Counter(ids(FIVE, strategy="best-random", min_margin=0.3, seed=seed)[0] for seed in range(1200))
    assert set(drawn) == {"a|c", "a|d", "a|e"}
    assert all(number == pytest.approx(400, abs=60) for number in drawn.values())


def test_best_random_proposes_the_worst_where_none_is_worse_by_the_margin() -> None:
    assert ids(FIVE, strategy="best-random", min_margin=0.85) == ["a|e"]  # so that the drop can be counted


candidate_lists = st.lists(
    st.builds(
        candidate,
        st.uuids().map(str),
        st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
        *[st.integers(0, 2)] * 3,
    ),
    min_size=2,
    max_size=9,
    unique_by=lambda c: c.id,
)


@given(candidate_lists, st.sampled_from(sorted(STRATEGIES)), st.integers(0, 3), st.randoms(use_true_random=False))
def test_what_holds_for_every_strategy(
    candidates: list[Candidate], strategy: str, min_right: int, rng: random.Random
) -> None:
    options = PairOptions(strategy=strategy, min_right=min_right, k=3 if strategy == "top-bottom" else None)
    eligible = Eligible.of(candidates, options)
    if not (eligible.chosen and eligible.rejected):
        return
    proposals = STRATEGIES[strategy](eligible, options)
    for better, worse in proposals:
        assert better.score > worse.score
        assert better.counts.right >= min_right
        assert worse.counts.wrong
    assert len({p.id for p in proposals}) == len(proposals)
    assert bool(proposals) == (eligible.chosen[0].score > eligible.rejected[0].score)
    shuffled = rng.sample(candidates, len(candidates))
    assert STRATEGIES[strategy](Eligible.of(shuffled, options), options) == proposals


@given(candidate_lists, st.integers(1, 5))
def test_top_bottom_uses_no_answer_twice(candidates: list[Candidate], k: int) -> None:
    options = PairOptions(strategy="top-bottom", k=k)
    eligible = Eligible.of(candidates, options)
    if eligible.chosen and eligible.rejected:
        used = [answer.id for proposal in STRATEGIES["top-bottom"](eligible, options) for answer in proposal]
        assert len(used) == len(set(used)) <= 2 * k


@given(candidate_lists)
def test_all_means_every_two(candidates: list[Candidate]) -> None:
    expected = {
        Proposal(a, b)
        for a in candidates
        for b in candidates
        if a.score > b.score and may_be_chosen(a, PairOptions()) and may_be_rejected(b)
    }
    eligible = Eligible.of(candidates, PairOptions())
    assert set(STRATEGIES["all"](eligible, PairOptions())) == expected


def test_lots_are_even_and_of_their_own() -> None:
    lots = [draw(0, "x", str(i)) for i in range(2000)]
    assert sum(lots) / len(lots) == pytest.approx(0.5, abs=0.03)
    assert len({draw(0, "x"), draw(1, "x"), draw(0, "x", "y"), draw(0, "xy")}) == 4
    assert draw(0, "t") == draw(0, "t")


def test_the_share_of_held_out_topics_and_the_seed() -> None:
    topics = [f"topic {i}" for i in range(4000)]
    held_out = {topic for topic in topics if split_of(topic, 0.25, seed=0) == "test"}
    other = {topic for topic in topics if split_of(topic, 0.25, seed=1) == "test"}
    assert len(held_out) == pytest.approx(1000, abs=110)
    assert held_out != other
    assert held_out < {topic for topic in topics if split_of(topic, 0.5, seed=0) == "test"}
    assert all(split_of(topic, 0.0, seed=0) == "train" for topic in topics)

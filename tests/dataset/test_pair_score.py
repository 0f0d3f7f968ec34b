"""Scores: hand-computed values, and what each of them rewards."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdpo.dataset.score import SCORES, WeightedCounts, by_confidence, is_bounded, score_of
from maskdpo.schemas import Sentence

NAMES = {"r": "no_hallucination", "w": "contradictory", "u": "unverifiable", "n": "no_fact"}


def sentences(*given: tuple[str, float | None]) -> list[Sentence]:
    """Sentences by letter (right, wrong, unverifiable, no fact, ? not judged) and confidence."""
    more: dict[str, Any] = {"status": "refused"}
    return [
        Sentence(start=i, end=i + 1, label=NAMES.get(letter), confidence=confidence, **(more if letter == "?" else {}))
        for i, (letter, confidence) in enumerate(given)
    ]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [  # right/all, right/judged, right/(right+wrong), 1 - wrong/judged, right - wrong
        (WeightedCounts(2, 1, 1, 1), (2 / 5, 2 / 4, 2 / 3, 3 / 4, 1)),
        (WeightedCounts(1, 3, 0, 0), (1 / 4, 1 / 4, 1 / 4, 1 / 4, -2)),
        (WeightedCounts(0, 0, 3, 0), (0, 0, None, 1, 0)),  # says nothing that could be checked: perfect to ANAH only
        (
            WeightedCounts(1, 0, 0, 9),
            (1 / 10, 1, 1, 1, 1),
        ),  # nine verdicts failed: perfect to scores / judged
        (WeightedCounts(0, 0, 0, 2), (0, None, None, None, 0)),
    ],
)
def test_by_hand(counts: WeightedCounts, expected: tuple[float | None, ...]) -> None:
    names = ("right-of-all", "right-of-judged", "precision", "anah", "difference")
    assert tuple(SCORES) == names
    assert tuple(score_of(counts, name) for name in names) == pytest.approx(expected)


def test_weighted_by_confidence() -> None:
    counts = by_confidence(sentences(("r", 0.5), ("r", None), ("w", 0.25), ("n", 0.75), ("?", None)))
    assert counts == WeightedCounts(right=1.5, wrong=0.25, no_fact=0.75, not_judged=1.0)
    assert score_of(counts, "right-of-all") == pytest.approx(1.5 / 3.5)
    assert score_of(counts, "precision") == pytest.approx(1.5 / 1.75)
    assert score_of(counts, "difference") == 1.25


def test_verdicts_without_any_confidence_weigh_nothing() -> None:
    nothing = by_confidence(sentences(("r", 0.0), ("u", 0.0)))
    assert [score_of(nothing, name) for name in SCORES] == [None, None, None, None, 0.0]


def test_equal_scores_compare_equal() -> None:
    assert score_of(WeightedCounts(right=0.1 + 0.2, wrong=0), "difference") == score_of(
        WeightedCounts(right=0.3), "difference"
    )


all_counts = st.builds(WeightedCounts, *[st.integers(0, 9)] * 4)


@given(all_counts, st.sampled_from(sorted(SCORES)))
def test_a_right_sentence_in_the_place_of_a_wrong_one_never_lowers_a_score(counts: WeightedCounts, name: str) -> None:
    worse = score_of(counts._replace(wrong=counts.wrong + 1), name)
    better = score_of(counts._replace(right=counts.right + 1), name)
    assert worse is not None
    assert better is not None
    assert better >= worse
    assert not is_bounded(name) or 0 <= worse <= better <= 1


@given(all_counts, st.sampled_from(["no_fact", "not_judged", "wrong"]))
def test_only_right_sentences_raise_the_default(counts: WeightedCounts, group: str) -> None:
    longer = score_of(counts._replace(**{group: getattr(counts, group) + 1}), "right-of-all")
    before = score_of(counts, "right-of-all")
    assert longer is not None
    assert before is None or longer <= before
    assert not counts.right or (before is not None and longer < before)

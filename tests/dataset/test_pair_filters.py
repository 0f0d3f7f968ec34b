"""Filters of answers and of pairs, and texts that are too much alike."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdpo.dataset.candidates import Candidate, normalised
from maskdpo.dataset.filters import DroppedAnswer, DroppedPair, answer_problem, pair_problem, too_similar
from maskdpo.dataset.options import PairOptions
from maskdpo.schemas import Counts

GOOD = Candidate("a", "q", Path("a.jsonl"), 1, 0.9, Counts(3, 1), 100, b"a", False)
BAD = Candidate("b", "q", Path("a.jsonl"), 2, 0.2, Counts(1, 3), 100, b"b", False)


@pytest.mark.parametrize(
    ("counts", "options", "problem"),
    [
        (Counts(), {}, DroppedAnswer.SENTENCES),
        (Counts(), {}, DroppedAnswer.SENTENCES),
        (Counts(2, 1), {"min_sentences": 4}, DroppedAnswer.SENTENCES),
        (Counts(2, 1), {"min_sentences": 3}, None),
        (Counts(not_judged=5), {"min_coverage": 0.0}, DroppedAnswer.UNJUDGED),
        (Counts(4, 0, 0, 1), {}, None),  # 4/5 is just enough
        (Counts(3, 0, 0, 1), {}, DroppedAnswer.COVERAGE),
        (Counts(3, 0, 0, 1), {"min_coverage": 0.75}, None),
        (Counts(0, 0, 3, 1), {"min_coverage": 0.75}, None),  # no_fact is a verdict
    ],
)
def test_answers(counts: Counts, options: dict[str, Any], problem: DroppedAnswer | None) -> None:
    assert answer_problem(counts, 0.5, PairOptions(**options)) is problem


def test_an_answer_that_the_score_says_nothing_of() -> None:
    assert answer_problem(Counts(no_fact=3), None, PairOptions()) is DroppedAnswer.NO_SCORE


@pytest.mark.parametrize(
    ("better", "options", "problem"),
    [
        (GOOD, {}, None),
        (GOOD._replace(text_hash=b"b"), {}, DroppedPair.SAME_TEXT),
        (GOOD._replace(raw=True), {}, DroppedPair.FORMS),
        (GOOD._replace(score=0.29), {}, DroppedPair.MARGIN),
        (GOOD._replace(score=0.3), {}, None),  # 0.3 - 0.2 is less than 0.1 in floats
        (GOOD._replace(characters=400), {}, None),
        (GOOD._replace(characters=401), {}, DroppedPair.LENGTH),
        (GOOD._replace(characters=24), {}, DroppedPair.LENGTH),  # the shorter may be either
        (GOOD._replace(characters=9), {"max_length_ratio": float("inf")}, None),
    ],
)
def test_pairs(better: Candidate, options: dict[str, Any], problem: DroppedPair | None) -> None:
    assert pair_problem(better, BAD, PairOptions(**options)) is problem


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Born in Paris.", "  born\n in\tPARIS. ", True),
        ("Ｂｏｒｎ　in Paris.", "Born in Paris.", True),  # full-width letters and space
        ("Straße", "STRASSE", True),
        ("Born in 1867.", "Born in 1868.", False),
        ("Born in Paris.", "Born in Paris", False),
    ],
)
def test_normalised(one: str, other: str, same: bool) -> None:
    assert (normalised(one) == normalised(other)) is same


@pytest.mark.parametrize(
    ("limit", "too_much"),
    [(0.85, True), (0.9, False), (0.95, False), (1.0, False)],
)
def test_alike_at_the_limit(limit: float, too_much: bool) -> None:
    """One of ten characters differs: 2 edits (out, in) on 20 characters, so 0.9."""
    assert too_similar("abcdefghij", "abcdeXghij", limit) is too_much


@given(st.text(max_size=30), st.text(max_size=30), st.floats(0, 1))
def test_alike_does_not_depend_on_the_order(one: str, other: str, limit: float) -> None:
    assert too_similar(one, other, limit) == too_similar(other, one, limit)
    assert not (too_similar(one, other, 1.0))

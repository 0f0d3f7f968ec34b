"""Decisions of people: which of them count, over several files, reviewers, undone acts and sentences cut anew."""

from pathlib import Path
from typing import Any

import pytest
from conftest import WriteJsonl
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from maskdpo.errors import InputError
from maskdpo.schemas import Decision, Label, Part
from maskdpo.validate import validate_file
from maskdpo.verdicts.people import read_decisions, standing

TEXT = "Oslo is a city. It is in Norway. It is warm."
RIGHT, WRONG = Label.NO_HALLUCINATION, Label.CONTRADICTORY


def row(number: int, start: int = 0, end: int = 15, reviewer: str = "anna", **more: Any) -> dict[str, Any]:
    """One line of a file; a label is there unless the act says otherwise."""
    made = {"id": f"d{number}", "prompt_id": "p", "answer_id": "a", "response": TEXT, "start": start, "end": end}
    label = {} if more.get("act") in ("skip", "undo") else {"label": "no_hallucination"}
    return made | label | {"reviewer": reviewer} | more


def decisions(*rows: dict[str, Any]) -> list[Decision]:
    return [Decision.model_validate(one) for one in rows]


def counting(*rows: dict[str, Any]) -> list[str]:
    return [one.id for one in standing(decisions(*rows))]


def test_the_newest_decision_of_a_reviewer_counts() -> None:
    assert counting(row(1), row(2, label="contradictory"), row(3, 16, 32)) == ["d2", "d3"]
    assert counting(row(1), row(2, act="skip")) == ["d2"], "who skips a sentence does not stand by an earlier label"
    assert counting(row(1), row(2, reviewer="ben", label="no_fact")) == ["d1", "d2"]
    assert counting(row(1), row(2, response=TEXT + " ")) == ["d1", "d2"], "spans of another text overlap nothing"


def test_an_undone_decision_gives_way_to_the_one_before() -> None:
    assert counting(row(1), row(2, label="no_fact"), row(3, act="undo", undoes="d2")) == ["d1"]
    assert counting(row(1), row(2, act="undo", undoes="d1")) == []
    assert counting(row(1), row(2, act="undo", undoes="d1"), row(3, label="no_fact")) == ["d3"]


def test_joining_and_splitting_decides_anew() -> None:
    first, second, whole = (
        row(1),
        row(2, 16, 32),
        row(3, 0, 32, made_of=[{"start": 0, "end": 15}, {"start": 16, "end": 32}]),
    )
    assert counting(first, second, whole) == ["d3"]
    assert counting(first, second, whole, row(4, act="undo", undoes="d3")) == ["d1", "d2"]
    halves = [row(n, *span, made_of=[{"start": 0, "end": 15}]) for n, span in ((5, (0, 4)), (6, (5, 15)))]
    assert counting(first, *halves) == ["d5", "d6"]
    assert [one.cut for one in decisions(first, whole, halves[0])] == [None, "joined", "split"]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 14), st.sampled_from(["anna", "ben"])), max_size=30))
def test_decisions_that_count_never_overlap(spans: list[tuple[int, int, str]]) -> None:
    rows = [row(n, start, start + length, reviewer) for n, (start, length, reviewer) in enumerate(spans)]
    counted = standing(decisions(*rows))
    for one in counted:
        others = [other for other in counted if other.id != one.id and other.reviewer == one.reviewer]
        assert all(one.end <= other.start or other.end <= one.start for other in others)
    assert {one["reviewer"] for one in rows} == {one.reviewer for one in counted}, "the newest of each always counts"


def test_files_are_merged_by_time_and_keep_their_own_order(jsonl: WriteJsonl) -> None:
    def at(hour: int) -> str:
        return f"2026-11-28T{hour:02}:00:00Z"

    desk = jsonl("desk.jsonl", [row(1, at=at(9)), row(2, at=at(8), label="no_fact"), row(3, 16, 32, at=at(12))])
    couch = jsonl("couch.jsonl", [row(4, 16, 32, at=at(10)), row(5, at=at(11), act="skip")])
    merged = read_decisions([desk, couch])
    assert [one.id for one in merged] == ["d1", "d2", "d4", "d5", "d3"], "d2 was made with the clock set back"
    assert [one.id for one in standing(merged)] == ["d5", "d3"]


def test_one_decision_in_two_files_is_there_once_and_another_with_its_id_is_an_error(jsonl: WriteJsonl) -> None:
    one, copy = jsonl("one.jsonl", [row(1)]), jsonl("copy.jsonl", [row(1), row(2, 16, 32)])
    assert [decision.id for decision in read_decisions([one, copy])] == ["d1", "d2"]
    other = jsonl("other.jsonl", [row(3), row(1, label="no_fact")])
    with pytest.raises(InputError, match=r"other.jsonl:2: id: another of the files has another decision with .*'d1'"):
        read_decisions([one, other])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"end": 99}, "0:99 is empty or outside of the response"),
        ({"start": 15}, "15:15 is empty"),
        ({"label": None}, "act is 'label' but label is None"),
        ({"act": "skip"}, "act is 'skip' but label is no_hallucination"),
        ({"undoes": "d0"}, "act is 'label' but undoes is 'd0'"),
        ({"label": None, "act": "undo"}, "'undo' names what it takes back"),
        ({"queue": "random"}, "queue is 'random' but inclusion is None"),
        ({"queue": "uncertain", "inclusion": 0.5}, "queue is 'uncertain' but inclusion is 0.5"),
        ({"at": "2026-11-28T09:00:00"}, "must have a time zone"),
        ({"inclusion": 0}, "greater than 0"),
        ({"reviewer": ""}, "at least 1 character"),
    ],
)
def test_what_a_decision_may_not_say(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Decision.model_validate(row(1) | changes)


def test_a_file_of_decisions_validates(jsonl: WriteJsonl, tmp_path: Path) -> None:
    file = jsonl("d.jsonl", [row(1), row(2, act="undo", undoes="d1"), row(3, end=99)])
    found = validate_file(file, None, 9)
    assert (found.kind, found.valid) == ("decision", 2)
    assert "d.jsonl:3: the span 0:99" in str(found.errors[0])
    assert decisions(row(1, made_of=[{"start": 0, "end": 15}]))[0].made_of == [Part(start=0, end=15)]

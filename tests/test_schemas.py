"""The records: what they accept, what they refuse, and that nothing is lost between two stages."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from maskdpo.io import to_line
from maskdpo.schemas import (
    Annotation,
    Counts,
    JudgeInfo,
    Kind,
    Label,
    Message,
    Pair,
    PairSentence,
    Prompt,
    Record,
    Response,
    Sentence,
    Source,
    Status,
    group_of,
)

TEXT = "日本 is 😀. Yes."
MESSAGES = [{"role": "user", "content": "Where?"}]
SPANS = [{"start": 0, "end": 8, "label": "no_hallucination", "confidence": 0.5}, {"start": 9, "end": 13, "label": None}]


def pair(**changes: Any) -> dict[str, Any]:
    return {
        "id": "p|q",
        "prompt_id": "p",
        "topic": "t",
        "prompt": "Where?",
        "chosen": TEXT[:13],
        "rejected": "No.",
        "chosen_sentences": SPANS,
        "rejected_sentences": [],
    } | changes


CHAT = {
    "prompt": MESSAGES,
    "chosen": [{"role": "assistant", "content": TEXT}],
    "rejected": [{"role": "assistant", "content": "No."}],
}

RECORDS: list[Record] = [
    Prompt(id="a", prompt="Où?", reference=["one", "two"], topic="t", language="zh", meta={"n": [1, None]}),
    Prompt(id="a", prompt="?", reference=["own", "found"], sources=[None, Source(document="d", start=3, end=8)]),
    Prompt(id="a", prompt=[Message(role="system", content="Be brief."), Message(role="user", content="Où?")]),
    Response(
        id="r", prompt_id="a", response="  spaces stay \n", model="m", sampling={"raw": True}, finish_reason="length"
    ),
    Annotation(
        id="r",
        prompt_id="a",
        response=TEXT,
        sentences=[
            Sentence(start=0, end=8, label=Label.CONTRADICTORY, confidence=1.0, evidence="e\u2028", reason='"'),
            Sentence(start=9, end=13, status=Status.REFUSED, kind=Kind.TABLE),
        ],
        judge=JudgeInfo(name="j", splitter="markdown", version="1"),
    ),
    Pair.model_validate(pair(weight=0.25, chosen_score=0.75, rejected_score=0.0, chosen_finish_reason="stop")),
    Pair.model_validate(pair(**CHAT)),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_a_written_record_reads_back_equal(record: Record) -> None:
    line = to_line(record)
    assert line.count(b"\n") == 1
    assert type(record).model_validate_json(line) == record


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text(min_size=1).filter(str.isprintable))
def test_any_text_survives_a_round_trip(text: str, key: str) -> None:
    record = Response(id="r", prompt_id="p", response=text, meta={key: text})
    assert Response.model_validate_json(to_line(record)) == record


def test_defaults_are_left_out_of_the_file() -> None:
    assert json.loads(to_line(Prompt(id="a", prompt="x"))) == {"id": "a", "prompt": "x"}


def test_half_a_character_is_written_as_one_so_that_spans_stay_right() -> None:
    line = to_line(Response(id="r", prompt_id="p", response="a\ud83db é"))
    assert Response.model_validate_json(line).response == "a?b é"


def test_not_a_number_in_meta_leaves_valid_json() -> None:
    line = to_line(Prompt(id="a", prompt="x", meta={"score": float("nan")}))
    assert json.loads(line, parse_constant=pytest.fail)["meta"] == {"score": None}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("field", ["chosen_score", "rejected_score", "weight"])
def test_not_a_number_is_no_score_and_no_weight(field: str, number: str) -> None:
    line = json.dumps(pair(**{field: "HERE"})).replace('"HERE"', number)
    with pytest.raises(ValidationError, match=field):
        Pair.model_validate_json(line)


@pytest.mark.parametrize("model", [Prompt, Response, Annotation, Pair, Sentence, Message])
def test_unknown_fields_are_an_error(model: type[Record]) -> None:
    with pytest.raises(ValidationError) as error:
        model.model_validate({"colour": "red"})
    assert ("colour",) in [problem["loc"] for problem in error.value.errors() if problem["type"] == "extra_forbidden"]


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("label", [None, *Label])
def test_a_label_stands_exactly_where_the_status_is_ok(label: Label | None, status: Status) -> None:
    if (label is None) == (status is Status.OK):
        with pytest.raises(ValidationError, match="exactly if its status is 'ok'"):
            Sentence(start=0, end=1, label=label, status=status)
    else:
        assert Sentence(start=0, end=1, label=label, status=status).label is label


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([(0, 14)], "ends after the response (13 characters)"),
        ([(0, 5), (4, 8)], "sentence 1: span 4:8 overlaps or precedes"),
        ([(5, 8), (0, 4)], "sentence 1: span 0:4 overlaps or precedes"),
        ([(3, 3)], "the span 3:3 is empty"),
        ([(3, 2)], "the span 3:2 is empty"),
        ([(-1, 2)], "greater than or equal to 0"),
    ],
)
def test_spans_lie_inside_the_text_in_order_and_apart(spans: list[tuple[int, int]], message: str) -> None:
    sentences = [{"start": start, "end": end, "label": "no_fact"} for start, end in spans]
    with pytest.raises(ValidationError) as error:
        Annotation.model_validate({"id": "r", "prompt_id": "p", "response": TEXT, "sentences": sentences})
    assert message in str(error.value)
    with pytest.raises(ValidationError) as error:
        Pair.model_validate(pair(rejected_sentences=sentences, rejected=TEXT))
    assert message in str(error.value)


def test_spans_count_code_points_not_bytes_and_not_utf16_units() -> None:
    assert (len(TEXT), len(TEXT.encode()), len(TEXT.encode("utf-16-le")) // 2) == (13, 20, 14)
    sentences = [Sentence(start=0, end=8, label=Label.NO_FACT), Sentence(start=9, end=13, label=Label.NO_FACT)]
    record = Annotation(id="r", prompt_id="p", response=TEXT, sentences=sentences)
    assert [record.response[s.start : s.end] for s in record.sentences] == ["日本 is 😀.", "Yes."]
    with pytest.raises(ValidationError, match="ends after the response"):
        Annotation(id="r", prompt_id="p", response=TEXT, sentences=[Sentence(start=0, end=14, label=Label.NO_FACT)])


def test_both_forms_of_a_pair_give_the_same_view() -> None:
    chat, strings = Pair.model_validate(pair(**CHAT)), Pair.model_validate(pair())
    for record in (chat, strings):
        assert record.response("chosen") == TEXT
        assert record.response("rejected") == "No."
        assert record.sentences("chosen")[0] == PairSentence(
            start=0, end=8, label=Label.NO_HALLUCINATION, confidence=0.5
        )
        assert record.sentences("rejected") == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chosen": CHAT["chosen"]}, "chosen: prompt and answers must all be strings or all be lists"),
        ({"prompt": MESSAGES}, "chosen: prompt and answers must all be strings or all be lists"),
        (CHAT | {"rejected": MESSAGES}, "rejected: must be exactly one assistant message"),
        (CHAT | {"rejected": []}, "rejected: must be exactly one assistant message"),
        (CHAT | {"chosen": CHAT["chosen"] * 2}, "chosen: must be exactly one assistant message"),
        ({"weight": 0}, "weight"),
        ({"weight": -1}, "weight"),
        ({"prompt": []}, "prompt"),
        ({"id": ""}, "id"),
    ],
)
def test_wrong_pairs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as error:
        Pair.model_validate(pair(**changes))
    assert message in str(error.value)


def test_questions_topics_and_passages_of_a_prompt() -> None:
    chat = Prompt.model_validate({"id": "a", "prompt": [*MESSAGES, {"role": "assistant", "content": "Here."}]})
    assert (chat.question, chat.topic_or_id, chat.passages) == ("Where?", "a", [])
    assert Prompt(id="a", prompt="x", reference="r", topic="t").passages == ["r"]
    assert Prompt(id="a", prompt="x", topic="t").topic_or_id == "t"


def test_passages_that_were_found_are_told_from_those_of_the_prompt() -> None:
    found = [Source(document="d", start=3, end=8, score=0.5), Source(document="e", start=0, end=4)]
    prompt = Prompt(id="a", prompt="x", reference=["own", "found", "more"], sources=[None, *found])
    assert prompt.own_passages == ["own"]
    assert prompt.shared_topic == Prompt(id="b", prompt="y", reference=["own"]).shared_topic
    asked = [Prompt(id=i, prompt="x", reference=[i, "more"], sources=found) for i in "ab"]
    assert asked[0].own_passages == []
    assert asked[0].shared_topic == asked[1].shared_topic  # answers about one document
    with pytest.raises(ValidationError, match="sources: 2 for 3 passages"):
        Prompt(id="a", prompt="x", reference=["own", "found", "more"], sources=found)


def test_every_label_has_its_group_and_no_verdict_is_none_of_them() -> None:
    assert {label: group_of(label) for label in Label} == {
        Label.NO_HALLUCINATION: "right",
        Label.CONTRADICTORY: "wrong",
        Label.UNVERIFIABLE: "wrong",
        Label.HALLUCINATION: "wrong",
        Label.NO_FACT: "no_fact",
    }
    counts = Counts.of([Label.NO_FACT, None, Label.NO_HALLUCINATION, Label.HALLUCINATION, Label.UNVERIFIABLE])
    assert counts == Counts(right=1, wrong=2, no_fact=1, not_judged=1)
    assert counts.judged == 4


def test_records_do_not_change_after_they_are_made() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Prompt(id="a", prompt="x").id = "b"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"prompt_date": "yesterday"}, "prompt_date must be a date such as 2026-11-28, not 'yesterday'"),
        ({"prompt_date": 5}, "prompt_date must be a date"),
        ({"prompt_date": "2026-02-31"}, "day is out of range"),
        ({"template_options": "x"}, "template_options must be an object, not 'x'"),
    ],
)
def test_what_a_pair_takes_from_sampling_is_looked_at_where_it_is_read(sampling: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Response(id="r", prompt_id="q", response="A.", sampling=sampling)

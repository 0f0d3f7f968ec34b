"""``maskdpo validate``: every error of a file, once, where it is, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import WriteJsonl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from maskdpo.application import app
from maskdpo.errors import InputError
from maskdpo.validate import validate_file

PROMPT = {"id": "q", "prompt": "Who?", "reference": "She.", "topic": "t"}
RESPONSE = {"id": "r", "prompt_id": "q", "response": "She did. Or not."}
SENTENCES = [
    {"start": 0, "end": 8, "label": "no_hallucination"},
    {"start": 9, "end": 16, "status": "refused"},
]
ANNOTATION = RESPONSE | {"sentences": SENTENCES}
PAIR = {
    "id": "p",
    "prompt_id": "q",
    "topic": "t",
    "prompt": [{"role": "user", "content": "Who?"}],
    "chosen": [{"role": "assistant", "content": "She did."}],
    "rejected": [{"role": "assistant", "content": "He did."}],
    "chosen_sentences": [{"start": 0, "end": 8, "label": "no_hallucination"}],
    "rejected_sentences": [{"start": 0, "end": 7, "label": "contradictory"}],
}
KINDS = {"prompt": PROMPT, "response": RESPONSE, "annotation": ANNOTATION, "pair": PAIR}


def errors_of(file: Path, prompts: Path | None = None, limit: int = 99) -> list[str]:
    """Without the folder."""
    return [str(error).replace(f"{file.parent}/", "") for error in validate_file(file, prompts, limit).errors]


def spans(*bounds: tuple[int, int]) -> list[dict[str, Any]]:
    return [{"start": start, "end": end, "label": "no_fact"} for start, end in bounds]


@pytest.mark.parametrize("kind", KINDS)
def test_good_files_of_every_kind(kind: str, jsonl: WriteJsonl) -> None:
    rows = [KINDS[kind] | {"id": f"{i}"} for i in range(3)]
    file = jsonl("a.jsonl", [b"\xef\xbb\xbf" + json.dumps(rows[0]).encode(), "", *rows[1:], "  "])
    found = validate_file(file, jsonl("prompts.jsonl", [PROMPT]), limit=1)
    assert (found.kind, found.valid, found.errors, found.stopped) == (kind, 3, [], False)


def test_several_files_are_checked_as_one(jsonl: WriteJsonl, tmp_path: Path) -> None:
    one, other, third = (jsonl(f"{i}.jsonl", [PROMPT | {"id": name}]) for i, name in enumerate("abb"))
    assert validate_file([one, other], None, 9).valid == 2
    found = validate_file([one, other, third], None, 9)
    assert [str(error) for error in found.errors] == [f"{third}:1: id: duplicate id 'b', first in {other}:1"]
    with pytest.raises(
        InputError, match=r"p\.jsonl: holds pair records, and .*0\.jsonl prompt records: check files of"
    ):
        validate_file([one, jsonl("p.jsonl", [PAIR])], None, 9)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (ANNOTATION | {"sentences": spans((0, 17))}, "sentence 0: span 0:17 ends after the response (16 characters)"),
        (ANNOTATION | {"sentences": spans((0, 8), (7, 16))}, "sentence 1: span 7:16 overlaps or precedes the one befo"),
        (ANNOTATION | {"sentences": spans((9, 16), (0, 8))}, "sentence 1: span 0:8 overlaps or precedes the one befor"),
        (ANNOTATION | {"sentences": spans((0, 8), (0, 8))}, "sentence 1: span 0:8 overlaps or precedes the one before"),
        (ANNOTATION | {"sentences": spans((3, 3))}, "sentences.0: the span 3:3 is empty"),
        (ANNOTATION | {"sentences": spans((5, 3))}, "sentences.0: the span 5:3 is empty"),
        (ANNOTATION | {"sentences": spans((-1, 3))}, "sentences.0.start: Input should be greater than or equal to 0"),
        (ANNOTATION | {"sentences": [{"start": 0, "end": 3}]}, "sentences.0: status is 'ok' but label is None"),
        (
            ANNOTATION | {"sentences": [SENTENCES[0] | {"status": "refused"}]},
            "sentences.0: status is 'refused' but lab",
        ),
        (
            ANNOTATION | {"sentences": [SENTENCES[0] | {"label": "wrong"}]},
            "sentences.0.label: Input should be 'no_hall",
        ),
        (
            ANNOTATION | {"sentences": [SENTENCES[0] | {"confidence": 2}]},
            "sentences.0.confidence: Input should be less",
        ),
        (ANNOTATION | {"score": 1}, "score: unknown field; put what is your own under 'meta'"),
        (RESPONSE, "sentences: is missing"),
        (ANNOTATION | {"id": ""}, "id: String should have at least 1 character"),
        ("[]", "Input should be an object"),
        (b'{"id": "\xff"}', "is not UTF-8 (byte 0xff at column 9)"),
        ('{"id": "x", "sente', "not a JSON object (EOF while parsing"),
    ],
)
def test_one_bad_annotation(bad: Any, message: str, jsonl: WriteJsonl) -> None:
    file = jsonl("a.jsonl", [ANNOTATION | {"id": "first"}, bad, ANNOTATION | {"id": "last"}])
    [error] = errors_of(file)
    assert error.startswith(f"a.jsonl:2: {message}")
    assert validate_file(file, None, 99).valid == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen_sentences": spans((0, 9))}, "chosen_sentences: sentence 0: span 0:9 ends after the response"),
        ({"rejected_sentences": spans((0, 4), (3, 7))}, "rejected_sentences: sentence 1: span 3:7 overlaps"),
        ({"rejected": "He did."}, "rejected: prompt and answers must all be strings or all be lists of messages"),
        ({"chosen": []}, "chosen: must be exactly one assistant message"),
        ({"chosen": PAIR["prompt"]}, "chosen: must be exactly one assistant message"),
        ({"weight": 0}, "weight: Input should be greater than 0"),
        ({"topic": None}, "topic: Input should be a valid string"),
    ],
)
def test_one_bad_pair(change: dict[str, Any], message: str, jsonl: WriteJsonl) -> None:
    [error] = errors_of(jsonl("p.jsonl", [PAIR | {"id": "good"}, PAIR | change]))
    assert error.startswith("p.jsonl:2: ")
    assert message in error


@pytest.mark.parametrize("kind", ["response", "annotation", "pair"])
def test_dangling_and_double_ids(kind: str, jsonl: WriteJsonl) -> None:
    row = KINDS[kind]
    rows = [row | {"id": "a"}, row | {"id": "b", "prompt_id": "zz"}, row | {"id": "a"}, row | {"id": "a"}]
    file, prompts = jsonl("a.jsonl", rows), jsonl("prompts.jsonl", [PROMPT])
    double = [f"a.jsonl:{line}: id: duplicate id 'a', first on line 1" for line in (3, 4)]
    assert errors_of(file) == double
    assert errors_of(file, prompts) == ["a.jsonl:2: prompt_id: no prompt has the id 'zz'", *double]


def test_a_pair_whose_prompt_is_another(jsonl: WriteJsonl) -> None:
    """A pair must belong to the prompt that it names, or train and test topics could mix unseen."""
    rows = [
        PAIR,
        PAIR | {"id": "b", "topic": "u"},
        PAIR | {"id": "c", "prompt": [{"role": "user", "content": "Who else?"}]},
    ]
    plain = {"prompt": "Who?", "chosen": "She did.", "rejected": "He did."}
    file = jsonl("p.jsonl", [*rows, PAIR | plain | {"id": "d"}, PAIR | plain | {"id": "e", "prompt": "Who"}])
    assert errors_of(file, jsonl("prompts.jsonl", [PROMPT])) == [
        "p.jsonl:2: topic: is 'u', but that of prompt 'q' is 't'",
        "p.jsonl:3: prompt: is not the text of prompt 'q'",
        "p.jsonl:5: prompt: is not the text of prompt 'q'",
    ]
    chat = [{"role": "system", "content": "Brief."}, {"role": "user", "content": "Who?"}]
    file = jsonl("p.jsonl", [PAIR | {"prompt": chat}, PAIR | {"id": "b"}])
    assert errors_of(file, jsonl("prompts.jsonl", [PROMPT | {"prompt": chat}])) == [
        "p.jsonl:2: prompt: is not the text of prompt 'q'"
    ]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(1, 30))
def test_as_many_errors_as_bad_lines_up_to_the_limit(tmp_path: Path, good: list[bool], limit: int) -> None:
    file = tmp_path / "a.jsonl"
    rows = [
        json.dumps(ANNOTATION | {"id": f"{i}"} if fine else RESPONSE | {"sentences": 1}) for i, fine in enumerate(good)
    ]
    file.write_text("\n".join(rows) + "\n")
    bad = [i for i, fine in enumerate(good, 1) if not fine]
    found = validate_file(file, None, limit)
    assert [str(error).split(":")[1] for error in found.errors] == [str(line) for line in bad[:limit]]
    assert found.stopped == (len(bad) > limit)
    if not found.stopped:
        assert found.valid == sum(good)


def test_what_cannot_be_validated(jsonl: WriteJsonl, tmp_path: Path) -> None:
    for file, message in (
        (tmp_path / "nowhere.jsonl", "no such file"),
        (jsonl("empty.jsonl", []), "the file holds no JSON object"),
        (jsonl("other.jsonl", ["", {"text": "x"}]), "no record that maskdpo knows"),
    ):
        with pytest.raises(InputError, match=message):
            validate_file(file, None, 9)


def test_exit_codes_and_lines(jsonl: WriteJsonl) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["validate", str(jsonl("good.jsonl", [PROMPT]))]).exit_code == 0
    file = jsonl("bad.jsonl", [PROMPT, PROMPT, {"id": "x", "prompt": 3}, {"id": "y"}])
    result = runner.invoke(app, ["validate", str(file), "--max-errors", "2"])
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"error: {file}:2: id: duplicate id 'q', first on line 1",
        f"error: {file}:3: prompt: must be a string or a list",
    ]
    assert "(stopped after 2 errors)" in result.stdout
    assert "(stopped" not in runner.invoke(app, ["validate", str(file), "--max-errors", "3"]).stdout

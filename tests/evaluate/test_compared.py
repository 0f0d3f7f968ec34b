"""What is said where two compared files differ in more than their models."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import exit_code

from maskdpo import evaluate_annotations
from maskdpo.annotate.labelling import annotate
from maskdpo.annotate.settings import JudgeSettings
from maskdpo.run_record import meta_file
from maskdpo.stage_run import Run
from maskdpo.text.splitters import get_splitter

Said = Callable[..., str]


def rows(text: str, count: int = 12, **sampling: Any) -> list[dict[str, Any]]:
    """Answers of one right sentence."""
    span = {"start": 0, "end": len(text), "label": "no_hallucination"}
    return [
        {"id": f"a{i}", "prompt_id": f"q{i}", "response": text, "sentences": [span]}
        | ({"sampling": sampling} if sampling else {})
        for i in range(count)
    ]


@pytest.fixture
def said(jsonl: Any, capsys: pytest.CaptureFixture[str]) -> Said:
    def compare(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> str:
        evaluate_annotations(jsonl("before.jsonl", before), compare=jsonl("after.jsonl", after))
        return " ".join(capsys.readouterr().err.split())

    return compare


def test_other_sampling_settings_are_named(said: Said) -> None:
    before = rows("One.", temperature=1.0, top_p=1.0, max_tokens=64)
    after = rows("Two.", temperature=0.0, top_p=1.0, max_tokens=64, raw=True)
    found = said(before, after)
    assert "were sampled with other settings (raw: not said -> true; temperature: 1.0 -> 0.0)" in found
    mixed = [*before[:6], *rows("One.", temperature=0.5, top_p=1.0, max_tokens=64)[6:]]
    assert "temperature: 0.5 or 1.0 -> 1.0)" in said(mixed, rows("Two.", temperature=1.0, top_p=1.0, max_tokens=64))
    assert said(before, rows("Two.", temperature=1.0, top_p=1.0, max_tokens=64)) == ""
    assert said(before, rows("Two.")) == "", "nothing is known of the second file"


def test_equal_answers_are_pointed_out(said: Said) -> None:
    assert "hold the same answers, with labels of the same judge" in said(rows("One."), rows("One."))
    half = [*rows("One.")[:6], *rows("Two.")[6:]]
    assert "6 of the 12 different answers of" in said(rows("One."), half)
    assert said(rows("One."), [*rows("One.")[:5], *rows("Two.")[5:]]) == ""


def test_every_file_is_read_once_and_further_ones_are_checked_beside_the_first_of_them_too(
    jsonl: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    *judged, last = rows("1.")
    lacking = last | {"sentences": [{"start": 0, "end": 2, "status": "no_reference"}]}
    two, copy = (jsonl(f"{name}.jsonl", rows("2.")) for name in ("two", "copy"))
    evaluate_annotations(jsonl("one.jsonl", [*judged, lacking]), compare=[two, copy])
    left_out, same = capsys.readouterr().err.splitlines()
    assert "1 of 12 answers are left out" in left_out
    assert same.startswith(f"warning: {two} and {copy} hold the same answers")


def test_other_prompts_files_are_named(
    jsonl: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The runs behind two files: answers sampled with and without a system prompt, judged by the same references."""
    prompts = [{"id": f"q{i}", "prompt": "Where?", "reference": "Paris is a city."} for i in range(3)]
    told = [row | {"prompt": [{"role": "system", "content": "Be brief."}]} for row in prompts]
    shared = jsonl("prompts.jsonl", prompts)

    def answered(name: str, text: str, asked: Path) -> Path:
        answers = [{"id": f"a{i}", "prompt_id": f"q{i}", "response": text} for i in range(3)]
        responses = jsonl(f"{name}.jsonl", answers)
        Run(meta_file(responses), "sample", {}, {"prompts": asked}, restart=None).finish({})
        out = tmp_path / f"{name}.annotations.jsonl"
        annotate(shared, responses, out, JudgeSettings(judge="lexical").make_judge(), get_splitter("markdown"))
        return out

    before = answered("before", "Paris is a city.", shared)
    same = answered("same", "Paris is big.", shared)
    other = answered("other", "Paris is old.", jsonl("told.jsonl", told))
    capsys.readouterr()
    evaluate_annotations(before, compare=same)
    assert capsys.readouterr().err == ""
    monkeypatch.chdir(tmp_path)
    assert exit_code("evaluate", before, "--compare", other) == 0
    found = " ".join(capsys.readouterr().err.split())
    assert "were sampled with prompts files that differ" in found
    assert "were judged with prompts files that differ" not in found
    meta = json.loads(meta_file(other).read_text())
    meta["inputs"]["prompts"] = "0" * 64
    meta_file(other).write_text(json.dumps(meta))
    evaluate_annotations(before, compare=other)
    assert "were judged with prompts files that differ" in " ".join(capsys.readouterr().err.split())

"""What comes back from Label Studio and Argilla. The files are as these tools write them, by their documentation."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import exit_code

from maskdpo.io import read_records, write_records
from maskdpo.schemas import Annotation, Decision, JudgeInfo, Label, Prompt, Sentence

TEXT = "😀 Paris is a town. It has a river.  It is old."
SPANS = ((2, 18), (19, 34), (36, 46))
LABELS = (Label.NO_HALLUCINATION, Label.CONTRADICTORY, Label.UNVERIFIABLE)


@pytest.fixture
def records(tmp_path: Path) -> tuple[Path, Path]:
    """Annotations of a judge, and their prompts."""
    sentences = [
        Sentence(start=a, end=b, label=label, confidence=0.5) for (a, b), label in zip(SPANS, LABELS, strict=True)
    ]
    judged = Annotation(id="a", prompt_id="p", response=TEXT, sentences=sentences, judge=JudgeInfo(name="lexical"))
    write_records(tmp_path / "annotations.jsonl", [judged])
    write_records(tmp_path / "prompts.jsonl", [Prompt(id="p", prompt="Paris?", reference="Paris.", topic="France")])
    return tmp_path / "annotations.jsonl", tmp_path / "prompts.jsonl"


def exported(records: tuple[Path, Path], tool: str) -> list[dict[str, Any]]:
    file = records[0].with_name(f"{tool}.json")
    assert exit_code("export", records[0], "--prompts", records[1], "--format", tool, "--out", file) == 0
    found: list[dict[str, Any]] = json.loads(file.read_text())
    return found


def imported(folder: Path, tool: str, rows: list[dict[str, Any]]) -> list[Decision]:
    (folder / "back.json").write_text(json.dumps(rows, indent=1))
    out = folder / "decisions.jsonl"
    assert exit_code("import", folder / "back.json", "--format", tool, "--out", out) == 0
    return list(read_records(out, Decision))


def region(start: int, end: int, label: str, text: str | None = None) -> dict[str, Any]:
    return {
        "id": "x1",
        "from_name": "label",
        "to_name": "response",
        "type": "labels",
        "origin": "manual",
        "value": {"start": start, "end": end, "text": text or TEXT[start:end], "labels": [label]},
    }


def work(number: int, by: Any, *regions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": number,
        "completed_by": by,
        "result": [*regions, {"type": "choices", "value": {"choices": ["good"]}}],
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2026-11-28T10:00:00.000000Z",
        "updated_at": "2026-11-28T10:01:00.000000Z",
        "lead_time": 60.0,
        **more,
    }


def test_label_studio_brings_back_every_persons_labels(records: tuple[Path, Path], tmp_path: Path) -> None:
    [task] = exported(records, "label-studio")
    task |= {"id": 1, "project": 1, "total_annotations": 3}
    task["annotations"] = [
        work(11, 1, region(2, 18, "no_hallucination"), region(19, 35, "no_hallucination")),  # marks a space, too
        work(12, {"id": 2, "email": "ben@x.org"}, region(19, 46, "contradictory"), region(2, 18, "not_judged")),
        work(13, 3, region(2, 18, "contradictory"), was_cancelled=True),
    ]
    found = imported(tmp_path, "label-studio", [task])
    assert [(d.reviewer, d.start, d.end, d.label, d.judged, d.cut) for d in found] == [
        ("label-studio-1", 2, 18, LABELS[0], LABELS[0], None),
        ("label-studio-1", 19, 34, LABELS[0], LABELS[1], None),
        ("ben@x.org", 19, 46, LABELS[1], LABELS[1], "joined"),
    ]
    first = found[0]
    assert (first.answer_id, first.prompt_id, first.topic, first.response) == ("a", "p", "France", TEXT)
    assert (first.shown, first.queue, first.inclusion, first.judged_confidence) == (True, None, None, 0.5)
    assert first.at is not None
    assert [(part.start, part.end) for part in found[2].made_of] == [SPANS[1], SPANS[2]]


def test_positions_in_utf16_are_told_by_the_text_of_the_region(records: tuple[Path, Path], tmp_path: Path) -> None:
    [task] = exported(records, "label-studio")
    task["annotations"] = [work(11, 1, region(3, 19, "contradictory", TEXT[2:18]))]  # an emoji is two units
    [decision] = imported(tmp_path, "label-studio", [task])
    assert (decision.start, decision.end) == (2, 18)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (region(2, 18, "contradictory", "Another text"), "is not what the answer has there"),
        (region(2, 18, "wrong"), "the label 'wrong' is none of"),
    ],
)
def test_what_cannot_be_placed_or_named_is_left_out_and_said(
    records: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: dict[str, Any], why: str
) -> None:
    [task] = exported(records, "label-studio")
    good = json.loads(json.dumps(task)) | {"annotations": [work(1, 1, region(2, 18, "contradictory"))]}
    good["data"]["id"] = "b"
    task["annotations"] = [work(2, 1, bad)]
    assert len(imported(tmp_path, "label-studio", [task, good])) == 1
    assert why in capsys.readouterr().err


def test_two_labels_on_one_text_are_refused(
    records: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [task] = exported(records, "label-studio")
    good = json.loads(json.dumps(task)) | {"annotations": [work(1, 1, region(2, 18, "contradictory"))]}
    good["data"]["id"] = "b"
    task["annotations"] = [work(2, 1, region(2, 34, "contradictory"), region(19, 34, "no_fact"))]
    assert len(imported(tmp_path, "label-studio", [task, good])) == 1
    assert "which overlap" in capsys.readouterr().err


def test_argilla_brings_back_what_was_submitted(records: tuple[Path, Path], tmp_path: Path) -> None:
    [record] = exported(records, "argilla")
    spans = [{"start": a, "end": b, "label": "contradictory"} for a, b in SPANS]
    record["responses"] = {
        "sentences": [
            {"value": spans, "user_id": "u1", "status": "submitted"},
            {"value": spans[:1], "user_id": "u2"},
            {"value": spans, "user_id": "u3", "status": "draft"},
        ],
        "comment": [{"value": "fine", "user_id": "u1"}],
    }
    found = imported(tmp_path, "argilla", [record | {"vectors": {}, "status": "completed", "_server_id": "s"}])
    assert [(d.reviewer, d.start, d.label, d.judged) for d in found] == [
        ("u1", 2, LABELS[1], LABELS[0]),
        ("u1", 19, LABELS[1], LABELS[1]),
        ("u1", 36, LABELS[1], LABELS[2]),
        ("u2", 2, LABELS[1], LABELS[0]),
    ]
    assert found[0].topic == "France"


def test_a_span_that_argilla_has_shifted_is_not_guessed(
    records: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [record] = exported(records, "argilla")
    shifted = [{"start": 20, "end": 35, "label": "contradictory"}]
    record["responses"] = {"sentences": [{"value": shifted, "user_id": "u1", "status": "submitted"}]}
    (tmp_path / "back.json").write_text(json.dumps([record]))
    code = exit_code("import", tmp_path / "back.json", "--format", "argilla", "--out", tmp_path / "d.jsonl")
    assert code == 2
    assert "counts twice" in capsys.readouterr().err


def test_decisions_from_elsewhere_become_gold(records: tuple[Path, Path], tmp_path: Path) -> None:
    [task] = exported(records, "label-studio")
    task["annotations"] = [work(n, n, region(2, 18, "contradictory"), region(19, 34, "no_fact")) for n in (1, 2)]
    imported(tmp_path, "label-studio", [task])
    assert exit_code("gold", tmp_path / "decisions.jsonl", "--out", tmp_path / "gold.jsonl") == 0
    [gold] = read_records(tmp_path / "gold.jsonl", Annotation)
    assert [(s.label, s.inclusion) for s in gold.sentences] == [(LABELS[1], None), (Label.NO_FACT, None)]
    assert exit_code("evaluate", records[0], "--gold", tmp_path / "gold.jsonl") == 0


def test_an_export_without_work_is_said(
    records: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "back.json").write_text(json.dumps([exported(records, "label-studio")[0] | {"annotations": []}]))
    code = exit_code("import", tmp_path / "back.json", "--format", "label-studio", "--out", tmp_path / "d.jsonl")
    assert code == 2
    assert "nobody has labelled anything" in capsys.readouterr().err
    (tmp_path / "back.json").write_text('[{"annotations": [')
    code = exit_code("import", tmp_path / "back.json", "--format", "label-studio", "--out", tmp_path / "d.jsonl")
    assert code == 2
    assert "is the file torn?" in capsys.readouterr().err

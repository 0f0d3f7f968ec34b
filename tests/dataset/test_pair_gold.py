"""Labels of people go before those of the judge."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from command_line import exit_code

from maskdpo.io import read_records, write_records
from maskdpo.lineage import trace
from maskdpo.run_record import meta_file, read_meta
from maskdpo.schemas import Annotation, JudgeInfo, Kind, Label, Pair, Prompt, Sentence, Status

RIGHT, WRONG = Label.NO_HALLUCINATION, Label.CONTRADICTORY
TEXTS = ("One is so. Two is so. And three is", "Six is not. Seven is. And eight is")
JUDGE = JudgeInfo(name="lexical")


def sentences(text: str, labels: list[Label]) -> list[Sentence]:
    cuts = [0, *(i + 1 for i, letter in enumerate(text) if letter == "."), len(text)]
    spans = [(a + (a > 0), b) for a, b in pairwise(cuts)]
    whole = [Sentence(start=a, end=b, label=x, confidence=0.9) for (a, b), x in zip(spans, labels, strict=False)]
    fragment = Sentence(start=spans[-1][0], end=spans[-1][1], status=Status.FRAGMENT, kind=Kind.FRAGMENT)
    return [*whole, fragment]


def annotation(i: int, labels: list[Label], **more: Any) -> Annotation:
    text = TEXTS[i]
    cut = sentences(text, labels)
    values: dict[str, Any] = {"id": f"a{i}", "prompt_id": "q", "response": text, "finish_reason": "length"}
    return Annotation.model_validate(values | {"sentences": cut, "judge": JUDGE} | more)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    write_records(tmp_path / "p.jsonl", [Prompt(id="q", prompt="Which?")])
    judged = [annotation(0, [RIGHT, RIGHT]), annotation(1, [WRONG, RIGHT])]
    write_records(tmp_path / "a.jsonl", judged)
    return tmp_path / "p.jsonl", tmp_path / "a.jsonl"


def gold(folder: Path, *records: Annotation) -> Path:
    write_records(folder / "gold.jsonl", [one.model_copy(update={"judge": None}) for one in records])
    return folder / "gold.jsonl"


def built(files: tuple[Path, Path], gold_file: Path) -> Pair:
    out = files[0].with_name("pairs.jsonl")
    assert exit_code("build-pairs", *files, "--gold", gold_file, "--out", out, "--test-size", 0) == 0
    [pair] = read_records(out, Pair)
    return pair


def test_people_turn_a_pair_round(files: tuple[Path, Path], tmp_path: Path) -> None:
    people = [annotation(0, [WRONG, WRONG]), annotation(1, [RIGHT, RIGHT])]
    pair = built(files, gold(tmp_path, *people))
    assert pair.id == "a1|a0"
    labels = [(s.label, s.confidence) for s in pair.chosen_sentences]
    assert labels == [(RIGHT, None), (RIGHT, None), (None, None)]
    meta = read_meta(meta_file(tmp_path / "pairs.jsonl"))
    assert meta is not None
    assert meta.counts["answers"]["with_gold"] == 2
    assert {node.role for node in trace(tmp_path / "pairs.jsonl").inputs} == {"prompts", "annotations", "gold"}


def test_a_sentence_that_people_joined_replaces_what_it_covers(files: tuple[Path, Path], tmp_path: Path) -> None:
    joined = [Sentence(start=0, end=21, label=WRONG), Sentence(start=22, end=34, label=WRONG)]
    pair = built(files, gold(tmp_path, annotation(0, [], sentences=joined)))
    assert pair.rejected == [pair.rejected[0].model_copy(update={"content": TEXTS[0]})]  # type: ignore[union-attr]
    assert [(s.start, s.end, s.label) for s in pair.rejected_sentences] == [
        (0, 21, WRONG),
        (22, 34, None),  # a fragment stays one, whatever people say of it
    ]


def test_the_judges_own_file_is_no_gold(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("build-pairs", *files, "--gold", files[1], "--out", tmp_path / "pairs.jsonl") == 2
    assert "is the file whose labels it is to check" in capsys.readouterr().err


def test_gold_of_other_answers_is_said(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = annotation(0, [WRONG, WRONG], id="elsewhere")
    out = tmp_path / "pairs.jsonl"
    assert exit_code("build-pairs", *files, "--gold", gold(tmp_path, other), "--out", out) == 2
    assert "labels no answer of the annotations" in capsys.readouterr().err
    built(files, gold(tmp_path, annotation(0, [WRONG, WRONG]), other))
    assert "1 of 2 answers are not among the annotations" in capsys.readouterr().err

"""Decisions of people as a config of a dataset, and their agreement on its card."""

from pathlib import Path
from typing import Any

import datasets
import pytest
from command_line import exit_code
from hub_files import RecordFiles, make_files

from maskdpo.io import read_records, write_records
from maskdpo.run_record import meta_file
from maskdpo.schemas import Annotation, Decision, Label
from maskdpo.stage_run import Run


@pytest.fixture
def files(tmp_path: Path) -> RecordFiles:
    return make_files(tmp_path / "in")


def decisions_of(files: RecordFiles, name: str) -> list[Decision]:
    """One decision on the first sentence of every answer; the judge's model is a file of this machine."""
    made = []
    for i, answer in enumerate(read_records(files.annotations, Annotation)):
        sentence = answer.sentences[0]
        assert answer.judge is not None
        values: dict[str, Any] = {
            "id": f"{name}-{i}",
            "prompt_id": answer.prompt_id,
            "answer_id": answer.id,
            "response": answer.response,
            "topic": answer.prompt_id,
            "start": sentence.start,
            "end": sentence.end,
            "reviewer": name,
            "at": "2026-11-28T10:00:00Z",
            "label": sentence.label if i % 3 or name == "Ada Byron" else Label.UNVERIFIABLE,
            "judged": sentence.label,
            "judge": answer.judge.model_copy(update={"model": "/home/me/judge"}),
            "shown": False,
            "queue": "random",
            "inclusion": 0.25,
        }
        made.append(Decision.model_validate(values))
    undo = made[0].model_copy(update={"id": f"{name}-undo", "act": "undo", "label": None, "undoes": made[0].id})
    return [*made, undo, made[0].model_copy(update={"id": f"{name}-again"})]


def pushed(files: RecordFiles, folder: Path, *more: str) -> str:
    written = []
    for name in ("Ada Byron", "Ben"):
        written += ["--decisions", folder.with_name(f"{name}.jsonl")]
        write_records(written[-1], decisions_of(files, name))  # type: ignore[arg-type]
    words = ["push", *files, "--repo", "me/facts", "--license", "cc-by-4.0", "--dry-run", folder, *written, *more]
    assert exit_code(*words) == 0
    return (folder / "README.md").read_text()


def test_decisions_are_a_config_without_names(files: RecordFiles, tmp_path: Path) -> None:
    card = pushed(files, tmp_path / "out")
    assert "| `decisions` |" in card
    assert "| reviewer-1, reviewer-2 |" in card
    assert "Krippendorff's alpha" in card
    everything = [one.model_dump_json() for part in ("train", "test") for one in read(tmp_path / "out", part)]
    assert not [text for text in [card, *everything] if "Ada" in text or "/home/me" in text]
    loaded = datasets.load_dataset(str(tmp_path / "out"), "decisions")
    written = [one for part in ("train", "test") for one in read(tmp_path / "out", part)]
    assert sum(len(loaded[part]) for part in loaded) == len(written) == 2 * 42
    original = {one.id: one for name in ("Ada Byron", "Ben") for one in decisions_of(files, name)}
    undone = [one for one in written if one.act == "undo"]
    assert len(undone) == 2
    assert {one.undoes for one in undone} <= {one.id for one in written}
    assert sorted((one.answer_id, str(one.label), one.at) for one in written) == sorted(
        (one.answer_id, str(one.label), one.at) for one in original.values()
    )


def test_names_are_published_when_asked_for(files: RecordFiles, tmp_path: Path) -> None:
    assert "| Ada Byron, Ben |" in pushed(files, tmp_path / "out", "--names")
    assert {one.reviewer for one in read(tmp_path / "out", "train")} == {"Ada Byron", "Ben"}


def test_commands_that_name_people_are_left_out_of_the_card(files: RecordFiles, tmp_path: Path) -> None:
    """Pairs that were built with gold: its command has the names of the files of reviewers."""
    decided = [tmp_path / f"{name}.jsonl" for name in ("Ada Byron", "Ben")]
    for file in decided:
        write_records(file, decisions_of(files, file.stem))
        said = {"reviewer": file.stem}, {"annotations": files.annotations}
        Run(meta_file(file), "review", *said, restart="").finish({})
    gold = tmp_path / "gold.jsonl"
    assert exit_code("gold", *decided, "--out", gold) == 0
    build = ["build-pairs", files.prompts, files.annotations, "--out", files.pairs, "--gold", gold]
    assert exit_code(*build, "--test-size", "0", "--min-coverage", "0") == 0
    words = ["push", *files, "--repo", "me/facts", "--license", "cc-by-4.0", "--dry-run"]
    assert exit_code(*words, tmp_path / "out") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "gold.jsonl" in card
    assert not [name for name in ("Ada", "Ben") if name in card]
    assert exit_code(*words, tmp_path / "named", "--names") == 0
    assert "Ada Byron.jsonl" in (tmp_path / "named" / "README.md").read_text()


def test_a_dataset_without_decisions_loses_those_of_before(files: RecordFiles, tmp_path: Path) -> None:
    pushed(files, tmp_path / "out")
    words = ["push", *files, "--repo", "me/facts", "--license", "cc-by-4.0", "--dry-run", tmp_path / "out"]
    assert exit_code(*words) == 0
    assert not (tmp_path / "out" / "decisions").exists()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| `decisions` |" not in card
    assert "config_name: decisions" not in card


def read(folder: Path, part: str) -> list[Decision]:
    return list(read_records(Path(f"{folder}:decisions:{part}"), Decision))

"""The chain behind an output: found where it was, found when moved, and what has changed is said."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from maskdpo.application import app
from maskdpo.errors import InputError
from maskdpo.identity import fingerprint
from maskdpo.lineage import Node, problems, trace
from maskdpo.run_record import META_IN_FOLDER, meta_file, read_meta
from maskdpo.stage_run import Run, invoked_as


def made(
    out: Path, command: str, inputs: dict[str, Path], options: dict[str, Any] | None = None, text: str | None = None
) -> Path:
    """Write an output and its record, as a stage does."""
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix:
        out.write_text(text or f'{{"id": "{out.name}"}}\n')
    else:
        out.mkdir(exist_ok=True)
        (out / "config.json").write_text("{}")
        (out / "model.safetensors").write_text(text or "weights")
    with invoked_as(f"maskdpo {command} ...", {}):
        run = Run(meta_file(out), command, options or {}, inputs, restart="")
    run.begin()
    run.finish({"records": 1}, [out, Path(str(out).replace(".jsonl", ".test.jsonl"))] if out.suffix else None)
    return out


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two rounds: the model of the first one is sampled in the second. Inputs and outputs lie in several folders."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    prompts = Path("../data/prompts.jsonl")
    prompts.parent.mkdir()
    prompts.write_text('{"id": "q", "prompt": "?"}\n')
    base = {"model": "org/base", "model_files": "org/base"}
    responses = made(Path("run/responses.jsonl"), "sample", {"prompts": prompts}, base)
    annotations = made(
        Path("run/annotations.jsonl"), "annotate", {"prompts": prompts, "responses": responses}, {"name": "lexical"}
    )
    Path("run/pairs.test.jsonl").write_text('{"id": "held out"}\n')
    pairs = made(Path("run/pairs.jsonl"), "build-pairs", {"prompts": prompts, "annotations": annotations})
    model = made(Path("run/model"), "train", {"pairs": pairs}, base)
    trained = {"model": "run/model", "model_files": fingerprint("run/model")}
    made(Path("run/after.jsonl"), "sample", {"prompts": prompts}, trained)
    assert model.is_dir()
    return tmp_path / "work"


def chain(node: Node) -> list[str]:
    """All nodes, depth first, as ``role state name``."""
    below = [line for child in node.inputs for line in chain(child)]
    return [f"{node.role} {node.state} {node.path.name}", *below]


FROM_PAIRS = [
    "prompts unchanged prompts.jsonl",
    "annotations unchanged annotations.jsonl",
    "prompts unchanged prompts.jsonl",
    "responses unchanged responses.jsonl",
    "prompts unchanged prompts.jsonl",
]


def test_from_answers_of_the_trained_model_back_to_the_prompts(project: Path) -> None:
    node = trace(Path("run/after.jsonl"))
    assert chain(node) == [
        "output unchanged after.jsonl",
        "prompts unchanged prompts.jsonl",
        "model unchanged model",
        "pairs unchanged pairs.jsonl",
        *FROM_PAIRS,
    ]
    assert list(problems(node)) == []
    assert node.run is not None
    assert (node.run.command, node.run.command_line, node.run.status) == ("sample", "maskdpo sample ...", "complete")


def test_a_model_folder_and_the_pairs_of_held_out_topics(project: Path) -> None:
    assert chain(trace(Path("run/model")))[1:] == ["pairs unchanged pairs.jsonl", *FROM_PAIRS]
    assert chain(trace(Path("run/pairs.test.jsonl")))[1:] == FROM_PAIRS


def test_it_holds_from_anywhere_and_after_a_move_of_all(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = chain(trace(Path("run/after.jsonl")))
    monkeypatch.chdir("/")
    assert chain(trace(project / "run" / "after.jsonl")) == expected
    shutil.move(project.parent, project.parent.with_name("elsewhere"))
    node = trace(project.parent.with_name("elsewhere") / "work" / "run" / "after.jsonl")
    assert chain(node) == expected
    assert list(problems(node)) == []


def test_a_renamed_input_is_found_by_what_it_holds(project: Path) -> None:
    Path("run/annotations.jsonl").rename("run/labels.jsonl")
    Path("run/annotations.jsonl.meta.json").rename("run/labels.jsonl.meta.json")
    assert chain(trace(Path("run/pairs.jsonl")))[2:] == ["annotations moved labels.jsonl", *FROM_PAIRS[2:]]
    (project.parent / "data" / "prompts.jsonl").rename(project / "run" / "questions.jsonl")
    node = trace(Path("run/responses.jsonl"))
    assert chain(node) == ["output unchanged responses.jsonl", "prompts moved questions.jsonl"]
    assert list(problems(node)) == []
    (project / "run" / "questions.jsonl").rename(project.parent / "data" / "questions.jsonl")
    assert chain(trace(Path("run/responses.jsonl"))) == chain(node)  # beside where it was, or beside the output


def test_what_has_changed_is_said(project: Path) -> None:
    Path("run/responses.jsonl").write_text('{"id": "edited"}\n')
    node = trace(Path("run/model"))
    assert "responses changed responses.jsonl" in chain(node)
    assert list(problems(node)) == [
        "run/responses.jsonl: has changed since run/annotations.jsonl was made from it",
        "run/responses.jsonl: has changed since sample made it",
    ]


def test_an_output_that_is_no_longer_as_it_was_made_is_said(project: Path) -> None:
    Path("run/pairs.test.jsonl").unlink()
    assert list(problems(trace(Path("run/pairs.jsonl")))) == [
        "run/pairs.test.jsonl: is missing since build-pairs made it"
    ]
    Path("run/responses.jsonl").write_text('{"id": "edited"}\n')
    node = trace(Path("run/responses.jsonl"))
    assert node.altered == {"responses.jsonl": "changed"}
    for kind in ("", ".meta.json"):
        Path(f"run/responses.jsonl{kind}").rename(f"run/answers.jsonl{kind}")
    assert trace(Path("run/answers.jsonl")).altered == {"answers.jsonl": "changed"}


def test_what_is_missing_is_said(project: Path) -> None:
    (project.parent / "data" / "prompts.jsonl").unlink()
    node = trace(Path("run/responses.jsonl"))
    assert chain(node) == ["output unchanged responses.jsonl", "prompts missing prompts.jsonl"]
    place = project.parent / "data" / "prompts.jsonl"
    assert list(problems(node)) == [f"{place}: is missing; run/responses.jsonl was made from it"]


def test_a_model_trained_anew_is_another_one(project: Path) -> None:
    made(
        Path("run/model"), "train", {"pairs": Path("run/pairs.jsonl")}, read_options("run/model"), text="other weights"
    )
    node = trace(Path("run/after.jsonl"))
    assert "model changed model" in chain(node)
    assert list(problems(node)) == ["run/model: has changed since run/after.jsonl was made from it"]
    shutil.rmtree("run/model")
    assert "model missing model" in chain(trace(Path("run/after.jsonl")))


def test_a_judge_that_was_changed_is_said(project: Path) -> None:
    judge = {"name": "llm", "model": "run/model", "revision": fingerprint("run/model")}
    made(Path("run/after.annotations.jsonl"), "annotate", {}, judge)
    assert chain(trace(Path("run/after.annotations.jsonl")))[1] == "model unchanged model"
    Path("run/model/model.safetensors").write_text("other weights")
    assert chain(trace(Path("run/after.annotations.jsonl")))[1] == "model changed model"
    made(Path("run/own.jsonl"), "annotate", {}, judge | {"name": "own:judge", "revision": "v2"})
    assert chain(trace(Path("run/own.jsonl")))[1] == "model unknown model"


def test_only_pairs_of_held_out_topics_take_the_record_of_others(project: Path) -> None:
    for name in ("responses.test.jsonl", "pairs.test.parquet"):
        Path("run", name).write_text("{}\n")
        with pytest.raises(InputError, match="nothing is recorded about it"):
            trace(Path("run", name))
    record = Path("run/pairs.jsonl.meta.json")
    meta = json.loads(record.read_text())
    assert trace(Path("run/pairs.test.jsonl")).run is not None
    record.write_text(json.dumps(meta | {"outputs": {"pairs.jsonl": meta["outputs"]["pairs.jsonl"]}}))
    with pytest.raises(InputError, match="nothing is recorded about it"):
        trace(Path("run/pairs.test.jsonl"))
    record.write_text(json.dumps(meta | {"outputs": {}}))  # an old record
    assert trace(Path("run/pairs.test.jsonl")).run is not None


def read_options(folder: str) -> dict[str, Any]:
    meta = read_meta(Path(folder) / META_IN_FOLDER)
    assert meta is not None
    return meta.options


def test_an_unfinished_input_is_said(project: Path) -> None:
    record = Path("run/annotations.jsonl.meta.json")
    record.write_text(record.read_text().replace('"complete"', '"running"'))
    assert list(problems(trace(Path("run/pairs.jsonl")))) == ["run/annotations.jsonl: is not finished"]


def test_a_model_that_was_trained_in_a_circle_ends(project: Path) -> None:
    """Sampled by the model that it is an ancestor of: nothing forbids to overwrite files so."""
    options = {"model": "run/model", "model_files": fingerprint("run/model")}
    record = Path("run/responses.jsonl.meta.json")
    meta = json.loads(record.read_text())
    record.write_text(json.dumps(meta | {"options": options}))
    lines = chain(trace(Path("run/after.jsonl")))
    assert lines.count("model unchanged model") == 2
    assert len(lines) < 20


def test_old_records_without_paths_still_find_neighbours(project: Path) -> None:
    record = Path("run/annotations.jsonl.meta.json")
    meta = json.loads(record.read_text())
    for key in ("paths", "folder", "command_line", "arguments", "begun"):
        del meta[key]
    record.write_text(json.dumps(meta))
    lines = chain(trace(Path("run/annotations.jsonl")))
    assert lines[2] == "responses moved responses.jsonl"
    assert lines[1].startswith("prompts missing sha256:")


def test_nothing_is_recorded(project: Path) -> None:
    with pytest.raises(InputError, match=r"nothing is recorded about it: prompts.jsonl.meta.json is missing"):
        trace(Path("../data/prompts.jsonl"))
    with pytest.raises(InputError, match="no such file or folder"):
        trace(Path("nowhere.jsonl"))


def test_the_tree_and_the_json(project: Path) -> None:
    Path("run/responses.jsonl").write_text('{"id": "edited"}\n')
    runner = CliRunner()
    shown = runner.invoke(app, ["lineage", "run/pairs.jsonl"])
    assert shown.exit_code == 0
    for text in ("run/pairs.jsonl", "annotations: run/annotations.jsonl  unchanged", "responses.jsonl  changed"):
        assert text in shown.output
    assert "$ maskdpo build-pairs ..." in shown.output
    tree = json.loads(runner.invoke(app, ["lineage", "run/pairs.jsonl", "--json"]).stdout)
    assert (tree["path"], tree["run"]["command"]) == ("run/pairs.jsonl", "build-pairs")
    [prompts, annotations] = tree["inputs"]
    assert (prompts["role"], prompts["state"], prompts["run"]) == ("prompts", "unchanged", None)
    assert annotations["inputs"][1]["state"] == "changed"


# --- what is recorded ------------------------------------------------------------------------------


def test_the_command_of_the_process_is_recorded_without_passwords(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/maskdpo", "annotate", "--api-base", "http://me:secret@judge/v1", "a b"])
    file = Path("run/new.jsonl.meta.json")
    Run(file, "annotate", {}, {}, restart="").begin()
    meta = read_meta(file)
    assert meta is not None
    assert meta.command_line == "maskdpo annotate --api-base http://judge/v1 'a b'"
    assert meta.folder == ".."


def test_a_run_goes_on_whatever_the_command_line_and_keeps_its_beginning(project: Path) -> None:
    file = Path("run/new.jsonl.meta.json")
    prompts = Path("../data/prompts.jsonl")
    with invoked_as("first", {"n": 1}):
        Run(file, "sample", {"n": 1}, {"prompts": prompts}, restart="").begin()
    begun = json.loads(file.read_text())["begun"]
    copy = Path("copy.jsonl")
    shutil.copy(prompts, copy)
    with invoked_as("second", {"n": 1, "batch_size": 2}):
        Run(file, "sample", {"n": 1}, {"prompts": copy}, restart="").begin()
    meta = read_meta(file)
    assert meta is not None
    assert (meta.begun, meta.command_line, meta.paths) == (begun, "second", {"prompts": "../copy.jsonl"})


def test_a_chain_of_rounds_does_not_double_with_every_round(project: Path) -> None:
    """Every round samples from the model of the one before, and trains it."""
    for number in range(2, 12):
        before = "run/model" if number == 2 else f"run/model-{number - 1}"
        by = {"model": before, "model_files": fingerprint(before)}
        said = made(Path(f"run/responses-{number}.jsonl"), "sample", {"prompts": Path("../data/prompts.jsonl")}, by)
        pairs = made(Path(f"run/pairs-{number}.jsonl"), "build-pairs", {"annotations": said})
        made(Path(f"run/model-{number}"), "train", {"pairs": pairs}, by)
    node = trace(Path("run/model-11"))
    assert sum("model-" in line for line in chain(node)) == 1 + 2 * 9
    assert node.inputs[-1].repeated
    assert node.inputs[-1].run is not None
    assert json.loads(json.dumps(node.as_json()))["inputs"][-1]["repeated"] is True
    assert CliRunner().invoke(app, ["lineage", "run/model-11"]).output.rstrip().endswith("(as above)")

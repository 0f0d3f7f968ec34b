"""Runs of a stage: what they continue, refuse and record, and what becomes of outputs that are begun anew."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import WriteJsonl

from maskdpo.dataset.options import PairOptions
from maskdpo.dataset.pairs import build_pairs
from maskdpo.errors import CannotContinue, UserError
from maskdpo.io import atomic_write
from maskdpo.run_record import SCHEMA_VERSION, changed_outputs, holds, meta_file, read_meta, recorded_option
from maskdpo.stage_run import OtherSettings, Run, begun_anew, note_arguments, set_aside

PAIR_OPTIONS = PairOptions(test_size=0.5, max_similarity=1.0)


# --- what is begun anew ----------------------------------------------------------------------------


def test_every_earlier_output_is_kept(tmp_path: Path) -> None:
    for i in range(3):
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "config.json").write_text(str(i))
        set_aside(folder)
    kept = {path.name: (path / "config.json").read_text() for path in tmp_path.iterdir()}
    assert kept == {"model.bak": "0", "model.bak2": "1", "model.bak3": "2"}


def test_what_a_link_points_to_is_set_aside_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "disk" / "model").mkdir(parents=True)
    (tmp_path / "disk" / "model" / "old").touch()
    link = tmp_path / "model"
    link.symlink_to(tmp_path / "disk" / "model")
    set_aside(link)
    assert link.is_symlink()
    assert (tmp_path / "disk" / "model.bak" / "old").exists()
    with atomic_write(link / "new") as file:
        file.write(b"x")
    assert (tmp_path / "disk" / "model" / "new").read_bytes() == b"x"


# --- what is continued -----------------------------------------------------------------------------


def test_an_old_complete_record_without_a_date_is_complete_but_not_continued(tmp_path: Path) -> None:
    file, dated = meta_file(tmp_path / "out.jsonl"), {"n": 1, "prompt_date": "2026-01-31"}
    for version, finished in ((1, True), (1, False), (SCHEMA_VERSION, True)):
        run = Run(file, "sample", {"n": 1}, {}, restart=None)
        run.begin()
        if finished:
            run.finish({})
        file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": version}))
        if version == 1 and finished:
            again = Run(file, "sample", dated, {}, restart="--restart")
            assert again.previous is not None
            with pytest.raises(OtherSettings, match="n: 1 -> 2"):
                Run(file, "sample", dated | {"n": 2}, {}, restart="--restart")
            with pytest.raises(OtherSettings, match="prompt_date: None -> '2026-01-31'"):
                again.begin()
        else:
            with pytest.raises(OtherSettings, match="prompt_date: None -> '2026-01-31'"):
                Run(file, "sample", dated, {}, restart="--restart")


def test_an_option_that_the_loaded_model_tells_is_compared_too(tmp_path: Path) -> None:
    file = meta_file(tmp_path / "out.jsonl")
    Run(file, "sample", {"files": "id"}, {}, restart="").begin({"files": "id@1"})
    assert recorded_option(file, "files") == "id@1"
    with pytest.raises(OtherSettings, match="files: 'id@1' -> 'id@2'"):
        Run(file, "sample", {"files": "id@1"}, {}, restart="").begin({"files": "id@2"})


def test_a_message_shows_the_beginning_of_hashes_and_the_record_keeps_them_whole(tmp_path: Path) -> None:
    file, first, second = meta_file(tmp_path / "model"), "0123456789ab" * 5 + "cdef", "fedc" * 16
    Run(file, "train", {"model_files": first, "judge": {"files": [first, first]}}, {}, restart="").begin()
    assert first in file.read_text()
    with pytest.raises(OtherSettings) as error:
        Run(file, "train", {"model_files": second, "judge": {"files": [first, second]}}, {}, restart="Use another")
    was, now = "'0123456789ab...'", "'fedcfedcfedc...'"
    assert f"(judge: {{'files': [{was}, {was}]}} -> {{'files': [{was}, {now}]}}; model_files: {was} -> {now})" in str(
        error.value
    )


def test_an_output_of_another_command_is_not_continued(tmp_path: Path) -> None:
    file = meta_file(tmp_path / "out.jsonl")
    Run(file, "sample", {}, {}, restart="").begin()
    with pytest.raises(CannotContinue, match=r"records an output of `maskdpo sample`; name another output"):
        Run(file, "annotate", {}, {}, restart="")


# --- inputs and arguments --------------------------------------------------------------------------


def test_inputs_are_found_from_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk" / "deep" / "model").mkdir(parents=True)
    (tmp_path / "model").symlink_to(tmp_path / "disk" / "deep" / "model")
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("x")
    run = Run(meta_file(tmp_path / "model"), "train", {}, {"pairs": pairs}, restart="")
    run.begin()
    assert (tmp_path / "model" / run.meta.paths["pairs"]).samefile(pairs)


def test_noting_arguments_leaves_a_record_of_another_version_as_it_is(tmp_path: Path) -> None:
    file = meta_file(tmp_path / "out.jsonl")
    Run(file, "sample", {"n": 1}, {}, restart="").begin()
    for version in ({}, {"schema_version": 1}, {"schema_version": SCHEMA_VERSION + 1, "colour": 1}):
        record = {key: value for key, value in json.loads(file.read_text()).items() if key != "schema_version"}
        record = {key: value for key, value in record.items() if key != "colour"} | version
        file.write_text(json.dumps(record))
        note_arguments(file, {"api_base": f"https://u:SECRET@h/{len(version)}"})
        assert json.loads(file.read_text()) == record | {"arguments": {"api_base": f"https://h/{len(version)}"}}


# --- what was made ---------------------------------------------------------------------------------


def test_a_finished_run_records_what_it_has_made(tmp_path: Path) -> None:
    out, folder = tmp_path / "out.jsonl", tmp_path / "model"
    out.write_text("x")
    folder.mkdir()
    for output in (out, folder):
        run = Run(meta_file(output), "sample", {}, {}, restart="")
        run.begin()
        run.finish({})
    recorded = [read_meta(meta_file(output)) for output in (out, folder)]
    assert [meta and list(meta.outputs) for meta in recorded] == [["out.jsonl"], []]
    assert recorded[0] is not None
    assert list(changed_outputs(out, recorded[0])) == []
    out.write_text("y")
    assert list(changed_outputs(out, recorded[0])) == [("out.jsonl", "changed")]
    out.unlink()
    assert list(changed_outputs(out, recorded[0])) == [("out.jsonl", "missing")]


@pytest.fixture
def labelled(jsonl: WriteJsonl) -> tuple[Path, Path]:
    """Prompts, and for each one right and one wrong answer."""
    prompts = [{"id": f"q{i}", "prompt": "?"} for i in range(6)]
    sentence = {"start": 0, "end": 3, "status": "ok"}
    annotations = [
        {"id": f"q{i}-{label}", "prompt_id": f"q{i}", "response": text, "model": "m"}
        | {"sentences": [sentence | {"label": label}]}
        for i in range(6)
        for text, label in (("Yes", "no_hallucination"), ("No!", "contradictory"))
    ]
    return jsonl("prompts.jsonl", prompts), jsonl("annotations.jsonl", annotations)


def test_new_pairs_never_stand_beside_an_old_record(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    build_pairs(*labelled, out, PAIR_OPTIONS)
    meta = read_meta(meta_file(out))
    assert meta is not None
    assert list(meta.outputs) == ["pairs.jsonl", "pairs.test.jsonl"]
    out.unlink()
    out.with_name("pairs.test.jsonl").unlink()
    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("maskdpo.stage_run.Run.finish", interrupt)
        build_pairs(*labelled, out, PAIR_OPTIONS.model_copy(update={"seed": 1}))
    meta = read_meta(meta_file(out))
    assert meta is not None
    assert out.exists()
    assert (meta.status, meta.options["seed"], meta.outputs) == ("running", 1, {})


def test_an_input_that_is_edited_while_pairs_are_built_counts_as_changed(
    labelled: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, annotations = labelled

    def edit(*_: Any) -> None:
        prompts.write_text(prompts.read_text() + "\n")

    monkeypatch.setattr("maskdpo.dataset.pairs._refuse_too_few", edit)
    build_pairs(prompts, annotations, tmp_path / "pairs.jsonl", PAIR_OPTIONS)
    meta = read_meta(meta_file(tmp_path / "pairs.jsonl"))
    assert meta is not None
    assert not holds(prompts, meta.inputs["prompts"])
    assert holds(annotations, meta.inputs["annotations"])


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_an_output_is_put_back_only_where_the_run_that_began_anew_has_written_nothing(tmp_path: Path) -> None:
    out, record = tmp_path / "out.jsonl", tmp_path / "record.json"
    out.write_text("earlier")
    with pytest.raises(UserError), begun_anew(out, record, restart=True):
        raise UserError("no such model")
    assert out.read_text() == "earlier" and not list(tmp_path.glob("*.bak"))
    with pytest.raises(UserError), begun_anew(out, record, restart=True):
        record.write_text("of the new run")  # an output without a record is not put beside that of another run
        raise UserError("stopped later")
    assert not out.exists() and (tmp_path / "out.jsonl.bak").read_text() == "earlier"
    out.write_text("new")
    with pytest.raises(UserError), begun_anew(out, record, restart=False):
        raise UserError("continues")
    assert out.read_text() == "new"
    target = tmp_path / "target.jsonl"
    target.write_text("behind a link")
    link = tmp_path / "link.jsonl"
    link.symlink_to(target)
    with pytest.raises(UserError), begun_anew(link, restart=True):
        raise UserError("no such model")
    assert link.read_text() == "behind a link" and link.is_symlink()

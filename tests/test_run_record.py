"""Runs and the records beside their outputs, and what becomes of outputs that are begun anew."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from conftest import WriteJsonl

from maskdpo.dataset.options import PairOptions
from maskdpo.dataset.pairs import build_pairs
from maskdpo.errors import InputError
from maskdpo.io import atomic_write
from maskdpo.redact import line_without_paths, line_without_secrets, without_paths, without_secrets
from maskdpo.run import OtherSettings, Run, invoked_as, note_arguments, set_aside
from maskdpo.run_record import SCHEMA_VERSION, changed_outputs, holds, meta_file, read_meta, recorded_option

PAIR_OPTIONS = PairOptions(test_size=0.5, max_similarity=1.0)


def test_every_earlier_output_is_kept(tmp_path: Path) -> None:
    for i in range(3):
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "config.json").write_text(str(i))
        set_aside(folder)
    kept = {path.name: (path / "config.json").read_text() for path in tmp_path.iterdir()}
    assert kept == {"model.bak": "0", "model.bak2": "1", "model.bak3": "2"}


# --- secrets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://h/v1", "https://h/v1"),
        ("https://u:SECRET@h:80/v1", "https://h:80/v1"),
        ("https://u:SEC@RET@h/v1", "https://h/v1"),
        ("https://u:S'E\"CRET@h", "https://h"),
        ("https://SECRET@h?api_key=SECRET&SECRET", "https://h?api_key=***&***"),
        ("https://h/v1?a=SECRET&b=SECRET#top", "https://h/v1?a=***&b=***"),
        ("https://h/@me/v1", "https://h/@me/v1"),
        ("hub:user/name@main", "hub:user/name@main"),
        ("Is a@b right? a=b", "Is a@b right? a=b"),
    ],
)
def test_urls_lose_their_secrets(url: str, clean: str) -> None:
    assert without_secrets(url) == clean == without_secrets(clean)
    line = shlex.join(["maskdpo", "annotate", "--api-base", url, "--stop", "a b\n"])
    assert shlex.split(line_without_secrets(line)) == ["maskdpo", "annotate", "--api-base", clean, "--stop", "a b\n"]


def test_a_record_holds_no_secrets_nor_gives_those_of_old_records(tmp_path: Path) -> None:
    url, file = "https://u:SEC@RET@h/v1?key=SECRET", meta_file(tmp_path / "out.jsonl")
    with invoked_as(f"maskdpo annotate --api-base '{url}'", {"api_base": url, "stop": [url]}):
        Run(file, "annotate", {}, {}, restart="").begin()
    assert "RET" not in file.read_text()
    file.write_text(file.read_text().replace("https://h/v1?key=***", url))
    meta = read_meta(file)
    assert meta is not None
    assert "RET" not in meta.model_dump_json()
    assert meta.arguments == {"api_base": "https://h/v1?key=***", "stop": ["https://h/v1?key=***"]}


# --- what strangers may read ---------------------------------------------------------------------


def test_of_an_absolute_path_the_last_part_is_shown() -> None:
    options = {"model": "/data/models/small", "stop": ["</s>", "/end", "//", "/a/b\n"], "n": 4, "protocol": "~/my/own"}
    shown = {"model": "small", "stop": ["</s>", "/end", "//", "/a/b\n"], "n": 4, "protocol": "own"}
    assert without_paths(options) == shown
    line = "maskdpo sample /home/me/a.jsonl --model '/data/my models/small' --out=/tmp/x/o.jsonl --temperature 0.7"
    assert line_without_paths(line) == "maskdpo sample a.jsonl --model small --out=o.jsonl --temperature 0.7"
    for path, last in (
        ("/home/me/x", "x"),
        ("~/a/x", "x"),
        ("~me/a/x", "x"),
        ("/home/a=b/x", "x"),
        ("/home/me/a b", "a b"),
    ):
        for before in ("", "path=", "a=b=", "--out=", "--template-option=path=", "-o"):
            line = shlex.join(["maskdpo", "--template-option", before + path])
            assert shlex.split(line_without_paths(line))[-1] == before + last
    for url in ("file:///home/me/q", "file://host/home/me/q", "file:/home/me/q"):
        assert without_paths([url, f"path={url}"]) == ["q", "path=q"]
        assert line_without_paths(f"maskdpo -o{url}") == "maskdpo -oq"
    for kept in ("https://h/v1/x", "hub:me/facts", "a/b/c", "--temperature=0.5", "-n4", "-f", "1/2=3/4/5", "</a/b>"):
        assert line_without_paths(kept) == shlex.quote(kept)
    assert line_without_paths("an 'open quote") == "an 'open quote"


# --- records of other versions -------------------------------------------------------------------


def test_fields_of_a_later_version_are_let_pass_and_no_others(tmp_path: Path) -> None:
    file = meta_file(tmp_path / "out.jsonl")
    Run(file, "sample", {"n": 1}, {}, restart="").begin()
    written = json.loads(file.read_text())
    assert written["schema_version"] == SCHEMA_VERSION
    for version, extra, fine in (
        (SCHEMA_VERSION, {}, True),
        (SCHEMA_VERSION, {"colour": 1}, False),
        (SCHEMA_VERSION + 1, {"colour": 1}, True),
        (None, {}, True),  # version 1 did not say so
        (None, {"colour": 1}, False),
    ):
        record = written | {"schema_version": version} | extra
        file.write_text(json.dumps({name: value for name, value in record.items() if value is not None}))
        if not fine:
            with pytest.raises(InputError, match="is not a record of a maskdpo run"):
                read_meta(file)
            continue
        meta = read_meta(file)
        assert meta is not None
        assert meta.options == {"n": 1}
        assert meta.schema_version == (version or 1)
        run = Run(file, "sample", {"n": 1}, {}, restart="")
        assert run.previous == meta
    run.begin()
    assert json.loads(file.read_text())["schema_version"] == SCHEMA_VERSION


def test_noting_arguments_leaves_a_record_of_another_version_as_it_is(tmp_path: Path) -> None:
    file = meta_file(tmp_path / "out.jsonl")
    Run(file, "sample", {"n": 1}, {}, restart="").begin()
    for version in ({}, {"schema_version": 1}, {"schema_version": SCHEMA_VERSION + 1, "colour": 1}):
        record = {key: value for key, value in json.loads(file.read_text()).items() if key != "schema_version"}
        record = {key: value for key, value in record.items() if key != "colour"} | version
        file.write_text(json.dumps(record))
        note_arguments(file, {"api_base": f"https://u:SECRET@h/{len(version)}"})
        assert json.loads(file.read_text()) == record | {"arguments": {"api_base": f"https://h/{len(version)}"}}


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


# --- symbolic links ------------------------------------------------------------------------------


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


def test_inputs_are_found_from_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk" / "deep" / "model").mkdir(parents=True)
    (tmp_path / "model").symlink_to(tmp_path / "disk" / "deep" / "model")
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("x")
    run = Run(meta_file(tmp_path / "model"), "train", {}, {"pairs": pairs}, restart="")
    run.begin()
    assert (tmp_path / "model" / run.meta.paths["pairs"]).samefile(pairs)


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
        patched.setattr("maskdpo.run.Run.finish", interrupt)
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

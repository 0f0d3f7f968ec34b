"""Tables of questions, as people have them, become prompts."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import exit_code
from conftest import WriteJsonl

from maskdpo.errors import InputError
from maskdpo.formats.importing import import_file
from maskdpo.io import read_records
from maskdpo.run_record import meta_file, read_meta
from maskdpo.schemas import Prompt

ROWS = [
    {"nr": 7, "question": "Who wrote it;\nand when?", "context": "She wrote it, in 1815.", "set": "a"},
    {"nr": 8, "question": "谁写的？", "context": None, "set": "b"},
]
COLUMNS = {"prompt": "question", "reference": "context", "id": "nr"}


def cell(value: Any) -> str:
    return "" if value is None else '"' + str(value).replace('"', '""') + '"'


def as_text(separator: str) -> bytes:
    lines = [separator.join(ROWS[0]), *(separator.join(map(cell, row.values())) for row in ROWS)]
    return ("\r\n".join(lines) + "\r\n").encode()


def write(folder: Path, name: str) -> Path:
    file = folder / name
    if name.endswith(".parquet"):
        pa = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pa.Table.from_pylist(ROWS), file)
    elif name.endswith(".jsonl"):
        file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif name.endswith(".json"):
        file.write_text(json.dumps(ROWS, indent=2))
    else:
        begin = b"\xef\xbb\xbf" if "excel" in name else b""
        file.write_bytes(begin + as_text({"a.csv": ",", "excel.csv": ";", "a.tsv": "\t"}[name]))
    return file


@pytest.mark.parametrize("name", ["a.csv", "excel.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet"])
def test_a_table_becomes_prompts_whatever_its_form(tmp_path: Path, name: str) -> None:
    file, out = write(tmp_path, name), tmp_path / "prompts.jsonl"
    stats = import_file(file, out, "prompts", columns=COLUMNS)
    assert (stats.records, stats.rejected) == (2, 0)
    first, second = read_records(out, Prompt)
    assert (first.id, str(first.prompt).splitlines(), first.reference) == (
        "7", ["Who wrote it;", "and when?"], "She wrote it, in 1815.",
    )  # fmt: skip
    assert (second.id, second.prompt, second.reference) == ("8", "谁写的？", None)
    record = read_meta(meta_file(out))
    assert record is not None and record.options == {"format": "prompts", "columns": COLUMNS}


def test_the_command_names_the_columns_and_makes_ids(tmp_path: Path) -> None:
    file, out = write(tmp_path, "a.csv"), tmp_path / "prompts.jsonl"
    columns = "prompt=question, topic=set"
    assert exit_code("import", file, "--format", "prompts", "--columns", columns, "--limit", 1, "--out", out) == 0
    (prompt,) = read_records(out, Prompt)
    assert prompt.id.startswith("q-")
    assert prompt.topic == "a"


def test_rows_that_are_added_leave_the_ids_of_the_others(tmp_path: Path) -> None:
    file, out = tmp_path / "a.csv", tmp_path / "prompts.jsonl"
    file.write_text("prompt,reference\nWho?,Ada\nWhen?,1815\n")
    import_file(file, out, "prompts")
    before = {prompt.prompt: prompt.id for prompt in read_records(out, Prompt)}
    file.write_text("prompt,reference\nWhy?,no\nWho?,Ada\nWhen?,1815\nWho?,Ben\n")
    import_file(file, out, "prompts")
    after = [(prompt.prompt, prompt.id) for prompt in read_records(out, Prompt)]
    assert [one for name, one in after[1:3]] == list(before.values())
    assert len({one for _, one in after}) == 4


@pytest.mark.parametrize("coding", ["latin-1", "utf-16-le"])
def test_a_table_in_another_coding_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str], coding: str) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes("prompt,reference\nOù?,là\n".encode(coding))
    assert exit_code("import", file, "--format", "prompts", "--out", tmp_path / "p.jsonl") == 2
    assert "UTF-8" in capsys.readouterr().err


def test_a_field_that_the_format_does_not_have_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.csv"
    file.write_text("question,context\nWho?,Ada\n")
    words = ["import", file, "--format", "prompts", "--out", tmp_path / "p.jsonl"]
    assert exit_code(*words, "--columns", "prompt=question,referenc=context") == 2
    assert "prompts has no field 'referenc'; did you mean 'reference'?" in capsys.readouterr().err
    assert exit_code(*words) == 2
    assert "the row has question, context" in " ".join(capsys.readouterr().err.split())


def test_parts_of_objects_are_columns_too(tmp_path: Path, jsonl: WriteJsonl) -> None:
    file = jsonl("a.jsonl", [{"q": {"text": "Who?"}, "found": {"passages": ["One.", "Two."]}}])
    columns = {"prompt": "q.text", "reference": "found.passages"}
    import_file(file, tmp_path / "p.jsonl", "prompts", columns=columns)
    (prompt,) = read_records(tmp_path / "p.jsonl", Prompt)
    assert (prompt.prompt, prompt.reference) == ("Who?", ["One.", "Two."])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("prompt=questoin", "a.csv: has no column 'questoin'; it has: nr, question, context, set"),
        ("prompt", "--columns: 'prompt' is not of the form FIELD=COLUMN"),
        ("prompt=nr,prompt=question", "--columns: prompt is given twice"),
        ("reference=context", "a.csv: no row is prompts data (2 rejected); the first:"),
    ],
)
def test_columns_that_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], columns: str, message: str
) -> None:
    file, out = write(tmp_path, "a.csv"), tmp_path / "p.jsonl"
    assert exit_code("import", file, "--format", "prompts", "--columns", columns, "--out", out) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_a_row_with_too_many_cells_is_rejected_and_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("prompt,reference\nWho?,She, and he.\nWhen?,In 1815.\n")
    stats = import_file(file, tmp_path / "p.jsonl", "prompts")
    assert (stats.records, stats.rejected) == (1, 1)
    assert str(stats.errors[0]).endswith("a.csv:2: 3 cells for 2 columns; is a quote missing?")


def test_a_command_that_is_given_a_table_says_how_prompts_are_made_of_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.csv: holds a table, not records: `maskdpo import FILE --format prompts"):
        list(read_records(write(tmp_path, "a.csv"), Prompt))


def test_a_column_may_begin_late_and_must_be_there_at_all(tmp_path: Path, jsonl: WriteJsonl) -> None:
    file, out = jsonl("a.jsonl", [{"question": "A?"}, {"question": "B?", "context": "xx"}]), tmp_path / "p.jsonl"
    import_file(file, out, "prompts", columns={"prompt": "question", "reference": "context"})
    assert [prompt.reference for prompt in read_records(out, Prompt)] == [None, "xx"]
    with pytest.raises(InputError, match="has no column 'nope'; it has: question, context"):
        import_file(file, out, "prompts", columns={"prompt": "question", "reference": "nope"})


def test_a_file_without_rows_is_said(tmp_path: Path) -> None:
    for content in ("", "prompt,reference\n"):
        (tmp_path / "a.csv").write_text(content)
        with pytest.raises(InputError, match="the file is empty, or has a header only"):
            import_file(tmp_path / "a.csv", tmp_path / "p.jsonl", "prompts")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,prompt\nA?,B?\n")
    with pytest.raises(InputError, match="has two columns 'prompt'"):
        import_file(tmp_path / "a.csv", tmp_path / "p.jsonl", "prompts")
    pa = pytest.importorskip("pyarrow")
    pa.parquet.write_table(
        pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"]), tmp_path / "a.parquet"
    )
    with pytest.raises(InputError, match="has two columns 'prompt'"):
        import_file(tmp_path / "a.parquet", tmp_path / "p.jsonl", "prompts")

"""Record files: errors that name file, line and field; files that are whole or not there."""

import bz2
import codecs
import gzip
import lzma
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from maskdpo.errors import InputError, UserError
from maskdpo.io import (
    Appender,
    atomic_write,
    open_input,
    read_answers,
    read_prompts,
    read_records,
    record_type,
    refuse_overwriting,
    reorder,
    scan,
    to_line,
    write_records,
)
from maskdpo.io.lock import sole_writer
from maskdpo.schemas import Annotation, Pair, Prompt, Record, Response

A, B = '{"id":"a","prompt":"x"}', '{"id":"b","prompt":"y"}'


def ids(file: Path) -> list[str]:
    return [record.id for record in read_records(file, Prompt)]


def message(file: Path, model: type[Record] = Prompt) -> str:
    """The error of the first bad line, without the folder."""
    with pytest.raises(InputError) as error:
        list(read_records(file, model))
    assert "\n" not in str(error.value)
    return str(error.value).replace(f"{file.parent}/", "")


def response(i: int) -> Response:
    return Response(id=f"r{i}", prompt_id="a", response=f"answer {i}")


@pytest.mark.parametrize(
    "content",
    [f"{A}\n{B}\n", f"{A}\n{B}", f"{A}\r\n{B}\r\n", f"\n{A}\n  \n\n{B}\n\n", f"\ufeff{A}\n{B}\n", f"{A} \n\t{B}\n"],
    ids=["plain", "no last newline", "CRLF", "blank lines", "BOM", "spaces"],
)
def test_line_ends_and_blank_lines_do_not_matter(tmp_path: Path, content: str) -> None:
    (tmp_path / "p.jsonl").write_bytes(content.encode())
    assert ids(tmp_path / "p.jsonl") == ["a", "b"]
    assert record_type(tmp_path / "p.jsonl") is Prompt


def test_a_line_separator_inside_a_string_is_no_line_end(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    write_records(file, [Prompt(id="a", prompt="one\u2028two\x85three\x0cfour"), Prompt(id="b", prompt="y")])
    assert ids(file) == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"id":"b","prom', "p.jsonl:3: not a JSON object (EOF while parsing"),
        ('{"id":"b","prompt":"y"} {}', "p.jsonl:3: not a JSON object (trailing characters"),
        ("[1]", "p.jsonl:3: Input should be an object"),
        ('{"id":"b"}', "p.jsonl:3: prompt: is missing"),
        ('{"id":"b","prompt":"y","colour":1}', "p.jsonl:3: colour: unknown field; put what is your own under 'meta'"),
        ('{"id":"a","prompt":"y"}', "p.jsonl:3: id: duplicate id 'a', first on line 1"),
        ('{"id":"","prompt":"y"}', "p.jsonl:3: id: String should have at least 1 character"),
        ('{"id":"b","prompt":7}', "p.jsonl:3: prompt: must be a string or a list"),
        ('{"id":"b","prompt":[]}', "p.jsonl:3: prompt: List should have at least 1 item"),
        ('{"id":"b","prompt":[{"role":"robot","content":"x"}]}', "p.jsonl:3: prompt.0.role: Input should be 'system'"),
        ('{"id":"b","prompt":[{"role":"user","content":"x","name":"n"}]}', "p.jsonl:3: prompt.0.name: unknown field"),
        ('{"id":"b","prompt":"y","reference":["r",3]}', "p.jsonl:3: reference.1: Input should be a valid string"),
        ('{"id":"b","prompt":"y","language":"a b"}', "p.jsonl:3: language: 'a b' is no language tag"),
        ('{"prompt":7}', "p.jsonl:3: id: is missing (and 1 more in this line)"),
        ('{"id":"b","prompt":"\\ud800"}', "p.jsonl:3: prompt: holds half of a character (the lone surrogate \\ud800)"),
        (
            '{"id":"b","prompt":"y","meta":{"k":["z",{"\\uDC00":1}]}}',
            "p.jsonl:3: meta.k.1: holds half of a character (the lone surrogate \\udc00)",
        ),
        ('{"id":"b","prompt":"y"}\\ud800', "p.jsonl:3: not a JSON object (trailing characters"),
        (b'{"id":"b","prompt":"\xff\xfe"}', "p.jsonl:3: is not UTF-8 (byte 0xff at column 21); save the file as UTF-8"),
        (f"\ufeff{B}", "p.jsonl:3: begins with a byte order mark (U+FEFF), which may stand at the beginning of a file"),
        ('{"id":"b","id":"c","prompt":"y"}', "p.jsonl:3: id: is there twice in one object; delete one of the two"),
        ('{"id":"b","prompt":"y","meta":{"k":[{"a":1,"a":1}]}}', "p.jsonl:3: a: is there twice in one object"),
        ("[" * 9999, "p.jsonl:3: not a JSON object (recursion limit exceeded"),
    ],
)
def test_a_bad_line_is_named_with_file_line_field_and_reason(jsonl: Any, line: str | bytes, expected: str) -> None:
    assert message(jsonl("p.jsonl", [A, "", line, B])).startswith(expected)


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


WRITTEN: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "two gzip members": lambda content: gzip.compress(content[:9]) + gzip.compress(content[9:]),
    "zstd": zstd,
    "two zstd frames": lambda content: zstd(content[:9]) + zstd(content[9:]),
    "UTF-16": lambda content: content.decode().encode("utf-16"),
    "UTF-16 BE": lambda content: codecs.BOM_UTF16_BE + content.decode().encode("utf-16-be"),
    "UTF-16 in gzip": lambda content: gzip.compress(content.decode().encode("utf-16")),
    "BOM in zstd": lambda content: zstd(codecs.BOM_UTF8 + content),
}


@pytest.mark.parametrize("form", WRITTEN)
def test_compressed_files_and_utf_16_are_read_whatever_their_names(tmp_path: Path, form: str) -> None:
    plain, file = tmp_path / "plain.jsonl", tmp_path / "p.jsonl"
    records = [Prompt(id=f"{i}", prompt="東京 \U0001f600\u0a0d\u0d0a?" * 50) for i in range(200)]
    write_records(plain, records)
    file.write_bytes(WRITTEN[form](plain.read_bytes()))
    assert record_type(file) is Prompt
    assert list(read_records(file, Prompt)) == records
    with open_input(file) as again:  # for readers that read in any order
        assert again.read() == plain.read_bytes()
    before = file.read_bytes()
    with pytest.raises(InputError, match="is not plain text in UTF-8, so no record can be appended"):
        Appender(file, Prompt, print)
    assert file.read_bytes() == before


@pytest.mark.parametrize("form", ["gzip", "zstd", "UTF-16"])
def test_a_file_that_is_cut_off_or_damaged_names_the_line(tmp_path: Path, form: str) -> None:
    file = tmp_path / "p.jsonl"
    whole = WRITTEN[form]("".join(f'{{"id":"{i}","prompt":"{i * i}"}}\n' for i in range(3000)).encode())
    file.write_bytes(whole[:-1])
    found = list(scan_until_error(file))
    assert f"p.jsonl:{len(found)}: cannot be read from this line on (" in found[-1]
    assert found[-1].endswith("is the file damaged or cut off?")
    if form == "gzip":
        file.write_bytes(whole[:-8] + b"\0" * 8)
        assert "cannot be read from this line on (CRC check failed" in list(scan_until_error(file))[-1]


def scan_until_error(file: Path) -> Iterator[str]:
    try:
        for item in scan(file, Prompt):
            yield str(item)
    except InputError as error:
        yield str(error)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (bz2.compress(A.encode()), "p.jsonl: is compressed with bzip2: unpack it, or compress it with gzip or zstd"),
        (lzma.compress(A.encode()), "p.jsonl: is compressed with xz: unpack it"),
        (b"PK\x03\x04....", "p.jsonl: is a zip archive: unpack it"),
        (A.encode("utf-32"), "p.jsonl: is text in UTF-32: save it as UTF-8"),
        (A.encode("utf-16-le"), "p.jsonl: is text in UTF-16 without a byte order mark: save it as UTF-8"),
        (A.encode("utf-16-be"), "p.jsonl: is text in UTF-16 without a byte order mark: save it as UTF-8"),
        (codecs.BOM_UTF16_LE + b"{\0\0\xd8}\0", "p.jsonl:1: cannot be read from this line on ('utf-16-le' codec can't"),
    ],
    ids=["bzip2", "xz", "zip", "UTF-32", "UTF-16 LE", "UTF-16 BE", "half a character"],
)
def test_other_forms_are_named_with_what_to_do(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "p.jsonl").write_bytes(content)
    assert message(tmp_path / "p.jsonl").startswith(expected)


@pytest.mark.parametrize("name", ["r.jsonl.gz", "r.jsonl.zst", "r.xz"])
def test_outputs_are_not_compressed(tmp_path: Path, name: str) -> None:
    for write in (refuse_overwriting, lambda out: write_records(out, [response(0)])):
        with pytest.raises(InputError, match=f"{name}: outputs are not compressed; name it {Path(name).stem}, and"):
            write(tmp_path / name)
    with pytest.raises(InputError, match=r"r\.parquet: records are appended as they come, .*: name it r\.jsonl"):
        Appender(tmp_path / "r.parquet", Response, print)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model", [Prompt, Annotation])
def test_empty_files(jsonl: Any, model: type[Record]) -> None:
    for rows in ([], ["", "  "]):
        assert message(jsonl("e.jsonl", rows), model) == "e.jsonl: the file holds no records"


def test_a_file_of_bad_lines_only_is_not_called_empty_as_well(jsonl: Any) -> None:
    assert [str(item).split(":", 1)[1] for item in scan(jsonl("p.jsonl", ["[1]"]), Prompt)] == [
        "1: Input should be an object"
    ]


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert message(tmp_path / "none.jsonl") == "none.jsonl: no such file"
    folder = tmp_path / "folder"
    folder.mkdir()
    assert message(folder) == "folder: is a folder, a file is needed"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(jsonl: Any) -> None:
    file = jsonl("p.jsonl", [A])
    file.chmod(0)
    assert message(file) == "p.jsonl: may not be read: permission denied"


def test_scan_goes_on_after_an_error(jsonl: Any) -> None:
    found = list(scan(jsonl("p.jsonl", [A, "{", B, A, '{"id":"c","prompt":"z"}']), Prompt))
    assert [isinstance(item, InputError) for item in found] == [False, True, False, True, False]


def test_a_dangling_prompt_id_is_an_error_with_its_line(jsonl: Any) -> None:
    prompts = read_prompts(jsonl("p.jsonl", [A]))
    answers = jsonl("r.jsonl", [{"id": "r", "prompt_id": q, "response": ""} | {"id": q} for q in ("a", "zz")])
    with pytest.raises(InputError, match=r"r\.jsonl:2: prompt_id: no prompt has the id 'zz'"):
        list(read_answers(answers, Response, prompts))


def test_record_type_by_the_most_telling_field(jsonl: Any) -> None:
    answer = {"id": "r", "prompt_id": "a", "response": "x"}
    assert record_type(jsonl("1", ["{torn", answer])) is Response
    assert record_type(jsonl("2", [answer | {"sentences": []}])) is Annotation
    assert record_type(jsonl("3", [{"prompt": "x", "chosen": "y"}])) is Pair
    with pytest.raises(InputError, match=r"4:2: no record that maskdpo knows"):
        record_type(jsonl("4", ["", {"x": 1}]))
    with pytest.raises(InputError, match="5: the file holds no JSON object"):
        record_type(jsonl("5", ["[1]", "[" * 99_999]))


# --- appending -------------------------------------------------------------------------------------


def existing(file: Path) -> list[str]:
    found: list[str] = []
    Appender(file, Response, lambda record: found.append(record.id))
    return found


def test_what_was_appended_is_there_for_the_next_run(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "r.jsonl"
    assert existing(file) == []
    with Appender(file, Response, print) as appender:
        appender.append([response(0), response(1)])
        assert file.read_bytes() == to_line(response(0)) + to_line(response(1))
    with Appender(file, Response, print) as appender:
        appender.append([response(2)])
    assert existing(file) == ["r0", "r1", "r2"]


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_torn_last_line_is_cut_wherever_it_is_torn(
    tmp_path: Path, kept: int, capsys: pytest.CaptureFixture[str]
) -> None:
    file, whole = tmp_path / "r.jsonl", b"".join(to_line(response(i)) for i in range(kept))
    line = to_line(response(9))
    for torn in range(1, len(line) - 1):  # without the newline alone it is whole
        file.write_bytes(whole + line[:torn])
        assert existing(file) == [f"r{i}" for i in range(kept)]
        assert file.read_bytes() == whole
        assert f"dropped an unfinished last line ({torn} bytes)" in capsys.readouterr().err.replace("\n", " ")


def test_a_torn_line_longer_than_a_read_block_is_cut(tmp_path: Path) -> None:
    file, first = tmp_path / "r.jsonl", to_line(response(0))
    long = to_line(Response(id="r1", prompt_id="a", response="x" * 200_000))
    file.write_bytes(first + long[:-2])
    assert existing(file) == ["r0"]
    assert file.read_bytes() == first


@pytest.mark.parametrize("end", [b"", b"\r", b"  "])
def test_a_whole_last_line_without_its_newline_is_kept(
    tmp_path: Path, end: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    file, first = tmp_path / "r.jsonl", to_line(response(0))
    odd = b'{"prompt_id": "a", "id": "r1", "response": "written by somebody else"}' + end
    for last in (to_line(response(1))[:-1], odd):
        for before in (b"", first, b"\xef\xbb\xbf"):
            file.write_bytes(before + last)
            assert existing(file)[-1] == "r1"
            assert file.read_bytes() == before + last + b"\n"
    assert capsys.readouterr().err == ""


def test_a_torn_line_elsewhere_is_an_error_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    content = to_line(response(0)) + to_line(response(1))[:20] + b"\n" + to_line(response(2))
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"r\.jsonl:2: not a JSON object"):
        existing(file)
    assert file.read_bytes() == content


@pytest.mark.parametrize("content", [b"my only copy", b'{"id":"a","prompt":"x"}\nnotes', b"\x00\x00\x00"])
def test_a_file_that_is_not_ours_is_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(content)
    with pytest.raises(InputError, match="is no record file of an earlier run"):
        existing(file)
    assert file.read_bytes() == content


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder, a file is needed"):
        existing(tmp_path)
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "r.jsonl"
    with pytest.raises(UserError, match="cannot be written"), Appender(out, Response, print):
        pass
    with pytest.raises(UserError, match="cannot be written"), atomic_write(out):
        pass
    with pytest.raises(InputError, match="is a folder, a file is needed"), atomic_write(tmp_path):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_link_to_an_output_stays_one(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link, file = tmp_path / "r.jsonl", tmp_path / "disk" / "r.jsonl"
    link.symlink_to(Path("disk", "r.jsonl"))  # relative to the link, and to nothing yet
    write_records(link, [response(0), response(1)])
    with Appender(link, Response, print) as appender:
        appender.append([response(2)])
    reorder(link, Response, [response(2).id])
    assert link.is_symlink()
    assert [r.id for r in read_records(file, Response)] == [response(i).id for i in (2, 0, 1)]
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["r.jsonl"]


# --- one writer ------------------------------------------------------------------------------------


def test_one_writer_at_a_time_and_nothing_is_left_behind(tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "r.jsonl"
    (tmp_path / "link").symlink_to(out)
    with sole_writer(out):
        for name in (out, tmp_path / "link"):
            with pytest.raises(UserError, match="another maskdpo run is writing to it"), sole_writer(name):
                pass
        write_records(out, [response(0)])  # the rename at the end of a run does not release it
        with pytest.raises(UserError, match="another maskdpo run"), sole_writer(out):
            pass
        with sole_writer(out.with_name("other.jsonl")):
            pass
    with pytest.raises(KeyboardInterrupt), sole_writer(out):
        raise KeyboardInterrupt
    with sole_writer(tmp_path):  # a folder
        assert (tmp_path.parent / f".{tmp_path.name}.lock").exists()
        with pytest.raises(UserError, match="another maskdpo run"), sole_writer(tmp_path):
            pass
    assert [file.name for file in out.parent.iterdir()] == ["r.jsonl"]


def test_a_dead_writer_locks_nobody_out(tmp_path: Path) -> None:
    out, script = tmp_path / "r.jsonl", "import os, sys; from pathlib import Path; from maskdpo.io.lock import *\n"
    script += "with sole_writer(Path(sys.argv[1])): print('has it', flush=True); os.kill(os.getpid(), 9)"
    ended = subprocess.run([sys.executable, "-c", script, str(out)], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (-9, "has it\n"), ended.stderr
    with sole_writer(out):
        pass
    assert list(tmp_path.iterdir()) == []


def test_many_processes_take_turns(tmp_path: Path) -> None:
    """None gets in while another is inside, though each removes the lock's file when it leaves."""
    script = """
import os, sys, time
from pathlib import Path
from maskdpo.errors import UserError
from maskdpo.io.lock import sole_writer
out, inside, taken = Path(sys.argv[1]), Path(sys.argv[1] + ".inside"), 0
while taken < 200:
    try:
        with sole_writer(out):
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
            inside.unlink()
            taken += 1
    except UserError:
        pass
"""
    children = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "r.jsonl")]) for _ in range(4)]
    assert [child.wait() for child in children] == [0] * 4
    assert list(tmp_path.iterdir()) == []


# --- whole files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_atomic_write_leaves_nothing_behind_on_an_exception(tmp_path: Path, error: type[BaseException]) -> None:
    file = tmp_path / "out.txt"
    for before in (None, b"before"):
        if before:
            file.write_bytes(before)
        with pytest.raises(error), atomic_write(file) as handle:
            handle.write(b"half")
            handle.flush()
            raise error
        assert [f.name for f in tmp_path.iterdir()] == (["out.txt"] if before else [])
        assert not before or file.read_bytes() == before


def test_atomic_write_makes_folders_and_ordinary_permissions(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "out.txt"
    with atomic_write(file) as handle:
        handle.write(b"whole")
        assert not file.exists()
    (tmp_path / "plain").touch()
    assert file.read_bytes() == b"whole"
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_record_that_fails_while_writing_leaves_no_file(tmp_path: Path) -> None:
    def records() -> Any:
        yield response(0)
        raise InputError("bad", path="x")

    with pytest.raises(InputError):
        write_records(tmp_path / "r.jsonl", records())
    assert list(tmp_path.iterdir()) == []


def test_reorder_keeps_every_byte_of_every_line(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    lines = {name: f'{{"id": "{name}",  "prompt_id":"a", "response":"é {name}"}}\n' for name in "dacb"}
    file.write_text("".join(lines.values()))
    reorder(file, Response, ["a", "b", "not there", "c"])
    assert file.read_text() == lines["a"] + lines["b"] + lines["c"] + lines["d"]
    assert [f.name for f in tmp_path.iterdir()] == ["r.jsonl"]


def test_reorder_passes_over_blank_lines_and_reads_ids_as_json_does(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    odd = '{"id":"\\u0061\\"","prompt_id":"a","response":""}\n'
    last = '{"prompt_id":"a","id":"b","response":"{\\"id\\":\\"c\\""}\n'
    file.write_text(f"\ufeff{last}\n  \n{odd}")
    reorder(file, Response, ['a"', "b", "c"])
    assert file.read_text() == odd + last


def test_renewed_records_take_the_place_of_the_old_ones_and_twice_is_as_once(tmp_path: Path) -> None:
    file, side = tmp_path / "r.jsonl", tmp_path / "r.jsonl.retry"
    new = to_line(Response(id="r1", prompt_id="a", response="new"))
    write_records(file, [response(i) for i in range(4)])
    for _ in range(2):
        side.write_bytes(new)
        reorder(file, Response, [], replacements=side)
        assert file.read_bytes() == to_line(response(0)) + new + to_line(response(2)) + to_line(response(3))
        assert not side.exists()
    side.write_bytes(to_line(response(9)) + to_line(response(1)))
    reorder(file, Response, ["r9", "r3"], replacements=side)
    assert [record.id for record in read_records(file, Response)] == ["r9", "r3", "r0", "r1", "r2"]
    assert "new" not in file.read_text()


def test_a_rewrite_that_fails_keeps_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, side = tmp_path / "r.jsonl", tmp_path / "r.jsonl.retry"
    write_records(file, [response(0)])
    write_records(side, [Response(id="r0", prompt_id="a", response="new")])
    before = file.read_bytes(), side.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        reorder(file, Response, ["r0"], replacements=side)
    assert (file.read_bytes(), side.read_bytes()) == before
    assert len(list(tmp_path.iterdir())) == 2


def test_appending_nothing_touches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    with Appender(tmp_path / "r.jsonl", Response, print) as appender:
        appender.append([])
        assert synced == []
        appender.append([response(0)])
        assert len(synced) == 1


def test_a_record_of_another_type_is_named(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"id": "a", "prompt": "?"}\n')
    with pytest.raises(InputError, match=r"prompt_id: is missing: the line is a prompt"):
        list(read_records(file, Response))
    file.write_text('{"id": "a"}\n')
    with pytest.raises(InputError, match=r"prompt: is missing$"):
        list(read_records(file, Prompt))

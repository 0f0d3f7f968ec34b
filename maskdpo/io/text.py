"""Text files as people have them: compressed, in UTF-16, with a byte order mark. Readers get lines of UTF-8."""

import codecs
import gzip
import json
import re
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import Any, cast

import jiter

from maskdpo import extras
from maskdpo.errors import InputError, first_line

BOM = codecs.BOM_UTF8
"""The byte order mark that some editors write before the first line."""
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
UNREADABLE = {
    b"BZh": "is compressed with bzip2: unpack it, or compress it with gzip or zstd",
    b"\xfd7zXZ": "is compressed with xz: unpack it, or compress it with gzip or zstd",
    b"PK\x03\x04": "is a zip archive: unpack it",
    codecs.BOM_UTF32_LE: "is text in UTF-32: save it as UTF-8",
    codecs.BOM_UTF32_BE: "is text in UTF-32: save it as UTF-8",
    b"{\0": "is text in UTF-16 without a byte order mark: save it as UTF-8",
    b"\0{": "is text in UTF-16 without a byte order mark: save it as UTF-8",
}
"""How files begin that are not read, with what to do."""
COMPRESSED = (".gz", ".zst", ".zstd", ".bz2", ".xz", ".zip")
ARROW = (".arrow", ".feather")

TWICE = "is there twice in one object; delete one of the two"
"""What is said of a key that ``repeated_key`` has found."""

SURROGATE = re.compile("[\ud800-\udfff]")


def open_bytes(path: Path) -> BufferedReader:
    """Open an input as it is, whatever its format.

    Raises:
        InputError: the file does not exist, is a folder, or may not be read.
    """
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError("no such file", path=path) from None
    except IsADirectoryError:
        raise InputError("is a folder, a file is needed", path=path) from None
    except PermissionError:
        raise InputError("may not be read: permission denied", path=path) from None


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a text file in UTF-8, without the byte order mark that it may begin with, counted from 1.

    Raises:
        InputError: it cannot be read, is damaged, or is in a format that is not read.
    """
    number = 0
    with open_bytes(path) as file:
        try:
            for number, line in enumerate(_utf8(file, path), 1):
                yield number, line.removeprefix(BOM) if number == 1 else line
        except (OSError, EOFError, zlib.error, UnicodeError) as error:
            message = f"cannot be read from this line on ({first_line(error)}); is the file damaged or cut off?"
            raise InputError(message, path=path, line=number + 1) from None


def _utf8(file: BufferedReader, path: Path) -> Iterable[bytes]:
    begin = file.peek(8)
    if begin.startswith(GZIP):
        return _utf8(BufferedReader(cast(Any, gzip.GzipFile(fileobj=file))), path)
    if begin.startswith(ZSTD):
        extras.require("pyarrow", install="'maskdpo[hub]'", purpose="reading files that zstd has compressed")
        import pyarrow

        return _utf8(BufferedReader(pyarrow.input_stream(file, compression="zstd")), path)
    for mark, message in UNREADABLE.items():
        if begin.startswith(mark):
            raise InputError(message, path=path)
    if begin.startswith(UTF_16):
        return (line.encode() for line in TextIOWrapper(file, encoding="utf-16", newline="\n"))
    return file


def as_utf8(path: Path) -> BufferedReader:
    """A text file for readers that read its lines again and in any order: the file itself if it is plain UTF-8, else
    its lines in a temporary file."""
    if is_plain(path):
        return open_bytes(path)
    file = cast(BufferedReader, tempfile.TemporaryFile("w+b"))  # noqa: SIM115 - closed by the reader
    file.writelines(line for _, line in numbered_lines(path))
    file.seek(0)
    return file


def is_plain(path: Path) -> bool:
    """Whether the bytes of a file are its lines: it is neither compressed nor in UTF-16."""
    with open_bytes(path) as file:
        return not file.peek(8).startswith((GZIP, ZSTD, *UTF_16, *UNREADABLE))


def refuse_name(out: Path) -> None:
    """Refuse (``InputError``) an output whose name promises what is not written: something compressed, or Arrow."""
    if out.suffix in COMPRESSED:
        raise InputError(
            f"outputs are not compressed; name it {out.stem}, and compress it afterwards (.gz and .zst are read)",
            path=out,
        )
    if out.suffix in ARROW:
        raise InputError(f"outputs are JSONL or Parquet; name it {out.stem}.jsonl or {out.stem}.parquet", path=out)


def repeated_key(line: bytes) -> str | None:
    """A key that an object of a line of valid JSON has twice; readers of JSON take the last one without a word."""
    try:
        jiter.from_json(line, catch_duplicate_keys=True)
    except ValueError:
        pass
    else:
        return None
    found: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        found.extend(name for name in dict.fromkeys(names) if names.count(name) > 1)

    json.loads(line, object_pairs_hook=note)
    return found[0] if found else None


def why_no_json(line: bytes, problem: str, *, of: str = "line") -> tuple[str | None, str]:
    """Why a line is no JSON: the field, where there is one, and the reason with what to do.

    Args:
        problem: what the parser says.
        of: what the text is, a line or a file.
    """
    if line.startswith(BOM):
        return None, (
            "begins with a byte order mark (U+FEFF), which may stand at the beginning of a file only: files have been "
            "joined here. Delete the mark"
        )
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        wrong = line[error.start]
        return None, f"is not UTF-8 (byte 0x{wrong:02x} at column {error.start + 1}); save the file as UTF-8"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None, f"not a JSON object ({_short(problem)}); is the {of} torn?"
    for field, part in _texts(value):
        if found := SURROGATE.search(part):
            return field or None, (
                f"holds half of a character (the lone surrogate \\u{ord(found[0]):04x}), as a text does that was cut "
                r"inside an emoji. Replace this half by \ufffd, or delete it"
            )
    return None, f"not a JSON object ({_short(problem)})"


def _short(problem: str) -> str:
    return problem.removeprefix("Invalid JSON: ").replace(" line 1", "")


def _texts(value: Any, field: str = "") -> Iterator[tuple[str, str]]:
    """All texts in a JSON value with the names of their fields; a key is a text as well."""
    if isinstance(value, str):
        yield field, value
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        if isinstance(key, str):
            yield field, key
        yield from _texts(part, f"{field}.{key}" if field else str(key))

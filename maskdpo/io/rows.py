"""Rows of files that hold no records yet: JSON lines, a JSON list, CSV, TSV, Parquet, Arrow, here or on the Hub."""

import csv
import re
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from maskdpo.errors import InputError
from maskdpo.hub import client
from maskdpo.io.sources import dataset_of, is_on_hub
from maskdpo.io.tables import column_names, is_table, plain_rows, saved_files
from maskdpo.io.text import BOM, COMPRESSED, TWICE, as_utf8, repeated_key, why_no_json

TABLES_AS_TEXT = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
"""Endings of tables that are text, with what separates their cells."""
NO_UTF8 = 'is not UTF-8 text; save it as "CSV UTF-8" in the spreadsheet program, or convert it'
ON_HUB = (".parquet", ".arrow", ".csv", ".tsv", ".jsonl", ".json")
"""Endings of files on the Hub that may hold rows."""


def rows_of(file: Path) -> Iterator[tuple[int, Any]]:
    """The rows of a file, counted from 1 or by their lines. What is wrong with a row is a ``ValueError``.

    Raises:
        InputError: the file cannot be read, or a dataset on the Hub does not say which of its files is meant.
    """
    tables = [file] if is_table(file) else saved_files(file)
    if is_on_hub(file):
        yield from enumerate((row for path in _on_hub(file) for _, row in rows_of(path)), 1)
    elif tables:
        every = (row for table in tables for row in plain_rows(table, column_names(table)))
        yield from enumerate(every, 1)
    elif _ending(file) in TABLES_AS_TEXT:
        yield from _of_text(file)
    else:
        yield from _of_json(file)


def _ending(file: Path) -> str:
    """The ending of a name, in lower case, without that of a compressed file."""
    endings = [suffix.lower() for suffix in file.suffixes]
    return next((ending for ending in reversed(endings) if ending not in COMPRESSED), "")


def _on_hub(name: Path) -> Iterator[Path]:
    """The files of one split of a dataset that somebody else has made."""
    dataset = dataset_of(name)
    assert dataset is not None
    where = dataset.snapshot()
    inside = [file for file in where.files if file.startswith(dataset.inner)]
    holding = [file for file in inside if _ending(Path(file)) in ON_HUB]
    of_split = [file for file in holding if dataset.split in re.split("[-_.]", Path(file).name)]
    found = of_split or (holding if len(holding) == 1 else [])
    if not found:
        listed = ", ".join(holding) or "none that holds rows"
        raise InputError(f"has no file of the split {dataset.split}; its files: {listed}", path=name)
    kinds = {(Path(file).parent, Path(file).suffix) for file in found}
    if len(kinds) > 1:
        command = f"hf download {where.repo} {found[0]} --repo-type dataset --local-dir ."
        raise InputError(
            f"has several tables of the split {dataset.split}: {', '.join(found)}; name the folder of the one that is "
            f"meant, as in hub:{where.repo}/FOLDER, or fetch it and import that file: {command}",
            path=name,
        )
    return (client.download(where, file) for file in found)


def _of_text(file: Path) -> Iterator[tuple[int, Any]]:
    """The rows of a table with a header; an empty cell is null."""
    csv.field_size_limit(2**31 - 1)  # references are longer than the 128 kB that the module takes
    with TextIOWrapper(as_utf8(file), encoding="utf-8-sig", newline="") as text:
        try:
            header = text.readline()
            text.seek(0)
        except UnicodeError:
            raise InputError(NO_UTF8, path=file) from None
        separator = TABLES_AS_TEXT[_ending(file)]
        separator = ";" if separator not in header and ";" in header else separator  # as some countries' Excel writes
        rows = csv.reader(text, delimiter=separator, strict=True)
        try:
            names = next(rows, [])
            if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
                raise InputError(f"has two columns {twice!r}; rename one of them", path=file)
            for row in rows:
                if len(row) > len(names) or (row and len(row) < len(names)):
                    yield rows.line_num, ValueError(f"{len(row)} cells for {len(names)} columns; is a quote missing?")
                elif row:
                    yield rows.line_num, {name: cell or None for name, cell in zip(names, row, strict=True)}
        except UnicodeError:
            raise InputError(NO_UTF8, path=file) from None
        except csv.Error as error:
            raise InputError(f"cannot be read from here on ({error})", path=file, line=rows.line_num) from None


def _of_json(file: Path) -> Iterator[tuple[int, Any]]:
    """The values of the lines, or of the one list that the file holds."""
    with as_utf8(file) as lines:
        begin = lines.peek(1024).removeprefix(BOM).lstrip()
        if begin.startswith(b"["):
            values = _parsed(lines.read().removeprefix(BOM), of="file")
            if not isinstance(values, list):
                raise InputError(f"begins like a JSON list, but cannot be read: {values}", path=file)
            yield from enumerate(values, 1)
            return
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _parsed((line.removeprefix(BOM) if number == 1 else line).strip())


def _parsed(text: bytes, *, of: str = "line") -> Any:
    try:
        value = from_json(text)
    except ValueError as error:
        field, reason = why_no_json(text, str(error), of=of)
        return ValueError(f"{field}: {reason}" if field else reason)
    key = repeated_key(text)
    return value if key is None else ValueError(f"{key}: {TWICE}")

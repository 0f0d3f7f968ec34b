"""Tables on disk, row by row, whoever wrote them: Parquet files, and Arrow files (Feather, what ``datasets`` saves)."""

import json
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json

from maskdpo.errors import InputError, first_line
from maskdpo.io.parquet import arrow, from_row, schema_of
from maskdpo.schemas import FileRecord

PARQUET, ARROW_FILE, ARROW_STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
"""How these files begin, whatever their names. No text begins like the last one."""
ROWS_PER_BATCH = 200
PANDAS_INDEX = "__index_level_"
"""The name of a column that pandas adds; it is part of no record."""
SAVED, SAVED_SPLITS = "state.json", "dataset_dict.json"
"""What ``save_to_disk`` of ``datasets`` writes into the folder of a dataset, and into the folder around its splits."""

Read = Callable[[Any], Any]


class _Table(NamedTuple):
    schema: Any
    """A ``pyarrow.Schema``."""
    batches: Callable[[list[str]], Iterator[Any]]
    """Record batches with these columns."""


def is_table(path: Path) -> bool:
    """Whether a regular file begins as Parquet or Arrow files do, whatever its name."""
    if not path.is_file():
        return False
    try:
        return _beginning(path).startswith((PARQUET, ARROW_FILE, ARROW_STREAM))
    except OSError:
        return False  # the reader reports the error


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(ARROW_FILE))


def saved_files(folder: Path) -> list[Path] | None:
    """The files of a folder that ``datasets`` saved, in their order; None for other paths.

    Raises:
        InputError: the folder holds several splits, or does not say which files it holds.
    """
    if (folder / SAVED_SPLITS).is_file():
        splits = _listed(folder / SAVED_SPLITS, "splits")
        raise InputError(
            "holds the splits of a dataset; name one of them: " + ", ".join(str(folder / split) for split in splits),
            path=folder,
        )
    if not (folder / SAVED).is_file():
        return None
    return [folder / file["filename"] for file in _listed(folder / SAVED, "_data_files")]


def _listed(file: Path, key: str) -> list[Any]:
    try:
        return list(json.loads(file.read_bytes())[key])
    except (ValueError, KeyError, TypeError):
        raise InputError("cannot be read; save the dataset again with `save_to_disk`", path=file) from None


def column_names(path: Path) -> list[str]:
    return [name for name in _opened(path).schema.names if not name.startswith(PANDAS_INDEX)]


def text_columns(path: Path) -> list[str]:
    """The columns that hold texts."""
    types = arrow().types
    kinds = (types.is_string, types.is_large_string, types.is_string_view)
    return [field.name for field in _opened(path).schema if any(is_kind(field.type) for is_kind in kinds)]


def read_columns(path: Path, names: list[str]) -> Iterator[dict[str, Any]]:
    """These columns of a file that holds no records, row by row."""
    return _rows(_opened(path), names, path)


def read_rows(
    path: Path, model: type[FileRecord], *, own_columns: bool = False
) -> Iterator[dict[str, Any] | ValueError]:
    """The rows of a file as fields of ``model``, or the error of a row.

    Args:
        own_columns: read only the columns of ``model``; otherwise unknown columns are an error of validation.
    """
    known = set(schema_of(model, chat=True).names)
    names = [name for name in column_names(path) if name in known or not own_columns]
    for row in plain_rows(path, names):
        try:
            yield row if isinstance(row, ValueError) else from_row(row, model)
        except ValueError as error:
            yield error


def plain_rows(path: Path, names: list[str]) -> Iterator[dict[str, Any] | ValueError]:
    """The rows of a file with these columns, as values that JSON has, or the error of a row."""
    table = _opened(path)
    reads = {name: _reader(table.schema.field(name).type) for name in names}
    for row in _rows(table, names, path):
        try:
            yield {name: None if row[name] is None else read(row[name]) for name, read in reads.items()}
        except ValueError as error:
            yield error


def _reader(kind: Any) -> Read:
    """What turns a value of an Arrow type into what JSON has in its place. Fields that are null are left out."""
    pa = arrow()
    if isinstance(kind, pa.BaseExtensionType):
        return from_json if kind.extension_name == "arrow.json" else _reader(kind.storage_type)
    if pa.types.is_struct(kind):
        parts = {field.name: _reader(field.type) for field in kind}
        return lambda value: {name: read(value[name]) for name, read in parts.items() if value[name] is not None}
    if pa.types.is_map(kind):
        of_item = _reader(kind.item_type)
        return lambda value: {key: of_item(item) for key, item in value.items() if item is not None}
    if pa.types.is_temporal(kind):
        return _as_text
    if pa.types.is_nested(kind) and not pa.types.is_union(kind):  # all kinds of lists
        each = _reader(kind.value_type)
        return lambda value: [None if item is None else each(item) for item in value]
    return lambda value: value


def _as_text(value: Any) -> Any:
    """Readers of JSON take a text like 2026-11-28 for a time, at midnight."""
    if isinstance(value, datetime) and value.time() == datetime.min.time():
        return value.date().isoformat()
    return value.isoformat() if isinstance(value, date) else value


def _rows(table: _Table, names: list[str], path: Path) -> Iterator[dict[str, Any]]:
    """All rows of a file. Pages may be damaged although the footer is whole, which shows only when they are read."""
    batches = table.batches(names)
    done = 0
    while True:
        try:
            rows = next(batches).to_pylist(maps_as_pydicts="strict")
        except StopIteration:
            return
        except (OSError, ValueError, KeyError, arrow().ArrowException) as error:
            raise InputError(
                f"cannot be read from this row on ({first_line(error)})", path=path, line=done + 1
            ) from None
        yield from rows
        done += len(rows)


def _opened(path: Path) -> _Table:
    """A file whose columns have different names.

    Raises:
        InputError: it cannot be read, or two columns have one name.
    """
    table = _read_beginning(path)
    names = table.schema.names
    if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise InputError(f"has two columns {twice!r}; rename one of them", path=path)
    return table


def _read_beginning(path: Path) -> _Table:
    pa = arrow()
    try:
        begin = _beginning(path)
        if begin.startswith(PARQUET):
            parquet = pa.parquet.ParquetFile(path)
            return _Table(
                parquet.schema_arrow, lambda names: parquet.iter_batches(batch_size=ROWS_PER_BATCH, columns=names)
            )
        source = pa.memory_map(str(path))
        arrow_file = begin.startswith(ARROW_FILE)
        reader = pa.ipc.open_file(source) if arrow_file else pa.ipc.open_stream(source)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"cannot be read as Parquet or Arrow ({first_line(error)})", path=path) from None
    batches = (reader.get_batch(i) for i in range(reader.num_record_batches)) if arrow_file else reader
    return _Table(reader.schema, lambda names: _slices(batches, names))


def _slices(batches: Any, names: list[str]) -> Iterator[Any]:
    """Parts of batches, which may be as large as the file."""
    for batch in batches:
        for begin in range(0, batch.num_rows, ROWS_PER_BATCH):
            yield batch.select(names).slice(begin, ROWS_PER_BATCH)

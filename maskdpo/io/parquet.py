"""Records in Parquet, one column per field, so that ``datasets``, TRL and the viewer of the Hub read them.

The columns follow from the record types. Three kinds of fields have no column type of their own:

- objects with any keys (``meta``, ``sampling``, ``template_options``) are JSON in a string column;
- a text or a list of texts (``reference``) is a list, with a column ``reference_is_string`` that says which it was;
- a text or chat messages (``prompt``, ``chosen``, ``rejected``): one of the two in a whole file.

Probabilities by label (``scores``) are one column per label; null: the label has none.
"""

import types
from datetime import date
from enum import Enum
from functools import cache
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, from_json, to_json

from maskdpo import extras
from maskdpo.errors import UserError
from maskdpo.schemas import FileRecord, Message

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_GROUP = 1000
"""Rows that are kept in memory while a file is written: one row group."""
STRING_FLAG = "_is_string"


class Columns(NamedTuple):
    """The fields of a record type that are converted for Parquet."""

    json: frozenset[str]
    text_or_texts: frozenset[str]
    text_or_chat: frozenset[str]


def arrow() -> "types.ModuleType":
    """``pyarrow`` with its Parquet module."""
    extras.require("pyarrow", install="'maskdpo[hub]'", purpose="reading and writing Parquet")
    extras.require("pyarrow.parquet", install="'maskdpo[hub]'", purpose="reading and writing Parquet")
    import pyarrow

    return pyarrow  # type: ignore[no-any-return]


def schema_of(model: type[FileRecord], *, chat: bool) -> "pa.Schema":
    """The columns of a record type; ``chat``: prompts and answers are messages, else plain strings."""
    pa = arrow()
    columns: list[tuple[str, Any]] = []
    for name, field in model.model_fields.items():
        columns.append((name, _arrow_type(field.annotation, chat=chat)))
        if name in columns_of(model).text_or_texts:
            columns.append((name + STRING_FLAG, pa.bool_()))
    return pa.schema(columns)


@cache
def columns_of(model: type[FileRecord]) -> Columns:
    choices = {name: _choices(field.annotation) for name, field in model.model_fields.items()}
    either = {name: kinds for name, kinds in choices.items() if len(kinds) > 1}
    return Columns(
        json=frozenset(name for name, kinds in choices.items() if get_origin(kinds[0]) is dict),
        text_or_texts=frozenset(name for name, kinds in either.items() if list[str] in kinds),
        text_or_chat=frozenset(name for name, kinds in either.items() if list[Message] in kinds),
    )


def _choices(hint: Any) -> list[Any]:
    """The types that a field may have besides None, without their constraints."""
    if get_origin(hint) is Annotated:
        return _choices(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return [choice for part in get_args(hint) for choice in _choices(part)]
    return [] if hint is type(None) else [hint]


def _arrow_type(hint: Any, *, chat: bool) -> Any:
    pa = arrow()
    kinds = _choices(hint)
    lists = [kind for kind in kinds if get_origin(kind) is list]
    if lists and (chat or lists[0] != list[Message] or len(kinds) == 1):
        return pa.list_(_arrow_type(get_args(lists[0])[0], chat=chat))
    kind = kinds[0]
    if by_label := _by_label(kind):
        return pa.struct([(name, pa.float64()) for name in by_label])
    if get_origin(kind) is Literal or get_origin(kind) is dict or issubclass(kind, str | Enum | date):
        return pa.string()
    if issubclass(kind, BaseModel):
        return pa.struct([(name, _arrow_type(f.annotation, chat=chat)) for name, f in kind.model_fields.items()])
    return {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}[kind]


def _by_label(kind: Any) -> list[str]:
    """The keys of a mapping from an enum to numbers, which is a column for each of them; empty for other types."""
    key = get_args(kind)[0] if get_origin(kind) is dict else None
    return [str(one) for one in key] if isinstance(key, type) and issubclass(key, Enum) else []


def is_chat(record: FileRecord) -> bool:
    """Whether the prompt of a record is in the form of chat messages."""
    return any(not isinstance(getattr(record, name), str) for name in columns_of(type(record)).text_or_chat)


def to_row(record: FileRecord) -> dict[str, Any]:
    """A record as the values of its columns."""
    columns = columns_of(type(record))
    row = record.model_dump(mode="json", exclude=set(columns.json))
    for name in columns.json:
        value = getattr(record, name)
        row[name] = None if value is None else _json(value)
    for name in columns.text_or_texts:
        row[name + STRING_FLAG] = isinstance(row[name], str)
        if row[name + STRING_FLAG]:
            row[name] = [row[name]]
    return row


def _json(value: Any) -> str:
    """JSON as in JSONL: NaN and infinity are null."""
    try:
        return to_json(value, inf_nan_mode="null").decode()
    except PydanticSerializationError:
        return to_json(_without_surrogates(value), inf_nan_mode="null").decode()


def _without_surrogates(value: Any) -> Any:
    """The value with a "?" for every lone surrogate, which UTF-8 cannot hold; spans stay valid."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(part) for key, part in value.items()}
    return [_without_surrogates(part) for part in value] if isinstance(value, list) else value


def from_row(row: dict[str, Any], model: type[FileRecord]) -> dict[str, Any]:
    """The fields of a record from its columns.

    Raises:
        ValueError: a JSON column does not hold JSON; the message begins with its name.
    """
    columns = columns_of(model)
    for name in columns.json & row.keys():
        if isinstance(row[name], str):
            try:
                row[name] = from_json(row[name])
            except ValueError as error:
                raise ValueError(f"{name}: is not JSON ({error})") from None
    for name in columns.text_or_texts:
        if row.pop(name + STRING_FLAG, False) and isinstance(row.get(name), list) and row[name]:
            row[name] = row[name][0]  # the reader refuses other values
    return row


class TableWriter:
    """Writes one Parquet file by row groups. The first record decides the columns."""

    def __init__(self, file: IO[bytes]) -> None:
        arrow()  # a missing package is an error before anything is written
        self._file = file
        self._rows: list[dict[str, Any]] = []
        self._writer: Any = None
        self.count = 0
        self.bytes = 0
        """Size of the written rows in memory, uncompressed, in bytes."""

    def write(self, record: FileRecord) -> None:
        if self.count == 0:
            self.model, self.chat = type(record), is_chat(record)
            self.schema = schema_of(self.model, chat=self.chat)
        elif is_chat(record) != self.chat:
            forms = ("strings", "chat messages") if self.chat else ("chat messages", "strings")
            raise UserError(
                f"{self.model.__name__.lower()} {record.id!r} is of {forms[0]}, those before it of {forms[1]}; a "
                "Parquet column has one type: keep the two kinds in files of their own"
            )
        self._rows.append(to_row(record))
        self.count += 1
        if len(self._rows) == ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        pa = arrow()
        try:
            table = pa.Table.from_pylist(self._rows, schema=self.schema)
        except UnicodeEncodeError:
            table = pa.Table.from_pylist(_without_surrogates(self._rows), schema=self.schema)
        if self._writer is None:
            self._writer = pa.parquet.ParquetWriter(self._file, self.schema, compression="zstd")
        self._writer.write_table(table)
        self.bytes += table.nbytes
        self._rows = []

    def close(self) -> None:
        """Write the last row group, and the footer that makes the file valid."""
        if self.count == 0:
            raise UserError("there are no records to write, and a Parquet file without any would have no columns")
        if self._rows:
            self._flush()
        self._writer.close()

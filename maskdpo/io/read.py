"""Validated streaming reads. A line that is no valid record is an ``InputError`` with file, line, field and reason."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import ValidationError

from maskdpo.errors import InputError
from maskdpo.io.sources import MAKE_PROMPTS, Tables, as_json_lines, rows_of, tables_of, type_of
from maskdpo.io.text import TWICE, as_utf8, numbered_lines, repeated_key, why_no_json
from maskdpo.schemas import Annotation, Decision, FileRecord, Pair, Prompt, Response

R = TypeVar("R", bound=FileRecord)


Input = Path | Sequence[Path]
"""One input, or several, whose records follow each other."""


class Located(NamedTuple, Generic[R]):
    """A record and its line, for errors about what the record refers to."""

    record: R
    path: Path
    line: int

    def error(self, field: str, message: str) -> InputError:
        return InputError(message, path=self.path, line=self.line, field=field)


def _first_problem(error: ValidationError, path: Path, line: int, text: bytes = b"") -> InputError:
    # a value that may be a string or a list fails as both; the error about the list says more
    problems = [problem for problem in error.errors(include_url=False) if problem["loc"][1:] != ("str",)]
    problem = problems[0]
    parts = [str(part) for part in problem["loc"]]
    field = ".".join(part for part in parts if not part.startswith("list[")) or None
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "json_invalid":
        field, message = why_no_json(text, message)
    elif problem["type"] == "list_type" and parts[-1].startswith("list["):
        message = "must be a string or a list"
    elif problem["type"] == "extra_forbidden":
        message = "unknown field; put what is your own under 'meta'" if "." not in (field or "") else "unknown field"
    elif problem["type"] == "missing":
        message = "is missing" + _other_kind(text, error.title)
    more = len(problems) - 1
    return InputError(message + (f" (and {more} more in this line)" if more else ""), path=path, line=line, field=field)


def shown_as(path: Path, model: type[FileRecord]) -> Path:
    """The name of an input in ``Located`` and in errors: for a dataset that of its files."""
    tables = tables_of(path, model)
    return path if tables is None else tables.shown


def files_of(given: Input) -> tuple[Path, ...]:
    return (given,) if isinstance(given, Path) else tuple(given)


def scan(given: Input, model: type[R], *, may_be_empty: bool = False) -> Iterator[Located[R] | InputError]:
    """Yield every record of an input, or the error of its line. Blank lines are skipped.

    An input is a JSONL file, or one of the kinds that ``io.sources`` describes, whose rows are counted as lines.
    Ids must be unique within all that is given. Memory grows only with the ids.

    Args:
        may_be_empty: whether a file without records is no error, as one of a part of an input may be.
    """
    seen: dict[str, int] = {}  # lines are counted through all files
    begins: list[tuple[int, Path]] = []
    begin = last = 0
    for path in files_of(given):
        begin += last
        begins.append((begin, path))
        last, empty = 0, True
        tables = tables_of(path, model)
        for item in _lines(path, model) if tables is None else _rows(tables, model):
            empty = False
            if isinstance(item, InputError):
                yield item
                continue
            last = item.line
            first = seen.setdefault(item.record.id, begin + last)
            if first == begin + last:
                yield item
            else:
                yield item.error("id", f"duplicate id {item.record.id!r}, first {_place(first, begins)}")
        if empty and not may_be_empty:
            yield InputError("the file holds no records", path=path)


def _place(line: int, begins: list[tuple[int, Path]]) -> str:
    """A line as counted through all files, of which the last one is being read."""
    begin, file = next(each for each in reversed(begins) if each[0] < line)
    return f"on line {line - begin}" if file == begins[-1][1] else f"in {file}:{line - begin}"


def _lines(path: Path, model: type[R]) -> Iterator[Located[R] | InputError]:
    refuse_table(path)
    return parsed_lines(numbered_lines(path), path, model)


def refuse_table(path: Path) -> None:
    if path.suffix.lower() in (".csv", ".tsv"):
        raise InputError(f"holds a table, not records: {MAKE_PROMPTS}", path=path)


def parsed_lines(lines: Iterable[tuple[int, bytes]], path: Path, model: type[R]) -> Iterator[Located[R] | InputError]:
    """The record of each numbered line, or its error. Blank lines are skipped."""
    for number, raw in lines:
        line = raw.strip()
        if not line:
            continue
        try:
            record = model.model_validate_json(line)
        except ValidationError as error:
            yield _first_problem(error, path, number, line)
            continue
        twice = repeated_key(line)
        if twice is None:
            yield Located(record, path, number)
        else:
            yield InputError(TWICE, path=path, line=number, field=twice)


def _rows(tables: Tables, model: type[R]) -> Iterator[Located[R] | InputError]:
    return parsed_rows(enumerate(rows_of(tables, model), 1), tables.shown, model)


def parsed_rows(
    rows: Iterable[tuple[int, dict[str, Any] | ValueError]], shown: Path, model: type[R]
) -> Iterator[Located[R] | InputError]:
    """The record of each numbered row, or its error."""
    for number, row in rows:
        if isinstance(row, ValueError):
            yield InputError(str(row), path=shown, line=number)
            continue
        try:
            record = model.model_validate(row)
        except ValidationError as error:
            yield _first_problem(error, shown, number)
        else:
            yield Located(record, shown, number)


def read_located(
    given: Input, model: type[R], limit: int | None = None, *, may_be_empty: bool = False
) -> Iterator[Located[R]]:
    """Like ``scan``, but the first error is raised, and ``limit`` is the most records to read."""
    for item in islice(scan(given, model, may_be_empty=may_be_empty), limit):
        if isinstance(item, InputError):
            raise item
        yield item


def read_records(given: Input, model: type[R], limit: int | None = None) -> Iterator[R]:
    """Stream the records of an input; the first bad line raises ``InputError``."""
    for item in read_located(given, model, limit):
        yield item.record


def read_prompts(path: Path) -> dict[str, Prompt]:
    """All prompts by id: other records refer to them."""
    return {prompt.id: prompt for prompt in read_records(path, Prompt)}


AnswerT = TypeVar("AnswerT", Response, Annotation, Pair)


def read_answers(
    given: Input,
    model: type[AnswerT],
    prompts: dict[str, Prompt],
    limit: int | None = None,
    *,
    may_be_empty: bool = False,
) -> Iterator[AnswerT]:
    """Stream records that refer to a prompt; a dangling ``prompt_id`` raises ``InputError``."""
    for item in read_located(given, model, limit, may_be_empty=may_be_empty):
        if item.record.prompt_id not in prompts:
            raise item.error("prompt_id", f"no prompt has the id {item.record.prompt_id!r}")
        yield item.record


KINDS: tuple[tuple[str, type[FileRecord]], ...] = (
    ("reviewer", Decision),
    ("chosen", Pair),
    ("sentences", Annotation),
    ("response", Response),
    ("prompt", Prompt),
)
"""Fields that tell the type of a record; the first one that a record has decides."""


def record_type(file: Path) -> type[FileRecord]:
    """The type of the records of an input, by the fields of the first line that is a JSON object, or by the columns."""
    tables = tables_of(file)
    if tables is not None:
        return type_of(file, tables, KINDS)
    with open_input(file) as lines:
        for number, line in enumerate(lines, 1):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                if (model := _kind_of(value)) is not None:
                    return model
                known = "a prompt, response, annotation, pair or decision"
                raise InputError(f"no record that maskdpo knows: {known}", path=file, line=number)
    raise InputError("the file holds no JSON object", path=file)


def _kind_of(value: Mapping[str, Any]) -> type[FileRecord] | None:
    return next((model for field, model in KINDS if field in value), None)


def _other_kind(line: bytes, wanted: str) -> str:
    """What a line is that lacks a field, where it looks like a record of another type."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return ""
    found = _kind_of(value) if isinstance(value, dict) else None
    return f": the line is a {found.__name__.lower()}" if found and found.__name__ != wanted else ""


def open_input(path: Path) -> BufferedReader:
    """Open an input for reading as JSON lines in UTF-8, which may be read again and in any order.

    Raises:
        InputError: the file does not exist, is a folder, or may not be read.
    """
    tables = tables_of(path)
    return as_utf8(path) if tables is None else as_json_lines(tables, record_type(path))

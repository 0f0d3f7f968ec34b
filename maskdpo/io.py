"""Record files: validated streaming reads, durable appends, atomic writes.

A reader never guesses: a line that is not a valid record is an ``InputError`` with file, line, field and reason.
A file appears either by append (long stages, so that a crash loses nothing) or by atomic rename (everything else).
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, NamedTuple, Self, TypeVar

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from maskdpo.console import warn
from maskdpo.errors import InputError, UserError
from maskdpo.schemas import Annotation, Pair, Prompt, Record, Response

R = TypeVar("R", bound=Record)


class Located(NamedTuple, Generic[R]):
    """A record and the line that it came from, for errors about what it refers to."""

    record: R
    path: Path
    line: int

    def error(self, field: str, message: str) -> InputError:
        return InputError(message, path=self.path, line=self.line, field=field)


def _first_problem(error: ValidationError, path: Path, line: int) -> InputError:
    # what may be a string or a list fails as both; the problem with the list says more
    problems = [problem for problem in error.errors(include_url=False) if problem["loc"][1:] != ("str",)]
    problem = problems[0]
    parts = [str(part) for part in problem["loc"]]
    field = ".".join(part for part in parts if not part.startswith("list[")) or None
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "json_invalid":
        field, message = (
            None,
            f"not a JSON object ({message.removeprefix('Invalid JSON: ').replace(' line 1', '')}); is the line torn?",
        )
    elif problem["type"] == "list_type" and parts[-1].startswith("list["):
        message = "must be a string or a list"
    elif problem["type"] == "extra_forbidden":
        message = "unknown field; put what is your own under 'meta'" if "." not in (field or "") else "unknown field"
    elif problem["type"] == "missing":
        message = "is missing"
    more = len(problems) - 1
    return InputError(message + (f" (and {more} more in this line)" if more else ""), path=path, line=line, field=field)


def scan(path: Path, model: type[R]) -> Iterator[Located[R] | InputError]:
    """Yield every line of a JSONL file as a record, or as the error that it is. Blank lines are passed over.

    Ids must be unique within the file. Memory grows with the ids only.
    """
    seen: dict[str, int] = {}
    empty = True
    with open_input(path) as lines:
        for number, raw in enumerate(lines, 1):
            line = raw.strip()
            if not line:
                continue
            empty = False
            try:
                record = model.model_validate_json(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
            except ValidationError as error:
                yield _first_problem(error, path, number)
                continue
            first = seen.setdefault(record.id, number)  # type: ignore[attr-defined]
            located = Located(record, path, number)
            if first != number:
                yield located.error("id", f"duplicate id {record.id!r}, first on line {first}")  # type: ignore[attr-defined]
                continue
            yield located
    if empty:
        yield InputError("the file holds no records", path=path)


def read_located(path: Path, model: type[R]) -> Iterator[Located[R]]:
    """Like ``scan``, but the first error is raised."""
    for item in scan(path, model):
        if isinstance(item, InputError):
            raise item
        yield item


def read_records(path: Path, model: type[R]) -> Iterator[R]:
    """Stream the records of a file; the first bad line raises ``InputError``."""
    for item in read_located(path, model):
        yield item.record


def read_prompts(path: Path) -> dict[str, Prompt]:
    """All prompts by id: other records refer to them."""
    return {prompt.id: prompt for prompt in read_records(path, Prompt)}


AnswerT = TypeVar("AnswerT", Response, Annotation, Pair)


def read_answers(path: Path, model: type[AnswerT], prompts: dict[str, Prompt]) -> Iterator[AnswerT]:
    """Stream records that refer to a prompt; a dangling ``prompt_id`` raises ``InputError``."""
    for item in read_located(path, model):
        if item.record.prompt_id not in prompts:
            raise item.error("prompt_id", f"no prompt has the id {item.record.prompt_id!r}")
        yield item.record


KINDS: tuple[tuple[str, type[Record]], ...] = (
    ("chosen", Pair),
    ("sentences", Annotation),
    ("response", Response),
    ("prompt", Prompt),
)
"""A field that gives a record's type away, most telling first."""


def record_type(file: Path) -> type[Record]:
    """The type of a file's records, by the fields of the first line that is a JSON object."""
    with open_input(file) as lines:
        for number, line in enumerate(lines, 1):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                for field, model in KINDS:
                    if field in value:
                        return model
                raise InputError(
                    "no record that maskdpo knows: a prompt, response, annotation or pair", path=file, line=number
                )
    raise InputError("the file holds no JSON object", path=file)


def refuse_overwriting(out: Path, *inputs: Path | None) -> None:
    """An output that is one of its own inputs would destroy it."""
    for path in inputs:
        if path is not None and out.exists() and path.exists() and out.samefile(path):
            raise InputError("is an input of this command; name another --out", path=out)


def open_input(path: Path) -> BufferedReader:
    """Open for reading, with errors for people."""
    try:
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise InputError("no such file", path=path) from None
    except IsADirectoryError:
        raise InputError("is a folder, a file is needed", path=path) from None
    except PermissionError:
        raise InputError("may not be read: permission denied", path=path) from None


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears whole or not at all: written beside its place, synced, then renamed over it."""
    if path.is_dir():
        raise InputError("is a folder, a file is needed", path=path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def to_line(record: Record) -> bytes:
    """One JSON line. What stands at its default is left out: a reader puts it back."""
    try:
        return record.model_dump_json(exclude_defaults=True).encode() + b"\n"
    except PydanticSerializationError:  # half a character, which no file can hold, becomes "?": spans stay right
        values = record.model_dump(mode="json", exclude_defaults=True)
        return json.dumps(values, ensure_ascii=False).encode(errors="replace") + b"\n"


RECORD_BEGIN = b'{"id":'
"""How every line of ``to_line`` begins."""


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Write all records at once, atomically; the number of them is returned."""
    count = 0
    with atomic_write(path) as file:
        for record in records:
            file.write(to_line(record))
            count += 1
    return count


class Appender(Generic[R]):
    """Append records durably, and know which ones an earlier run has left.

    A torn last line (the run before was killed while it wrote) is cut off; any other bad line is an error.
    ``on_existing`` sees every record that is already there.
    """

    def __init__(self, path: Path, model: type[R], on_existing: Callable[[R], Any]) -> None:
        self.path = path
        self._file: IO[bytes] | None = None
        if path.exists():
            _cut_torn_line(path)
            if path.stat().st_size:
                for record in read_records(path, model):
                    on_existing(record)

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror}") from None
        return self

    def append(self, records: Iterable[R]) -> None:
        """Write the records and wait until they are on the disk."""
        assert self._file is not None, "Appender is used outside its with block"
        self._file.write(b"".join(to_line(record) for record in records))
        self._file.flush()
        os.fsync(self._file.fileno())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def _cut_torn_line(path: Path) -> None:
    """Drop what follows the last newline: a line that was never finished, but only if it began as a record of ours."""
    open_input(path).close()
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        keep = size
        while keep:
            start = max(0, keep - 65536)
            file.seek(start)
            newline = file.read(keep - start).rfind(b"\n")
            if newline >= 0:
                keep = start + newline + 1
                break
            keep = start
        if keep < size:
            file.seek(keep)
            begin = file.read(len(RECORD_BEGIN))
            if not RECORD_BEGIN.startswith(begin):
                raise InputError("is no record file of an earlier run: its last line is no record", path=path)
            file.truncate(keep)
            warn(f"{path}: dropped an unfinished last line ({size - keep} bytes) that an interrupted run had left")


def reorder(path: Path, model: type[R], order: Iterable[str]) -> None:
    """Rewrite a file atomically with its records in this order of ids; others follow as they were.

    Memory grows with the ids only: lines are copied by their place in the file.
    """
    places: dict[str, tuple[int, int]] = {}
    with path.open("rb") as source:
        begin = 0
        for line in source:
            places[model.model_validate_json(line).id] = (begin, len(line))  # type: ignore[attr-defined]
            begin += len(line)
        first = [record_id for record_id in order if record_id in places]
        listed = set(first)
        with atomic_write(path) as target:
            for record_id in [*first, *(record_id for record_id in places if record_id not in listed)]:
                start, length = places[record_id]
                source.seek(start)
                target.write(source.read(length))

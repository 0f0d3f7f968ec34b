"""Files that grow: durable appends that survive a kill, and the rewrite that sorts a file at the end."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, NamedTuple, Self

from pydantic import ValidationError

from maskdpo.console import warn
from maskdpo.errors import InputError, UserError
from maskdpo.io.read import R, read_records
from maskdpo.io.text import BOM, is_plain
from maskdpo.io.write import RECORD_BEGIN, atomic_write, sync_folder, to_line
from maskdpo.schemas import FileRecord

if sys.platform != "win32":  # Windows has no such locks: a second run is not noticed
    import fcntl


def refuse_parquet(path: Path) -> None:
    """Refuse (``InputError``) the name of a file that cannot grow record by record."""
    if path.suffix == ".parquet":
        raise InputError(
            f"records are appended as they come, which Parquet cannot: name it {path.stem}.jsonl", path=path
        )


class Appender(Generic[R]):
    """Appends records durably to a file that an earlier run may have begun.

    A torn last line (of a run that was killed while it wrote) is cut off; a complete one without its newline is kept;
    any other bad line is an error. ``on_existing`` is called with every record that the file has already.
    """

    def __init__(self, path: Path, model: type[R], on_existing: Callable[[R], Any]) -> None:
        refuse_parquet(path)
        self.path = path
        self._file: IO[bytes] | None = None
        if path.exists():
            _repair_last_line(path, model)
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
        lines = b"".join(to_line(record) for record in records)
        if lines:
            self._file.write(lines)
            self._file.flush()
            os.fsync(self._file.fileno())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


@contextmanager
def locked(path: Path, model: type[FileRecord]) -> Iterator[IO[bytes]]:
    """A file that grows, opened at its end; nobody else appends to it by ``append_shared`` until the block ends.

    What follows the last newline is repaired first, as ``Appender`` does: a process that was killed may have left it.

    Raises:
        OSError: the file cannot be written.
        InputError: it is Parquet by its name, or its last line is no record.
    """
    refuse_parquet(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        if sys.platform != "win32":
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        _repair_last_line(path, model)
        yield file


def append_shared(path: Path, model: type[R], records: Iterable[R]) -> None:
    """Append records durably to a file to which other processes append as well, line by line.

    Raises:
        UserError: the file cannot be written.
        InputError: it is Parquet by its name, or its last line is no record.
    """
    try:
        is_new = not path.exists()
        with locked(path, model) as file:
            file.write(b"".join(to_line(record) for record in records))
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_folder(path.resolve().parent)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def _repair_last_line(path: Path, model: type[FileRecord]) -> None:
    """Repair what follows the last newline: a complete record gets its newline, an unfinished one is dropped, and
    anything that does not begin like a record is an error."""
    if not is_plain(path):
        raise InputError(
            "is not plain text in UTF-8, so no record can be appended to it; name another output", path=path
        )
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
            last = file.read()
            if _is_record(last if keep else last.removeprefix(BOM), model):
                file.write(b"\n")
                return
            if not RECORD_BEGIN.startswith(last[: len(RECORD_BEGIN)]):
                raise InputError("is no record file of an earlier run: its last line is no record", path=path)
            file.truncate(keep)
            warn(f"{path}: dropped an unfinished last line ({size - keep} bytes) that an interrupted run had left")


def _is_record(line: bytes, model: type[FileRecord]) -> bool:
    try:
        model.model_validate_json(line)
    except ValidationError:
        return False
    return True


_FIRST_ID = re.compile(rb'\{"id":"([^"\\]+)"')
"""The beginning of a line of ``to_line``: the id is found without parsing the rest."""


def reorder(path: Path, model: type[R], order: Iterable[str], *, replacements: Path | None = None) -> None:
    """Rewrite a file of valid records atomically in this order of ids; other records follow in their order.

    Memory grows only with the ids: lines are copied by their offset in the file.

    Args:
        replacements: a file of records that replace those with the same id. It is deleted at the end; a crash before
            that does no harm, because replacing the same records again changes nothing.
    """
    with ExitStack() as stack:
        files = [file for file in (path, replacements) if file is not None and file.exists()]
        sources = [stack.enter_context(file.open("rb")) for file in files]
        lines = {record_id: line for source in sources for record_id, line in lines_by_id(source, model)}
        target = stack.enter_context(atomic_write(path))
        target.writelines(in_order(lines, order))
    if replacements is not None:
        sync_folder(path.resolve().parent)  # a power failure must not undo the rename but keep the deletion
        replacements.unlink()


class Line(NamedTuple):
    """Where a line of a file lies."""

    source: IO[bytes]
    begin: int
    length: int

    def read(self) -> bytes:
        """The line, with a newline at its end."""
        self.source.seek(self.begin)
        line = self.source.read(self.length)
        return line if line.endswith(b"\n") else line + b"\n"


def in_order(lines: Mapping[str, Line], order: Iterable[str]) -> Iterator[bytes]:
    """The lines in this order of ids, as far as they are there; then the others in theirs."""
    first = dict.fromkeys(record_id for record_id in order if record_id in lines)
    for record_id in chain(first, (record_id for record_id in lines if record_id not in first)):
        yield lines[record_id].read()


def lines_by_id(source: IO[bytes], model: type[FileRecord]) -> Iterator[tuple[str, Line]]:
    """The id of every line that is not blank, with where the line lies."""
    begin = 0
    for line in source:
        record = line.removeprefix(BOM)
        if record.strip():
            found = _FIRST_ID.match(record)
            record_id = found[1].decode() if found else model.model_validate_json(record).id
            yield record_id, Line(source, begin + len(line) - len(record), len(record))
        begin += len(line)

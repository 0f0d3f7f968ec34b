"""Files that grow: durable appends that survive a kill, and the rewrite that puts them into order at the end."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, Self

from pydantic import ValidationError

from maskdpo.console import warn
from maskdpo.errors import InputError, UserError
from maskdpo.io.read import BOM, R, open_input, read_records
from maskdpo.io.write import RECORD_BEGIN, atomic_write, sync_folder, to_line
from maskdpo.schemas import FileRecord

if sys.platform != "win32":  # there nobody watches over a second run
    import fcntl


LOCK_SUFFIX = ".lock"


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Nobody else who asks for it writes to ``path`` meanwhile; two runs on one output would both ask for all of it.

    The lock is on a hidden file beside the output and not on the output itself, which is another file after the rename
    that ends a run, and may not be there before. (It is inside of an output folder that is all that may be written to,
    such as a mounted one.) The kernel releases the lock when a process dies; the file that it leaves then is taken over
    by the next run, which removes it.

    Raises:
        UserError: if another process has it.
    """
    if sys.platform == "win32":
        yield
        return
    real = path.resolve()
    inside = real.is_dir() and not os.access(real.parent, os.W_OK)
    beside = (real if inside else real.parent) / f".{real.name}{LOCK_SUFFIX}"
    handle = _lock(beside, path)
    try:
        yield
    finally:
        beside.unlink(missing_ok=True)  # before the lock is released: nobody else can have the file by then
        os.close(handle)


def _lock(file: Path, output: Path) -> int:
    """Take the lock on ``file``, which is made where it is missing; returns its descriptor."""
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"{output}: cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            message = "another maskdpo run is writing to it; wait until it has ended, or use another `out`"
            raise UserError(f"{output}: {message}") from None
        except OSError:  # a file system without locks
            return handle
        if _is_open_as(handle, file):
            return handle
        os.close(handle)  # the run that held it has removed it since


def _is_open_as(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False


class Appender(Generic[R]):
    """Append records durably, and know which ones an earlier run has left.

    A torn last line (the run before was killed while it wrote) is cut off, a whole one that lacks its newline is kept;
    any other bad line is an error.
    ``on_existing`` sees every record that is already there.
    """

    def __init__(self, path: Path, model: type[R], on_existing: Callable[[R], Any]) -> None:
        self.path = path
        self._file: IO[bytes] | None = None
        if path.exists():
            _mend_last_line(path, model)
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


def _mend_last_line(path: Path, model: type[FileRecord]) -> None:
    """See to what follows the last newline: a whole record gets its newline, one that was never finished is dropped,
    and what did not begin as a record of ours is an error."""
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


_OUR_ID = re.compile(rb'\{"id":"([^"\\]+)"')
"""How a line of ``to_line`` begins: its id is found without parsing the rest."""


def reorder(path: Path, model: type[R], order: Iterable[str], *, replacements: Path | None = None) -> None:
    """Rewrite a file of valid records atomically in this order of ids; others follow as they were.

    Memory grows with the ids only: lines are copied by their place in the file.

    Args:
        replacements: a file of records that replace those with the same id. It is deleted at the end; a crash before
            that does no harm, because replacing the same records again changes nothing.
    """
    with ExitStack() as stack:
        files = [file for file in (path, replacements) if file is not None and file.exists()]
        sources = [stack.enter_context(file.open("rb")) for file in files]
        places = {record_id: place for source in sources for record_id, place in _places(source, model)}
        first = [record_id for record_id in order if record_id in places]
        listed = set(first)
        target = stack.enter_context(atomic_write(path))
        for record_id in chain(first, (record_id for record_id in places if record_id not in listed)):
            source, begin, length = places[record_id]
            source.seek(begin)
            target.write(source.read(length))
    if replacements is not None:
        sync_folder(path.resolve().parent)  # a power cut must not undo the rename and keep the deletion
        replacements.unlink()


def _places(source: IO[bytes], model: type[FileRecord]) -> Iterator[tuple[str, tuple[IO[bytes], int, int]]]:
    """Id, and file, begin and length of every line that is not blank."""
    begin = 0
    for line in source:
        record = line.removeprefix(BOM)
        if record.strip():
            ours = _OUR_ID.match(record)
            record_id = ours[1].decode() if ours else model.model_validate_json(record).id
            yield record_id, (source, begin + len(line) - len(record), len(record))
        begin += len(line)

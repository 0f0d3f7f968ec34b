"""Files that are written whole: beside their place, synced, then renamed over it. A symbolic link stays one: what it
points to is replaced."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pydantic_core import PydanticSerializationError

from maskdpo.errors import InputError, UserError
from maskdpo.io.parquet import TableWriter
from maskdpo.schemas import FileRecord


def refuse_overwriting(out: Path, *inputs: Path | None) -> None:
    """An output that is one of its own inputs would destroy it."""
    for path in inputs:
        if path is not None and out.exists() and path.exists() and out.samefile(path):
            raise InputError("is an input of this command; name another `out`", path=out)


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears whole or not at all: written beside its place, synced, then renamed over it.

    Where ``path`` is a symbolic link, its place is that of the file that the link points to.
    """
    if path.is_dir():
        raise InputError("is a folder, a file is needed", path=path)
    real = Path(os.path.realpath(path))
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{real.name}.", dir=real.parent)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(real)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def move_into_place(file: Path, path: Path) -> None:
    """Rename a finished file over ``path``; where that is a symbolic link, its target gets the contents."""
    if path.is_symlink():  # its target may lie on another disk, where no rename leads
        with atomic_write(path) as target, file.open("rb") as source:
            shutil.copyfileobj(source, target)
    else:
        file.replace(path)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, after a rename."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def to_line(record: FileRecord) -> bytes:
    """One JSON line. What stands at its default is left out: a reader puts it back."""
    try:
        return record.model_dump_json(exclude_defaults=True).encode() + b"\n"
    except PydanticSerializationError:  # half a character, which no file can hold, becomes "?": spans stay right
        values = record.model_dump(mode="json", exclude_defaults=True)
        return json.dumps(values, ensure_ascii=False).encode(errors="replace") + b"\n"


RECORD_BEGIN = b'{"id":'
"""How every line of ``to_line`` begins."""


@contextmanager
def record_writer(path: Path) -> Iterator[Callable[[FileRecord], object]]:
    """Write records one by one: Parquet if the file is named ``.parquet``, else JSONL.

    The file appears whole when the block ends well, and not at all if it does not.
    """
    with atomic_write(path) as file:
        if path.suffix == ".parquet":
            table = TableWriter(file)
            yield table.write
            table.close()
        else:
            yield lambda record: file.write(to_line(record))


def write_records(path: Path, records: Iterable[FileRecord]) -> int:
    """Write all records at once, atomically, as ``record_writer`` does; the number of them is returned."""
    count = 0
    with record_writer(path) as write:
        for record in records:
            write(record)
            count += 1
    return count

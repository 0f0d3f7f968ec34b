"""Files that are written whole: beside their final path, synced, then renamed. Of a symbolic link the target is
replaced."""

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
from maskdpo.io.text import refuse_name
from maskdpo.schemas import FileRecord


def refuse_overwriting(out: Path, *inputs: Path | None) -> None:
    """Refuse (``InputError``) an output that is an input, which would be lost, or that ``refuse_name`` refuses."""
    refuse_name(out)
    for path in inputs:
        if path is not None and out.exists() and path.exists() and out.samefile(path):
            raise InputError("is an input of this command; name another output", path=out)


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears whole or not at all: written beside its final path, synced, then renamed.

    Where ``path`` is a symbolic link, the file that the link points to is replaced.
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
    if path.is_symlink():  # its target may be on another disk, where it cannot be renamed
        with atomic_write(path) as target, file.open("rb") as source:
            shutil.copyfileobj(source, target)
    else:
        file.replace(path)


def sync_folder(folder: Path) -> None:
    """Wait until a rename in a folder is on the disk."""
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
    """One JSON line, without fields that have their default values."""
    try:
        return record.model_dump_json(exclude_defaults=True).encode() + b"\n"
    except PydanticSerializationError:  # a lone surrogate, which UTF-8 cannot hold, becomes "?"; spans stay valid
        values = record.model_dump(mode="json", exclude_defaults=True)
        return json.dumps(values, ensure_ascii=False).encode(errors="replace") + b"\n"


RECORD_BEGIN = b'{"id":'
"""The beginning of every line of ``to_line``."""


@contextmanager
def record_writer(path: Path) -> Iterator[Callable[[FileRecord], object]]:
    """A function that writes records one by one: Parquet if the path ends in ``.parquet``, else JSONL.

    The file appears at the end of the block, and only if it ends without an error.
    """
    refuse_name(path)
    with atomic_write(path) as file:
        if path.suffix == ".parquet":
            table = TableWriter(file)
            yield table.write
            table.close()
        else:
            yield lambda record: file.write(to_line(record))


def write_records(path: Path, records: Iterable[FileRecord]) -> int:
    """Write all records as ``record_writer`` does. Returns their number."""
    count = 0
    with record_writer(path) as write:
        for record in records:
            write(record)
            count += 1
    return count

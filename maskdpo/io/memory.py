"""Records that callers hold in memory, for stages that read files."""

import filecmp
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from maskdpo.errors import InputError, UserError
from maskdpo.io.read import R
from maskdpo.io.write import atomic_write, write_records
from maskdpo.schemas import FileRecord

File = str | Path


def checked(records: Iterable[R], *kinds: type[R]) -> Iterator[R]:
    """The records, which must be of one of these kinds, all of the same, and have ids of their own.

    Raises:
        UserError: one is not.
    """
    names = " or ".join(kind.__name__ for kind in kinds)
    found: type[R] | None = None
    ids: set[str] = set()
    for i, record in enumerate(records):
        if not isinstance(record, kinds) or (found is not None and type(record) is not found):
            name = found.__name__ if found is not None else names
            raise UserError(f"record {i} is of the type {type(record).__name__}; records of the type {name} are needed")
        if record.id in ids:
            raise UserError(f"record {i}: duplicate id {record.id!r}")
        found = type(record)
        ids.add(record.id)
        yield record


@contextmanager
def as_file(given: File | Iterable[R], *kinds: type[R], name: str) -> Iterator[Path]:
    """The path of records, or of a file with this name that holds them meanwhile."""
    if isinstance(given, str | Path):
        yield Path(given)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.jsonl"
        write_records(file, checked(given, *kinds))
        yield file


@contextmanager
def as_files(**given: tuple[Any, *tuple[type[FileRecord], ...]]) -> Iterator[dict[str, Path | None]]:
    """``as_file`` for several roles: records or None, and the kinds that they may be of."""
    with ExitStack() as stack:
        yield {
            role: None if records is None else stack.enter_context(as_file(records, *kinds, name=role))
            for role, (records, *kinds) in given.items()
        }


def kept_as_file(given: File | Iterable[R], kind: type[R], file: Path) -> Path:
    """The path of records, or else ``file``, which then holds them for good, so that a run can be continued.

    Raises:
        InputError: ``file`` holds other records, those of an earlier run.
    """
    if isinstance(given, str | Path):
        return Path(given)
    with as_file(given, kind, name="records") as new:
        if file.exists():
            if not filecmp.cmp(file, new, shallow=False):
                raise InputError(
                    "holds the other records of an earlier run; use another `out`, or move it away", path=file
                )
        else:
            with atomic_write(file) as handle, new.open("rb") as source:
                shutil.copyfileobj(source, handle)
    return file

"""What callers give: paths or records, and settings that only commands have."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from maskdpo import io
from maskdpo.errors import UserError
from maskdpo.io.memory import as_file, checked
from maskdpo.schemas import FileRecord

R = TypeVar("R", bound=FileRecord)


def paths_given(given: Any) -> list[Path]:
    """The paths that are given; none where records are."""
    if isinstance(given, str | Path):
        return [Path(given)]
    if isinstance(given, list | tuple) and all(isinstance(one, str | Path) for one in given):
        return [Path(one) for one in given]
    return []


@contextmanager
def files_given(given: Any, kind: type[R], *, name: str) -> Iterator[list[Path]]:
    """The paths that are given, or a file that holds the records meanwhile."""
    if files := paths_given(given):
        yield files
        return
    with as_file(given, kind, name=name) as file:
        yield [file]


def records_given(given: Any, kind: type[R]) -> Iterable[R]:
    files = paths_given(given)
    return io.read_records(files, kind) if files else checked(given, kind)


def no_dry_run(wanted: bool, command: str) -> None:
    if wanted:
        raise UserError(f"`dry_run` is for the command `maskdpo {command}`")

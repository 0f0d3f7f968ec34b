"""The inputs of a recorded run: where they lie now."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

from maskdpo.io import is_on_hub
from maskdpo.run_record import holds

Found = Literal["unchanged", "changed", "moved", "missing"]

SUFFIXES = (".jsonl", ".json", ".parquet")
MAX_SEARCHED = 500
"""The most files of a folder that are read in search of a file that was moved."""


def find_input(folder: Path, recorded: str | None, digest: str) -> tuple[Path, Found]:
    """An input at its recorded path, or under another name beside that path or beside the output."""
    if is_on_hub(Path(digest)):
        return Path(digest), "unchanged"  # a commit never changes
    at = tidy(folder / recorded) if recorded else None
    if at and holds(at, digest):
        return at, "unchanged"
    folders = {folder, at.parent} if at else {folder}
    for file in _files_of(folders):
        if holds(file, digest):
            return file, "moved"
    if at and at.exists():
        return at, "changed"
    return at or Path(f"sha256:{digest[:12]}"), "missing"


def _files_of(folders: set[Path]) -> Iterator[Path]:
    for folder in sorted(folders):
        if folder.is_dir():
            files = (file for file in sorted(folder.iterdir()) if file.suffix in SUFFIXES and file.is_file())
            yield from islice(files, MAX_SEARCHED)


def tidy(path: Path) -> Path:
    """The path without ``..``, relative to the current folder where it is below it."""
    whole, here = path.resolve(), Path.cwd()
    return whole.relative_to(here) if whole.is_relative_to(here) else whole

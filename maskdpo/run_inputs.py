"""The inputs of a recorded run: where they lie now, and which of them are parts of other runs."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

from maskdpo.errors import InputError
from maskdpo.io import is_on_hub
from maskdpo.run_record import holds, meta_file, read_meta
from maskdpo.shard import Shard, read_shard

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


def record_beside(file: Path) -> Path:
    """Where the record of an output lies, which may have been compressed since."""
    record, before = meta_file(file), meta_file(file.with_suffix(""))
    return before if before.exists() and not record.exists() else record


def shard_of(file: Path) -> Shard | None:
    """Which part of its run a file is, by the record beside it; None: all of it, or nothing is recorded."""
    meta = read_meta(record_beside(file)) if file.is_file() else None
    return read_shard(meta.options.get("shard")) if meta is not None else None


def lone_parts(files: Iterable[Path]) -> dict[Path, Shard]:
    """The files that are parts of runs whose other parts are not among them."""
    parts = {file: shard for file in files if (shard := shard_of(file)) is not None}
    there = Counter(shard.of for shard in set(parts.values()))
    return {file: shard for file, shard in parts.items() if there[shard.of] < shard.of}


def refuse_other_part(files: Iterable[Path], shard: Shard | None) -> None:
    """Refuse (``InputError``) outputs that are another part of their run than the one that is asked for: what belongs
    to the latter would seem to have no records."""
    lone = lone_parts(files)
    if shard is None or not lone or shard in lone.values():
        return
    file, own = next(iter(lone.items()))
    raise InputError(
        f"is part {own} of its run, not {shard}; give the output of part {shard}, or that of all parts, which "
        "`maskdpo merge` makes",
        path=file,
    )

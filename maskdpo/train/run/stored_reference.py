"""Log-probs of the reference on disk, mapped into memory: a float32 for every answer token, in the order of the pairs.

They are computed part by part, and appended to a file that a killed run leaves for the next one to go on with. The file
gets its name when it is whole.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from maskdpo.errors import UserError
from maskdpo.io.lock import NoLocksError, locked_file
from maskdpo.train.data.encoded_pair import EncodedPair
from maskdpo.train.data.store import StoredPairs, variable_of
from maskdpo.train.ranks import Ranks

PART = 4096
"""Pairs that are computed between two writes: a killed run loses no more."""
BYTES = 4

Compute = Callable[[Sequence[EncodedPair]], Mapping[str, NDArray[np.float32]]]


class StoredReference(Mapping[str, NDArray[np.float32]]):
    """The log-probs of a file by pair id, read when they are asked for.

    Raises:
        UserError: the file does not hold those of these pairs.
    """

    def __init__(self, file: Path, pairs: StoredPairs) -> None:
        if not is_whole(file, pairs):
            raise UserError(f"{file}: does not hold the log-probs of all pairs. Remove it, and repeat the command")
        self._logps = np.memmap(file, "<f4", "r")
        self._pairs = pairs

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        i = self._pairs.index_of(name)
        end = int(self._pairs.answer_ends[i])
        return np.array(self._logps[end - int(self._pairs.lengths[i, 1:].sum()) : end])

    def __iter__(self) -> Iterator[str]:
        return (pair.id for pair in self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)


def is_whole(file: Path, pairs: StoredPairs) -> bool:
    return file.is_file() and file.stat().st_size == BYTES * int(pairs.answer_ends[-1])


@dataclass(frozen=True)
class Begun:
    """A file of log-probs that is not whole yet."""

    file: Path
    """Its name when it is."""
    name: Path
    """Until then."""
    part: BinaryIO | None
    """On the first rank of each machine, which writes: its folder need not be that of another machine."""
    is_locked: bool = True


@contextmanager
def begun_reference(file: Path | None, ranks: Ranks) -> Iterator[Begun]:
    """What an earlier run has left of a file, or a new one. Every rank must call.

    Args:
        file: None: one in a temporary folder, which is gone at the end; so is it where another run writes this one.

    Raises:
        UserError: it cannot be written.
    """
    with ExitStack() as stack:
        try:
            begun = None
            if ranks.first_here and file is not None:
                begun = stack.enter_context(_opened(file))
            if ranks.any(ranks.first_here and begun is None):
                file = Path(tempfile.gettempdir()) / f"maskdpo-{ranks.from_first(uuid.uuid4().hex)}" / "reference.f32"
                if ranks.first_here:
                    stack.callback(shutil.rmtree, file.parent, ignore_errors=True)
                    begun = stack.enter_context(_opened(file))
            assert file is not None
            yield begun or Begun(file, file, None)
        except OSError as error:
            folder = file.parent if file else Path(tempfile.gettempdir())
            raise UserError(
                f"{folder}: the log-probs of the reference cannot be written: {error.strerror}. "
                f"Set {variable_of(folder)} to a folder with room for 4 bytes per answer token"
            ) from None


def write_reference(
    begun: Begun, pairs: StoredPairs, ranks: Ranks, compute: Compute, done: Callable[[int], None]
) -> Path:
    """Compute what a file lacks, and give it its name; every rank must call.

    Args:
        compute: the log-probs of some pairs, on every rank.
        done: called with the number of pairs that an earlier run has done.

    Raises:
        OSError: it cannot be written.
    """
    part = begun.part
    own = _parts_in(part, pairs) if part is not None else len(pairs)
    first = -int(ranks.largest(-own))
    done(min(first * PART, len(pairs)))
    if part is not None:
        part.truncate(_end(pairs, first))
        part.seek(0, os.SEEK_END)
    for begin in range(first * PART, len(pairs), PART):
        some = pairs[begin : begin + PART]
        found = compute(some)
        if part is not None:
            part.writelines(found[pair.id].astype("<f4").tobytes() for pair in some)
            part.flush()
            os.fsync(part.fileno())
    if part is not None:
        if not begun.is_locked:
            part.close()  # Windows renames no open file; a lock must last until the file has its name
        begun.name.replace(begun.file)
    ranks.wait()  # for the writers
    return begun.file


@contextmanager
def _opened(file: Path) -> Iterator[Begun | None]:
    """The file that grows, locked; None where another process has it. Machines that share the folder have one each, and
    where there are no locks every run has one, of which a killed run leaves nothing of use."""
    file.parent.mkdir(parents=True, exist_ok=True)
    name, is_locked = file.with_name(f"{file.name}.{os.environ.get('GROUP_RANK', '0')}.part"), True
    try:
        part: BinaryIO = os.fdopen(locked_file(name), "r+b")
    except BlockingIOError:
        yield None
        return
    except NoLocksError:
        with suppress(FileNotFoundError):
            if not name.stat().st_size:  # the attempt to lock it has made it
                name.unlink()
        name = name.with_suffix(f".{uuid.uuid4().hex}.part")
        part, is_locked = name.open("x+b"), False
    try:
        yield Begun(file, name, part, is_locked)
    finally:
        with suppress(OSError):  # a full disk has raised its error before; to close flushes again
            part.close()
        if not is_locked:
            name.unlink(missing_ok=True)


def _end(pairs: StoredPairs, parts: int) -> int:
    """Where the log-probs of so many parts end."""
    return BYTES * int(pairs.answer_ends[min(parts * PART, len(pairs)) - 1]) if parts else 0


def _parts_in(part: BinaryIO, pairs: StoredPairs) -> int:
    """How many parts a file holds whole."""
    size, all_parts = part.seek(0, os.SEEK_END), -(-len(pairs) // PART)
    return max(parts for parts in range(all_parts + 1) if _end(pairs, parts) <= size)

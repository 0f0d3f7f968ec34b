"""Log-probs of the reference on disk, mapped into memory: a float32 for every answer token, in the order of the pairs.

They are computed part by part, and appended to a file that a killed run leaves for the next one to go on with. The file
gets its name when it is whole.
"""

import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from maskdpo.errors import UserError
from maskdpo.train.data.encode import EncodedPair
from maskdpo.train.data.store import StoredPairs
from maskdpo.train.ranks import Ranks

if sys.platform != "win32":
    import fcntl

PART = 4096
"""Pairs that are computed between two writes: a killed run loses no more."""
BYTES = 4

Compute = Callable[[Sequence[EncodedPair]], Mapping[str, NDArray[np.float32]]]


class StoredReference(Mapping[str, NDArray[np.float32]]):
    """The log-probs of a file by pair id, read when they are asked for."""

    def __init__(self, file: Path, pairs: StoredPairs) -> None:
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


def write_reference(
    file: Path | None, pairs: StoredPairs, ranks: Ranks, compute: Compute, done: Callable[[int], None]
) -> Path:
    """Compute what a file lacks; every rank must call.

    The first rank of each machine writes, for its folder need not be that of another machine.

    Args:
        file: None: one in a temporary folder.
        compute: the log-probs of some pairs, on every rank.
        done: called with the number of pairs that an earlier run has done.

    Returns:
        The file; one in a temporary folder also where another run is writing this one.

    Raises:
        UserError: it cannot be written.
    """
    part = None
    try:
        if ranks.first_here and file is not None:
            part = _opened(file)
        if ranks.any(ranks.first_here and part is None):
            if part is not None:
                part.close()
            file = Path(tempfile.gettempdir()) / f"maskdpo-{ranks.from_first(uuid.uuid4().hex)}" / "reference.f32"
            part = _opened(file) if ranks.first_here else None
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
        assert file is not None
        if part is not None:
            Path(part.name).replace(file)
    except OSError as error:
        raise UserError(
            f"{file and file.parent}: the log-probs of the reference cannot be written: {error.strerror}. Set "
            "MASKDPO_CACHE to a folder with room for 4 bytes per token"
        ) from None
    finally:
        if part is not None:
            part.close()
    ranks.any(False)  # wait for the writers
    return file


def _opened(file: Path) -> BinaryIO | None:
    """The file that grows, locked; None where another process has it. Machines that share the folder have one each."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.environ.get('GROUP_RANK', '0')}.part").open("ab+")
    if sys.platform != "win32":
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            part.close()
            return None
        except OSError:  # a file system without locks
            pass
    return part


def _end(pairs: StoredPairs, parts: int) -> int:
    """Where the log-probs of so many parts end."""
    return BYTES * int(pairs.answer_ends[min(parts * PART, len(pairs)) - 1]) if parts else 0


def _parts_in(part: BinaryIO, pairs: StoredPairs) -> int:
    """How many parts a file holds whole."""
    size, all_parts = part.seek(0, os.SEEK_END), -(-len(pairs) // PART)
    return max(parts for parts in range(all_parts + 1) if _end(pairs, parts) <= size)

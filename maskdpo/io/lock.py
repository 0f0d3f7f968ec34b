"""Locks that one process holds at a time, and that the kernel releases when the process dies."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maskdpo.console import say
from maskdpo.errors import UserError

if sys.platform != "win32":
    import fcntl

LOCK_SUFFIX = ".lock"


class NoLocksError(OSError):
    """The system (Windows) or the file system has no such locks: a second run is not noticed."""


def locked_file(file: Path, *, wait: bool = False) -> int:
    """Lock ``file``, which is created if it is missing. Returns its descriptor, to read and write.

    Raises:
        BlockingIOError: another process holds the lock; never with ``wait``.
        NoLocksError: there are no locks here.
        OSError: the file cannot be opened.
    """
    if sys.platform == "win32":
        raise NoLocksError
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if isinstance(error, BlockingIOError):
                raise
            raise NoLocksError(error.errno, error.strerror) from None
        if _is_open_as(handle, file):
            return handle
        os.close(handle)  # the process that held it has removed or renamed it since


def _is_open_as(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False


@contextmanager
def sole_writer(path: Path, waiting: str = "") -> Iterator[bool]:
    """Hold a lock on ``path``, so that two runs do not both do all the work of one output. Gives whether there is a
    lock: not where the file system has none.

    The lock is on a hidden file beside the output, because the output itself may not exist yet, and is replaced by
    another file when a run ends. (If only an output folder may be written to, such as a mounted one, the hidden file is
    inside.) The kernel releases the lock when a process dies; the next run takes over the hidden file and removes it.

    Args:
        waiting: what is said where another process holds the lock, before this one waits for it. Empty: an error.

    Raises:
        UserError: another process holds the lock; the hidden file cannot be written.
    """
    real = path.resolve()
    inside = real.is_dir() and not os.access(real.parent, os.W_OK)
    beside = (real if inside else real.parent) / f".{real.name}{LOCK_SUFFIX}"
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        handle = _locked(beside, path, waiting)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        yield handle is not None
    finally:
        beside.unlink(missing_ok=True)  # before the lock is released: no other process can have locked the file yet
        if handle is not None:
            os.close(handle)


def _locked(file: Path, output: Path, waiting: str) -> int | None:
    try:
        return locked_file(file)
    except NoLocksError:
        return None
    except BlockingIOError:
        if not waiting:
            message = "another maskdpo run is writing to it; wait until it has ended, or use another `out`"
            raise UserError(f"{output}: {message}") from None
    say(waiting)
    return locked_file(file, wait=True)

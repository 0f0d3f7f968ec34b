"""What runs in the process of a worker: one function from a stream to a stream, fed by the process that asks."""

import math
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Thread
from typing import Any, NamedTuple

import maskdpo
from maskdpo.errors import UserError
from maskdpo.extras import install_command

MOST_AT_ONCE = 256
"""The most items that are handed over in one call: a call takes a millisecond or two, whatever is in it."""
FIRST = 4
"""Items that a worker gets at first; where it takes more at once, the number doubles with every call."""
AHEAD_S = 0.4
"""A worker has so many items waiting as it answers in this time: it never runs dry, and few wait behind a slow one."""
RATE_S = 2.0
"""The time over which the rate of results is smoothed."""
GATHER_S = 0.1
"""Results are handed over at least so often."""


class Work(NamedTuple):
    """What a worker does, once its model is loaded."""

    run: Callable[[Iterator[tuple[int, Any]]], Iterator[tuple[int, Any]]]
    """Takes numbered items as lazily as it likes, and yields each result with the number of its item, in any order. It
    is called anew for what comes after its stream has ended."""
    told: Any = None
    """What the caller wants to know of the loaded model, such as the length of its context."""
    notes: Callable[[], list[str]] = list
    """What users should know of the items that it has had."""


class Where(NamedTuple):
    """Which process a worker is."""

    pid: int
    host: str
    version: str
    """Of maskdpo."""


@dataclass
class Update:
    """What a worker hands over in one call."""

    results: list[tuple[int, Any]] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    """Items to which the function gave no result until it ended."""
    room: int = 0
    """How many more items the worker wants."""
    failed: bool = False
    """Whether the next call raises an error."""


class Worker:
    """The actor. Its calls come one at a time, and the function runs on a thread of its own.

    Args:
        folder: the folder of the process that asks, in which files of plug-ins are looked for.
        paths: where that process imports from.
        threads: for tensors; None: as the environment says.
    """

    def __init__(self, folder: str, paths: Sequence[str], threads: int | None) -> None:
        if Path(folder).is_dir():
            os.chdir(folder)
        sys.path += [path for path in paths if path not in sys.path and Path(path).exists()]
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        if threads is not None:  # read when torch is imported, which is not yet
            os.environ["OMP_NUM_THREADS"] = str(threads)
        self._changed = Condition()
        self._inbox: deque[tuple[int, Any]] = deque()
        self._outbox: list[tuple[int, Any]] = []
        self._first_at = 0.0
        """When the first result in the outbox came."""
        self._open: set[int] = set()
        """What the function has taken, and has not answered."""
        self._dropped: list[int] = []
        self._more = self._running = self._starved = False
        self._error: BaseException | None = None
        self._taken = 0
        """Items that the function has taken."""
        self._burst = 0
        """Those of them that it took since the last result."""
        self._rate = 0.0
        """Results per second, lately."""
        self._handed_at = time.monotonic()

    def hello(self) -> Where:
        """Returns as soon as Ray has found a place for the worker."""
        return Where(os.getpid(), socket.gethostname(), maskdpo.__version__)

    def load(self, make: Callable[[], Work]) -> Any:
        """Make what this worker does, which loads its model.

        Returns:
            What the work tells of itself.

        Raises:
            UserError: the model cannot be loaded.
        """
        with _errors_for_people():
            work = make()
        self._run, self._notes = work.run, work.notes
        return work.told

    def notes(self) -> list[str]:
        """See ``Work``."""
        with _errors_for_people():
            return self._notes()

    def exchange(self, items: Sequence[tuple[int, Any]], more: bool) -> Update:
        """Take items, and return when there is something to say: results, or room for more items.

        Args:
            more: more items will follow. Without them the stream ends with these, so that nothing waits for a batch to
                become full.

        Raises:
            UserError: the function cannot go on, whatever its items. What it had answered before was handed over by an
                earlier call.
        """
        with self._changed:
            self._inbox.extend(items)
            self._more = more
            if not self._running and self._inbox:
                self._running = True
                Thread(target=self._work, daemon=True).start()
            self._changed.notify_all()
            while not self._has_news():
                wait = self._first_at + GATHER_S - time.monotonic() if self._outbox else None
                self._changed.wait(wait)
            if self._error is not None and not self._outbox:
                raise self._error
            return self._handed_over()

    def _has_news(self) -> bool:
        if self._error is not None or not self._running or len(self._outbox) >= MOST_AT_ONCE:
            return True
        if self._more and (self._starved or len(self._inbox) < self._ahead // 2):
            return True
        return bool(self._outbox) and time.monotonic() >= self._first_at + GATHER_S

    @property
    def _ahead(self) -> int:
        """How many items should be waiting."""
        return min(MOST_AT_ONCE, round(self._rate * AHEAD_S))

    def _handed_over(self) -> Update:
        now = time.monotonic()
        seconds = max(now - self._handed_at, 1e-6)
        self._rate += (len(self._outbox) / seconds - self._rate) * (1 - math.exp(-seconds / RATE_S))
        self._handed_at = now
        at_once = min(MOST_AT_ONCE, max(FIRST, 2 * self._burst)) if self._starved else 0
        wanted = max(self._ahead, at_once) - len(self._inbox) if self._running else FIRST
        update = Update(self._outbox, self._dropped, max(0, wanted), failed=self._error is not None)
        self._outbox, self._dropped = [], []
        return update

    def _work(self) -> None:
        """Run the function until no items are left."""
        while True:
            before = self._taken
            try:
                with _errors_for_people():
                    for number, result in self._run(self._stream()):
                        self._put(number, result)
            except BaseException as error:  # noqa: BLE001 - whatever it is, ``exchange`` raises it where it is seen
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._dropped += self._open
                self._open.clear()
                self._starved = False
                if self._taken == before:  # it wants nothing any more
                    self._dropped += [number for number, _ in self._inbox]
                    self._inbox.clear()
                if not self._inbox:
                    self._running = False
                    self._changed.notify_all()
                    return

    def _put(self, number: int, result: Any) -> None:
        with self._changed:
            self._open.discard(number)
            self._burst = 0
            self._outbox.append((number, result))
            if len(self._outbox) == 1:
                self._first_at = time.monotonic()
            if len(self._outbox) in (1, MOST_AT_ONCE):
                self._changed.notify_all()

    def _stream(self) -> Iterator[tuple[int, Any]]:
        while True:
            with self._changed:
                if not self._inbox and self._more:
                    self._starved = True
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._inbox or not self._more)
                    self._starved = False
                if not self._inbox:
                    return
                number, item = self._inbox.popleft()
                self._open.add(number)
                self._taken += 1
                self._burst += 1
                if len(self._inbox) + 1 == self._ahead // 2:
                    self._changed.notify_all()
            yield number, item


@contextmanager
def _errors_for_people() -> Iterator[None]:
    """What people can put right, as they see it without workers, and of a type that can be sent."""
    try:
        yield
    except ModuleNotFoundError as error:
        advice = install_command(error)
        if advice is None:
            raise
        raise advice from None
    except SystemExit as error:  # Ray would take it for the death of the worker
        raise UserError(f"the code in the worker ended its process by sys.exit({error.code!r})") from None
    except UserError as error:
        raise UserError(str(error)) from None

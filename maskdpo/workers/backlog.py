"""What has not been handed to a worker yet: read lazily, and kept by the worker that has read its document."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from maskdpo.rendezvous import digest, weight

LOOK_AHEAD = 128
"""Items per worker that are read ahead, to find some for each of them."""
TRIES = 3
"""An item is given up after so many workers have died while they had it."""


@dataclass(eq=False, slots=True)
class Item:
    """One thing to do."""

    number: int
    value: Any
    tries: int = 0
    """Workers that have died while they had it."""


class Backlog:
    """The items of one run.

    An item whose worker has died is asked again. It may be what killed the worker: so the items that the worker had are
    asked again in small groups, each of which a worker gets alone, and after a second death one by one. One that kills
    every worker is then known for certain, after ``TRIES`` deaths, and no other item is given up with it.

    Args:
        document: which text an item is about; items about one text go to one worker.
        workers: the names of the workers.
    """

    def __init__(self, items: Iterable[Any], document: Callable[[Any], str], workers: Sequence[str]) -> None:
        self._source = iter(items)
        self._document = document
        self._workers = workers
        self._waiting: list[deque[Item]] = [deque() for _ in workers]
        self._again: deque[list[Item]] = deque()
        self._read = 0
        self._exhausted = False
        self._owners: dict[str, int] = {}
        """Of the documents that were read last."""
        self._read_one()

    @property
    def more(self) -> bool:
        """Whether anything is left that no worker has had."""
        return not self._exhausted or any(self._waiting)

    def is_empty(self) -> bool:
        return not self.more and not self._again

    def take(self, worker: int, room: int, *, idle: bool) -> tuple[list[Item], bool]:
        """Up to ``room`` items for a worker, and whether it gets nothing beside them until it has answered.

        Args:
            idle: the worker has no items.
        """
        if self._again and idle:
            return self._again.popleft(), True
        mine = self._waiting[worker]
        while len(mine) < room and not self._exhausted and sum(map(len, self._waiting)) < self._most:
            self._read_one()
        if not mine:
            self._move(max(self._waiting, key=len), worker, room)
        return [mine.popleft() for _ in range(min(room, len(mine)))], False

    def put_back(self, lost: Sequence[Item]) -> list[Item]:
        """Take back what a worker had that died.

        Returns:
            Those items that are given up.
        """
        for item in lost:
            item.tries += 1
        given_up = [item for item in lost if item.tries >= TRIES]
        for tries in range(1, TRIES):
            some = [item for item in lost if item.tries == tries]
            size = 1 if tries == TRIES - 1 else math.isqrt(max(0, len(some) - 1)) + 1
            self._again.extend(some[start : start + size] for start in range(0, len(some), size))
        return given_up

    @property
    def _most(self) -> int:
        return LOOK_AHEAD * len(self._workers)

    def _read_one(self) -> None:
        try:
            value = next(self._source)
        except StopIteration:
            self._exhausted = True
            return
        self._waiting[self._owner(self._document(value))].append(Item(self._read, value))
        self._read += 1

    def _move(self, others: deque[Item], worker: int, room: int) -> None:
        """Give a worker without items those of another one that come last, and what else comes about their documents:
        the document that the other one has begun stays with it."""
        moved = [others.pop() for _ in range(min(room, (len(others) + 1) // 2))]
        self._waiting[worker].extend(reversed(moved))
        self._owners |= {self._document(item.value): worker for item in moved}

    def _owner(self, document: str) -> int:
        if document not in self._owners:
            known = digest(document)
            self._owners[document] = max(range(len(self._workers)), key=lambda i: weight(known, self._workers[i]))
            if len(self._owners) > self._most:
                del self._owners[next(iter(self._owners))]
        return self._owners[document]

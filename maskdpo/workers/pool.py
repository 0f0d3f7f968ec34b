"""Workers in Ray: each gets items while it works, and what a worker had that died is asked again."""

import re
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import maskdpo
from maskdpo.console import warn
from maskdpo.errors import UserError
from maskdpo.workers.backlog import TRIES, Backlog, Item
from maskdpo.workers.cluster import ADVICE, connect, needs, threads_for, told_of
from maskdpo.workers.worker import FIRST, Update, Where, Work, Worker

CHECK_S = 1.0
"""Workers that Ray has no place for are looked at so often."""
PATIENCE_S = 30.0
"""Seconds after which a worker without a place is worth a warning."""
LONGEST_WAIT_S = 1800.0
"""Seconds after which the run ends where not one worker has found a place: a cluster may have to start machines."""
MOST_DEATHS = 8
"""A worker that has died so often in a row without one result ends the run: it is not the items that kill it."""
WHY_DEAD = "out of memory, killed, or a crash of its libraries"
OUT_OF_MEMORY = "Ray has ended it because the machine was running out of memory"
LITTLE_MEMORY = re.compile("low on memory|memory usage threshold")
LOGS = "Ray's logs on the machine say more: /tmp/ray/session_latest/logs"


@dataclass(frozen=True)
class Lost:
    """In place of a result: every worker that had the item has died."""

    message: str


@dataclass(eq=False)
class _Slot:
    """One worker, which may have had several processes by now."""

    index: int
    name: str
    actor: Any
    call: Any
    """What it has been asked last and has not answered; None: nothing."""
    state: Literal["placing", "loading", "ready"] = "placing"
    since: float = field(default_factory=time.monotonic)
    warned: bool = False
    where: Where | None = None
    has: dict[int, Item] = field(default_factory=dict)
    alone: bool = False
    """Whether it gets nothing more before all that it has is answered."""
    room: int = FIRST
    deaths: int = 0
    """Processes that have died in a row without a result."""

    def __str__(self) -> str:
        return self.name if self.where is None else f"{self.name} (process {self.where.pid} on {self.where.host})"


class Workers:
    """So many processes with a model, which are started at the first item and end with this object or this process.

    Args:
        make: makes what each worker does; it is pickled and called in the worker.
        count: how many workers.
        gpus: for each worker; None: ``gpus_each`` where the cluster has GPUs.
        items: what messages call the things that workers are given: ``requests``, ``answers``.
    """

    def __init__(
        self, make: Callable[[], Work], count: int, *, gpus: float | None = None, gpus_each: int = 1, items: str
    ) -> None:
        self._make, self._count, self._gpus, self._gpus_each, self._items = make, count, gpus, gpus_each, items
        self._slots: list[_Slot] = []
        self._told: list[Any] = []
        self._ray: ModuleType
        self._end = weakref.finalize(self, _kill, self._slots)
        self._end.atexit = False  # Ray ends them all, then

    def run(self, items: Iterable[Any], document: Callable[[Any], str]) -> Iterator[tuple[Any, Any]]:
        """Each item with its result, or with ``Lost``, in the order of completion. Items are read lazily.

        Args:
            document: which text an item is about; items about one text go to one worker.

        Raises:
            UserError: the work cannot be done, whatever the items: no model, no place for a worker, workers that die.
        """
        names = [f"worker {i + 1}" for i in range(self._count)]
        backlog = Backlog(items, document, names)
        if backlog.is_empty():
            return
        self._start()
        finished = False
        try:
            while not backlog.is_empty() or any(slot.has for slot in self._slots):
                for slot in self._slots:
                    self._hand_out(slot, backlog)
                yield from self._next_results(backlog)
            finished = True
        finally:
            if not finished:  # what the workers have is of no use to a later run
                self.close()

    def told(self) -> Any:
        """What the work tells of the loaded model. The first call waits until one worker has loaded it."""
        self._start()
        nothing = Backlog((), str, ["none"])
        while not self._told:
            for _ in self._next_results(nothing):
                pass
        return self._told[0]

    def close(self) -> None:
        """End the workers. The next run starts new ones."""
        _kill(self._slots)
        self._told = []

    def _start(self) -> None:
        if self._slots:
            return
        self._ray = connect()
        self._needs = needs(self._ray, self._count, self._gpus, self._gpus_each)
        self._slots += [_Slot(index, f"worker {index + 1}", *self._process()) for index in range(self._count)]

    def _process(self) -> tuple[Any, Any]:
        """A new process of a worker, and its first call."""
        actor_of = self._ray.remote(max_restarts=0, max_concurrency=2, scheduling_strategy="SPREAD", **self._needs)
        actor = actor_of(Worker).remote(
            str(Path.cwd()), [path for path in sys.path if path], threads_for(self._count, self._needs)
        )
        return actor, actor.hello.remote()

    def _check_places(self) -> None:
        """Say which workers Ray has no place for.

        Raises:
            UserError: it has had none for any of them, for a long time.
        """
        homeless = [slot for slot in self._slots if slot.state == "placing"]
        waits = [time.monotonic() - slot.since for slot in homeless]
        if not homeless or max(waits) < PATIENCE_S:
            return
        names = ", ".join(slot.name for slot in homeless)
        what = f"Ray has no place for {names} yet: {told_of(self._ray, self._needs)}"
        if len(homeless) == self._count and min(waits) > LONGEST_WAIT_S:
            raise UserError(f"{what}. No worker could start in {LONGEST_WAIT_S / 60:.0f} minutes. {ADVICE}")
        if not all(slot.warned for slot in homeless):
            warn(f"{what}. They start as soon as there is a place. {ADVICE}")
        for slot in homeless:
            slot.warned = True

    # --- working ---------------------------------------------------------------------------------------

    def _hand_out(self, slot: _Slot, backlog: Backlog) -> None:
        """Ask a worker that is ready for results, with as many items as it has room for."""
        if slot.state != "ready" or slot.call is not None:
            return
        items: list[Item] = []
        if not slot.alone or not slot.has:
            room = slot.room if slot.has else max(slot.room, FIRST)
            items, slot.alone = backlog.take(slot.index, room, idle=not slot.has)
        slot.has |= {item.number: item for item in items}
        if slot.has:
            given = [(item.number, item.value) for item in items]
            slot.call = slot.actor.exchange.remote(given, backlog.more and not slot.alone)

    def _next_results(self, backlog: Backlog) -> Iterator[tuple[Any, Any]]:
        """Wait until a worker answers, and take what it says."""
        asked = {slot.call: slot for slot in self._slots if slot.call is not None}
        ready, _ = self._ray.wait(list(asked), timeout=CHECK_S)
        if not ready:
            self._check_places()
        for call in ready:
            slot = asked[call]
            slot.call = None
            try:
                said = self._ray.get(call)
            except self._ray.exceptions.RayTaskError as error:
                raise (error.cause if isinstance(error.cause, UserError) else error) from None
            except self._ray.exceptions.RayError as error:
                yield from self._replace(slot, backlog, str(error))
            else:
                yield from self._take(slot, said)

    def _take(self, slot: _Slot, said: Any) -> Iterator[tuple[Any, Any]]:
        if slot.state == "placing":
            _check_version(said, slot)
            slot.where, slot.state, slot.call = said, "loading", slot.actor.load.remote(self._make)
        elif slot.state == "loading":
            slot.state = "ready"
            self._told = self._told or [said]
        else:
            update: Update = said
            slot.room = update.room
            for number, result in update.results:
                slot.deaths = 0
                yield slot.has.pop(number).value, result
            for number in update.dropped:
                del slot.has[number]

    def _replace(self, slot: _Slot, backlog: Backlog, why: str) -> Iterator[tuple[Any, Any]]:
        """Start a worker that has died again, and take back what it had.

        Raises:
            UserError: it dies again and again, whatever it is given.
        """
        if "No module named 'maskdpo'" in why:
            raise UserError("a machine of the Ray cluster has no maskdpo: install the same version on all of them")
        cause = OUT_OF_MEMORY if LITTLE_MEMORY.search(why) else WHY_DEAD
        loading = slot.state != "ready"
        slot.deaths += 1
        if slot.deaths >= (TRIES if loading else MOST_DEATHS):
            when = "while it loaded its model" if loading else "without one result"
            raise UserError(f"{slot} has died {slot.deaths} times in a row {when}: {cause}. {LOGS}")
        lost = list(slot.has.values())
        given_up = backlog.put_back(lost)
        again = f", and the {len(lost):,} {self._items} that it had are asked again" if lost else ""
        warn(f"{slot} has died: {cause}. It is started again{again}. {LOGS}")
        self._ray.kill(slot.actor)  # where it is only out of reach
        actor, call = self._process()
        fresh = _Slot(slot.index, slot.name, actor, call, deaths=slot.deaths)
        self._slots[slot.index] = fresh
        for item in given_up:
            yield item.value, Lost(f"{TRIES} workers have died while they had it: {cause}")


def _check_version(where: Where, slot: _Slot) -> None:
    if where.version != maskdpo.__version__:
        raise UserError(
            f"{slot.name} on {where.host} has maskdpo {where.version}, and this process has {maskdpo.__version__}: "
            "install the same version on all machines of the cluster"
        )


def _kill(slots: list[_Slot]) -> None:
    """End the processes of workers."""
    if not slots:  # never started: ray may be missing
        return
    import ray

    for slot in slots:
        if ray.is_initialized():
            ray.kill(slot.actor)
    slots.clear()

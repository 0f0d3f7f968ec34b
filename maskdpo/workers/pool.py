"""Workers in Ray: each gets items while it works, and what a worker had that died is asked again."""

import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from maskdpo.console import counted, say, warn
from maskdpo.errors import UserError
from maskdpo.workers.backlog import TRIES, Backlog, Item
from maskdpo.workers.cluster import ADVICE, connect, logs_of, needs, threads_for, told_of
from maskdpo.workers.slot import Slot, cause_of_death, check_version, kill
from maskdpo.workers.worker import FIRST, Update, Work, Worker

CHECK_S = 1.0
"""Workers that Ray has no place for are looked at so often."""
PATIENCE_S = 30.0
"""Seconds after which a worker without a place is worth a warning."""
LONGEST_WAIT_S = 1800.0
"""Seconds after which the run ends where not one worker has found a place: a cluster may have to start machines."""
MOST_HELD, HELD_WHILE_OTHERS_LOAD = 512, 128
"""A worker has at most so many items. A function that reads a large window before it computes gets no more at once: the
first worker that is ready leaves something for those that still load their model."""
MOST_DEATHS = 8
"""A worker that has died so often in a row without one result ends the run: it is not the items that kill it."""


@dataclass(frozen=True)
class Lost:
    """In place of a result: every worker that had the item has died."""

    message: str


class Workers:
    """So many processes with a model, which are started at the first item and end with this object or this process.
    They serve one run at a time.

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
        self._slots: list[Slot] = []
        self._told: list[Any] = []
        self._busy = False
        """Whether a run is under way."""
        self._ray: ModuleType
        self._end = weakref.finalize(self, kill, self._slots)
        self._end.atexit = False  # Ray ends them all, then

    def run(self, items: Iterable[Any], document: Callable[[Any], str]) -> Iterator[tuple[Any, Any]]:
        """Each item with its result, or with ``Lost``, in the order of completion. Items are read lazily.

        Args:
            document: which text an item is about; items about one text go to one worker.

        Raises:
            UserError: the work cannot be done, whatever the items: no model, no place for a worker, workers that die;
                or an earlier run is not finished.
        """
        if self._busy:
            raise UserError(
                f"these `workers` are still working at the {self._items} of another run. Read its results to their "
                "end, or close it, before another one begins; or make a backend or a judge of its own for each run"
            )
        names = [f"worker {i + 1}" for i in range(self._count)]
        backlog = Backlog(items, document, names)
        if backlog.is_empty():
            return
        self._busy, finished = True, False
        try:
            self._start()
            while not backlog.is_empty() or any(slot.has or slot.failed for slot in self._slots):
                for slot in self._slots:
                    self._hand_out(slot, backlog)
                yield from self._next_results(backlog)
            finished = True
        finally:
            self._busy = False
            if not finished:  # what the workers have is of no use to a later run
                self.close()

    def told(self) -> Any:
        """What the work tells of the loaded model. The first call waits until one worker has loaded it.

        Raises:
            UserError: none can load it.
        """
        if self._told:
            return self._told[0]
        try:
            self._start()
            nothing = Backlog((), str, ["none"])
            while not self._told:
                for _ in self._next_results(nothing):
                    pass
            return self._told[0]
        finally:
            if not self._told:
                self.close()

    def notes(self) -> list[str] | None:
        """What the work says after a run, of all workers that are there and each line once; None: there are none."""
        ready = [slot for slot in self._slots if slot.state == "ready" and slot.call is None]
        lines: dict[str, None] = {}
        for slot in ready:
            try:
                lines |= dict.fromkeys(self._ray.get(slot.actor.notes.remote()))
            except self._ray.exceptions.RayActorError:  # it has died since, and its lines with it
                continue
        return list(lines) if ready else None

    def close(self) -> None:
        """End the workers. The next run starts new ones."""
        kill(self._slots)
        self._told = []

    def _start(self) -> None:
        if self._slots:
            return
        loading = counted(self._count, "worker loads its model", "workers load their models")
        say(f"Ray is started or joined, then {loading}, before the first result")
        self._ray = connect()
        self._needs = needs(self._ray, self._count, self._gpus, self._gpus_each)
        self._slots += [Slot(index, f"worker {index + 1}", *self._process()) for index in range(self._count)]

    def _process(self) -> tuple[Any, Any]:
        """A new process of a worker, and its first call."""
        actor_of = self._ray.remote(max_restarts=0, scheduling_strategy="SPREAD", **self._needs)
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

    def _hand_out(self, slot: Slot, backlog: Backlog) -> None:
        """Ask a worker that is ready for results, with as many items as it has room for."""
        if slot.state != "ready" or slot.call is not None:
            return
        items: list[Item] = []
        if not slot.failed and (not slot.alone or not slot.has):
            room = min(slot.room if slot.has else max(slot.room, FIRST), self._most_held - len(slot.has))
            items, slot.alone = backlog.take(slot.index, max(0, room), idle=not slot.has)
        slot.has |= {item.number: item for item in items}
        if slot.has or slot.failed:
            given = [(item.number, item.value) for item in items]
            # one that wants more and gets nothing must not wait for it: it answers what it has
            more = backlog.more and not slot.alone and (bool(items) or not slot.room)
            slot.call = slot.actor.exchange.remote(given, more)

    @property
    def _most_held(self) -> int:
        awaited = any(slot.state != "ready" and not slot.warned for slot in self._slots)
        return HELD_WHILE_OTHERS_LOAD if awaited else MOST_HELD

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

    def _take(self, slot: Slot, said: Any) -> Iterator[tuple[Any, Any]]:
        if slot.state == "placing":
            check_version(said, slot)
            slot.where, slot.state, slot.call = said, "loading", slot.actor.load.remote(self._make)
        elif slot.state == "loading":
            slot.state = "ready"
            self._told = self._told or [said]
        else:
            update: Update = said
            slot.room, slot.failed = update.room, update.failed
            for number, result in update.results:
                slot.deaths = 0
                yield slot.has.pop(number).value, result
            for number in update.dropped:
                del slot.has[number]

    def _replace(self, slot: Slot, backlog: Backlog, why: str) -> Iterator[tuple[Any, Any]]:
        """Start a worker that has died again, and take back what it had.

        Raises:
            UserError: it dies again and again, whatever it is given.
        """
        if "No module named 'maskdpo" in why:
            raise UserError(
                "a machine of the Ray cluster has no maskdpo, or another version of it: install the same version on "
                "all of them"
            )
        cause = cause_of_death(why)
        logs = f"More is in Ray's logs on {slot.where.host if slot.where else 'its machine'}: {logs_of(self._ray)}"
        loading = slot.state != "ready"
        slot.deaths += 1
        if slot.deaths >= (TRIES if loading else MOST_DEATHS):
            when = "while it loaded its model" if loading else "without one result"
            raise UserError(f"{slot} has died {slot.deaths} times in a row {when}: {cause}. {logs}")
        lost = list(slot.has.values())
        given_up = backlog.put_back(lost)
        again = f", and the {len(lost):,} {self._items} that it had are asked again" if lost else ""
        warn(f"{slot} has died: {cause}. It is started again{again}. {logs}")
        self._ray.kill(slot.actor)  # where it is only out of reach
        actor, call = self._process()
        fresh = Slot(slot.index, slot.name, actor, call, deaths=slot.deaths)
        self._slots[slot.index] = fresh
        for item in given_up:
            yield item.value, Lost(f"{TRIES} workers have died while they had it: {cause}")

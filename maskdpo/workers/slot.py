"""One worker as the process that asks sees it: its process, what it has, and why it has died."""

import re
import time
from dataclasses import dataclass, field
from typing import Any, Literal

import maskdpo
from maskdpo.errors import UserError
from maskdpo.workers.backlog import Item
from maskdpo.workers.worker import FIRST, Where

WHY_DEAD = "out of memory, killed, or a crash of its libraries"
OUT_OF_MEMORY = "Ray has ended it because the machine was running out of memory"
LITTLE_MEMORY = re.compile("low on memory|memory usage threshold")


@dataclass(eq=False)
class Slot:
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
    failed: bool = False
    """Whether its next answer is an error."""
    deaths: int = 0
    """Processes that have died in a row without a result."""

    def __str__(self) -> str:
        return self.name if self.where is None else f"{self.name} (process {self.where.pid} on {self.where.host})"


def cause_of_death(why: str) -> str:
    """Why a worker has died, in words of ours and of Ray's."""
    lines = [line.strip() for line in why.splitlines() if line.strip()] or ["nothing"]
    if LITTLE_MEMORY.search(why):
        return OUT_OF_MEMORY
    # the error of a worker that could not be made stands at the end of a traceback
    own = lines[-1] if "creation task" in lines[0] else lines[0]
    return f"{WHY_DEAD} (Ray says: {own.rstrip('.')})"


def check_version(where: Where, slot: Slot) -> None:
    if where.version != maskdpo.__version__:
        raise UserError(
            f"{slot.name} on {where.host} has maskdpo {where.version}, and this process has {maskdpo.__version__}: "
            "install the same version on all machines of the cluster"
        )


def kill(slots: list[Slot]) -> None:
    """End the processes of workers."""
    if not slots:  # never started: ray may be missing
        return
    import ray

    for slot in slots:
        if ray.is_initialized():
            ray.kill(slot.actor)
    slots.clear()

"""The processes of one run: how they meet, share numbers and fail together.

A process is a rank; each has one device. Weights, gradients and AdamW are split among all ranks
(``model/sharding.py``), and so are the pairs of a step (``data/batch.py``). Outside ``torchrun`` there is one rank,
``ALONE``, for which every method returns what it is given.
"""

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from maskdpo import console
from maskdpo.devices import default_device
from maskdpo.errors import UserError

TIMEOUT = timedelta(hours=1)
"""How long ranks wait for each other: the others wait while rank 0 loads the model and writes the result. The launcher
notices at once when a rank dies."""

PATIENCE_S = 10.0
"""How long a rank that did not fail first waits to be ended, so that the first one can print its error."""

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among all of the run."""

    rank: int = 0
    size: int = 1
    device: str | None = None
    """The device of this rank; None where the caller may choose."""

    @property
    def first(self) -> bool:
        """Whether this is the rank that prints and writes."""
        return self.rank == 0

    @property
    def first_here(self) -> bool:
        """Whether this is the first rank of its machine."""
        return self.first or (self.size > 1 and os.environ.get("LOCAL_RANK") == "0")

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all ranks; the same to the last bit on every rank."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank. Every rank must call."""
        return bool(self.sum(torch.tensor(int(flag))).item())

    def wait(self) -> None:
        """Go on when every rank has called."""
        self.any(False)

    def from_first(self, value: T) -> T:
        """The value of rank 0, on every rank. Every rank must call."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box)
        return box[0]

    def largest(self, number: float) -> float:
        """The largest number of all ranks. Every rank must call."""
        value = torch.tensor(number, dtype=torch.float64)
        if self.size > 1:
            dist.all_reduce(value, dist.ReduceOp.MAX)
        return value.item()


ALONE = Ranks()


@contextmanager
def joined(device: str | None = None) -> Iterator[Ranks]:
    """Connect to the other ranks that ``torchrun`` has started; outside of ``torchrun`` there are none.

    An error on one rank ends all: the first rank that fails prints its error, the others end silently. Ranks other than
    the first print nothing else.

    Args:
        device: the device to use; with many ranks ``cpu`` or None, which gives each rank one GPU.

    Raises:
        UserError: also where there are fewer GPUs than ranks, or the connection to another rank is lost.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield ALONE
        return
    store, rank, size = next(rendezvous("env://"))
    _be_quiet(rank > 0)
    try:
        ranks = Ranks(rank, size, _own_device(device))
        backend = "gloo" if ranks.device == "cpu" else "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        yield ranks
        dist.barrier()
        dist.destroy_process_group()
    except (Exception, KeyboardInterrupt) as error:  # raised again by the first to fail
        lost = _connection_lost(error)
        if lost:
            time.sleep(PATIENCE_S)  # the launcher notices the dead rank, ends this one, and reports it
        if not _is_first_to_fail(store):
            time.sleep(PATIENCE_S)
            raise SystemExit(2) from None
        _be_quiet(False)
        if lost:
            raise UserError(
                f"the connection to another process is lost ({str(error).splitlines()[0]}). Repeat the same command to "
                "go on from the last checkpoint"
            ) from None
        raise


def _is_first_to_fail(store: Any) -> bool:
    """Without a launcher rank 0 holds the store: where the store is gone, rank 0 has failed before."""
    try:
        return bool(store.add("maskdpo/failures", 1) == 1)
    except (dist.DistError, RuntimeError):
        return False


def _be_quiet(quiet: bool) -> None:
    console.out.quiet = console.err.quiet = quiet
    if quiet:
        warnings.simplefilter("ignore")


def _own_device(asked: str | None) -> str:
    """A GPU for each process of the machine, or the CPU for all of them."""
    if asked not in (None, "cpu"):
        raise UserError(
            f"`device` {asked}: each of several processes takes the GPU of its own number; leave `device` out, or say "
            "cpu for all of them"
        )
    if asked == "cpu" or default_device() != "cuda":
        return "cpu"
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local >= torch.cuda.device_count():
        raise UserError(
            f"{os.environ.get('LOCAL_WORLD_SIZE', local + 1)} processes on this machine, which has "
            f"{torch.cuda.device_count()} GPUs: start one process a GPU"
        )
    torch.cuda.set_device(local)
    return f"cuda:{local}"


def _connection_lost(error: BaseException) -> bool:
    """Whether an error only means that another rank has ended."""
    gloo = isinstance(error, RuntimeError) and "gloo" in str(error)
    return gloo or isinstance(error, dist.DistBackendError | dist.DistNetworkError | dist.DistStoreError)

"""``maskdpo train --nproc N``: N processes of the same command on this machine, through torch's elastic launcher."""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from maskdpo.errors import UserError

SAVING_S = 600
"""How long the processes may take to finish their step and save it, after Ctrl-C or SIGTERM."""


def is_launched() -> bool:
    """Whether this process is one of those that a launcher has started."""
    return "RANK" in os.environ


def launch(arguments: Sequence[str], processes: int) -> None:
    """Run ``maskdpo <arguments>`` in that many processes, and wait for them. They print their own messages.

    Raises:
        UserError: a process was killed.
        SystemExit: one has failed; with its exit code, 130 after Ctrl-C, 143 after SIGTERM.
    """
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        shutdown_timeout=SAVING_S,
    )
    # Otherwise every process would use all cores.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # where this process finds maskdpo
    with _torch_is_silent():
        try:
            # -P: a random.py in the folder of the user is not Python's
            elastic_launch(config, sys.executable)("-P", "-m", "maskdpo", *arguments)
        except ChildFailedError as error:
            _raise_for([failure.exitcode for failure in error.failures.values()])
        except SignalException as error:
            raise SystemExit(128 + error.sigval) from None


def _raise_for(codes: Sequence[int]) -> None:
    """A process that ended with an exit code has printed its error; the launcher then ended the others by a signal."""
    if max(codes) > 0:
        raise SystemExit(max(codes)) from None
    raise UserError(
        f"a process was ended by {signal.Signals(-min(codes, key=lambda code: code == -signal.SIGTERM)).name}, as the "
        "kernel does where memory runs out. Repeat the same command to go on from the last checkpoint"
    ) from None


@contextmanager
def _torch_is_silent() -> Iterator[None]:
    """Silence the launcher, which logs in many lines how its processes ended, though they print their own errors. Where
    a signal ends the launcher, its timer may be stopped by the timer's own thread, which Python reports as an ignored
    exception."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda found: None if "join current thread" in str(found.exc_value) else hook(found)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        sys.unraisablehook = hook
        for number, handler in handlers.items():
            signal.signal(number, handler)

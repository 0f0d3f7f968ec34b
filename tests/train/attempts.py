"""Runs of ``train`` in processes of their own, which may be killed, or share one run.

Every process is forked from one that has only imported: ``python attempts.py '[pairs, config, attempts]'`` makes the
attempts one after the other and prints the exit codes of each one's ranks as JSON.
"""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from maskdpo import console
from maskdpo.errors import UserError
from maskdpo.train import ranks as processes
from maskdpo.train.config import RunOptions, TrainConfig
from maskdpo.train.run import checkpoint
from maskdpo.train.run import train as run
from maskdpo.train.step import Trainer

PLACES: dict[str, tuple[Any, str, bool]] = {
    "before-step": (Trainer, "step", False),
    "after-step": (Trainer, "step", True),
    "before-checkpoint": (run, "save_checkpoint", False),
    "in-checkpoint": (checkpoint, "save", True),
    "after-checkpoint": (run, "save_checkpoint", True),
    "in-export": (PreTrainedTokenizerBase, "save_pretrained", False),
}
"""Owner and name of a function, and whether to act after its call or before it."""


def interrupted(
    command: list[str],
    out: Path,
    *,
    after_steps: int,
    signals: Sequence[signal.Signals] = (signal.SIGINT,),
    meanwhile: Callable[[], object] = lambda: None,
    **more: Any,
) -> tuple[int, str]:
    """Start a command, send it signals when it has done so many steps; its exit code, and what it said in one line.

    Args:
        meanwhile: called before the signals are sent.
    """
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **more)
    metrics = out / "metrics.jsonl"
    try:
        deadline = time.monotonic() + 90
        while not (metrics.exists() and metrics.read_text().count("\n") >= after_steps):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        meanwhile()
        for number in signals:
            process.send_signal(number)
        errors = " ".join(process.communicate(timeout=60)[1].split())
    finally:
        process.terminate()
    return process.returncode, errors


def act_at(place: str, call: int, what: str) -> None:
    """At the n-th call: send this process a signal by its name, make the weights useless, or allow no large file."""
    owner, function, after = PLACES[place]
    original, calls = getattr(owner, function), []

    def wrapped(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == call and not after:
            _act(what, args)
        result = original(*args, **options)
        if len(calls) == call and after:
            _act(what, args)
        return result

    setattr(owner, function, wrapped)


def _act(what: str, args: tuple[Any, ...]) -> None:
    if what == "spoil":
        for pair in args[0].reference.values():
            pair[:] = float("nan")
    elif what == "full":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    else:
        for i, name in enumerate(what.split()):
            time.sleep(i * (run.SAME_SIGNAL_S + 0.1))
            os.kill(os.getpid(), getattr(signal, name))


def attempt(pairs: str, config: dict[str, Any], job: dict[str, Any]) -> list[int]:
    """One run, or one attempt at it, in as many processes as it asks for."""
    ranks = job.get("ranks", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    children = []
    for rank in range(ranks):
        child = os.fork()
        if not child:
            if ranks > 1:
                os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank)}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            _run(pairs, config | job.get("config", {}), job, rank)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _run(pairs: str, config: dict[str, Any], job: dict[str, Any], rank: int) -> None:
    code = 99
    try:
        if job.get("plan") and rank == job.get("rank", 0):
            act_at(*job["plan"])
        run.train(
            Path(pairs),
            Path(job["out"]),
            TrainConfig(**config),
            RunOptions(save_every=job.get("save_every", 3), use_cache=job.get("use_cache", True)),
        )
        code = 0
    except UserError as error:
        console.fail(str(error))
        code = 2
    except SystemExit as end:
        code = int(str(end.code))
    except BaseException:  # noqa: BLE001  # it must not go on as the parent
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def attempts(pairs: Path, config: TrainConfig, jobs: list[dict[str, Any]]) -> tuple[list[list[int]], str]:
    """The exit codes of the ranks of each job, and what all of them said."""
    done = subprocess.run(
        [sys.executable, __file__, json.dumps([str(pairs), config.model_dump(), jobs])],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    codes: list[list[int]] = json.loads(done.stdout.splitlines()[-1])
    return codes, done.stderr


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    processes.PATIENCE_S = 0.5
    torch.set_num_threads(1)
    pairs_file, settings, planned = json.loads(sys.argv[1])
    print(json.dumps([attempt(pairs_file, settings, job) for job in planned]))

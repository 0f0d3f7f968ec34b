"""Runs of ``train`` in processes of their own, all forked from one, which may be killed or share a run."""

import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from forking import Forks
from transformers import PreTrainedTokenizerBase

from maskdpo import console
from maskdpo.errors import UserError
from maskdpo.run_folder import SAME_SIGNAL_S
from maskdpo.train import ranks as processes
from maskdpo.train.config import TrainConfig
from maskdpo.train.run import checkpoint, record
from maskdpo.train.run import train as run
from maskdpo.train.settings import RunOptions
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
    arguments: list[str],
    out: Path,
    *,
    after_steps: int,
    signals: Sequence[signal.Signals] = (signal.SIGINT,),
    meanwhile: Callable[[], object] = lambda: None,
) -> tuple[int, str]:
    """Start ``maskdpo train``, send it signals when it has done so many steps; its exit code, and what it said in one
    line.

    Args:
        meanwhile: called before the signals are sent.
    """
    child = forks().start("maskdpo.cli:main", argv=["maskdpo", "train", *arguments])
    metrics = out / "metrics.jsonl"
    deadline = time.monotonic() + 90
    try:
        while not (metrics.exists() and metrics.read_text().count("\n") >= after_steps):
            assert not child.has_ended(), child.done()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        meanwhile()
    except BaseException:
        os.kill(child.pid, signal.SIGKILL)
        raise
    for number in signals:
        os.kill(child.pid, number)
    done = child.done()
    return done.code, " ".join(done.err.split())


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
        trainer = args[0]
        trainer.reference = {name: logps * float("nan") for name, logps in trainer.reference.items()}
    elif what == "full":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    else:
        for i, name in enumerate(what.split()):
            time.sleep(i * (SAME_SIGNAL_S + 0.1))
            os.kill(os.getpid(), getattr(signal, name))


def run_rank(pairs: str, config: dict[str, Any], job: dict[str, Any], rank: int) -> None:
    """One attempt at a run, or one rank's part in it."""
    processes.PATIENCE_S = 0.5
    torch.set_num_threads(1)
    draw_no_curves()
    if job.get("plan") and rank == job.get("rank", 0):
        act_at(*job["plan"])
    try:
        run.train(
            Path(pairs),
            Path(job["out"]),
            TrainConfig(**config | job.get("config", {})),
            RunOptions(save_every=job.get("save_every", 3), use_cache=job.get("use_cache", True)),
        )
    except UserError as error:
        console.fail(str(error))
        raise SystemExit(2) from None


def draw_no_curves() -> None:
    """It takes longer than the few steps of these runs."""
    record.draw_curves = lambda *_: None


@cache
def forks() -> Forks:
    return Forks("attempts", "transformers.models.llama.modeling_llama", env=os.environ | {"OMP_NUM_THREADS": "1"})


def attempt(pairs: Path, config: TrainConfig, job: dict[str, Any], **env: str) -> tuple[list[int], str]:
    """Train in as many processes as the job asks for: their exit codes, and what they said."""
    ranks = job.get("ranks", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    children = []
    for rank in range(ranks):
        of_rank = {"RANK": str(rank), "LOCAL_RANK": str(rank)} | shared if ranks > 1 else {}
        arguments = (str(pairs), config.model_dump(), job, rank)
        children.append(forks().start("attempts:run_rank", *arguments, env=os.environ | env | of_rank))
    done = [child.done() for child in children]
    return [ended.code for ended in done], "".join(ended.err for ended in done)


def attempts(pairs: Path, config: TrainConfig, jobs: list[dict[str, Any]]) -> tuple[list[list[int]], str]:
    """The exit codes of the ranks of each job, one job after the other, and what all of them said."""
    done = [attempt(pairs, config, job) for job in jobs]
    return [codes for codes, _ in done], "".join(said for _, said in done)

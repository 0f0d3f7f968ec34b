"""Runs of ``train`` in one or several processes, forked from one that has imported all and is kept for the session."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from attempts import attempt

from maskdpo.train import ranks
from maskdpo.train.config import TrainConfig
from maskdpo.train.run import record


def draw_no_curves() -> None:
    """Of runs of two steps they take longer than the rest, and have tests of their own."""
    record.draw_curves = lambda *_: None


class Forks:
    """The process that forks. It ends when its standard input does."""

    def __init__(self) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # open as long as the process
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def attempt(self, pairs: Path, config: TrainConfig, cache_folder: Path, **job: Any) -> tuple[list[int], str]:
        """The exit codes of the ranks (see ``attempts.attempt``), and what they said, in one line."""
        assert self._process.stdin and self._process.stdout
        said_before = self._log.seek(0, os.SEEK_END)
        self._process.stdin.write(json.dumps([str(cache_folder), str(pairs), config.model_dump(), job]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        self._log.seek(said_before)
        said = " ".join(self._log.read().split())
        assert answer, said
        codes: list[int] = json.loads(answer)
        return codes, said


@cache
def forks() -> Forks:
    return Forks()


def _serve() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ranks.PATIENCE_S = 0.5
    torch.set_num_threads(1)
    draw_no_curves()
    for line in sys.stdin:
        os.environ["MASKDPO_CACHE"], *what = json.loads(line)
        print(json.dumps(attempt(*what)), flush=True)


if __name__ == "__main__":
    _serve()

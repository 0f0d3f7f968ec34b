"""A judge of the tests that runs in workers: it takes its time, and may say in which process it is.

An answer with the word KILL kills the process, as running out of memory does.
"""

import json
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from maskdpo.annotate.judge import Task, Usage, Verdict
from maskdpo.backends.settings import BackendSettings
from maskdpo.schemas import JudgeInfo, Label


class Options(BaseModel):
    """How the judge behaves."""

    file: Path | None = None
    """A JSON file: ``seconds`` for each answer, and ``pids``, a folder in which each process notes itself."""
    tell: bool = False
    """Whether the evidence is the number of the process."""


class SlowJudge:
    def __init__(self, options: Options) -> None:
        self.info = JudgeInfo(name="slow", version="1")
        self.usage = Usage()
        self._tell = options.tell
        self._told = json.loads(options.file.read_text()) if options.file else {}

    def load(self) -> None:
        if "pids" in self._told:
            (Path(self._told["pids"]) / str(os.getpid())).touch()

    def judge(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
        for task in tasks:
            time.sleep(self._told.get("seconds", 0.0))
            if "KILL" in task.response.response:
                os.kill(os.getpid(), signal.SIGKILL)
            self.usage.calls += len(task.spans)
            yield task, [self._verdict(task.sentence(i)) for i in range(len(task.spans))]

    def _verdict(self, sentence: str) -> Verdict:
        evidence = str(os.getpid()) if self._tell else None
        return Verdict(Label.NO_HALLUCINATION, confidence=len(sentence) / 1000, evidence=evidence)


def judge(settings: BackendSettings, options: Options) -> Any:
    return SlowJudge(options)


def dying(settings: BackendSettings, options: Options) -> Any:
    """It dies as soon as its model is loaded."""
    made = SlowJudge(options)
    made.load = lambda: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
    return made


def without_package(settings: BackendSettings, options: Options) -> Any:
    """It needs a package that is not there."""
    made = SlowJudge(options)

    def load() -> None:
        import torch.no_such_part  # noqa: F401  # torch counts as missing, as if all of it were

    made.load = load  # type: ignore[method-assign]
    return made

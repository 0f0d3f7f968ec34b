"""A judge and a backend of the tests that run in workers.

The judge takes its time, and may say in which process it is. An answer with the word KILL kills the process, as running
out of memory does.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from maskdpo.annotate.judge import Task, Usage, Verdict
from maskdpo.backends.base import Completion, Reply, Request
from maskdpo.backends.settings import BackendSettings
from maskdpo.errors import UserError
from maskdpo.schemas import JudgeInfo, Label


class Options(BaseModel):
    """How the judge behaves."""

    file: Path | None = None
    """A JSON file: ``seconds`` for each answer; ``pids``, a folder in which each process notes itself; ``window``, so
    many answers are read before one is judged; ``late``, a folder that the first process makes, and all others load two
    seconds longer; ``exit``, so many answers are judged before the judge calls ``sys.exit``."""
    tell: bool = False
    """Whether the evidence is the number of the process."""


class SlowJudge:
    def __init__(self, options: Options) -> None:
        self.info = JudgeInfo(name="slow", version="1")
        self.usage = Usage()
        self._tell = options.tell
        self._told = json.loads(options.file.read_text()) if options.file else {}
        self._answers = 0

    def load(self) -> None:
        if "pids" in self._told:
            (Path(self._told["pids"]) / str(os.getpid())).touch()
        if "late" in self._told:
            try:
                Path(self._told["late"]).mkdir()
            except FileExistsError:
                time.sleep(2)

    def notes(self) -> list[str]:
        return [f"process {os.getpid()} has judged {self._answers} answers"]

    def judge(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
        waiting = iter(tasks)
        while window := list(islice(waiting, self._told.get("window", 1))):
            for task in window:
                yield self._judged(task)

    def _judged(self, task: Task) -> tuple[Task, list[Verdict]]:
        time.sleep(self._told.get("seconds", 0.0))
        if "KILL" in task.response.response:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._answers == self._told.get("exit"):
            sys.exit(3)
        self._answers += 1
        self.usage.calls += len(task.spans)
        return task, [self._verdict(task.sentence(i)) for i in range(len(task.spans))]

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
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    made.load = load  # type: ignore[method-assign]
    return made


class Echo:
    """A backend of somebody's own that answers with the prompt and the date. Nobody can ask for its context."""

    template_options: dict[str, Any] = {}
    today: date | None = None

    def __init__(self, model: str) -> None:
        self.model = model
        self.extra = {"effort": "low"}

    def writes_date(self) -> bool:
        return True

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        for request in requests:
            yield Reply(request.key, (Completion(f"{request.prompt} {self.today}", "stop"),))


def paying(model: str) -> Any:
    """A backend that pays for its calls."""
    made = Echo(model)
    made.purse = object()  # type: ignore[attr-defined]
    return made


def unloadable(model: str) -> Any:
    """A backend whose model cannot be loaded."""

    def context() -> None:
        raise UserError(f"{model} has no weights")

    made = Echo(model)
    made.context = context  # type: ignore[attr-defined]
    return made


def dated(settings: BackendSettings, options: Options) -> Any:
    """A judge that asks a backend which it has made itself: its evidence is the date there."""
    made = SlowJudge(options)
    made.backend = Echo("own")  # type: ignore[attr-defined]
    made._verdict = lambda sentence: Verdict(  # type: ignore[method-assign]
        Label.NO_HALLUCINATION,
        evidence=str(made.backend.today),  # type: ignore[attr-defined]
    )
    return made

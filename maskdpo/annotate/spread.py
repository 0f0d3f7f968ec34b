"""A judge that holds a model, in several workers in Ray."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from maskdpo.annotate.judge import Judge, Task, Usage, Verdict
from maskdpo.annotate.stats import usage_since
from maskdpo.errors import UserError
from maskdpo.schemas import JudgeInfo, Status
from maskdpo.workers import Lost, Work, Workers

if TYPE_CHECKING:
    from maskdpo.annotate.settings import JudgeSettings

Judged = tuple[list[Verdict], Usage | None]
"""The verdicts on a task, and what the judge has used since the task before."""


class SpreadJudge:
    """So many workers as the settings say, each with the judge that they name.

    Args:
        settings: those of the judge, with ``workers``.
    """

    def __init__(self, settings: "JudgeSettings") -> None:
        alone = settings.but(workers=None, gpus_per_worker=None)
        own = alone.but(device=None).make_judge()  # this machine may have no such device
        self.info = own.info
        self.needs_reference = getattr(own, "needs_reference", False)
        self.notes = getattr(own, "notes", list)
        self.usage = Usage() if hasattr(own, "usage") else None
        self._workers = Workers(
            partial(_load, alone, own.info),
            settings.workers or 1,
            gpus=0 if settings.device == "cpu" else settings.gpus_per_worker,
            items="answers",
        )

    def judge(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
        """See ``Judge``. The sentences of an answer that no worker has survived get a status."""
        for task, judged in self._workers.run(tasks, _document):
            if isinstance(judged, Lost):
                yield task, [Verdict(None, Status.API_ERROR, reason=judged.message)] * len(task.spans)
                continue
            verdicts, used = judged
            if self.usage is not None and used is not None:
                self.usage.add(used)
            yield task, verdicts


def _document(task: Task) -> str:
    return "\n\n".join(task.prompt.passages) or task.prompt.id


def _load(settings: "JudgeSettings", info: JudgeInfo) -> Work:
    """In a worker: the judge with its model.

    Raises:
        UserError: it is another one than in the process that asks.
    """
    judge = settings.make_judge()
    if judge.info != info:
        mine, asked = judge.info.model_dump(), info.model_dump()
        other = next(name for name in mine if mine[name] != asked[name])
        raise UserError(
            f"the judge {info.name} is another one in a worker: its {other} is {mine[other]!r} there, and "
            f"{asked[other]!r} here. Give all machines the same model and the same files"
        )
    load = getattr(judge, "load", None)
    if load is not None:
        load()
    return Work(partial(_judged, judge))


def _judged(judge: Judge, items: Iterator[tuple[int, Task]]) -> Iterator[tuple[int, Judged]]:
    numbers: dict[str, int] = {}
    usage: Usage | None = getattr(judge, "usage", None)
    before = usage and replace(usage)

    def tasks() -> Iterator[Task]:
        for number, task in items:
            numbers[task.response.id] = number
            yield task

    for task, verdicts in judge.judge(tasks()):
        answer = task.response.id
        if answer not in numbers:
            raise UserError(
                f"the judge {judge.info.name} returned the answer {answer!r} twice, or an answer that it was not given"
            )
        yield numbers.pop(answer), (verdicts, usage_since(usage, before))
        before = usage and replace(usage)

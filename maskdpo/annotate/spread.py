"""A judge that holds a model, in several workers in Ray."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date
from functools import partial
from typing import TYPE_CHECKING

from maskdpo.annotate.judge import Judge, Task, Usage, Verdict, not_asked_for
from maskdpo.annotate.stats import usage_since
from maskdpo.backends.price import refuse_purse
from maskdpo.errors import UserError
from maskdpo.prompt_date import Dated
from maskdpo.schemas import JudgeInfo, Status
from maskdpo.workers import Lost, Work, Workers

if TYPE_CHECKING:
    from maskdpo.annotate.settings import JudgeSettings

Day = date | None
"""The date for the chat template of the judge's backend, where it has one that writes a date."""
Judged = tuple[list[Verdict], Usage | None]
"""The verdicts on a task, and what the judge has used since the task before."""


class SpreadJudge:
    """So many workers as the settings say, each with the judge that they name.

    Args:
        settings: those of the judge, with ``workers``.

    Raises:
        UserError: the judge pays for its calls out of a purse, which processes cannot share.
    """

    def __init__(self, settings: "JudgeSettings") -> None:
        alone = settings.but(workers=None, gpus_per_worker=None)
        own = alone.but(device=None).make_judge()  # this machine may have no such device
        self.info = own.info
        self.needs_reference = getattr(own, "needs_reference", False)
        refuse_purse(own, f"`judge` {settings.judge}")
        if isinstance(backend := getattr(own, "backend", None), Dated):
            self.backend = backend
        self.usage = Usage() if hasattr(own, "usage") else None
        self._workers = Workers(
            partial(_load, alone, own.info),
            settings.workers or 1,
            gpus=0 if settings.device == "cpu" else settings.gpus_per_worker,
            items="answers",
        )
        self._own_notes = getattr(own, "notes", list)

    def notes(self) -> list[str]:
        """See ``Judge``: what the workers say; before they are there, what is known here."""
        found = self._workers.notes()
        return self._own_notes() if found is None else found

    def judge(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
        """See ``Judge``. The sentences of an answer that no worker has survived get a status."""
        dated = ((self._today(), task) for task in tasks)
        for (_, task), judged in self._workers.run(dated, lambda item: _document(item[1])):
            if isinstance(judged, Lost):
                yield task, [Verdict(None, Status.API_ERROR, reason=judged.message)] * len(task.spans)
                continue
            verdicts, used = judged
            if self.usage is not None and used is not None:
                self.usage.add(used)
            yield task, verdicts

    def _today(self) -> Day:
        return self.backend.today if hasattr(self, "backend") else None


def _document(task: Task) -> str:
    return "\n\n".join(task.prompt.passages) or task.prompt.id


def _load(settings: "JudgeSettings", info: JudgeInfo) -> Work:
    """In a worker: the judge with its model.

    Raises:
        UserError: it is another one than in the process that asks.
    """
    judge = settings.make_judge()
    if (other := differing(judge.info, info)) is not None:
        mine, asked = judge.info.model_dump(), info.model_dump()
        raise UserError(
            f"the judge {info.name} is another one in a worker: its {other} is {mine[other]!r} there, and "
            f"{asked[other]!r} here. Give all machines the same model and the same files"
        )
    load = getattr(judge, "load", None)
    if load is not None:
        load()
    return Work(partial(_judged, judge), notes=getattr(judge, "notes", list))


def differing(one: JudgeInfo, other: JudgeInfo) -> str | None:
    """A field in which two judges differ; None: they are the same, as far as both machines know their model.

    A machine knows the commit of a model of the Hub as soon as it has loaded it once.
    """
    known, unknown = (one, other) if one.revision else (other, one)
    if unknown.revision is None and (known.revision or "").startswith(f"{known.model}@"):
        unknown = unknown.model_copy(update={"revision": known.revision})
    mine, theirs = known.model_dump(), unknown.model_dump()
    return next((name for name in mine if mine[name] != theirs[name]), None)


def _judged(judge: Judge, items: Iterator[tuple[int, tuple[Day, Task]]]) -> Iterator[tuple[int, Judged]]:
    numbers: dict[str, int] = {}
    usage: Usage | None = getattr(judge, "usage", None)
    before = usage and replace(usage)

    def tasks() -> Iterator[Task]:
        for number, (today, task) in items:
            if today is not None:
                judge.backend.today = today  # type: ignore[attr-defined]
            numbers[task.response.id] = number
            yield task

    for task, verdicts in judge.judge(tasks()):
        answer = task.response.id
        if answer not in numbers:
            raise not_asked_for(judge.info.name, answer)
        yield numbers.pop(answer), (verdicts, usage_since(usage, before))
        before = usage and replace(usage)

"""Which outcomes are still missing. Sentences whose questions are identical share one question to the model."""

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from maskdpo.annotate.judge import Task
from maskdpo.annotate.replies import Outcome
from maskdpo.schemas import Status

QUESTIONS_KEPT = 65_536
"""Questions that are kept with their outcomes, so that an identical question costs no call."""


class Part(NamedTuple):
    """What one outcome is about: a sentence, or a sentence and one of the questions about it."""

    sentence: int
    turn: int = 0
    passage: str | None = None


TaskParts = tuple[int, tuple[int, ...]]
"""The number of a task, and the indices of the parts that a question is about."""


@dataclass
class _PendingTask:
    task: Task
    parts: Sequence[Part]
    outcomes: list[Outcome | None]
    missing: int


class PendingTasks:
    """Tasks with missing outcomes, and the questions that have been asked for them."""

    def __init__(self) -> None:
        self._pending: dict[int, _PendingTask] = {}
        self._waiting: dict[bytes, list[TaskParts]] = {}
        self._outcomes: OrderedDict[bytes, list[Outcome]] = OrderedDict()
        self._finished: deque[tuple[Task, Sequence[Part], list[Outcome]]] = deque()
        self._added = 0

    def add(self, task: Task, parts: Sequence[Part]) -> int:
        """Add a task and return its number. A task without parts is finished at once."""
        number, self._added = self._added, self._added + 1
        self._pending[number] = _PendingTask(task, parts, [None] * len(parts), len(parts))
        self._check_finished(number)
        return number

    def must_ask(self, question: bytes, parts: TaskParts) -> bool:
        """Whether the question is new. Otherwise these parts get the outcomes of the identical question."""
        if question in self._outcomes:
            self._outcomes.move_to_end(question)
            self._set(parts, self._outcomes[question])
            return False
        waiting = self._waiting.setdefault(question, [])
        waiting.append(parts)
        return len(waiting) == 1

    def asked_by(self, question: bytes) -> Iterator[tuple[Task, float]]:
        """The tasks that wait for this question, and which share of each of them the question is about."""
        for number, indices in self._waiting[question]:
            pending = self._pending[number]
            yield pending.task, len(indices) / len(pending.parts)

    def add_outcomes(self, question: bytes, outcomes: Sequence[Outcome]) -> None:
        """Give the outcomes to all parts that wait for this question.

        Failures are not kept: when the question is asked again it may succeed.
        """
        for parts in self._waiting.pop(question):
            self._set(parts, outcomes)
        if all(outcome.status is Status.OK for outcome in outcomes):
            self._outcomes[question] = list(outcomes)
            if len(self._outcomes) > QUESTIONS_KEPT:
                self._outcomes.popitem(last=False)

    def finished(self) -> Iterator[tuple[Task, Sequence[Part], list[Outcome]]]:
        while self._finished:
            yield self._finished.popleft()

    def _set(self, parts: TaskParts, outcomes: Sequence[Outcome]) -> None:
        number, indices = parts
        pending = self._pending[number]
        for i, outcome in zip(indices, outcomes, strict=True):
            pending.outcomes[i] = outcome
        pending.missing -= len(indices)
        self._check_finished(number)

    def _check_finished(self, number: int) -> None:
        pending = self._pending[number]
        if pending.missing == 0:
            outcomes = [outcome for outcome in pending.outcomes if outcome is not None]
            self._finished.append((pending.task, pending.parts, outcomes))
            del self._pending[number]

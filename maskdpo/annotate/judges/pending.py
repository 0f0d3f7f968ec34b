"""Which verdicts are still missing. Sentences whose questions are identical share one question to the model."""

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from maskdpo.annotate.judge import Task, Verdict
from maskdpo.schemas import Status

QUESTIONS_KEPT = 65_536
"""Questions that are kept with their verdicts, so that an identical question costs no call."""

TaskSentences = tuple[int, tuple[int, ...]]
"""The number of a task, and the indices of the sentences that a question is about."""


@dataclass
class _PendingTask:
    task: Task
    verdicts: list[Verdict | None]
    missing: int


class PendingTasks:
    """Tasks with missing verdicts, and the questions that have been asked for them."""

    def __init__(self) -> None:
        self._pending: dict[int, _PendingTask] = {}
        self._waiting: dict[bytes, list[TaskSentences]] = {}
        self._verdicts: OrderedDict[bytes, list[Verdict]] = OrderedDict()
        self._finished: deque[tuple[Task, list[Verdict]]] = deque()
        self._added = 0

    def add(self, task: Task) -> int:
        """Add a task and return its number. A task without sentences is finished at once."""
        number, self._added = self._added, self._added + 1
        self._pending[number] = _PendingTask(task, [None] * len(task.spans), len(task.spans))
        self._check_finished(number)
        return number

    def must_ask(self, question: bytes, sentences: TaskSentences) -> bool:
        """Whether the question is new. Otherwise these sentences get the verdicts of the identical question."""
        if question in self._verdicts:
            self._verdicts.move_to_end(question)
            self._set(sentences, self._verdicts[question])
            return False
        waiting = self._waiting.setdefault(question, [])
        waiting.append(sentences)
        return len(waiting) == 1

    def add_verdicts(self, question: bytes, verdicts: Sequence[Verdict]) -> None:
        """Give the verdicts to all sentences that wait for this question.

        Failures are not kept: when the question is asked again it may succeed.
        """
        for sentences in self._waiting.pop(question):
            self._set(sentences, verdicts)
        if all(verdict.status is Status.OK for verdict in verdicts):
            self._verdicts[question] = list(verdicts)
            if len(self._verdicts) > QUESTIONS_KEPT:
                self._verdicts.popitem(last=False)

    def finished(self) -> Iterator[tuple[Task, list[Verdict]]]:
        while self._finished:
            yield self._finished.popleft()

    def _set(self, sentences: TaskSentences, verdicts: Sequence[Verdict]) -> None:
        number, indices = sentences
        pending = self._pending[number]
        for i, verdict in zip(indices, verdicts, strict=True):
            pending.verdicts[i] = verdict
        pending.missing -= len(indices)
        self._check_finished(number)

    def _check_finished(self, number: int) -> None:
        pending = self._pending[number]
        if pending.missing == 0:
            self._finished.append((pending.task, [verdict for verdict in pending.verdicts if verdict is not None]))
            del self._pending[number]

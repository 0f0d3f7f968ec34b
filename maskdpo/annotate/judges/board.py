"""Which verdicts are still to come, and who waits for them: identical questions are asked once."""

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from maskdpo.annotate.judge import Task, Verdict
from maskdpo.schemas import Status

QUESTIONS_KEPT = 65_536
"""Questions remembered with their verdicts, so that an identical one costs no call."""

Place = tuple[int, tuple[int, ...]]
"""Number of a task, indices of the sentences that a question is about."""


@dataclass
class _Pending:
    task: Task
    verdicts: list[Verdict | None]
    open: int


class Board:
    """Tasks, their sentences that wait, and the questions that are under way."""

    def __init__(self) -> None:
        self._pending: dict[int, _Pending] = {}
        self._waiting: dict[bytes, list[Place]] = {}
        self._known: OrderedDict[bytes, list[Verdict]] = OrderedDict()
        self._finished: deque[tuple[Task, list[Verdict]]] = deque()
        self._added = 0

    def add(self, task: Task) -> int:
        """A number for the task; one without sentences is finished at once."""
        number, self._added = self._added, self._added + 1
        self._pending[number] = _Pending(task, [None] * len(task.spans), len(task.spans))
        self._check_finished(number)
        return number

    def must_ask(self, question: bytes, place: Place) -> bool:
        """Whether nobody has asked this yet. If somebody has, the place gets the same verdicts."""
        if question in self._known:
            self._known.move_to_end(question)
            self._set(place, self._known[question])
            return False
        waiting = self._waiting.setdefault(question, [])
        waiting.append(place)
        return len(waiting) == 1

    def settle(self, question: bytes, verdicts: Sequence[Verdict]) -> None:
        """The verdicts for all who wait. Failures are not remembered: asked again, the question may succeed."""
        for place in self._waiting.pop(question):
            self._set(place, verdicts)
        if all(verdict.status is Status.OK for verdict in verdicts):
            self._known[question] = list(verdicts)
            if len(self._known) > QUESTIONS_KEPT:
                self._known.popitem(last=False)

    def finished(self) -> Iterator[tuple[Task, list[Verdict]]]:
        while self._finished:
            yield self._finished.popleft()

    def _set(self, place: Place, verdicts: Sequence[Verdict]) -> None:
        number, indices = place
        pending = self._pending[number]
        for i, verdict in zip(indices, verdicts, strict=True):
            pending.verdicts[i] = verdict
        pending.open -= len(indices)
        self._check_finished(number)

    def _check_finished(self, number: int) -> None:
        pending = self._pending[number]
        if pending.open == 0:
            self._finished.append((pending.task, [verdict for verdict in pending.verdicts if verdict is not None]))
            del self._pending[number]

"""How far a run of ``annotate`` is, in characters of answers: long answers have more sentences, and take longer."""

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager

from maskdpo.annotate.judge import Judge, Task
from maskdpo.annotate.output import AnnotationFile
from maskdpo.console import ProgressBar
from maskdpo.schemas import Annotation

SENTENCE_LENGTH = 100
"""Characters that a sentence which is judged again counts for: its answer is not read at the start."""


class AnnotateWork:
    """The work of a run, and how much of each answer that is under way has been counted.

    Args:
        skipped: prompts to whose answers no judge is asked.
    """

    def __init__(self, output: AnnotationFile, skipped: AbstractSet[str]) -> None:
        self._output, self._skipped = output, skipped
        self._counted: dict[str, float] = {}
        wanted = [name for name in output.responses if name not in output.written or name in output.failed]
        self.total = float(sum(map(self._of, wanted)))

    def _of(self, response_id: str) -> int:
        if response_id in self._output.failed:
            return SENTENCE_LENGTH * self._output.failed[response_id]
        response = self._output.responses[response_id]
        return 0 if response.prompt_id in self._skipped else response.length

    def of_finished(self, batch: Iterable[Annotation]) -> float:
        """The work on these answers that has not been counted while they were under way."""
        return sum(self._of(record.id) - self._counted.pop(record.id, 0.0) for record in batch)

    @contextmanager
    def heard_from(self, judge: Judge, bar: ProgressBar) -> Iterator[None]:
        """Count every reply that the judge tells of, where it tells of any."""

        def heard(task: Task, share: float) -> None:
            name = task.response.id
            before = self._counted.get(name, 0.0)
            self._counted[name] = min(before + share * self._of(name), self._of(name))
            bar.advance(0, work=self._counted[name] - before)

        if not hasattr(judge, "heard"):
            yield
            return
        before, judge.heard = judge.heard, heard
        try:
            yield
        finally:
            judge.heard = before

"""What a judge is: a thing that labels the sentences of answers. Built-in ones are in ``annotate/judges``."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from maskdpo.schemas import JudgeInfo, Label, Prompt, Response, Sentence, Span, Status


@dataclass(frozen=True, slots=True)
class Task:
    """An answer to be judged.

    ``spans`` are the sentences that need a verdict, in order; ``given`` those that need none (headings, code).
    """

    prompt: Prompt
    response: Response
    spans: list[Span]
    given: tuple[Sentence, ...] = ()

    def sentence(self, i: int) -> str:
        span = self.spans[i]
        return self.response.response[span.start : span.end]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement of one sentence. ``label`` is None exactly where ``status`` is not ``ok``."""

    label: Label | None
    status: Status = Status.OK
    confidence: float | None = None
    evidence: str | None = None
    reason: str | None = None


class Judge(Protocol):
    """Labels answers.

    ``judge`` consumes the tasks lazily and yields each of them once, with one verdict a span, in any order. What
    goes wrong with one sentence is a ``status`` of its verdict; only what makes the whole run pointless raises
    ``UserError``.
    """

    info: JudgeInfo

    def judge(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Verdict]]]: ...

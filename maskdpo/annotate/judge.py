"""The interface of a judge, which labels the sentences of answers. The built-in judges are in ``annotate/judges``."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Literal, Protocol

from maskdpo.errors import UserError
from maskdpo.schemas import JudgeInfo, Label, Prompt, Response, Scores, Sentence, Span, Status

MissingReference = Literal["fail", "skip"]
"""What becomes of answers to prompts without a reference, where the judge compares with one."""


@dataclass(frozen=True, slots=True)
class Task:
    """An answer to be judged.

    ``spans`` are the sentences that need a verdict, in order; ``given`` are those that need none (headings, code, the
    fragment at the end of an answer that was cut off).
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
    """The verdict on one sentence. ``label`` is None exactly where ``status`` is not ``ok``.

    A judge that gives ``scores`` (probabilities of labels, at most 1 together) may leave out ``confidence``, which is
    then the score of the label.
    """

    label: Label | None
    status: Status = Status.OK
    confidence: float | None = None
    scores: Scores | None = None
    evidence: str | None = None
    reason: str | None = None


@dataclass(slots=True)
class Usage:
    """What the calls of a judge have cost so far."""

    calls: int = 0
    """Requests to a model."""
    repeats: int = 0
    """Sentences that got the verdict of an identical call instead of a call of their own."""
    references_cut: int = 0
    """Calls that saw only the passages that bear on their sentences, because the whole reference did not fit."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that the server had in its prefix cache, where it reports them."""
    completion_tokens: int = 0

    def add(self, more: "Usage") -> None:
        for part in fields(self):
            setattr(self, part.name, getattr(self, part.name) + getattr(more, part.name))


class Judge(Protocol):
    """Labels answers.

    ``judge`` consumes the tasks lazily and yields each of them once, with one verdict per span, in any order. A failure
    that concerns one sentence is the ``status`` of its verdict; only a failure that concerns all sentences raises
    ``UserError``.

    A judge may have six more attributes: ``needs_reference`` (true: a prompt without a reference is an error before
    anything is judged, or else the judge does not see the answers to it), ``usage`` (a ``Usage`` that grows, for the
    summary of the run), ``backend`` (the ``backends.base.Backend`` that it asks: where the chat template writes a date,
    all prompts of a run get the same), ``heard`` (a function that the judge calls for every reply, with the task and
    the share of it that the reply answers: ``annotate`` puts one there that moves its progress bar), ``notes`` (a
    function without arguments, called after a run: lines that tell users what to make of the labels; with workers those
    of every worker are told, each line once), and ``load`` (a function without arguments that loads its model: a worker
    calls it before it gets tasks, so that what dies with the loading is not taken for the fault of a task).
    """

    info: JudgeInfo

    def judge(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Verdict]]]: ...


def not_asked_for(judge: str, answer: str) -> UserError:
    """The error of a custom judge that does not keep to the interface."""
    return UserError(f"the judge {judge} returned the answer {answer!r} twice, or an answer that it was not given")

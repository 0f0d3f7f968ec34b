"""The LLM judge: one constrained call a sentence, identical calls asked once, failures kept as what they are."""

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import maskdpo
from maskdpo.annotate.judge import Task, Verdict
from maskdpo.annotate.language import detect_language
from maskdpo.annotate.protocol import Protocol, load_protocol
from maskdpo.backends.base import Backend, Reply, Request, Sampling
from maskdpo.errors import UserError
from maskdpo.schemas import JudgeInfo, Message, Status

VERDICTS_KEPT = 65_536
"""Verdicts remembered, so that the same sentence of the same answer is asked once."""

Slot = tuple[int, int]
"""Number of a task, index of one of its sentences."""

Question = tuple[str, str, str]
"""What decides a verdict: id of the prompt (its reference), the whole answer, the sentence."""


class LLMJudge:
    """Asks a model for the verdict on every sentence, in the words of a protocol."""

    def __init__(self, backend: Backend, protocol: Protocol) -> None:
        self._backend = backend
        self._protocol = protocol
        self.info = JudgeInfo(
            name="llm",
            model=backend.model,
            protocol=protocol.name,
            protocol_hash=protocol.hash,
            version=maskdpo.__version__,
        )

    def judge(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
        """See ``Judge``. A task comes back as soon as its last verdict has arrived."""
        board = _Board()
        sampling = Sampling(max_tokens=32, temperature=0.0)
        for reply in self._backend.generate(self._requests(tasks, board), sampling):
            board.fill(reply.key, self._verdict(reply))  # type: ignore[arg-type]
            yield from board.finished()
        yield from board.finished()

    def _requests(self, tasks: Iterable[Task], board: "_Board") -> Iterator[Request]:
        for number, task in enumerate(tasks):
            board.add(number, task)
            for i in range(len(task.spans)):
                if board.must_ask((number, i), (task.prompt.id, task.response.response, task.sentence(i))):
                    yield Request((number, i), self._messages(task, i), tuple(self._protocol.choices))

    def _messages(self, task: Task, i: int) -> list[Message]:
        prompt = task.prompt
        if not any(passage.strip() for passage in prompt.passages):
            raise UserError(
                f"prompt {prompt.id!r} has no reference, and the llm judge compares with one: "
                "add a 'reference' to the prompt or take another judge"
            )
        language = prompt.language or detect_language(task.response.response)
        return self._protocol.messages(
            language if language in self._protocol.templates else next(iter(self._protocol.templates)),
            reference="\n\n".join(prompt.passages),
            question=prompt.question,
            answer=task.response.response,
            sentence=task.sentence(i),
        )

    def _verdict(self, reply: Reply) -> Verdict:
        if reply.failure is not None:
            return Verdict(None, reply.failure.status, reason=reply.failure.message)
        completion = reply.completions[0]
        label = self._protocol.choices.get(completion.text.strip())
        if label is None:
            return Verdict(None, Status.PARSE_ERROR, reason=f"the judge replied {completion.text[:200]!r}")
        return Verdict(label, confidence=completion.probability)


@dataclass
class _Pending:
    task: Task
    verdicts: list[Verdict | None]


class _Board:
    """Which verdicts are still to come, and who waits for them."""

    def __init__(self) -> None:
        self._pending: dict[int, _Pending] = {}
        self._waiting: dict[Slot, list[Slot]] = {}
        self._slot_of: dict[Question, Slot] = {}
        self._question_of: dict[Slot, Question] = {}
        self._known: OrderedDict[Question, Verdict] = OrderedDict()
        self._finished: deque[tuple[Task, list[Verdict]]] = deque()

    def add(self, number: int, task: Task) -> None:
        self._pending[number] = _Pending(task, [None] * len(task.spans))
        self._check_finished(number)

    def must_ask(self, slot: Slot, question: Question) -> bool:
        """Whether nobody has asked this yet. If somebody has, the slot gets the same verdict."""
        if question in self._known:
            self._set(slot, self._known[question])
            return False
        if question in self._slot_of:
            self._waiting[self._slot_of[question]].append(slot)
            return False
        self._slot_of[question], self._question_of[slot], self._waiting[slot] = slot, question, [slot]
        return True

    def fill(self, slot: Slot, verdict: Verdict) -> None:
        question = self._question_of.pop(slot)
        del self._slot_of[question]
        if verdict.status is Status.OK:
            self._known[question] = verdict
            if len(self._known) > VERDICTS_KEPT:
                self._known.popitem(last=False)
        for waiting in self._waiting.pop(slot):
            self._set(waiting, verdict)

    def finished(self) -> Iterator[tuple[Task, list[Verdict]]]:
        while self._finished:
            yield self._finished.popleft()

    def _set(self, slot: Slot, verdict: Verdict) -> None:
        number, i = slot
        self._pending[number].verdicts[i] = verdict
        self._check_finished(number)

    def _check_finished(self, number: int) -> None:
        pending = self._pending[number]
        verdicts = [verdict for verdict in pending.verdicts if verdict is not None]
        if len(verdicts) == len(pending.verdicts):
            self._finished.append((pending.task, verdicts))
            del self._pending[number]


def llm_judge(backend: Backend, protocol: str) -> LLMJudge:
    """The factory for the registry of judges."""
    return LLMJudge(backend, load_protocol(protocol))

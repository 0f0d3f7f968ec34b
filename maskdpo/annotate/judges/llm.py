"""The LLM judge: asks a model in the words of a protocol, turn by turn; failures are kept as what they are."""

import hashlib
import json
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import BaseModel, Field

from maskdpo.annotate.judge import Task, Usage, Verdict
from maskdpo.annotate.judges.board import Board
from maskdpo.annotate.judges.room import Room, TooLong
from maskdpo.annotate.protocol import Protocol, load_protocol
from maskdpo.annotate.replies import Outcome, outcomes
from maskdpo.backends.base import Backend, Reply, Request, Sampling
from maskdpo.errors import UserError
from maskdpo.identity import fingerprint
from maskdpo.schemas import JudgeInfo, Message, Prompt, Status
from maskdpo.text.language import detect_language
from maskdpo.text.passages import Passages

VERSION = "0.1.0"
"""The maskdpo since which this judge gives the verdicts that it gives. Labels of different judges are not mixed: this
changes where verdicts do, and only there."""
SENTENCES_A_CALL = 32
"""The most that one call judges together (``asks: answer``): longer answers are asked about in parts."""
REFERENCES_KEPT = 512
TOKENS_A_SLOT = 24
"""Room for a number, a word, quotes and the white space that some servers put between them."""


@dataclass
class _Case:
    """One conversation: about a sentence, or about several of one answer."""

    question: bytes
    """Digest of all that the verdict can depend on."""
    language: str
    texts: dict[str, Any]
    count: int
    """Sentences that it is about."""
    messages: list[Message] = field(default_factory=list)
    turn: int = 0
    confidence: float | None = 1.0
    evidence: str | None = None


class LLMJudge:
    """Asks a model for the verdict on every sentence, in the words of a protocol.

    Args:
        votes: verdicts to sample for each question; the label is the one with most, its confidence its share. With 1
            the most probable word is taken and the confidence is its probability, where the backend gives it.
    """

    needs_reference = True

    def __init__(self, backend: Backend, protocol: Protocol, *, votes: int = 1) -> None:
        if votes < 1:
            raise UserError(f"--votes must be at least 1, not {votes}")
        self.backend = backend
        self._protocol = protocol
        self._votes = votes
        self._room: Room | None = None
        self._passages: OrderedDict[tuple[str, ...], Passages] = OrderedDict()
        self.usage = Usage()
        files, options = fingerprint(backend.model), dict(backend.template_options)
        self.info = JudgeInfo(
            name="llm",
            model=backend.model,
            revision=files if files != backend.model else None,
            protocol=protocol.name,
            protocol_hash=protocol.hash,
            votes=votes,
            template_options=json.dumps(options, sort_keys=True) if options else None,
            version=VERSION,
        )

    def judge(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
        """See ``Judge``. A task comes back as soon as its last verdict has arrived."""
        board = Board()
        under_way: dict[Hashable, _Case] = {}
        next_turns: deque[_Case] = deque()
        fresh = self._fresh_cases(tasks, board)

        def requests() -> Iterator[Request]:
            """Conversations that have begun go on first, so that few are open at a time."""
            while case := next_turns.popleft() if next_turns else next(fresh, None):
                under_way[case.question] = case
                yield self._request(case)

        while True:
            for reply in self.backend.generate(requests()):
                case = under_way.pop(reply.key)
                verdicts = self._advance(case, reply)
                if verdicts is None:
                    next_turns.append(case)
                else:
                    board.settle(case.question, verdicts)
                yield from board.finished()
            yield from board.finished()
            if not next_turns:  # else the last replies have opened further turns
                return

    def _fresh_cases(self, tasks: Iterable[Task], board: Board) -> Iterator[_Case]:
        """A case for every question that nobody has asked; what cannot be asked is settled here."""
        for task in tasks:
            number = board.add(task)
            language = self._language(task)
            for indices, texts, together in self._questions(task):
                question = self._digest(language, texts)
                if not board.must_ask(question, (number, indices)):
                    self.usage.repeats += len(indices)
                    continue
                case = _Case(question, language, texts, len(indices))
                failure = self._fit(case, self._reference(task.prompt), together)
                if failure is None:
                    case.messages = self._protocol.opening(language, case.texts)
                    yield case
                else:
                    board.settle(question, [failure] * len(indices))

    def _questions(self, task: Task) -> Iterator[tuple[tuple[int, ...], dict[str, Any], list[str]]]:
        """Which sentences each question is about, what the templates see, and the sentences whose questions should see
        the same part of the reference.
        """
        if not task.spans:
            return
        shared = {
            "reference": self._reference(task.prompt).text,
            "question": self._protocol.neutral(task.prompt.question),
            "answer": self._protocol.neutral(task.response.response),
            "replies": {},
        }
        sentences = [self._protocol.neutral(task.sentence(i)) for i in range(len(task.spans))]
        if self._protocol.settings.asks == "sentence":
            for i, sentence in enumerate(sentences):
                yield (i,), shared | {"sentence": sentence, "sentences": []}, sentences
            return
        for start in range(0, len(sentences), SENTENCES_A_CALL):
            indices = tuple(range(start, min(start + SENTENCES_A_CALL, len(sentences))))
            # on one line each: a line break in a sentence could pretend to be the next number
            lines = [" ".join(sentences[i].split()) for i in indices]
            numbered = [{"id": str(k), "text": line} for k, line in enumerate(lines, 1)]
            yield indices, shared | {"sentence": "", "sentences": numbered}, lines

    def _reference(self, prompt: Prompt) -> Passages:
        key = tuple(prompt.passages)
        passages = self._passages.get(key)
        if passages is None:
            passages = self._passages[key] = Passages([self._protocol.neutral(text) for text in key])
            if len(self._passages) > REFERENCES_KEPT:
                self._passages.popitem(last=False)
        self._passages.move_to_end(key)
        return passages

    def _language(self, task: Task) -> str:
        return self._protocol.language(task.prompt.language or detect_language(task.response.response))

    def _digest(self, language: str, texts: dict[str, Any]) -> bytes:
        """Of what the protocol's templates read: where they do not show the answer, equal sentences of other answers
        are the same question.
        """
        read = [language, *(f"{name}={texts[name]!r}" for name in sorted(self._protocol.uses - {"replies"}))]
        return hashlib.blake2b("\0".join(read).encode(errors="replace"), digest_size=16).digest()

    def _fit(self, case: _Case, passages: Passages, together: list[str]) -> Verdict | None:
        """Cut the reference to what the model's context leaves room for; a verdict that says so where that fails."""
        if self._room is None:
            self._room = Room(self.backend.context(), self._protocol, reply_tokens=self._reply_tokens)
        own = [case.texts["sentence"]] if case.texts["sentence"] else together
        try:
            reference = self._room.fit(case.language, case.texts, passages, together, own)
        except TooLong as error:
            return Verdict(None, Status.TRUNCATED, reason=str(error))
        if reference is not None:
            self.usage.references_cut += 1
            case.texts = case.texts | {"reference": reference}
        return None

    def _reply_tokens(self, turn: int, sentences: int) -> int:
        settings = self._protocol.turns[turn]
        return settings.max_tokens if self._protocol.settings.asks == "sentence" else 16 + TOKENS_A_SLOT * sentences

    def _request(self, case: _Case) -> Request:
        turn = self._protocol.turns[case.turn]
        votes = self._votes_for(case.turn)
        sampling = Sampling(
            max_tokens=self._reply_tokens(case.turn, case.count), temperature=0.0 if votes == 1 else 1.0, n=votes
        )
        self.usage.calls += 1
        request = Request(case.question, case.messages, sampling=sampling)
        if turn.reply == "text":
            return request
        request = replace(request, choices=tuple(turn.words))
        if self._protocol.settings.asks == "sentence":
            return request
        return replace(request, slots=tuple(sentence["id"] for sentence in case.texts["sentences"]), reply="object")

    def _votes_for(self, turn: int) -> int:
        """Votes decide between words; where a free text only leads on, one is enough."""
        return 1 if self._protocol.turns[turn].otherwise else self._votes

    def _advance(self, case: _Case, reply: Reply) -> list[Verdict] | None:
        """The verdicts, or None where the conversation goes on."""
        self.usage.prompt_tokens += reply.prompt_tokens
        self.usage.cached_tokens += reply.cached_tokens
        self.usage.completion_tokens += reply.completion_tokens
        turn = self._protocol.turns[case.turn]
        found = outcomes(turn, reply, self._votes_for(case.turn), case.count)
        if turn.evidence and found[0].meaning == "next":
            case.evidence = found[0].text.strip()
        decides = found[0].meaning != "next"
        if decides or turn.reply == "word":  # a free text that only leads on takes nothing away
            share = found[0].share
            case.confidence = None if share is None or case.confidence is None else case.confidence * share
        if decides:
            return [self._verdict(case, outcome) for outcome in found]
        case.texts = case.texts | {
            "replies": case.texts["replies"] | {turn.template: self._protocol.neutral(found[0].text)}
        }
        case.turn += 1
        question = self._protocol.question(case.language, case.turn, case.texts)
        case.messages = [*case.messages, Message(role="assistant", content=found[0].text), question]
        return None

    def _verdict(self, case: _Case, outcome: Outcome) -> Verdict:
        if outcome.meaning is None or outcome.meaning == "next":
            return Verdict(None, outcome.status, reason=outcome.reason)
        confidence = outcome.share if case.count > 1 else case.confidence
        return Verdict(outcome.meaning, confidence=confidence, evidence=case.evidence)


class LLMOptions(BaseModel):
    """How the ``llm`` judge asks."""

    protocol: str = "single"
    """The name of a built-in protocol, or a folder of templates."""
    votes: Annotated[int, Field(ge=1)] = 1
    """Verdicts to sample for each label."""


def llm_judge(backend: Backend, options: LLMOptions) -> LLMJudge:
    """The factory of the ``llm`` judge, for the registry."""
    return LLMJudge(backend, load_protocol(options.protocol), votes=options.votes)

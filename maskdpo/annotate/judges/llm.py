"""The LLM judge: asks a model in the words of a protocol, turn by turn. A call that fails is a status, not a label."""

import hashlib
import json
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import BaseModel, Field

from maskdpo.annotate.judge import Task, Usage, Verdict
from maskdpo.annotate.judges.context import ContextBudget, QuestionTooLong
from maskdpo.annotate.judges.pending import PendingTasks
from maskdpo.annotate.protocol import Protocol, load_protocol
from maskdpo.annotate.replies import Outcome, outcomes
from maskdpo.backends.base import Backend, Reply, Request, Sampling
from maskdpo.errors import UserError
from maskdpo.identity import fingerprint
from maskdpo.schemas import JudgeInfo, Message, Prompt, Status
from maskdpo.text.language import detect_language
from maskdpo.text.passages import Passages

VERSION = "0.1.0"
"""The version of maskdpo that last changed the verdicts of this judge. Labels of different versions are not mixed, so
this changes only where verdicts change."""
SENTENCES_PER_CALL = 32
"""The most sentences that one call judges (``asks: answer``); longer answers take several calls."""
REFERENCES_KEPT = 512
"""References that are kept split and indexed, the ones used last."""
TOKENS_PER_SLOT = 24
"""Enough for a number, a word, quotes and the white space that some servers put between them."""


@dataclass
class _Conversation:
    """One conversation with the judge's model, about one sentence or about several sentences of one answer."""

    question: bytes
    """Digest of everything that the verdict can depend on."""
    language: str
    texts: dict[str, Any]
    count: int
    """Number of sentences that the conversation is about."""
    messages: list[Message] = field(default_factory=list)
    turn: int = 0
    confidence: float | None = 1.0
    evidence: str | None = None


class LLMJudge:
    """Asks a model for the verdict on every sentence, in the words of a protocol.

    Args:
        votes: verdicts to sample per question; the label is the most frequent one, its confidence is its share of the
            votes. With 1 the label is the most probable word and the confidence is the probability of this word, where
            the backend reports probabilities.
    """

    needs_reference = True

    def __init__(self, backend: Backend, protocol: Protocol, *, votes: int = 1) -> None:
        if votes < 1:
            raise UserError(f"`votes` must be at least 1, not {votes}")
        self.backend = backend
        self._protocol = protocol
        self._votes = votes
        self._budget: ContextBudget | None = None
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
        """See ``Judge``. A task is yielded as soon as its last verdict has arrived."""
        pending = PendingTasks()
        asked: dict[Hashable, _Conversation] = {}
        continued: deque[_Conversation] = deque()
        new = self._new_conversations(tasks, pending)

        def requests() -> Iterator[Request]:
            """Conversations that have begun come first, so that few are open at a time."""
            while conversation := continued.popleft() if continued else next(new, None):
                asked[conversation.question] = conversation
                yield self._request(conversation)

        while True:
            for reply in self.backend.generate(requests()):
                conversation = asked.pop(reply.key)
                verdicts = self._take_reply(conversation, reply)
                if verdicts is None:
                    continued.append(conversation)
                else:
                    pending.add_verdicts(conversation.question, verdicts)
                yield from pending.finished()
            yield from pending.finished()
            if not continued:  # else the last replies have led to further turns
                return

    def _new_conversations(self, tasks: Iterable[Task], pending: PendingTasks) -> Iterator[_Conversation]:
        """A conversation for every question that has not been asked yet; a question that does not fit fails here."""
        for task in tasks:
            number = pending.add(task)
            language = self._protocol.language(task.prompt.language or detect_language(task.response.response))
            for indices, texts, related in self._questions(task):
                question = self._digest(language, texts)
                if not pending.must_ask(question, (number, indices)):
                    self.usage.repeats += len(indices)
                    continue
                conversation = _Conversation(question, language, texts, len(indices))
                failure = self._cut_reference(conversation, self._reference(task.prompt), related)
                if failure is None:
                    conversation.messages = self._protocol.opening(language, conversation.texts)
                    yield conversation
                else:
                    pending.add_verdicts(question, [failure] * len(indices))

    def _questions(self, task: Task) -> Iterator[tuple[tuple[int, ...], dict[str, Any], list[str]]]:
        """Per question: the indices of the sentences that it is about, the variables of the templates, and the
        sentences whose questions should see the same part of the reference.
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
        for start in range(0, len(sentences), SENTENCES_PER_CALL):
            indices = tuple(range(start, min(start + SENTENCES_PER_CALL, len(sentences))))
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

    def _digest(self, language: str, texts: dict[str, Any]) -> bytes:
        """Digest of what the protocol's templates read: where they do not show the answer, equal sentences of different
        answers are the same question.
        """
        read = [language, *(f"{name}={texts[name]!r}" for name in sorted(self._protocol.uses - {"replies"}))]
        return hashlib.blake2b("\0".join(read).encode(errors="replace"), digest_size=16).digest()

    def _cut_reference(self, conversation: _Conversation, passages: Passages, related: list[str]) -> Verdict | None:
        """Cut the reference to what fits into the model's context; a verdict without a label where nothing fits."""
        if self._budget is None:
            self._budget = ContextBudget(self.backend.context(), self._protocol, reply_tokens=self._reply_tokens)
        asked = [conversation.texts["sentence"]] if conversation.texts["sentence"] else related
        try:
            reference = self._budget.cut_reference(conversation.language, conversation.texts, passages, related, asked)
        except QuestionTooLong as error:
            return Verdict(None, Status.TRUNCATED, reason=str(error))
        if reference is not None:
            self.usage.references_cut += 1
            conversation.texts = conversation.texts | {"reference": reference}
        return None

    def _reply_tokens(self, turn: int, sentences: int) -> int:
        settings = self._protocol.turns[turn]
        return settings.max_tokens if self._protocol.settings.asks == "sentence" else 16 + TOKENS_PER_SLOT * sentences

    def _request(self, conversation: _Conversation) -> Request:
        turn = self._protocol.turns[conversation.turn]
        votes = self._votes_for(conversation.turn)
        sampling = Sampling(
            max_tokens=self._reply_tokens(conversation.turn, conversation.count),
            temperature=0.0 if votes == 1 else 1.0,
            n=votes,
        )
        self.usage.calls += 1
        request = Request(conversation.question, conversation.messages, sampling=sampling)
        if turn.reply == "text":
            return request
        request = replace(request, choices=tuple(turn.words))
        if self._protocol.settings.asks == "sentence":
            return request
        return replace(
            request, slots=tuple(sentence["id"] for sentence in conversation.texts["sentences"]), reply="object"
        )

    def _votes_for(self, turn: int) -> int:
        """Votes decide between words; a free text that only leads to the next turn needs one completion."""
        return 1 if self._protocol.turns[turn].otherwise else self._votes

    def _take_reply(self, conversation: _Conversation, reply: Reply) -> list[Verdict] | None:
        """The verdicts, or None where the conversation has another turn."""
        self.usage.prompt_tokens += reply.prompt_tokens
        self.usage.cached_tokens += reply.cached_tokens
        self.usage.completion_tokens += reply.completion_tokens
        turn = self._protocol.turns[conversation.turn]
        found = outcomes(turn, reply, self._votes_for(conversation.turn), conversation.count)
        if turn.evidence and found[0].meaning == "next":
            conversation.evidence = found[0].text.strip()
        decides = found[0].meaning != "next"
        if decides or turn.reply == "word":  # a free text that leads to the next turn leaves the confidence as it is
            share = found[0].share
            conversation.confidence = (
                None if share is None or conversation.confidence is None else conversation.confidence * share
            )
        if decides:
            return [self._verdict(conversation, outcome) for outcome in found]
        conversation.texts = conversation.texts | {
            "replies": conversation.texts["replies"] | {turn.template: self._protocol.neutral(found[0].text)}
        }
        conversation.turn += 1
        question = self._protocol.question(conversation.language, conversation.turn, conversation.texts)
        conversation.messages = [*conversation.messages, Message(role="assistant", content=found[0].text), question]
        return None

    def _verdict(self, conversation: _Conversation, outcome: Outcome) -> Verdict:
        if outcome.meaning is None or outcome.meaning == "next":
            return Verdict(None, outcome.status, reason=outcome.reason)
        confidence = outcome.share if conversation.count > 1 else conversation.confidence
        return Verdict(outcome.meaning, confidence=confidence, evidence=conversation.evidence)


class LLMOptions(BaseModel):
    """How the ``llm`` judge asks."""

    protocol: str = "single"
    """The name of a built-in protocol, or a folder of templates."""
    votes: Annotated[int, Field(ge=1)] = 1
    """Verdicts to sample per label."""


def llm_judge(backend: Backend, options: LLMOptions) -> LLMJudge:
    """The factory of the ``llm`` judge, for the registry."""
    return LLMJudge(backend, load_protocol(options.protocol), votes=options.votes)

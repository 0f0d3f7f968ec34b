"""The LLM judge: asks a model in the words of a protocol, turn by turn. A call that fails is a status, not a label."""

import json
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import BaseModel, Field

from maskdpo.annotate.judge import Task, Usage, Verdict
from maskdpo.annotate.judges.context import ContextBudget, QuestionTooLong
from maskdpo.annotate.judges.llm_questions import LLMQuestions
from maskdpo.annotate.judges.pending import Part, PendingTasks
from maskdpo.annotate.protocol import Meaning, Protocol, load_protocol
from maskdpo.annotate.replies import Outcome, combined, outcomes
from maskdpo.backends.base import Backend, Reply, Request, Sampling, told
from maskdpo.errors import UserError
from maskdpo.identity import revision
from maskdpo.schemas import JudgeInfo, Label, Message, Status
from maskdpo.text.language import detect_language
from maskdpo.text.passages import Passages

VERSION = "0.1.0"
"""The version of maskdpo that last changed the verdicts of this judge. Labels of different versions are not mixed, so
this changes only where verdicts change."""
TOKENS_PER_SLOT = 24
"""Enough for a number, a word, quotes and the white space that some servers put between them."""


@dataclass
class _Conversation:
    """One conversation with the judge's model, about one sentence or about several sentences of one answer."""

    question: bytes
    """Digest of everything that the verdict can depend on."""
    language: str
    texts: dict[str, Any]
    document: str
    """The whole reference, which the prompts of other conversations begin with too."""
    count: int
    """Number of sentences that the conversation is about."""
    messages: list[Message] = field(default_factory=list)
    turn: int = 0
    left: float | None = 1.0
    """The probability of all turns so far leading to the next one; None where a turn reports none."""
    scores: dict[Meaning, float] = field(default_factory=dict)
    """The probability of the labels that earlier turns could have given."""
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
        self._questions = LLMQuestions(protocol)
        self.usage = Usage()
        self._own_temperature = False
        self.heard: Callable[[Task, float], None] = lambda task, share: None
        options = {name: json.dumps(given, sort_keys=True) for name, given in told(backend).items()}
        self.info = JudgeInfo(
            name="llm",
            model=backend.model,
            revision=revision(backend.model),
            protocol=protocol.name,
            protocol_hash=protocol.hash,
            votes=votes,
            version=VERSION,
            **options,
        )

    def notes(self) -> list[str]:
        """What the protocol cannot say, and what the server did not take."""
        found = []
        if missing := sorted(set(Label) - self._protocol.labels - {Label.HALLUCINATION}):
            coarse = Label.HALLUCINATION in self._protocol.labels
            wrong = ": a wrong sentence gets the label hallucination" if coarse else ""
            found.append(f"the protocol {self._protocol.name} has no word for {' and '.join(missing)}{wrong}")
        if self._own_temperature:
            found.append("the server took no temperature, so it answered at its own: verdicts may differ between runs")
        return found

    def judge(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, list[Verdict]]]:
        """See ``Judge``. A task is yielded as soon as its last verdict has arrived."""
        pending = PendingTasks()
        asked: dict[Hashable, _Conversation] = {}
        continued: deque[_Conversation] = deque()
        new = self._new_conversations(tasks, pending)

        def finished() -> Iterator[tuple[Task, list[Verdict]]]:
            for task, parts, found in pending.finished():
                yield task, [_verdict(outcome) for outcome in self._of_sentences(parts, found)]

        def requests() -> Iterator[Request]:
            """Conversations that have begun come first, so that few are open at a time."""
            while conversation := continued.popleft() if continued else next(new, None):
                asked[conversation.question] = conversation
                yield self._request(conversation)

        while True:
            for reply in self.backend.generate(requests()):
                conversation = asked.pop(reply.key)
                turn = conversation.turn
                decided = self._take_reply(conversation, reply)
                for task, share in pending.asked_by(conversation.question):
                    self.heard(task, share * self._share(turn, last=decided is not None))
                if decided is None:
                    continued.append(conversation)
                else:
                    pending.add_outcomes(conversation.question, decided)
                yield from finished()
            yield from finished()
            if not continued:  # else the last replies have led to further turns
                return

    def requests(self, tasks: Iterable[Task]) -> Iterator[Request]:
        """What ``judge`` would ask if every conversation took all of its turns, for a forecast: replies are empty."""
        for conversation in self._new_conversations(tasks, PendingTasks()):
            yield self._request(conversation)
            while self._protocol.passages is None and conversation.turn + 1 < len(self._protocol.turns):
                self._next_turn(conversation, "")
                yield self._request(conversation)

    def _new_conversations(self, tasks: Iterable[Task], pending: PendingTasks) -> Iterator[_Conversation]:
        """A conversation for every question that has not been asked yet; a question that does not fit fails here."""
        for task in tasks:
            parts, questions = self._questions.about(task)
            number = pending.add(task, parts)
            language = self._protocol.language(task.prompt.language or detect_language(task.response.response))
            for asked in questions:
                question = self._questions.digest(language, asked)
                if not pending.must_ask(question, (number, asked.parts)):
                    self.usage.repeats += len(asked.parts)
                    continue
                conversation = _Conversation(
                    question, language, asked.texts, asked.passages.text, len(asked.parts), turn=asked.turn
                )
                failure = self._cut_reference(conversation, asked.passages, asked.related)
                if failure is None:
                    conversation.messages = self._protocol.opening(language, conversation.texts, asked.turn)
                    yield conversation
                else:
                    pending.add_outcomes(question, [failure] * len(asked.parts))

    def _cut_reference(self, conversation: _Conversation, passages: Passages, related: list[str]) -> Outcome | None:
        """Cut the reference to what fits into the model's context; the failure where nothing fits."""
        if self._budget is None:
            self._budget = ContextBudget(self.backend.context(), self._protocol, reply_tokens=self._reply_tokens)
            # the model may have been fetched for this
            self.info = self.info.model_copy(update={"revision": revision(self.backend.model)})
        asked = [conversation.texts["sentence"]] if conversation.texts["sentence"] else related
        try:
            reference = self._budget.cut_reference(conversation.language, conversation.texts, passages, related, asked)
        except QuestionTooLong as error:
            return Outcome(None, status=Status.TRUNCATED, reason=str(error))
        if reference is not None:
            self.usage.references_cut += 1
            conversation.texts = conversation.texts | {"reference": reference}
        return None

    def _reply_tokens(self, turn: int, sentences: int) -> int:
        settings = self._protocol.turns[turn]
        return 16 + TOKENS_PER_SLOT * sentences if self._protocol.settings.asks == "answer" else settings.max_tokens

    def _request(self, conversation: _Conversation) -> Request:
        turn = self._protocol.turns[conversation.turn]
        votes = self._votes_for(conversation.turn)
        sampling = Sampling(
            max_tokens=self._reply_tokens(conversation.turn, conversation.count),
            temperature=0.0 if votes == 1 else 1.0,
            n=votes,
        )
        self.usage.calls += 1
        messages = conversation.messages
        prompt = messages[-1].content if self._protocol.settings.raw else messages
        request = Request(conversation.question, prompt, sampling=sampling, document=conversation.document)
        if turn.reply == "text":
            return request
        request = replace(request, choices=tuple(turn.words))
        if self._protocol.settings.asks != "answer":
            return request
        return replace(
            request, slots=tuple(sentence["id"] for sentence in conversation.texts["sentences"]), reply="object"
        )

    def _votes_for(self, turn: int) -> int:
        """Votes decide between words; a free text that only leads to the next turn needs one completion."""
        return 1 if self._protocol.turns[turn].otherwise else self._votes

    def _take_reply(self, conversation: _Conversation, reply: Reply) -> list[Outcome] | None:
        """The outcomes, or None where the conversation has another turn."""
        self.usage.prompt_tokens += reply.prompt_tokens
        self.usage.cached_tokens += reply.cached_tokens
        self.usage.completion_tokens += reply.completion_tokens
        self._own_temperature |= reply.sampling.get("temperature", 0.0) is None
        turn = self._protocol.turns[conversation.turn]
        found = outcomes(turn, reply, self._votes_for(conversation.turn), conversation.count)
        if self._protocol.passages is not None:
            passage = conversation.texts["reference"] or None
            return [replace(outcome, evidence=passage) for outcome in found]
        if conversation.count > 1:
            return found
        first = found[0]
        if first.meaning != "next":
            return [_decided(conversation, first)]
        if turn.evidence:
            conversation.evidence = first.text.strip()
        if turn.reply == "word":  # a free text that leads to the next turn leaves the probability as it is
            _note_scores(conversation, first)
        self._next_turn(conversation, first.text)
        return None

    def _share(self, turn: int, *, last: bool) -> float:
        """The share of a conversation that the reply to this turn has answered; the last reply answers all the rest."""
        if self._protocol.passages is not None:
            return 1.0
        turns = len(self._protocol.turns)
        return (turns - turn if last else 1) / turns

    def _next_turn(self, conversation: _Conversation, reply: str) -> None:
        template = self._protocol.turns[conversation.turn].template
        conversation.texts = conversation.texts | {
            "replies": conversation.texts["replies"] | {template: self._protocol.neutral(reply)}
        }
        conversation.turn += 1
        question = self._protocol.question(conversation.language, conversation.turn, conversation.texts)
        conversation.messages = [*conversation.messages, Message(role="assistant", content=reply), question]

    def _of_sentences(self, parts: Sequence[Part], found: list[Outcome]) -> list[Outcome]:
        """One outcome per sentence."""
        if self._protocol.passages is None:
            return found
        last = len(self._protocol.turns) - 1
        of_sentence: dict[int, tuple[list[Outcome], list[Outcome]]] = {}
        for part, outcome in zip(parts, found, strict=True):
            of_sentence.setdefault(part.sentence, ([], []))[part.turn == last].append(outcome)
        return [combined(*of_sentence[i]) for i in sorted(of_sentence)]


def _note_scores(conversation: _Conversation, outcome: Outcome) -> None:
    """Add what a turn says about the labels; what is left goes to the next turn."""
    left = conversation.left
    if left is None or outcome.share is None:
        conversation.left = None
        return
    for meaning, share in outcome.scores.items():
        if meaning != "next":
            conversation.scores[meaning] = conversation.scores.get(meaning, 0.0) + left * share
    conversation.left = left * outcome.scores.get("next", 0.0)


def _decided(conversation: _Conversation, outcome: Outcome) -> Outcome:
    """The outcome of the last turn, with the probabilities of all turns."""
    if outcome.meaning is None:
        return outcome
    _note_scores(conversation, outcome)
    scores = conversation.scores if conversation.left is not None else {}
    return replace(outcome, share=scores.get(outcome.meaning), scores=scores, evidence=conversation.evidence)


def _verdict(outcome: Outcome) -> Verdict:
    if outcome.meaning is None or outcome.meaning == "next":
        return Verdict(None, outcome.status, reason=outcome.reason)
    scores = {label: min(score, 1.0) for label, score in outcome.scores.items() if label != "next"}
    return Verdict(outcome.meaning, confidence=outcome.share, scores=scores or None, evidence=outcome.evidence)


class LLMOptions(BaseModel):
    """How the ``llm`` judge asks."""

    protocol: str = "single"
    """The name of a built-in protocol, or a folder of templates."""
    votes: Annotated[int, Field(ge=1)] = 1
    """Verdicts to sample per label."""


def llm_judge(backend: Backend, options: LLMOptions) -> LLMJudge:
    """The factory of the ``llm`` judge, for the registry."""
    return LLMJudge(backend, load_protocol(options.protocol), votes=options.votes)

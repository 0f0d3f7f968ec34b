"""Pydantic records. Spans count Unicode code points of the exact response string and are half-open: [start, end)."""

import re
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from maskdpo.schemas.labels import Counts, Kind, Label, Status

DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
Id = Annotated[str, Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Score = Annotated[float, Field(allow_inf_nan=False)]
FinishReason = Literal["stop", "length"]
Language = Literal["en", "zh"]
Side = Literal["chosen", "rejected"]
SIDES: tuple[Side, Side] = ("chosen", "rejected")


class Span(NamedTuple):
    """A piece of a response: code points ``start <= i < end``."""

    start: int
    end: int
    kind: Kind = Kind.PROSE


class Record(BaseModel):
    """Base of all records: unknown fields are an error, except under ``meta`` where a record has one."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRecord(Record):
    """A record that is a line of a file; its id is unique there."""

    id: Id


class Message(Record):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Prompt(FileRecord):
    """A question, with what is known to be true about its topic."""

    prompt: str | Annotated[list[Message], Field(min_length=1)]
    """A string (one user turn; with ``--raw`` the very text to continue) or chat messages."""
    reference: str | list[str] | None = None
    """The text that answers are judged against, whole or in passages."""
    topic: Id | None = None
    """What the prompt is about; train/test splits and intervals go by topic. None: the prompt is its own topic."""
    language: Language | None = None
    meta: dict[str, Any] = Field(default_factory=dict)

    @property
    def topic_or_id(self) -> str:
        return self.topic or self.id

    @property
    def passages(self) -> list[str]:
        """The reference as a list of passages; empty where there is none."""
        if self.reference is None:
            return []
        return [self.reference] if isinstance(self.reference, str) else self.reference

    @property
    def question(self) -> str:
        """The text that is asked: the prompt itself, or the last user turn."""
        if isinstance(self.prompt, str):
            return self.prompt
        return next((m.content for m in reversed(self.prompt) if m.role == "user"), self.prompt[-1].content)


class Response(FileRecord):
    """One answer of a model to a prompt."""

    prompt_id: Id
    response: str
    reasoning: str | None = None
    """What a reasoning model wrote before its answer, without the markers around it: neither judged nor trained."""
    model: str | None = None
    sampling: dict[str, Any] | None = None
    finish_reason: FinishReason | None = None
    """``stop``: the model ended its answer; ``length``: it was cut off at the token limit; None: unknown."""
    meta: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _says_how_it_was_prompted(self) -> Self:
        """What a pair takes from ``sampling``."""
        said = self.sampling or {}
        written, told = said.get("prompt_date"), said.get("template_options")
        if written is not None and (not isinstance(written, str) or not DAY.fullmatch(written)):
            raise ValueError(f"sampling: prompt_date must be a date such as 2026-11-28, not {written!r}")
        if written is not None:
            date.fromisoformat(written)
        if told is not None and not isinstance(told, dict):
            raise ValueError(f"sampling: template_options must be an object, not {told!r}")
        return self


class _LabelledSpan(Record):
    start: Annotated[int, Field(ge=0)]
    end: int
    label: Label | None = None
    confidence: Fraction | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"the span {self.start}:{self.end} is empty")
        return self


class Sentence(_LabelledSpan):
    """A labelled sentence of a response. ``label`` is null exactly where ``status`` is not ``ok``."""

    status: Status = Status.OK
    evidence: str | None = None
    """What in the reference the verdict rests on."""
    reason: str | None = None
    kind: Kind = Kind.PROSE

    @model_validator(mode="after")
    def _label_only_if_judged(self) -> Self:
        if (self.label is not None) != (self.status is Status.OK):
            raise ValueError(
                f"status is {self.status.value!r} but label is {self.label.value if self.label else None!r}: "
                "a sentence has a label exactly if its status is 'ok'"
            )
        return self


class JudgeInfo(Record):
    """Who gave the labels, and how; labels of different judges are never mixed in one file."""

    name: str
    model: str | None = None
    revision: str | None = None
    protocol: str | None = None
    protocol_hash: str | None = None
    votes: int = 1
    """Verdicts sampled for each label."""
    splitter: str | None = None
    template_options: str | None = None
    """What the chat template of the judge's model was told beside the messages: JSON, its keys sorted."""
    version: str = "1"
    """Of what the judge does, not of its package: another version may give other verdicts."""


def _check_spans(spans: Sequence[_LabelledSpan], text: str) -> None:
    """Spans lie inside the text, in order, without overlap."""
    end_before = 0
    for i, span in enumerate(spans):
        if span.end > len(text):
            raise ValueError(
                f"sentence {i}: span {span.start}:{span.end} ends after the response ({len(text)} characters)"
            )
        if span.start < end_before:
            raise ValueError(f"sentence {i}: span {span.start}:{span.end} overlaps or precedes the one before it")
        end_before = span.end


class Annotation(Response):
    """A response with its labelled sentences. A gold file is the same record, without a judge."""

    sentences: list[Sentence]
    judge: JudgeInfo | None = None

    @model_validator(mode="after")
    def _spans_fit(self) -> Self:
        _check_spans(self.sentences, self.response)
        return self

    @property
    def counts(self) -> Counts:
        return Counts.of(sentence.label for sentence in self.sentences)


class PairSentence(_LabelledSpan):
    """A sentence inside a pair; a null label means that it was not judged."""


class Pair(FileRecord):
    """Two answers to one prompt, in either of TRL's forms: chat messages, or plain strings (``--raw``)."""

    prompt_id: Id
    topic: Id
    prompt: str | Annotated[list[Message], Field(min_length=1)]
    chosen: str | list[Message]
    rejected: str | list[Message]
    chosen_sentences: list[PairSentence]
    rejected_sentences: list[PairSentence]
    chosen_score: Score | None = None
    rejected_score: Score | None = None
    chosen_finish_reason: FinishReason | None = None
    rejected_finish_reason: FinishReason | None = None
    chosen_reasoning: str | None = None
    rejected_reasoning: str | None = None
    template_options: dict[str, Any] | None = None
    """What the chat template was told beside the messages when the answers were sampled."""
    prompt_date: date | None = None
    """The date that the chat template wrote into the prompt, where it writes one."""
    weight: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1.0
    """Factor on this pair's loss."""

    @model_validator(mode="after")
    def _one_form_and_spans_fit(self) -> Self:
        for side in ("chosen", "rejected"):
            answer = getattr(self, side)
            if isinstance(answer, str) != isinstance(self.prompt, str):
                raise ValueError(f"{side}: prompt and answers must all be strings or all be lists of messages")
            if not isinstance(answer, str) and [m.role for m in answer] != ["assistant"]:
                raise ValueError(f"{side}: must be exactly one assistant message")
            try:
                _check_spans(self.sentences(side), self.response(side))
            except ValueError as error:
                raise ValueError(f"{side}_sentences: {error}") from None
        return self

    def response(self, side: Side) -> str:
        """The answer's text, whatever the form of the pair."""
        answer = self.chosen if side == "chosen" else self.rejected
        return answer if isinstance(answer, str) else answer[0].content

    def sentences(self, side: Side) -> list[PairSentence]:
        return self.chosen_sentences if side == "chosen" else self.rejected_sentences

    def reasoning(self, side: Side) -> str | None:
        return self.chosen_reasoning if side == "chosen" else self.rejected_reasoning

    def finish_reason(self, side: Side) -> FinishReason | None:
        return self.chosen_finish_reason if side == "chosen" else self.rejected_finish_reason

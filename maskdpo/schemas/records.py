"""Pydantic records. Spans count Unicode code points of the exact response string and are half-open: [start, end)."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticUseDefault

from maskdpo.schemas.labels import RIGHT, WRONG, Counts, Kind, Label, Status
from maskdpo.schemas.language import Language

DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
Id = Annotated[str, Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Probability = Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)]
Score = Annotated[float, Field(allow_inf_nan=False)]


def _default_for_null(value: Any) -> Any:
    if value is None:
        raise PydanticUseDefault
    return value


NullIsDefault = BeforeValidator(_default_for_null)
"""Null is as if the field were left out: columns of Parquet have a value for every field, and other programs write
null for those that a record has not."""


def _without_none(scores: Any) -> Any:
    """Columns of Parquet hold null for a label that has no score."""
    return {k: v for k, v in scores.items() if v is not None} if isinstance(scores, dict) else scores


def _at_most_one(scores: dict[Label, float]) -> dict[Label, float]:
    if not scores or sum(scores.values()) > 1 + 1e-6:
        raise ValueError(
            f"probabilities of labels must be at least one, and sum to at most 1, not {sum(scores.values()):g}"
        )
    return {label: scores[label] for label in Label if label in scores}


Scores = Annotated[dict[Label, Fraction], BeforeValidator(_without_none), AfterValidator(_at_most_one)]
"""The probability of each label. A sum below 1 leaves the rest unassigned: nothing is known of the other labels."""
FinishReason = Literal["stop", "length"]
Side = Literal["chosen", "rejected"]
SIDES: tuple[Side, Side] = ("chosen", "rejected")
TRAINED: Mapping[Side, frozenset[Label]] = {"chosen": RIGHT | {Label.NO_FACT}, "rejected": WRONG}
"""The labels that take part in the loss under the masks of the Mask-DPO paper. Text outside every sentence counts as
``no_fact``."""


class Span(NamedTuple):
    """A part of a response: code points ``start <= i < end``."""

    start: int
    end: int
    kind: Kind = Kind.PROSE


class Record(BaseModel):
    """Base of all records. Unknown fields are an error, except under ``meta`` where a record has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FileRecord(Record):
    """A record that is a line of a file. Its id is unique within the file."""

    id: Id


class Message(Record):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Source(Record):
    """Where a passage of a reference was found: code points ``start <= i < end`` of the text of a document."""

    document: Id
    """The path of a file inside the corpus, or the id of a row."""
    title: str | None = None
    start: Annotated[int, Field(ge=0)]
    end: int
    score: Score | None = None
    """How well the passage fits what was looked up; the scale is the retriever's."""


class Prompt(FileRecord):
    """A prompt, with a reference that its answers are judged against."""

    prompt: str | Annotated[list[Message], Field(min_length=1)]
    """A string (one user turn; with ``--raw`` the text to continue) or chat messages."""
    reference: str | list[str] | None = None
    """The text that answers are judged against, whole or in passages."""
    sources: list[Source | None] | None = None
    """Where each passage of the reference was found; null for a passage that came with the prompt."""
    topic: Id | None = None
    """What the prompt is about: splits and intervals are by topic (None: see ``shared_topic``). The pairs of a prompt
    without one have its id as their topic."""
    language: Language | None = None
    """The language of its answers. None: it is detected where it matters."""
    meta: Annotated[dict[str, Any], NullIsDefault] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _a_source_per_passage(self) -> Self:
        if self.sources is not None and len(self.sources) != len(self.passages):
            raise ValueError(
                f"sources: {len(self.sources)} for {len(self.passages)} passages of the reference; one each is needed"
            )
        return self

    @property
    def topic_or_id(self) -> str:
        return self.topic or self.id

    @property
    def shared_topic(self) -> str:
        """What must not be on both sides of a split, and what intervals draw as one.

        The topic or, without one, a hash of the reference, for answers about one text are not independent; without
        both, the id. Passages that were found for the prompt differ from question to question, so there the document
        of the first one counts.
        """
        if self.topic:
            return self.topic
        if any(passage.strip() for passage in self.own_passages):
            return reference_topic(self.own_passages)
        found = next((source for source in self.sources or () if source is not None), None)
        return reference_topic([found.document]) if found else self.id

    @property
    def passages(self) -> list[str]:
        """The reference as a list of passages; empty where there is none."""
        if self.reference is None:
            return []
        return [self.reference] if isinstance(self.reference, str) else self.reference

    @property
    def has_reference(self) -> bool:
        """Whether there is a text to judge answers against; a passage of blanks is none."""
        return any(passage.strip() for passage in self.passages)

    @property
    def own_passages(self) -> list[str]:
        """The passages that came with the prompt, without those that were found in documents."""
        sources = self.sources or [None] * len(self.passages)
        return [passage for passage, source in zip(self.passages, sources, strict=True) if source is None]

    @property
    def question(self) -> str:
        """The text of the question: the prompt itself, or the last user turn."""
        if isinstance(self.prompt, str):
            return self.prompt
        return next((m.content for m in reversed(self.prompt) if m.role == "user"), self.prompt[-1].content)


def reference_topic(passages: Sequence[str]) -> str:
    """The topic of all prompts with the same reference."""
    return "reference-" + hashlib.sha256("\n\n".join(passages).encode(errors="replace")).hexdigest()[:16]


class Response(FileRecord):
    """One answer of a model to a prompt."""

    prompt_id: Id
    response: str
    reasoning: str | None = None
    """What a reasoning model wrote before its answer, without its markers. It is neither judged nor trained."""
    model: str | None = None
    sampling: dict[str, Any] | None = None
    finish_reason: FinishReason | None = None
    """``stop``: the model ended its answer; ``length``: the answer was cut off at the token limit; None: unknown."""
    meta: Annotated[dict[str, Any], NullIsDefault] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _says_how_it_was_prompted(self) -> Self:
        """Check the values of ``sampling`` that pairs use."""
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

    status: Annotated[Status, NullIsDefault] = Status.OK
    scores: Scores | None = None
    """The probabilities of the labels as the judge gave them, before any calibration."""
    evidence: str | None = None
    """The part of the reference that the verdict is based on."""
    reason: str | None = None
    kind: Annotated[Kind, NullIsDefault] = Kind.PROSE
    inclusion: Probability | None = None
    """In a gold file: the probability with which the sentence was drawn to be labelled by people, alone or with its
    whole answer. None: it was not drawn at random, or nobody knows how."""

    @model_validator(mode="after")
    def _label_only_if_judged(self) -> Self:
        if (self.label is not None) != (self.status is Status.OK):
            raise ValueError(
                f"status is {self.status.value!r} but label is {self.label.value if self.label else None!r}: "
                "a sentence has a label exactly if its status is 'ok'"
            )
        if self.label is not None and self.kind is Kind.FRAGMENT:
            raise ValueError(
                f"kind is 'fragment' but label is {self.label.value!r}: the torn end of an answer has no label; give "
                "the sentence another kind, such as 'prose'"
            )
        return self


class JudgeInfo(Record):
    """The judge that gave the labels, and how. Labels of different judges are never mixed in one file."""

    name: str
    model: str | None = None
    revision: str | None = None
    protocol: str | None = None
    protocol_hash: str | None = None
    votes: Annotated[int, NullIsDefault] = 1
    """Verdicts sampled per label."""
    splitter: str | None = None
    template_options: str | None = None
    """The options of the chat template of the judge's model, as JSON with sorted keys."""
    extra: str | None = None
    """Further fields of the requests to the judge's model (``--extra``), as JSON with sorted keys."""
    calibration: str | None = None
    """The hash of the calibration (``verdicts.decision.Calibration``) that made the labels and confidences."""
    min_confidence: Fraction | None = None
    """The least confidence of a label; weaker verdicts are ``unsure``."""
    version: Annotated[str, NullIsDefault] = "1"
    """Version of the judge, not of its package: another version may give other verdicts."""


def _check_spans(spans: Sequence[_LabelledSpan], text: str) -> None:
    """Check that spans are inside the text, in order, and do not overlap."""
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
    """A response with its labelled sentences. The records of a gold file have no judge."""

    sentences: list[Sentence]
    judge: JudgeInfo | None = None

    @model_validator(mode="after")
    def _spans_fit(self) -> Self:
        _check_spans(self.sentences, self.response)
        return self

    @property
    def whole_sentences(self) -> list[Sentence]:
        """The sentences that count: all but the fragment at the end of an answer that was cut off."""
        return [sentence for sentence in self.sentences if sentence.kind is not Kind.FRAGMENT]

    @property
    def lacked_reference(self) -> bool:
        """Whether no judge was asked about the answer, because its prompt had no reference."""
        return any(sentence.status is Status.NO_REFERENCE for sentence in self.sentences)

    @property
    def counts(self) -> Counts:
        return Counts.of(sentence.label for sentence in self.whole_sentences)


class PairSentence(_LabelledSpan):
    """A sentence of a pair. ``label`` is null where the sentence was not judged."""


class Pair(FileRecord):
    """Two answers to one prompt, in one of TRL's two forms: chat messages, or plain strings (``--raw``)."""

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
    """The options of the chat template with which the answers were sampled."""
    prompt_date: date | None = None
    """The date that the chat template wrote into the prompt, if it writes one."""
    weight: Annotated[float, NullIsDefault, Field(gt=0.0, allow_inf_nan=False)] = 1.0
    """Factor on the loss of this pair."""

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
        """The text of an answer, in both forms of pairs."""
        answer = self.chosen if side == "chosen" else self.rejected
        return answer if isinstance(answer, str) else answer[0].content

    def sentences(self, side: Side) -> list[PairSentence]:
        return self.chosen_sentences if side == "chosen" else self.rejected_sentences

    def reasoning(self, side: Side) -> str | None:
        return self.chosen_reasoning if side == "chosen" else self.rejected_reasoning

    def finish_reason(self, side: Side) -> FinishReason | None:
        return self.chosen_finish_reason if side == "chosen" else self.rejected_finish_reason

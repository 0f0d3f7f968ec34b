"""The interface of text-generation backends, for ``sample`` and for LLM judges."""

import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal, Protocol

from maskdpo.redact import without_secrets
from maskdpo.schemas import FinishReason, Message, Status

TEMPLATE_TOKENS = 64
"""What a chat template may add to a conversation, such as a default system prompt or the date."""
MESSAGE_TOKENS = 16
"""What a chat template adds around each message."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to decode. ``temperature`` 0 is greedy."""

    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    n: int = 1
    seed: int = 0
    stop: tuple[str, ...] = ()
    """Texts that end an answer. They are not part of the answer, and are not searched for in reasoning."""


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt for the model.

    ``prompt`` is a conversation to answer (the chat template is applied), or a string to continue as it is.
    ``choices``: the reply is constrained to one of these texts per slot (by structured output on servers, by likelihood
    in transformers).
    ``reply``: the form of the reply to a prompt with choices. ``word``: one choice for the only slot, which is also the
    text of the completion. ``object``: a JSON object from each slot to its choice.
    ``document``: the text with which the prompt begins and which other prompts share: of several servers one gets all
    of them. None: the prompt itself.
    """

    key: Hashable
    prompt: str | list[Message]
    choices: tuple[str, ...] | None = None
    slots: tuple[str, ...] = ("verdict",)
    sampling: Sampling = Sampling()
    reply: Literal["word", "object"] = "word"
    document: str | None = None

    def __post_init__(self) -> None:
        if self.reply == "word" and len(self.slots) != 1:
            raise ValueError(f"a word is the reply for one slot, not for {len(self.slots)}")


@dataclass(frozen=True, slots=True)
class Pick:
    """The choice that the model made for one slot."""

    choice: str
    probabilities: Mapping[str, float] = field(default_factory=dict)
    """The probability of the offered choices, given the slots before. A choice is missing where it is not known."""

    @property
    def probability(self) -> float | None:
        """That of the choice that was made."""
        return self.probabilities.get(self.choice)


@dataclass(frozen=True, slots=True)
class Completion:
    """One text of the model; with ``choices`` also one pick per slot."""

    text: str
    finish_reason: FinishReason
    picks: tuple[Pick, ...] = ()
    reasoning: str | None = None
    """What a reasoning model wrote before ``text``, without its markers."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no text: a status, never a label."""

    status: Status
    message: str


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to the request with this key: ``Sampling.n`` completions, without those in ``failed``; or a failure."""

    key: Hashable
    completions: tuple[Completion, ...] = ()
    failure: Failure | None = None
    """Why there is no completion at all."""
    failed: Mapping[int, Failure] = field(default_factory=dict)
    """Where some completions are missing: why, by their index among the ``Sampling.n``."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """The parameters that the model did not get as ``Request.sampling`` has them: what it got, or None where the server
    chose."""


@dataclass(frozen=True, slots=True)
class Context:
    """The context length of a model."""

    limit: int | None
    """Most tokens of prompt and reply together; None: unknown."""
    count: Callable[[str], int]
    """Counts the tokens of a text by the tokenizer of the model, without special tokens."""


def request_seed(seed: int, key: Hashable) -> int:
    """The seed of one request: it differs per key, and does not depend on order or batching."""
    return (seed + zlib.crc32(repr(key).encode())) & 0x7FFFFFFF


def gather(request: Request, outcomes: Sequence[Completion | Failure]) -> Reply:
    """The reply to a request for several completions: the usable ones, or why there is none."""
    good = tuple(each for each in outcomes if isinstance(each, Completion))
    failed = {i: each for i, each in enumerate(outcomes) if isinstance(each, Failure)}
    if good or not failed:
        return Reply(request.key, good, failed=failed)
    return Reply(request.key, failure=failed[0])


class Backend(Protocol):
    """A model that generates text.

    ``generate`` consumes the requests lazily, a bounded window ahead, from the calling thread, and yields one reply per
    request in the order of completion. A failed request is a ``Failure``; an error that concerns every request (no
    server, unknown model) raises ``UserError``.
    """

    model: str
    """The model's name as the user gave it."""
    today: date | None
    """The date for chat templates that write one into prompts. None: today. ``prompt_date.fix_date`` sets it before the
    first request."""

    @property
    def template_options(self) -> Mapping[str, Any]:
        """Options of the chat template beside the messages."""
        ...

    def writes_date(self) -> bool:
        """Whether the chat template writes the date into prompts; False where that cannot be known (a server)."""
        ...

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]: ...

    def context(self) -> Context: ...


def told(backend: Backend) -> dict[str, Any]:
    """What decides the answers of a backend beside its model and the sampling, as records have it.

    ``extra``, the further fields of requests, is an attribute of backends that send requests.
    """
    options = {"template_options": backend.template_options, "extra": getattr(backend, "extra", {})}
    return {name: without_secrets(dict(given)) for name, given in options.items() if given}

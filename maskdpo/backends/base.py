"""What every text-generation backend does, for ``sample`` and for LLM judges alike."""

import zlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal, Protocol

from maskdpo.schemas import FinishReason, Message, Status


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to decode. ``temperature`` 0 is greedy."""

    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    n: int = 1
    seed: int = 0
    stop: tuple[str, ...] = ()
    """Texts that end an answer; they are not part of it, and reasoning before it is none of it."""


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt for the model.

    ``prompt`` is a conversation to answer (the chat template is applied), or a string to continue as it is.
    ``choices``: the reply is constrained to one of these texts for every slot (structured output where the server has
    it, scored by likelihood in transformers).
    ``reply``: what the prompt asks for beside choices. ``word`` is one choice for the one slot, and the completion's
    text is the choice itself; ``object`` is a JSON object from each slot, however many, to its choice.
    """

    key: Hashable
    prompt: str | list[Message]
    choices: tuple[str, ...] | None = None
    slots: tuple[str, ...] = ("verdict",)
    sampling: Sampling = Sampling()
    reply: Literal["word", "object"] = "word"

    def __post_init__(self) -> None:
        if self.reply == "word" and len(self.slots) != 1:
            raise ValueError(f"a word is the reply for one slot, not for {len(self.slots)}")


@dataclass(frozen=True, slots=True)
class Pick:
    """The choice that the model made for one slot."""

    choice: str
    probability: float | None = None
    """Of this choice among the offered ones (given the slots before it), where the backend gives it."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One text that the model gave; with ``choices`` also what it says, a pick for every slot."""

    text: str
    finish_reason: FinishReason
    picks: tuple[Pick, ...] = ()
    reasoning: str | None = None
    """What a reasoning model wrote before ``text``, without the markers around it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no text: a status that is never a label."""

    status: Status
    message: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for the request with this key: its completions, or a failure.

    There are ``Sampling.n`` completions, less those in ``failed``.
    """

    key: Hashable
    completions: tuple[Completion, ...] = ()
    failure: Failure | None = None
    """Why there is no completion at all."""
    failed: Mapping[int, Failure] = field(default_factory=dict)
    """Where there are some: why the others are missing, each by its place among the ``Sampling.n``."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Context:
    """How much a model reads."""

    limit: int | None
    """Prompt and reply together, in tokens; None: unknown."""
    count: Callable[[str], int]
    """The tokens of a text by the model's own tokenizer, without special ones."""


def request_seed(seed: int, key: Hashable) -> int:
    """The seed of one request: no two share their noise, and neither order nor batching changes it."""
    return (seed + zlib.crc32(repr(key).encode())) & 0x7FFFFFFF


def gather(request: Request, outcomes: Sequence[Completion | Failure]) -> Reply:
    """The reply to a request of several completions: those that are usable, or why there is none."""
    good = tuple(each for each in outcomes if isinstance(each, Completion))
    failed = {i: each for i, each in enumerate(outcomes) if isinstance(each, Failure)}
    if good or not failed:
        return Reply(request.key, good, failed=failed)
    return Reply(request.key, failure=failed[0])


class Backend(Protocol):
    """A model that answers.

    ``generate`` consumes the requests lazily, a bounded window ahead, from the calling thread, and yields one reply a
    request in the order of completion. A request that fails comes back as a ``Failure``; what makes every request
    fail (no server, unknown model) raises ``UserError``.
    """

    model: str
    """The model's name as the user gave it."""
    template_options: Mapping[str, Any]
    """What the chat template is told beside the messages."""
    today: date | None
    """The date that a chat template writes into prompts, where it writes one. None: that of the day. It is set before
    the first request (``prompt_date.fix_date``)."""

    def writes_date(self) -> bool:
        """Whether the chat template writes the date into prompts; False where nobody can know it (a server)."""
        ...

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]: ...

    def context(self) -> Context: ...

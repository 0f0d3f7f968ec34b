"""What every text-generation backend does, for ``sample`` and for LLM judges alike."""

import zlib
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from maskdpo.schemas import FinishReason, Message, Status


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt for the model.

    ``prompt`` is a conversation to answer (the chat template is applied), or a string to continue as it is.
    ``choices``: the reply must be exactly one of these texts (constrained decoding, or scored by likelihood).
    """

    key: Hashable
    prompt: str | list[Message]
    choices: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """One text that the model gave."""

    text: str
    finish_reason: FinishReason
    probability: float | None = None
    """With ``choices``: the probability of this choice among them, where the backend gives it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no text: a status that is never a label."""

    status: Status
    message: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for the request with this key: ``Sampling.n`` completions, or a failure."""

    key: Hashable
    completions: tuple[Completion, ...] = ()
    failure: Failure | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to decode. ``temperature`` 0 is greedy."""

    max_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    n: int = 1
    seed: int = 0
    stop: tuple[str, ...] = ()
    """Texts that end an answer; they are not part of it."""


def request_seed(seed: int, key: Hashable) -> int:
    """The seed of one request: no two share their noise, and neither order nor batching changes it."""
    return (seed + zlib.crc32(repr(key).encode())) & 0x7FFFFFFF


class Backend(Protocol):
    """A model that answers.

    ``generate`` consumes the requests lazily, a bounded window ahead, from the calling thread, and yields one reply a
    request in the order of completion. A request that fails comes back as a ``Failure``; what makes every request
    fail (no server, unknown model) raises ``UserError``.
    """

    model: str
    """The model's name as the user gave it."""

    def generate(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Reply]: ...

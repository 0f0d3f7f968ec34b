"""The servers of one model: what is known of each, and which of them gets a request."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from maskdpo.backends.base import Request
from maskdpo.backends.cut_prompts import CutPrompts
from maskdpo.backends.openai_access import Address
from maskdpo.backends.price import NONE, Price, Tokens
from maskdpo.rendezvous import digest, weight
from maskdpo.schemas import Status

FIRST_REST_S = 1.0
"""Seconds for which a server that failed gets no requests, if there are others; they double with every failure."""
LONGEST_REST_S = 60.0


class RateLimit:
    """Spreads units, requests or tokens, evenly over a minute."""

    def __init__(self, per_minute: float | None) -> None:
        self._seconds = 60.0 / per_minute if per_minute else 0.0
        self._free_at = 0.0

    def reserve(self, units: float) -> float:
        """Reserve the next free time. Returns the seconds until then."""
        now = time.monotonic()
        start = max(now, self._free_at)
        self._free_at = start + units * self._seconds
        return start - now

    def correct(self, units: float) -> None:
        self._free_at += units * self._seconds


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """An attempt that got no answer."""

    message: str
    status: Status = Status.API_ERROR
    retry: bool = False
    wait_s: float | None = None
    """Seconds that the server asked to wait."""
    limited: bool = False
    """The server is well, and has had too many requests."""
    unreachable: bool = False
    fatal: bool = False
    """Every other request to this server would fail too."""
    lost: bool = False
    """The server may have answered, and may bill the answer."""
    tokens: Tokens = NONE
    """What the server reports to have spent all the same."""
    without: frozenset[str] = frozenset()
    """The fields of the request that the server refuses, and that the next attempt goes without."""


@dataclass(eq=False)
class Server:
    """What is known about a server, and its rate limits; kept between ``generate`` calls."""

    address: Address
    requests: RateLimit
    tokens: RateLimit
    price: Price | None = None
    resume_at: float = 0.0
    """Time from which on a server that asked for a wait takes requests again."""
    unsupported: set[str] = field(default_factory=set)
    """Fields of requests that the server rejects."""
    cut: CutPrompts = field(default_factory=CutPrompts)
    cut_is_said: bool = False
    last_answer: float | None = None
    succeeded: bool = False
    failures: int = 0
    busy: int = 0
    """Requests that the server has, or that wait for it."""
    trouble: str = ""
    """What the last attempt failed with, if no later one succeeded."""
    unreachable: bool = False
    """Whether this was no connection at all."""
    troubles: int = 0
    """How often in a row the server was left alone."""
    warned: bool = False
    rest_until: float = 0.0
    out: str | None = None
    """Why no request can succeed here, as a message with the URL: the server gets none any more."""

    @property
    def url(self) -> str:
        return self.address.url

    def is_ready(self, others: int) -> bool:
        """Whether the server takes a request, beside ``others`` that it has: one at a time if the last one failed."""
        rested = time.monotonic() >= max(self.rest_until, self.resume_at)
        return self.out is None and rested and not (self.troubles and others)

    def note_trouble(self, message: str, wait_s: float | None, unreachable: bool) -> None:
        """Leave the server alone for a while, which grows; of requests that fail together only the first counts."""
        now = time.monotonic()
        self.trouble, self.unreachable = message, unreachable
        if now >= self.rest_until:
            self.troubles += 1
        rest = min(FIRST_REST_S * 2 ** (self.troubles - 1), LONGEST_REST_S)
        self.rest_until = max(self.rest_until, now + max(rest, wait_s or 0.0))

    def note_answer(self) -> None:
        self.trouble, self.unreachable, self.troubles, self.rest_until = "", False, 0, 0.0


def choose(servers: Sequence[Server], request: Request, spare: int) -> Server:
    """The server for a request.

    Requests about one document go to one server, which has read the document already (rendezvous hashing), unless this
    server has over ``spare`` requests more than the least busy one.
    """
    if len(servers) == 1:
        return servers[0]
    ready = [server for server in servers if server.is_ready(server.busy)]
    if not ready:
        return min(servers, key=lambda server: max(server.rest_until, server.resume_at))
    most = min(server.busy for server in ready) + spare
    document = digest(document_of(request))
    return max((server for server in ready if server.busy <= most), key=lambda server: weight(document, server.url))


def document_of(request: Request) -> str:
    """What the prompts of several requests begin with: its document, or else the prompt itself."""
    prompt = request.prompt if isinstance(request.prompt, str) else "\0".join(each.content for each in request.prompt)
    return request.document if request.document is not None else prompt

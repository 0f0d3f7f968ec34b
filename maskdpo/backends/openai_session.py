"""Calls of one OpenAI-compatible server: its rate limits, and what its answers and errors mean for the next call."""

import asyncio
import time
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Protocol

from maskdpo.backends.base import Reply, Request
from maskdpo.backends.openai_access import Access
from maskdpo.backends.openai_answer import ErrorInAnswer, UnreadableAnswer
from maskdpo.backends.openai_context import most_prompt_tokens, pace_tokens
from maskdpo.backends.openai_errors import (
    SYSTEM,
    ServerError,
    is_refusal,
    is_too_long,
    names_field,
    refused_field,
    retry_after,
    server_error,
)
from maskdpo.backends.openai_wire import (
    FewerCompletions,
    read_answer,
    request_body,
    sent_otherwise,
    single_requests,
)
from maskdpo.backends.price import NONE, Purse, Tokens
from maskdpo.backends.servers import FailedAttempt, Server
from maskdpo.backends.settings import BackendSettings
from maskdpo.console import warn
from maskdpo.redact import without_secrets
from maskdpo.schemas import Status

LONGEST_RETRY_AFTER_S = 120.0
"""A call is not repeated if the server asks for a longer wait."""
BROKEN_OFF = frozenset({408, 502, 504, 524})
"""Statuses by which a proxy gives up on a server, which may go on with the answer and bill it."""
REFUSED = {
    "n": "gives one completion per call: asking for them one by one",
    "max_tokens": "takes 'max_tokens' as 'max_completion_tokens': going on with this name",
    SYSTEM: "takes no system message: going on with it put before the first user message",
}
"""What is said of some of the fields that a server refuses."""


class Options(Protocol):
    """What a session reads of the backend."""

    model: str
    settings: BackendSettings
    purse: Purse


class Session:
    """The calls of one server during one ``generate`` call. Runs on the event loop."""

    def __init__(self, options: Options, server: Server, openai: Any, client: Any, access: Access) -> None:
        self.options, self.server = options, server
        self.openai, self.client, self.access = openai, client, access
        self._slots = asyncio.Semaphore(options.settings.concurrency)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A place among the requests that the server has at once."""
        self.server.busy += 1
        try:
            async with self._slots:
                yield
        finally:
            self.server.busy -= 1

    def one_by_one(self, request: Request) -> bool:
        """Whether every completion needs a call of its own."""
        return request.sampling.n > 1 and "n" in self.server.unsupported

    async def attempt(self, request: Request) -> Reply | FailedAttempt:
        """One attempt within the rate limits."""
        estimate = pace_tokens(request)
        await asyncio.sleep(max(self.server.requests.reserve(1), self.server.tokens.reserve(estimate)))
        while (
            rest := self.server.resume_at - time.monotonic()
        ) > 0:  # one request was asked to wait: all requests wait
            await asyncio.sleep(rest)
        outcome = await self._paid(request, frozenset())
        while isinstance(outcome, FailedAttempt) and outcome.without:
            outcome = await self._paid(request, outcome.without)
        used = outcome.prompt_tokens + outcome.completion_tokens if isinstance(outcome, Reply) else 0
        self.server.tokens.correct(used - estimate if used else 0)
        return outcome

    async def _paid(self, request: Request, without: frozenset[str]) -> Reply | FailedAttempt:
        """One call, for which its worst case is set aside.

        Args:
            without: the fields that the server has refused in the calls before. They are left out for good if the
                server answers without them.
        """
        purse, price = self.options.purse, self.server.price
        completions = 1 if "n" in without else request.sampling.n
        length = completions * self._longest_reply(request)
        worst = price(most_prompt_tokens(request), 0, length) if price else 0.0
        await purse.reserve(worst)
        tokens, lost = NONE, None
        try:
            if self.one_by_one(request):  # this may have become known during the wait
                outcome: Reply | FailedAttempt = FailedAttempt("gives one completion per call")
            else:
                outcome = await self._attempt(request, without)
            tokens, lost = _taken(outcome)
        finally:
            if lost is None:  # the call was cancelled
                lost = self.server.out is None and not self.server.unreachable
            purse.settle(worst, tokens, price, lost=lost)
        return outcome

    def _longest_reply(self, request: Request) -> int:
        extra = (self.options.settings.extra.get(name) for name in ("max_tokens", "max_completion_tokens"))
        return max([request.sampling.max_tokens, *(each for each in extra if isinstance(each, int))])

    async def _attempt(self, request: Request, without: frozenset[str]) -> Reply | FailedAttempt:
        settings = self.options.settings
        refused = self.server.unsupported | without
        body = request_body(request, self.options.model, refused, settings.template_options, settings.extra)
        try:
            # the time-out of the client counts from byte to byte
            async with asyncio.timeout(settings.timeout):
                text = await self._post(body)
            self.server.last_answer = time.monotonic()
            reply = read_answer(single_requests(request)[0] if "n" in without else request, text)
        except FewerCompletions as error:
            self._leave_out({"n"})
            return FailedAttempt(str(error), lost=True, tokens=error.tokens)
        except ErrorInAnswer as error:
            return replace(self._take_error(error.error, {}, body, without), lost=True, tokens=error.tokens)
        except UnreadableAnswer as error:
            return FailedAttempt(self._clean(str(error)), retry=True, lost=True, tokens=error.tokens)
        except self.openai.APIStatusError as error:
            self.server.last_answer = time.monotonic()
            said = server_error(error.status_code, error.body or error.response.text)
            failed = self._take_error(said, error.response.headers, body, without)
            return replace(failed, lost=error.status_code in BROKEN_OFF)
        except (self.openai.APITimeoutError, TimeoutError) as error:
            return self._not_reached(error, f"no answer within {settings.timeout:g} s")
        except self.openai.APIConnectionError as error:
            return self._not_reached(error, f"the connection failed: {error.__cause__ or error}")
        self._leave_out(without)
        if "n" in without:
            return FailedAttempt("gives one completion per call", lost=True, tokens=_taken(reply)[0])
        self.server.cut.note(request, reply)
        return replace(reply, sampling=sent_otherwise(request, body))

    async def _post(self, body: dict[str, Any]) -> str:
        """The body of the answer to a request. The client knows only the fields of OpenAI by name."""
        named = {name: value for name, value in body.items() if name in ("model", "messages", "prompt")}
        rest = {name: value for name, value in body.items() if name not in named}
        endpoint = self.client.completions if "prompt" in body else self.client.chat.completions
        omitted = self.access.omitted_headers(self.openai)
        answer = await endpoint.with_raw_response.create(**named, extra_body=rest, extra_headers=omitted)
        return str(answer.text)

    def _take_error(
        self, error: ServerError, headers: Any, body: dict[str, Any], without: frozenset[str]
    ) -> FailedAttempt:
        if not is_refusal(error):
            field = refused_field(error, body, self.options.settings.extra)
            if field == "n" and names_field(error, body, field):
                self._leave_out({field})
                return FailedAttempt(error.text)
            if field is not None and field not in without:
                return FailedAttempt(error.text, without=without | {field})
        return self._refused_by_server(error, headers, body)

    async def close(self) -> None:
        await self.client.close()
        if not self.server.cut_is_said and (said := self.server.cut.warning()) is not None:
            self.server.cut_is_said = True
            warn(f"{self.server.url} {said}")

    def _leave_out(self, refused: Set[str]) -> None:
        for field in sorted(refused - self.server.unsupported):
            self.server.unsupported.add(field)
            warn(f"{self.server.url} {REFUSED.get(field, f'does not take {field!r}: going on without it')}")

    def _not_reached(self, error: BaseException, message: str) -> FailedAttempt:
        # by name: the client comes with httpx or its successor, depending on its version
        unreachable = type(error.__cause__).__name__ in {"ConnectError", "ConnectTimeout"}
        message = self._clean(message)
        if unreachable and self.server.last_answer is None:
            message = f"cannot be reached: {message}. Start the server, or correct `api_base`"
            return FailedAttempt(message, unreachable=True, fatal=True)
        return FailedAttempt(message, retry=True, unreachable=unreachable, lost=not unreachable)

    def _refused_by_server(self, error: ServerError, headers: Any, body: dict[str, Any]) -> FailedAttempt:
        """An error of the server: fatal for all requests, final for this request, or to be retried."""
        status = error.status
        message = self._clean(f"Error code: {status} - {error.text}")
        if 300 <= status < 400:
            there = without_secrets(headers.get("location", "nowhere"))
            message = f"sends requests on to {there} ({status}), where the key does not go. Correct `api_base`"
            return FailedAttempt(message, fatal=True)
        if is_refusal(error):
            return FailedAttempt(message, Status.REFUSED)
        if (fatal := self._fatal_error(error, message, body)) is not None:
            return FailedAttempt(fatal, fatal=True)
        if is_too_long(error):
            return FailedAttempt(message, Status.TRUNCATED)
        wait_s = retry_after(headers)
        if wait_s is not None and wait_s <= LONGEST_RETRY_AFTER_S and status == 429:
            self.server.resume_at = max(self.server.resume_at, time.monotonic() + wait_s)
        retry = (status in (408, 409, 429) or status >= 500) and (wait_s or 0.0) <= LONGEST_RETRY_AFTER_S
        return FailedAttempt(message, retry=retry, wait_s=wait_s, limited=status == 429)

    def _fatal_error(self, error: ServerError, message: str, body: dict[str, Any]) -> str | None:
        """What is wrong and what to do, where no request can succeed; else None.

        A 403 or 404 concerns this input only if the server has answered others.
        """
        status = error.status
        if status == 401:  # without the message of the server, which may quote the key
            if self.access.headers:
                return "refuses the key (401). Correct OPENAI_API_KEY or `header`"
            if self.access.key is None:
                return "needs a key (401). Set the environment variable OPENAI_API_KEY"
            return "refuses the key (401). Set OPENAI_API_KEY to a key of this server"
        if status == 402 or "insufficient_quota" in error.code:
            return f"does not serve this account: {message}. Check the key's permissions and its quota"
        if self.server.succeeded:
            return None
        if self.options.settings.template_options and names_field(error, body, "chat_template_kwargs"):
            return f"takes no options for the chat template: {message}. Leave `template_options` out"
        if name := next((name for name in self.options.settings.extra if names_field(error, body, name)), ""):
            return f"refuses {name!r} as `extra` has it: {message}"
        if status == 403:
            return f"does not serve this account: {message}. Check the key's permissions and its quota"
        if status == 404:
            return (
                f"does not know the model {self.options.model!r}, or the path: {message}. Check `model` "
                f"(GET {self.server.url}/models lists the names) and `api_base` (most end in /v1)"
            )
        return None

    def _clean(self, message: str) -> str:
        """A message as one short line without the key."""
        return " ".join(self.access.hide(message).split())[:300].rstrip(".")


def _taken(outcome: Reply | FailedAttempt) -> tuple[Tokens, bool]:
    """The tokens of a call, and whether it may be billed where the server reports none."""
    if isinstance(outcome, FailedAttempt):
        return outcome.tokens, outcome.lost
    return (outcome.prompt_tokens, outcome.cached_tokens, outcome.completion_tokens), True

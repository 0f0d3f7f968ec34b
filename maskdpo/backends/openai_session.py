"""Calls of an OpenAI-compatible server: pace, retries, and what its errors mean."""

import asyncio
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

from maskdpo.backends.base import Failure, Reply, Request
from maskdpo.backends.openai_wire import (
    FewerCompletions,
    UnreadableAnswer,
    is_refusal,
    is_too_long,
    joined,
    read_answer,
    rejected_field,
    request_body,
    single_requests,
)
from maskdpo.backends.settings import BackendSettings
from maskdpo.console import warn
from maskdpo.errors import UserError
from maskdpo.schemas import Status

FIRST_DELAY_S = 0.5
"""The wait before the first retry; it doubles up to ``LONGEST_DELAY_S``, less up to a quarter of jitter."""
LONGEST_DELAY_S = 30.0
LONGEST_RETRY_AFTER_S = 120.0
"""A server that asks for a longer wait is not asked again."""
PATIENCE = 8
"""So many API errors before the first success mean that every request will fail."""


@dataclass(frozen=True, slots=True)
class _Trouble:
    """An attempt without an answer."""

    message: str
    status: Status = Status.API_ERROR
    retry: bool = False
    wait_s: float | None = None
    """What the server asked for."""
    unreachable: bool = False
    hopeless: bool = False
    """No request will do better."""


class _Pace:
    """Spreads units evenly over the minute."""

    def __init__(self, per_minute: float | None) -> None:
        self._seconds = 60.0 / per_minute if per_minute else 0.0
        self._free_at = 0.0

    def reserve(self, units: float) -> float:
        """Take the next place in the line; the seconds until it comes up."""
        now = time.monotonic()
        start = max(now, self._free_at)
        self._free_at = start + units * self._seconds
        return start - now

    def correct(self, units: float) -> None:
        self._free_at += units * self._seconds


class ServerState:
    """What a server has shown, and its pace: they outlive a ``generate`` call."""

    def __init__(self, *, requests_per_minute: float | None, tokens_per_minute: float | None) -> None:
        self.requests, self.tokens = _Pace(requests_per_minute), _Pace(tokens_per_minute)
        self.resume_at = 0.0
        """When a server that asked all to wait takes requests again."""
        self.unsupported: set[str] = set()
        """Fields of the request that it does not take."""
        self.last_answer: float | None = None
        self.succeeded = False
        self.failures = 0


class Options(Protocol):
    """What a session needs to know of the backend."""

    model: str
    api_base: str
    settings: BackendSettings


class Session:
    """One ``generate`` call. Runs on the event loop."""

    def __init__(self, options: Options, state: ServerState, openai: Any, client: Any, key: str | None) -> None:
        self.options, self.state = options, state
        self.openai, self.client, self.key = openai, client, key
        self.slots = asyncio.Semaphore(options.settings.concurrency)

    async def answer(self, request: Request) -> Reply:
        reply = await self._in_turn(request)
        if reply is None:
            parts = await asyncio.gather(*(self._in_turn(single) for single in single_requests(request)))
            reply = joined(request, [part for part in parts if part is not None])
        self._judge_run(reply)
        return reply

    def _one_by_one(self, request: Request) -> bool:
        """Whether the server has to be asked for every completion on its own."""
        return request.sampling.n > 1 and "n" in self.state.unsupported

    async def _in_turn(self, request: Request) -> Reply | None:
        """What comes of one call; None where the server gives one completion a call, and this asks for more."""
        async with self.slots:
            if self._one_by_one(request):  # known by now: the wait may have been long
                return None
            outcome = await self._with_retries(request)
        if isinstance(outcome, Reply):
            return outcome
        if outcome.hopeless:
            raise UserError(f"{self.options.api_base} {outcome.message}")
        if self._one_by_one(request):
            return None
        return Reply(request.key, failure=Failure(outcome.status, outcome.message))

    async def close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.client.close()

    async def _with_retries(self, request: Request) -> Reply | _Trouble:
        began = time.monotonic()
        for attempt in range(self.options.settings.max_retries + 1):
            outcome = await self._paced(request)
            if isinstance(outcome, Reply) or not outcome.retry or attempt == self.options.settings.max_retries:
                break
            backoff = min(FIRST_DELAY_S * 2**attempt, LONGEST_DELAY_S) * (1 - random.random() / 4)
            await asyncio.sleep(backoff if outcome.wait_s is None else outcome.wait_s)
        if isinstance(outcome, _Trouble) and outcome.unreachable and (self.state.last_answer or 0.0) < began:
            return _Trouble(f"is gone: {outcome.message}. Start it and run again", hopeless=True)
        return outcome

    async def _paced(self, request: Request) -> Reply | _Trouble:
        """One attempt when its turn comes."""
        estimate = _estimated_tokens(request)
        await asyncio.sleep(max(self.state.requests.reserve(1), self.state.tokens.reserve(estimate)))
        while (rest := self.state.resume_at - time.monotonic()) > 0:  # another request was told to wait: so do all
            await asyncio.sleep(rest)
        outcome = await self._attempt(request)
        used = outcome.prompt_tokens + outcome.completion_tokens if isinstance(outcome, Reply) else 0
        self.state.tokens.correct(used - estimate if used else 0)
        return outcome

    async def _attempt(self, request: Request) -> Reply | _Trouble:
        options = self.options
        body = request_body(request, options.model, self.state.unsupported, options.settings.template_options)
        raw = isinstance(request.prompt, str)
        endpoint = self.client.completions if raw else self.client.chat.completions
        try:
            async with asyncio.timeout(self.options.settings.timeout):  # the client's own counts from byte to byte
                answer = await endpoint.with_raw_response.create(**body)
            self.state.last_answer = time.monotonic()
            return read_answer(request, answer.text)
        except UnreadableAnswer as error:
            return _Trouble(self._clean(str(error)), retry=True)
        except FewerCompletions as error:
            self._go_without("n")
            return _Trouble(str(error))
        except self.openai.APIStatusError as error:
            self.state.last_answer = time.monotonic()
            if (name := rejected_field(error.status_code, error.body or error.response.text, body)) is not None:
                self._go_without(name)
                return _Trouble(str(error)) if name == "n" else await self._attempt(request)
            return self._refused_by_server(error)
        except (self.openai.APITimeoutError, TimeoutError) as error:
            return self._not_reached(error, f"no answer within {self.options.settings.timeout:g} s")
        except self.openai.APIConnectionError as error:
            return self._not_reached(error, f"the connection failed: {error.__cause__ or error}")

    def _go_without(self, field: str) -> None:
        if field not in self.state.unsupported:
            self.state.unsupported.add(field)
            warn(f"{self.options.api_base} does not take {field!r}: going on without it")

    def _not_reached(self, error: BaseException, message: str) -> _Trouble:
        # by name: the client comes with httpx or its successor, depending on its version
        unreachable = type(error.__cause__).__name__ in {"ConnectError", "ConnectTimeout"}
        message = self._clean(message)
        if unreachable and self.state.last_answer is None:
            message = f"cannot be reached: {message}. Start the server, or correct `api_base`"
            return _Trouble(message, hopeless=True)
        return _Trouble(message, retry=True, unreachable=unreachable)

    def _refused_by_server(self, error: Any) -> _Trouble:
        """An HTTP error: hopeless for all requests, hopeless for this one, or worth another try."""
        status = error.status_code
        message = self._clean(str(error) if " - " in str(error) else f"{error} - {error.response.text}")
        if is_refusal(status, error.code, message):
            return _Trouble(message, Status.REFUSED)
        if (hopeless := self._hopeless(status, error.code, message)) is not None:
            return _Trouble(hopeless, hopeless=True)
        if is_too_long(status, error.code, message):
            return _Trouble(message, Status.TRUNCATED)
        wait_s = _retry_after(error.response.headers)
        if wait_s is not None and wait_s <= LONGEST_RETRY_AFTER_S and status == 429:
            self.state.resume_at = max(self.state.resume_at, time.monotonic() + wait_s)
        retry = (status in (408, 409, 429) or status >= 500) and (wait_s or 0.0) <= LONGEST_RETRY_AFTER_S
        return _Trouble(message, retry=retry, wait_s=wait_s)

    def _hopeless(self, status: int, code: str | None, message: str) -> str | None:
        """What is wrong and what to do, where no request can succeed.

        A 403 or 404 may also be about one input; it is, where the server has answered others.
        """
        if status == 401:  # without the server's words: they may quote the key
            if self.key is None:
                return "needs a key (401). Set the environment variable OPENAI_API_KEY"
            return "refuses the key (401). Set OPENAI_API_KEY to a key of this server"
        if status in (400, 422) and self.options.settings.template_options and "chat_template_kwargs" in message:
            return f"takes no options for the chat template: {message}. Leave `template_options` out"
        if status == 402 or code == "insufficient_quota" or (status == 403 and not self.state.succeeded):
            return f"does not serve this account: {message}. Check the key's permissions and its quota"
        if status == 404 and not self.state.succeeded:
            return (
                f"does not know the model {self.options.model!r}, or the path: {message}. Check `model` "
                f"(GET {self.options.api_base}/models lists the names) and `api_base` (most end in /v1)"
            )
        return None

    def _judge_run(self, reply: Reply) -> None:
        """Give up where nothing has ever worked, rather than fail a whole dataset one record at a time."""
        api_error = reply.failure is not None and reply.failure.status is Status.API_ERROR
        self.state.succeeded = self.state.succeeded or not api_error
        self.state.failures += api_error
        if not self.state.succeeded and self.state.failures >= PATIENCE and reply.failure is not None:
            what = f"all {self.state.failures} requests so far failed"
            raise UserError(f"{self.options.api_base}: {what}: {reply.failure.message}")

    def _clean(self, message: str) -> str:
        """One line, not too long, without the key."""
        if self.key:
            message = message.replace(self.key, "***")
        return " ".join(message.split())[:300].rstrip(".")


def _estimated_tokens(request: Request) -> int:
    prompt = request.prompt
    letters = len(prompt) if isinstance(prompt, str) else sum(len(message.content) for message in prompt)
    return letters // 4 + request.sampling.n * request.sampling.max_tokens


def _retry_after(headers: Any) -> float | None:
    """Seconds to wait, from ``Retry-After`` in seconds or as a date, or ``retry-after-ms``."""
    value = headers.get("retry-after", "")
    try:
        if milliseconds := headers.get("retry-after-ms"):
            seconds = float(milliseconds) / 1000
        elif value.replace(".", "", 1).isdigit():
            seconds = float(value)
        else:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None

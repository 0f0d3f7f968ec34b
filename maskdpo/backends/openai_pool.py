"""One ``generate`` call over one server or several: a request that a server fails to answer goes to another one."""

import asyncio
import random
import time
from collections.abc import Sequence

from maskdpo.backends.base import Failure, Reply, Request
from maskdpo.backends.openai_session import Session
from maskdpo.backends.openai_wire import join_replies, single_requests
from maskdpo.backends.price import OutOfMoney
from maskdpo.backends.servers import FailedAttempt, choose
from maskdpo.backends.settings import BackendSettings
from maskdpo.console import warn
from maskdpo.errors import UserError
from maskdpo.schemas import Status

FIRST_DELAY_S = 0.5
"""Seconds before the first retry; they double up to ``LONGEST_DELAY_S``, minus a random part of up to a quarter."""
LONGEST_DELAY_S = 30.0
MAX_FIRST_FAILURES = 8
"""After this many API errors of a server without a success, every request is expected to fail there."""


class Pool:
    """The sessions of one ``generate`` call, one per server. Runs on the event loop."""

    def __init__(self, sessions: Sequence[Session], settings: BackendSettings) -> None:
        self.sessions = {session.server: session for session in sessions}
        self._spare = settings.concurrency // 2 + 1
        self._retries = settings.max_retries + len(sessions) - 1

    async def answer(self, request: Request) -> Reply:
        """The reply to a request.

        Raises:
            UserError: no server can answer, whatever the request.
        """
        reply = await self._call(request)
        if reply is None:
            parts = await asyncio.gather(*(self._single(single) for single in single_requests(request)))
            if all(isinstance(part, OutOfMoney) for part in parts):
                raise parts[0]  # type: ignore[misc]
            reply = join_replies(request, [_unpaid(request, part) for part in parts if part is not None])
        return reply

    async def _single(self, request: Request) -> Reply | OutOfMoney | None:
        """One of several completions. Those that came are kept where the others are not paid for any more."""
        try:
            return await self._call(request)
        except OutOfMoney as error:
            return error

    async def close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for session in self.sessions.values():
            await session.close()

    async def _call(self, request: Request) -> Reply | None:
        """The reply of one call; None where the server gives one completion per call and the request asks for more."""
        began, attempts = time.monotonic(), 0
        final: dict[Session, FailedAttempt] = {}
        while session := self._next(request, final):
            async with session.turn():
                if self._moves(session, final, waited=True):
                    continue
                if session.one_by_one(request):  # this may have become known during the wait
                    return None
                outcome = await session.attempt(request)
                if isinstance(outcome, Reply):
                    self._note_answer(session, outcome.failure)
                    return outcome
                if session.one_by_one(request):
                    return None
                attempts += 1
                if outcome.retry and attempts <= self._retries:
                    self._note_trouble(session, outcome)
                    if not self._moves(session, final):
                        await asyncio.sleep(_pause(attempts, outcome))
                    continue
            final[session] = outcome
            self._note_final(session, outcome)
            if outcome.retry or outcome.status is Status.REFUSED:
                break
        return self._failed(request, final, began)

    def _next(self, request: Request, final: dict[Session, FailedAttempt]) -> Session | None:
        left = [server for server, each in self.sessions.items() if server.out is None and each not in final]
        return self.sessions[choose(left, request, self._spare)] if left else None

    def _moves(self, session: Session, final: dict[Session, FailedAttempt], *, waited: bool = False) -> bool:
        """Whether a request leaves a server for another one: its own is not ready, and another one is."""
        if waited and session.server.is_ready(session.server.busy - 1):
            return False
        others = (each for each in self.sessions.values() if each is not session and each not in final)
        return session.server.out is not None or any(each.server.is_ready(each.server.busy) for each in others)

    def _note_answer(self, session: Session, failure: Failure | None) -> None:
        session.server.note_answer()
        self._count(session, failure)

    def _note_trouble(self, session: Session, outcome: FailedAttempt) -> None:
        server = session.server
        if len(self.sessions) > 1 and not outcome.limited and not server.warned:
            server.warned = True
            warn(
                f"{server.url} fails: {outcome.message}. Its requests go to the other servers, and it is tried again "
                "after a while"
            )
        server.note_trouble(outcome.message, outcome.wait_s, outcome.unreachable)

    def _note_final(self, session: Session, outcome: FailedAttempt) -> None:
        """Note that a server does not answer a request, and maybe no other one either."""
        server = session.server
        if outcome.unreachable or outcome.retry or outcome.wait_s:
            self._note_trouble(session, outcome)
        if not outcome.fatal:
            self._count(session, Failure(outcome.status, outcome.message))
        elif not outcome.unreachable:
            self._leave_out(session, f"{server.url} {outcome.message}")

    def _count(self, session: Session, failure: Failure | None) -> None:
        """Leave out a server of which no request has succeeded so far, after ``MAX_FIRST_FAILURES`` failures."""
        server = session.server
        api_error = failure is not None and failure.status is Status.API_ERROR
        server.succeeded = server.succeeded or not api_error
        server.failures += api_error
        if not server.succeeded and server.failures >= MAX_FIRST_FAILURES and failure is not None:
            what = f"all {server.failures} requests so far failed"
            self._leave_out(session, f"{server.url}: {what}: {failure.message}")

    def _leave_out(self, session: Session, message: str) -> None:
        """Give a server no more requests.

        Raises:
            UserError: it is the last one.
        """
        session.server.out = message
        if all(server.out is not None for server in self.sessions):
            raise UserError("; ".join(server.out or "" for server in self.sessions))
        warn(f"{message}. Going on without this server")

    def _failed(self, request: Request, final: dict[Session, FailedAttempt], began: float) -> Reply:
        """The failure of a request that no server has answered.

        Raises:
            UserError: the servers do not answer any other request either.
        """
        used = [server for server in self.sessions if server.out is None]
        if used and all(server.unreachable for server in used):
            if all(server.last_answer is None for server in used):
                raise UserError("; ".join(f"{server.url} {server.trouble}" for server in used))
            if max(server.last_answer or 0.0 for server in used) < began:
                gone = "; ".join(f"{server.url} is gone: {server.trouble}" for server in used)
                raise UserError(f"{gone}. Start {'it' if len(used) == 1 else 'them'} and run again")
        if not final:
            raise UserError("; ".join(server.out or "" for server in self.sessions))
        said = [each for each in final.values() if not each.fatal] or list(final.values())
        return Reply(request.key, failure=Failure(said[-1].status, said[-1].message))


def _unpaid(request: Request, part: Reply | OutOfMoney) -> Reply:
    if isinstance(part, Reply):
        return part
    return Reply(request.key, failure=Failure(Status.API_ERROR, str(part)))


def _pause(attempts: int, outcome: FailedAttempt) -> float:
    backoff = min(FIRST_DELAY_S * 2.0 ** (attempts - 1), LONGEST_DELAY_S) * (1 - random.random() / 4)
    return max(backoff, outcome.wait_s or 0.0)

"""Any OpenAI-compatible server. The calling thread submits requests and reads replies; an event loop on another thread
makes the calls."""

import asyncio
import os
import queue
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import date
from itertools import islice
from urllib.parse import urlsplit

from maskdpo.backends.base import Context, Reply, Request
from maskdpo.backends.openai_context import server_context
from maskdpo.backends.openai_session import ServerState, Session
from maskdpo.backends.settings import DEFAULTS, BackendSettings
from maskdpo.errors import UserError

DEFAULT_BASE = "https://api.openai.com/v1"
CONNECT_TIMEOUT_S = 10.0


class OpenAIBackend:
    """A model behind an OpenAI-compatible API. The key comes from ``OPENAI_API_KEY`` and is never shown.

    Args:
        model: the model's name on the server.
        settings: those of ``openai``. Without ``api_base`` the URL is ``$OPENAI_BASE_URL``, or else OpenAI itself.
    """

    def __init__(self, model: str, settings: BackendSettings = DEFAULTS) -> None:
        self.model = model
        self.settings = settings
        self.api_base = _checked_base(settings.api_base or os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE)
        self.template_options = settings.template_options
        self.extra = settings.extra
        self.today: date | None = None
        self._state = ServerState(
            requests_per_minute=settings.requests_per_minute, tokens_per_minute=settings.tokens_per_minute
        )

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Yield one reply per request in the order of completion; see ``Backend``."""
        import openai  # late: it takes a moment

        key = _key_from_environment(self.api_base)
        done: queue.SimpleQueue[Future[Reply]] = queue.SimpleQueue()
        waiting = iter(requests)
        with _background_loop() as loop:
            client = openai.AsyncOpenAI(
                api_key=key or "none",  # servers that need no key get a dummy
                base_url=self.api_base,
                max_retries=0,  # the retries of the session share the rate limit and stop at fatal errors
                timeout=openai.Timeout(self.settings.timeout, connect=min(CONNECT_TIMEOUT_S, self.settings.timeout)),
            )
            session = Session(self, self._state, openai, client, key)

            def submit(count: int) -> int:
                submitted = 0
                for request in islice(waiting, count):
                    future = asyncio.run_coroutine_threadsafe(session.answer(request), loop)
                    future.add_done_callback(done.put)
                    submitted += 1
                return submitted

            try:
                # twice the concurrency: the server stays busy while the caller handles a reply
                pending = submit(2 * self.settings.concurrency)
                while pending:
                    yield done.get().result()
                    pending += submit(1) - 1
            finally:
                asyncio.run_coroutine_threadsafe(session.close(), loop).result()

    def writes_date(self) -> bool:
        """See ``Backend``: the template of the server is not known."""
        return False

    def context(self) -> Context:
        """See ``Backend``: the limit that the user set, or that of the server."""
        key = _key_from_environment(self.api_base)
        return server_context(self.api_base, self.model, key, self.settings)


@contextmanager
def _background_loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="maskdpo-openai", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _checked_base(api_base: str) -> str:
    url = urlsplit(api_base)
    if url.username or url.password or url.query:  # not repeated: it may hold a secret
        raise UserError("`api_base` must be a plain URL; a key belongs into the variable OPENAI_API_KEY")
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UserError(f"`api_base` {api_base!r} is no URL. Name one such as http://localhost:8000/v1")
    return api_base.rstrip("/")


def _key_from_environment(api_base: str) -> str | None:
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key and api_base == DEFAULT_BASE:
        raise UserError("OPENAI_API_KEY is not set. Set it, or name another server with `api_base`")
    if not key.isascii() or any(not character.isprintable() or character.isspace() for character in key):
        raise UserError("OPENAI_API_KEY holds characters that no key has. Set it again, without spaces")
    return key or None

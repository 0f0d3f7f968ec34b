"""Any OpenAI-compatible server, or several. The calling thread submits requests and reads replies; an event loop on
another thread makes the calls."""

import asyncio
import os
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import date
from itertools import islice

from maskdpo.backends.base import Context, Reply, Request
from maskdpo.backends.openai_access import DEFAULT_BASE, Access, Address, read_access, read_address
from maskdpo.backends.openai_context import server_context
from maskdpo.backends.openai_pool import Pool
from maskdpo.backends.openai_session import Session
from maskdpo.backends.price import OutOfMoney, Purse, price_of
from maskdpo.backends.servers import RateLimit, Server
from maskdpo.backends.settings import DEFAULTS, BackendSettings
from maskdpo.errors import UserError

CONNECT_TIMEOUT_S = 10.0


class OpenAIBackend:
    """A model behind an OpenAI-compatible API. The key comes from ``OPENAI_API_KEY`` and is never shown.

    Args:
        model: the model's name on the server.
        settings: those of ``openai``. Without ``api_base`` the URLs are those in ``$OPENAI_BASE_URL``, with spaces
            between them, or else OpenAI itself.
    """

    def __init__(self, model: str, settings: BackendSettings = DEFAULTS) -> None:
        self.model = model
        self.settings = settings
        urls = settings.api_base or os.environ.get("OPENAI_BASE_URL", "").split() or (DEFAULT_BASE,)
        requests, tokens = settings.requests_per_minute, settings.tokens_per_minute
        self.servers = [
            Server(each, RateLimit(requests), RateLimit(tokens), price_of(model, each.url, settings.price))
            for each in _addresses(urls)
        ]
        if settings.max_cost is not None and (unpriced := [each.url for each in self.servers if each.price is None]):
            raise UserError(f"`max_cost` needs a price, and none of {model!r} at {unpriced[0]} is known: give `price`")
        self.purse = Purse(settings.max_cost)
        self.template_options = settings.template_options
        self.extra = settings.extra
        self.today: date | None = None

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Yield one reply per request in the order of completion; see ``Backend``."""
        import openai  # late: it takes a moment

        accesses = self._accesses()
        done: queue.SimpleQueue[Future[Reply]] = queue.SimpleQueue()
        waiting = iter(requests)
        timeout = openai.Timeout(self.settings.timeout, connect=min(CONNECT_TIMEOUT_S, self.settings.timeout))
        with _background_loop() as loop:

            def session(server: Server, access: Access) -> Session:
                return Session(self, server, openai, access.client(openai, timeout), access)

            pool = Pool([session(*each) for each in zip(self.servers, accesses, strict=True)], self.settings)

            def submit(count: int) -> int:
                submitted = 0
                for request in islice(waiting, count):
                    future = asyncio.run_coroutine_threadsafe(pool.answer(request), loop)
                    future.add_done_callback(done.put)
                    submitted += 1
                return submitted

            try:
                # twice the concurrency: the servers stay busy while the caller handles a reply
                pending = submit(2 * self.settings.concurrency * len(self.servers))
                stop: OutOfMoney | None = None
                while pending:
                    try:
                        reply = done.get().result()
                    except OutOfMoney as error:  # calls that are under way still end
                        stop = error
                    else:
                        self.purse.watch()
                        yield reply
                    pending += (0 if stop else submit(1)) - 1
                if stop is not None:
                    raise stop
            finally:
                asyncio.run_coroutine_threadsafe(pool.close(), loop).result()

    def writes_date(self) -> bool:
        """See ``Backend``: the template of the server is not known."""
        return False

    def context(self) -> Context:
        """See ``Backend``: the limit that the user set, or the lowest one of the servers that name one."""
        # the API of OpenAI tells nothing, so that a forecast needs no key
        accesses = [
            None if each.url == DEFAULT_BASE else read_access(each.address, self.settings) for each in self.servers
        ]
        contexts = [server_context(access, self.model, self.settings) for access in accesses]
        known = [context for context in contexts if context.limit is not None]
        return min(known, key=lambda context: context.limit or 0) if known else contexts[0]

    def _accesses(self) -> list[Access]:
        return [read_access(server.address, self.settings) for server in self.servers]


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


def _addresses(urls: Sequence[str]) -> list[Address]:
    addresses = [read_address(url) for url in urls]
    if twice := [address for address in addresses if addresses.count(address) > 1]:
        raise UserError(f"`api_base` names {twice[0].url} twice")
    return addresses

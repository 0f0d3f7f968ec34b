"""A backend whose model is held by several workers in Ray; the caller's process loads its tokenizer and no weights."""

from collections.abc import Hashable, Iterable, Iterator
from datetime import date
from functools import partial

from maskdpo.backends import make_backend
from maskdpo.backends.base import Backend, Context, Failure, Reply, Request
from maskdpo.backends.price import refuse_purse
from maskdpo.backends.servers import document_of
from maskdpo.backends.settings import BackendSettings
from maskdpo.schemas import Status
from maskdpo.workers import Lost, Work, Workers

Dated = tuple[date | None, Request]
"""A request, and the date for the chat template."""


class SpreadBackend:
    """So many workers as the settings say, each with the backend that they name.

    Args:
        settings: those of the backend, with ``workers``.

    Raises:
        UserError: the backend pays for its calls out of a purse, which processes cannot share.
    """

    def __init__(self, model: str, settings: BackendSettings) -> None:
        alone = settings.but(workers=None, gpus_per_worker=None)
        self._own = make_backend(model, alone.but(device=None))  # this machine may have no such device
        self._workers = Workers(
            partial(_load, model, alone),
            settings.workers or 1,
            gpus=0 if settings.device == "cpu" else settings.gpus_per_worker,
            gpus_each=settings.tensor_parallel_size,
            items="requests",
        )
        refuse_purse(self._own, f"`backend` {settings.backend}")
        self.model = model
        self.template_options = self._own.template_options
        self.extra = getattr(self._own, "extra", {})

    @property
    def today(self) -> date | None:
        """See ``Backend``."""
        return self._own.today

    @today.setter
    def today(self, day: date | None) -> None:
        self._own.today = day

    def writes_date(self) -> bool:
        """See ``Backend``."""
        return self._own.writes_date()

    def context(self) -> Context:
        """See ``Backend``: the limit as a worker knows it. Tokens are counted here."""
        count = getattr(self._own, "count", None)
        return Context(self._workers.told(), self._own.context().count if count is None else count)

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Yield one reply per request in the order of completion; see ``Backend``.

        A request that no worker has survived is a failure.
        """
        dated = ((self.today, request) for request in requests)
        for (_, request), reply in self._workers.run(dated, lambda item: document_of(item[1])):
            if isinstance(reply, Lost):
                yield Reply(request.key, failure=Failure(Status.API_ERROR, reply.message))
            else:
                yield reply


def _load(model: str, settings: BackendSettings) -> Work:
    """In a worker: the backend with its model."""
    backend = make_backend(model, settings)
    loads = hasattr(backend, "context")  # one of somebody's own may have none, as long as nobody asks for it
    return Work(partial(_replies, backend), told=backend.context().limit if loads else None)


def _replies(backend: Backend, items: Iterator[tuple[int, Dated]]) -> Iterator[tuple[int, Reply]]:
    """The replies of a backend to numbered requests, each with its number."""
    numbers: dict[Hashable, int] = {}

    def requests() -> Iterator[Request]:
        for number, (today, request) in items:
            backend.today = today
            numbers[request.key] = number
            yield request

    for reply in backend.generate(requests()):
        yield numbers.pop(reply.key), reply

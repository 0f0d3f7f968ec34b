"""What requests would take, without calling a model: ``--dry-run`` of ``sample`` and ``annotate``."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from maskdpo.backends.base import Backend, Failure, Request
from maskdpo.backends.openai_context import most_tokens
from maskdpo.backends.reasoning import readers
from maskdpo.backends.settings import BackendSettings

PART = 200
"""So many records of the input are counted."""
AROUND_MESSAGE, BEFORE_REPLY = 5, 3
"""Tokens that chat templates write, where the template of the server is not known: ChatML's."""
LETTERS_PER_TOKEN = 4.2
"""Of English prose; other letters than ASCII count as one token each."""

R = TypeVar("R")


@dataclass(frozen=True)
class Forecast:
    """What a run would take: that of the counted records, scaled to all of them."""

    records: int
    counted: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    """If every completion were as long as it may be."""
    counted_by: str
    cost: float | None = None
    """Dollars for all these tokens; None where no price is known."""
    prompt_cost: float | None = None
    """Dollars for the prompts alone."""
    seconds: float | None = None
    """At the given rates; None where none is given."""


def drawn(records: Sequence[R]) -> list[R]:
    """The records that are counted, in their order: drawn, as inputs often have periods."""
    places = random.Random(0).sample(range(len(records)), min(PART, len(records)))
    return [records[i] for i in sorted(places)]


def forecast(
    requests: Iterable[Request], backend: Backend, settings: BackendSettings, *, records: int, counted: int
) -> Forecast:
    """Count the requests of ``counted`` records out of ``records``."""
    count, counted_by = _counter(backend, settings)
    prices = [server.price for server in getattr(backend, "servers", ())] or [None]
    calls, prompts, completions, cost, prompt_cost = 0, 0, 0, 0.0, 0.0
    for request in requests:
        tokens, most = count(request), request.sampling.n * request.sampling.max_tokens
        calls, prompts, completions = calls + 1, prompts + tokens, completions + most
        cost += max(price(tokens, 0, most) if price else 0.0 for price in prices)
        prompt_cost += max(price(tokens, 0, 0) if price else 0.0 for price in prices)
    scale = records / max(1, counted)
    known = all(prices)
    calls, prompts, completions = (round(scale * number) for number in (calls, prompts, completions))
    return Forecast(
        records=records,
        counted=counted,
        calls=calls,
        prompt_tokens=prompts,
        completion_tokens=completions,
        counted_by=counted_by,
        cost=scale * cost if known else None,
        prompt_cost=scale * prompt_cost if known else None,
        seconds=_seconds(settings, len(prices), calls, prompts + completions),
    )


def _seconds(settings: BackendSettings, servers: int, calls: int, tokens: int) -> float | None:
    rates = ((calls, settings.requests_per_minute), (tokens, settings.tokens_per_minute))
    return max((60 * units / rate / servers for units, rate in rates if rate), default=None)


def _counter(backend: Backend, settings: BackendSettings) -> tuple[Callable[[Request], int], str]:
    """Counts the tokens of a prompt, and what it counts by."""
    remote = settings.backend == "openai"
    tokenizer = settings.tokenizer if remote else backend.model
    if tokenizer is not None and (remote or settings.backend in ("transformers", "vllm")):
        reader = readers(tokenizer, settings.template_options)(backend.today)

        def by_template(request: Request) -> int:
            ids = reader.encode(replace(request, choices=None) if remote else request)
            return 0 if isinstance(ids, Failure) else len(ids)

        return by_template, f"the tokenizer of {tokenizer}"

    count = backend.context().count
    if count is most_tokens:
        count = _forecast_tokens

    def by_text(request: Request) -> int:
        if isinstance(request.prompt, str):
            return count(request.prompt)
        return BEFORE_REPLY + sum(AROUND_MESSAGE + count(message.content) for message in request.prompt)

    return by_text, "an estimate (`tokenizer` counts)" if count is _forecast_tokens else f"{backend.model} itself"


def _forecast_tokens(text: str) -> int:
    """As many as prose has on average, neither from above nor from below."""
    others = sum(not character.isascii() for character in text)
    return round((len(text) - others) / LETTERS_PER_TOKEN) + others

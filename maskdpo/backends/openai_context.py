"""The context length of a model on an OpenAI-compatible server, and how its tokens are counted.

The API of OpenAI reports neither. vLLM and similar servers report ``max_model_len`` in ``/models`` and count tokens at
``/tokenize``.
"""

import http.client
import json
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

from maskdpo.backends.base import MESSAGE_TOKENS, TEMPLATE_TOKENS, Context, Request
from maskdpo.backends.openai_access import Access
from maskdpo.backends.settings import BackendSettings
from maskdpo.models import load_tokenizer

BYTES_PER_TOKEN = 2.5
"""A conservative estimate for English and Chinese, where tokens cannot be counted."""
TIMEOUT_S = 30.0


def server_context(access: Access | None, model: str, settings: BackendSettings) -> Context:
    """The limit and the counter of the server, or those that the user set. The limit is None where it is unknown.

    Args:
        access: None where the server is not asked.
    """
    ask: Callable[..., Any] = _Server(access) if access is not None else lambda *_, **__: None
    limit = settings.max_model_len or _limit(ask("/models"), model)
    if settings.tokenizer is not None:
        loaded = load_tokenizer(settings.tokenizer)
        return Context(limit, lambda text: len(loaded(text, add_special_tokens=False)["input_ids"]))
    return Context(limit, most_tokens if limit is None else _Counter(ask, model))


def most_tokens(text: str) -> int:
    """From above, for what must not be passed: the context of the model, and the purse."""
    return int(len(text.encode(errors="replace")) / BYTES_PER_TOKEN) + 1


def pace_tokens(request: Request) -> int:
    """Of prompt and completions together: a guess, for rates of tokens, which the counts of the server correct."""
    return sum(map(len, _texts(request))) // 4 + request.sampling.n * request.sampling.max_tokens


def most_prompt_tokens(request: Request) -> int:
    """The worst case of a call, for the purse."""
    return TEMPLATE_TOKENS + sum(MESSAGE_TOKENS + most_tokens(text) for text in _texts(request))


def _texts(request: Request) -> list[str]:
    return [request.prompt] if isinstance(request.prompt, str) else [message.content for message in request.prompt]


def _limit(models: Any, model: str) -> int | None:
    listed = models.get("data") if isinstance(models, dict) else None
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    limit = next((entry.get("max_model_len") for entry in entries if entry.get("id") == model), None)
    return limit if isinstance(limit, int) and limit > 0 else None


class _Counter:
    """The count of the server; after its first failure the estimate, because each failure may cost a time-out."""

    def __init__(self, ask: Callable[..., Any], model: str) -> None:
        self._ask, self._model = ask, model
        self._counts = True

    def __call__(self, text: str) -> int:
        if self._counts:
            body = {"model": self._model, "prompt": text, "add_special_tokens": False}
            answer = self._ask("/tokenize", body, root=True)
            count = answer.get("count") if isinstance(answer, dict) else None
            if isinstance(count, int):
                return count
            self._counts = False
        return most_tokens(text)


class _SameServer(urllib.request.HTTPRedirectHandler):
    """Follows no redirect to another server, which would get the key."""

    def redirect_request(self, req: urllib.request.Request, *arguments: Any) -> urllib.request.Request | None:
        there = urlsplit(arguments[-1])  # resolved against the first address
        here = urlsplit(req.full_url)
        if (there.scheme, there.netloc) != (here.scheme, here.netloc):
            return None  # urllib raises HTTPError then
        return super().redirect_request(req, *arguments)


class _Server:
    """JSON requests whose failures are None: their results are optional, and the run itself reports errors."""

    def __init__(self, access: Access) -> None:
        self._base = access.address.url
        self._query = f"?{urlencode(access.address.query)}" if access.address.query else ""
        self._opener = urllib.request.build_opener(_SameServer)
        self._headers = {"content-type": "application/json"} | access.all_headers()

    def __call__(self, path: str, body: Any = None, *, root: bool = False) -> Any:
        base = self._base.removesuffix("/v1") if root else self._base
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(base + path + self._query, data, self._headers)
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                return json.loads(answer.read())
        # URLError and time-outs are OSErrors; a body cut short is none; JSON may be nested too deep to read
        except (OSError, ValueError, http.client.HTTPException, RecursionError):
            return None

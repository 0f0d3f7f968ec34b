"""How much a model behind an OpenAI-compatible server reads, and in whose tokens.

OpenAI's own API tells neither. vLLM and its kin report ``max_model_len`` in ``/models`` and count at ``/tokenize``.
"""

import json
import urllib.request
from collections.abc import Callable
from typing import Any

from maskdpo.backends.base import Context
from maskdpo.models import load_tokenizer

BYTES_PER_TOKEN = 2.5
"""An estimate on the safe side for English and Chinese, where nobody counts."""
TIMEOUT_S = 30.0


def server_context(
    api_base: str, model: str, key: str | None, *, tokenizer: str | None, max_model_len: int | None
) -> Context:
    """The server's limit and counter, or the ones that the user named; a limit that nobody knows is None."""
    ask = _Server(api_base, key)
    limit = max_model_len or _limit(ask("/models"), model)
    if tokenizer is not None:
        loaded = load_tokenizer(tokenizer)
        return Context(limit, lambda text: len(loaded(text, add_special_tokens=False)["input_ids"]))
    if limit is None or _count(ask, model, "one two three") is None:
        return Context(limit, estimated_tokens)
    return Context(limit, lambda text: _count(ask, model, text) or estimated_tokens(text))


def estimated_tokens(text: str) -> int:
    return int(len(text.encode(errors="replace")) / BYTES_PER_TOKEN) + 1


def _limit(models: Any, model: str) -> int | None:
    listed = models.get("data") if isinstance(models, dict) else None
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    limit = next((entry.get("max_model_len") for entry in entries if entry.get("id") == model), None)
    return limit if isinstance(limit, int) and limit > 0 else None


def _count(ask: Callable[..., Any], model: str, text: str) -> int | None:
    body = {"model": model, "prompt": text, "add_special_tokens": False}
    answer = ask("/tokenize", body, root=True)
    count = answer.get("count") if isinstance(answer, dict) else None
    return count if isinstance(count, int) else None


class _Server:
    """Plain JSON questions; whatever goes wrong is no answer: these are conveniences, the run itself reports errors."""

    def __init__(self, api_base: str, key: str | None) -> None:
        self._base, self._key = api_base, key
        self._headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})

    def __call__(self, path: str, body: Any = None, *, root: bool = False) -> Any:
        base = self._base.removesuffix("/v1") if root else self._base
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(base + path, data, self._headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                return json.loads(answer.read())
        except (OSError, ValueError):  # URLError and time-outs are OSErrors
            return None

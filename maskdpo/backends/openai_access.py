"""How a server is reached: its URL, the key, and the headers of every request. Nothing here is shown or recorded."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from maskdpo.backends.settings import BackendSettings
from maskdpo.errors import UserError
from maskdpo.redact import SECRET

DEFAULT_BASE = "https://api.openai.com/v1"
ENDPOINT = re.compile(r"(/chat)?/completions$")
VARIABLE = re.compile(r"\$(?:\$|\{(?P<braced>\w+)\}|(?P<bare>\w+)|(?P<open>\{))")
SHORTEST_SECRET = 6
"""Characters; a shorter value is not searched for in messages, where it may be an ordinary word."""


@dataclass(frozen=True)
class Address:
    """The URL of a server."""

    url: str
    """Without the query: it may be shown."""
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Access:
    """The address, with all that a server wants to see. Its secrets are not in its ``repr``."""

    address: Address
    key: str | None = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    """Those that the user has set."""

    def client(self, openai: Any, timeout: Any) -> Any:
        """A client that follows no redirect: another server would get the headers."""
        return openai.AsyncOpenAI(
            api_key=self.key or "none",  # servers that need no key get a dummy
            base_url=self.address.url,
            default_query=dict(self.address.query),
            default_headers=dict(self.headers),
            max_retries=0,  # the pool retries, as it knows the other servers
            timeout=timeout,
            http_client=openai.DefaultAsyncHttpxClient(follow_redirects=False, timeout=timeout),
        )

    def omitted_headers(self, openai: Any) -> dict[str, Any]:
        """Headers of the client that requests go without: the dummy key, where a header of the user is the key."""
        without = self.headers and self.key is None and "Authorization" not in self.headers
        return {"Authorization": openai.Omit()} if without else {}

    def all_headers(self) -> dict[str, str]:
        return ({"Authorization": f"Bearer {self.key}"} if self.key else {}) | dict(self.headers)

    def hide(self, message: str) -> str:
        """A message without the secrets, which servers may quote."""
        secrets = {self.key or "", *(part for value in self.headers.values() for part in (value, *value.split()[-1:]))}
        for secret in sorted(secrets, key=len, reverse=True):
            if len(secret) >= SHORTEST_SECRET:
                message = message.replace(secret, "***")
        return message


def read_address(api_base: str) -> Address:
    """The address that a setting names: a base URL, or that of an endpoint; a query, as Azure wants it, is kept.

    Raises:
        UserError: it is no URL, or holds a key.
    """
    url = urlsplit(api_base)
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    secret = next((name for name in query if SECRET.search(name.replace("-", "_"))), None)
    if url.username or url.password or secret:  # not repeated: it may hold a secret
        raise UserError("`api_base` must hold no key; a key belongs into the variable OPENAI_API_KEY, or into `header`")
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UserError(f"`api_base` {api_base!r} is no URL. Name one such as http://localhost:8000/v1")
    return Address(ENDPOINT.sub("", f"{url.scheme}://{url.netloc}{url.path.rstrip('/')}"), query)


def read_access(address: Address, settings: BackendSettings) -> Access:
    """The key of the environment and the headers of the settings, whose values may name variables of it.

    Raises:
        UserError: a key is missing, or cannot be sent.
    """
    headers = {name.title(): _header(name, value.get_secret_value()) for name, value in settings.headers.items()}
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key and not headers and address.url == DEFAULT_BASE:
        raise UserError("OPENAI_API_KEY is not set. Set it, or name another server with `api_base`")
    if not _can_be_sent(key) or " " in key:
        raise UserError("OPENAI_API_KEY holds characters that no key has. Set it again, without spaces")
    return Access(address, key or None, headers)


def _header(name: str, value: str) -> str:
    def known(found: re.Match[str]) -> str:
        variable = found["braced"] or found["bare"]
        if found["open"]:
            raise UserError(f"the `header` {name} has a ${{ without the name of a variable and a }}")
        if variable is None:  # $$ is a dollar sign
            return "$"
        if not (said := os.environ.get(variable, "").strip()):
            raise UserError(
                f"the `header` {name} names the variable {variable}, which is not set; write $$ for a dollar sign"
            )
        return said

    value = VARIABLE.sub(known, value)
    if not _can_be_sent(value):
        raise UserError(f"the `header` {name} holds characters that no header has")
    return value


def _can_be_sent(text: str) -> bool:
    return text.isascii() and (text.isprintable() or not text)

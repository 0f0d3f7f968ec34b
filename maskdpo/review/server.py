"""The page of a review and what it asks for, as a Starlette application.

Whoever has the token may read and decide. It is drawn for each run, and printed in the fragment of the address, which
browsers send to nobody; the script of the page keeps it and sends it in a header. So no other page can use it, and no
log has it. The names that the server answers to are fixed, lest a foreign name that leads here is taken for it
(DNS rebinding), and requests from other pages are refused.
"""

import json
import secrets
from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maskdpo.errors import UserError, first_problem
from maskdpo.html.render import render
from maskdpo.review.addresses import as_address
from maskdpo.review.session import Session

SCRIPTS = (
    "page/labels",
    "page/reference",
    "review/state",
    "review/saving",
    "review/sentence",
    "review/beside",
    "review/acting",
    "review/start",
)
"""The parts of the script of the page, in the order in which they run."""

TOKEN_HEADER = "x-maskdpo-token"
LARGEST_BODY = 2_000_000
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "frame-ancestors 'none'",  # the page itself has the rest of its policy
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Act(BaseModel):
    """An act of which nothing but the id is known to be valid: one that is not must not keep the others back."""

    model_config = ConfigDict(extra="allow", frozen=True)

    id: str


class Sent(BaseModel):
    """What the page sends: for which queue, acts in their order, and how many acts it has seen."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str
    acts: list[Act]
    since: Annotated[int, Field(ge=0)]


def make_app(session: Session, token: str, names: frozenset[str], *, any_address: bool = False) -> ASGIApp:
    """The application.

    Args:
        names: the host names it answers to, in small letters and without ports.
        any_address: it answers to every address in numbers, too.
    """
    page = render("maskdpo.review", "review.html.j2", SCRIPTS, {}, "Review", connect=True)

    async def show(request: Request) -> Response:
        return Response(page, media_type="text/html")

    async def no_icon(request: Request) -> Response:
        return Response(status_code=204)

    async def start(request: Request) -> Response:
        return _as_json({**session.overview(), "acts": session.since(0)})

    async def answer(request: Request) -> Response:
        try:
            return _as_json(session.answer(request.path_params["number"]))
        except IndexError:
            return _refused(404, "there is no such answer")

    async def acts(request: Request) -> Response:
        try:
            sent = Sent.model_validate(json.loads(await request.body()))
        except ValidationError as error:
            return _refused(422, "{}: {}".format(*first_problem(error)))
        except (ValueError, RecursionError):
            return _refused(422, "what was sent is no JSON")
        if sent.run != session.run:
            return _refused(409, "another queue is reviewed here now: open the address that the command printed")
        try:
            reply = session.tell(one.model_dump() for one in sent.acts)
        except UserError as error:
            return _refused(507, str(error))
        return _as_json({**asdict(reply), "acts": session.since(sent.since)})

    routes = [
        Route("/", show),
        Route("/favicon.ico", no_icon),
        Route("/api/start", start),
        Route("/api/answers/{number:int}", answer),
        Route("/api/acts", acts, methods=["POST"]),
    ]
    return Guard(Starlette(routes=routes), token, names, any_address)


class Guard:
    """Refuses requests that do not come from the page, and adds the headers of every reply."""

    def __init__(self, app: ASGIApp, token: str, names: frozenset[str], any_address: bool) -> None:
        self._app = app
        self._token = token.encode()
        self._names = names
        self._any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # of the server's own start and end
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refused = self._why_refused(scope["method"], scope["path"], Headers(scope=scope))
        await (refused or self._app)(scope, receive, send_with_headers)

    def _why_refused(self, method: str, path: str, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            return _refused(421, f"this server does not answer to the name {host!r}")
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return _refused(403, "the request comes from another page")
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") and path != "/":
            return _refused(403, "the request comes from another page")
        if path.startswith("/api/"):
            if method == "POST" and origin is None:
                return _refused(403, "the request does not say from which page it comes")
            if not secrets.compare_digest(headers.get(TOKEN_HEADER, "").encode(), self._token):
                return _refused(401, "the key of the page is missing or old: open the address that the command printed")
        length = headers.get("content-length", "0")
        if not (length.isdecimal() and int(length) <= LARGEST_BODY) or "transfer-encoding" in headers:
            return _refused(413, f"more than {LARGEST_BODY} bytes at once")
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._names or (self._any_address and as_address(name) is not None)


def _as_json(content: Any, status: int = 200) -> Response:
    """A lone surrogate, which UTF-8 cannot hold, becomes "?", one character, so spans stay valid."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return Response(text.encode(errors="replace"), status, media_type="application/json")


def _refused(status: int, why: str) -> Response:
    return _as_json({"error": why}, status)

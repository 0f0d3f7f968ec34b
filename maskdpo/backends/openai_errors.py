"""What the errors of OpenAI-compatible servers mean, whatever their form."""

import re
import time
from collections.abc import Collection
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

SYSTEM = "system"
"""What a server refuses that has no place for a system message. It stands beside the names of fields."""
SPOKEN_OF = {
    "top_logprobs": r"top[_ ]log[_ ]?probs",
    "logprobs": r"(?<!top[_ ])log[_ ]?probs?\b|log[_ ]?probabilit",
    "response_format": r"response[_ ]?format|json[_ ](schema|mode)|structured[_ ]outputs?|guided[_ ]\w+|grammar",
    "seed": r"\bseed per-request",
    "stop": r"stop[_ ]?sequences?|stop words?",
    "top_p": r"top[_ ]p\b",
    "temperature": r"sampling temperature",
    "n": r"\bn (>|=|must|should)|one (completion|candidate|choice|generation)|"
    r"multiple (completion|candidate|choice|generation|sequence)s?|candidate_?count",
}
"""By the name of a field that can be left out, the words for it in error messages, beside the name in quotes. Of two
fields that cannot be sent together the first goes. Without ``n`` each completion needs a request of its own; what
``stop`` would have cut off is cut off here."""
USERS_OWN = frozenset({"temperature", "top_p"})
"""Fields whose value the user chose: a value out of range is to be corrected, and only a field that is not supported is
left out."""
NOT_SUPPORTED = re.compile(
    r"support(?!ed range)|default|deprecat|permitted|allowed|unrecogni[sz]ed|unexpected|unknown|both|unavailable|"
    r"not enabled|must be 1 |has to be set to 1 ",
    re.I,
)
NO_SYSTEM_ROLE = re.compile(
    r"system['\"`]? (role|message|prompt|instruction)|(support|role|got)\W.{0,9}['\"`]?system\b|developer instruction|"
    r"roles? must alternate|roles are supported",
    re.I,
)
TOO_LONG = re.compile(
    r"context[ _-]?(length|window|size|limit)|max_(model|prompt|seq|input)_(len|tokens)|"
    r"max(imum)? (allowed |model |prompt |sequence |input )+length|exceeds? max length|"
    r"(prompt|input|request( body)?|messages) (is |are )?too (long|large)|too (long|large) for |"
    r"too many (input )?tokens|input length|reduce the length|tokens_limit_reached|"
    r"\b(input|prompt)s?`? (tokens?|token count|must have less)\b|context_size|context the overflows",
    re.I,
)
OF_OTHER_THINGS = frozenset({401, 402, 408, 409, 413, 429})
"""Statuses of errors that are not about a field."""
REFUSAL_CODES = frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})
REFUSAL = re.compile(r"flagged|moderation|content[ _-](filter|policy|management)|safety system", re.I)


@dataclass(frozen=True, slots=True)
class ServerError:
    """What a server says in place of an answer."""

    status: int
    text: str
    code: str = ""
    param: str = ""
    """The field that the error is about, where the server names one."""


def server_error(status: int, body: Any) -> ServerError:
    """An error in the form of OpenAI, of FastAPI, of Google (a list), of OpenRouter (with the words of another server
    inside), or a bare text."""
    while isinstance(body, list) and body and isinstance(body[0], dict) and "error" in body[0]:
        body = body[0]
    while isinstance(body, dict) and isinstance(body.get("error"), dict | str):
        body = body["error"]
    if not isinstance(body, dict):
        return ServerError(status, str(body))
    message = next((body[name] for name in ("message", "detail") if body.get(name)), body)
    metadata = body.get("metadata")
    words = [message, metadata.get("raw") if isinstance(metadata, dict) else None]
    code, param = body.get("code"), body.get("param")
    return ServerError(
        status,
        ": ".join(str(each) for each in words if each),
        " ".join(str(each) for each in (code, body.get("type")) if each),
        param if isinstance(param, str) else "",
    )


def is_too_long(error: ServerError) -> bool:
    """Whether the input does not fit into the model's context."""
    if error.status == 413:
        return True
    if error.status in OF_OTHER_THINGS or error.status == 403:
        return False
    return TOO_LONG.search(f"{error.code} {error.text}") is not None


def is_refusal(error: ServerError) -> bool:
    """Whether the server refuses this input."""
    if error.status not in (400, 403):
        return False
    if REFUSAL_CODES & set(error.code.split()):
        return True
    # a flagged account is refused whatever its input
    return REFUSAL.search(error.text) is not None and "account" not in error.text.lower()


def refused_field(error: ServerError, body: dict[str, Any], fixed: Collection[str] = ()) -> str | None:
    """The field of the request that the server refuses and that the next attempt can do without, or ``SYSTEM``.

    Args:
        body: the request.
        fixed: fields that must not be left out.
    """
    if error.status in OF_OTHER_THINGS or is_too_long(error):
        return None
    if "max_completion_tokens" in error.text and "max_tokens" in body:
        return "max_tokens"  # newer OpenAI models take it under this name
    sent = _squashed(_texts(body))
    if _has_system(body) and any(not _quotes(error.text, found, sent) for found in NO_SYSTEM_ROLE.finditer(error.text)):
        return SYSTEM
    may_go = [name for name in SPOKEN_OF if name in body and name not in fixed]
    param = re.split(r"[.\[]", error.param)[0]
    named = [param] if param in body else [name for name in may_go if _names(error.text, name, sent)]
    found = next((name for name in named if name in may_go and _is_unsupported(error.text, name)), None)
    # servers say in many ways that they give one completion per call
    return found or ("n" if "n" in may_go and not named and error.status in (400, 422, 501) else None)


def names_field(error: ServerError, body: dict[str, Any], name: str) -> bool:
    """Whether a server says by its name that it refuses this field of the request."""
    named = error.param == name or _names(error.text, name, _squashed(_texts(body)))
    return named and error.status in (400, 422)


def retry_after(headers: Any) -> float | None:
    """Seconds to wait, from ``retry-after-ms``, or else from ``Retry-After`` in seconds or as a date."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        seconds = _seconds(headers.get(name, ""), unit)
        if seconds is not None and 0 <= seconds < float("inf"):
            return seconds
    return None


def _seconds(value: str, unit: float) -> float | None:
    try:
        return float(value) / unit
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(value).timestamp() - time.time()
    except ValueError:
        return None


def _is_unsupported(text: str, name: str) -> bool:
    return name not in USERS_OWN or NOT_SUPPORTED.search(text) is not None


def _has_system(body: dict[str, Any]) -> bool:
    roles = [message["role"] for message in body.get("messages", ())]
    return "system" in roles and "user" in roles


def _names(text: str, name: str, sent: str) -> bool:
    """Whether an error message is about this field.

    Args:
        sent: the texts of the request, squashed: the message may quote them, and they may have the same word.
    """
    # errors of vLLM and FastAPI have the form of pydantic
    if paths := re.findall(r"""["']loc["']: [(\[](.*?)[)\]]""", text):
        return any(re.search(rf"""["']{name}["']""", path) for path in paths)
    quoted_or_first = rf"""(?:\A|[`"'])(?:body[./ ]|\$\.)?{name}(?![\w-])"""
    announced = rf"\b(?:argument|parameter|field|property)s?(?: \w+)?: {name}(?![\w-])"
    words = f"|(?i:{SPOKEN_OF[name]})" if name in SPOKEN_OF else ""
    found = re.finditer(f"{quoted_or_first}|{announced}{words}", text)
    return any(not _quotes(text, each, sent) for each in found)


def _quotes(text: str, found: re.Match[str], sent: str) -> bool:
    """Whether a part of an error message quotes the request, with the words before it or behind it."""
    before, behind = _squashed(text[: found.start()])[-10:], _squashed(text[found.end() :])[:10]
    part = _squashed(found[0])
    return any(len(around) > len(part) + 5 and around in sent for around in (before + part, part + behind))


def _texts(body: dict[str, Any]) -> str:
    return " ".join([str(body.get("prompt", "")), *(message["content"] for message in body.get("messages", ()))])


def _squashed(text: str) -> str:
    """A text without what differs when it is quoted: case, spaces, quotes and their escapes."""
    return "".join(character for character in text.lower() if character.isalnum())

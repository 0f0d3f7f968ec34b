"""What the errors of OpenAI-compatible servers mean."""

import re
import time
from email.utils import parsedate_to_datetime
from typing import Any

OPTIONAL_FIELDS = ("top_logprobs", "logprobs", "seed", "response_format", "temperature", "top_p", "n")
"""Fields that can be left out if a server rejects them. Without ``n`` each completion needs a request of its own."""
BEGINNING = 100
"""Characters of an error message that are searched for the name of a field; the rest may quote the input."""
NOT_SUPPORTED = re.compile(r"support|default|deprecat|permitted|allowed|unrecogni[sz]ed|unexpected|unknown|both", re.I)
TOO_LONG = re.compile(
    r"context[ _](length|window|size)|max_model_len|maximum model length|(prompt|input) (is )?too long", re.I
)
REFUSAL_CODES = frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})
REFUSAL = re.compile(r"flagged|moderation|content[ _-](filter|policy|management)", re.I)


def is_too_long(status: int, code: str | None, message: str) -> bool:
    """Whether a 4xx answer says that the input does not fit into the model's context."""
    return status in (400, 413, 422) and (code == "context_length_exceeded" or TOO_LONG.search(message) is not None)


def is_refusal(status: int, code: str | None, message: str) -> bool:
    """Whether a 4xx answer says that the server refuses this input."""
    if status not in (400, 403):
        return False
    # a flagged account is refused whatever its input
    return code in REFUSAL_CODES or (REFUSAL.search(message) is not None and "account" not in message.lower())


def rejected_field(status: int, error: Any, body: dict[str, Any]) -> str | None:
    """The field of the request that the server rejects and that the next attempt can do without.

    Args:
        error: the ``error`` object of the answer, or the whole answer where it has another form.
    """
    message, param = _error_text(error)
    if status not in (400, 403, 422) or is_too_long(status, None, message):
        return None
    if "max_completion_tokens" in message[: 2 * BEGINNING] and "max_completion_tokens" not in body:
        return "max_tokens"  # newer OpenAI models take it under this name
    named = [param] if param in body else [name for name in OPTIONAL_FIELDS if _names(message, name)]
    return next((name for name in named if name in body and _may_be_left_out(name, body, message)), None)


def _may_be_left_out(name: str, body: dict[str, Any], message: str) -> bool:
    if name in ("temperature", "top_p"):  # a value out of range must be corrected by the user
        return NOT_SUPPORTED.search(message[: 2 * BEGINNING]) is not None
    return name in OPTIONAL_FIELDS and (name != "n" or body["n"] > 1)


def _error_text(error: Any) -> tuple[str, str]:
    """The message of an error, and the field that it is about, or an empty string."""
    if not isinstance(error, dict):
        return str(error), ""
    message = next((error[name] for name in ("message", "detail") if error.get(name)), error)
    param = error.get("param")
    return str(message), re.split(r"[.\[]", param)[0] if isinstance(param, str) else ""


def _names(message: str, name: str) -> bool:
    """Whether an error message is about this field. The message may quote judged text that has the same word."""
    # errors of vLLM and FastAPI have the form of pydantic
    if paths := re.findall(r"""["']loc["']: [(\[](.*?)[)\]]""", message):
        return any(re.search(rf"""["']{name}["']""", path) for path in paths)
    beginning = message[:BEGINNING]
    quoted = rf"""[`"']{name}[`"']"""
    path = rf"\A(?:body[./ ]|\$\.)?{name}(?![\w-])"
    announced = rf"\b(?:argument|parameter|field|property)s?(?: \w+)?: {name}(?![\w-])"
    if re.search(f"{quoted}|{path}|{announced}", beginning) is not None:
        return True
    # other names may be words of a text
    return name in ("logprobs", "top_logprobs", "response_format") and re.search(rf"\b{name}\b", beginning) is not None


def retry_after(headers: Any) -> float | None:
    """Seconds to wait, from ``Retry-After`` in seconds or as a date, or ``retry-after-ms``."""
    value = headers.get("retry-after", "")
    try:
        if milliseconds := headers.get("retry-after-ms"):
            seconds = float(milliseconds) / 1000
        elif value.replace(".", "", 1).isdigit():
            seconds = float(value)
        else:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None

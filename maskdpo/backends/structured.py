"""Structured replies: the JSON schema of a request, and how its reply is read; any other reply is a parse error."""

import json
import re
from collections.abc import Sequence
from typing import Any

from maskdpo.backends.base import Failure, Pick
from maskdpo.backends.probability import ScoredToken, choice_probabilities
from maskdpo.schemas import Status

_FENCE = re.compile(r"\A\s*(```|~~~)\s*(?:json\w*\b)?(.*?)\1\s*\Z", re.DOTALL | re.IGNORECASE)
_OTHER_REPLIES = (
    ("a tool call", Status.PARSE_ERROR, r"<\|?tool_call|\[TOOL_CALLS\]|<function=|\{\s*\"name\": *\"[^\"]*\", *\"arg"),
    ("an error message", Status.PARSE_ERROR, r"\{\s*\"(error|detail)\"|(internal server )?error:"),
    (
        "a refusal",
        Status.REFUSED,
        r"(I('m| am) )?(very )?sorry\b|I (can|could|will|wo)(not|n't)\b|I('m| am) (unable|not able)\b|As an AI\b|"
        r"(很|非常)?(抱歉|对不起)|我(无法|不能)",
    ),
)
"""What a reply is that begins in such a way and is no verdict."""
_AROUND_A_WORD = " \t\r\n.\"'`*<>"


def verdict_schema(choices: Sequence[str], slots: Sequence[str]) -> dict[str, Any]:
    """The schema of an object with exactly these keys, whose values are choices."""
    return {
        "type": "object",
        "properties": {slot: {"type": "string", "enum": list(choices)} for slot in slots},
        "required": list(slots),
        "additionalProperties": False,
    }


def read_object(
    text: str, tokens: Sequence[ScoredToken], choices: Sequence[str], slots: Sequence[str], *, or_word: bool = False
) -> tuple[Pick, ...] | Failure:
    """The picks of a reply that should be an object of ``verdict_schema``.

    Args:
        or_word: a plain choice is accepted too: the prompt asks for one, and servers may ignore the schema.
    """
    if or_word and (word := _choice(text.strip(_AROUND_A_WORD), choices)) is not None:
        return (Pick(word),)
    fenced = _FENCE.match(text)
    try:
        pairs = json.loads(fenced[2] if fenced else text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return _other_reply(text, "not valid JSON")
    if not isinstance(pairs, _Pairs) or sorted(name for name, _ in pairs) != sorted(slots):
        return _other_reply(text, "not an object with the keys that were asked for")
    named = dict(pairs)
    said = [named[slot] for slot in slots]
    values = [value for each in said if (value := _choice(each, choices)) is not None]
    if len(values) < len(said):
        return Failure(Status.PARSE_ERROR, f"none of the choices: {one_line(text)!r}")
    probabilities = _probabilities(tokens, choices, slots, said)
    return tuple(Pick(value, found) for value, found in zip(values, probabilities, strict=True))


def read_word(text: str, tokens: Sequence[ScoredToken], choices: Sequence[str]) -> tuple[Pick, ...] | Failure:
    """The pick of a reply that should be a plain choice."""
    named = text if text in choices else _choice(text.strip(), choices)
    if named is None:
        return _other_reply(text, "none of the choices")
    found = choice_probabilities(tokens, [choice.encode() for choice in choices], named.encode())
    return (Pick(named, {text.decode(): share for text, share in found.items()}),)


def _other_reply(text: str, why: str) -> Failure:
    """The failure of a reply that is no verdict: what it is instead, or else why it is none."""
    for what, status, pattern in _OTHER_REPLIES:
        if re.match(rf"\s*(?:{pattern})", text.replace("’", "'"), re.IGNORECASE):
            return Failure(status, f"{what} in place of a verdict: {one_line(text)!r}")
    return Failure(Status.PARSE_ERROR, f"{why}: {one_line(text)!r}")


def _choice(said: Any, choices: Sequence[str]) -> str | None:
    """The choice that a text names: exactly, or the only one that differs just in case."""
    if not isinstance(said, str):
        return None
    alike = [choice for choice in choices if choice.casefold() == said.casefold()]
    return said if said in choices else alike[0] if len(alike) == 1 else None


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as a list of pairs, which shows repeated keys."""


def _probabilities(
    tokens: Sequence[ScoredToken], choices: Sequence[str], slots: Sequence[str], said: Sequence[str]
) -> list[dict[str, float]]:
    """Per slot the probabilities of the choices; none from the first slot on that is not found in the tokens, and none
    for a choice whose case differs, because its bytes are not those of the offered choice.
    """
    whole = b"".join(token.text for token in tokens)
    ends = [0]
    for token in tokens:
        ends.append(ends[-1] + len(token.text))
    found: list[dict[str, float]] = []
    at = 0
    for slot, value in zip(slots, said, strict=True):
        head = re.compile(rb"\s*[{,]\s*" + re.escape(_quoted(slot)) + rb'\s*:\s*"').match(whole, at)
        if head is None:
            return found + [{} for _ in slots[len(found) :]]
        at = head.end() + len(_quoted(value)) - 1
        if value not in choices:
            found.append({})
            continue
        first = next(i for i in range(len(tokens)) if ends[i + 1] > head.end() or i == len(tokens) - 1)
        shared = whole[ends[first] : head.end()]  # a token may hold the quote and the first letters
        options = {choice: shared + _quoted(choice)[1:] for choice in choices}
        shares = choice_probabilities(tokens[first:], list(options.values()), options[value], head=len(shared))
        found.append({choice: shares[text] for choice, text in options.items() if text in shares})
    return found


def _quoted(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode()


def one_line(text: str) -> str:
    return " ".join(text.split())[:200]

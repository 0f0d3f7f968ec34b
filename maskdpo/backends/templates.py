"""Chat templates: what to do with a conversation that the model's own template refuses."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from jinja2 import TemplateError

from maskdpo.backends.base import Failure
from maskdpo.schemas import Message, Status

Rendered = TypeVar("Rendered")


def rendered(messages: Sequence[Message], render: Callable[[list[dict[str, str]]], Rendered]) -> Rendered | Failure:
    """What ``render`` makes of the conversation.

    Some templates (Gemma's) know no system role. There the system's text goes to the head of the first user message.
    """
    try:
        return render(_plain(messages))
    except TemplateError as error:
        refused = error
    folded = _without_system(messages)
    if folded is not None:
        try:
            return render(_plain(folded))
        except TemplateError as error:
            refused = error
    why = " ".join(str(refused).split())[:200]
    return Failure(Status.API_ERROR, f"the model's chat template rejects the conversation: {why}")


def _without_system(messages: Sequence[Message]) -> list[Message] | None:
    """None where there is no system message, or no user message to take its text."""
    system = [message.content for message in messages if message.role == "system"]
    others = [message for message in messages if message.role != "system"]
    first = next((i for i, message in enumerate(others) if message.role == "user"), None)
    if not system or first is None:
        return None
    others[first] = Message(role="user", content="\n\n".join([*system, others[first].content]))
    return others


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]

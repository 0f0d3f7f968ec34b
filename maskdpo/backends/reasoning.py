"""What a model in this process reads for a request, and how its text is split into reasoning and answer."""

import re
from collections.abc import Callable, Mapping
from datetime import date
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from maskdpo.backends.base import Completion, Failure, Request
from maskdpo.chat import ChatFormat, TemplateRefusal, Turn
from maskdpo.console import warn
from maskdpo.models import load_tokenizer
from maskdpo.schemas import FinishReason, Status

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN = Turn("", "", None, None)
"""The turn of a template without reasoning: reasoning is searched for between ``<think>`` and ``</think>``."""
REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""The names of the reasoning in the response templates of transformers."""


class ChatReader:
    """Encodes prompts in a chat format, and reads the texts that a model wrote after them."""

    def __init__(self, chat: ChatFormat) -> None:
        self.chat = chat

    @cached_property
    def turn(self) -> Turn:
        try:
            return self.chat.turn
        except TemplateRefusal:
            return PLAIN

    @cached_property
    def keeps_special_tokens(self) -> bool:
        """Whether texts must be decoded with special tokens, because those of some models are the markers."""
        if self._response_template is not None:
            return True
        markers = f"{self.turn.lead}{self.turn.before_reasoning}{self.turn.after_reasoning}"
        return any(token in markers for token in self._special_tokens)

    def encode(self, request: Request) -> list[int] | Failure:
        """The token ids that the model continues, or why the request cannot be sent.

        Choices are scored where an answer begins, as in training: after the header that the model writes itself
        (gpt-oss), and after the end of the reasoning if the prompt has begun it. Spaces at its end are left out:
        tokenizers join them with the first token of the answer.
        """
        try:
            prompt = self.chat.encode_prompt(request.prompt)
        except TemplateRefusal as error:
            return Failure(Status.API_ERROR, f"the model's chat template rejects the conversation: {error}")
        if not prompt.ids:
            return Failure(Status.API_ERROR, "the prompt is empty: there is no token")
        if request.choices is None or isinstance(request.prompt, str) or not (lead := self.turn.lead.rstrip(" ")):
            return prompt.ids
        try:
            return prompt.ids + self.chat.continuation(prompt, lead)[0]
        except ValueError as error:
            return Failure(Status.API_ERROR, f"the judge's reply cannot be placed behind the prompt: {error}")

    def count(self, text: str) -> int:
        """The tokens of a text, without special tokens."""
        return len(self.chat.tokenizer(text, add_special_tokens=False)["input_ids"])

    def split(self, text: str, prompt: str) -> tuple[str | None, str | None]:
        """The reasoning and the answer (``Turn.split``) in a text without its end of turn.

        Args:
            text: decoded with its special tokens where ``keeps_special_tokens``, else without.
            prompt: the prompt's text, with its special tokens.
        """
        reasoning, answer = self.turn.split(text)
        if reasoning is None and self._response_template is not None:
            parsed = self._parsed(text, prompt)
            found = [parsed[name] for name in REASONING_FIELDS if isinstance(parsed.get(name), str)]
            if found:
                reasoning, answer = found[0], parsed.get("content")
        return reasoning, self._without_special_tokens(answer) if self.keeps_special_tokens and answer else answer

    @property
    def _response_template(self) -> object:
        return getattr(self.chat.tokenizer, "response_template", None)

    def _parsed(self, text: str, prompt: str) -> dict[str, Any]:
        try:
            return dict(self.chat.tokenizer.parse_response(text, prefix=prompt))
        except ValueError:  # such as a tool call that is not JSON: then only the text itself is known
            return {}

    @cached_property
    def _special_tokens(self) -> list[str]:
        tokens = self.chat.tokenizer.added_tokens_decoder.values()
        return sorted((str(token) for token in tokens if token.special), key=len, reverse=True)

    def _without_special_tokens(self, text: str) -> str:
        for token in self._special_tokens:
            text = text.replace(token, "")
        return text


def readers(model: str, template_options: Mapping[str, Any]) -> Callable[[date | None], ChatReader]:
    """A function from the date that a chat template writes to a reader. The first call loads the tokenizer."""

    @cache
    def tokenizer() -> "PreTrainedTokenizerBase":
        loaded = load_tokenizer(model)
        unread = [name for name in template_options if not re.search(rf"\b{name}\b", str(loaded.chat_template))]
        if unread:
            warn(f"the chat template of {model} does not read {', '.join(unread)}: `template_options` has no effect")
        return loaded

    return cache(lambda today: ChatReader(ChatFormat(tokenizer(), template_options, today)))


def stop_at(answer: str, reasoning: str | None, stop: tuple[str, ...]) -> int | None:
    """The position of the first stop text. White space between reasoning and answer is part of neither."""
    begin = 0 if reasoning is None else len(answer) - len(answer.lstrip())
    return min((at for text in stop if (at := answer.find(text, begin)) >= 0), default=None)


def text_completion(
    request: Request, reasoning: str | None, answer: str | None, finish_reason: FinishReason
) -> Completion | Failure:
    """The completion of a request without choices, cut at the first stop text; a failure if there is only reasoning."""
    cut = None if answer is None else stop_at(answer, reasoning, request.sampling.stop)
    text = (answer or "")[:cut]
    if (reasoning is None and answer is not None) or text.strip():
        return Completion(text, "stop" if cut is not None else finish_reason, reasoning=reasoning)
    if finish_reason == "length":
        used = f"its {request.sampling.max_tokens} tokens were used up"
        return Failure(Status.TRUNCATED, f"the answer consists of reasoning only: {used}; raise `max_tokens`")
    return Failure(
        Status.PARSE_ERROR,
        "the answer consists of reasoning only: the model ended its turn there, or a `stop` text occurs in it",
    )

"""The form of a server's answer. An odd value in a field costs this field alone, never the answer."""

import json
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WrapValidator

from maskdpo.backends.openai_errors import ServerError, server_error
from maskdpo.backends.price import NONE, Tokens
from maskdpo.backends.probability import ScoredToken

KIND_OF_PART = {
    "text": "text", "output_text": "text", "thinking": "thinking", "reasoning": "thinking", "refusal": "refusal",
}  # fmt: skip
"""What the parts of a content are, by their type. Parts of other types, such as images, say nothing."""


class UnreadableAnswer(ValueError):
    """The server answered, but not with completions to the request. It may bill the answer."""

    def __init__(self, message: str, tokens: Tokens = NONE) -> None:
        super().__init__(message)
        self.tokens = tokens


class ErrorInAnswer(UnreadableAnswer):
    """The server answered with an error, although the status of the answer is 200."""

    def __init__(self, error: ServerError, tokens: Tokens) -> None:
        super().__init__(error.text, tokens)
        self.error = error


def _or_none(value: Any, validate: Callable[[Any], Any]) -> Any:
    try:
        return validate(value)
    except ValidationError:
        return None


Lenient = WrapValidator(_or_none)
"""A value of another type is None."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _TopToken(_Body):
    token: str
    logprob: float
    octets: list[Annotated[int, Field(ge=0, le=255)]] | None = Field(default=None, alias="bytes")

    def raw(self) -> bytes:
        return bytes(self.octets) if self.octets is not None else self.token.encode()


class _Token(_TopToken):
    top_logprobs: list[_TopToken] | None = None


class _Logprobs(_Body):
    content: list[_Token] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None

    def scored(self) -> list[ScoredToken]:
        """The tokens, in the form of the chat or of the completions endpoint."""
        if self.content is not None:
            return [
                ScoredToken(token.raw(), token.logprob, {top.raw(): top.logprob for top in token.top_logprobs or ()})
                for token in self.content
            ]
        names, values = self.tokens or [], self.token_logprobs or []
        tops = self.top_logprobs or [None] * len(names)
        return [
            ScoredToken(name.encode(), value, {other.encode(): each for other, each in (top or {}).items()})
            for name, value, top in zip(names, values, tops, strict=False)
            if value is not None
        ]


class Message(_Body):
    """What the model said."""

    content: Any = None
    """A text, a list of parts, or an object where JSON was asked for."""
    refused: Annotated[str | None, Lenient, Field(alias="refusal")] = None
    reasoning_content: Any = None  # older vLLM, SGLang, DeepSeek
    reasoning: Any = None  # newer vLLM, OpenRouter
    tool_calls: Any = None
    function_call: Any = None

    @property
    def text(self) -> str:
        return json.dumps(self.content) if isinstance(self.content, dict) else _said(self.content, "text")

    @property
    def refusal(self) -> str:
        return self.refused or _said(self.content, "refusal")

    @property
    def thoughts(self) -> str | None:
        """The reasoning that the server keeps apart from the text."""
        given = (self.reasoning_content, self.reasoning, _said(self.content, "thinking"))
        return next((each for each in given if isinstance(each, str) and each), None)

    @property
    def calls(self) -> bool:
        """Whether the model called a tool."""
        return bool(self.tool_calls or self.function_call)


class Choice(_Body):
    """One completion."""

    index: Annotated[int | None, Lenient] = None
    finish_reason: Annotated[str | None, Lenient] = None
    given: Annotated[Message | None, Lenient, Field(alias="message")] = None
    text: Annotated[str | None, Lenient] = None
    logprobs: Annotated[_Logprobs | None, Lenient] = None
    error: Any = None

    @property
    def message(self) -> Message:
        return self.given or Message(content=self.text)

    @property
    def reason(self) -> str:
        """Why the completion ended, in small letters."""
        return (self.finish_reason or "stop").lower()

    def tokens(self) -> list[ScoredToken]:
        """The log-probabilities; empty where there are none, or no valid ones."""
        return self.logprobs.scored() if self.logprobs else []


Count = Annotated[int | None, Field(ge=0), Lenient]


class _Cached(_Body):
    cached_tokens: Count = None


class Usage(_Body):
    """The tokens of a request."""

    prompt_tokens: Count = None
    completion_tokens: Count = None
    prompt_tokens_details: Annotated[_Cached | None, Lenient] = None

    @property
    def tokens(self) -> Tokens:
        """With those out of the cache among those of the prompt: some servers count them apart."""
        prompt, cached = self.prompt_tokens or 0, 0
        if self.prompt_tokens_details:
            cached = self.prompt_tokens_details.cached_tokens or 0
        return prompt + cached if cached > prompt else prompt, cached, self.completion_tokens or 0


class _Used(_Body):
    """What every answer may have, also an error."""

    usage: Annotated[Usage | None, Lenient] = None

    @property
    def tokens(self) -> Tokens:
        return self.usage.tokens if self.usage else NONE


class Answer(_Used):
    """An answer with at least one completion, in the order of their numbers."""

    choices: list[Annotated[Choice | None, Lenient]] = Field(min_length=1)

    def ordered(self) -> list[Choice]:
        found = [choice or Choice() for choice in self.choices]
        numbers = [choice.index for choice in found]
        if None in numbers or len(set(numbers)) < len(numbers):
            return found
        return sorted(found, key=lambda choice: choice.index or 0)


def read_answer_body(text: str) -> Answer:
    """The answer in the body of a 200.

    Raises:
        ErrorInAnswer: the body is an error, or every completion in it is.
        UnreadableAnswer: the body is neither.
    """
    body = _loaded(text)
    if said := _error_in(body):
        raise ErrorInAnswer(said, _tokens_in(body))
    try:
        return Answer.model_validate(body)
    except ValidationError as error:
        message = f"the answer is no completion: {_why(error)}: {text[:120]!r}"
        raise UnreadableAnswer(message, _tokens_in(body)) from None


def _loaded(text: str) -> Any:
    """The JSON, without a byte order mark; half a character (a lone surrogate) becomes the replacement character."""
    try:
        body = json.loads(text.removeprefix("\ufeff"))
        if "\\ud" in text or "\\uD" in text:
            whole = json.dumps(body, ensure_ascii=False).encode("utf-16", "surrogatepass")
            body = json.loads(whole.decode("utf-16", "replace"))
    except (ValueError, RecursionError):
        raise UnreadableAnswer(f"the answer is no completion: it is not JSON: {text[:120]!r}") from None
    return body


def _tokens_in(body: Any) -> Tokens:
    return _Used.model_validate(body).tokens if isinstance(body, dict) else NONE


def _error_in(body: Any) -> ServerError | None:
    if not isinstance(body, dict):
        return None
    choices = body.get("choices") or []
    if isinstance(choices, list) and choices:
        errors = [choice.get("error") for choice in choices if isinstance(choice, dict)]
        said = errors[0] if errors and all(errors) else None
    else:
        said = body.get("error") or (body if body.get("object") == "error" else None)
    return server_error(_status_of(said), said) if said else None


def _status_of(error: Any) -> int:
    """The status that an error would have had; that of a broken server where the error names none."""
    code = str(error.get("code")) if isinstance(error, dict) else ""
    return int(code) if code.isdecimal() and 400 <= int(code) < 600 else 500


def _said(content: Any, kind: str) -> str:
    """What a content says of one kind: text, thinking or refusal."""
    if isinstance(content, str):
        return content if kind == "text" else ""
    parts = content if isinstance(content, list) else []
    return "".join(_words(part) for part in parts if _kind(part) == kind)


def _kind(part: Any) -> str | None:
    if isinstance(part, dict):
        return KIND_OF_PART.get(str(part.get("type", "text")))
    return "text" if isinstance(part, str) else None


def _words(part: Any) -> str:
    if isinstance(part, list):
        return "".join(_words(each) for each in part)
    if isinstance(part, dict):
        return _words(next((part[name] for name in KIND_OF_PART if part.get(name)), ""))
    return part if isinstance(part, str) else ""


def _why(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return ": ".join([*(str(part) for part in first["loc"]), first["msg"]])

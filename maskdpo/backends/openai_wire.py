"""Requests to an OpenAI-compatible server and its answers, as plain data."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from maskdpo.backends.base import Completion, Failure, Reply, Request, gather, request_seed
from maskdpo.backends.probability import ScoredToken
from maskdpo.backends.reasoning import PLAIN, text_completion
from maskdpo.backends.structured import one_line, read_object, read_word, verdict_schema
from maskdpo.schemas import Status

TOP_LOGPROBS = 20
"""The most that chat endpoints report."""
TOP_LOGPROBS_RAW = 5
"""The most that completion endpoints report."""
CUT_REASONS = frozenset({"length", "max_tokens"})
REFUSED_REASONS = frozenset({"content_filter", "refusal", "safety"})
NO_ANSWER_REASONS = frozenset({"tool_calls", "function_call", "error", "abort"})
"""Any other reason counts as the end of the answer: servers have their own names for it, or none."""


class UnreadableAnswer(ValueError):
    """The server answered, but not with a completion."""


class FewerCompletions(ValueError):
    """The server gave fewer completions than it was asked for."""


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


class _Message(_Body):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: Any = None  # older vLLM, SGLang, DeepSeek; of any type, so that an unexpected one is no error
    reasoning: Any = None  # newer vLLM, OpenRouter


class _Choice(_Body):
    index: int = 0
    finish_reason: str | None = None
    message: _Message | None = None
    text: str | None = None
    logprobs: Any = None
    """Validated separately: invalid log-probabilities are no reason to drop an answer."""


class _Cached(_Body):
    cached_tokens: int | None = None


class _Usage(_Body):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Cached | None = None


class _Answer(_Body):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def request_body(
    request: Request, model: str, unsupported: Collection[str], template_options: Mapping[str, Any]
) -> dict[str, Any]:
    """The JSON body for the chat endpoint (a conversation) or the completions endpoint (a string).

    Args:
        template_options: for the chat template, in the field that vLLM and SGLang read.
        unsupported: names of optional fields that this server has rejected.
    """
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "n": sampling.n,
        "seed": request_seed(sampling.seed, request.key),
    }
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if isinstance(request.prompt, str):
        body["prompt"] = request.prompt
        if request.choices is not None:
            # a field of vLLM; where a server ignores it, other texts are parse errors
            schema = {"json": verdict_schema(request.choices, request.slots)}
            constraint = {"choice": list(request.choices)} if request.reply == "word" else schema
            body |= {"logprobs": TOP_LOGPROBS_RAW, "extra_body": {"structured_outputs": constraint}}
    else:
        body["messages"] = [message.model_dump() for message in request.prompt]
        if template_options:
            body["extra_body"] = {"chat_template_kwargs": dict(template_options)}
        if request.choices is not None:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
            schema = verdict_schema(request.choices, request.slots)
            wanted = {"name": "verdict", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": wanted}
    if "max_tokens" in unsupported:
        body["max_completion_tokens"] = body["max_tokens"]
    return {name: value for name, value in body.items() if name not in unsupported}


def read_answer(request: Request, text: str) -> Reply:
    """Turn the body of a 200 answer into a reply: its completions, or the reason why there are none.

    Raises:
        UnreadableAnswer: the body is no completion; a retry may help.
        FewerCompletions: the server ignores ``n``; each completion needs a request of its own.
    """
    try:
        answer = _Answer.model_validate_json(text)
    except ValidationError as error:
        raise UnreadableAnswer(f"the answer is no completion: {_why(error)}: {text[:120]!r}") from None
    usage = answer.usage or _Usage()
    ordered = sorted(answer.choices, key=lambda choice: choice.index)
    if len(ordered) < request.sampling.n:
        raise FewerCompletions(f"asked for {request.sampling.n} completions, got {len(ordered)}")
    if len(ordered) == request.sampling.n:
        reply = gather(request, [_completion(request, choice) for choice in ordered])
    else:
        failure = Failure(Status.API_ERROR, f"asked for {request.sampling.n} completions, got {len(ordered)}")
        reply = Reply(request.key, failure=failure)
    return replace(
        reply,
        prompt_tokens=usage.prompt_tokens or 0,
        cached_tokens=(usage.prompt_tokens_details.cached_tokens or 0) if usage.prompt_tokens_details else 0,
        completion_tokens=usage.completion_tokens or 0,
    )


def single_requests(request: Request) -> list[Request]:
    """One request per completion. Their keys differ, and so do their seeds."""
    sampling = replace(request.sampling, n=1)
    return [replace(request, key=(request.key, i), sampling=sampling) for i in range(request.sampling.n)]


def join_replies(request: Request, parts: Sequence[Reply]) -> Reply:
    """The reply to a request whose completions were asked for one by one."""
    outcomes: list[Completion | Failure] = []
    for part in parts:
        outcomes += part.completions if part.failure is None else [part.failure]
    return replace(
        gather(request, outcomes),
        prompt_tokens=sum(part.prompt_tokens for part in parts),
        cached_tokens=sum(part.cached_tokens for part in parts),
        completion_tokens=sum(part.completion_tokens for part in parts),
    )


def _completion(request: Request, choice: _Choice) -> Completion | Failure:
    message = choice.message or _Message(content=choice.text)
    reason = (choice.finish_reason or "stop").lower()
    if message.refusal or reason in REFUSED_REASONS:
        return Failure(Status.REFUSED, one_line(message.refusal or "stopped by the server's content filter"))
    text = message.content or ""
    if request.choices is None:
        if reason in NO_ANSWER_REASONS:
            return Failure(Status.API_ERROR, f"unexpected finish_reason {choice.finish_reason!r}")
        return text_completion(request, *_split(request, message, text), "length" if reason in CUT_REASONS else "stop")
    if reason in CUT_REASONS:
        return Failure(Status.TRUNCATED, f"the judge's reply was cut off at {request.sampling.max_tokens} tokens")
    tokens = _scored_tokens(choice.logprobs)
    word = request.reply == "word"
    if word and isinstance(request.prompt, str):
        picks = read_word(text, tokens, request.choices)
    else:
        picks = read_object(text, tokens, request.choices, request.slots, or_word=word)
    if isinstance(picks, Failure):
        return picks
    return Completion(picks[0].choice if word else text, "stop", picks)


def _split(request: Request, message: _Message, text: str) -> tuple[str | None, str | None]:
    """Reasoning and answer, as the server separates them or split here; continued strings have no reasoning."""
    given = [each for each in (message.reasoning_content, message.reasoning) if isinstance(each, str) and each]
    if given or isinstance(request.prompt, str):
        return (given[0] if given else None), text
    return PLAIN.split(text, lenient=True)


def _scored_tokens(given: Any) -> list[ScoredToken]:
    """Log-probabilities in the form of the chat or of the completions endpoint; empty where they are invalid."""
    try:
        logprobs = _Logprobs.model_validate(given)
    except ValidationError:
        return []
    if logprobs.content is not None:
        return [
            ScoredToken(token.raw(), token.logprob, {top.raw(): top.logprob for top in token.top_logprobs or ()})
            for token in logprobs.content
        ]
    names, values = logprobs.tokens or [], logprobs.token_logprobs or []
    tops = logprobs.top_logprobs or [None] * len(names)
    return [
        ScoredToken(name.encode(), value, {other.encode(): each for other, each in (top or {}).items()})
        for name, value, top in zip(names, values, tops, strict=False)
        if value is not None
    ]


def _why(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return ": ".join([*(str(part) for part in first["loc"]), first["msg"]])

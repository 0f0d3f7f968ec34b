"""Requests to an OpenAI-compatible server as plain data, and the replies to them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from maskdpo.backends.base import Completion, Failure, Reply, Request, gather, request_seed
from maskdpo.backends.openai_answer import Choice, Message, UnreadableAnswer, read_answer_body
from maskdpo.backends.openai_errors import SYSTEM, server_error
from maskdpo.backends.reasoning import PLAIN, text_completion
from maskdpo.backends.structured import one_line, read_object, read_word, verdict_schema
from maskdpo.chat import without_system
from maskdpo.schemas import Status

TOP_LOGPROBS = 20
"""The most that chat endpoints report."""
TOP_LOGPROBS_RAW = 5
"""The most that completion endpoints report."""
CUT_REASONS = frozenset({"length", "max_tokens", "max_output_tokens", "model_context_window_exceeded"})
REFUSED_REASONS = frozenset({
    "content_filter", "refusal", "safety", "sensitive", "prohibited_content", "recitation", "blocklist",
})  # fmt: skip
TOOL_REASONS = frozenset({"tool_calls", "function_call", "tool_use"})
BROKEN_REASONS = frozenset({"error", "abort", "network_error", "insufficient_system_resource"})
"""Any other reason counts as the end of the answer: servers have their own names for it, or none."""


class FewerCompletions(UnreadableAnswer):
    """The server gave fewer completions than it was asked for."""


def request_body(
    request: Request,
    model: str,
    refused: Collection[str],
    template_options: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    """The JSON body for the chat endpoint (a conversation) or the completions endpoint (a string).

    A ``top_p`` and an ``n`` of 1 ask for nothing and are not sent, because some servers refuse them.

    Args:
        refused: what this server has refused: names of fields that can be left out, or ``SYSTEM``.
        template_options: for the chat template, in the field that vLLM and SGLang read.
        extra: further fields, which also replace those that are sent anyway.
    """
    sampling = request.sampling
    body: dict[str, Any] = {"model": model}
    if isinstance(request.prompt, str):
        body["prompt"] = request.prompt
        if request.choices is not None:
            # a field of vLLM; where a server ignores it, other texts are parse errors
            schema = {"json": verdict_schema(request.choices, request.slots)}
            constraint = {"choice": list(request.choices)} if request.reply == "word" else schema
            body |= {"logprobs": TOP_LOGPROBS_RAW, "structured_outputs": constraint}
    else:
        folded = without_system(request.prompt) if SYSTEM in refused else None
        body["messages"] = [message.model_dump() for message in folded or request.prompt]
        if template_options:
            body["chat_template_kwargs"] = dict(template_options)
        if request.choices is not None:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
            schema = verdict_schema(request.choices, request.slots)
            wanted = {"name": "verdict", "strict": True, "schema": schema}
            body["response_format"] = {"type": "json_schema", "json_schema": wanted}
    body |= {"max_tokens": sampling.max_tokens, "temperature": sampling.temperature}
    body["seed"] = request_seed(sampling.seed, request.key)
    if sampling.top_p != 1:
        body["top_p"] = sampling.top_p
    if sampling.n > 1:
        body["n"] = sampling.n
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if "max_tokens" in refused:
        body["max_completion_tokens"] = sampling.max_tokens
    if "logprobs" in refused:
        body.pop("top_logprobs", None)
    return {name: value for name, value in body.items() if name not in refused} | dict(extra)


def sent_otherwise(request: Request, body: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling parameters that a body does not have as the request wants them: None where they were left out."""
    sampling = request.sampling
    seed = request_seed(sampling.seed, request.key)
    wanted = {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": seed}
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    changed = {"max_tokens": limit} if limit != sampling.max_tokens else {}
    return changed | {name: body.get(name) for name, value in wanted.items() if body.get(name) != value}


def read_answer(request: Request, text: str) -> Reply:
    """Turn the body of a 200 answer into a reply: its completions, or the reason why there are none.

    Raises:
        UnreadableAnswer: the body is no completion; a retry may help.
        ErrorInAnswer: the body is an error.
        FewerCompletions: the server ignores ``n``; each completion needs a request of its own.
    """
    answer = read_answer_body(text)
    prompt, cached, completion = answer.tokens
    choices = answer.ordered()
    if len(choices) < request.sampling.n:
        raise FewerCompletions(f"asked for {request.sampling.n} completions, got {len(choices)}", answer.tokens)
    if len(choices) == request.sampling.n:
        reply = gather(request, [_completion(request, choice) for choice in choices])
    else:
        failure = Failure(Status.API_ERROR, f"asked for {request.sampling.n} completions, got {len(choices)}")
        reply = Reply(request.key, failure=failure)
    return replace(reply, prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion)


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
        sampling={name: value for part in parts for name, value in part.sampling.items()},
    )


def _completion(request: Request, choice: Choice) -> Completion | Failure:
    message, reason = choice.message, choice.reason
    if message.refusal or reason in REFUSED_REASONS:
        return Failure(Status.REFUSED, one_line(message.refusal or "stopped by the server's content filter"))
    reasoning, text = _split(request, message)
    if request.choices is not None:
        return _verdict(request, choice, text)
    said = bool(text and text.strip())
    if (failure := _no_answer(choice, said=said)) is not None:
        return failure
    cut = reason in CUT_REASONS
    if reasoning is None and not said and not isinstance(request.prompt, str):
        return _empty(request, cut=cut)
    return text_completion(request, reasoning, text, "length" if cut else "stop")


def _verdict(request: Request, choice: Choice, text: str | None) -> Completion | Failure:
    if choice.reason in CUT_REASONS:
        return Failure(Status.TRUNCATED, f"the judge's reply was cut off at {request.sampling.max_tokens} tokens")
    if text is None or not text.strip():
        what = "empty" if text is not None else "reasoning only"
        return _no_answer(choice, said=False) or Failure(Status.PARSE_ERROR, f"the reply is {what}")
    word = request.reply == "word"
    choices, tokens = request.choices or (), choice.tokens()
    if word and isinstance(request.prompt, str):
        picks = read_word(text, tokens, choices)
    else:
        picks = read_object(text, tokens, choices, request.slots, or_word=word)
    if isinstance(picks, Failure):
        return picks
    return Completion(picks[0].choice if word else text, "stop", picks)


def _no_answer(choice: Choice, *, said: bool) -> Failure | None:
    """Why a completion is no answer, where the server says so.

    Args:
        said: whether there is a text.
    """
    if choice.error:
        what = one_line(server_error(500, choice.error).text)
        return Failure(Status.API_ERROR, f"the server broke off with an error: {what}")
    if choice.reason in TOOL_REASONS or (choice.message.calls and not said):
        return Failure(Status.API_ERROR, "the model called a tool in place of an answer")
    if choice.reason in BROKEN_REASONS:
        return Failure(Status.API_ERROR, f"the server broke off the answer (finish_reason {choice.finish_reason!r})")
    return None


def _empty(request: Request, *, cut: bool) -> Failure:
    if cut:
        used = f"its {request.sampling.max_tokens} tokens were used up"
        return Failure(Status.TRUNCATED, f"the answer is empty: {used}, maybe by hidden reasoning; raise `max_tokens`")
    stop = ", or begins with a `stop` text" if request.sampling.stop else ""
    return Failure(Status.PARSE_ERROR, f"the answer is empty: the model has said nothing{stop}")


def _split(request: Request, message: Message) -> tuple[str | None, str | None]:
    """Reasoning and answer, as the server separates them or split here; continued strings have no reasoning."""
    if message.thoughts is not None or isinstance(request.prompt, str):
        return message.thoughts, message.text
    return PLAIN.split(message.text, lenient=True)

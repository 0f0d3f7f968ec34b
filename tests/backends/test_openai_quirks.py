"""What servers that speak the OpenAI API do in a way of their own, and what becomes of it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from maskdpo.backends import openai_pool
from maskdpo.backends.base import Failure, Pick, Reply, Request, Sampling
from maskdpo.backends.openai_backend import OpenAIBackend
from maskdpo.backends.settings import BackendSettings
from maskdpo.errors import UserError
from maskdpo.schemas import Message, Status
from tests.backends.fault_server import Answer, Asked, FaultServer, chat, problem, read_certificates, running

CHOICES = ("supported", "contradicted", "unknown")
VERDICT = '{"verdict": "unknown"}'


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with running() as fault_server:
        yield fault_server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl.create_default_context", read_certificates)
    monkeypatch.setattr(openai_pool, "FIRST_DELAY_S", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def ask(choices: tuple[str, ...] | None = None, system: bool = False, **sampling: Any) -> Request:
    messages = [Message(role="system", content="Be brief.")] if system else []
    messages += [Message(role="user", content="Where is Paris?")]
    return Request(0, messages, choices, sampling=Sampling(**sampling))


def replies(server: FaultServer, *requests: Request, **settings: Any) -> list[Reply]:
    numbered = [replace(request, key=i) for i, request in enumerate(requests)]
    backend = OpenAIBackend("m", BackendSettings(backend="openai", api_base=server.url, concurrency=1, **settings))
    return list(backend.generate(numbered))


def reply(server: FaultServer, request: Request, **settings: Any) -> Reply:
    return replies(server, request, **settings)[0]


def texts(answer: Reply) -> list[str]:
    assert answer.failure is None, answer.failure
    return [completion.text for completion in answer.completions]


def failure(answer: Reply) -> Failure:
    assert answer.failure is not None
    return answer.failure


def refusing(refuses: Callable[[dict[str, Any]], bool], answer: Answer, content: str = "fine") -> Any:
    """A server that answers, except requests of this kind."""

    def script(asked: Asked) -> Answer:
        count = asked.body.get("n", 1)
        return answer if refuses(asked.body) else Answer(chat(*[content] * count))

    return script


# --- the form of answers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "text", "reasoning"),
    [
        ([{"type": "text", "text": "Pa"}, {"type": "text", "text": "ris."}], "Paris.", None),
        ([{"type": "output_text", "text": "Paris."}, {"type": "image_url", "image_url": {}}], "Paris.", None),
        (["Paris."], "Paris.", None),
        (
            [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "Paris."}],
            "Paris.",
            "Hm.",
        ),
        ([{"type": "reasoning", "reasoning": "Hm."}, {"type": "text", "text": "Paris."}], "Paris.", "Hm."),
    ],
)
def test_a_content_in_parts_is_read_part_by_part(
    server: FaultServer, content: Any, text: str, reasoning: str | None
) -> None:
    server.queue.append(Answer(chat(content)))
    (completion,) = reply(server, ask()).completions
    assert (completion.text, completion.reasoning) == (text, reasoning)


def test_parts_may_hold_a_verdict_or_a_refusal(server: FaultServer) -> None:
    server.queue.append(Answer(chat([{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": VERDICT}])))
    assert reply(server, ask(CHOICES)).completions[0].picks == (Pick("unknown"),)
    server.queue.append(Answer(chat([{"type": "refusal", "refusal": "No."}])))
    assert failure(reply(server, ask(CHOICES))) == Failure(Status.REFUSED, "No.")


def test_a_verdict_may_come_as_an_object_and_behind_its_reasoning(server: FaultServer) -> None:
    server.queue += [Answer(chat({"verdict": "unknown"})), Answer(chat(f'<think>{{"a": 1}}</think>\n{VERDICT}'))]  # type: ignore[arg-type]
    assert [r.completions[0].picks for r in replies(server, ask(CHOICES), ask(CHOICES))] == [(Pick("unknown"),)] * 2
    server.queue.append(Answer(chat("<think>Hm, unknown")))
    assert failure(reply(server, ask(CHOICES))) == Failure(Status.PARSE_ERROR, "the reply is reasoning only")


@pytest.mark.parametrize(
    "more",
    [
        {"usage": {"prompt_tokens": 7, "prompt_tokens_details": []}},
        {"usage": {"prompt_tokens": 7, "completion_tokens": "many", "prompt_tokens_details": {"cached_tokens": {}}}},
    ],
)
def test_odd_usage_costs_only_what_is_odd(server: FaultServer, more: dict[str, Any]) -> None:
    server.queue.append(Answer(chat("Paris.", **more)))
    answer = reply(server, ask())
    assert (texts(answer), answer.prompt_tokens, answer.cached_tokens, answer.completion_tokens) == (
        ["Paris."],
        7,
        0,
        0,
    )


@pytest.mark.parametrize("usage", [[], "none", 3, {"prompt_tokens": None}, None])
def test_any_usage_at_all_leaves_the_answer(server: FaultServer, usage: Any) -> None:
    server.queue.append(Answer(chat("Paris.", usage=usage)))
    assert texts(reply(server, ask())) == ["Paris."]


def test_odd_values_in_a_choice_leave_its_text(server: FaultServer) -> None:
    body = chat("a", "b")
    for choice in body["choices"]:
        choice |= {"index": None, "finish_reason": {"type": "stop"}, "logprobs": "none", "stop_reason": []}
        choice["message"] |= {"refusal": [], "role": 3, "reasoning": {"effort": 1}, "tool_calls": []}
    server.queue.append(Answer(body))
    assert texts(reply(server, ask(n=2))) == ["a", "b"]


def test_a_byte_order_mark_and_half_a_character_cost_no_answer(server: FaultServer) -> None:
    server.queue.append(Answer(b"\xef\xbb\xbf" + json.dumps(chat("Paris.")).encode()))
    assert texts(reply(server, ask())) == ["Paris."]
    server.queue.append(Answer(json.dumps(chat("Paris \ud83d is \U0001f600", "Lyon"))))
    assert texts(reply(server, ask(n=2))) == ["Paris � is \U0001f600", "Lyon"]


# --- answers that are none ---------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, "", " \n ", [], [{"type": "image_url"}]])
def test_an_empty_answer_is_a_failure_that_the_next_run_asks_again(server: FaultServer, content: Any) -> None:
    server.queue.append(Answer(chat(content)))
    found = failure(reply(server, ask()))
    assert found == Failure(Status.PARSE_ERROR, "the answer is empty: the model has said nothing")
    server.queue.append(Answer(chat(content)))
    assert failure(reply(server, ask(CHOICES))) == Failure(Status.PARSE_ERROR, "the reply is empty")
    server.queue.append(Answer(chat(content, finish_reason="length")))
    assert failure(reply(server, ask())).status is Status.TRUNCATED


def test_one_bad_choice_leaves_the_good_ones(server: FaultServer) -> None:
    body = chat("a", "", "", "", "", "b")
    body["choices"][1]["finish_reason"] = "content_filter"
    body["choices"][2]["message"] = None
    body["choices"][3] = "broken"
    body["choices"][4] |= {"finish_reason": "error", "error": {"code": 502, "message": "upstream is down"}}
    server.queue.append(Answer(body))
    answer = reply(server, ask(n=6))
    assert texts(answer) == ["a", "b"]
    assert {i: each.status for i, each in answer.failed.items()} == {
        1: Status.REFUSED, 2: Status.PARSE_ERROR, 3: Status.PARSE_ERROR, 4: Status.API_ERROR,
    }  # fmt: skip
    assert "upstream is down" in answer.failed[4].message


@pytest.mark.parametrize("reason", ["tool_calls", "stop"])
@pytest.mark.parametrize("choices", [None, CHOICES])
def test_a_tool_call_is_called_one(server: FaultServer, choices: tuple[str, ...] | None, reason: str) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    server.queue.append(Answer(chat(None, finish_reason=reason, thoughts={"tool_calls": [call]})))
    assert failure(reply(server, ask(choices))).message == "the model called a tool in place of an answer"


@pytest.mark.parametrize(
    ("content", "what", "status"),
    [
        ('<tool_call>\n{"name": "search"}\n</tool_call>', "a tool call", Status.PARSE_ERROR),
        ('{"name": "search", "arguments": {"q": 1}}', "a tool call", Status.PARSE_ERROR),
        ('{"error": "overloaded"}', "an error message", Status.PARSE_ERROR),
        ("Internal server error: no slot", "an error message", Status.PARSE_ERROR),
        ("I'm sorry, but I can't help with that.", "a refusal", Status.REFUSED),
        ("I’m unable to judge this.", "a refusal", Status.REFUSED),
        ("很抱歉，我无法回答。", "a refusal", Status.REFUSED),
    ],
)
def test_a_reply_that_is_no_verdict_is_called_what_it_is(
    server: FaultServer, content: str, what: str, status: Status
) -> None:
    server.queue.append(Answer(chat(content)))
    found = failure(reply(server, ask(CHOICES)))
    assert found.status is status
    assert found.message.startswith(f"{what} in place of a verdict: ")


@pytest.mark.parametrize(
    "fence", ["```json\n{}\n```", "```JSON\n{}\n```", "```\n{}```", "~~~Json\n{}\n~~~\n", "```json {} ```"]
)
def test_json_in_one_fence_is_read(server: FaultServer, fence: str) -> None:
    server.queue.append(Answer(chat(fence.replace("{}", VERDICT))))
    assert reply(server, ask(CHOICES)).completions[0].picks == (Pick("unknown"),)


@pytest.mark.parametrize(
    "text", ["Here it is:\n```json\n{}\n```", "```json\n{}\n```\nAnything else?", "```python\n{}\n```"]
)
def test_json_beside_other_words_is_a_parse_error(server: FaultServer, text: str) -> None:
    server.queue.append(Answer(chat(text.replace("{}", VERDICT))))
    assert failure(reply(server, ask(CHOICES))).status is Status.PARSE_ERROR


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ({"error": {"message": "Provider returned error", "code": 429, "metadata": {"raw": "busy upstream"}}}, 2),
        ({"error": {"message": "no such thing: busy upstream", "code": 400}, "choices": None}, 1),
        ({"object": "error", "message": "bad: busy upstream", "code": 400}, 1),
        ({"error": "busy upstream"}, 2),
        ({"choices": [{"error": {"code": 503, "message": "busy upstream"}, "message": {"content": ""}}]}, 2),
    ],
)
def test_an_error_with_status_200_is_an_error(server: FaultServer, body: dict[str, Any], asked: int) -> None:
    server.script = lambda _: Answer(body)
    found = failure(reply(server, ask(), max_retries=1))
    assert found.status is Status.API_ERROR
    assert "busy upstream" in found.message
    assert len(server.asked) == asked


# --- what servers refuse -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        problem(400, "Only one completion choice is allowed", code=400),
        problem(500, "Only one completion choice is allowed", code=500),
        problem(400, "Multiple candidates is not enabled for this model"),
        problem(400, "n > 1 is not supported"),
        Answer({"detail": [{"loc": ["body", "n"], "msg": "ensure this value is less than or equal to 1"}]}, 422),
        problem(400, "best_of is off on this machine"),
        problem(501, "not implemented"),
        Answer({"object": "error", "message": "one at a time", "code": 400}),
    ],
)
def test_one_completion_per_call_whatever_the_words(
    server: FaultServer, capsys: pytest.CaptureFixture[str], answer: Answer
) -> None:
    server.script = refusing(lambda body: body.get("n", 1) > 1, answer)
    answers = replies(server, ask(n=3), ask(n=3))
    assert [texts(each) for each in answers] == [["fine"] * 3] * 2
    assert sum(asked.body.get("n", 1) > 1 for asked in server.asked) == 1  # learnt once
    assert capsys.readouterr().err.count("one completion per call") == 1


def test_a_request_that_fails_on_its_own_too_leaves_n(server: FaultServer) -> None:
    server.queue += [problem(400, "bad words"), problem(400, "bad words")]
    first, second = replies(server, ask(n=3), ask(n=3))
    assert "bad words" in failure(first).message
    assert texts(second) == ["fine"] * 3  # this server gives one completion per call, and says no word about it
    assert [asked.body.get("n", 1) for asked in server.asked] == [3, 1, 3, 1, 1, 1]


BOTH = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
INSIDE = f'litellm.BadRequestError: BedrockException - {{"message":"The model returned the following errors: {BOTH}"}}'


@pytest.mark.parametrize("message", [BOTH, INSIDE])
def test_of_temperature_and_top_p_the_second_goes(server: FaultServer, message: str) -> None:
    refused = problem(400, message, param="None", code="400")
    server.script = refusing(lambda body: {"temperature", "top_p"} <= body.keys(), refused)
    answer = reply(server, ask(temperature=0.5, top_p=0.9))
    assert answer.sampling == {"top_p": None}
    assert server.asked[-1].body["temperature"] == 0.5
    assert "top_p" not in server.asked[-1].body


def test_a_top_p_of_1_and_an_n_of_1_are_not_sent(server: FaultServer) -> None:
    assert reply(server, ask()).sampling == {"top_p": None}
    assert not {"top_p", "n"} & server.asked[0].body.keys()


@pytest.mark.parametrize(
    ("field", "answer"),
    [
        ("response_format", problem(500, 'response_format type must be "text", but got: json_schema', code=500)),
        ("response_format", problem(502, "upstream said 400: structured outputs are not supported")),
        ("logprobs", problem(404, "No endpoints found that support logprobs")),
        ("logprobs", problem(500, "KeyError: 'output_logprobs'")),
        ("seed", problem(400, 'AnthropicException - {"error":{"message":"seed: Extra inputs are not permitted"}}')),
        ("seed", Answer([{"error": {"code": 400, "message": 'Unknown name "seed": Cannot find field.'}}], 400)),
        ("seed", problem(400, "Provider returned error", metadata={"raw": "'seed' is not supported"})),
        ("stop", problem(400, "Unsupported parameter: 'stop' is not supported with this model.", param="stop")),
        ("temperature", problem(400, "`temperature` is deprecated for this model.")),
    ],
)
def test_a_refused_field_is_found_wherever_and_with_whatever_status(
    server: FaultServer, field: str, answer: Answer
) -> None:
    server.script = refusing(lambda body: field in body, answer, VERDICT)
    first, second = replies(server, *[ask(CHOICES, stop=("END",))] * 2, max_retries=0)
    assert first.failure is second.failure is None
    assert [field in asked.body for asked in server.asked] == [True, False, False]


def test_texts_that_end_an_answer_do_so_without_the_server(server: FaultServer) -> None:
    server.script = refusing(lambda body: "stop" in body, problem(400, "'stop' is not supported"), "Paris. END Lyon.")
    answer = reply(server, ask(stop=("END",)))
    assert texts(answer) == ["Paris. "]
    assert "stop" not in answer.sampling


def test_the_reply_says_which_parameters_the_model_did_not_get(server: FaultServer) -> None:
    def script(asked: Asked) -> Answer:
        if "max_tokens" in asked.body:
            return problem(400, "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.")
        if "temperature" in asked.body:
            return problem(400, "'temperature' does not support 0.2. Only the default (1) value is supported.")
        return problem(400, "Unknown parameter: 'seed'") if "seed" in asked.body else Answer(chat("fine"))

    server.script = script
    first, second = replies(server, ask(temperature=0.2, top_p=0.9, max_tokens=9), ask(temperature=0.2, top_p=0.9, n=2))
    assert first.sampling == {"temperature": None, "seed": None}
    assert second.sampling == {"temperature": None, "seed": None}
    assert server.asked[-1].body["max_completion_tokens"] == 256


@pytest.mark.parametrize(
    "answer",
    [
        problem(400, "System role not supported"),
        problem(500, "Jinja Exception: Conversation roles must alternate user/assistant/user/assistant/..."),
        problem(400, "Error rendering prompt with jinja template: Only user and assistant roles are supported!"),
        problem(400, "Developer instruction is not enabled for models/gemma-3-27b-it"),
        problem(400, "'messages[0].role' does not support 'system' with this model.", param="messages[0].role"),
        Answer({"error": "Template error: System role not supported", "error_type": "template_error"}, 422),
    ],
)
def test_a_system_message_that_is_refused_goes_before_the_first_user_message(
    server: FaultServer, capsys: pytest.CaptureFixture[str], answer: Answer
) -> None:
    server.script = refusing(lambda body: body["messages"][0]["role"] == "system", answer, VERDICT)
    first, second = replies(server, *[ask(CHOICES, system=True)] * 2, max_retries=0)
    assert first.failure is second.failure is None
    assert len(server.asked) == 3
    assert server.asked[-1].body["messages"] == [{"role": "user", "content": "Be brief.\n\nWhere is Paris?"}]
    assert capsys.readouterr().err.count("takes no system message") == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer({"error": "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5059 `inputs` tokens"}, 422),
        Answer([{"error": {"code": 400, "message": "The input token count (12) exceeds the maximum (10)."}}], 400),
        problem(400, "input length and `max_tokens` exceed context limit: 90402 + 116650 > 204648"),
        problem(400, "prompt is too long: 207791 tokens > 200000 maximum"),
        problem(400, "Prompt contains 40000 tokens, too large for model with 32768 maximum context length"),
        problem(400, "Range of input length should be [1, 30720]"),
        problem(400, "number of input tokens (204703) has exceeded max_prompt_tokens (202752) limit."),
        problem(400, "Prompt exceeds max length"),
        problem(400, "Input is too long for requested model."),
        problem(400, "This model's maximum prompt length is 131072 but the request contains 537812 tokens."),
        problem(400, "Trying to keep the first 5059 tokens when context the overflows."),
        problem(500, "the request exceeds the available context size", type="exceed_context_size_error"),
        problem(400, "zu lang", type="exceed_context_size_error"),
        Answer("<html><h1>413 Request Entity Too Large</h1></html>", 413, {"content-type": "text/html"}),
    ],
)
def test_a_prompt_that_is_too_long_is_truncated_in_the_words_of_any_server(server: FaultServer, answer: Answer) -> None:
    server.script = lambda _: answer
    assert failure(reply(server, ask(CHOICES, n=2))).status is Status.TRUNCATED
    assert len(server.asked) == 1


def test_a_limit_of_the_reply_is_no_prompt_that_is_too_long(server: FaultServer) -> None:
    server.script = lambda _: problem(400, "max_tokens is too large: 9000. At most 4096 new tokens are supported")
    assert failure(reply(server, ask())).status is Status.API_ERROR


@pytest.mark.parametrize("headers", [{"retry-after": "0"}, {"retry-after-ms": "1"}, {"retry-after-ms": "nan"}])
def test_a_wait_of_nothing_does_not_make_the_retries_spin(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    monkeypatch.setattr(openai_pool, "FIRST_DELAY_S", 0.1)
    server.script = lambda _: problem(429, "busy", headers=headers)
    reply(server, ask(), max_retries=2)
    assert server.asked[-1].at - server.asked[0].at > 0.075 + 0.15


# --- further fields ----------------------------------------------------------------------------------


def test_extra_fields_are_part_of_every_request(server: FaultServer) -> None:
    extra = {"enable_thinking": False, "provider": {"sort": "price"}, "temperature": 0.6, "top_p": 1}
    answer = reply(server, ask(n=1, max_tokens=9), extra=extra)
    assert extra.items() <= server.asked[0].body.items()
    assert answer.sampling == {"temperature": 0.6}  # top_p is as it was asked for
    reply(server, Request(0, "Go on"), extra=extra)
    assert extra.items() <= server.asked[-1].body.items()


def test_an_extra_field_that_is_refused_is_one_line_and_is_never_left_out(server: FaultServer) -> None:
    server.script = lambda _: problem(400, "Unrecognized request argument supplied: seed")
    with pytest.raises(UserError, match=r"refuses 'seed' as `extra` has it: .*Unrecognized"):
        reply(server, ask(), extra={"seed": 3})
    assert len(server.asked) == 1


@pytest.mark.parametrize("name", ["messages", "model", "n", "stream", "chat_template_kwargs"])
def test_fields_that_other_settings_decide_are_no_extra(name: str) -> None:
    with pytest.raises(ValueError, match="other settings decide it"):
        BackendSettings(backend="openai", extra={name: 1})


# --- prompts that are cut ----------------------------------------------------------------------------

WORDS = "The Seine runs through the middle of Paris, and a ferry crosses it twice a day in summer. "


def about(characters: int, filler: str = WORDS) -> Request:
    text = (filler * (characters // len(filler) + 1))[:characters]
    return Request(0, [Message(role="user", content=text)])


def counting(most: int, per_token: float = 4.5, **more: Any) -> Any:
    """A server that reads no more than so many tokens."""

    def script(asked: Asked) -> Answer:
        tokens = int(len(asked.body["messages"][0]["content"]) / per_token)
        return Answer(chat("fine", usage={"prompt_tokens": min(tokens, most), **more}))

    return script


def warnings(server: FaultServer, capsys: pytest.CaptureFixture[str], *requests: Request) -> str:
    replies(server, *requests)
    return " ".join(capsys.readouterr().err.split())


def test_prompts_that_the_server_cuts_are_counted_in_one_warning(
    server: FaultServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script = counting(2048)
    said = warnings(server, capsys, about(1_000), about(40_000), about(30_000), about(5_000))
    assert said.count("cuts long prompts") == 1
    assert "2 of 4, to 2,048 tokens of up to 40,000 characters" in said
    assert "OLLAMA_CONTEXT_LENGTH" in said


def test_prompts_of_other_lengths_with_one_count_were_cut(
    server: FaultServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script = counting(2048)
    assert "3 of 4, to 2,048 tokens" in warnings(
        server, capsys, about(9_300), about(12_000), about(10_000), about(2_000)
    )


def test_a_server_that_cuts_to_half_its_context_is_found_out(
    server: FaultServer, capsys: pytest.CaptureFixture[str]
) -> None:
    def script(asked: Asked) -> Answer:
        tokens = len(asked.body["messages"][0]["content"]) * 2 // 9
        return Answer(chat("fine", usage={"prompt_tokens": tokens if tokens <= 4096 else 2050}))

    server.script = script
    assert "1 of 2, to 2,050 tokens" in warnings(server, capsys, about(18_000), about(19_000))


@pytest.mark.parametrize(
    ("requests", "script"),
    [
        ([about(1_000 * i) for i in range(1, 40)], counting(10**6)),
        ([about(30_000, "汉字的语言。")], counting(10**6, 1.4)),
        ([about(30_000, " " * 40 + "|")], counting(10**6, 12.0)),  # tokenizers join spaces
        ([about(9_000)] * 3, counting(2000)),  # the same prompt
        ([about(30_000), about(20_000)], counting(60)),  # only what was not in the cache
        ([about(30_000)], counting(2000, prompt_tokens_details={"cached_tokens": 5000})),
    ],
)
def test_prompts_that_are_whole_bring_no_warning(
    server: FaultServer, capsys: pytest.CaptureFixture[str], requests: list[Request], script: Any
) -> None:
    server.script = script
    assert warnings(server, capsys, *requests) == ""

"""The OpenAI backend against a server that misbehaves on command."""

import json
import logging
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from maskdpo.backends import openai_context, openai_pool
from maskdpo.backends.base import Failure, Pick, Reply, Request, Sampling
from maskdpo.backends.openai_backend import OpenAIBackend
from maskdpo.backends.settings import BackendSettings
from maskdpo.errors import UserError
from maskdpo.schemas import Message, Status
from tests.backends.fault_server import Answer, Asked, FaultServer, chat, problem, read_certificates, running, text

KEY = "sk-very-secret-0123456789"
CHOICES = ("supported", "contradicted", "unknown")


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with running() as fault_server:
        yield fault_server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl.create_default_context", read_certificates)
    monkeypatch.setattr(openai_pool, "FIRST_DELAY_S", 0.01)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def ask(key: object = 0, prompt: str = "Say something.", choices: tuple[str, ...] | None = None) -> Request:
    return Request(key, [Message(role="user", content=prompt)], choices)


def generate(server: FaultServer, *requests: Request, sampling: Sampling | None = None, **options: Any) -> list[Reply]:
    backend = OpenAIBackend("m", BackendSettings(backend="openai", api_base=server.url, **options))
    return list(backend.generate(replace(each, sampling=sampling) if sampling else each for each in requests))


def one(server: FaultServer, request: Request | None = None, **options: Any) -> Reply:
    (reply,) = generate(server, request or ask(), **options)
    return reply


def failure(reply: Reply) -> Failure:
    assert reply.failure is not None
    assert reply.completions == ()
    assert "\n" not in reply.failure.message
    return reply.failure


# --- what is asked ---------------------------------------------------------------------------------


def test_a_conversation_goes_to_the_chat_endpoint_with_all_the_options(server: FaultServer) -> None:
    messages = [Message(role="system", content="Be brief."), Message(role="user", content="你好?")]
    sampling = Sampling(max_tokens=7, temperature=0.5, top_p=0.9, n=1, seed=3, stop=("\n\n", "END"))
    reply = one(server, Request("k", messages), sampling=sampling)
    assert reply.key == "k"
    assert [(c.text, c.finish_reason, c.picks) for c in reply.completions] == [("fine", "stop", ())]
    (asked,) = server.asked
    seed = asked.body.pop("seed")
    assert isinstance(seed, int)
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "你好?"}],
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["\n\n", "END"],
    }


def test_a_string_goes_to_the_completions_endpoint_as_it_is(server: FaultServer) -> None:
    server.script = lambda asked: Answer(text(" Paris"))
    reply = one(server, Request(0, "The capital of France is"))
    assert server.asked[0].path == "/v1/completions"
    assert server.asked[0].body["prompt"] == "The capital of France is"
    assert reply.completions[0].text == " Paris"


def test_seeds_depend_on_the_key_and_the_seed_alone(server: FaultServer) -> None:
    def seeds(seed: int) -> dict[str, int]:
        server.asked.clear()
        generate(server, ask("a", "A"), ask("b", "B"), sampling=Sampling(seed=seed))
        return {asked.body["messages"][0]["content"]: asked.body["seed"] for asked in server.asked}

    assert seeds(1) == seeds(1)
    assert seeds(1)["A"] != seeds(1)["B"]
    assert seeds(1)["A"] != seeds(2)["A"]


def test_n_completions_come_from_one_request_in_order(server: FaultServer) -> None:
    body = chat("a", "b", "c")
    body["choices"].reverse()
    server.queue.append(Answer(body))
    reply = one(server, sampling=Sampling(n=3))
    assert [completion.text for completion in reply.completions] == ["a", "b", "c"]
    assert [asked.body["n"] for asked in server.asked] == [3]


@pytest.mark.parametrize(
    "answer", [Answer(chat("fine")), problem(400, "'n' : number must be at most 1"), problem(400, "bad", param="n")]
)
def test_a_server_without_n_is_asked_for_each_completion_on_its_own(server: FaultServer, answer: Answer) -> None:
    def script(asked: Asked) -> Answer:
        usage = {"prompt_tokens": 10, "completion_tokens": 2}
        return answer if asked.body.get("n", 1) > 1 else Answer(chat(str(asked.body["seed"]), usage=usage))

    server.script = script
    replies = generate(server, ask(0), ask(1), sampling=Sampling(n=3), concurrency=1)
    assert [asked.body.get("n") for asked in server.asked].count(3) == 1  # learnt once, then remembered
    assert len(server.asked) == 1 + 3 + 3
    assert sorted(reply.key for reply in replies) == [0, 1]  # type: ignore[type-var]
    assert len({completion.text for reply in replies for completion in reply.completions}) == 6
    assert [(reply.prompt_tokens, reply.completion_tokens) for reply in replies] == [(30, 6)] * 2


def test_of_single_votes_those_that_read_count_and_of_single_answers_the_good_ones(server: FaultServer) -> None:
    server.queue += [Answer(chat(verdict("unknown"))), *(Answer(chat(s)) for s in ("?", verdict("supported"), "!"))]
    reply = one(server, ask(choices=CHOICES), sampling=Sampling(n=3))
    assert [completion.text for completion in reply.completions] == ["supported"]
    server.queue += [Answer(chat("a")), Answer(chat("b")), problem(400, "bad"), Answer(chat("c"))]
    reply = one(server, sampling=Sampling(n=3), concurrency=1)
    assert [completion.text for completion in reply.completions] == ["b", "c"]
    assert {i: "bad" in each.message for i, each in reply.failed.items()} == {1: True}  # its place is known


@pytest.mark.parametrize(
    ("answer", "reasoning", "text_"),
    [
        (chat("Yes.", thoughts={"reasoning_content": "Hm."}), "Hm.", "Yes."),
        (chat("Yes.", thoughts={"reasoning": "Hm."}), "Hm.", "Yes."),
        (chat("Yes.", thoughts={"reasoning": "Hm.", "reasoning_content": None}), "Hm.", "Yes."),
        (chat("a </think> b", thoughts={"reasoning": "Hm."}), "Hm.", "a </think> b"),
        (chat("Yes.", thoughts={"reasoning": {"effort": "low"}}), None, "Yes."),
        (chat("Yes.", thoughts={"reasoning_content": ""}), None, "Yes."),
        (chat("<think>\nHm.\n</think>\n\nYes."), "\nHm.\n", "\n\nYes."),
        (chat("Hm.\n</think>\n\nYes."), "Hm.\n", "\n\nYes."),
        (chat("Yes."), None, "Yes."),
    ],
)
def test_reasoning_is_kept_apart_however_a_server_sends_it(
    server: FaultServer, answer: dict[str, Any], reasoning: str | None, text_: str
) -> None:
    server.queue.append(Answer(answer))
    (completion,) = one(server).completions
    assert (completion.reasoning, completion.text) == (reasoning, text_)


@pytest.mark.parametrize(
    "answer",
    [
        chat("<think>\nHm, and", finish_reason="length"),
        chat(None, finish_reason="length", thoughts={"reasoning_content": "Hm, and"}),
        chat("", finish_reason="length", thoughts={"reasoning": "Hm, and"}),
        chat("<think>Hm.</think>\n\n", finish_reason="length"),
    ],
)
def test_reasoning_alone_is_a_failure(server: FaultServer, answer: dict[str, Any]) -> None:
    server.script = lambda asked: Answer(answer)
    found = failure(one(server, sampling=Sampling(max_tokens=9)))
    used = "its 9 tokens were used up; raise `max_tokens`"
    assert found == Failure(Status.TRUNCATED, f"the answer consists of reasoning only: {used}")


def test_an_answer_that_ends_within_its_reasoning_names_stop_texts_as_a_cause(server: FaultServer) -> None:
    server.queue.append(Answer(chat("<think>Hm.")))
    found = failure(one(server, sampling=Sampling(stop=("\n",))))
    assert found.status is Status.PARSE_ERROR
    assert "a `stop` text occurs in it" in found.message


def test_one_answer_of_reasoning_alone_does_not_lose_the_others(server: FaultServer) -> None:
    server.queue.append(Answer(chat("A", "<think>Hm, and", "C", finish_reason="length")))
    reply = one(server, sampling=Sampling(n=3), concurrency=1)
    assert [completion.text for completion in reply.completions] == ["A", "C"]
    assert reply.failure is None
    assert {i: each.status for i, each in reply.failed.items()} == {1: Status.TRUNCATED}


def test_a_verdict_and_a_raw_text_are_left_as_they_are(server: FaultServer) -> None:
    server.queue.append(Answer(chat(verdict("unknown"), thoughts={"reasoning": "Hm."})))
    (completion,) = one(server, ask(choices=CHOICES)).completions
    assert (completion.text, completion.reasoning) == ("unknown", None)
    server.queue.append(Answer(text("Hm.</think>Yes.")))
    (completion,) = one(server, Request(0, "Go on")).completions
    assert (completion.text, completion.reasoning) == ("Hm.</think>Yes.", None)


def test_template_options_go_to_the_servers_template(server: FaultServer) -> None:
    options = {"enable_thinking": False, "effort": "low"}
    one(server, template_options=options)
    assert server.asked[-1].body["chat_template_kwargs"] == options
    server.queue.append(Answer(text("a")))
    one(server, Request(0, "Go on"), template_options=options)
    assert "chat_template_kwargs" not in server.asked[-1].body


@pytest.mark.parametrize(
    "answer",
    [
        problem(400, "Unrecognized request argument supplied: chat_template_kwargs"),
        problem(422, "[{'type': 'extra_forbidden', 'loc': ('body', 'chat_template_kwargs'), 'msg': 'Extra inputs'}]"),
    ],
)
def test_a_server_that_takes_no_template_options_is_one_line(server: FaultServer, answer: Answer) -> None:
    server.script = lambda asked: answer
    with pytest.raises(UserError) as caught:
        one(server, template_options={"enable_thinking": False})
    assert "takes no options for the chat template" in str(caught.value)
    assert "Leave `template_options` out" in str(caught.value)
    assert len(server.asked) == 1


def test_single_calls_keep_to_the_concurrency(server: FaultServer) -> None:
    server.script = lambda asked: Answer(chat("x"), delay_s=0.02)
    generate(server, *(ask(i) for i in range(4)), sampling=Sampling(n=5), concurrency=2)
    assert server.most_open == 2


def test_usage_with_cached_tokens(server: FaultServer) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105}
    server.queue += [
        Answer(chat("x", usage={**usage, "prompt_tokens_details": {"cached_tokens": 96}})),
        Answer(chat("x", usage={**usage, "prompt_tokens_details": None})),
        Answer(chat("x")),
    ]
    counts = [(r.prompt_tokens, r.cached_tokens, r.completion_tokens) for r in (one(server), one(server), one(server))]
    assert counts == [(100, 96, 5), (100, 0, 5), (0, 0, 0)]


def test_an_answer_cut_at_the_limit_is_a_completion_that_says_so(server: FaultServer) -> None:
    server.queue.append(Answer(chat("Once upon a", finish_reason="length")))
    (completion,) = one(server).completions
    assert (completion.text, completion.finish_reason) == ("Once upon a", "length")


# --- choices ---------------------------------------------------------------------------------------


def verdict(name: str) -> str:
    return json.dumps({"verdict": name})


def test_choices_are_a_json_schema_and_come_back_as_text(server: FaultServer) -> None:
    server.queue.append(Answer(chat(verdict("unknown"))))
    (completion,) = one(server, ask(choices=CHOICES)).completions
    assert completion.picks == (Pick("unknown"),)
    body = server.asked[0].body
    assert body["response_format"]["type"] == "json_schema"
    assert body["response_format"]["json_schema"]["strict"] is True
    assert body["response_format"]["json_schema"]["schema"]["properties"] == {
        "verdict": {"type": "string", "enum": list(CHOICES)}
    }
    assert (body["logprobs"], body["top_logprobs"]) == (True, 20)


def token(name: str, probability: float, **others: float) -> dict[str, Any]:
    top = [{"token": t, "logprob": math.log(p), "bytes": list(t.encode())} for t, p in others.items()]
    own = {"token": name, "logprob": math.log(probability), "bytes": list(name.encode())}
    return {**own, "top_logprobs": [own, *top]}


def with_logprobs(*tokens: dict[str, Any]) -> Answer:
    return Answer(chat("".join(each["token"] for each in tokens), logprobs={"content": list(tokens)}))


HEAD = (token('{"', 0.9, Sure=0.1), token("verdict", 1.0), token('":', 0.99), token(' "', 0.7, **{"\n": 0.3}))


def test_the_probability_is_that_of_the_choice_among_the_offered(server: FaultServer) -> None:
    server.queue.append(
        with_logprobs(*HEAD, token("unk", 0.4, supported=0.1, contra=0.1, maybe=0.4), token('nown"}', 0.6))
    )
    (completion,) = one(server, ask(choices=CHOICES)).completions
    assert completion.text == "unknown"
    assert completion.picks[0].probability == pytest.approx(0.4 / 0.6)


def test_a_probability_that_the_reported_tokens_do_not_settle_is_none(server: FaultServer) -> None:
    server.queue.append(with_logprobs(*HEAD, token("unk", 0.4, maybe=0.3), token("nown", 1.0), token('"}', 1.0)))
    (completion,) = one(server, ask(choices=CHOICES)).completions
    assert completion.picks == (Pick("unknown"),)


def test_a_server_without_logprobs_is_asked_again_without_them(server: FaultServer) -> None:
    def script(asked: Asked) -> Answer:
        if "top_logprobs" in asked.body:
            return problem(400, "top_logprobs is not supported by this model")
        if "logprobs" in asked.body:
            return problem(422, "logprobs: extra inputs are not permitted")
        return Answer(chat(verdict("unknown")))

    server.script = script
    replies = generate(server, *(ask(i, choices=CHOICES) for i in range(4)), concurrency=1)
    assert [reply.completions[0].text for reply in replies] == ["unknown"] * 4
    assert len(server.asked) == 3 + 3  # learnt once, then remembered


def test_choices_for_a_raw_prompt(server: FaultServer) -> None:
    logprobs = {
        "tokens": [" y", "es"],
        "token_logprobs": [math.log(0.8), 0.0],
        "top_logprobs": [{" no": math.log(0.1)}, {}],
    }
    server.queue.append(Answer(text(" yes", logprobs=logprobs)))
    reply = one(server, Request(0, "Is it so?", ("yes", "no")))
    assert reply.completions[0].text == "yes"
    assert server.asked[0].body["structured_outputs"] == {"choice": ["yes", "no"]}
    server.queue.append(Answer(text("perhaps")))
    assert failure(one(server, Request(0, "Is it so?", ("yes", "no")))).status is Status.PARSE_ERROR


@pytest.mark.parametrize(
    "content",
    ["", "unknown, I think", '{"verdict": "unknown", "verdict": "unknown"}',
     '{"verdict": "unknown"', '{"verdict": "maybe"}', "maybe", '{"label": "unknown"}',
     '{"verdict": ["unknown"]}', '{"verdict": null}', '["unknown"]', '{"verdict": "unknown", "x": 1}',
     'It is {"verdict": "unknown"}'],
)  # fmt: skip
def test_anything_but_an_offered_choice_is_a_parse_error(server: FaultServer, content: str) -> None:
    server.queue.append(Answer(chat(content)))
    assert failure(one(server, ask(choices=CHOICES))).status is Status.PARSE_ERROR
    assert len(server.asked) == 1


@pytest.mark.parametrize("content", ["Unknown", "UNKNOWN.", '{"verdict": "Unknown"}', '{"verdict":"UNKNOWN"}'])
def test_capitals_do_not_make_another_word(server: FaultServer, content: str) -> None:
    server.queue.append(Answer(chat(content)))
    (completion,) = one(server, ask(choices=CHOICES)).completions
    assert (completion.text, completion.picks) == ("unknown", (Pick("unknown"),))


def test_capitals_count_where_they_are_what_tells_choices_apart(server: FaultServer) -> None:
    choices = ("No", "NO", "yes")
    for content, expected in (("NO", "NO"), ('{"verdict": "No"}', "No"), ("Yes", "yes")):
        server.queue.append(Answer(chat(content)))
        assert one(server, ask(choices=choices)).completions[0].text == expected
    server.queue.append(Answer(chat("no")))
    assert failure(one(server, ask(choices=choices))).status is Status.PARSE_ERROR


def test_other_capitals_leave_the_probability_open_and_the_next_slot_its_own(server: FaultServer) -> None:
    server.queue.append(
        with_logprobs(
            token('{"1": "', 1.0), token("Supported", 0.9, supported=0.1), token('", "2": "', 1.0),
            token("unknown", 0.6, supported=0.2, contra=0.2), token('"}', 1.0),
        )
    )  # fmt: skip
    (completion,) = one(server, joint("1", "2")).completions
    assert [pick.choice for pick in completion.picks] == ["supported", "unknown"]
    assert [pick.probability for pick in completion.picks] == [None, pytest.approx(0.6)]


ODD = {"token": "x", "logprob": -0.1, "bytes": None}


@pytest.mark.parametrize(
    "logprobs",
    [[], "none", 0, {"content": [{**ODD, "logprob": None}]}, {"content": [{**ODD, "bytes": [300]}]},
     {"content": [{**ODD, "bytes": [-1]}]}, {"content": "x"}, {"content": [{**ODD, "top_logprobs": {"x": 0}}]},
     {"tokens": ["x"], "token_logprobs": ["a"]},
     {"tokens": ["x"], "token_logprobs": [-1], "top_logprobs": [{"x": None}]}],
)  # fmt: skip
def test_odd_logprobs_cost_the_probability_and_not_the_verdict(server: FaultServer, logprobs: Any) -> None:
    server.script = lambda asked: Answer(chat(verdict("unknown"), logprobs=logprobs))
    reply = one(server, ask(choices=CHOICES), max_retries=0)
    assert reply.failure is None
    assert reply.completions[0].picks == (Pick("unknown"),)


@pytest.mark.parametrize("reason", ["eos", "end_turn", "EOS", "tool_calls", "", None])
def test_a_verdict_that_reads_is_one_whatever_ended_it(server: FaultServer, reason: str | None) -> None:
    server.queue.append(Answer(chat(verdict("unknown"), finish_reason=reason)))
    assert one(server, ask(choices=CHOICES)).completions[0].text == "unknown"


@pytest.mark.parametrize("reason", ["eos", "end_turn", "stop_sequence", "", None])
def test_an_answer_that_ended_in_a_servers_own_words_has_stopped(server: FaultServer, reason: str | None) -> None:
    server.queue.append(Answer(chat("fine", finish_reason=reason)))
    (completion,) = one(server).completions
    assert (completion.text, completion.finish_reason) == ("fine", "stop")


@pytest.mark.parametrize(
    "content", ["unknown", " unknown.\n", "**unknown**", '"unknown"', '```json\n{"verdict": "unknown"}\n```']
)
def test_a_server_without_structured_output_may_send_the_bare_word_or_a_fence(
    server: FaultServer, content: str
) -> None:
    server.queue.append(problem(400, "response_format is not supported"))
    server.queue.append(Answer(chat(content)))
    assert one(server, ask(choices=CHOICES)).completions[0].picks == (Pick("unknown"),)
    assert "response_format" not in server.asked[1].body


# --- several verdicts in one reply ------------------------------------------------------------------


def joint(*ids: str) -> Request:
    return replace(ask(choices=CHOICES), slots=ids, reply="object")


def test_several_slots_are_one_object_with_exactly_these_keys(server: FaultServer) -> None:
    server.queue.append(Answer(chat('{"2": "unknown", "1": "supported"}')))
    (completion,) = one(server, joint("1", "2")).completions
    assert completion.picks == (Pick("supported"), Pick("unknown"))
    schema = server.asked[0].body["response_format"]["json_schema"]["schema"]
    assert (list(schema["properties"]), schema["required"]) == (["1", "2"], ["1", "2"])
    assert schema["additionalProperties"] is False


def test_an_object_of_one_slot_is_still_an_object(server: FaultServer) -> None:
    server.queue.append(Answer(chat('{"1": "supported"}')))
    (completion,) = one(server, joint("1")).completions
    assert (completion.text, completion.picks) == ('{"1": "supported"}', (Pick("supported"),))
    server.queue.append(Answer(chat("supported")))
    assert failure(one(server, joint("1"))).status is Status.PARSE_ERROR


def test_an_object_for_a_raw_prompt(server: FaultServer) -> None:
    server.queue.append(Answer(text(' {"1": "unknown", "2": "supported"}')))
    (completion,) = one(server, replace(joint("1", "2"), prompt="Verdicts:")).completions
    assert completion.picks == (Pick("unknown"), Pick("supported"))
    assert list(server.asked[0].body["structured_outputs"]["json"]["properties"]) == ["1", "2"]


def test_a_word_has_one_slot() -> None:
    with pytest.raises(ValueError, match="one slot, not for 2"):
        replace(ask(choices=CHOICES), slots=("1", "2"))


@pytest.mark.parametrize(
    "content",
    ['{"1": "supported"}', '{"1": "supported", "3": "unknown"}', '{"1": "supported", "2": "unknown", "3": "unknown"}',
     '{"1": "supported", "1": "supported"}', '{"1": "supported", "2": "unknown", "2": "supported"}',
     '{"1": "supported", "2": "maybe"}', '["supported", "unknown"]', "supported"],
)  # fmt: skip
def test_other_ids_or_other_words_are_a_parse_error_of_the_whole_reply(server: FaultServer, content: str) -> None:
    server.queue.append(Answer(chat(content)))
    assert failure(one(server, joint("1", "2"))).status is Status.PARSE_ERROR


def test_every_slot_has_its_own_probability(server: FaultServer) -> None:
    tokens = (
        token('{"', 1.0), token("1", 0.5, **{"2": 0.5}), token('": "', 1.0),
        token("supported", 0.6, unknown=0.2, maybe=0.1), token('", "', 1.0), token("2", 1.0), token('":', 1.0),
        token(' "un', 0.3, **{' "contra': 0.3}), token('known"}', 1.0),
    )  # fmt: skip
    server.queue.append(with_logprobs(*tokens))
    (completion,) = one(server, joint("1", "2")).completions
    first, second = completion.picks
    assert (first.choice, first.probability) == ("supported", None)  # "contradicted" could have as much as 0.1
    assert (second.choice, second.probability) == ("unknown", None)  # so could "supported"
    server.queue.append(
        with_logprobs(
            *tokens[:3], token("supported", 0.6, unknown=0.2, contra=0.2), *tokens[4:7],
            token(' "un', 0.3, **{' "contra': 0.3, ' "supp': 0.3}), token('known"}', 1.0),
        )
    )  # fmt: skip
    (completion,) = one(server, joint("1", "2")).completions
    assert [pick.probability for pick in completion.picks] == [pytest.approx(0.6), pytest.approx(1 / 3)]


def test_votes_that_cannot_be_read_are_left_out_as_long_as_one_can(server: FaultServer) -> None:
    server.queue.append(Answer(chat(verdict("unknown"), "?", verdict("supported"))))
    reply = one(server, ask(choices=CHOICES), sampling=Sampling(n=3))
    assert [completion.text for completion in reply.completions] == ["unknown", "supported"]
    server.queue.append(Answer(chat("?", "!", "")))
    assert failure(one(server, ask(choices=CHOICES), sampling=Sampling(n=3))).status is Status.PARSE_ERROR


# --- how much the model reads -----------------------------------------------------------------------


def test_the_limit_and_the_counter_are_the_servers_own(server: FaultServer) -> None:
    def script(asked: Asked) -> Answer:
        if asked.path == "/v1/models":
            return Answer({"data": [{"id": "other", "max_model_len": 5}, {"id": "m", "max_model_len": 4096}]})
        assert asked.path == "/tokenize"
        return Answer({"count": len(asked.body["prompt"].split())})

    server.script = script
    context = OpenAIBackend("m", BackendSettings(backend="openai", api_base=server.url)).context()
    assert (context.limit, context.count("one two three four")) == (4096, 4)
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert (
        OpenAIBackend("m", BackendSettings(backend="openai", api_base=server.url, max_model_len=99)).context().limit
        == 99
    )


def test_a_server_that_tells_nothing_leaves_the_limit_open_and_counting_to_an_estimate(server: FaultServer) -> None:
    server.script = lambda asked: problem(404, "no such page")
    context = OpenAIBackend("m", BackendSettings(backend="openai", api_base=server.url)).context()
    assert context.limit is None
    assert context.count("x" * 100) >= 40


def models_with_limit(asked: Asked) -> Answer | None:
    return Answer({"data": [{"id": "m", "max_model_len": 4096}]}) if asked.path == "/v1/models" else None


@pytest.mark.parametrize(
    "answer",
    [Answer({"count": 3}, cut=5), Answer("[" * 200_000), Answer(drop=True), Answer("\xff"), problem(500, "boom")],
    ids=["cut short", "nested deep", "dropped", "no JSON", "error"],
)
def test_broken_answers_about_the_context_are_no_answer(server: FaultServer, answer: Answer) -> None:
    server.script = lambda asked: answer
    assert OpenAIBackend("m", BackendSettings(backend="openai", api_base=server.url)).context().limit is None
    server.script = lambda asked: models_with_limit(asked) or answer
    context = OpenAIBackend("m", BackendSettings(backend="openai", api_base=server.url)).context()
    assert context.limit == 4096
    assert context.count("x" * 100) == 41


def test_a_server_that_stops_counting_is_not_asked_again(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_context, "TIMEOUT_S", 0.2)
    server.script = lambda asked: models_with_limit(asked) or Answer({"count": 7})
    context = OpenAIBackend("m", BackendSettings(backend="openai", api_base=server.url)).context()
    assert context.count("x" * 100) == 7
    server.script = lambda asked: Answer({"count": 7}, delay_s=0.5)
    asked = len(server.asked)
    assert [context.count("x" * 100) for _ in range(5)] == [41] * 5
    assert len(server.asked) == asked + 1


def test_the_key_follows_no_redirect_to_another_server(server: FaultServer) -> None:
    with running() as other:
        other.script = lambda asked: Answer({"data": [{"id": "m", "max_model_len": 1}]})
        server.script = lambda asked: Answer({}, 302, {"location": other.url + "/models"})
        assert OpenAIBackend("m", BackendSettings(backend="openai", api_base=server.url)).context().limit is None
        assert other.asked == []


def test_a_redirect_on_the_same_server_is_followed(server: FaultServer) -> None:
    server.queue.append(Answer({}, 302, {"location": "/v1/models"}))
    server.script = lambda asked: models_with_limit(asked) or Answer({"count": 3})
    assert OpenAIBackend("m", BackendSettings(backend="openai", api_base=server.url)).context().limit == 4096


def test_a_tokenizer_may_be_named(server: FaultServer, tiny_model: str) -> None:
    server.script = lambda asked: Answer({"data": []})
    context = OpenAIBackend(
        "m", BackendSettings(backend="openai", api_base=server.url, tokenizer=tiny_model, max_model_len=50)
    ).context()
    assert context.limit == 50
    assert context.count("river Thames") < len("river Thames")


def test_a_choice_cut_off_is_truncated_even_if_it_can_be_read(server: FaultServer) -> None:
    server.queue.append(Answer(chat(verdict("unknown"), finish_reason="length")))
    said = failure(one(server, ask(choices=CHOICES), sampling=Sampling(max_tokens=9)))
    assert said == Failure(Status.TRUNCATED, "the judge's reply was cut off at 9 tokens")


@pytest.mark.parametrize("choices", [None, CHOICES])
def test_refusals(server: FaultServer, choices: tuple[str, ...] | None) -> None:
    server.queue.append(Answer(chat("", refusal="I can't help\nwith that.")))
    server.queue.append(Answer(chat("Well, ", finish_reason="content_filter")))
    assert failure(one(server, ask(choices=choices))) == Failure(Status.REFUSED, "I can't help with that.")
    assert failure(one(server, ask(choices=choices))).status is Status.REFUSED


@pytest.mark.parametrize("reason", ["tool_calls", "function_call", "error", "abort"])
def test_an_end_in_the_middle_is_no_answer(server: FaultServer, reason: str) -> None:
    server.queue.append(Answer(chat("x", finish_reason=reason)))
    assert failure(one(server)).status is Status.API_ERROR


# --- what goes wrong for a while -------------------------------------------------------------------

PASSING = {
    "500": problem(500, "boom"),
    "503": Answer("<html>down</html>", 503, {"content-type": "text/html"}),
    "408": problem(408, "slow"),
    "409": problem(409, "locked"),
    "429": problem(429, "busy"),
    "dropped": Answer(drop=True),
    "body cut": Answer(chat("a text that never arrives"), cut=40),
    "no JSON": Answer('{"choices": [{"mess'),
    "a page": Answer("<html>welcome</html>", headers={"content-type": "text/html"}),
    "an error with 200": Answer({"error": {"message": "overloaded"}}),
    "no choices": Answer({"choices": []}),
    "null choices": Answer({"choices": None}),
    "too slow": Answer(chat("late"), delay_s=2.0),
    "drop by drop": Answer(chat("late"), trickle_s=0.02),
}


def patience(trouble: Answer) -> float:
    return 0.6 if trouble.delay_s or trouble.trickle_s else 20.0


@pytest.mark.parametrize("trouble", PASSING.values(), ids=PASSING.keys())
def test_passing_trouble_is_tried_again(server: FaultServer, trouble: Answer) -> None:
    server.queue += [trouble, trouble]
    reply = one(server, timeout=patience(trouble), max_retries=2)
    assert reply.failure is None
    assert reply.completions[0].text == "fine"
    assert len(server.asked) == 3


@pytest.mark.parametrize("trouble", PASSING.values(), ids=PASSING.keys())
def test_lasting_trouble_is_a_failure_after_the_retries(server: FaultServer, trouble: Answer) -> None:
    server.script = lambda asked: trouble
    assert failure(one(server, timeout=patience(trouble), max_retries=1)).status is Status.API_ERROR
    assert len(server.asked) == 2


def test_one_bad_request_does_not_stop_the_others(server: FaultServer) -> None:
    def script(asked: Asked) -> Answer:
        return Answer(drop=True) if asked.body["messages"][0]["content"] == "poison" else Answer(chat("fine"))

    server.script = script
    prompts = ["a", "poison", "b", "c"]
    replies = {r.key: r for r in generate(server, *(ask(p, p) for p in prompts), max_retries=2)}
    assert failure(replies.pop("poison")).status is Status.API_ERROR
    assert [reply.completions[0].text for reply in replies.values()] == ["fine"] * 3


def test_the_waits_between_retries_grow(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_pool, "FIRST_DELAY_S", 0.1)
    server.script = lambda asked: problem(500, "boom")
    one(server, max_retries=2)
    times = [asked.at for asked in server.asked]
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits[0] >= 0.075
    assert waits[1] >= 0.15  # no upper bounds: the machine may be busy


@pytest.mark.parametrize("headers", [{"retry-after": "1"}, {"retry-after-ms": "900"}, {"retry-after": "DATE"}])
def test_retry_after_is_honoured_by_all_requests(server: FaultServer, headers: dict[str, str]) -> None:
    if headers.get("retry-after") == "DATE":
        headers = {"retry-after": formatdate(math.ceil(time.time()) + 1, usegmt=True)}
    server.queue.append(problem(429, "busy", headers=headers))
    began = time.monotonic()
    replies = generate(server, *(ask(i) for i in range(3)), concurrency=1)
    assert [reply.failure for reply in replies] == [None] * 3
    assert len(server.asked) == 4
    assert server.asked[1].at - began > 0.85


def test_a_retry_after_pauses_requests_that_have_not_been_sent(server: FaultServer) -> None:
    server.queue.append(problem(429, "busy", headers={"retry-after-ms": "500"}))
    generate(server, ask(0), ask(1), concurrency=2, requests_per_minute=600)  # the second is due after 0.1 s
    assert server.asked[1].at - server.asked[0].at > 0.45


def test_retry_after_counts_for_server_errors_too(server: FaultServer) -> None:
    server.queue.append(problem(503, "starting", headers={"retry-after-ms": "400"}))
    assert one(server).failure is None
    assert server.asked[1].at - server.asked[0].at > 0.38


def test_a_server_that_asks_for_a_very_long_wait_is_not_waited_for(server: FaultServer) -> None:
    server.queue.append(problem(429, "come back tomorrow", headers={"retry-after": "86400"}))
    assert "come back tomorrow" in failure(one(server)).message
    assert len(server.asked) == 1


# --- what is wrong with one request ----------------------------------------------------------------


def test_a_rejected_request_is_a_failure_at_once(server: FaultServer) -> None:
    server.queue.append(problem(400, "bad\nrequest: " + "x" * 1000))
    result = failure(one(server))
    assert result.status is Status.API_ERROR
    assert "400" in result.message
    assert "bad request" in result.message
    assert len(result.message) <= 300
    assert len(server.asked) == 1


def test_a_rejection_without_openais_form_still_says_why(server: FaultServer) -> None:
    server.queue.append(Answer({"detail": "temperature must be below 2"}, 422))
    assert "temperature must be below 2" in failure(one(server)).message


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("This model's maximum context length is 1024 tokens. However, you requested 3000 tokens", None),
        ("the request exceeds the available context size, try increasing it", None),
        ("something in another language", "context_length_exceeded"),
        ("prompt is too long: 210000 tokens > 200000 maximum", None),
    ],
)
def test_an_input_that_does_not_fit_is_truncated(server: FaultServer, message: str, code: str | None) -> None:
    server.queue.append(problem(400, message, code=code))
    assert failure(one(server)).status is Status.TRUNCATED
    assert len(server.asked) == 1


def test_max_tokens_goes_under_its_newer_name_where_the_server_wants_it(server: FaultServer) -> None:
    def script(asked: Asked) -> Answer:
        if "max_tokens" in asked.body:
            return problem(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        return Answer(chat("fine"))

    server.script = script
    replies = generate(server, ask(0), ask(1), sampling=Sampling(max_tokens=9), concurrency=1)
    assert [reply.completions[0].text for reply in replies] == ["fine", "fine"]
    assert [asked.body.get("max_completion_tokens") for asked in server.asked] == [None, 9, 9]


TEMPERATURE = "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) value."


@pytest.mark.parametrize(
    ("field", "answer"),
    [
        ("temperature", problem(400, TEMPERATURE, param="temperature", code="unsupported_value")),
        ("temperature", problem(400, "Unsupported parameter: 'temperature' is not supported with this model.")),
        ("top_p", problem(400, "Unsupported parameter: 'top_p' is not supported with this model.", param="top_p")),
        ("seed", problem(400, "Unknown parameter: 'seed'.", param="seed", code="unknown_parameter")),
        ("seed", problem(400, "Unrecognized request argument supplied: seed")),
        ("seed", problem(422, "body.seed: extra inputs are not permitted")),
        (
            "seed",
            problem(400, "1 validation error:\n  {'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'input': 3}"),
        ),
        (
            "seed",
            Answer({"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs"}]}, 422),
        ),
        ("seed", problem(400, 'Invalid JSON payload received. Unknown name "seed": Cannot find field.')),
        ("logprobs", problem(403, "You are not allowed to request logprobs from this model")),
        ("logprobs", problem(400, "Requested sample logprobs of 20, which is greater than max allowed: 5")),
        ("response_format", problem(400, "This response_format type is unavailable now")),
        ("response_format", problem(400, "Invalid schema", param="response_format.json_schema.schema")),
    ],
)
def test_a_field_that_the_server_does_not_take_is_left_out_from_then_on(
    server: FaultServer, capsys: pytest.CaptureFixture[str], field: str, answer: Answer
) -> None:
    server.script = lambda asked: answer if field in asked.body else Answer(chat(verdict("unknown")))
    sampling = Sampling(top_p=0.9, stop=("END",))
    replies = generate(server, *(ask(i, choices=CHOICES) for i in range(3)), concurrency=1, sampling=sampling)
    assert [reply.failure for reply in replies] == [None] * 3
    assert [field in asked.body for asked in server.asked] == [True, False, False, False]
    assert capsys.readouterr().err.count(f"does not take '{field}'") == 1


QUOTED = 'In spring they sow. He called it "seed" and "temperature", and one completion is allowed'


@pytest.mark.parametrize(
    "answer",
    [
        problem(400, f"The input is not allowed: {QUOTED}"),
        problem(400, json.dumps({"why": "unsupported", "input": QUOTED})),
        problem(400, "invalid", param="messages"),
        problem(400, "1 validation error: {'loc': ('body', 'messages', 0), 'input': {'seed': 3, 'temperature': 0}}"),
        problem(400, "temperature must be non-negative, got -1", param="temperature"),
        problem(400, "The temperature is 3.0 but the supported range is from 0 to 2", param="temperature"),
        problem(400, "Seeds of doubt are not permitted"),
    ],
)
def test_an_error_that_only_quotes_the_name_of_a_field_costs_no_field(server: FaultServer, answer: Answer) -> None:
    server.queue.append(answer)
    replies = generate(server, ask(0, QUOTED), ask(1, QUOTED), concurrency=1)
    assert failure(replies[0]).status is Status.API_ERROR
    assert all({"seed", "temperature"} <= asked.body.keys() for asked in server.asked)
    assert len(server.asked) == 2


def test_a_field_is_left_out_only_once_the_server_has_answered_without_it(server: FaultServer) -> None:
    server.queue += [problem(400, "'seed' is not supported"), problem(400, "something else")]
    replies = generate(server, ask(0), ask(1), concurrency=1)
    assert "something else" in failure(replies[0]).message
    assert ["seed" in asked.body for asked in server.asked] == [True, False, True]


# --- what makes every request fail -----------------------------------------------------------------


def test_no_server_at_all() -> None:
    with running() as server:
        url = server.url
    began = time.monotonic()
    with pytest.raises(UserError, match=r"cannot be reached.*Start the server") as caught:
        list(OpenAIBackend("m", BackendSettings(backend="openai", api_base=url)).generate([ask()]))
    assert url in str(caught.value)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (problem(401, f"Incorrect API key provided: {KEY}"), "Set OPENAI_API_KEY"),
        (problem(402, "Insufficient balance"), "quota"),
        (problem(403, "not allowed"), "permissions"),
        (problem(404, "The model `m` does not exist"), "Check `model`"),
        (problem(429, "You exceeded your current quota", code="insufficient_quota"), "quota"),
    ],
)
def test_hopeless_answers_stop_the_run_and_say_what_to_do(server: FaultServer, answer: Answer, says: str) -> None:
    server.script = lambda asked: answer
    with pytest.raises(UserError, match=says) as caught:
        generate(server, *(ask(i) for i in range(100)), concurrency=4)
    assert server.url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(server.asked) <= 4 + 4


@pytest.mark.parametrize("status", [403, 404])
def test_what_may_be_hopeless_is_one_requests_failure_after_a_success(server: FaultServer, status: int) -> None:
    server.queue += [Answer(chat("fine")), problem(status, "not this one")]
    replies = generate(server, *(ask(i) for i in range(4)), concurrency=1)
    assert [reply.failure is None for reply in replies] == [True, False, True, True]
    assert failure(replies[1]).status is Status.API_ERROR
    assert "not this one" in failure(replies[1]).message


@pytest.mark.parametrize(
    "answer",
    [
        problem(403, "Your chosen model requires moderation and your input was flagged for 'violence'"),
        problem(400, "The response was filtered due to the prompt triggering a policy", code="content_filter"),
        problem(400, "Invalid prompt: your prompt was flagged as potentially violating our usage policy"),
        problem(400, "Your request was rejected as a result of our safety system", code="content_policy_violation"),
    ],
)
def test_an_input_that_the_server_does_not_want_is_refused_even_as_the_first(
    server: FaultServer, answer: Answer
) -> None:
    server.queue.append(answer)
    replies = generate(server, ask(0), ask(1), concurrency=1)
    assert failure(replies[0]).status is Status.REFUSED
    assert replies[1].failure is None


def test_a_flagged_account_is_hopeless(server: FaultServer) -> None:
    server.queue.append(problem(403, "Your account has been flagged. Contact us"))
    with pytest.raises(UserError, match="does not serve this account"):
        one(server)


def test_a_server_that_wants_a_key_where_none_is_set(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    server.queue.append(problem(401, "no key"))
    with pytest.raises(UserError, match="needs a key"):
        one(server)


def test_nothing_ever_working_stops_the_run(server: FaultServer) -> None:
    server.script = lambda asked: problem(400, "response_format is unavailable")
    with pytest.raises(UserError, match=r"all 8 requests so far failed: .*response_format is unavailable"):
        generate(server, *(ask(i) for i in range(100)), concurrency=2)


def test_many_failures_after_a_success_do_not_stop_the_run(server: FaultServer) -> None:
    server.queue.append(Answer(chat("fine")))
    server.script = lambda asked: problem(400, "bad")
    replies = generate(server, *(ask(i) for i in range(30)), concurrency=1)
    assert sum(reply.failure is not None for reply in replies) == 29


def test_inputs_that_are_all_too_long_do_not_stop_the_run(server: FaultServer) -> None:
    server.script = lambda asked: problem(400, "maximum context length is 10")
    replies = generate(server, *(ask(i) for i in range(20)))
    assert {failure(reply).status for reply in replies} == {Status.TRUNCATED}


def test_a_server_that_dies_in_the_middle_stops_the_run() -> None:
    with running() as server:
        replies = OpenAIBackend(
            "m", BackendSettings(backend="openai", api_base=server.url, concurrency=1, max_retries=2)
        ).generate(ask(i) for i in range(1000))
        next(replies)
        server.script = lambda asked: Answer(drop=True)
    with pytest.raises(UserError, match="is gone"):
        list(replies)


# --- the engine ------------------------------------------------------------------------------------


def test_replies_come_in_the_order_of_completion(server: FaultServer) -> None:
    def script(asked: Asked) -> Answer:
        return Answer(chat("x"), delay_s=0.4 if asked.body["messages"][0]["content"] == "slow" else 0.0)

    server.script = script
    assert [reply.key for reply in generate(server, ask("slow", "slow"), ask("fast", "fast"))] == [
        "fast",
        "slow",
    ]


def test_so_many_requests_at_once_and_no_more(server: FaultServer) -> None:
    server.script = lambda asked: Answer(chat("x"), delay_s=0.05)
    replies = generate(server, *(ask(i) for i in range(40)), concurrency=8)
    assert sorted(reply.key for reply in replies) == list(range(40))  # type: ignore[type-var]
    assert server.most_open == 8


def test_requests_are_pulled_lazily_from_the_callers_thread(server: FaultServer) -> None:
    pulled: list[int] = []

    def requests() -> Iterator[Request]:
        for i in range(1000):
            assert threading.current_thread() is threading.main_thread()
            pulled.append(i)
            yield ask(i)

    replies = OpenAIBackend("m", BackendSettings(backend="openai", api_base=server.url, concurrency=3)).generate(
        requests()
    )
    assert pulled == []
    next(replies)
    assert len(pulled) == 6
    time.sleep(0.1)
    next(replies)
    assert len(pulled) == 7
    replies.close()  # type: ignore[attr-defined]
    assert len(pulled) == 7


def test_closing_early_cancels_what_is_under_way(server: FaultServer) -> None:
    server.queue.append(Answer(chat("x")))
    server.script = lambda asked: Answer(chat("late"), delay_s=2.0)
    replies = OpenAIBackend("m", BackendSettings(backend="openai", api_base=server.url, concurrency=4)).generate(
        ask(i) for i in range(100)
    )
    next(replies)
    began = time.monotonic()
    replies.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 1.5
    assert not [thread for thread in threading.enumerate() if thread.name == "maskdpo-openai"]
    time.sleep(0.3)
    assert len(server.asked) <= 5  # the first and the four under way, of a window of eight


def test_an_error_in_the_callers_requests_reaches_the_caller(server: FaultServer) -> None:
    def requests() -> Iterator[Request]:
        yield ask(0)
        raise ValueError("line 2 is broken")

    with pytest.raises(ValueError, match="line 2"):
        list(OpenAIBackend("m", BackendSettings(backend="openai", api_base=server.url)).generate(requests()))
    assert not [thread for thread in threading.enumerate() if thread.name == "maskdpo-openai"]


def test_no_requests_no_calls(server: FaultServer) -> None:
    assert generate(server) == []
    assert server.asked == []


def test_a_backend_serves_again(server: FaultServer) -> None:
    backend = OpenAIBackend("m", BackendSettings(backend="openai", api_base=server.url))
    assert [len(list(backend.generate([ask(0), ask(1)]))) for _ in range(3)] == [2, 2, 2]


def test_what_the_server_has_shown_is_known_to_the_next_call(server: FaultServer) -> None:
    def script(asked: Asked) -> Answer:
        return problem(400, "Unknown parameter: 'seed'", param="seed") if "seed" in asked.body else Answer(chat("fine"))

    server.script = script
    backend = OpenAIBackend("m", BackendSettings(backend="openai", api_base=server.url, requests_per_minute=300))
    began = time.monotonic()
    for i in range(3):
        assert [reply.failure for reply in backend.generate([ask(i)])] == [None]
    assert ["seed" in asked.body for asked in server.asked] == [True, False, False, False]
    assert time.monotonic() - began > 0.38  # the pace goes on
    server.script = lambda asked: problem(404, "not this one")
    (reply,) = backend.generate([ask()])
    assert failure(reply).status is Status.API_ERROR  # the server has succeeded before


def test_requests_are_paced_without_a_burst(server: FaultServer) -> None:
    generate(server, *(ask(i) for i in range(6)), requests_per_minute=600)
    times = sorted(asked.at for asked in server.asked)
    assert times[2] - times[0] > 0.15
    assert times[-1] - times[0] > 0.45


def test_tokens_are_paced_by_what_the_server_counts(server: FaultServer) -> None:
    def spent(used: int) -> float:
        usage = {"prompt_tokens": used, "completion_tokens": 0}
        server.script = lambda asked: Answer(chat("x", usage=usage))
        server.asked.clear()
        sampling = Sampling(max_tokens=100)
        generate(
            server,
            *(ask(i, "") for i in range(4)),
            tokens_per_minute=60_000,
            concurrency=1,
            sampling=sampling,
        )
        return server.asked[-1].at - server.asked[0].at

    assert spent(300) > 0.75  # three times 300 tokens at 1000 a second
    assert spent(1) < 0.25  # although 100 each were set aside


# --- the key ---------------------------------------------------------------------------------------


def test_the_key_appears_in_no_error_and_no_log(
    server: FaultServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "httpx2", "httpcore2", "httpx", "httpcore", "asyncio"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    said = []
    for status in (400, 401, 403, 404, 422, 500):
        server.script = lambda asked, status=status: problem(status, f"your key {KEY} and {asked.headers} are bad")
        try:
            said.append(failure(one(server, max_retries=1)).message)
        except UserError as error:
            assert error.__cause__ is None
            assert error.__context__ is None
            said.append(str(error))
    server.script = lambda asked: Answer(f"no JSON but {KEY}")
    said.append(failure(one(server, max_retries=1)).message)
    said.append(
        repr(OpenAIBackend("m", BackendSettings(backend="openai", api_base=server.url)))
        + repr(vars(OpenAIBackend("m", BackendSettings(backend="openai", api_base=server.url))))
    )
    assert len(said) == 8
    assert all(asked.headers["authorization"].endswith(KEY) for asked in server.asked)
    captured = capfd.readouterr()
    assert KEY not in "\n".join([*said, caplog.text, captured.out, captured.err])
    assert "***" in said[0]


@pytest.mark.parametrize("key", ["sk-line\nbreak", "sk- space", "sk-ключ"])
def test_a_key_that_cannot_be_sent_is_named_without_being_shown(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UserError, match="OPENAI_API_KEY") as caught:
        one(server)
    assert key not in str(caught.value)
    assert server.asked == []


def test_white_space_around_the_key_is_dropped(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    assert one(server).failure is None
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_server_of_ones_own_needs_no_key(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert one(server).failure is None
    assert KEY not in server.asked[0].headers["authorization"]


def test_openai_itself_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="OPENAI_API_KEY is not set"):
        list(OpenAIBackend("m").generate([ask()]))


def test_the_base_comes_from_the_environment_too(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url + "/")
    (reply,) = OpenAIBackend("m").generate([ask()])
    assert reply.completions[0].text == "fine"


@pytest.mark.parametrize(
    "options",
    [{"api_base": "localhost:8000"}, {"api_base": "ftp://x/v1"}, {"api_base": f"http://u:{KEY}@x/v1"},
     {"api_base": f"http://x/v1?key={KEY}"},
     {"concurrency": 0}, {"timeout": 0.0}, {"requests_per_minute": 0.0},
     {"tokens_per_minute": -1.0}, {"max_retries": -1}],
)  # fmt: skip
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises((UserError, ValidationError)) as caught:
        OpenAIBackend("m", BackendSettings(backend="openai", **options))
    assert KEY not in str(caught.value)

"""Several servers of one model: who gets a request, and what becomes of a server that fails."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from maskdpo.annotate.judge import Task
from maskdpo.annotate.judges.llm import LLMOptions, llm_judge
from maskdpo.backends import openai_pool, servers
from maskdpo.backends.base import Reply, Request, Sampling
from maskdpo.backends.openai_access import Address
from maskdpo.backends.openai_backend import OpenAIBackend
from maskdpo.backends.servers import RateLimit, Server, choose
from maskdpo.backends.settings import BackendSettings
from maskdpo.errors import UserError
from maskdpo.io import read_records
from maskdpo.sample import sample
from maskdpo.schemas import Message, Prompt, Response, Span
from tests.backends.fault_server import Answer, Asked, FaultServer, chat, echo, problem, running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_pool, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(servers, "FIRST_REST_S", 0.1)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def pair() -> Iterator[tuple[FaultServer, FaultServer]]:
    with running() as first, running() as second:
        first.script = second.script = echo
        yield first, second


@contextmanager
def process() -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A server that can be killed."""
    command = [sys.executable, "-m", "tests.backends.fault_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip(), server
        finally:
            server.kill()


def ask(key: object, document: str | None = None) -> Request:
    return Request(key, [Message(role="user", content=f"Question {key}?")], document=document)


def backend(*given: FaultServer | str, **options: Any) -> OpenAIBackend:
    urls = [one if isinstance(one, str) else one.url for one in given]
    return OpenAIBackend("m", BackendSettings(backend="openai", api_base=tuple(urls), **options))


def texts(replies: list[Reply]) -> dict[Any, str]:
    return {reply.key: reply.completions[0].text for reply in replies}


def asked(server: FaultServer) -> list[str]:
    return [each.body["messages"][-1]["content"] for each in server.asked]


def test_the_same_answers_come_from_two_servers_as_from_one_each_asked_once(
    pair: tuple[FaultServer, FaultServer],
) -> None:
    questions = [ask(i) for i in range(40)]
    alone = texts(list(backend(pair[0]).generate(questions)))
    pair[0].asked.clear()
    assert texts(list(backend(*pair, concurrency=4).generate(questions))) == alone
    assert len(asked(pair[0])) >= 10 <= len(asked(pair[1]))
    assert sorted(asked(pair[0]) + asked(pair[1])) == sorted(f"Question {i}?" for i in range(40))


def test_concurrency_and_pace_are_per_server(pair: tuple[FaultServer, FaultServer]) -> None:
    for server in pair:
        server.script = lambda asked: Answer(chat("x"), delay_s=0.05)
    list(backend(*pair, concurrency=3).generate(ask(i) for i in range(30)))
    assert [server.most_open for server in pair] == [3, 3]
    for server in pair:
        server.asked.clear()
    list(backend(*pair, requests_per_minute=600).generate(ask(i) for i in range(20)))
    for server in pair:
        times = [each.at for each in server.asked]
        assert len(times) >= 2
        assert times[-1] - times[0] > 0.09 * (len(times) - 1)
    both = sorted(each.at for server in pair for each in server.asked)
    assert min(later - earlier for earlier, later in pairwise(both)) < 0.09  # no server waits for the other


def test_the_slower_server_gets_fewer_requests(pair: tuple[FaultServer, FaultServer]) -> None:
    pair[0].script = lambda asked: Answer(chat("x"), delay_s=0.3)
    pair[1].script = lambda asked: Answer(chat("x"), delay_s=0.02)
    list(backend(*pair, concurrency=2).generate(ask(i) for i in range(60)))
    assert len(pair[0].asked) < 20


def test_requests_about_one_document_stay_with_one_server_unless_it_has_too_many() -> None:
    known = [Server(Address(f"http://{name}/v1"), RateLimit(None), RateLimit(None)) for name in "abc"]
    homes = {d: {choose(known, ask((d, i), f"document {d}"), 8).url for i in range(5)} for d in range(60)}
    assert all(len(home) == 1 for home in homes.values())
    assert min(Counter(url for home in homes.values() for url in home).values()) >= 10
    fewer = {d: choose(known[:2], ask(d, f"document {d}"), 8).url for d in range(60)}
    assert all(
        {fewer[d]} == homes[d] for d in range(60) if homes[d] != {known[2].url}
    )  # the others stay where they are
    first = choose(known, ask(0, "one document"), 8)
    first.busy = 8
    assert choose(known, ask(1, "one document"), 8) is first
    first.busy = 9
    assert choose(known, ask(2, "one document"), 8) is not first


def test_the_judge_sends_all_sentences_about_a_reference_to_one_server(pair: tuple[FaultServer, FaultServer]) -> None:
    for server in pair:
        server.script = lambda asked: Answer(chat("supported", "supported"))
    tasks = []
    for i in range(8):
        prompt = Prompt(id=f"p{i}", prompt="What is it?", reference=f"Passage {i} says what it is.")
        response = Response(id=f"r{i}", prompt_id=prompt.id, response="It is. It was. It will be.")
        tasks.append(Task(prompt, response, [Span(0, 6, "text"), Span(7, 14, "text"), Span(15, 26, "text")]))
    judge = llm_judge(backend(*pair, concurrency=64, max_model_len=4000), LLMOptions(votes=2))
    assert len(list(judge.judge(tasks))) == 8
    seen = [{each.split("Passage ")[1][0] for each in asked(server)} for server in pair]
    assert len(pair[0].asked) + len(pair[1].asked) == 24
    assert seen[0] | seen[1] == set("01234567")
    assert not seen[0] & seen[1]


@pytest.mark.parametrize(
    "failing",
    [Answer(drop=True), problem(500, "boom"), problem(503, "starting"), Answer(chat("late"), delay_s=3.0)],
    ids=["dropped", "500", "503", "too slow"],
)
def test_a_server_that_fails_is_left_alone_and_named_once(
    pair: tuple[FaultServer, FaultServer], failing: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    pair[0].script = lambda asked: failing
    replies = list(backend(*pair, concurrency=4, max_retries=0, timeout=1.0).generate(ask(i) for i in range(60)))
    assert [reply.failure for reply in replies] == [None] * 60
    assert len(pair[0].asked) < 12
    said = capsys.readouterr().err
    assert said.count("warning:") == 1
    assert f"{pair[0].url} fails" in said


def test_a_killed_server_costs_no_answer(tmp_path: Path, jsonl: Any, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = jsonl("prompts.jsonl", [{"id": f"q{i}", "prompt": f"Question {i}?"} for i in range(120)])
    outputs = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    with ExitStack() as stack:
        (first, dying), (second, _) = (stack.enter_context(process()) for _ in range(2))
        sample(prompts, outputs[0], backend(second), Sampling(n=2, max_tokens=8))
        both = backend(first, second, concurrency=4)
        generate = both.generate

        def killing(requests: Any) -> Iterator[Reply]:
            for i, reply in enumerate(generate(requests)):
                if i == 30:
                    dying.kill()
                yield reply

        both.generate = killing  # type: ignore[method-assign]
        stats = sample(prompts, outputs[1], both, Sampling(n=2, max_tokens=8))
    assert stats.responses == 240
    assert list(read_records(outputs[0], Response)) == list(read_records(outputs[1], Response))
    said = capsys.readouterr().err
    assert said.count("warning:") == 1
    assert f"{first} fails" in said


def test_a_server_that_comes_back_gets_requests_again() -> None:
    with running() as lasting:
        lasting.script = echo
        with running() as first:
            first.script = echo
            replies = backend(first, lasting, concurrency=2).generate(ask(i) for i in range(200))
            some = list(islice(replies, 20))
            first.script = lambda asked: Answer(drop=True)
        some += islice(replies, 20)
        with running(int(first.url.split(":")[2].split("/")[0])) as again:
            again.script = echo
            some += replies
            assert len(again.asked) > 20
    assert len(texts(some)) == 200


def test_a_server_that_was_never_there_is_named_and_passed_over(
    pair: tuple[FaultServer, FaultServer], capsys: pytest.CaptureFixture[str]
) -> None:
    with running() as gone:
        pass
    assert len(texts(list(backend(gone, pair[0]).generate(ask(i) for i in range(20))))) == 20
    assert f"{gone.url} fails: cannot be reached" in capsys.readouterr().err


def test_no_server_at_all_is_one_error_that_names_them() -> None:
    with running() as first, running() as second:
        pass
    with pytest.raises(UserError, match="cannot be reached") as caught:
        list(backend(first, second).generate([ask(0)]))
    assert first.url in str(caught.value)
    assert second.url in str(caught.value)


def test_the_run_ends_where_all_have_died() -> None:
    with ExitStack() as stack:
        (first, one), (second, other) = (stack.enter_context(process()) for _ in range(2))
        replies = backend(first, second, concurrency=2, max_retries=3).generate(ask(i) for i in range(10_000))
        next(replies)
        one.kill()
        other.kill()
        with pytest.raises(UserError, match=r"is gone.*is gone.*Start them and run again") as caught:
            list(replies)
    assert first in str(caught.value)
    assert second in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [problem(404, "no such model"), problem(401, "no"), problem(400, "a strange version")]
)
def test_what_one_server_does_not_know_says_nothing_about_the_others(
    pair: tuple[FaultServer, FaultServer], wrong: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    pair[0].script = lambda asked: wrong
    replies = list(backend(*pair, concurrency=4).generate(ask(i) for i in range(60)))
    assert [reply.failure for reply in replies] == [None] * 60
    assert len(pair[0].asked) <= 8 + 4
    assert f"{pair[0].url}" in capsys.readouterr().err.replace("\n", " ")


def test_a_field_that_one_server_refuses_still_goes_to_the_other(pair: tuple[FaultServer, FaultServer]) -> None:
    def without_seed(asked: Asked) -> Answer:
        return problem(400, "Unsupported parameter: 'seed'") if "seed" in asked.body else Answer(chat("fine"))

    pair[0].script = without_seed
    list(backend(*pair).generate(ask(i) for i in range(20)))
    assert all("seed" in each.body for each in pair[1].asked)
    assert sum("seed" in each.body for each in pair[0].asked) < len(pair[0].asked)


def test_an_input_that_all_servers_reject_is_one_failure(pair: tuple[FaultServer, FaultServer]) -> None:
    def script(asked: Asked) -> Answer:
        return problem(400, "bad input") if "bad" in asked.body["messages"][0]["content"] else echo(asked)

    pair[0].script = pair[1].script = script
    replies = {reply.key: reply for reply in backend(*pair).generate([ask(0), ask("bad"), ask(1)])}
    failure = replies["bad"].failure
    assert failure is not None
    assert "bad input" in failure.message
    assert replies[0].failure is replies[1].failure is None


def test_a_server_that_asks_for_a_wait_lets_the_other_one_work(pair: tuple[FaultServer, FaultServer]) -> None:
    pair[0].script = lambda asked: problem(429, "busy", headers={"retry-after": "60"})
    began = time.monotonic()
    assert len(texts(list(backend(*pair, concurrency=4).generate(ask(i) for i in range(40))))) == 40
    assert time.monotonic() - began < 20


def test_urls_come_from_the_environment_and_are_each_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://a/v1 http://b/v1/")
    assert [server.url for server in OpenAIBackend("m").servers] == ["http://a/v1", "http://b/v1"]
    with pytest.raises(UserError, match="names http://a/v1 twice"):
        backend("http://a/v1", "http://a/v1/")


def test_the_context_is_the_shortest_of_those_that_are_named(pair: tuple[FaultServer, FaultServer]) -> None:
    for server, limit in zip(pair, (4096, 2048), strict=True):
        server.script = lambda asked, limit=limit: Answer({"data": [{"id": "m", "max_model_len": limit}]})  # type: ignore[misc]
    assert backend(*pair).context().limit == 2048
    pair[1].script = lambda asked: problem(404, "what?")
    assert backend(*pair).context().limit == 4096

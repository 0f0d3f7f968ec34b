"""What calls cost: prices, a limit that is never passed, and runs that go on where the money had ended."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from maskdpo.annotate.judges.llm import LLMOptions, llm_judge
from maskdpo.annotate.labelling import annotate
from maskdpo.annotate.stats import AnnotateStats
from maskdpo.backends import openai_pool
from maskdpo.backends.base import Reply, Request, Sampling
from maskdpo.backends.openai_backend import OpenAIBackend
from maskdpo.backends.price import OutOfMoney, dollars, price_of
from maskdpo.backends.settings import BackendSettings
from maskdpo.errors import UserError
from maskdpo.io import read_records
from maskdpo.run_record import meta_file, read_meta
from maskdpo.sample import sample
from maskdpo.schemas import Annotation, Message, Response
from maskdpo.text.splitters import get_splitter
from tests.backends.fault_server import Answer, Asked, FaultServer, chat, problem, running

PROMPT, COMPLETION = 100, 20
"""The tokens of every call, as the server reports them."""
CALL = (PROMPT * 10 + COMPLETION * 100) / 1e6
"""Dollars for one, at 10 and 100 dollars per million."""


def priced(asked: Asked, *, cached: int = 0, prompt: int = PROMPT) -> Answer:
    n = asked.body.get("n", 1)
    usage = {"prompt_tokens": prompt, "completion_tokens": n * COMPLETION}
    usage |= {"prompt_tokens_details": {"cached_tokens": cached}}  # type: ignore[dict-item]
    return Answer(chat(*(str(asked.body["seed"]) for _ in range(n)), usage=usage), delay_s=0.01)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    monkeypatch.setattr(openai_pool, "FIRST_DELAY_S", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with running() as fault_server:
        fault_server.script = priced
        yield fault_server


def backend(server: FaultServer, **options: Any) -> OpenAIBackend:
    given: dict[str, Any] = {"backend": "openai", "api_base": server.url, "price": "10,100", **options}
    return OpenAIBackend("m", BackendSettings(**given))


def ask(key: object) -> Request:
    return Request(key, [Message(role="user", content=f"Question {key}?")], sampling=Sampling(max_tokens=40))


def replies_until_the_end(run: OpenAIBackend, count: int) -> tuple[list[Reply], str]:
    came: list[Reply] = []
    with pytest.raises(OutOfMoney) as stop:
        for reply in run.generate(ask(i) for i in range(count)):
            came.append(reply)
    return came, str(stop.value)


def test_figures_are_for_a_million_tokens_and_cached_ones_may_have_their_own() -> None:
    two, three = price_of("m", "http://x", "1,2"), price_of("m", "http://x", "1,0.5,2")
    assert two is not None
    assert three is not None
    assert two(1_000_000, 400_000, 1_000_000) == pytest.approx(3.0)
    assert three(1_000_000, 400_000, 1_000_000) == pytest.approx(0.6 + 0.2 + 2.0)


@pytest.mark.parametrize("wrong", ["1", "1,2,3,4", "a,b", "-1,2", "inf,1", ""])
def test_other_figures_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="IN,OUT"):
        BackendSettings(backend="openai", price=wrong)


def test_a_list_price_is_known_by_the_address_of_the_provider_not_by_the_name_of_the_model() -> None:
    known = price_of("gpt-4o-mini", "https://api.openai.com/v1", None)
    assert known is not None
    assert 0 < known(1000, 1000, 0) < known(1000, 0, 0) < known(0, 0, 1000)
    assert price_of("gpt-4o-mini", "http://localhost:8000/v1", None) is None
    assert price_of("no such model", "https://api.openai.com/v1", None) is None


def test_a_limit_without_a_known_price_is_an_error(server: FaultServer) -> None:
    with pytest.raises(UserError, match=r"`max_cost` needs a price.*give `price`"):
        backend(server, price=None, max_cost=1.0)


def test_cached_tokens_have_their_price_in_the_sum(server: FaultServer) -> None:
    server.script = lambda asked: priced(asked, cached=60)
    run = backend(server, price="10,1,100")
    list(run.generate(ask(i) for i in range(5)))
    assert run.purse.spent.cost == pytest.approx(5 * (40 * 10 + 60 * 1 + 20 * 100) / 1e6)
    assert (run.purse.spent.prompt_tokens, run.purse.spent.cached_tokens) == (500, 300)


@pytest.mark.parametrize("prompt", [5, PROMPT, 2000])
def test_the_limit_is_never_passed_with_many_calls_under_way(server: FaultServer, prompt: int) -> None:
    server.script = lambda asked: priced(asked, prompt=prompt)
    call = (prompt * 10 + COMPLETION * 100) / 1e6
    run = backend(server, max_cost=30 * call, concurrency=32)
    came, said = replies_until_the_end(run, 500)
    assert run.purse.spent.cost == pytest.approx(len(came) * call)
    assert len(server.asked) == len(came)
    assert 20 <= len(came) <= 30
    assert all(reply.failure is None for reply in came)
    assert "stopped before `max_cost`" in said
    assert dollars(len(came) * call) in said


def test_a_limit_below_the_first_call_asks_nothing(server: FaultServer) -> None:
    came, _ = replies_until_the_end(backend(server, max_cost=1e-6), 10)
    assert came == server.asked == []


def test_calls_without_an_answer_count_with_their_worst_case(server: FaultServer) -> None:
    server.queue += [Answer(drop=True), problem(500, "boom"), Answer(chat("no tokens are named"))]
    run = backend(server, concurrency=1)
    list(run.generate([ask(0), ask(1)]))
    worst = (64 + 16 + 5 + 1) * 10 / 1e6 + 40 * 100 / 1e6
    assert run.purse.spent.cost == pytest.approx(CALL)
    assert run.purse.spent.unanswered == pytest.approx(2 * worst, rel=0.05)  # an error costs nothing


def test_completions_asked_one_by_one_are_kept_where_the_money_ends_among_them(server: FaultServer) -> None:
    run = backend(server, max_cost=5 * CALL + 0.004)
    run.servers[0].unsupported.add("n")
    (reply,) = run.generate([Request(0, "Say.", sampling=Sampling(n=20, max_tokens=40))])
    assert 3 <= len(reply.completions) <= 6
    assert len(reply.completions) + len(reply.failed) == 20
    assert "max_cost" in reply.failed[19].message


def test_a_run_that_ran_out_of_money_goes_on_with_a_greater_limit(
    server: FaultServer, tmp_path: Path, jsonl: Any
) -> None:
    prompts = jsonl("prompts.jsonl", [{"id": f"q{i}", "prompt": f"Question {i}?"} for i in range(60)])
    out, how = tmp_path / "r.jsonl", Sampling(n=1, max_tokens=40)

    def spent() -> float:
        meta = read_meta(meta_file(out))
        assert meta is not None
        assert meta.spent is not None
        assert meta.spent.cost == pytest.approx(len(server.asked) * CALL)
        return meta.spent.most

    for limit in (20 * CALL, 35 * CALL):
        with pytest.raises(OutOfMoney, match="greater `max_cost`"):
            sample(prompts, out, backend(server, max_cost=limit), how)
        assert limit - 5 * CALL < spent() <= limit
        assert len(list(read_records(out, Response))) == len(server.asked)
    asked = len(server.asked)
    with pytest.raises(OutOfMoney):  # the same limit again allows nothing more
        sample(prompts, out, backend(server, max_cost=35 * CALL), how)
    assert len(server.asked) <= asked + 3
    stats = sample(prompts, out, backend(server, max_cost=1.0), how)
    assert len(list(read_records(out, Response))) == len(server.asked) == 60
    assert stats.cost == pytest.approx((60 - stats.already_there) * CALL)
    assert spent() == pytest.approx(60 * CALL)
    assert json.loads(meta_file(out).read_text())["counts"]["cost"] == stats.cost


def test_a_longer_reply_that_a_further_field_asks_for_is_set_aside(server: FaultServer) -> None:
    worst = 86 * 10 / 1e6 + 4000 * 100 / 1e6
    run = backend(server, max_cost=0.9 * worst, extra={"max_tokens": 4000})
    came, _ = replies_until_the_end(run, 3)
    assert came == server.asked == []


def test_a_judge_that_runs_out_of_money_keeps_whole_answers_and_goes_on(
    server: FaultServer, tmp_path: Path, jsonl: Any
) -> None:
    server.script = lambda asked: Answer(
        chat("supported", usage={"prompt_tokens": PROMPT, "completion_tokens": COMPLETION}), delay_s=0.01
    )
    prompts = jsonl("p.jsonl", [{"id": f"p{i}", "prompt": "What?", "reference": f"It is {i}."} for i in range(30)])
    answers = [
        {"id": f"r{i}", "prompt_id": f"p{i}", "response": "It is so. It was so.", "model": "m"} for i in range(30)
    ]
    responses, out = jsonl("r.jsonl", answers), tmp_path / "a.jsonl"

    def run(max_cost: float) -> AnnotateStats:
        judge = llm_judge(backend(server, max_cost=max_cost, max_model_len=4000, concurrency=4), LLMOptions())
        return annotate(prompts, responses, out, judge, get_splitter("markdown"))

    with pytest.raises(OutOfMoney):
        run(20 * CALL)
    assert 3 <= len(list(read_records(out, Annotation))) <= 10
    assert len(server.asked) <= 20
    stats = run(1.0)
    assert stats.file.annotations == 30
    assert stats.file.failed == 0
    meta = read_meta(meta_file(out))
    assert meta is not None
    assert meta.spent is not None
    assert meta.spent.cost == pytest.approx(len(server.asked) * CALL)


def test_money_that_ends_within_the_first_answer_is_not_spent_again(
    server: FaultServer, tmp_path: Path, jsonl: Any
) -> None:
    server.script = lambda asked: Answer(
        chat("supported", usage={"prompt_tokens": PROMPT, "completion_tokens": COMPLETION}), delay_s=0.01
    )
    long = " ".join(f"Town {i} has a river." for i in range(40))
    prompts = jsonl("p.jsonl", [{"id": "p", "prompt": "What?", "reference": "It is."}])
    responses = jsonl("r.jsonl", [{"id": "r", "prompt_id": "p", "response": long, "model": "m"}])
    counts = []
    for _ in range(3):
        judge = llm_judge(backend(server, max_cost=12 * CALL, max_model_len=4000, concurrency=4), LLMOptions())
        with pytest.raises(OutOfMoney, match="unfinished ones are made again"):
            annotate(prompts, responses, tmp_path / "a.jsonl", judge, get_splitter("markdown"))
        counts.append(len(server.asked))
    assert 5 <= counts[0] <= 12
    assert counts[2] <= 12, "the record of the first run says what is spent"


def test_tokens_that_an_error_reports_are_paid(server: FaultServer) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 500}
    error = {"error": {"message": "overloaded", "code": 503}}
    server.script = lambda asked: Answer(error | {"usage": usage})
    run = backend(server, max_retries=2)
    (reply,) = run.generate([ask(0)])
    assert reply.failure is not None
    assert run.purse.spent.cost == pytest.approx(len(server.asked) * (1000 * 10 + 500 * 100) / 1e6)


@pytest.mark.parametrize("status", [408, 502, 504])
def test_a_proxy_that_gives_up_may_cost_the_worst_case(server: FaultServer, status: int) -> None:
    server.script = lambda asked: problem(status, "gave up")
    run = backend(server, max_retries=0)
    list(run.generate([ask(0)]))
    assert run.purse.spent.unanswered > 0


def test_finding_out_that_completions_come_one_by_one_costs_what_it_costs(server: FaultServer) -> None:
    def one(asked: Asked) -> Answer:
        return Answer(chat("x", usage={"prompt_tokens": PROMPT, "completion_tokens": COMPLETION}), delay_s=0.01)

    server.script = one  # `n` is ignored
    run = backend(server, max_cost=1.0, concurrency=8)
    requests = [
        Request(i, [Message(role="user", content="?")], sampling=Sampling(n=4, max_tokens=40)) for i in range(8)
    ]
    replies = list(run.generate(requests))
    assert sum(len(reply.completions) for reply in replies) == 32
    assert run.purse.spent.cost == pytest.approx(len(server.asked) * CALL)
    assert run.purse.spent.unanswered == 0
    assert len(server.asked) <= 32 + 8


def test_cached_tokens_that_a_server_counts_apart_are_added(server: FaultServer) -> None:
    server.script = lambda asked: priced(asked, cached=5000, prompt=10)
    run = backend(server, price="10,1,100")
    list(run.generate([ask(0)]))
    assert run.purse.spent.prompt_tokens == 5010
    assert run.purse.spent.cost == pytest.approx((10 * 10 + 5000 * 1 + COMPLETION * 100) / 1e6)

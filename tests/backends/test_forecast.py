"""``--dry-run``: what it says before a run is what the run then takes."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import exit_code

from maskdpo.annotate.forecast import forecast_annotate
from maskdpo.annotate.labelling import annotate
from maskdpo.annotate.settings import AnnotateSettings
from maskdpo.backends import forecast, make_backend
from maskdpo.errors import UserError
from maskdpo.models import load_tokenizer
from maskdpo.sample import SampleSettings, forecast_sample, sample
from maskdpo.schemas import Status
from tests.backends.fault_server import Answer, Asked, FaultServer, chat, running


@pytest.fixture
def server(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    """Counts the tokens of prompts as the template of a real tokenizer makes them."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    tokenizer = load_tokenizer(tiny_model)

    def script(asked: Asked) -> Answer:
        if "messages" not in asked.body:
            return Answer({}, 404)
        text = tokenizer.apply_chat_template(asked.body["messages"], tokenize=False, add_generation_prompt=True)
        count = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        texts = ["supported"] * asked.body.get("n", 1)
        return Answer(chat(*texts, usage={"prompt_tokens": count, "completion_tokens": 3 * len(texts)}))

    with running() as fault_server:
        fault_server.script = script
        yield fault_server


def posts(server: FaultServer) -> int:
    return sum("messages" in each.body for each in server.asked)


@pytest.fixture
def files(tmp_path: Path, jsonl: Callable[..., Path]) -> dict[str, Path]:
    prompts = [
        {
            "id": f"p{i}",
            "prompt": f"What is thing {i}?" * (1 + i % 3),
            "reference": f"Thing {i} is blue. " * (1 + i % 5),
        }
        for i in range(30)
    ]
    answers = [
        {"id": f"r{i}", "prompt_id": f"p{i}", "response": "It is blue. It is old. It is here."[: 11 * (1 + i % 3)]}
        for i in range(30)
    ]
    return {
        "prompts": jsonl("prompts.jsonl", prompts),
        "responses": jsonl("responses.jsonl", [{**one, "model": "m"} for one in answers]),
        "out": tmp_path / "out.jsonl",
    }


def sampling(files: dict[str, Path], **options: Any) -> SampleSettings:
    return SampleSettings(prompts=files["prompts"], out=files["out"], n=2, max_tokens=4, **options)


def judging(files: dict[str, Path], server: FaultServer, **options: Any) -> AnnotateSettings:
    given = {"judge": "llm", "model": "m", "backend": "openai", "api_base": server.url, **options}
    return AnnotateSettings(**files, **given)


def test_sampling_takes_the_tokens_that_were_forecast_and_the_forecast_asks_nobody(
    server: FaultServer, files: dict[str, Path], tiny_model: str
) -> None:
    settings = sampling(files, model="m", backend="openai", api_base=server.url, tokenizer=tiny_model, price="10,100")
    backend = make_backend("m", settings)
    made = forecast_sample(settings, backend)
    assert posts(server) == 0
    assert not files["out"].exists()
    stats = sample(files["prompts"], files["out"], backend, settings.sampling())
    assert (made.records, made.calls, made.prompt_tokens) == (30, posts(server), stats.prompt_tokens)
    assert made.completion_tokens == 30 * 2 * 4
    assert made.prompt_cost == pytest.approx(stats.prompt_tokens * 10 / 1e6)
    assert made.cost == pytest.approx((stats.prompt_tokens * 10 + 240 * 100) / 1e6)
    assert stats.cost is not None
    assert stats.cost <= made.cost


def test_a_part_stands_for_the_whole(
    server: FaultServer, files: dict[str, Path], tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = sampling(files, model="m", backend="openai", api_base=server.url, tokenizer=tiny_model)
    whole = forecast_sample(settings, make_backend("m", settings))
    monkeypatch.setattr(forecast, "PART", 10)
    part = forecast_sample(settings, make_backend("m", settings))
    assert (part.records, part.counted, part.calls) == (30, 10, 30)
    assert part.prompt_tokens == pytest.approx(whole.prompt_tokens, rel=0.25)
    assert part.cost is part.seconds is None


def test_the_time_follows_from_the_rates_of_all_servers(server: FaultServer, files: dict[str, Path]) -> None:
    url = server.url.replace("127.0.0.1", "localhost")
    settings = sampling(files, model="m", backend="openai", api_base=(server.url, url), requests_per_minute=10)
    assert forecast_sample(settings, make_backend("m", settings)).seconds == pytest.approx(90)


def test_a_local_model_is_not_loaded_and_its_prompts_are_counted(
    files: dict[str, Path], tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = sampling(files, model=tiny_model)
    with monkeypatch.context() as patch:
        patch.setattr("maskdpo.backends.transformers_backend.load_model", lambda *_, **__: pytest.fail("loaded"))
        made = forecast_sample(settings, make_backend(tiny_model, settings))
    stats = sample(files["prompts"], files["out"], make_backend(tiny_model, settings), settings.sampling())
    assert (made.calls, made.prompt_tokens) == (30, stats.prompt_tokens)
    assert made.cost is None


@pytest.mark.parametrize("protocol", ["single", "joint", "staged", "yes-no"])
def test_judging_makes_the_calls_that_were_forecast(
    server: FaultServer, files: dict[str, Path], tiny_model: str, protocol: str
) -> None:
    settings = judging(files, server, protocol=protocol, tokenizer=tiny_model)
    made = forecast_annotate(settings)
    assert posts(server) == 0
    stats = annotate(
        files["prompts"], files["responses"], files["out"], settings.make_judge(), settings.make_splitter()
    )
    usage = stats.run_usage
    assert usage is not None
    if protocol in ("single", "yes-no"):
        assert (made.calls, made.prompt_tokens) == (usage.calls, usage.prompt_tokens)
    elif protocol == "joint":  # the word alone is no reply here: answers of several sentences fail, once asked
        assert (made.calls, made.prompt_tokens) == (usage.calls, usage.prompt_tokens)
        assert stats.file.statuses[Status.PARSE_ERROR]
    else:  # a conversation may end before its last turn
        assert made.calls >= usage.calls


def test_a_judge_that_asks_no_model_has_no_forecast(files: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="`judge` llm, and lexical tells of none"):
        forecast_annotate(AnnotateSettings(**files, judge="lexical"))


def test_a_forecast_for_a_provider_has_its_list_price_and_needs_no_key(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    settings = sampling(files, model="gpt-4o-mini", backend="openai")
    made = forecast_sample(settings, make_backend("gpt-4o-mini", settings))
    assert made.cost is not None
    assert made.prompt_cost is not None
    assert 0 < made.prompt_cost < made.cost
    assert "estimate" in made.counted_by


@pytest.mark.parametrize("command", ["sample", "annotate"])
def test_a_forecast_is_compared_with_the_limit(
    files: dict[str, Path], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = [files["prompts"], *([files["responses"], "--judge", "llm"] if command == "annotate" else [])]
    model = ("--model", "m", "--backend", "openai", "--api-base", "http://127.0.0.1:9/v1", "--price", "1000,1000")

    def said(limit: str) -> str:
        assert exit_code(command, *inputs, *model, "--out", files["out"], "--dry-run", *limit.split()) == 0
        return " ".join(capsys.readouterr().out.split())

    table = said("")
    assert "max-cost" not in table
    prompts, most = (float(found) for found in re.findall(r"cost[^$]*\$([0-9.]+)", table))
    assert prompts < most
    assert "--max-cost" in (enough := said(f"--max-cost {most + 0.01}"))
    assert "is enough, even if every reply is as long as it may be" in enough
    assert "may not be enough: the prompts cost less" in said(f"--max-cost {(prompts + most) / 2}")
    assert "is not enough: the prompts alone cost more" in said(f"--max-cost {prompts / 2}")

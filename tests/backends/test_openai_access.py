"""How a server is reached: queries in its URL, headers and keys, and where these never appear."""

import logging
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import exit_code
from pydantic import ValidationError

from maskdpo.backends.base import Reply, Request
from maskdpo.backends.openai_access import read_address
from maskdpo.backends.openai_backend import OpenAIBackend
from maskdpo.backends.settings import BackendSettings
from maskdpo.errors import UserError
from maskdpo.io import read_records, write_records
from maskdpo.redact import line_without_secrets
from maskdpo.schemas import Message, Prompt, Response
from maskdpo.settings import command_line
from tests.backends.fault_server import Answer, Asked, FaultServer, chat, problem, read_certificates, running

SECRET = "header-secret-0123456789"


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with running() as fault_server:
        yield fault_server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl.create_default_context", read_certificates)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("GATEWAY_KEY", SECRET)


def settings(server: FaultServer, query: str = "", **more: Any) -> BackendSettings:
    return BackendSettings(backend="openai", api_base=server.url + query, max_retries=0, **more)


def ask(server: FaultServer, query: str = "", **more: Any) -> Reply:
    request = Request(0, [Message(role="user", content="Where is Paris?")])
    (reply,) = OpenAIBackend("m", settings(server, query, **more)).generate([request])
    return reply


def test_a_query_goes_with_every_request(server: FaultServer) -> None:
    ask(server, "?api-version=2024-10-21")
    OpenAIBackend("m", settings(server, "?api-version=2024-10-21")).context()
    assert [asked.path for asked in server.asked] == [
        "/v1/chat/completions?api-version=2024-10-21",
        "/v1/models?api-version=2024-10-21",
    ]


@pytest.mark.parametrize(
    "url", ["http://x/v1", "http://x/v1/", "http://x/v1/chat/completions", "http://x/v1/completions?"]
)
def test_the_base_is_found_in_the_url_of_an_endpoint(url: str) -> None:
    assert read_address(url).url == "http://x/v1"


@pytest.mark.parametrize("name", ["key", "api_key", "api-key", "token"])
def test_a_key_in_the_query_is_an_error_that_does_not_show_it(name: str) -> None:
    with pytest.raises(UserError, match="must hold no key") as caught:
        read_address(f"http://x/v1?{name}={SECRET}")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("$GATEWAY_KEY", SECRET),
        ("${GATEWAY_KEY}", SECRET),
        ("Bearer $GATEWAY_KEY", f"Bearer {SECRET}"),
        ("a$$b", "a$b"),
        ("x-$GATEWAY_KEY", f"x-{SECRET}"),
        ("", ""),
    ],
)
def test_a_header_may_name_a_variable(server: FaultServer, value: str, sent: str) -> None:
    ask(server, headers={"X-Access": value})
    OpenAIBackend("m", settings(server, headers={"X-Access": value})).context()
    assert [asked.headers["x-access"] for asked in server.asked] == [sent, sent]


def test_a_header_replaces_the_key_and_needs_none(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(server, headers={"api-key": "$GATEWAY_KEY"})
    assert "authorization" not in server.asked[-1].headers
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    ask(server, headers=["Authorization=Bearer $GATEWAY_KEY"])
    assert server.asked[-1].headers["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("value", ["$NO_SUCH_KEY", "line\nbreak", "ключ"])
def test_a_header_that_cannot_be_sent_is_named_without_its_value(server: FaultServer, value: str) -> None:
    with pytest.raises(UserError, match="the `header` x-access") as caught:
        ask(server, headers={"x-access": value})
    assert value not in str(caught.value)
    assert server.asked == []


def test_headers_are_shown_nowhere(
    server: FaultServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "httpx2", "httpcore2", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    given = settings(server, headers={"x-access": f"Bearer {SECRET}"})
    server.script = lambda asked: problem(400, f"bad: {asked.headers['x-access']} and {SECRET}")
    said = [str(ask(server, headers={"x-access": f"Bearer {SECRET}"}).failure)]
    backend = OpenAIBackend("m", given)
    said += [repr(given), repr(vars(backend)), given.model_dump_json(), command_line("sample", given)]
    with pytest.raises(ValidationError) as caught:
        BackendSettings(headers=[f"x-access={SECRET}"])  # it goes with another backend
    said.append(str(caught.value))
    captured = capfd.readouterr()
    assert SECRET not in "\n".join([*said, caplog.text, captured.out, captured.err])
    assert "***" in said[0]


@pytest.mark.parametrize("line", ["--header x-access={}", "--header=x-access={}", "--header 'Authorization=Bearer {}'"])
def test_command_lines_are_recorded_without_headers(line: str) -> None:
    clean = line_without_secrets(f"maskdpo sample p.jsonl {line.format(SECRET)} --n 2")
    assert SECRET not in clean
    assert clean.endswith("=***' --n 2")


def test_neither_key_nor_headers_follow_a_redirect(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    with running() as other:
        server.script = lambda asked: Answer({}, 307, {"location": f"{other.url}/chat/completions?token=x"})
        with pytest.raises(UserError, match=r"sends requests on to .*token=\*\*\* \(307\).*Correct `api_base`"):
            ask(server, headers={"x-access": "$GATEWAY_KEY"})
        assert other.asked == []


def test_the_record_of_a_run_knows_extra_fields_and_no_headers(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_records(tmp_path / "p.jsonl", [Prompt(id="a", prompt="Where is Paris?")])
    server.script = lambda asked: Answer(chat("In France."))

    def sample(*more: str) -> int:
        words = ["sample", str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "r.jsonl"), "--n", "1", "--model", "m"]
        words += ["--backend", "openai", "--api-base", server.url, *more]
        monkeypatch.setattr(sys, "argv", ["maskdpo", *words])
        return exit_code(*words)

    assert sample("--header", f"x-access={SECRET}", "--extra", 'provider={"sort": "price"}') == 0
    written = "".join(file.read_text() for file in tmp_path.iterdir())
    assert SECRET not in written
    assert written.count('"sort"') >= 2  # in the record and in the response
    assert sample("--extra", 'provider={"sort": "price"}') == 0  # other headers are no other run
    assert sample("--extra", "provider=none") == 2
    assert "an earlier run with other settings" in capsys.readouterr().err


def test_responses_say_what_was_sent_and_not_what_was_wished(server: FaultServer, tmp_path: Path) -> None:
    def script(asked: Asked) -> Answer:
        if "temperature" in asked.body:
            return problem(400, "`temperature` is deprecated for this model.")
        return Answer(chat(*["In France."] * asked.body["n"]))

    server.script = script
    write_records(tmp_path / "p.jsonl", [Prompt(id="a", prompt="Where is Paris?")])
    words = ["sample", tmp_path / "p.jsonl", "--out", tmp_path / "r.jsonl", "--n", 2, "--model", "m", "--top-p", 0.9]
    assert exit_code(*words, "--backend", "openai", "--api-base", server.url, "--temperature", 0.4) == 0
    expected = {"temperature": None, "top_p": 0.9, "max_tokens": 256, "raw": False}
    assert [response.sampling for response in read_records(tmp_path / "r.jsonl", Response)] == [expected] * 2


def test_a_secret_inside_json_is_not_in_a_recorded_line() -> None:
    line = shlex.join(["maskdpo", "sample", "p.jsonl", "--extra", f'provider={{"apiKey": "{SECRET}", "order": ["a"]}}'])
    clean = line_without_secrets(line)
    assert SECRET not in clean
    assert '"order": ["a"]' in clean


@pytest.mark.parametrize("name", ["apikey", "x_api_key", "Authorization", "api-key"])
def test_a_secret_of_any_spelling_is_not_in_a_recorded_line(name: str) -> None:
    assert SECRET not in line_without_secrets(f"maskdpo sample p.jsonl --extra {name}={SECRET}")


def test_a_variable_without_an_end_is_refused(server: FaultServer) -> None:
    with pytest.raises(UserError, match="without the name of a variable"):
        OpenAIBackend("m", settings(server, headers={"X-Access": "Bearer ${GATEWAY_KEY"})).context()

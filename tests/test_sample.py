"""``sample``: nothing is asked twice, nothing is lost, and a changed run does not mix with an earlier one."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from maskdpo import prompt_date
from maskdpo.backends.base import Completion, Failure, Reply, Request, Sampling, gather
from maskdpo.backends.settings import BackendSettings
from maskdpo.backends.transformers_backend import TransformersBackend
from maskdpo.backends.vllm_backend import VLLMBackend
from maskdpo.errors import InputError, UserError
from maskdpo.io import read_records
from maskdpo.run_record import RunMeta, meta_file
from maskdpo.sample import sample
from maskdpo.schemas import Message, Response, Status


class Scripted:
    """A backend that answers with the prompt's key, last prompt of each window first, and records what it was asked."""

    def __init__(
        self,
        *,
        model: str = "scripted",
        window: int = 4,
        fail: tuple[str, ...] = (),
        stop_after: int = 10**9,
        error: type[BaseException] = KeyboardInterrupt,
    ):
        self.model = model
        self.template_options: dict[str, Any] = {}
        self.today: date | None = None
        self.asked: list[Any] = []
        self.requests: list[Request] = []
        self._window, self._fail, self._stop_after, self._error = window, fail, stop_after, error

    def writes_date(self) -> bool:
        return False

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        window: list[Request] = []
        for request in requests:
            self.asked.append(request.key)
            self.requests.append(request)
            window.append(request)
            if len(window) == self._window:
                yield from self._answer(window)
                window = []
        yield from self._answer(window)

    def _answer(self, window: list[Request]) -> Iterator[Reply]:
        for request in reversed(window):
            self._stop_after -= 1
            if self._stop_after < 0:
                raise self._error("CUDA out of memory")
            if request.key in self._fail:
                yield Reply(request.key, failure=Failure(Status.API_ERROR, "server on fire"))
            else:
                count = request.sampling.n
                texts = (Completion(f"{request.key} says {i}", "length" if i else "stop") for i in range(count))
                yield Reply(request.key, tuple(texts), prompt_tokens=3, completion_tokens=5)


@pytest.fixture
def prompts(jsonl: Any) -> Path:
    return jsonl("prompts.jsonl", [{"id": f"q{i}", "prompt": f"Question {i}?"} for i in range(10)])


SAMPLING = Sampling(n=2, max_tokens=8)


def ids(out: Path) -> list[str]:
    return [response.id for response in read_records(out, Response)]


ALL = [f"q{p}-{i}" for p in range(10) for i in range(2)]


def test_every_prompt_is_asked_once_and_answers_end_in_the_order_of_the_prompts(
    prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, backend = tmp_path / "r.jsonl", Scripted()
    stats = sample(prompts, out, backend, SAMPLING)
    assert backend.asked == [f"q{i}" for i in range(10)]
    assert backend.requests[3].prompt == [Message(role="user", content="Question 3?")]
    assert ids(out) == ALL
    first = next(iter(read_records(out, Response)))
    assert first == Response(
        id="q0-0",
        prompt_id="q0",
        response="q0 says 0",
        model="scripted",
        sampling={"temperature": 1.0, "top_p": 1.0, "max_tokens": 8, "raw": False},
        finish_reason="stop",
    )
    assert (stats.prompts, stats.responses, stats.cut_off, stats.failed) == (10, 20, 10, 0)
    said = " ".join(capsys.readouterr().err.split())
    assert "50% of the answers (10 of 20) reached `max_tokens` 8 and were cut off" in said
    assert "(without `restart` these answers stay as they are)" in said
    assert (stats.prompt_tokens, stats.completion_tokens) == (30, 50)
    assert RunMeta.model_validate_json(meta_file(out).read_bytes()).status == "complete"


def test_a_complete_run_asks_nothing_and_changes_nothing(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    sample(prompts, out, Scripted(), SAMPLING)
    before = out.read_bytes(), meta_file(out).read_bytes()
    backend = Scripted()
    assert sample(prompts, out, backend, SAMPLING).already_there == 10
    assert backend.asked == []
    assert (out.read_bytes(), meta_file(out).read_bytes()) == before


def test_killed_behind_the_last_answer_the_order_is_still_put_right(prompts: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "r.jsonl"
    sample(prompts, whole, Scripted(), SAMPLING)
    with pytest.raises(KeyboardInterrupt):
        sample(prompts, out, Scripted(stop_after=9), SAMPLING)
    missing = set(ALL) - set(ids(out))
    lines = [line for line in whole.read_bytes().splitlines(keepends=True) if any(i in line.decode() for i in missing)]
    out.write_bytes(out.read_bytes() + b"".join(lines))
    assert sorted(ids(out)) == ALL != ids(out)
    sample(prompts, out, Scripted(), SAMPLING)
    assert out.read_bytes() == whole.read_bytes()
    assert RunMeta.model_validate_json(meta_file(out).read_bytes()).status == "complete"


@pytest.mark.parametrize("after", [1, 3, 4, 9])
def test_an_interrupted_run_continues_and_ends_as_if_it_had_not_been(prompts: Path, tmp_path: Path, after: int) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "r.jsonl"
    sample(prompts, whole, Scripted(), SAMPLING)
    with pytest.raises(KeyboardInterrupt):
        sample(prompts, out, Scripted(stop_after=after), SAMPLING)
    had = {identity.split("-")[0] for identity in ids(out)}
    assert len(had) == after
    backend = Scripted()
    assert sample(prompts, out, backend, SAMPLING).already_there == after
    assert set(backend.asked) == {f"q{i}" for i in range(10)} - had
    assert out.read_bytes() == whole.read_bytes()


def test_two_runs_on_one_output(prompts: Path, tmp_path: Path) -> None:
    class Meanwhile(Scripted):
        def _answer(self, window: list[Request]) -> Iterator[Reply]:
            for restart in (False, True):
                with pytest.raises(UserError, match=r"r\.jsonl: another maskdpo run is writing to it"):
                    sample(prompts, tmp_path / "r.jsonl", Scripted(), SAMPLING, restart=restart)
            yield from super()._answer(window)

    sample(prompts, tmp_path / "r.jsonl", Meanwhile(), SAMPLING)
    assert ids(tmp_path / "r.jsonl") == ALL
    assert sorted(file.name for file in tmp_path.iterdir()) == ["prompts.jsonl", "r.jsonl", "r.jsonl.meta.json"]


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_whatever_stops_the_backend_what_came_back_is_written(
    prompts: Path, tmp_path: Path, error: type[BaseException]
) -> None:
    with pytest.raises(error, match="CUDA out of memory"):
        sample(prompts, tmp_path / "r.jsonl", Scripted(stop_after=7, error=error), SAMPLING)
    assert len(ids(tmp_path / "r.jsonl")) == 14


def test_a_prompt_of_which_one_answer_is_there_gets_the_others_only(prompts: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "r.jsonl"
    sample(prompts, whole, Scripted(), SAMPLING)
    sample(prompts, out, Scripted(), SAMPLING)
    lines = out.read_bytes().splitlines(keepends=True)
    earlier = lines[6].replace(b"q3 says 0", b"said before")
    out.write_bytes(b"".join(lines[:6]) + earlier + lines[7][:-9])
    backend = Scripted()
    sample(prompts, out, backend, SAMPLING)
    assert backend.asked == [f"q{i}" for i in range(3, 10)]
    assert out.read_bytes() == whole.read_bytes().replace(lines[6], earlier)


def test_more_prompts_are_added_to_what_is_there(jsonl: Any, tmp_path: Path) -> None:
    rows = [{"id": f"q{i}", "prompt": "?"} for i in (2, 0, 1)]
    out, backend = tmp_path / "r.jsonl", Scripted()
    sample(jsonl("p.jsonl", rows[1:]), out, Scripted(), SAMPLING)
    sample(jsonl("p.jsonl", rows), out, backend, SAMPLING)
    assert backend.asked == ["q2"]
    assert ids(out) == [f"q{p}-{i}" for p in (2, 0, 1) for i in range(2)]


def test_a_failed_prompt_has_no_answer_and_is_asked_again(
    prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.jsonl"
    assert sample(prompts, out, Scripted(fail=("q4", "q7")), SAMPLING).failed == 2
    assert ids(out) == [identity for identity in ALL if identity[:2] not in ("q4", "q7")]
    assert "prompt 'q4': server on fire" in capsys.readouterr().err
    backend = Scripted()
    assert sample(prompts, out, backend, SAMPLING).failed == 0
    assert backend.asked == ["q4", "q7"]
    assert ids(out) == ALL


@pytest.mark.parametrize(
    ("sampling", "model", "raw", "what"),
    [
        (SAMPLING, "other", False, "model: 'scripted' -> 'other'"),
        (Sampling(n=3, max_tokens=8), "scripted", False, "n: 2 -> 3"),
        (Sampling(n=2, max_tokens=8, temperature=0.5), "scripted", False, "temperature: 1.0 -> 0.5"),
        (Sampling(n=2, max_tokens=8, stop=("\n",)), "scripted", False, r"stop: [] -> ['\n']"),
        (SAMPLING, "scripted", True, "raw: False -> True"),
    ],
)
def test_changed_settings_are_refused_by_name(
    prompts: Path, tmp_path: Path, sampling: Sampling, model: str, raw: bool, what: str
) -> None:
    out = tmp_path / "r.jsonl"
    sample(prompts, out, Scripted(), SAMPLING)
    before = out.read_bytes()
    backend = Scripted(model=model)
    with pytest.raises(UserError) as error:
        sample(prompts, out, backend, sampling, raw=raw)
    assert what in str(error.value)
    assert "`restart`" in str(error.value)
    assert backend.asked == []
    assert out.read_bytes() == before


def test_restart_sets_the_earlier_output_aside(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    sample(prompts, out, Scripted(), SAMPLING)
    before = out.read_bytes()
    sample(prompts, out, Scripted(model="other"), SAMPLING, restart=True)
    assert (tmp_path / "r.jsonl.bak").read_bytes() == before
    assert {response.model for response in read_records(out, Response)} == {"other"}


def test_a_restart_that_fails_before_it_has_written_anything_puts_the_output_back(
    prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "r.jsonl"
    sample(prompts, out, Scripted(), SAMPLING)
    before = out.read_bytes(), meta_file(out).read_bytes()
    missing = TransformersBackend(str(tmp_path / "no-model"), BackendSettings())
    with pytest.raises(UserError):
        sample(prompts, out, missing, SAMPLING, restart=True)
    assert (out.read_bytes(), meta_file(out).read_bytes()) == before
    assert not list(tmp_path.glob("*.bak*"))


def test_more_tokens_change_no_answer_that_is_there_and_that_is_said(
    prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.jsonl"
    sample(prompts, out, Scripted(), SAMPLING)
    before = out.read_bytes()
    sample(prompts, out, Scripted(), SAMPLING)
    assert "when this output was begun" not in capsys.readouterr().err
    sample(prompts, out, Scripted(), replace(SAMPLING, max_tokens=99))
    said = capsys.readouterr().err.replace("\n", " ")
    assert f"`max_tokens` was {SAMPLING.max_tokens} when this output was begun: its answers stay as they are" in said
    assert out.read_bytes() == before


def test_changed_prompts_are_pointed_out(jsonl: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "r.jsonl"
    sample(jsonl("p.jsonl", [{"id": "q0", "prompt": "?"}]), out, Scripted(), SAMPLING)
    sample(jsonl("p.jsonl", [{"id": "q0", "prompt": "!"}]), out, Scripted(), SAMPLING)
    assert "the prompts file has changed" in capsys.readouterr().err.replace("\n", " ")


def test_raw_sends_strings_as_they_are_and_takes_no_messages(jsonl: Any, tmp_path: Path) -> None:
    backend = Scripted()
    sample(jsonl("p.jsonl", [{"id": "a", "prompt": "The sky is"}]), tmp_path / "r.jsonl", backend, SAMPLING, raw=True)
    assert backend.requests[0].prompt == "The sky is"
    chat = jsonl("c.jsonl", [{"id": "a", "prompt": "x"}, {"id": "b", "prompt": [{"role": "user", "content": "?"}]}])
    with pytest.raises(InputError, match=r"c\.jsonl:2: prompt: `raw` sends the prompt as it is"):
        sample(chat, tmp_path / "c.out", Scripted(), SAMPLING, raw=True)
    assert not (tmp_path / "c.out").exists()


def test_a_backend_that_cannot_start_leaves_no_file(prompts: Path, tmp_path: Path) -> None:
    class Broken(Scripted):
        def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
            raise UserError("no such model")
            yield

    with pytest.raises(UserError, match="no such model"):
        sample(prompts, tmp_path / "r.jsonl", Broken(), SAMPLING)
    assert [file.name for file in tmp_path.iterdir()] == ["prompts.jsonl"]


class Thinking(Scripted):
    """Thinks before every answer; of the prompts in ``fail`` the second answer is reasoning only."""

    def _answer(self, window: list[Request]) -> Iterator[Reply]:
        for request in window:
            outcomes: list[Completion | Failure] = [
                Completion(f"{request.key} says {i}", "stop", reasoning=f"hm {i}") for i in range(request.sampling.n)
            ]
            if request.key in self._fail:
                outcomes[1] = Failure(Status.TRUNCATED, "reasoning only")
            yield gather(request, outcomes)


def test_reasoning_stands_beside_the_answer(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    sample(prompts, out, Thinking(), SAMPLING)
    first = next(iter(read_records(out, Response)))
    assert (first.response, first.reasoning) == ("q0 says 0", "hm 0")


def test_a_failed_answer_does_not_lose_the_others_and_is_asked_for_again(
    prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, out = tmp_path / "whole.jsonl", tmp_path / "r.jsonl"
    sampling = Sampling(n=3, max_tokens=8)
    sample(prompts, whole, Thinking(), sampling)
    stats = sample(prompts, out, Thinking(fail=("q1", "q4")), sampling)
    assert (stats.failed, stats.failed_answers, stats.responses) == (0, 2, 28)
    assert "answer 'q4-1': reasoning only" in capsys.readouterr().err
    assert {"q4-0", "q4-2"} <= set(ids(out))
    assert "q4-1" not in ids(out)
    again = Thinking(fail=("q4",))
    assert sample(prompts, out, again, sampling).failed_answers == 1
    assert again.asked == ["q1", "q4"]
    sample(prompts, out, Thinking(), sampling)
    assert out.read_bytes() == whole.read_bytes()


def test_answers_that_are_reasoning_only_are_asked_for_again_with_more_tokens(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    sample(prompts, out, Thinking(fail=("q4",)), SAMPLING)
    before = out.read_bytes().splitlines()
    again = Thinking()
    sample(prompts, out, again, replace(SAMPLING, max_tokens=9))
    assert again.asked == ["q4"]
    assert ids(out) == ALL
    assert set(before) < set(out.read_bytes().splitlines())
    had = {record.id: (record.sampling or {})["max_tokens"] for record in read_records(out, Response)}
    assert had == dict.fromkeys(ALL, 8) | {"q4-1": 9}
    assert RunMeta.model_validate_json(meta_file(out).read_bytes()).options["max_tokens"] == 9
    with pytest.raises(UserError, match="max_tokens: 9 -> 8"):
        sample(prompts, out, Thinking(), SAMPLING)


def test_template_options_are_recorded_and_hold_for_a_resumed_run(prompts: Path, tmp_path: Path) -> None:
    out, told = tmp_path / "r.jsonl", Scripted()
    told.template_options = {"enable_thinking": False}
    sample(prompts, out, told, SAMPLING)
    first = next(iter(read_records(out, Response)))
    assert first.sampling is not None
    assert first.sampling["template_options"] == {"enable_thinking": False}
    with pytest.raises(UserError, match=r"template_options: \{'enable_thinking': False\} -> None"):
        sample(prompts, out, Scripted(), SAMPLING)
    raw = jsonl_prompt(tmp_path)
    with pytest.raises(UserError, match="`template_options` is for a chat template, and `raw` uses none"):
        sample(raw, tmp_path / "raw.jsonl", told, SAMPLING, raw=True)


def jsonl_prompt(folder: Path) -> Path:
    (folder / "raw_prompts.jsonl").write_text('{"id": "a", "prompt": "The sky is"}\n')
    return folder / "raw_prompts.jsonl"


class Dated(Scripted):
    """Its chat template writes the date."""

    def writes_date(self) -> bool:
        return True

    def _answer(self, window: list[Request]) -> Iterator[Reply]:
        for request in window:
            yield Reply(request.key, (Completion(f"It is {self.today}.", "stop"),) * request.sampling.n)


def test_a_run_has_one_date_though_it_is_resumed_a_day_later(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Day(date):
        now = date(2026, 1, 31)

        @classmethod
        def today(cls) -> date:  # type: ignore[override]
            return cls.now

    monkeypatch.setattr(prompt_date, "date", Day)
    out = tmp_path / "r.jsonl"
    sample(jsonl_prompt(tmp_path), out, Dated(), SAMPLING)
    Day.now = date(2026, 2, 1)
    (tmp_path / "raw_prompts.jsonl").write_text('{"id": "a", "prompt": "?"}\n{"id": "b", "prompt": "?"}\n')
    sample(tmp_path / "raw_prompts.jsonl", out, Dated(), SAMPLING)
    found = list(read_records(out, Response))
    assert [record.response for record in found] == ["It is 2026-01-31."] * 4
    assert [(record.sampling or {})["prompt_date"] for record in found] == ["2026-01-31"] * 4
    assert RunMeta.model_validate_json(meta_file(out).read_bytes()).options["prompt_date"] == "2026-01-31"
    sample(tmp_path / "raw_prompts.jsonl", out, Dated(), SAMPLING, restart=True)
    assert next(iter(read_records(out, Response))).response == "It is 2026-02-01."


def test_an_old_complete_sample_of_a_dated_template_is_complete(tmp_path: Path) -> None:
    prompts, out = jsonl_prompt(tmp_path), tmp_path / "r.jsonl"
    sample(prompts, out, Dated(), SAMPLING)
    record = json.loads(meta_file(out).read_text())
    record["options"].pop("prompt_date")
    meta_file(out).write_text(json.dumps({key: value for key, value in record.items() if key != "schema_version"}))
    before = out.read_bytes(), meta_file(out).read_bytes()
    assert sample(prompts, out, Dated(), SAMPLING).responses == 0
    assert (out.read_bytes(), meta_file(out).read_bytes()) == before
    prompts.write_text(prompts.read_text() + '{"id": "more", "prompt": "?"}\n')
    with pytest.raises(UserError, match="prompt_date: None -> "):
        sample(prompts, out, Dated(), SAMPLING)
    assert (out.read_bytes(), meta_file(out).read_bytes()) == before


@pytest.mark.parametrize("made", [TransformersBackend, VLLMBackend])
def test_a_backend_of_this_process_renders_the_date_of_each_run(made: Any, tiny_model: str) -> None:
    backend = made(tiny_model)
    tokenizer = backend._reader.chat.tokenizer
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m.content }}{% endfor %}"
    assert backend.writes_date()
    for day, rendered in ((date(2020, 2, 3), "03 Feb 2020?"), (date(2021, 4, 5), "05 Apr 2021?")):
        backend.today = day
        prompt = backend._reader.encode(Request(0, [Message(role="user", content="?")]))
        assert isinstance(prompt, list)
        assert tokenizer.decode(prompt) == rendered


CHILD = """
import sys, time
from pathlib import Path
from tests.test_sample import SAMPLING, Scripted
from maskdpo.sample import sample
class Slow(Scripted):
    def _answer(self, window):
        for reply in super()._answer(window):
            time.sleep(0.002)
            yield reply
sample(Path(sys.argv[1]), Path(sys.argv[2]), Slow(window=7), SAMPLING)
"""


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_ends_in_the_same_file(jsonl: Any, tmp_path: Path) -> None:
    prompts = jsonl("p.jsonl", [{"id": f"q{i}", "prompt": "?"} for i in range(60)])
    whole, out = tmp_path / "whole.jsonl", tmp_path / "r.jsonl"
    sample(prompts, whole, Scripted(window=7), SAMPLING)
    rng, killed = random.Random(1), 0
    for _ in range(20):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(prompts), str(out)], cwd=Path(__file__).parents[1])
        while not out.exists() and child.poll() is None:
            time.sleep(0.002)
        if killed < 4:
            time.sleep(rng.uniform(0, 0.08))
            child.send_signal(signal.SIGKILL)
        if child.wait() == 0:
            break
        killed += 1
    assert killed == 4
    assert out.read_bytes() == whole.read_bytes()
    assert RunMeta.model_validate_json(meta_file(out).read_bytes()).status == "complete"

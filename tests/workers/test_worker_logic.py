"""What a worker does with its function, and what the process that asks makes of it: no Ray is needed here."""

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import maskdpo
from maskdpo.annotate.forecast import forecast_annotate
from maskdpo.annotate.judge import Task
from maskdpo.annotate.settings import AnnotateSettings
from maskdpo.annotate.spread import differing
from maskdpo.backends.base import told
from maskdpo.errors import UserError
from maskdpo.schemas import JudgeInfo, Prompt, Response, Span
from maskdpo.workers import Work, Workers
from maskdpo.workers.slot import cause_of_death
from maskdpo.workers.worker import MOST_AT_ONCE, Update, Worker

PLUGINS = Path(__file__).parent / "slow_judge.py"
Items = Iterator[tuple[int, Any]]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    return Worker(str(Path.cwd()), [], None)


def task(number: int) -> Task:
    text = f"Sentence {number}."
    prompt = Prompt(id=f"p{number}", prompt="?", reference="Fact.")
    response = Response(id=f"r{number}", prompt_id=prompt.id, response=text, model="m", sampling={})
    return Task(prompt, response, [Span(0, len(text))])


# --- one worker ------------------------------------------------------------------------------------


def test_what_a_function_does_not_read_is_handed_back(worker: Worker) -> None:
    worker.load(lambda: Work(lambda items: iter(())))
    assert sorted(worker.exchange([(n, "x") for n in range(9)], more=True).dropped) == list(range(9))


def test_what_was_answered_before_an_error_is_handed_over_first(worker: Worker) -> None:
    def two(items: Items) -> Items:
        yield next(items)
        yield next(items)
        raise ValueError("the third is too much")

    worker.load(lambda: Work(two))
    update = worker.exchange([(n, "x") for n in range(5)], more=True)
    assert (update.results, update.failed) == ([(0, "x"), (1, "x")], True)
    with pytest.raises(ValueError, match="the third is too much"):
        worker.exchange([], more=True)


def test_a_function_that_ends_its_process_is_an_error_and_no_death(worker: Worker) -> None:
    def ends(items: Items) -> Items:
        raise SystemExit(3)
        yield next(items)

    worker.load(lambda: Work(ends))
    with pytest.raises(UserError, match=r"sys\.exit\(3\)"):
        worker.exchange([(0, "x")], more=True)


def test_a_function_that_reads_ahead_answers_what_it_has_when_no_more_comes(worker: Worker) -> None:
    worker.load(lambda: Work(lambda items: iter(list(items))))
    update = worker.exchange([(n, "x") for n in range(8)], more=True)
    assert update == Update(room=16)
    while not update.results:
        update = worker.exchange([], more=False)
    assert [number for number, _ in update.results] == list(range(8))
    assert update.room < MOST_AT_ONCE


# --- who may work in workers, and what is known of them ----------------------------------------------


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ("The actor died unexpectedly before finishing this task.\n\tclass_name: Worker", r"\(Ray says: The actor"),
        (
            "The actor died because of an error raised in its creation task, ray::Worker.__init__()\n  File 'x'\n"
            "OSError: no space left",
            r"\(Ray says: OSError: no space left\)",
        ),
        ("Task was killed due to the node running low on memory.\nMemory on the node", "running out of memory"),
    ],
)
def test_the_cause_of_a_death_is_what_ray_says(said: str, known: str) -> None:
    assert re.search(known, cause_of_death(said))


def test_a_judge_is_the_same_where_one_machine_does_not_know_the_commit() -> None:
    here = JudgeInfo(name="classifier", model="org/model", version="1")
    there = here.model_copy(update={"revision": "org/model@0123"})
    assert differing(here, there) is differing(there, here) is differing(here, here) is None
    assert differing(there, there.model_copy(update={"revision": "org/model@4567"})) == "revision"
    assert differing(here, there.model_copy(update={"version": "2"})) == "version"
    assert differing(here, here.model_copy(update={"revision": "abcd"})) == "revision"


def test_a_backend_of_ones_own_keeps_its_extra_fields() -> None:
    alone, spread = (maskdpo.make_backend("m", backend=f"{PLUGINS}:Echo", workers=workers) for workers in (None, 2))
    assert told(spread) == told(alone) == {"extra": {"effort": "low"}}


def test_what_pays_for_its_calls_has_no_workers() -> None:
    with pytest.raises(UserError, match=r"paying pays for its calls .* leave out `workers`"):
        maskdpo.make_backend("m", backend=f"{PLUGINS}:paying", workers=2)


def test_the_date_of_a_run_reaches_the_backend_of_a_judge_in_a_worker() -> None:
    judge: Any = maskdpo.make_judge(f"{PLUGINS}:dated", workers=2)
    judge.backend.today = date(2026, 2, 3)
    work: Work = judge._workers._make()
    [(_, (verdicts, _))] = work.run(iter([(0, (judge._today(), task(0)))]))
    assert verdicts[0].evidence == "2026-02-03"


def test_a_forecast_starts_one_worker(tiny_model: str, jsonl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    monkeypatch.setattr(Workers, "told", lambda self: counts.append(self._count) or 2048)
    prompts = jsonl("prompts.jsonl", [{"id": "p", "prompt": "?", "reference": "Fact."}])
    answer = {"id": "r", "prompt_id": "p", "response": "Sentence.", "model": "m", "sampling": {}}
    settings = AnnotateSettings(
        prompts=prompts, responses=(jsonl("r.jsonl", [answer]),), out=Path("a"), judge="llm", model=tiny_model,
        workers=3, device="cpu",
    )  # fmt: skip
    assert forecast_annotate(settings).calls == 1
    assert counts == [1]

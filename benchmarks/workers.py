"""What workers in Ray cost: two workers against two single processes, and the memory of the process that feeds them.

- a judge that takes 20 ms for each answer, in this process and in two workers;
- a real model that samples on one thread: one process alone, two processes without Ray at the same time (which share
  the memory of the machine, as workers do), and two workers;
- with --sentences N: so many sentences through `annotate` with two workers and a judge that takes no time.

Loading models and starting Ray is left out of the times; both are done before the first run that counts.

Run: python benchmarks/workers.py
     python benchmarks/workers.py --sentences 1000000
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import maskdpo
from maskdpo import console
from maskdpo.annotate.judge import Task, Verdict
from maskdpo.backends.base import Request, Sampling
from maskdpo.backends.settings import BackendSettings
from maskdpo.schemas import JudgeInfo, Label, Prompt, Response, Span

WORKERS = 2
SENTENCES_PER_ANSWER = 10


class Options(BaseModel):
    """How long the judge takes."""

    seconds: float = 0.0


class Sleeping:
    """A judge that takes so many seconds for each answer."""

    def __init__(self, seconds: float) -> None:
        self.info = JudgeInfo(name="sleeping", version="1")
        self._seconds = seconds

    def judge(self, tasks: Any) -> Iterator[tuple[Task, list[Verdict]]]:
        for task in tasks:
            if self._seconds:
                time.sleep(self._seconds)
            yield task, [Verdict(Label.NO_HALLUCINATION, confidence=0.9)] * len(task.spans)


def sleeping(settings: BackendSettings, options: Options) -> Sleeping:
    """The factory of the judge: one that asks for settings runs in workers."""
    return Sleeping(options.seconds)


def tasks(count: int) -> Iterator[Task]:
    for i in range(count):
        prompt = Prompt(id=f"p{i // 10}", prompt="?", reference=f"Fact {i // 10}. " * 100)
        text = f"Sentence {i}."
        response = Response(id=f"r{i}", prompt_id=prompt.id, response=text, model="m", sampling={})
        yield Task(prompt, response, [Span(0, len(text))])


def of_judge(count: int) -> list[tuple[str, float]]:
    """Answers per second."""
    rates = []
    for workers in (None, WORKERS):
        judge = maskdpo.make_judge(f"{__file__}:sleeping", judge_options={"seconds": 0.02}, workers=workers)
        while not _all_ready(judge):
            list(judge.judge(tasks(20 * WORKERS)))
        began = time.monotonic()
        done = sum(1 for _ in judge.judge(tasks(count * (workers or 1))))
        rates.append(done / (time.monotonic() - began))
    return [("judge of 20 ms, in one process", rates[0]), (f"judge of 20 ms, in {WORKERS} workers", rates[1])]


def requests(count: int) -> Iterator[Request]:
    for i in range(count):
        prompt = f"Question {i}: which city has {3 + i % 7} bridges? Answer:"
        yield Request(f"p{i}", prompt, sampling=Sampling(n=8, max_tokens=48))


def of_model(model: str, count: int, workers: int | None) -> float:
    """Tokens per second of one process or of the workers, each of which computes on one thread."""
    backend = maskdpo.make_backend(model, workers=workers, dtype="float32", batch_size=32)
    list(backend.generate(requests(4)))
    while not _all_ready(backend):
        list(backend.generate(requests(2 * WORKERS)))
    began = time.monotonic()
    tokens = sum(reply.completion_tokens for reply in backend.generate(requests(count * (workers or 1))))
    return tokens / (time.monotonic() - began)


def _all_ready(made: Any) -> bool:
    """Whether every worker has loaded what it works with; a run may end before the last one has."""
    workers = getattr(made, "_workers", None)
    return workers is None or (workers._slots and all(slot.state == "ready" for slot in workers._slots))


def single(model: str, count: int, processes: int) -> list[float]:
    """Tokens per second of processes without Ray, all at the same time."""
    command = [sys.executable, __file__, "--model", model, "--prompts", str(count), "--alone"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    return [float(process.communicate()[0].split()[-1]) for process in running]


def stream(sentences: int) -> None:
    """Sentences through ``annotate``, and the memory of the process that feeds the workers."""
    answers = sentences // SENTENCES_PER_ANSWER
    with tempfile.TemporaryDirectory() as folder:
        prompts, responses = Path(folder) / "prompts.jsonl", Path(folder) / "responses.jsonl"
        with prompts.open("w") as file:
            for i in range(answers // 10):
                reference = " ".join(f"Fact {j} of document {i} is stated here." for j in range(50))
                file.write(json.dumps({"id": f"p{i}", "prompt": "?", "reference": reference}) + "\n")
        with responses.open("w") as file:
            for i in range(answers):
                text = " ".join(f"This is sentence {j} of answer {i}." for j in range(SENTENCES_PER_ANSWER))
                record = {"id": f"r{i}", "prompt_id": f"p{i // 10}", "response": text, "model": "m", "sampling": {}}
                file.write(json.dumps(record) + "\n")
        began = time.monotonic()
        out = Path(folder) / "out.jsonl"
        stats = maskdpo.annotate_responses(prompts, responses, judge=f"{__file__}:sleeping", out=out, workers=WORKERS)
        seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows = [
        ("sentences", stats.file.sentences),
        ("seconds, with the start of Ray", round(seconds)),
        ("peak memory of the driver, GiB", peak),
    ]
    console.table(f"{WORKERS} workers, a judge that takes no time", ("", "figure"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--answers", type=int, default=1000, help="for the judge, in each process")
    parser.add_argument("--prompts", type=int, default=24, help="for the model, in each process")
    parser.add_argument("--sentences", type=int, help="only stream so many sentences through annotate")
    parser.add_argument("--alone", action="store_true", help="only print the tokens per second of this process")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
    if given.alone:
        print(of_model(given.model, given.prompts, None))
        return
    if given.sentences:
        stream(given.sentences)
        return
    (one_name, one), (two_name, two) = of_judge(given.answers)
    [alone] = single(given.model, given.prompts, 1)
    together = sum(single(given.model, given.prompts, WORKERS))
    spread = of_model(given.model, given.prompts, WORKERS)
    rows = [
        (f"{one_name}, answers / s", one, ""),
        (f"{two_name}, answers / s", two, f"{two / (WORKERS * one):.1%} of {WORKERS} times one"),
        (f"{given.model}, one process, tokens / s", alone, ""),
        (f"{given.model}, {WORKERS} processes without Ray, tokens / s", together, f"{together / WORKERS / alone:.1%}"),
        (
            f"{given.model}, {WORKERS} workers, tokens / s",
            spread,
            f"{spread / WORKERS / alone:.1%}; {spread / together:.1%} of the processes without Ray",
        ),
    ]
    console.table("workers", ("", "rate", f"of {WORKERS} times one process"), rows)


if __name__ == "__main__":
    main()

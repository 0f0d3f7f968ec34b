"""What it costs to judge with a model: our protocols against a loop as in the ANAH repository, on one vLLM server.

The loop asks sentence after sentence, three turns each, one request at a time (eval/anah_v2/eval.py of
open-compass/ANAH; its prompts in our words, its order of the parts). Ours is the ``llm`` judge with the protocols
``single``, ``joint`` and ``staged``. Same model, same answers, and the server's prefix cache is emptied before each.

Run: make bench-annotate, or
     .venv-vllm/bin/python benchmarks/annotate.py prompts.jsonl responses.jsonl --answers 20
"""

import argparse
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import openai

from maskdpo import console
from maskdpo.annotate.judge import Task, Usage
from maskdpo.annotate.judges.llm import LLMOptions, llm_judge
from maskdpo.backends.openai_backend import OpenAIBackend
from maskdpo.backends.settings import BackendSettings
from maskdpo.io import read_answers, read_prompts
from maskdpo.schemas import Response
from maskdpo.text.splitters import get_splitter
from tests.integration.vllm_server import vllm_server

FACT = """You check facts. Below are a question and part of an answer to it. Does that part state facts that could be
verified?

Question: {question}

Part of the answer: {sentence}

If it states none, reply <No Facts>; if it states any, reply <Facts Present>."""
REFERENCE = """You extract information. Below are a question, part of an answer to it and a reference document. List
what the document says about the question and that part, separated by <SEP>.

Question: {question}

Part of the answer: {sentence}

Reference document: {reference}

If it says nothing about them, reply <No Reference Information>."""
VERDICT = """You label hallucinations. Below are a question, part of an answer to it, and points of reference.

Question: {question}

Part of the answer: {sentence}

Points of reference: {points}

Reply <No Hallucination>, <Contradictory> or <Unverifiable>."""
WORD_TOKENS, POINTS_TOKENS = 16, 128


@dataclass(frozen=True)
class Measured:
    """One way to judge."""

    name: str
    sentences: int
    judged: int
    seconds: float
    usage: Usage


def anah_loop(url: str, tasks: Sequence[Task]) -> Measured:
    """As the ANAH repository does it: a sentence at a time, a turn at a time."""
    client = openai.OpenAI(base_url=url, api_key="none")
    usage, judged = Usage(), 0

    def ask(messages: list[dict[str, str]], question: str, tokens: int) -> str:
        messages.append({"role": "user", "content": question})
        answer = client.chat.completions.create(model="smollm2", messages=messages, max_tokens=tokens, temperature=0)
        usage.calls += 1
        usage.prompt_tokens += answer.usage.prompt_tokens
        usage.cached_tokens += answer.usage.prompt_tokens_details.cached_tokens or 0
        usage.completion_tokens += answer.usage.completion_tokens
        messages.append({"role": "assistant", "content": answer.choices[0].message.content})
        return messages[-1]["content"]

    started = time.perf_counter()
    for task in tasks:
        question, reference = task.prompt.question, "\n\n".join(task.prompt.passages)
        for i in range(len(task.spans)):
            parts = {"question": question, "sentence": task.sentence(i), "reference": reference}
            messages: list[dict[str, str]] = []
            if ask(messages, FACT.format(**parts), WORD_TOKENS) == "<No Facts>":
                judged += 1
                continue
            points = ask(messages, REFERENCE.format(**parts), POINTS_TOKENS)
            if "noreferenceinformation" in points.replace(" ", "").lower():
                judged += 1
                continue
            verdict = ask(messages, VERDICT.format(**parts, points=points), WORD_TOKENS).replace(" ", "").lower()
            judged += any(word in verdict for word in ("nohallucination", "contradictory", "unverifiable"))
    sentences = sum(len(task.spans) for task in tasks)
    return Measured("loop as in ANAH, 3 turns", sentences, judged, time.perf_counter() - started, usage)


def ours(url: str, tasks: Sequence[Task], protocol: str, concurrency: int) -> Measured:
    judge = llm_judge(
        OpenAIBackend("smollm2", BackendSettings(backend="openai", api_base=url, concurrency=concurrency)),
        LLMOptions(protocol=protocol),
    )
    started = time.perf_counter()
    verdicts = [verdict for _, found in judge.judge(iter(tasks)) for verdict in found]
    seconds = time.perf_counter() - started
    return Measured(protocol, len(verdicts), sum(v.label is not None for v in verdicts), seconds, judge.usage)


def empty_cache(url: str) -> None:
    request = urllib.request.Request(url.removesuffix("/v1") + "/reset_prefix_cache", method="POST")
    urllib.request.urlopen(request, timeout=60).close()


def load(prompts_file: Path, responses_file: Path, answers: int) -> list[Task]:
    prompts, splitter = read_prompts(prompts_file), get_splitter("markdown")
    return [
        Task(prompts[r.prompt_id], r, splitter.split(r.response, "en"))
        for r in islice(read_answers(responses_file, Response, prompts), answers)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("responses", type=Path)
    parser.add_argument("--answers", type=int, default=20, help="the first so many")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--api-base", help="a vLLM server that is up already; it serves 'smollm2' in dev mode")
    options = parser.parse_args()
    tasks = load(options.prompts, options.responses, options.answers)
    with (
        tempfile.TemporaryDirectory() as folder,
        nullcontext(options.api_base) if options.api_base
        else vllm_server(Path(folder) / "server.log", max_model_len=4096) as url,
    ):  # fmt: skip
        ours(url, tasks[:1], "single", 1)  # warm
        rows = []
        for protocol in ("joint", "single", "staged", None):
            empty_cache(url)
            rows.append(ours(url, tasks, protocol, options.concurrency) if protocol else anah_loop(url, tasks))
            console.say(f"{rows[-1].name}: {rows[-1].seconds:.1f} s")
    slowest = rows[-1].sentences / rows[-1].seconds
    console.table(
        f"{len(tasks)} answers, {rows[0].sentences} sentences, one vLLM server",
        ("", "sentences/s", "times", "calls", "tokens in", "from cache", "tokens out", "with a verdict"),
        [
            (
                row.name,
                row.sentences / row.seconds,
                f"{row.sentences / row.seconds / slowest:.1f}x",
                row.usage.calls,
                row.usage.prompt_tokens,
                f"{row.usage.cached_tokens / row.usage.prompt_tokens:.0%}",
                row.usage.completion_tokens,
                row.judged,
            )
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()

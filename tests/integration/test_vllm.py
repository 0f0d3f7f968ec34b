"""Both ways to vLLM, with the real small model: its OpenAI-compatible server, and inside this process."""

import importlib.util
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from maskdpo.backends.base import Backend, Failure, Reply, Request, Sampling
from maskdpo.backends.openai_backend import OpenAIBackend
from maskdpo.backends.vllm_backend import VLLMBackend
from maskdpo.errors import UserError
from maskdpo.models import resolve_model
from maskdpo.schemas import Message, Status

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm"),
]

LIMIT = 512
START_S = 420
MEMORY = 0.4  # on a CPU: of the main memory
CHOICES = ("no_hallucination", "contradictory", "unverifiable", "no_fact")
QUESTION = "Text: The Nile is in Africa.\nSentence: The Nile is in Asia.\nIs the sentence right? Name the verdict."


@contextmanager
def vllm_server(log: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", resolve_model("smollm2")),
        *("--served-model-name", "smollm2", "--host", "127.0.0.1", "--port", str(port)),
        *("--max-model-len", str(LIMIT), "--gpu-memory-utilization", str(MEMORY)),
        *("--enable-prompt-tokens-details", "--enforce-eager"),
        "--no-enable-chunked-prefill",  # as in _cpu_settings of vllm_backend.py
    ]
    with log.open("w") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT)
        try:
            _wait_until_up(process, port, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(60)


def _wait_until_up(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"vLLM did not start:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module", params=["server", "in process"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.delenv("OPENAI_API_KEY", raising=False)
        if request.param == "in process":
            yield VLLMBackend("smollm2", max_model_len=LIMIT, gpu_memory_utilization=MEMORY)
            return
        with vllm_server(tmp_path_factory.mktemp("vllm") / "server.log") as url:
            yield OpenAIBackend("smollm2", api_base=url)


def chat(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def replies(backend: Backend, *requests: Request, **sampling: object) -> dict[object, Reply]:
    wanted = Sampling(**sampling)  # type: ignore[arg-type]
    got = list(backend.generate(replace(request, sampling=wanted) for request in requests))
    assert len(got) == len(requests)
    return {reply.key: reply for reply in got}


def test_a_chat_and_a_raw_text_together(backend: Backend) -> None:
    got = replies(
        backend,
        Request("chat", chat("What is the capital of France?")),
        Request("raw", "The capital of France is"),
        max_tokens=8,
        temperature=0.0,
    )
    assert got["raw"].completions[0].text.startswith(" Paris")
    assert got["raw"].completions[0].finish_reason == "length"
    assert "Paris" in got["chat"].completions[0].text
    assert got["chat"].prompt_tokens > got["raw"].prompt_tokens == 5
    assert got["raw"].completion_tokens == 8


def test_an_answer_that_ends_says_so(backend: Backend) -> None:
    got = replies(backend, Request(0, chat("What is the capital of France?")), max_tokens=100, temperature=0.0)
    assert got[0].completions[0].finish_reason == "stop"
    # what transformers answers too, in float32 and in bfloat16
    assert got[0].completions[0].text == "The capital of France is Paris."


def test_every_reply_is_an_offered_choice(backend: Backend) -> None:
    requests = [Request(i, chat(QUESTION), CHOICES) for i in range(40)]
    answered = list(replies(backend, *requests, max_tokens=60).values())
    assert {reply.failure.status for reply in answered if reply.failure} <= {Status.TRUNCATED}
    drawn = [completion.text for reply in answered for completion in reply.completions]
    assert len(drawn) > 30
    assert set(drawn) <= set(CHOICES)
    assert len(set(drawn)) > 1


def test_the_probability_is_the_frequency_of_constrained_sampling(backend: Backend) -> None:
    count, question = 200, "Paris is the capital of France. Is that right or wrong?"
    requests = [Request(i, chat(question), ("right", "wrong")) for i in range(count)]
    # a JSON schema leaves room for white space, in which a model this small now and then gets lost
    answered = list(replies(backend, *requests, max_tokens=60).values())
    assert {reply.failure.status for reply in answered if reply.failure} <= {Status.TRUNCATED}
    got = [completion for reply in answered for completion in reply.completions]
    picks = [pick for completion in got for pick in completion.picks]
    count = len(got)
    assert count > 150
    drawn = Counter(completion.text for completion in got)
    assert set(drawn) <= {"right", "wrong"}
    claimed = [p.probability if p.choice == "right" else 1 - p.probability for p in picks if p.probability is not None]
    assert len(claimed) > count / 2
    expected = sum(claimed) / len(claimed)
    if isinstance(backend, VLLMBackend):  # elsewhere it depends on the layout of the JSON around the verdict
        assert max(claimed) - min(claimed) < 0.05
    assert abs(drawn["right"] / count - expected) < 4 * (expected * (1 - expected) / count) ** 0.5 + 0.02
    print(f"claimed {expected:.3f}, drawn {drawn['right'] / count:.3f} of {count}, settled {len(claimed)}")


def test_choices_for_a_raw_text(backend: Backend) -> None:
    request = Request(0, "Question: Is fire hot? Answer yes or no.\nAnswer: ", ("yes", "no"))
    (completion,) = replies(backend, request, max_tokens=8, temperature=0.0)[0].completions
    assert completion.text in ("yes", "no")
    assert completion.picks[0].probability is not None
    assert completion.picks[0].probability >= 0.5  # greedy takes the likelier of two


def test_a_choice_cut_off_is_truncated(backend: Backend) -> None:
    failure = replies(backend, Request(0, chat(QUESTION), CHOICES), max_tokens=1, temperature=0.0)[0].failure
    assert failure is not None
    assert failure.status is Status.TRUNCATED


def test_several_answers_are_different_and_reproducible(backend: Backend) -> None:
    def texts(seed: int) -> list[str]:
        reply = replies(backend, Request("a", chat("Name an animal.")), max_tokens=12, n=4, seed=seed)["a"]
        return [completion.text for completion in reply.completions]

    first = texts(1)
    assert len(first) == 4
    assert len(set(first)) > 1
    assert texts(1) == first
    assert texts(2) != first


def test_stop_texts_end_the_answer_and_are_no_part_of_it(backend: Backend) -> None:
    request = Request(0, "1, 2, 3, 4, 5, 6,")
    (completion,) = replies(backend, request, max_tokens=30, temperature=0.0, stop=("9",))[0].completions
    assert completion.finish_reason == "stop"
    assert "8" in completion.text
    assert "9" not in completion.text


def test_prompts_that_do_not_fit_are_failures_among_the_others(backend: Backend) -> None:
    got = replies(
        backend,
        Request("long chat", chat("word " * 2000)),
        Request("short", chat("Hi!")),
        Request("long raw", "word " * 2000),
        max_tokens=5,
    )
    for key in ("long chat", "long raw"):
        failure = got[key].failure
        assert isinstance(failure, Failure)
        assert failure.status is Status.TRUNCATED
    assert got["short"].failure is None


def test_long_prompts_with_seeds_survive(backend: Backend) -> None:
    requests = [Request(i, f"{i} " + "word " * 400) for i in range(20)]
    got = replies(backend, *requests, max_tokens=3)
    assert all(reply.failure is None for reply in got.values())


def test_a_shared_beginning_is_cached(backend: Backend) -> None:
    reference = "The Nile flows through eleven countries. " * 30
    for question in ("one", "two"):
        reply = replies(backend, Request(0, chat(reference + question)), max_tokens=2)[0]
    assert reply.cached_tokens > 100


def test_what_vllm_cannot_load_is_said_in_one_line() -> None:
    with pytest.raises(UserError, match="vLLM cannot load") as caught:
        list(VLLMBackend("smollm2", max_model_len=10_000_000).generate([Request(0, "x")]))
    assert "\n" not in str(caught.value)


def test_several_greedy_answers_make_no_sense() -> None:
    with pytest.raises(UserError, match="temperature"):
        list(VLLMBackend("smollm2").generate([Request(0, "x", sampling=Sampling(temperature=0.0, n=2))]))

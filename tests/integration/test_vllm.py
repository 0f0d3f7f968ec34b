"""Both ways to vLLM, with the real small model: its OpenAI-compatible server, and inside this process."""

import importlib.util
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from maskdpo.annotate.judges.llm import LLMOptions, llm_judge
from maskdpo.annotate.labelling import annotate
from maskdpo.backends.base import Backend, Failure, Reply, Request, Sampling
from maskdpo.backends.openai_backend import OpenAIBackend
from maskdpo.backends.settings import BackendSettings
from maskdpo.backends.vllm_backend import VLLMBackend
from maskdpo.errors import UserError
from maskdpo.io import read_records
from maskdpo.sample import sample
from maskdpo.schemas import Annotation, Message, Status
from maskdpo.text.splitters import get_splitter
from tests.integration.vllm_server import MEMORY, vllm_server
from tests.thinking_model import ANSWER, QUESTION, THOUGHT, save_thinking_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm"),
]

LIMIT = 1024
CHOICES = ("no_hallucination", "contradictory", "unverifiable", "no_fact")
VERDICT_QUESTION = (
    "Text: The Nile is in Africa.\nSentence: The Nile is in Asia.\nIs the sentence right? Name the verdict."
)


@pytest.fixture(scope="module", params=["server", "in process"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.delenv("OPENAI_API_KEY", raising=False)
        if request.param == "in process":
            yield VLLMBackend(
                "smollm2", BackendSettings(backend="vllm", max_model_len=LIMIT, gpu_memory_utilization=MEMORY)
            )
            return
        with vllm_server(tmp_path_factory.mktemp("vllm") / "server.log", max_model_len=LIMIT) as url:
            yield OpenAIBackend("smollm2", BackendSettings(backend="openai", api_base=url))


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
    requests = [Request(i, chat(VERDICT_QUESTION), CHOICES) for i in range(40)]
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
    failure = replies(backend, Request(0, chat(VERDICT_QUESTION), CHOICES), max_tokens=1, temperature=0.0)[0].failure
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


def test_several_slots_are_one_object(backend: Backend) -> None:
    request = Request(0, chat(QUESTION + " Also: is fire hot?"), CHOICES, ("1", "2", "3"), reply="object")
    reply = replies(backend, request, max_tokens=100, temperature=0.0)[0]
    if reply.failure is not None:  # a server lets the model write white space until it is lost in it
        assert reply.failure.status is Status.TRUNCATED
        assert isinstance(backend, OpenAIBackend)
        return
    (completion,) = reply.completions
    said = json.loads(completion.text)
    assert [pick.choice for pick in completion.picks] == [said[slot] for slot in ("1", "2", "3")]
    assert all(pick.choice in CHOICES for pick in completion.picks)


def test_the_limit_and_the_count_are_the_models_own(backend: Backend) -> None:
    context = backend.context()
    assert context.limit == LIMIT
    assert context.count("The capital of France is") == 5


PROMPTS = [
    {"id": "nile", "prompt": "What is the Nile?", "reference": "The Nile is a river in Africa. It is 6,650 km long."},
    {"id": "paris", "prompt": "What is Paris?", "reference": "Paris is the capital of France, on the river Seine."},
]


@pytest.mark.parametrize("protocol", ["single", "joint", "staged"])
def test_sample_and_annotate_from_end_to_end(backend: Backend, protocol: str, tmp_path: Path) -> None:
    prompts, answers, out = tmp_path / "p.jsonl", tmp_path / "r.jsonl", tmp_path / "a.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))
    assert sample(prompts, answers, backend, Sampling(n=2, max_tokens=40)).responses == 4
    judge = llm_judge(backend, LLMOptions(protocol=protocol))
    stats = annotate(prompts, answers, out, judge, get_splitter("markdown"))
    annotations = list(read_records(out, Annotation))
    assert len(annotations) == 4
    assert stats.file.sentences == sum(len(annotation.sentences) for annotation in annotations) > 3
    assert stats.file.statuses[Status.OK] >= stats.file.sentences / 2
    assert judge.usage.prompt_tokens > 100 * judge.usage.calls > 0
    assert judge.usage.cached_tokens > 0


def test_what_vllm_cannot_load_is_said_in_one_line() -> None:
    with pytest.raises(UserError, match="vLLM cannot load") as caught:
        list(
            VLLMBackend("smollm2", BackendSettings(backend="vllm", max_model_len=10_000_000)).generate(
                [Request(0, "x")]
            )
        )
    assert "\n" not in str(caught.value)


def test_several_greedy_answers_make_no_sense() -> None:
    with pytest.raises(UserError, match="temperature"):
        list(VLLMBackend("smollm2").generate([Request(0, "x", sampling=Sampling(temperature=0.0, n=2))]))


@pytest.fixture(scope="module")
def thinking_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_thinking_model(tmp_path_factory.mktemp("thinking"))


@pytest.mark.parametrize("place", ["server with a parser", "server without a parser", "in process"])
def test_what_a_model_thinks_aloud_is_kept_apart(
    place: str, thinking_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    model = thinking_model
    if place == "in process":
        memory = {"max_model_len": 256, "gpu_memory_utilization": MEMORY}
        thinking = VLLMBackend(model, BackendSettings(backend="vllm", **memory))  # type: ignore[arg-type]
        _check_thinking(thinking)
        silent = VLLMBackend(
            model, BackendSettings(backend="vllm", template_options={"enable_thinking": False}, **memory)
        )  # type: ignore[arg-type]
        silent._loaded = thinking._loaded  # one engine a process is enough
        _check_silent(silent)
        return
    parser = ("--reasoning-parser", "qwen3") if place == "server with a parser" else ()
    with vllm_server(tmp_path / "server.log", max_model_len=256, model=model, more=parser) as url:
        _check_thinking(OpenAIBackend(model, BackendSettings(backend="openai", api_base=url)))
        _check_silent(
            OpenAIBackend(
                model, BackendSettings(backend="openai", api_base=url, template_options={"enable_thinking": False})
            )
        )


def _check_thinking(backend: Backend) -> None:
    (completion,) = replies(backend, Request(0, chat(QUESTION)), max_tokens=60, temperature=0.0)[0].completions
    assert (completion.reasoning or "").strip() == THOUGHT.strip()
    assert completion.text.strip() == ANSWER.strip()
    failure = replies(backend, Request(0, chat(QUESTION)), max_tokens=4, temperature=0.0)[0].failure
    assert failure is not None
    assert failure.status is Status.TRUNCATED
    assert failure.message.startswith("the answer consists of reasoning only: its 4 tokens were used up")


def _check_silent(backend: Backend) -> None:
    (completion,) = replies(backend, Request(0, chat(QUESTION)), max_tokens=60, temperature=0.0)[0].completions
    assert (completion.text.strip(), completion.reasoning) == (ANSWER.strip(), None)

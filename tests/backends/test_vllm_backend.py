"""What the vLLM backend asks for and makes of the outputs; vLLM itself is played by a stand-in."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer

from maskdpo.backends import reasoning
from maskdpo.backends.base import Failure, Pick, Reply, Request, Sampling
from maskdpo.backends.vllm_backend import VLLMBackend
from maskdpo.schemas import Message, Status
from tests.thinking_model import trl_template

CHOICES = ("supported", "unknown")
SYSTEM, USER = Message(role="system", content="Be brief."), Message(role="user", content="Is it so?")


GEMMA = (
    "{% for m in messages %}{% if m['role'] != 'user' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ m['content'] }}{% endfor %}"
)
"""Like Gemma's, it knows no system role."""
THINKS = (
    "{% for m in messages %}{{ m.role }}: {% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n"
    "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


@dataclass
class StandIn:
    """The LLM: says ``text`` and keeps what it was asked."""

    text: str
    finish_reason: str = "stop"

    def __post_init__(self) -> None:
        self.model_config = SimpleNamespace(max_model_len=2000)
        self.prompts: list[list[int]] = []
        self.settings: list[Any] = []

    def generate(self, prompts: list[dict[str, list[int]]], params: list[Any], use_tqdm: bool) -> list[Any]:
        self.prompts += [prompt["prompt_token_ids"] for prompt in prompts]
        self.settings += params
        ids = [ord(c) for c in self.text]
        output = SimpleNamespace(text=self.text, finish_reason=self.finish_reason, token_ids=ids, logprobs=None)
        return [SimpleNamespace(outputs=[output], num_cached_tokens=0) for _ in prompts]


Answer = Callable[..., Reply]


@pytest.fixture
def tokenizer(tiny_model: str) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> Answer:
    module = ModuleType("vllm.sampling_params")
    module.SamplingParams = module.StructuredOutputsParams = SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    monkeypatch.setattr(reasoning, "load_tokenizer", lambda _: tokenizer)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", module)

    def ask(model: StandIn, request: Request, template: str | None = None) -> Reply:
        made = VLLMBackend("m")
        made._loaded = model  # type: ignore[assignment]
        tokenizer.chat_template = template or tokenizer.chat_template
        (reply,) = made.generate([request])
        return reply

    return ask


def test_a_word_is_one_of_the_choices(answer: Answer) -> None:
    model = StandIn("unknown")
    assert answer(model, Request(0, "?", CHOICES)).completions[0].picks == (Pick("unknown"),)
    assert model.settings[0].structured_outputs.choice == list(CHOICES)


@pytest.mark.parametrize("slots", [("1",), ("1", "2")])
def test_an_object_is_one_whatever_the_number_of_its_slots(answer: Answer, slots: tuple[str, ...]) -> None:
    said = "{" + ", ".join(f'"{slot}": "unknown"' for slot in slots) + "}"
    model = StandIn(said)
    (completion,) = answer(model, Request(0, "?", CHOICES, slots, reply="object")).completions
    assert (completion.text, completion.picks) == (said, (Pick("unknown"),) * len(slots))
    assert list(model.settings[0].structured_outputs.json["properties"]) == list(slots)


@pytest.mark.parametrize(
    ("text", "request_"), [("sup", Request(0, "?", CHOICES)), ('{"', Request(0, "?", CHOICES, reply="object"))]
)
def test_a_verdict_cut_off_names_the_tokens_it_had(answer: Answer, text: str, request_: Request) -> None:
    failure = answer(StandIn(text, "length"), request_).failure
    assert failure == Failure(Status.TRUNCATED, f"the judge's reply was cut off at {len(text)} tokens")


def test_a_template_without_a_system_role_reads_its_text_in_the_first_user_message(
    answer: Answer, tokenizer: Any
) -> None:
    model = StandIn("Yes.")
    assert answer(model, Request(0, [SYSTEM, USER]), GEMMA).completions[0].text == "Yes."
    assert [tokenizer.decode(ids) for ids in model.prompts] == ["Be brief.\n\nIs it so?"]


def test_a_conversation_that_the_template_refuses_for_good_is_a_failure(answer: Answer) -> None:
    failure = answer(StandIn("Yes."), Request(0, [Message(role="assistant", content="Hello.")]), GEMMA).failure
    assert failure is not None
    assert failure.status is Status.API_ERROR
    assert failure.message == "the model's chat template rejects the conversation: System role not supported"


def test_reasoning_is_kept_apart_and_a_stop_text_in_it_stops_nothing(answer: Answer) -> None:
    model = StandIn("<think>\nHm. Or so?\n</think>\n\nYes. Or so.")
    (completion,) = answer(model, Request(0, [USER], sampling=Sampling(stop=("Or", "\n\n"))), THINKS).completions
    assert (completion.reasoning, completion.text) == ("\nHm. Or so?\n", "\n\nYes. ")
    (settings,) = model.settings
    assert settings.stop is None  # vLLM would stop in the reasoning
    assert settings.skip_special_tokens is True  # these markers are no special tokens


def test_a_plain_template_lets_vllm_stop_and_a_plain_string_is_never_split(answer: Answer) -> None:
    model = StandIn("<think>a</think>b")
    (completion,) = answer(model, Request(0, "Go on", sampling=Sampling(stop=("x",)))).completions
    assert (completion.reasoning, completion.text) == (None, "<think>a</think>b")
    assert model.settings[0].stop == ["x"]


def test_markers_that_are_special_tokens_are_asked_for(answer: Answer, tokenizer: Any) -> None:
    gptoss = trl_template("gptoss")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|channel|>", "<|message|>", "<|start|>", "<|end|>"]})
    model = StandIn("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.")
    (completion,) = answer(model, Request(0, [USER]), gptoss).completions
    assert (completion.reasoning, completion.text) == ("Hm.", "Yes.")
    assert model.settings[0].skip_special_tokens is False
    without = answer(StandIn("<|channel|>final<|message|>Yes."), Request(0, [USER]), gptoss).completions[0]
    assert (without.reasoning, without.text) == (None, "Yes.")
    failure = answer(StandIn("<|channel|>analysis<|message|>Hm", "length"), Request(0, [USER]), gptoss).failure
    assert failure is not None
    assert failure.status is Status.TRUNCATED


def test_a_verdict_is_read_behind_the_header_that_the_model_writes(answer: Answer, tokenizer: Any) -> None:
    model = StandIn("unknown")
    assert answer(model, Request(0, [USER], CHOICES), trl_template("gptoss")).completions[0].text == "unknown"
    assert tokenizer.decode(model.prompts[0]).endswith("<|start|>assistant<|channel|>final<|message|>")

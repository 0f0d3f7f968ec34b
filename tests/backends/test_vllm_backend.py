"""What the vLLM backend asks for and makes of the outputs; vLLM itself is played by a stand-in."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from jinja2 import TemplateError

from maskdpo.backends.base import Failure, Pick, Reply, Request
from maskdpo.backends.vllm_backend import VLLMBackend
from maskdpo.schemas import Message, Status

CHOICES = ("supported", "unknown")
SYSTEM, USER = Message(role="system", content="Be brief."), Message(role="user", content="Is it so?")


class Tokenizer:
    """One token a character; like Gemma's, its template knows no system role."""

    chat_template = "there is one"

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(c) for c in text]}

    def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> list[int]:
        if messages[0]["role"] != "user":
            raise TemplateError("System role not supported")
        return [ord(c) for message in messages for c in message["content"]]


@dataclass
class StandIn:
    """The LLM: says ``text`` and keeps what it was asked."""

    text: str
    finish_reason: str = "stop"

    def __post_init__(self) -> None:
        self.model_config = SimpleNamespace(max_model_len=100)
        self.prompts: list[str] = []
        self.settings: list[Any] = []

    def get_tokenizer(self) -> Tokenizer:
        return Tokenizer()

    def generate(self, prompts: list[dict[str, list[int]]], params: list[Any], use_tqdm: bool) -> list[Any]:
        self.prompts += ["".join(map(chr, prompt["prompt_token_ids"])) for prompt in prompts]
        self.settings += params
        ids = [ord(c) for c in self.text]
        output = SimpleNamespace(text=self.text, finish_reason=self.finish_reason, token_ids=ids, logprobs=None)
        return [SimpleNamespace(outputs=[output], num_cached_tokens=0) for _ in prompts]


Answer = Callable[[StandIn, Request], Reply]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Answer:
    module = ModuleType("vllm.sampling_params")
    module.SamplingParams = module.StructuredOutputsParams = SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", module)

    def ask(model: StandIn, request: Request) -> Reply:
        made = VLLMBackend("m")
        made._loaded = model  # type: ignore[assignment]
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


def test_a_template_without_a_system_role_reads_its_text_in_the_first_user_message(answer: Answer) -> None:
    model = StandIn("Yes.")
    assert answer(model, Request(0, [SYSTEM, USER])).completions[0].text == "Yes."
    assert model.prompts == ["Be brief.\n\nIs it so?"]


def test_a_conversation_that_the_template_refuses_for_good_is_a_failure(answer: Answer) -> None:
    failure = answer(StandIn("Yes."), Request(0, [Message(role="assistant", content="Hello.")])).failure
    assert failure is not None
    assert failure.status is Status.API_ERROR
    assert failure.message == "the model's chat template rejects the conversation: System role not supported"

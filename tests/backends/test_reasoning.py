"""Reasoning and answer apart: by the chat template's own markers, by response templates, by the usual tags."""

from typing import Any

import pytest
from transformers import AutoTokenizer

from maskdpo.backends.base import Completion, Failure, Request, Sampling
from maskdpo.backends.reasoning import ChatReader, text_completion
from maskdpo.backends.settings import BackendSettings
from maskdpo.backends.transformers_backend import TransformersBackend
from maskdpo.chat import ChatFormat
from maskdpo.errors import UserError
from maskdpo.schemas import Message, Status
from tests.thinking_model import ANSWER, QUESTION, THOUGHT, save_thinking_model, trl_template


@pytest.fixture(scope="module")
def thinking_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_thinking_model(tmp_path_factory.mktemp("thinking"))


def answered(model: str, options: dict[str, Any] | None = None, prompt: Any = None, **sampling: Any) -> Any:
    backend = TransformersBackend(model, BackendSettings(dtype="float32", device="cpu", template_options=options))
    wanted = Sampling(**{"max_tokens": 60, "temperature": 0.0, **sampling})
    asked = [Message(role="user", content=QUESTION)] if prompt is None else prompt
    (reply,) = backend.generate([Request(0, asked, sampling=wanted)])
    return reply.failure or reply.completions[0]


def test_a_model_thinks_and_answers(thinking_model: str) -> None:
    assert answered(thinking_model) == Completion(ANSWER, "stop", reasoning=THOUGHT)


def test_a_template_option_turns_the_reasoning_off(thinking_model: str) -> None:
    found = answered(thinking_model, {"enable_thinking": False})
    assert found == Completion(ANSWER.strip(), "stop")


@pytest.mark.parametrize("tokens", [1, 4, 12])
def test_a_budget_that_the_reasoning_used_up_is_a_failure(thinking_model: str, tokens: int) -> None:
    used = f"its {tokens} tokens were used up; raise `max_tokens`"
    expected = Failure(Status.TRUNCATED, f"the answer consists of reasoning only: {used}")
    assert answered(thinking_model, max_tokens=tokens) == expected


def test_stop_texts_are_looked_for_in_the_answer_alone(thinking_model: str) -> None:
    # "e" is in the reasoning; the white space before the answer is no part of it
    assert answered(thinking_model, stop=("e", "\n", "Paris")) == Completion("\n\nIt is ", "stop", reasoning=THOUGHT)


def test_a_plain_string_is_never_split(thinking_model: str) -> None:
    text = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    found = answered(thinking_model, prompt=text)
    assert (found.text, found.reasoning) == (f"<think>{THOUGHT}</think>{ANSWER}", None)


# --- templates -------------------------------------------------------------------------------------


@pytest.fixture
def tokenizer(tiny_model: str) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


QWEN3 = [
    ("<think>\nHm.\n</think>\n\nYes.", "\nHm.\n", "\n\nYes."),
    ("Hm.\n</think>\n\nYes.", "Hm.\n", "\n\nYes."),
    ("<think>\nHm, and", "\nHm, and", None),
    ("<think>\n\n</think>\n\nYes.", "\n\n", "\n\nYes."),
    ("Yes.", None, "Yes."),
]


@pytest.mark.parametrize(("text", "reasoning", "answer"), QWEN3)
def test_qwen3(tokenizer: Any, text: str, reasoning: str | None, answer: str | None) -> None:
    tokenizer.chat_template = trl_template("qwen3")
    reader = ChatReader(ChatFormat(tokenizer))
    assert not reader.keeps_special_tokens
    assert reader.split(text, "") == (reasoning, answer)


def test_a_closing_marker_alone_is_text_to_a_model_whose_template_knows_no_reasoning(tokenizer: Any) -> None:
    reader = ChatReader(ChatFormat(tokenizer))
    assert reader.split("Use </think> in HTML? No.", "") == (None, "Use </think> in HTML? No.")
    assert reader.split("<think>Hm.</think>No.", "") == ("Hm.", "No.")


GPT_OSS = [
    ("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.", "Hm.", "Yes."),
    ("<|channel|>final<|message|>Yes.", None, "Yes."),
    ("<|channel|>analysis<|message|>Hm, and", "Hm, and", None),
]


@pytest.mark.parametrize(("text", "reasoning", "answer"), GPT_OSS)
def test_gpt_oss(tokenizer: Any, text: str, reasoning: str | None, answer: str | None) -> None:
    tokenizer.chat_template = trl_template("gptoss")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|channel|>", "<|message|>", "<|start|>", "<|end|>"]})
    reader = ChatReader(ChatFormat(tokenizer))
    assert reader.keeps_special_tokens
    assert reader.split(text, "") == (reasoning, answer)


def test_a_response_template_finds_what_the_chat_template_has_no_place_for(tokenizer: Any) -> None:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|thought|>", "<|said|>"]})
    tokenizer.response_template = {
        "start_anchor": "<|im_start|>assistant\n",
        "fields": {
            "thinking": {"open": "<|thought|>", "close": "<|said|>"},
            "content": {"close_pattern": r"<\|im_end\|>|$"},
        },
    }
    reader = ChatReader(ChatFormat(tokenizer))
    prompt = "<|im_start|>user\n?<|im_end|>\n<|im_start|>assistant\n"
    assert reader.keeps_special_tokens
    assert reader.split("<|thought|>Hm.<|said|>Yes.", prompt) == ("Hm.", "Yes.")
    assert reader.split("<|thought|>Hm, and", prompt) == ("Hm, and", None)
    assert reader.split(" Yes.", prompt) == (None, " Yes.")


# --- what is sent for choices ----------------------------------------------------------------------

TEMPLATES = [
    ("qwen3", "<|im_start|>assistant\n", ""),
    ("qwen3_5_think", "<|im_start|>assistant\n<think>\n", "\n</think>\n\n"),
    ("gptoss", "<|start|>assistant", "<|channel|>final<|message|>"),
]


@pytest.mark.parametrize(("name", "asked", "lead"), TEMPLATES)
@pytest.mark.parametrize("reply", ["word", "object"])
def test_choices_are_read_where_an_answer_begins(tokenizer: Any, name: str, asked: str, lead: str, reply: Any) -> None:
    tokenizer.chat_template = trl_template(name)
    reader = ChatReader(ChatFormat(tokenizer))
    conversation = [Message(role="user", content=QUESTION)]
    free = reader.encode(Request(0, conversation))
    chosen = reader.encode(Request(0, conversation, ("yes", "no"), reply=reply))
    assert isinstance(free, list)
    assert isinstance(chosen, list)
    assert free == reader.chat.encode_prompt(conversation).ids
    assert tokenizer.decode(free).endswith(asked)
    assert chosen[: len(free)] == free
    assert tokenizer.decode(chosen[len(free) :]) == lead


def test_choices_of_a_plain_string_go_on_where_it_ends(tokenizer: Any) -> None:
    tokenizer.chat_template = trl_template("gptoss")
    reader = ChatReader(ChatFormat(tokenizer))
    assert reader.encode(Request(0, QUESTION, ("yes", "no"))) == reader.chat.encode_prompt(QUESTION).ids


def test_a_blank_before_the_answer_is_left_to_the_choices(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}" + (
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    reader = ChatReader(ChatFormat(tokenizer))
    assert reader.turn.lead == " "
    conversation = [Message(role="user", content=QUESTION)]
    assert reader.encode(Request(0, conversation, ("yes", "no"))) == reader.encode(Request(0, conversation))


def test_a_judge_that_thinks_is_sure_of_the_word_that_it_would_say_behind_closed_reasoning(thinking_model: str) -> None:
    options = {"enable_thinking": False}
    backend = TransformersBackend(
        thinking_model, BackendSettings(dtype="float32", device="cpu", template_options=options)
    )
    tokenizer = backend._reader.chat.tokenizer
    tokenizer.chat_template = str(tokenizer.chat_template).replace("<think>\n\n</think>\n\n", "<think>\n")
    asked = Request(0, [Message(role="user", content=QUESTION)], (ANSWER.strip(), "Let me see, a city."))
    (reply,) = backend.generate([asked])
    (pick,) = reply.completions[0].picks
    assert pick.choice == ANSWER.strip()
    assert pick.probability is not None
    assert pick.probability > 0.9


# --- what is no answer -----------------------------------------------------------------------------

REQUEST = Request(0, [Message(role="user", content="?")], sampling=Sampling(max_tokens=7, stop=("X",)))


@pytest.mark.parametrize("answer", [None, "", " \n", "X and so on"])
def test_nothing_behind_reasoning_is_a_failure(answer: str | None) -> None:
    cut = text_completion(REQUEST, "Hm.", answer, "length")
    assert isinstance(cut, Failure)
    assert cut.status is Status.TRUNCATED
    ended = text_completion(REQUEST, "Hm.", answer, "stop")
    assert isinstance(ended, Failure)
    assert ended.status is Status.PARSE_ERROR
    assert "a `stop` text occurs in it" in ended.message


def test_an_answer_without_reasoning_may_be_empty_as_before() -> None:
    assert text_completion(REQUEST, None, "", "stop") == Completion("", "stop")


def test_an_option_that_would_not_reach_the_template_is_refused(tokenizer: Any) -> None:
    chat = ChatFormat(tokenizer, {"effort": "low", "add_generation_prompt": False})
    with pytest.raises(UserError, match="'add_generation_prompt' cannot be an option of the chat template"):
        chat.prompt_text([Message(role="user", content="?")])


def test_an_option_that_the_template_does_not_read_is_said(tiny_model: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A typo would be recorded as if it had been followed."""
    backend = TransformersBackend(
        tiny_model, BackendSettings(dtype="float32", device="cpu", template_options={"enable_thinkin": False})
    )
    assert not backend.writes_date()
    said = " ".join(capsys.readouterr().err.split())
    assert "does not read enable_thinkin: `template_options` has no effect" in said

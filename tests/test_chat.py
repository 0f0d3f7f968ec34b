"""Conversations as text and token ids: what templates write around answers, and what they may do wrong."""

import sys
from datetime import date
from pathlib import Path

import pytest

from maskdpo.chat import ChatFormat, TemplateRefusal, Turn
from maskdpo.schemas import Message

sys.path.append(str(Path(__file__).parent / "train"))

from thinking_model import trl_template
from train_helpers import CHATML, NO_ASSISTANT, REASONING, THINK, fast_tokenizer

ASK = [Message(role="user", content="Where is Paris?")]


def format_of(template: str, **options: object) -> ChatFormat:
    return ChatFormat(fast_tokenizer("byte-level", template), options, date(2026, 7, 1))


TURNS = {
    "qwen3": Turn("", "<|im_end|>\n", "<think>\n", "\n</think>\n\n"),
    "qwen3_5_think": Turn("\n</think>\n\n", "<|im_end|>\n", "", "\n</think>\n\n"),
    "deepseek_r1_distill": Turn("\n</think>\n\n", "<｜end▁of▁sentence｜>", "", "\n</think>\n\n"),
    "nemotron_3_nano": Turn("\n</think>\n", "<|im_end|>\n", "", "\n</think>\n"),
    "gptoss": Turn(
        "<|channel|>final<|message|>",
        "<|return|>",
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
    "llama3_2": Turn("", "<|eot_id|>", None, None),
    "smolvlm": Turn(" ", "<end_of_utterance>\n", None, None),
}


@pytest.mark.parametrize("name", TURNS)
def test_what_stands_around_an_answer(name: str) -> None:
    """By hand, of the templates that TRL carries."""
    assert format_of(trl_template(name)).turn == TURNS[name]


def test_a_prompt_that_forbids_reasoning_has_no_place_for_it() -> None:
    chat = format_of(trl_template("qwen3"), enable_thinking=False)
    assert chat.prompt_text(ASK).endswith("<think>\n\n</think>\n\n")
    assert chat.turn == Turn("", "<|im_end|>\n", None, None)


def test_a_content_of_parts_is_written_where_a_template_wants_it() -> None:
    assert "Where is Paris?" in format_of(trl_template("smolvlm")).prompt_text(ASK)


def test_a_date_is_the_one_that_was_fixed() -> None:
    assert "01 Jul 2026" in format_of(trl_template("llama3_2")).prompt_text(ASK)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\nHm.\n</think>\n\nIn France.", ("\nHm.\n", "\n\nIn France.")),
        ("<think>\nHm", ("\nHm", None)),
        ("In France.", (None, "In France.")),
        ("Hm.</think>In France.", ("Hm.", "In France.")),
    ],
)
def test_reasoning_is_told_from_the_answer(text: str, expected: tuple[str | None, str | None]) -> None:
    assert format_of(REASONING).turn.split(text) == expected


def test_a_closing_marker_alone_ends_reasoning_only_where_there_may_be_any() -> None:
    turn, text = format_of(CHATML).turn, "Write </think> in HTML."
    assert turn.split(text) == (None, text)
    assert turn.split(text, lenient=True) == ("Write ", " in HTML.")


def test_reasoning_that_the_prompt_begins_is_cut_off_where_nothing_closes_it() -> None:
    """Neither the vocabulary nor the template knows the closing marker: the prompt's opening one is enough."""
    turn = format_of(CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")).turn
    assert turn.split("Let me see") == ("Let me see", None)
    assert turn.split("Hm.\n</think>\n\nIn France.") == ("Hm.\n", "\n\nIn France.")


@pytest.mark.parametrize("reasoning", [None, "Hm.", "\nHm.\n"])
@pytest.mark.parametrize("answer", ["In France.", "\n\nIn France.\n"])
def test_what_is_written_is_read_again(reasoning: str | None, answer: str) -> None:
    turn = format_of(REASONING).turn
    text, start = turn.write(answer, reasoning)
    assert text[start:].startswith(answer)
    read = turn.split(text[: start + len(answer)])
    assert [part and part.strip() for part in read] == [reasoning and reasoning.strip(), answer.strip()]


def test_an_empty_block_of_a_template_is_not_written() -> None:
    assert format_of(THINK).turn == Turn("", "<|im_end|>\n", "<think>\n", "\n</think>\n\n")


@pytest.mark.parametrize("template", [NO_ASSISTANT, CHATML.replace("m.content", "m.content | upper")])
def test_a_template_that_does_not_keep_an_answer_is_refused(template: str) -> None:
    with pytest.raises(TemplateRefusal):
        _ = format_of(template).turn


@pytest.mark.parametrize("template", ["{{ 'a' + 1 }}", "{{ raise_exception('No.') }}", "{{ messages[7].content.x }}"])
def test_whatever_goes_wrong_in_a_template_is_a_refusal(template: str) -> None:
    with pytest.raises(TemplateRefusal):
        format_of(template).prompt_text(ASK)


def test_a_plain_text_gets_one_beginning_of_text_token() -> None:
    from tokenizers import processors

    tokenizer = fast_tokenizer.__wrapped__("byte-level")
    begin = tokenizer.convert_tokens_to_ids("<s>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", begin), ("</s>", tokenizer.convert_tokens_to_ids("</s>"))]
    )
    chat = ChatFormat(tokenizer)
    for text in ("Paris", "<s>Paris"):
        ids = chat.encode_prompt(text).ids
        assert ids.count(begin) == 1
        assert tokenizer.decode(ids) == "<s>Paris"

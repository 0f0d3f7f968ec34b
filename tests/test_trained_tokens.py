"""Which text of a pair the page marks: that of the very tokens with weight."""

from typing import Any

import pytest

from maskdpo.models import load_tokenizer
from maskdpo.schemas import SIDES, Pair
from maskdpo.train.data.encode import Encoder
from maskdpo.train.data.settings import EncodeSettings
from maskdpo.train.data.trained_tokens import trained_tokens

RIGHT, WRONG = "no_hallucination", "contradictory"
CHOSEN = [("It crosses Paris. 😀", RIGHT), ("It crosses London!", WRONG), ("你好，世界。", RIGHT)]
REJECTED = [("It crosses Oslo.", WRONG), ("Zürich is naïve.", RIGHT), ("No.", None)]


def pair(chat: bool, chosen: Any = CHOSEN, rejected: Any = REJECTED) -> Pair:
    fields: dict[str, Any] = {"id": "1", "prompt_id": "p", "topic": "t"}
    fields["prompt"] = [{"role": "user", "content": "Which city?"}] if chat else "Which city?\n"
    for side, parts in (("chosen", chosen), ("rejected", rejected)):
        text, sentences = "", []
        for words, label in parts:
            text += " " if text else ""
            sentences.append({"start": len(text), "end": len(text) + len(words), "label": label})
            text += words
        fields[side] = [{"role": "assistant", "content": text}] if chat else text
        fields[f"{side}_sentences"] = sentences
    return Pair.model_validate(fields)


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("method", ["mask-dpo", "dpo", "chosen-only"])
def test_marks_are_the_text_of_the_tokens_with_weight(tiny_model: str, chat: bool, method: str) -> None:
    spans = trained_tokens(tiny_model, method)(pair(chat))
    assert not isinstance(spans, str)
    tokenizer = load_tokenizer(tiny_model)
    encoded = Encoder(tokenizer, EncodeSettings(model=tiny_model, method=method)).encode(pair(chat))
    special = set(tokenizer.all_special_ids)
    for side in SIDES:
        answer = encoded.side(side)  # type: ignore[union-attr]
        ids = [int(i) for i, weight in zip(answer.ids, answer.weights, strict=True) if weight and int(i) not in special]
        response = pair(chat).response(side)
        assert "".join(response[begin:end] for begin, end in spans[side]) == tokenizer.decode(ids).rstrip("\n")


def test_sentences_and_marks_agree(tiny_model: str) -> None:
    spans = trained_tokens(tiny_model, "mask-dpo")(pair(True))
    assert not isinstance(spans, str)
    texts = {side: [pair(True).response(side)[b:e].strip() for b, e in spans[side]] for side in SIDES}
    assert texts == {"chosen": ["It crosses Paris. 😀", "你好，世界。"], "rejected": ["It crosses Oslo."]}


def test_a_pair_that_is_not_trained_on_says_why(tiny_model: str) -> None:
    nothing = trained_tokens(tiny_model, "mask-dpo")(pair(True, chosen=[("It crosses London!", WRONG)]))
    assert isinstance(nothing, str)
    assert nothing

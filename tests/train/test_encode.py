"""Pairs to ids and weights through chat templates: against the oracle, and every way to drop a pair."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_weights import NO_FACT, RIGHT, TEXTS, WRONG, labelled_spans
from train_helpers import NO_ASSISTANT, TEMPLATES, THINK, TOKENIZERS, fast_tokenizer, make_pair
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast
from weight_oracle import TABLES, counts, expected_weights

from maskdpo.errors import UserError
from maskdpo.models import load_tokenizer
from maskdpo.schemas import SIDES, Message, Pair, PairSentence, Side
from maskdpo.train.encode import Drop, EncodedPair, Encoder, encode_pairs

MARK = "\ue000\ue001\ue002"
"""A response that no text holds: where it lands in the render is where responses land."""

CHOSEN = [("Paris is big.", RIGHT), (" It is blue.", WRONG)]
REJECTED = [("Paris is small.", WRONG), (" It is a capital.", RIGHT)]
LATE = [(" It is a capital, and a very large and old one.", RIGHT), (" It is far behind.", WRONG)]
"""What trains stands behind the length of CHOSEN."""


@dataclass
class Expected:
    ids: list[int]
    weights: list[float]
    first: int
    """The first token that reaches into the response."""
    end: int | None
    """The token that ends the turn."""

    def trains(self, max_length: int) -> bool:
        """Whether anything but the end of the turn has weight."""
        return any(weight for i, weight in enumerate(self.weights[:max_length]) if i != self.end)


def slow_encode(
    pair: Pair, side: Side, tokenizer: PreTrainedTokenizerFast, eos: str = "keep", method: str = "mask-dpo"
) -> Expected | None:
    """Prompt + answer by the definition; None where there is nothing but white space."""
    response, sentences = pair.response(side), pair.sentences(side)
    if isinstance(pair.prompt, str):
        text, start, end = pair.prompt + response, len(pair.prompt), len(pair.prompt + response)
        origin = start
    else:
        prompt = [message.model_dump() for message in pair.prompt]
        marked, text = (
            tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": content}], tokenize=False)
            for content in (MARK, response)
        )
        before, after = marked.split(MARK)
        start, end = len(before), len(text) - len(after)
        kept = text[start:end]
        if not kept.strip():
            return None
        assert kept in (response, response.strip())
        origin = start - (len(response) - len(response.lstrip()) if kept != response else 0)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
    table, soft = TABLES[method][side], method == "soft"
    weights = expected_weights(text, start, end, origin, offsets, sentences, table, soft)
    policy = "drop" if pair.finish_reason(side) == "length" else eos
    of_last = counts(sentences[-1], table, soft) if sentences else table[NO_FACT]
    of_eos = {"keep": 1.0, "drop": 0.0, "last_sentence": of_last}
    first = next((i for i, (_, stop) in enumerate(offsets) if stop > start), len(ids))
    if isinstance(pair.prompt, str):
        if not ids or ids[-1] != tokenizer.eos_token_id:
            ids, weights = [*ids, tokenizer.eos_token_id], [*weights, 0.0]
        turn_end: int | None = len(ids) - 1
    else:
        ends = ("<|im_end|>", "<|eot_id|>")
        turn_end = next((i for i, (b, e) in enumerate(offsets) if b >= end and text[b:e] in ends), None)
    if turn_end is not None:
        weights[turn_end] = of_eos[policy]
    return Expected(ids, weights, first, turn_end)


def check_pair(encoded: EncodedPair | Drop, pair: Pair, sides: list[Expected | None], max_length: int = 2048) -> None:
    """What came out is what the oracle says, in full; a drop has its reason."""
    if encoded is Drop.AMBIGUOUS:  # how often a text occurs is checked below, by hand
        return
    if None in sides:
        assert encoded is Drop.NOT_FOUND
        return
    chosen, rejected = (side for side in sides if side is not None)
    common = 0
    for a, b in zip(chosen.ids, rejected.ids, strict=False):
        if a != b or common == min(chosen.first, rejected.first):
            break
        common += 1
    if common == 0 or common >= max_length:
        assert encoded is (Drop.PROMPT_TOO_LONG if common else Drop.NO_PROMPT)
        return
    for side, drop in ((chosen, Drop.NO_WEIGHT_CHOSEN), (rejected, Drop.NO_WEIGHT_REJECTED)):
        assert not any(side.weights[:common])
        if not side.trains(max_length):
            assert encoded is drop
            return
    assert isinstance(encoded, EncodedPair)
    assert encoded.prompt_ids.tolist() == chosen.ids[:common]
    for name, side in zip(SIDES, (chosen, rejected), strict=True):
        assert encoded.side(name).ids.tolist() == side.ids[common:max_length]
        assert encoded.side(name).weights.tolist() == side.weights[common:max_length]


def tokens(tokenizer: PreTrainedTokenizerFast, encoded: EncodedPair | Drop, side: Side) -> list[tuple[str, float]]:
    assert isinstance(encoded, EncodedPair)
    answer = encoded.side(side)
    return [(tokenizer.decode([i]), w) for i, w in zip(answer.ids, answer.weights.tolist(), strict=True)]


def trained_text(tokenizer: PreTrainedTokenizerFast, encoded: EncodedPair | Drop, side: Side) -> str:
    return "".join(text for text, weight in tokens(tokenizer, encoded, side) if weight)


@pytest.mark.parametrize("name", [*TOKENIZERS, "smollm2"])
@pytest.mark.parametrize("template", [*TEMPLATES, "raw"])
def test_whole_pairs_follow_the_definition(name: str, template: str) -> None:
    if name == "smollm2":
        tokenizer: Any = load_tokenizer(name)
        tokenizer.chat_template = TEMPLATES.get(template)
    else:
        tokenizer = fast_tokenizer(name, TEMPLATES.get(template))

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.data(), TEXTS, TEXTS, TEXTS, st.sampled_from(["keep", "last_sentence", "drop"]), st.integers(1, 80))
    def check(data: st.DataObject, prompt: str, chosen: str, rejected: str, eos: Any, max_length: int) -> None:
        raw = template == "raw"
        assume(not (raw and prompt.rstrip().endswith("<|im_end|>")))
        texts = {"chosen": chosen, "rejected": rejected}
        pair = Pair.model_validate(
            {"id": "p", "prompt_id": "q", "topic": "t"}
            | {"prompt": prompt if raw else [Message(role="user", content=prompt)]}
            | {side: text if raw else [Message(role="assistant", content=text)] for side, text in texts.items()}
            | {f"{side}_sentences": data.draw(labelled_spans(len(text))) for side, text in texts.items()}
            | {f"{side}_finish_reason": data.draw(st.sampled_from(["stop", "length", None])) for side in texts}
        )
        method = data.draw(st.sampled_from(sorted(TABLES)))
        encoded = Encoder(tokenizer, method=method, eos=eos, max_length=max_length).encode(pair)
        check_pair(encoded, pair, [slow_encode(pair, side, tokenizer, eos, method) for side in SIDES], max_length)

    check()


@pytest.mark.parametrize("template", TEMPLATES)
def test_trained_text_is_right_in_chosen_and_wrong_in_rejected(template: str) -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES[template])
    encoded = Encoder(tokenizer).encode(make_pair(CHOSEN, REJECTED))
    end = "<|eot_id|>" if template == "llama3" else "<|im_end|>"
    assert trained_text(tokenizer, encoded, "chosen") == "Paris is big." + end
    assert trained_text(tokenizer, encoded, "rejected") == "Paris is small." + end


def test_spans_move_with_a_response_that_the_template_trims() -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["llama3"])
    pair = make_pair([(" \n ", NO_FACT), ("Bad.", WRONG), (" Good.  \n", RIGHT)], REJECTED)
    assert trained_text(tokenizer, Encoder(tokenizer).encode(pair), "chosen") == "Good.<|eot_id|>"


def test_the_empty_think_block_takes_no_weight() -> None:
    tokenizer = fast_tokenizer("byte-level", THINK)
    encoded = Encoder(tokenizer).encode(make_pair(CHOSEN, REJECTED))
    assert isinstance(encoded, EncodedPair)
    assert tokenizer.decode(encoded.prompt_ids).endswith("</think>\n\n")


def test_the_prompt_is_shared_and_has_no_weight() -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    encoded = Encoder(tokenizer).encode(make_pair(CHOSEN, [("Rome.", WRONG)], prompt="Where?"))
    assert isinstance(encoded, EncodedPair)
    assert tokenizer.decode(encoded.prompt_ids) == "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(encoded.rejected.ids) == "Rome.<|im_end|>\n"


def test_answers_that_begin_alike_keep_their_beginning() -> None:
    """The shared prefix ends with the prompt, or the first sentence of both would not train."""
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    encoded = Encoder(tokenizer).encode(make_pair([("Same. ", RIGHT), ("A", RIGHT)], [("Same. ", WRONG), ("B", WRONG)]))
    for side in SIDES:
        assert trained_text(tokenizer, encoded, side).startswith("Same.")


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_response_that_also_stands_in_the_prompt_is_found_in_its_place(template: str) -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES[template])
    prompt = [
        Message(role="user", content="Say: Paris is big."),
        Message(role="assistant", content="Paris is big."),
        Message(role="user", content="Paris is big. Again!"),
    ]
    pair = make_pair([("Paris is big.", RIGHT)], REJECTED, prompt=prompt)
    check_pair(Encoder(tokenizer).encode(pair), pair, [slow_encode(pair, side, tokenizer) for side in SIDES])
    assert trained_text(tokenizer, Encoder(tokenizer).encode(pair), "chosen").startswith("Paris is big.<|")


def test_a_prompt_that_runs_into_the_answer_trains_no_shared_token() -> None:
    """In raw text one token may hold the prompt's end and the answer's beginning; then it belongs to neither."""
    tokenizer = fast_tokenizer("byte-level")
    pair = make_pair([("ris is big.", RIGHT)], [("nic is big.", WRONG)], prompt="It is Pa", raw=True)
    check_pair(Encoder(tokenizer).encode(pair), pair, [slow_encode(pair, side, tokenizer) for side in SIDES])


def test_raw_text_gets_one_end_of_text_token() -> None:
    tokenizer = fast_tokenizer("byte-level")
    encoded = Encoder(tokenizer).encode(make_pair([(" A.", RIGHT)], [(" B.<|im_end|>", WRONG)], prompt="Q:", raw=True))
    for side in SIDES:
        assert [text for text, _ in tokens(tokenizer, encoded, side)].count("<|im_end|>") == 1
        assert tokens(tokenizer, encoded, side)[-1] == ("<|im_end|>", 1)


@pytest.mark.parametrize(("eos", "expected"), [("keep", (1, 1)), ("last_sentence", (0, 0)), ("drop", (0, 0))])
@pytest.mark.parametrize("raw", [False, True])
def test_eos_policies(eos: Any, expected: tuple[float, float], raw: bool) -> None:
    """The last sentence of CHOSEN is wrong, that of REJECTED right: neither trains."""
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    encoded = Encoder(tokenizer, eos=eos).encode(make_pair(CHOSEN, REJECTED, raw=raw))
    assert tuple(dict(tokens(tokenizer, encoded, side))["<|im_end|>"] for side in SIDES) == expected


def test_eos_trains_with_a_last_sentence_that_trains() -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    encoded = Encoder(tokenizer, eos="last_sentence").encode(make_pair(CHOSEN[:1], REJECTED[:1]))
    assert [dict(tokens(tokenizer, encoded, side))["<|im_end|>"] for side in SIDES] == [1, 1]


@pytest.mark.parametrize("eos", ["keep", "last_sentence", "drop"])
@pytest.mark.parametrize("raw", [False, True])
def test_an_answer_that_was_cut_off_never_trains_eos(eos: Any, raw: bool) -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    pair = make_pair(CHOSEN[:1], REJECTED[:1], raw=raw, chosen_finish_reason="length", rejected_finish_reason="length")
    encoded = Encoder(tokenizer, eos=eos).encode(pair)
    assert [dict(tokens(tokenizer, encoded, side))["<|im_end|>"] for side in SIDES] == [0, 0]


def test_nothing_behind_the_end_of_turn_trains() -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    encoded = Encoder(tokenizer).encode(make_pair(CHOSEN, REJECTED))
    assert tokens(tokenizer, encoded, "chosen")[-2:] == [("<|im_end|>", 1), ("\n", 0)]


def test_truncation_clips_answers_and_their_weights() -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    pair = make_pair(CHOSEN, REJECTED)
    whole = Encoder(tokenizer).encode(pair)
    assert isinstance(whole, EncodedPair)
    short = Encoder(tokenizer, max_length=len(whole.prompt_ids) + 3).encode(pair)
    assert isinstance(short, EncodedPair)
    for side in SIDES:
        assert np.array_equal(short.side(side).ids, whole.side(side).ids[:3])
        assert np.array_equal(short.side(side).weights, whole.side(side).weights[:3])


DROPS: list[tuple[Drop, str | None, dict[str, Any], dict[str, Any]]] = [
    (Drop.NOT_FOUND, NO_ASSISTANT, {}, {}),
    (Drop.NOT_FOUND, TEMPLATES["chatml"].replace("m.content", "m.content | upper"), {}, {}),
    (Drop.NOT_FOUND, TEMPLATES["no-system"], {"chosen": [("\n", RIGHT)]}, {}),  # not the template's own line break
    (Drop.AMBIGUOUS, THINK, {"chosen": [("think", RIGHT)]}, {}),
    (Drop.AMBIGUOUS, THINK, {"chosen": [("<", RIGHT)]}, {}),
    (Drop.NO_PROMPT, None, {"prompt": "", "raw": True}, {}),
    (Drop.PROMPT_TOO_LONG, TEMPLATES["chatml"], {}, {"max_length": 10}),
    (Drop.NO_WEIGHT_CHOSEN, TEMPLATES["chatml"], {"chosen": CHOSEN[1:]}, {"eos": "drop"}),
    (Drop.NO_WEIGHT_REJECTED, TEMPLATES["chatml"], {"rejected": REJECTED[1:]}, {"eos": "drop"}),
    (Drop.NO_WEIGHT_CHOSEN, TEMPLATES["chatml"], {"chosen": CHOSEN[1:]}, {"eos": "keep"}),  # the end of turn is no fact
    (Drop.NO_WEIGHT_CHOSEN, TEMPLATES["chatml"], {"chosen": [("Unjudged.", None)]}, {"eos": "last_sentence"}),
    (Drop.NO_WEIGHT_REJECTED, TEMPLATES["chatml"], {"rejected": LATE}, {"eos": "drop", "ld_alpha": 0.0}),
    (Drop.NO_SCORES, TEMPLATES["chatml"], {"chosen_score": 0.5}, {"need_scores": True}),
]


@pytest.mark.parametrize(("drop", "template", "fields", "options"), DROPS)
def test_every_reason_to_drop_a_pair(
    drop: Drop, template: str | None, fields: dict[str, Any], options: dict[str, Any]
) -> None:
    pair = make_pair(**{"chosen": CHOSEN, "rejected": REJECTED} | fields)
    assert Encoder(fast_tokenizer("byte-level", template), **options).encode(pair) is drop


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_ld_dpo_counts_the_longer_answer_less_behind_the_length_of_the_shorter(alpha: float) -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    pair = make_pair(CHOSEN[:1], [*REJECTED[:1], (" It is a very small one.", WRONG)])
    plain, found = (Encoder(tokenizer, ld_alpha=value).encode(pair) for value in (1.0, alpha))
    assert isinstance(plain, EncodedPair)
    assert isinstance(found, EncodedPair)
    shorter = len(plain.chosen.ids)
    assert shorter < len(plain.rejected.ids)
    assert np.array_equal(found.chosen.weights, plain.chosen.weights)
    assert np.array_equal(found.rejected.weights[:shorter], plain.rejected.weights[:shorter])
    assert np.array_equal(found.rejected.weights[shorter:], alpha * plain.rejected.weights[shorter:])


@pytest.mark.parametrize(("scores", "gap"), [((0.75, 0.25), 0.5), ((0.25, 0.75), -0.5), ((None, 0.5), 0)])
def test_the_score_gap_of_a_pair_is_chosen_less_rejected(scores: tuple[float | None, float], gap: float) -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    encoded = Encoder(tokenizer).encode(make_pair(CHOSEN, REJECTED, chosen_score=scores[0], rejected_score=scores[1]))
    assert isinstance(encoded, EncodedPair)
    assert encoded.score_gap == gap


def test_every_reason_is_tested() -> None:
    assert {drop for drop, *_ in DROPS} | {Drop.REFUSED} == set(Drop)  # REFUSED: the next test


def test_a_template_that_refuses_the_conversation_drops_the_pair() -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["no-system"])
    prompt = [Message(role="system", content="Be brief."), Message(role="user", content="Where?")]
    assert Encoder(tokenizer).encode(make_pair(CHOSEN, REJECTED, prompt=prompt)) is Drop.REFUSED


def test_text_that_the_template_puts_in_is_never_taken_for_the_response() -> None:
    """Right behind the generation prompt stands ``<think>``, which begins like this answer."""
    tokenizer = fast_tokenizer("byte-level", THINK)
    assert Encoder(tokenizer).encode(make_pair([("<think>", RIGHT)], REJECTED)) is Drop.AMBIGUOUS


def test_drops_are_counted_and_the_rest_is_kept_in_order() -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    pairs = [
        make_pair(CHOSEN, REJECTED, id="1", weight=2.0),
        make_pair(CHOSEN[1:], REJECTED, id="2"),
        make_pair(CHOSEN, REJECTED, id="3"),
    ]
    result = encode_pairs(pairs, Encoder(tokenizer, eos="drop"))
    assert [(pair.id, pair.weight) for pair in result.pairs] == [("1", 2.0), ("3", 1.0)]
    assert result.dropped == {Drop.NO_WEIGHT_CHOSEN: 1}


def test_no_pair_left_is_an_error_that_counts_the_reasons() -> None:
    tokenizer = fast_tokenizer("byte-level", NO_ASSISTANT)
    with pytest.raises(UserError, match=f"1: {Drop.NOT_FOUND.value}"):
        encode_pairs([make_pair(CHOSEN, REJECTED)], Encoder(tokenizer))


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(UserError, match="fast tokenizer"):
        Encoder(ByT5Tokenizer())


def test_chat_messages_without_a_chat_template_are_refused() -> None:
    with pytest.raises(UserError, match="no chat template"):
        Encoder(fast_tokenizer("byte-level")).encode(make_pair(CHOSEN, REJECTED))


def test_spans_of_a_pair_may_leave_gaps() -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    fields = make_pair([("- Wrong.", WRONG)], REJECTED).model_dump() | {
        "chosen_sentences": [PairSentence(start=2, end=8, label=WRONG)]
    }
    encoded = Encoder(tokenizer).encode(Pair.model_validate(fields))
    assert trained_text(tokenizer, encoded, "chosen") == "-<|im_end|>"

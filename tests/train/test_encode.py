"""Pairs to ids and weights through chat templates: against the oracle, and every way to drop a pair."""

import string
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_weights import NO_FACT, RIGHT, TEXTS, WRONG, labelled_spans
from tokenizers import Tokenizer, models
from train_helpers import (
    CHATML,
    NO_ASSISTANT,
    REASONING,
    TEMPLATES,
    THINK,
    TOKENIZERS,
    encoder,
    fast_tokenizer,
    make_pair,
)
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast
from weight_oracle import TABLES, counts, expected_weights

from maskdpo.errors import UserError
from maskdpo.models import load_tokenizer
from maskdpo.schemas import SIDES, Message, Pair, PairSentence, Side
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.encode import NO_WEIGHT, encode_pairs, encoder_for
from maskdpo.train.data.encoded_pair import Drop, EncodedPair
from maskdpo.train.data.settings import EncodeSettings
from maskdpo.train.data.weights import METHODS, exact_offsets

CHOSEN = [("Paris is big.", RIGHT), (" It is blue.", WRONG)]
REJECTED = [("Paris is small.", WRONG), (" It is a capital.", RIGHT)]
LATE = [(" It is a capital, and a very large and old one.", RIGHT), (" It is far behind.", WRONG)]
"""What trains stands behind the length of CHOSEN."""


TAILS = {"chatml": "<|im_end|>\n", "llama3": "<|eot_id|>", "think": "<|im_end|>\n", "no-system": "<|im_end|>\n"}
TAILS["spaced"] = " \n<|im_end|>\n"
"""What the templates write behind an answer, by hand. None of them writes anything before it."""


@dataclass
class Expected:
    prompt_ids: list[int]
    ids: list[int]
    """Of what follows the prompt, up to the token that ends the turn."""
    weights: list[float]
    has_end: bool

    def trains(self, room: int) -> bool:
        """Whether anything but the end of the turn has weight."""
        return any((self.weights[:-1] if self.has_end else self.weights)[:room])


def continuations(
    tokenizer: PreTrainedTokenizerFast, prompt: str, prompt_ids: list[int], rest: str
) -> list[tuple[list[int], list[tuple[int, int]]]]:
    """Every way to encode what follows a prompt: as a part of the whole, or else behind some other character."""
    found = []
    for before in (prompt, *string.printable):
        encoding = tokenizer(before + rest, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
        cut = next((i for i, (_, end) in enumerate(offsets) if end > len(before)), len(ids))
        if all(begin >= len(before) for begin, _ in offsets[cut:]) and (cut or not before):
            part = ids[cut:], [(begin - len(before), end - len(before)) for begin, end in offsets[cut:]]
            if before == prompt and ids[:cut] == prompt_ids:
                return [part]
            found += [part] if before != prompt else []
    return found


def slow_encode(
    pair: Pair,
    side: Side,
    tokenizer: PreTrainedTokenizerFast,
    template: str = "chatml",
    eos: str = "keep",
    method: str = "mask-dpo",
) -> list[Expected]:
    """Prompt and answer by the definition, in every way that is right."""
    response, sentences = pair.response(side), pair.sentences(side)
    if isinstance(pair.prompt, str):
        prompt, tail = pair.prompt, ""
    else:
        messages = [message.model_dump() for message in pair.prompt]
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        tail = TAILS[template].lstrip() if response[-1:].isspace() else TAILS[template]
        added = {token.content for token in tokenizer.added_tokens_decoder.values()}
        if not any(end in added for end in ("<|im_end|>", "<|eot_id|>") if end in tail):
            tail = ""  # the end of the turn is no token of this tokenizer
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    table, soft = TABLES[method][side], method == "soft"
    policy = "drop" if pair.finish_reason(side) == "length" else eos
    of_last = counts(sentences[-1], table, soft) if sentences else table[NO_FACT]
    of_eos = {"keep": 1.0, "drop": 0.0, "last_sentence": of_last}[policy]
    found = []
    for part, reported in continuations(tokenizer, prompt, prompt_ids, response + tail):
        ids, offsets = part, exact_offsets(tokenizer.convert_ids_to_tokens(part), reported, response + tail)
        weights = expected_weights(response + tail, 0, len(response), 0, offsets, sentences, table, soft)
        ends = [i for i, (b, e) in enumerate(offsets) if b >= len(response) and e > b + 2]
        if isinstance(pair.prompt, str):
            has_end = bool(ids) and ids[-1] == tokenizer.eos_token_id
            ids, weights = ids + [tokenizer.eos_token_id] * (not has_end), weights + [0.0] * (not has_end)
            ends = [len(ids) - 1]
        if ends:
            found.append(Expected(prompt_ids, ids[: ends[0] + 1], [*weights[: ends[0]], of_eos], True))
        else:  # the tail is no token of this tokenizer
            kept = sum(b < len(response) for b, _ in offsets)
            found.append(Expected(prompt_ids, ids[:kept], weights[:kept], False))
    return found


def check_pair(encoded: EncodedPair | Drop, pair: Pair, sides: list[list[Expected]], max_length: int = 2048) -> None:
    """What came out is what the oracle says, in full; a drop has its reason."""
    if not (pair.response("chosen").strip() and pair.response("rejected").strip()) and isinstance(encoded, Drop):
        assert encoded in (Drop.EMPTY, Drop.NO_PROMPT, Drop.PROMPT_TOO_LONG, *NO_WEIGHT.values())
        return
    if not all(sides):
        assert encoded in (Drop.NOT_JOINED, Drop.NO_PROMPT, Drop.PROMPT_TOO_LONG, *NO_WEIGHT.values())
        return
    prompt = sides[0][0].prompt_ids
    if not prompt or len(prompt) >= max_length:
        assert encoded is (Drop.PROMPT_TOO_LONG if prompt else Drop.NO_PROMPT)
        return
    room = max_length - len(prompt)
    for name, ways in zip(SIDES, sides, strict=True):
        if isinstance(encoded, Drop):
            if not any(way.trains(room) for way in ways):
                assert encoded is NO_WEIGHT[name]
                return
            continue
        answer = encoded.side(name)
        cut = [(way.ids[:room], way.weights[:room]) for way in ways if way.trains(room)]
        assert (answer.ids.tolist(), answer.weights.tolist()) in cut
        assert encoded.prompt_ids.tolist() == prompt
    assert isinstance(encoded, EncodedPair)


def tokens(tokenizer: PreTrainedTokenizerFast, encoded: EncodedPair | Drop, side: Side) -> list[tuple[str, float]]:
    assert isinstance(encoded, EncodedPair)
    answer = encoded.side(side)
    return [(tokenizer.decode([i]), w) for i, w in zip(answer.ids, answer.weights.tolist(), strict=True)]


def trained_text(tokenizer: PreTrainedTokenizerFast, encoded: EncodedPair | Drop, side: Side) -> str:
    return "".join(text for text, weight in tokens(tokenizer, encoded, side) if weight)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TOKENIZERS, "smollm2"])
@pytest.mark.parametrize("template", [*TEMPLATES, "raw"])
def test_whole_pairs_follow_the_definition(name: str, template: str) -> None:
    if name == "smollm2":
        tokenizer: Any = load_tokenizer(name)
        tokenizer.chat_template = TEMPLATES.get(template)
    else:
        tokenizer = fast_tokenizer(name, TEMPLATES.get(template))

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.data(), TEXTS, TEXTS, TEXTS, st.sampled_from(["keep", "last_sentence", "drop"]), st.integers(2, 80))
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
        encoded = encoder(tokenizer, method=method, eos=eos, max_length=max_length).encode(pair)
        sides = [slow_encode(pair, side, tokenizer, template, eos, method) for side in SIDES]
        check_pair(encoded, pair, sides, max_length)

    check()


@pytest.mark.parametrize("template", TEMPLATES)
def test_trained_text_is_right_in_chosen_and_wrong_in_rejected(template: str) -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES[template])
    encoded = encoder(tokenizer).encode(make_pair(CHOSEN, REJECTED))
    end = "<|eot_id|>" if template == "llama3" else "<|im_end|>"
    assert trained_text(tokenizer, encoded, "chosen") == "Paris is big." + end
    assert trained_text(tokenizer, encoded, "rejected") == "Paris is small." + end


def test_an_answer_is_trained_as_it_was_written_though_the_template_trims() -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["llama3"])
    encoded = encoder(tokenizer).encode(
        make_pair([(" \n ", NO_FACT), ("Bad.", WRONG), (" Good.  \n", RIGHT)], REJECTED)
    )
    assert trained_text(tokenizer, encoded, "chosen") == "Good.  \n<|eot_id|>"  # the token of " \n B" is wrong in part
    assert isinstance(encoded, EncodedPair)
    assert tokenizer.decode(encoded.chosen.ids) == " \n Bad. Good.  \n<|eot_id|>"


def test_the_empty_think_block_of_a_template_is_not_trained_on() -> None:
    """The model did not write it: sampling sends a prompt without one."""
    tokenizer = fast_tokenizer("byte-level", THINK)
    encoded = encoder(tokenizer).encode(make_pair(CHOSEN, REJECTED))
    assert isinstance(encoded, EncodedPair)
    assert tokenizer.decode(encoded.prompt_ids).endswith("<|im_start|>assistant\n")
    assert tokenizer.decode(encoded.chosen.ids) == "Paris is big. It is blue.<|im_end|>"


def test_the_prompt_is_shared_and_has_no_weight() -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    encoded = encoder(tokenizer).encode(make_pair(CHOSEN, [("Rome.", WRONG)], prompt="Where?"))
    assert isinstance(encoded, EncodedPair)
    assert tokenizer.decode(encoded.prompt_ids) == "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(encoded.rejected.ids) == "Rome.<|im_end|>"


def test_answers_that_begin_alike_keep_their_beginning() -> None:
    """The shared prefix ends with the prompt, or the first sentence of both would not train."""
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    encoded = encoder(tokenizer).encode(make_pair([("Same. ", RIGHT), ("A", RIGHT)], [("Same. ", WRONG), ("B", WRONG)]))
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
    check_pair(encoder(tokenizer).encode(pair), pair, [slow_encode(pair, side, tokenizer, template) for side in SIDES])
    assert trained_text(tokenizer, encoder(tokenizer).encode(pair), "chosen").startswith("Paris is big.<|")


def test_a_prompt_that_runs_into_the_answer_is_encoded_apart() -> None:
    """One token of the whole text would hold the prompt's end and the answer's beginning, and sampling sends none."""
    tokenizer = fast_tokenizer("byte-level")
    pair = make_pair([("ris is big.", RIGHT)], [("nic is big.", WRONG)], prompt="It is Pa", raw=True)
    encoded = encoder(tokenizer).encode(pair)
    check_pair(encoded, pair, [slow_encode(pair, side, tokenizer) for side in SIDES])
    assert isinstance(encoded, EncodedPair)
    assert tokenizer.decode(encoded.prompt_ids) == "It is Pa"
    assert trained_text(tokenizer, encoded, "chosen") == "ris is big.<|im_end|>"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_an_answer_that_is_encoded_apart_gets_no_blank_before_it(name: str) -> None:
    tokenizer = fast_tokenizer(name)
    pair = make_pair([("ris is big.", RIGHT)], [("nic is big.", WRONG)], prompt="It is Pa", raw=True)
    encoded = encoder(tokenizer).encode(pair)
    assert isinstance(encoded, EncodedPair)
    first = tokenizer.convert_ids_to_tokens(encoded.chosen.ids.tolist())[0]
    assert not first.startswith(("▁", "Ġ"))


def test_raw_text_gets_one_end_of_text_token() -> None:
    tokenizer = fast_tokenizer("byte-level")
    encoded = encoder(tokenizer).encode(make_pair([(" A.", RIGHT)], [(" B.<|im_end|>", WRONG)], prompt="Q:", raw=True))
    for side in SIDES:
        assert [text for text, _ in tokens(tokenizer, encoded, side)].count("<|im_end|>") == 1
        assert tokens(tokenizer, encoded, side)[-1] == ("<|im_end|>", 1)


@pytest.mark.parametrize(("eos", "expected"), [("keep", (1, 1)), ("last_sentence", (0, 0)), ("drop", (0, 0))])
@pytest.mark.parametrize("raw", [False, True])
def test_eos_policies(eos: Any, expected: tuple[float, float], raw: bool) -> None:
    """The last sentence of CHOSEN is wrong, that of REJECTED right: neither trains."""
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    encoded = encoder(tokenizer, eos=eos).encode(make_pair(CHOSEN, REJECTED, raw=raw))
    assert tuple(dict(tokens(tokenizer, encoded, side))["<|im_end|>"] for side in SIDES) == expected


def test_eos_trains_with_a_last_sentence_that_trains() -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    encoded = encoder(tokenizer, eos="last_sentence").encode(make_pair(CHOSEN[:1], REJECTED[:1]))
    assert [dict(tokens(tokenizer, encoded, side))["<|im_end|>"] for side in SIDES] == [1, 1]


@pytest.mark.parametrize("eos", ["keep", "last_sentence", "drop"])
@pytest.mark.parametrize("raw", [False, True])
def test_an_answer_that_was_cut_off_never_trains_eos(eos: Any, raw: bool) -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    pair = make_pair(CHOSEN[:1], REJECTED[:1], raw=raw, chosen_finish_reason="length", rejected_finish_reason="length")
    encoded = encoder(tokenizer, eos=eos).encode(pair)
    assert [dict(tokens(tokenizer, encoded, side))["<|im_end|>"] for side in SIDES] == [0, 0]


@pytest.mark.parametrize("method", METHODS.ours)
def test_a_fragment_trains_only_where_whole_answers_train(method: str) -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    ends = {"chosen_finish_reason": "length", "rejected_finish_reason": "length"}
    pair = make_pair([*CHOSEN, (" It is bui", None)], [*REJECTED, (" It is bui", None)], **ends)
    encoded = encoder(tokenizer, method=method).encode(pair)
    assert isinstance(encoded, EncodedPair)
    unmasked = {"dpo": SIDES, "chosen-only": ["rejected"], "rejected-only": ["chosen"]}.get(method, ())
    for side in SIDES:
        weights = [weight for _, weight in tokens(tokenizer, encoded, side)]
        tail = len(" It is bui")  # bytes, then the end of the turn
        assert set(weights[-tail - 1 : -1]) == {1 if side in unmasked else 0}
        assert any(weights)


def test_nothing_is_kept_behind_the_end_of_turn() -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    encoded = encoder(tokenizer).encode(make_pair(CHOSEN, REJECTED))
    assert tokens(tokenizer, encoded, "chosen")[-1] == ("<|im_end|>", 1)


def test_truncation_clips_answers_and_their_weights() -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    pair = make_pair(CHOSEN, REJECTED)
    whole = encoder(tokenizer).encode(pair)
    assert isinstance(whole, EncodedPair)
    short = encoder(tokenizer, max_length=len(whole.prompt_ids) + 3).encode(pair)
    assert isinstance(short, EncodedPair)
    for side in SIDES:
        assert np.array_equal(short.side(side).ids, whole.side(side).ids[:3])
        assert np.array_equal(short.side(side).weights, whole.side(side).weights[:3])


DROPS: list[tuple[Drop, str | None, dict[str, Any], dict[str, Any]]] = [
    (Drop.NOT_FOUND, NO_ASSISTANT, {}, {}),
    (Drop.NOT_FOUND, TEMPLATES["chatml"].replace("m.content", "m.content | upper"), {}, {}),
    (Drop.EMPTY, TEMPLATES["chatml"], {"chosen": [("\n", RIGHT)]}, {}),
    (Drop.NO_PLACE, TEMPLATES["chatml"], {"chosen_reasoning": "Let me see."}, {}),
    (Drop.NO_PROMPT, None, {"prompt": "", "raw": True}, {}),
    (Drop.PROMPT_TOO_LONG, TEMPLATES["chatml"], {}, {"max_length": 10}),
    (Drop.NO_ROOM, REASONING, {"chosen_reasoning": "Let me see. " * 20}, {"max_length": 60}),
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
    assert encoder(fast_tokenizer("byte-level", template), **options).encode(pair) is drop


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_ld_dpo_counts_the_longer_answer_less_behind_the_length_of_the_shorter(alpha: float) -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    pair = make_pair(CHOSEN[:1], [*REJECTED[:1], (" It is a very small one.", WRONG)])
    plain, found = (encoder(tokenizer, ld_alpha=value).encode(pair) for value in (1.0, alpha))
    assert isinstance(plain, EncodedPair)
    assert isinstance(found, EncodedPair)
    shorter = len(plain.chosen.ids)
    assert shorter < len(plain.rejected.ids)
    assert np.array_equal(found.chosen.weights, plain.chosen.weights)
    assert np.array_equal(found.rejected.weights[:shorter], plain.rejected.weights[:shorter])
    assert np.array_equal(found.rejected.weights[shorter:], alpha * plain.rejected.weights[shorter:])


def test_the_loss_of_a_training_decides_on_weights_and_pairs() -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    pair = make_pair(CHOSEN[:1], [*REJECTED[:1], (" It is a very small one.", WRONG)], chosen_score=0.5)

    def last_weight(settings: EncodeSettings) -> float | Drop:
        found = encoder_for(settings.model_copy(update={"eos": "last_sentence"}), tokenizer).encode(pair)
        return float(found.rejected.weights[-1]) if isinstance(found, EncodedPair) else found

    assert last_weight(EncodeSettings(model="tiny")) == 1.0
    assert last_weight(TrainConfig(model="tiny")) == 1.0
    assert last_weight(TrainConfig(model="tiny", loss="ld-dpo")) == 0.5
    assert last_weight(TrainConfig(model="tiny", loss="ld-dpo", ld_alpha=0.25)) == 0.25
    assert last_weight(TrainConfig(model="tiny", loss="fdpo-margin")) is Drop.NO_SCORES


@pytest.mark.parametrize(("scores", "gap"), [((0.75, 0.25), 0.5), ((0.25, 0.75), -0.5), ((None, 0.5), 0)])
def test_the_score_gap_of_a_pair_is_chosen_less_rejected(scores: tuple[float | None, float], gap: float) -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    encoded = encoder(tokenizer).encode(make_pair(CHOSEN, REJECTED, chosen_score=scores[0], rejected_score=scores[1]))
    assert isinstance(encoded, EncodedPair)
    assert encoded.score_gap == gap


def test_every_reason_is_tested() -> None:
    assert {drop for drop, *_ in DROPS} | {Drop.REFUSED, Drop.NOT_JOINED} == set(Drop)  # these: the next tests


def test_a_template_that_refuses_the_conversation_drops_the_pair() -> None:
    tokenizer = fast_tokenizer("byte-level", "{{ raise_exception('No.') if messages | length > 2 else 'x' }}<s>")
    prompt = [Message(role="user", content="Where?")] * 3
    assert encoder(tokenizer).encode(make_pair(CHOSEN, REJECTED, prompt=prompt)) is Drop.REFUSED


def test_an_answer_that_cannot_be_encoded_behind_its_prompt_drops_the_pair() -> None:
    """A tokenizer that knows no words but whole lines: nothing is a boundary between prompt and answer."""
    whole = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=whole, unk_token="[UNK]")
    assert encoder(tokenizer).encode(make_pair(CHOSEN, REJECTED, prompt="Q", raw=True)) is Drop.NOT_JOINED


def test_a_system_message_that_the_template_refuses_stands_before_the_question_as_in_sampling() -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["no-system"])
    prompt = [Message(role="system", content="Be brief."), Message(role="user", content="Where?")]
    encoded = encoder(tokenizer).encode(make_pair(CHOSEN, REJECTED, prompt=prompt))
    assert isinstance(encoded, EncodedPair)
    assert (
        tokenizer.decode(encoded.prompt_ids)
        == "<s><|im_start|>user\nBe brief.\n\nWhere?<|im_end|>\n<|im_start|>model\n"
    )


@pytest.mark.parametrize("answer", ["<think>", "think", "<", "a", "s", "."])
def test_text_that_the_template_puts_in_is_never_taken_for_the_response(answer: str) -> None:
    tokenizer = fast_tokenizer("byte-level", THINK)
    encoded = encoder(tokenizer).encode(make_pair([(answer, RIGHT)], REJECTED))
    assert trained_text(tokenizer, encoded, "chosen") == answer + "<|im_end|>"


@pytest.mark.parametrize("policy", ["keep", "drop"])
def test_reasoning_stands_where_the_model_wrote_it_and_has_no_weight(policy: Any) -> None:
    tokenizer = fast_tokenizer("byte-level", REASONING)
    pair = make_pair(CHOSEN, REJECTED, chosen_reasoning="Paris, I think.", rejected_reasoning="\nPerhaps.\n")
    encoded = encoder(tokenizer, reasoning=policy).encode(pair)
    assert isinstance(encoded, EncodedPair)
    texts = [tokenizer.decode(encoded.side(side).ids) for side in SIDES]
    if policy == "keep":
        assert texts[0] == "<think>\nParis, I think.\n</think>\n\nParis is big. It is blue.<|im_end|>"
        assert texts[1] == "<think>\nPerhaps.\n</think>\n\nParis is small. It is a capital.<|im_end|>"
    else:
        assert texts == ["Paris is big. It is blue.<|im_end|>", "Paris is small. It is a capital.<|im_end|>"]
    assert trained_text(tokenizer, encoded, "chosen") == "Paris is big.<|im_end|>"
    assert trained_text(tokenizer, encoded, "rejected") == "Paris is small.<|im_end|>"


def test_options_and_date_of_a_pair_go_before_those_of_the_run() -> None:
    tokenizer = fast_tokenizer("byte-level", "{{ strftime_now('%d %b %Y') }} {{ mood }} " + TEMPLATES["chatml"])
    encodes = encoder(tokenizer, template_options={"mood": "calm"}, today=date(2026, 7, 1))
    own = make_pair(CHOSEN, REJECTED, template_options={"mood": "wild"}, prompt_date=date(2025, 12, 24))
    for pair, expected in ((make_pair(CHOSEN, REJECTED), "01 Jul 2026 calm"), (own, "24 Dec 2025 wild")):
        encoded = encodes.encode(pair)
        assert isinstance(encoded, EncodedPair)
        assert tokenizer.decode(encoded.prompt_ids).startswith(expected)


def test_an_answer_keeps_its_last_token_where_the_end_of_the_turn_is_no_token() -> None:
    """``.<`` is one token of many tokenizers: it must not hold the full stop and the beginning of the end."""
    tokenizer = fast_tokenizer.__wrapped__("byte-level", CHATML.replace("<|im_end|>", "<|return|>"))
    tokenizer.add_tokens([".<"])
    encoded = encoder(tokenizer).encode(make_pair(CHOSEN, REJECTED))
    assert isinstance(encoded, EncodedPair)
    assert tokenizer.decode(encoded.rejected.ids) == "Paris is small. It is a capital."
    assert trained_text(tokenizer, encoded, "chosen") == "Paris is big."


def test_a_template_without_an_end_of_turn_token_is_said() -> None:
    tokenizer = fast_tokenizer("byte-level", "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    encodes = encoder(tokenizer)
    encoded = encodes.encode(make_pair(CHOSEN, REJECTED))
    assert trained_text(tokenizer, encoded, "chosen") == "Paris is big."
    assert encodes.without_end == 2


def test_drops_are_counted_and_the_rest_is_kept_in_order() -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    pairs = [
        make_pair(CHOSEN, REJECTED, id="1", weight=2.0),
        make_pair(CHOSEN[1:], REJECTED, id="2"),
        make_pair(CHOSEN, REJECTED, id="3"),
    ]
    result = encode_pairs(pairs, encoder(tokenizer, eos="drop"))
    assert [(pair.id, pair.weight) for pair in result.pairs] == [("1", 2.0), ("3", 1.0)]
    assert result.dropped == {Drop.NO_WEIGHT_CHOSEN: 1}


def test_no_pair_left_is_an_error_that_counts_the_reasons() -> None:
    tokenizer = fast_tokenizer("byte-level", NO_ASSISTANT)
    with pytest.raises(UserError, match=f"1: {Drop.NOT_FOUND.value}"):
        encode_pairs([make_pair(CHOSEN, REJECTED)], encoder(tokenizer))


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(UserError, match="fast tokenizer"):
        encoder(ByT5Tokenizer())


def test_chat_messages_without_a_chat_template_are_refused() -> None:
    with pytest.raises(UserError, match="no chat template"):
        encoder(fast_tokenizer("byte-level")).encode(make_pair(CHOSEN, REJECTED))


def test_spans_of_a_pair_may_leave_gaps() -> None:
    tokenizer = fast_tokenizer("byte-level", TEMPLATES["chatml"])
    fields = make_pair([("- Wrong.", WRONG)], REJECTED).model_dump() | {
        "chosen_sentences": [PairSentence(start=2, end=8, label=WRONG)]
    }
    encoded = encoder(tokenizer).encode(Pair.model_validate(fields))
    assert trained_text(tokenizer, encoded, "chosen") == "-<|im_end|>"

"""The transformers backend on a tiny random model: equal to ``generate``, independent of batches, exact choices."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM, AutoTokenizer

from maskdpo.backends.base import Reply, Request, Sampling
from maskdpo.backends.decode import pick
from maskdpo.backends.rows import left_pad
from maskdpo.backends.settings import BackendSettings
from maskdpo.backends.transformers_backend import TransformersBackend
from maskdpo.errors import UserError
from maskdpo.schemas import Message, Status

pytestmark = pytest.mark.slow

PROMPTS = ("The river", "Which city does the river cross?", "你好", "x", "Paris Paris Paris Paris Paris Paris", "no")


def backend(folder: str, batch_size: int = 16) -> TransformersBackend:
    return TransformersBackend(folder, BackendSettings(batch_size=batch_size, dtype="float32", device="cpu"))


@pytest.fixture(scope="module")
def tiny(tiny_model: str) -> TransformersBackend:
    return backend(tiny_model)


@pytest.fixture(scope="module")
def parts(tiny_model: str) -> tuple[Any, Any]:
    """The same model and tokenizer, loaded by transformers alone."""
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval(), AutoTokenizer.from_pretrained(tiny_model)


def run(made: TransformersBackend, requests: Sequence[Request], **sampling: Any) -> dict[Any, Reply]:
    replies = {
        reply.key: reply
        for reply in made.generate(
            replace(request, sampling=Sampling(**({"max_tokens": 24} | sampling))) for request in requests
        )
    }
    assert sorted(map(str, replies)) == sorted(str(request.key) for request in requests)
    return replies


def texts(replies: dict[Any, Reply]) -> dict[Any, list[str]]:
    return {key: [completion.text for completion in reply.completions] for key, reply in replies.items()}


RAW = [Request(i, text) for i, text in enumerate(PROMPTS)]
CHAT = [Request(i, [Message(role="user", content=text)]) for i, text in enumerate(PROMPTS)]


# --- greedy ----------------------------------------------------------------------------------------


def generated(parts: tuple[Any, Any], ids: list[int], max_tokens: int) -> list[int]:
    model, _ = parts
    with torch.inference_mode():
        output = model.generate(torch.tensor([ids]), max_new_tokens=max_tokens, do_sample=False)
    return output[0, len(ids) :].tolist()


@pytest.mark.parametrize("requests", [RAW, CHAT], ids=["raw", "chat"])
def test_greedy_decoding_equals_generate(tiny: TransformersBackend, parts: Any, requests: list[Request]) -> None:
    _, tokenizer = parts
    found = run(tiny, requests, temperature=0.0)
    for request in requests:
        if isinstance(request.prompt, str):
            ids = tokenizer(request.prompt)["input_ids"]
        else:
            text = f"<|im_start|>user\n{request.prompt[0].content}<|im_end|>\n<|im_start|>assistant\n"
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        expected = generated(parts, ids, 24)
        reply = found[request.key]
        assert reply.prompt_tokens == len(ids)
        assert reply.completion_tokens == len(expected)
        assert reply.completions[0].text == tokenizer.decode(expected, skip_special_tokens=True)
        assert reply.completions[0].finish_reason == ("stop" if expected[-1] == tokenizer.eos_token_id else "length")


def test_greedy_answers_are_all_the_same(tiny: TransformersBackend) -> None:
    (reply,) = run(tiny, RAW[:1], temperature=0.0, n=3).values()
    assert len(reply.completions) == 3
    assert len(set(reply.completions)) == 1


# --- sampling --------------------------------------------------------------------------------------


def test_a_sample_does_not_depend_on_its_batch(tiny_model: str) -> None:
    one, many = backend(tiny_model, batch_size=1), backend(tiny_model, batch_size=16)
    sampling: dict[str, Any] = {"n": 3, "temperature": 0.7, "top_p": 0.9, "seed": 5}
    alone = texts(run(one, RAW, **sampling))
    assert alone == texts(run(many, RAW, **sampling))
    assert alone == texts(run(many, RAW[::-1], **sampling))
    assert alone[2] == texts(run(many, RAW[2:3], **sampling))[2]
    assert all(len(set(answers)) == 3 for answers in alone.values())


def test_the_seed_and_the_key_decide(tiny: TransformersBackend) -> None:
    first = texts(run(tiny, RAW[:1], seed=1))
    assert first == texts(run(tiny, RAW[:1], seed=1))
    assert first != texts(run(tiny, RAW[:1], seed=2))
    assert first[0] != texts(run(tiny, [Request("other key", PROMPTS[0])], seed=1))["other key"]


def test_fewer_samples_are_the_first_of_more(tiny: TransformersBackend) -> None:
    assert texts(run(tiny, RAW[:2], n=2)) == {key: value[:2] for key, value in texts(run(tiny, RAW[:2], n=5)).items()}


LOGITS = torch.tensor([[2.0, 1.0, 0.5, 0.0, -1.0, -4.0]])


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 1.0), (1.0, 0.8), (0.7, 0.9)])
def test_tokens_are_drawn_with_the_probabilities_of_temperature_and_top_p(temperature: float, top_p: float) -> None:
    draws = 20_000
    probs = np.exp(LOGITS[0].double().numpy() / temperature)
    probs /= probs.sum()
    kept, total = [], 0.0  # the fewest most probable tokens that reach top_p
    for token in np.argsort(-probs):
        kept.append(int(token))
        total += probs[token]
        if total >= top_p:
            break
    uniform = torch.tensor(np.random.default_rng(7).random(draws), dtype=torch.float32)
    counts = Counter(pick(LOGITS.expand(draws, -1), uniform, temperature, top_p).tolist())
    assert set(counts) <= set(kept)
    assert chisquare([counts[t] for t in kept], [draws * probs[t] / total for t in kept]).pvalue > 0.001


def test_the_ends_of_the_interval_draw_possible_tokens_only() -> None:
    logits = torch.tensor([[-math.inf, 0.0, 0.0, -math.inf]] * 3)
    uniform = torch.tensor([0.0, 0.5, 1.0 - 2**-24])
    assert pick(logits, uniform, 1.0, 1.0).tolist() == [1, 2, 2]
    assert pick(torch.tensor([[0.0, 3.0, 1.0]]), uniform[:1], 0.0, 1.0).tolist() == [1]


def test_padding_goes_to_the_left() -> None:
    ids, mask = left_pad([[5], [6, 7]], torch.device("cpu"))
    assert (ids.tolist(), mask.tolist()) == ([[5, 5], [6, 7]], [[0, 1], [1, 1]])


# --- where an answer ends --------------------------------------------------------------------------


def test_stop_texts_that_span_tokens_end_the_answer_and_are_left_out(tiny: TransformersBackend, parts: Any) -> None:
    _, tokenizer = parts
    tested = 0
    for request in RAW:
        whole = texts(run(tiny, [request], temperature=0.0))[request.key][0]
        pieces = [tokenizer.decode([token]) for token in tokenizer(whole)["input_ids"]]
        windows = [whole[i : i + 4] for i in range(len(whole) - 4)]
        spanning = [text for text in windows if "\ufffd" not in text and not any(text in piece for piece in pieces)]
        for stop in spanning[::4]:
            (completion,) = run(tiny, [request], temperature=0.0, stop=(stop,))[request.key].completions
            assert completion.text == whole[: whole.index(stop)]
            assert completion.finish_reason == "stop"
            tested += 1
    assert tested > 5


def test_the_first_of_several_stop_texts_counts_and_decoding_ends_there(tiny: TransformersBackend) -> None:
    whole = run(tiny, RAW[:1], temperature=0.0)[0]
    text = whole.completions[0].text
    early, late = text[2:5], text[-4:]
    reply = run(tiny, RAW[:1], temperature=0.0, stop=(late, early, "never there"))[0]
    assert reply.completions[0].text == text[: text.index(early)]
    assert reply.completion_tokens < whole.completion_tokens


def test_a_stop_text_of_the_prompt_does_not_end_the_answer(tiny: TransformersBackend) -> None:
    whole = texts(run(tiny, RAW[:1], temperature=0.0))[0][0]
    assert "The river" not in whole
    assert texts(run(tiny, RAW[:1], temperature=0.0, stop=("The river",)))[0][0] == whole


def test_the_end_of_turn_ends_an_answer_and_leaves_no_trace(tiny_model: str) -> None:
    made = backend(tiny_model)
    replies = run(made, RAW, n=16, temperature=3.0, max_tokens=100)
    completions = [completion for reply in replies.values() for completion in reply.completions]
    reasons = Counter(completion.finish_reason for completion in completions)
    assert reasons["stop"] > 5
    assert reasons["length"] > 5
    assert not any("<|im_end|>" in completion.text for completion in completions)
    assert all(reply.completion_tokens < 16 * 100 for reply in replies.values())


def test_the_prompt_is_no_part_of_the_answer_and_leading_spaces_stay(tiny: TransformersBackend, parts: Any) -> None:
    model, tokenizer = parts
    space = tokenizer(" the")["input_ids"]
    assert tokenizer.decode(space) == " the"
    made = backend(tiny.model)
    made._loaded = (model, tokenizer)
    hook = model.lm_head.register_forward_hook(lambda _m, _i, logits: logits.index_fill(-1, torch.tensor(space), 1e6))
    (completion,) = run(made, [Request(0, "The river")], max_tokens=2, temperature=0.0)[0].completions
    hook.remove()
    assert completion.text == tokenizer.decode([space[0]] * 2)
    assert completion.text.startswith(" ")


def test_a_prompt_that_leaves_no_room_is_truncated_and_the_others_are_answered(tiny: TransformersBackend) -> None:
    requests = [RAW[0], Request("long", "no " * 200), RAW[1]]
    found = run(tiny, requests, max_tokens=8)
    failure = found["long"].failure
    assert failure is not None
    assert failure.status is Status.TRUNCATED
    assert "the model's limit is 128" in failure.message
    assert found["long"].completions == ()
    assert texts(found)[0] == texts(run(tiny, RAW[:1], max_tokens=8))[0]


def test_the_room_is_for_the_prompt_and_the_answer(tiny: TransformersBackend) -> None:
    tokens = run(tiny, RAW[:1], max_tokens=1)[0].prompt_tokens
    assert run(tiny, RAW[:1], max_tokens=128 - tokens, temperature=0.0)[0].failure is None
    assert run(tiny, RAW[:1], max_tokens=129 - tokens)[0].failure is not None


def test_chat_needs_a_chat_template(tiny: TransformersBackend) -> None:
    made = backend(tiny.model)
    made._reader.chat.tokenizer.chat_template = None
    with pytest.raises(UserError, match="has no chat template, which chat messages need"):
        run(made, CHAT[:1])
    assert len(run(made, RAW[:1])) == 1


GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{{ m['role'] + ': ' + m['content'] + ' / ' }}{% endfor %}"
)


def test_a_template_without_a_system_role_reads_its_text_in_the_first_user_message(tiny: TransformersBackend) -> None:
    made = backend(tiny.model)
    made._reader.chat.tokenizer.chat_template = GEMMA
    system, user = Message(role="system", content="Be brief."), Message(role="user", content="no")
    found = run(
        made,
        [Request("system", [system, user]), Request("raw", "user: Be brief.\n\nno / "), Request("bad", [user, user])],
        temperature=0.0,
    )
    assert texts(found)["system"] == texts(found)["raw"]
    refused = found["bad"].failure
    assert refused is not None
    assert refused.status is Status.API_ERROR
    assert refused.message == "the model's chat template rejects the conversation: roles must alternate"


# --- choices ---------------------------------------------------------------------------------------

CHOICES = [
    ("supported", "contradicted"),
    ("no_fact", "no_hallucination", "supported"),
    ("no", "nothing", "not", "yes", "yesterday", "yes yes"),
    ("a", "ab", "abc", "abcd"),
    ("你", "你好", "好"),
]


def brute_force(parts: Any, prompt: str, choices: Sequence[str]) -> list[float]:
    """Constrained decoding walked through for every choice on its own: one unpadded pass per prefix, in float64."""
    model, tokenizer = parts
    ids = tokenizer(prompt)["input_ids"]
    paths = [[*tokenizer(choice, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for choice in choices]
    found = []
    for path in paths:
        probability = 1.0
        for i in range(len(path)):
            allowed = sorted({other[i] for other in paths if other[:i] == path[:i]})
            with torch.inference_mode():
                logits = model(torch.tensor([ids + path[:i]])).logits[0, -1].double()
            probability *= float(logits[allowed].softmax(0)[allowed.index(path[i])])
        found.append(probability)
    return found


@pytest.mark.parametrize("choices", CHOICES, ids=lambda c: "-".join(c)[:24])
def test_the_most_probable_choice_and_its_probability_equal_brute_force(
    tiny: TransformersBackend, parts: Any, choices: tuple[str, ...]
) -> None:
    found = run(tiny, [Request(i, text, choices) for i, text in enumerate(PROMPTS)], temperature=0.0)
    for i, text in enumerate(PROMPTS):
        expected = brute_force(parts, text, choices)
        assert sum(expected) == pytest.approx(1.0)
        (completion,) = found[i].completions
        assert completion.text == choices[int(np.argmax(expected))]
        assert completion.picks[0].probability == pytest.approx(max(expected), abs=1e-5)
        assert completion.finish_reason == "stop"


def test_all_probabilities_sum_to_one_and_do_not_depend_on_the_batch(parts: Any) -> None:
    from maskdpo.backends.choices import CachedPrefix, _shares

    model, tokenizer = parts
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS[: len(CHOICES)]]
    offered = [
        [(*tokenizer(c, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id) for c in choices]
        for choices in CHOICES
    ]
    for batch_size in (1, 2, 16):
        found = _shares(CachedPrefix(model, [], batch_size), [tuple(ids) for ids in prompts], offered)
        for text, choices, shares in zip(PROMPTS, CHOICES, found, strict=False):
            assert sum(shares) == pytest.approx(1.0, abs=1e-5)
            assert shares == pytest.approx(brute_force(parts, text, choices), abs=1e-5)


def test_prompts_that_begin_alike_are_read_once_and_answered_as_each_alone(
    tiny: TransformersBackend, parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = parts
    monkeypatch.setattr("maskdpo.backends.choices.WORTH_SHARING", 8)
    shared = "The river Thames flows through London, and"
    prompts = [shared + ending for ending in (" it is.", " the river Seine through Paris.", " no.", "")]
    seen: list[int] = []
    hook = model.register_forward_pre_hook(lambda _m, _a, kw: seen.append(kw["input_ids"].numel()), with_kwargs=True)
    tiny._loaded = (model, tokenizer)
    choices = CHOICES[1]
    found = run(tiny, [Request(i, text, choices) for i, text in enumerate(prompts)], temperature=0.0)
    hook.remove()
    apart = sum(len(tokenizer(text)["input_ids"]) for text in prompts)
    assert sum(seen) < 0.75 * 2 * apart  # these choices part at two places, so each prompt would be read twice
    for i, text in enumerate(prompts):
        expected = brute_force(parts, text, choices)
        (only,) = found[i].completions[0].picks
        assert only.choice == choices[int(np.argmax(expected))]
        assert only.probability == pytest.approx(max(expected), abs=1e-5)


def test_several_slots_are_one_object_each_pick_given_the_ones_before(tiny: TransformersBackend, parts: Any) -> None:
    choices = ("yes", "no", "nothing")
    request = Request(0, PROMPTS[0], choices, ("1", "2", "3"), reply="object")
    (completion,) = run(tiny, [request], temperature=0.0)[0].completions
    said = json.loads(completion.text)
    assert list(said) == ["1", "2", "3"]
    assert [pick.choice for pick in completion.picks] == list(said.values())
    _, tokenizer = parts
    ids = tokenizer(PROMPTS[0])["input_ids"]
    for i, chosen in enumerate(completion.picks):
        ids = ids + tokenizer(f'{", " if i else "{"}"{i + 1}": "', add_special_tokens=False)["input_ids"]
        shares = _closed_by_quote(parts, ids, choices)
        assert chosen.choice == choices[int(np.argmax(shares))]
        assert chosen.probability == pytest.approx(max(shares), abs=1e-5)
        ids = ids + tokenizer(chosen.choice, add_special_tokens=False)["input_ids"]
        ids = ids + tokenizer('"', add_special_tokens=False)["input_ids"]


def test_an_object_of_one_slot_is_an_object_and_not_the_bare_word(tiny: TransformersBackend, parts: Any) -> None:
    choices = ("yes", "no", "nothing")
    (completion,) = run(tiny, [Request(0, PROMPTS[0], choices, ("1",), reply="object")], temperature=0.0)[0].completions
    _, tokenizer = parts
    ids = tokenizer(PROMPTS[0])["input_ids"] + tokenizer('{"1": "', add_special_tokens=False)["input_ids"]
    shares = _closed_by_quote(parts, ids, choices)
    expected = choices[int(np.argmax(shares))]
    assert completion.text == json.dumps({"1": expected})
    assert [pick.choice for pick in completion.picks] == [expected]
    assert completion.picks[0].probability == pytest.approx(max(shares), abs=1e-5)


def test_an_object_needs_room_for_all_its_slots(tiny: TransformersBackend) -> None:
    slots = tuple(str(i) for i in range(8))
    request = Request(0, PROMPTS[0], ("yes", "no"), slots, reply="object")
    reply = run(tiny, [request], temperature=0.0)[0]
    assert reply.failure is None
    used = reply.prompt_tokens + reply.completion_tokens
    assert used <= 128
    too_long = run(tiny, [replace(request, prompt="no " * (128 - used + 8))], temperature=0.0)[0]
    assert too_long.prompt_tokens < 128
    assert too_long.failure is not None
    assert too_long.failure.status is Status.TRUNCATED


def _closed_by_quote(parts: Any, ids: list[int], choices: Sequence[str]) -> list[float]:
    model, tokenizer = parts
    (quote,) = tokenizer('"', add_special_tokens=False)["input_ids"]

    class Quoted(_NoTemplate):
        def __init__(self) -> None:
            super().__init__(tokenizer, ids)
            self.eos_token_id = quote

    return brute_force((model, Quoted()), "", choices)


def test_votes_are_drawn_by_the_probabilities(tiny: TransformersBackend, parts: Any) -> None:
    choices = CHOICES[0]
    expected = brute_force(parts, PROMPTS[0], choices)
    found = run(tiny, [Request(0, PROMPTS[0], choices)], temperature=1.0, n=400)[0]
    drawn = Counter(completion.text for completion in found.completions)
    assert drawn.total() == 400
    share = drawn[choices[0]] / 400
    assert share == pytest.approx(expected[0], abs=4 * (expected[0] * expected[1] / 400) ** 0.5 + 1e-3)
    again = run(tiny, [Request(0, PROMPTS[0], choices)], temperature=1.0, n=400)[0]
    assert [c.text for c in again.completions] == [c.text for c in found.completions]


def test_questions_with_and_without_choices_may_be_mixed(tiny: TransformersBackend) -> None:
    found = run(tiny, [RAW[0], Request("c", "x", ("yes", "no")), RAW[1]], temperature=0.0)
    assert found["c"].completions[0].text in ("yes", "no")
    assert texts(found)[0] == texts(run(tiny, RAW[:1], temperature=0.0))[0]


def test_more_requests_than_a_window_are_all_answered(tiny_model: str) -> None:
    requests = [Request(i, PROMPTS[i % len(PROMPTS)]) for i in range(23)]
    found = texts(run(backend(tiny_model, batch_size=2), requests, temperature=0.0, max_tokens=4))
    assert all(found[i] == found[i % len(PROMPTS)] for i in range(23))


@pytest.mark.parametrize("name", ["no/such/model", "./nowhere", "no-such-org/no-such-model"])
def test_an_unknown_model_is_one_clear_line(name: str) -> None:
    with pytest.raises(UserError) as error:
        run(TransformersBackend(name), RAW[:1])
    assert name in str(error.value)
    assert "\n" not in str(error.value)


# --- the real small model --------------------------------------------------------------------------


def test_smollm2_answers_as_generate_does_and_knows_a_capital() -> None:
    pytest.importorskip("gguf")
    from maskdpo.models import resolve_model

    made = TransformersBackend("smollm2", BackendSettings(dtype="float32", device="cpu"))
    ask = [Message(role="user", content="What is the capital of France?")]
    requests = [Request("free", ask), Request("choice", ask, ("Paris", "Berlin", "Paris, Texas"))]
    found = run(made, requests, temperature=0.0, max_tokens=16)
    assert "Paris" in found["free"].completions[0].text
    folder = resolve_model("smollm2")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": ask[0].content}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    expected = generated((model, tokenizer), ids, 16)
    assert found["free"].completions[0].text == tokenizer.decode(expected, skip_special_tokens=True)
    shares = brute_force((model, _NoTemplate(tokenizer, ids)), "", ("Paris", "Berlin", "Paris, Texas"))
    assert found["choice"].completions[0].picks[0].probability == pytest.approx(max(shares), abs=1e-4)


class _NoTemplate:
    """Gives the ids of the rendered conversation for the empty prompt."""

    def __init__(self, tokenizer: Any, ids: list[int]) -> None:
        self._tokenizer, self._ids, self.eos_token_id = tokenizer, ids, tokenizer.eos_token_id

    def __call__(self, text: str, **options: Any) -> Any:
        return self._tokenizer(text, **options) if text else {"input_ids": self._ids}

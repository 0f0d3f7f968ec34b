"""Decoding and choices of many architectures against the model's own answer to the one prompt, without padding."""

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from tiny_models import CONFIGS, model_of
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel

from maskdpo.backends import rows as rows_module
from maskdpo.backends.choices import PartialReply, Slot, fill_slots
from maskdpo.backends.decode import Row, decode, end_ids
from maskdpo.backends.rows import ignores_padding, readable_together
from maskdpo.backends.settings import BackendSettings
from maskdpo.backends.transformers_backend import TransformersBackend

pytestmark = pytest.mark.slow

PROMPTS = [np.random.default_rng(i).integers(3, 60, length).tolist() for i, length in enumerate((5, 11, 11, 2))]
"""With 8 new tokens, some of them pass the window and the rotary switch of the models that have one."""
NAMES = list(CONFIGS)


def answers(
    model: PreTrainedModel, prompts: Sequence[list[int]], seeds: Sequence[list[int]], temperature: float
) -> list[list[int]]:
    """As many answers to each prompt as it has seeds; tokens below 8 end an answer."""
    rows = [Row(i, np.random.default_rng(seed), []) for i, mine in enumerate(seeds) for seed in mine]
    decode(
        model, prompts, rows,
        max_tokens=8, temperature=temperature, top_p=1, is_finished=lambda row: temperature > 0 and row.ids[-1] < 8,
    )  # fmt: skip
    return [row.ids for row in rows]


@torch.inference_mode()
def generated(model: PreTrainedModel, prompt: list[int]) -> list[int]:
    ids = torch.tensor([prompt])
    model(ids[:, :1])  # dynamic NTK goes on from the prompt before
    found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    return found[0, len(prompt) :].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_greedy_answers_equal_those_of_generate_one_prompt_at_a_time(name: str) -> None:
    model = model_of(name)
    found = answers(model, PROMPTS, [[0]] * len(PROMPTS), 0)
    assert found == [generated(model, prompt) for prompt in PROMPTS]
    assert len({tuple(answer) for answer in found}) > 1


@pytest.mark.parametrize("name", NAMES)
def test_four_samples_of_each_prompt_equal_each_sample_drawn_alone(name: str) -> None:
    model = model_of(name)
    seeds = [[10 * i + k for k in range(4)] for i in range(len(PROMPTS))]
    found = answers(model, PROMPTS, seeds, 1)
    assert found == [
        answers(model, [prompt], [[seed]], 1)[0] for prompt, mine in zip(PROMPTS, seeds, strict=True) for seed in mine
    ]
    assert len({len(answer) for answer in found}) > 1  # rows left the batch on the way


CHOICES = ((10, 11), (10, 12), (20, 2))
SLOTS = [Slot((7, 8), CHOICES), Slot((9,), CHOICES)]
ALIKE = [[*np.random.default_rng(9).integers(3, 60, 70).tolist(), *ending] for ending in ([5], [6, 7, 8], [9], [2] * 6)]


@torch.inference_mode()
def shares(model: PreTrainedModel, ids: list[int]) -> list[float]:
    """The probability of each choice behind the ids, by the model's forward pass without a cache."""

    def next_share(ids: list[int], token: int, other: int) -> float:
        model(torch.tensor([ids[:1]]), use_cache=False)  # dynamic NTK goes on from the text before
        logits_V = model(torch.tensor([ids]), use_cache=False).logits[0, -1].double()
        return float(logits_V[[token, other]].softmax(0)[0])

    first, second = next_share(ids, 10, 20), next_share([*ids, 10], 11, 12)
    return [first * second, first * (1 - second), 1 - first]


@pytest.mark.parametrize("name", NAMES)
def test_choices_have_the_probabilities_of_a_forward_pass_without_a_cache(name: str) -> None:
    model, prompts = model_of(name), PROMPTS + ALIKE
    several = [1, 3, len(PROMPTS)]  # the others of ALIKE share a beginning, and their ends differ in length
    paths = [PartialReply(i, SLOTS if i in several else SLOTS[:1]) for i in range(len(prompts))]
    fill_slots(model, prompts, paths, 8)
    for path in paths:
        ids = list(prompts[path.prompt])
        for slot, (pick, probabilities) in zip(path.slots, path.picks, strict=True):
            expected = shares(model, ids := [*ids, *slot.lead])
            assert probabilities == pytest.approx(expected, abs=1e-5)
            assert expected[pick] == pytest.approx(max(expected), abs=1e-5)
            ids = [*ids, *slot.choices[pick]]


APART = {"bloom", "mamba", "mamba2", "recurrent_gemma", "rwkv", "minimax", "bart"}
"""They are told no positions, or keep what padding leaves in their states."""


@pytest.mark.parametrize("name", NAMES)
def test_prompts_of_different_lengths_go_together_where_padding_leaves_no_trace(name: str) -> None:
    assert ignores_padding(model_of(name)) == (name not in APART)


def test_padding_that_a_recurrent_layer_remembers_is_noticed() -> None:
    """A bias before the convolution makes states of what the mask had set to zero."""
    model = model_of("jamba")
    mixer = model.model.layers[0].mamba
    mixer.in_proj.bias = torch.nn.Parameter(torch.full((mixer.in_proj.out_features,), 0.1))
    try:
        assert not ignores_padding(model)
        assert list(readable_together(model, [[1, 2], [3], [4, 5]], 4)) == [[0, 2], [1]]
    finally:
        mixer.in_proj.bias = None
    assert list(readable_together(model, [[1, 2], [3], [4, 5]], 4)) == [[0, 1, 2]]


def test_beyond_a_rotary_switch_only_equal_lengths_go_together() -> None:
    for name in ("phi3_long", "llama_dynamic"):
        assert list(readable_together(model_of(name), [[1] * 3, [1] * 4], 11)) == [[0, 1]]
        assert list(readable_together(model_of(name), [[1] * 3, [1] * 4], 12)) == [[0], [1]]


def test_a_prompt_is_read_once_for_all_its_samples_and_a_token_after_that(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    own = rows_module.forward

    def spy(model: PreTrainedModel, ids_RT: torch.Tensor, **options: object) -> object:
        shapes.append(tuple(ids_RT.shape))
        return own(model, ids_RT, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(rows_module, "forward", spy)
    for name in ("llama", "qwen3_next", "falcon_h1", "mamba"):
        shapes.clear()
        decode(
            model_of(name), PROMPTS[:1], [Row(0, np.random.default_rng(k), []) for k in range(4)],
            max_tokens=3, temperature=1, top_p=1, is_finished=lambda row: False,
        )  # fmt: skip
        assert shapes == [(1, 5), (4, 1), (4, 1)]


def test_the_limit_of_a_composite_is_that_of_its_text_part(tiny_model: str) -> None:
    made = TransformersBackend(tiny_model, BackendSettings(device="cpu"))
    made._loaded = (model_of("gemma3"), AutoTokenizer.from_pretrained(tiny_model))
    assert not hasattr(model_of("gemma3").config, "max_position_embeddings")
    assert made.context().limit == 128


@pytest.mark.parametrize(
    ("configured", "own", "expected"),
    [(None, 2, {2}), (5, None, {5}), ([5, 6], 2, {2, 5, 6}), ((0, 6), 6, {0, 6}), (None, None, set())],
)
def test_the_ends_are_those_of_the_tokenizer_and_of_the_generation_config(
    configured: object, own: int | None, expected: set[int], tiny_model: str
) -> None:
    model, tokenizer = copy.copy(model_of("llama")), AutoTokenizer.from_pretrained(tiny_model)
    model.generation_config = GenerationConfig(eos_token_id=configured)
    tokenizer.eos_token = None if own is None else tokenizer.convert_ids_to_tokens(own)
    assert end_ids(model, tokenizer) == expected
    model.generation_config = None
    assert end_ids(model, tokenizer) == ({own} if own is not None else set())

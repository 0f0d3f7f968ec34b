"""What is tried before the first step: no model trains with log-probs that are not those of its own forward pass."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_logps import FULL, SLIDING, plain_logps, some_pairs
from torch import Tensor, nn
from train_helpers import random_model
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from maskdpo.errors import UserError
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.batch import Layout, collate
from maskdpo.train.data.encoded_pair import EncodedPair, EncodedSide
from maskdpo.train.model import logps, probe
from maskdpo.train.model.load import load_policy
from maskdpo.train.model.logps import token_logps
from maskdpo.train.model.probe import LONGEST_PASSES, ROUNDED, check_nothing_is_random, choose_layout
from maskdpo.train.ranks import Ranks


def pair_of(name: str, prompt: int, chosen: int, rejected: int, seed: int = 0) -> EncodedPair:
    """Random tokens, so many of each, all with weight."""
    rng = np.random.default_rng(seed)
    sides = [EncodedSide(rng.integers(3, 200, n), np.ones(n, dtype=np.float32)) for n in (chosen, rejected)]
    return EncodedPair(name, rng.integers(3, 200, prompt), *sides)


def gemma3_with_images() -> PreTrainedModel:
    """As the Gemma 3 models of 4B and more: the settings of the layers are those of a part."""
    text = random_model("gemma3_text", sliding_window=6, layer_types=["sliding_attention", "full_attention"])
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14}
    config = Gemma3Config(text_config=text.config.to_dict(), vision_config=vision, mm_tokens_per_image=4)
    model = Gemma3ForConditionalGeneration(config).eval()
    model.model.language_model.load_state_dict(text.model.state_dict())
    return model


@pytest.mark.parametrize(("kind", "layout"), [*((k, "shared") for k in FULL), *((k, "padded") for k in SLIDING)])
def test_sliding_windows_get_the_padded_layout(kind: str, layout: Layout) -> None:
    assert choose_layout(random_model(kind), some_pairs()) == layout


@pytest.mark.parametrize("kind", SLIDING)
def test_short_pairs_do_not_hide_a_sliding_window(kind: str) -> None:
    """Within the window both layouts give the same, so the comparison alone would not see it."""
    assert choose_layout(random_model(kind), [pair_of("short", 1, 1, 1)]) == "padded"


def test_the_windows_of_a_text_part_count() -> None:
    model = gemma3_with_images()
    pairs = [pair_of("short", 1, 2, 2), *some_pairs(), pair_of("long", 9, 20, 3)]
    assert choose_layout(model, pairs) == "padded"
    with torch.no_grad():
        found = token_logps(model, collate(pairs, "padded"))
    torch.testing.assert_close(found.double(), plain_logps(model, pairs), atol=1e-5, rtol=0)


def test_a_sliding_window_would_not_be_exact_in_the_shared_layout() -> None:
    """Why ``choose_layout`` asks at all: with this the shared layout gives other numbers."""
    model, pairs = random_model("mistral"), some_pairs(8, seed=1)
    with torch.no_grad():
        difference = token_logps(model, collate(pairs, "shared")) - plain_logps(model, pairs)
    assert difference.abs().max() > 1e-3


@pytest.mark.parametrize("first", ["short", "long"])
def test_a_layout_does_not_win_by_the_first_pair(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The window is hidden from the rules here, so that only the comparison is left: it tries the longest pair."""
    monkeypatch.setattr("maskdpo.train.model.probe.may_share_prompts", lambda model: True)
    monkeypatch.setattr("maskdpo.train.model.probe.window_of", lambda config: None)
    pairs = sorted([pair_of("short", 1, 1, 1), pair_of("long", 5, 9, 9)], key=lambda pair: pair.id != first)
    assert choose_layout(random_model("mistral"), pairs) == "padded"


def test_logits_that_maskdpo_does_not_know_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logps, "_post_process", lambda logits, config: logits)
    with pytest.raises(UserError, match="own forward pass"):
        choose_layout(random_model("cohere"), some_pairs())


def test_log_probs_that_depend_on_what_stands_beside_a_pair_are_refused() -> None:
    """A decoder that adds something of the whole batch to every token; each answer alone is right."""
    model = random_model("mistral")

    def mix(module: nn.Module, args: Any, hidden_RLD: Tensor) -> Tensor:
        return hidden_RLD + 0.1 * (hidden_RLD.shape[1] > 14)

    model.model.embed_tokens.register_forward_hook(mix)
    alone = [pair_of("a", 3, 4, 4), pair_of("b", 8, 9, 9)]
    assert choose_layout(model, alone[:1]) == choose_layout(model, alone[1:]) == "padded"
    with pytest.raises(UserError, match="own forward pass"):
        choose_layout(model, alone)


def test_another_attention_than_eager_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def half_as_sharp(*args: Any, **options: Any) -> Any:
        return sdpa_attention_forward(*args, **options | {"scaling": options["scaling"] / 2})

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._local_mapping, "sdpa", half_as_sharp)
    with pytest.raises(UserError, match="eager attention, by which transformers defines"):
        choose_layout(random_model(), some_pairs())


def test_a_model_that_sees_what_follows_is_refused() -> None:
    with pytest.raises(UserError, match="not a causal language model"):
        choose_layout(random_model("bert"), some_pairs())


def test_a_model_that_draws_random_numbers_is_refused_and_the_part_named() -> None:
    model, pairs = random_model(), some_pairs()
    check_nothing_is_random(model, pairs, "shared")
    before = torch.get_rng_state()
    model.model.layers[1].mlp.register_forward_hook(lambda module, args, out: out + 1e-3 * torch.randn_like(out))
    with pytest.raises(UserError, match=r"from one seed to another \(model\.layers\.1\.mlp, LlamaMLP\)"):
        check_nothing_is_random(model, pairs, "shared")
    assert torch.equal(torch.get_rng_state(), before), "looking would change a seeded run"
    assert not any(module._forward_hooks for name, module in model.named_modules() if name != "model.layers.1.mlp")


def test_the_forecast_knows_how_often_the_longest_pair_is_computed(tmp_path: Path) -> None:
    random_model().save_pretrained(tmp_path)
    pairs, rows = [pair_of("short", 1, 1, 1), pair_of("long", 8, 30, 25)], []
    hook = nn.modules.module.register_module_forward_pre_hook(
        lambda module, args: rows.append(args[0].shape[:2]) if isinstance(module, nn.Embedding) else None
    )
    try:
        load_policy(TrainConfig(model=str(tmp_path), dtype="float32"), pairs, "cpu")
    finally:
        hook.remove()
    computed = sum(count * length for count, length in rows if length > 10)
    assert 0.9 * LONGEST_PASSES * pairs[1].tokens < computed <= 1.1 * LONGEST_PASSES * pairs[1].tokens


def test_rank_0_tries_on_all_cores_and_then_has_its_own_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "cores", lambda: 3)
    own = torch.get_num_threads()
    for rank, size, threads in ((0, 2, 3), (1, 2, own), (0, 1, own)):
        with probe.on_all_cores(Ranks(rank, size)):
            assert torch.get_num_threads() == max(own, threads)
        assert torch.get_num_threads() == own


def add_noise(model: PreTrainedModel, size: float, behind: int = 0) -> None:
    """Random numbers are added where a row has more than so many tokens."""

    def noise(module: nn.Module, args: Any, out_RLD: Tensor) -> Tensor:
        return out_RLD + size * torch.randn_like(out_RLD) if out_RLD.shape[1] > behind else out_RLD

    model.model.layers[1].mlp.register_forward_hook(noise)


def test_a_model_that_is_random_for_long_pairs_only_is_refused() -> None:
    model, pairs = random_model(), [pair_of("short", 3, 3, 3), pair_of("long", 10, 10, 10)]
    add_noise(model, 1e-3, behind=15)
    check_nothing_is_random(model, pairs[:1], "padded")
    with pytest.raises(UserError, match="from one seed to another"):
        check_nothing_is_random(model, pairs, "padded")


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 1e-7), (torch.bfloat16, 1e-3)])
def test_sums_in_another_order_are_not_taken_for_random_numbers(dtype: torch.dtype, size: float) -> None:
    """Two passes under one seed may be equal by luck; here noise of the size of rounding plays the device."""
    model = random_model().to(dtype)
    add_noise(model, size)
    batch = collate(some_pairs(), "shared")
    with torch.no_grad():
        assert not torch.equal(token_logps(model, batch), token_logps(model, batch))
    check_nothing_is_random(model, some_pairs(), "shared")
    add_noise(model, 0.3)
    with pytest.raises(UserError, match="from one seed to another"):
        check_nothing_is_random(model, some_pairs(), "shared")


DELTA_NET = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
}


def test_rounding_does_not_hide_a_wrong_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recurrent layer carries the chosen answer over into the rejected one; in bfloat16 the mean is small."""
    monkeypatch.setattr("maskdpo.train.model.probe.may_share_prompts", lambda model: True)
    model = random_model("qwen3_next", initializer_range=0.05, **DELTA_NET).bfloat16()
    weights = {name: (tensor, tensor.data_ptr()) for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        shared, padded = (token_logps(model, collate(some_pairs(), layout)) for layout in ("shared", "padded"))
    assert (shared - padded).abs().mean() < ROUNDED[torch.bfloat16]
    assert choose_layout(model, some_pairs()) == "padded"
    after = {name: (tensor, tensor.data_ptr()) for name, tensor in model.state_dict().items()}
    assert all(after[name][1] == pointer and after[name][0].dtype == t.dtype for name, (t, pointer) in weights.items())
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("kind", [*FULL, *SLIDING, "gemma2", "mamba", "falcon", "gpt2"])
def test_16_bit_weights_refuse_no_right_layout(kind: str) -> None:
    wide, narrow = (random_model(kind) for _ in range(2))
    assert choose_layout(narrow.bfloat16(), some_pairs()) == choose_layout(wide, some_pairs())

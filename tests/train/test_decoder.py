"""What is read off a model: its layers, its windows, how long its input may be."""

from typing import Any

import pytest
import torch
from test_logps import some_pairs
from test_probe import gemma3_with_images, pair_of
from torch import nn
from train_helpers import random_model
from transformers import AutoConfig, PreTrainedModel

from maskdpo.errors import UserError
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.batch import collate
from maskdpo.train.model.adapter import adapter_layers, add_adapter
from maskdpo.train.model.decoder import (
    beside_the_decoder,
    check_lengths,
    checkpoint_layers,
    decoder_layers,
    freeze_the_rest,
    text_config,
    window_of,
)
from maskdpo.train.model.flops import model_shape
from maskdpo.train.model.logps import token_logps
from maskdpo.train.model.memory import sizes_of

KINDS = ["llama", "gpt2", "bloom", "mpt", "falcon", "opt", "gemma2", "gpt_oss", "mixtral", "mamba"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_layers_are_found_whatever_their_name(kind: str) -> None:
    layers = decoder_layers(random_model(kind), "`compile`")
    assert len(layers) == 2
    assert len({type(layer) for layer in layers}) == 1
    assert type(layers[0]).__name__.endswith(("Layer", "Block"))


def test_experts_are_no_layers() -> None:
    model = random_model("jamba", num_experts=4, use_mamba_kernels=False, attn_layer_period=2, attn_layer_offset=1)
    assert [type(layer).__name__ for layer in decoder_layers(model, "`nproc`")] == [
        "JambaMambaDecoderLayer",
        "JambaAttentionDecoderLayer",
    ]


def test_a_decoder_without_a_list_of_layers_is_refused_by_the_option_that_needs_it() -> None:
    model = random_model()
    model.model.layers = nn.Sequential(*model.model.layers)
    with pytest.raises(UserError, match="`compile`: the layers of llama cannot be told apart"):
        decoder_layers(model, "`compile`")


@pytest.mark.parametrize("kind", [*KINDS, "gemma3n_text"])
def test_checkpoints_change_no_gradient(kind: str) -> None:
    gradients, calls = [], []
    for again in (False, True):
        model = random_model(kind, **GEMMA3N if kind == "gemma3n_text" else {})
        first = decoder_layers(model, "")[0]
        next(first.children()).register_forward_hook(lambda *_: calls.append(1))
        if again:
            checkpoint_layers(model)
        token_logps(model, collate(some_pairs(), "padded")).sum().backward()  # type: ignore[no-untyped-call]
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert len(calls) == 3, "once, then twice: the layer was not computed again"
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6 * float(gradients[0].abs().max()))


GEMMA3N = {
    "layer_types": ["sliding_attention", "full_attention"],
    "num_kv_shared_layers": 0,
    "laurel_rank": 4,
    "altup_num_inputs": 2,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": 200,
    "activation_sparsity_pattern": [0.0, 0.0],
    "intermediate_size": [48, 48],
    "sliding_window": 8,
}


def test_only_the_text_part_is_trained_adapted_and_counted() -> None:
    model = gemma3_with_images()
    text = sum(p.numel() for p in model.model.language_model.parameters())
    assert beside_the_decoder(model) == ["model.vision_tower", "model.multi_modal_projector"]
    assert model_shape(model).body == text - model.get_input_embeddings().weight.numel()
    freeze_the_rest(model)
    assert sizes_of(model).trained == text
    assert sizes_of(model).parameters > text
    add_adapter(model, TrainConfig(model="m", lora_r=2))
    adapted = {name for name, module in model.named_modules() if module in adapter_layers(model)}
    assert len(adapted) == 2 * 7
    assert all(name.startswith("model.language_model.layers.") for name in adapted)


def test_a_model_without_other_parts_is_trained_whole() -> None:
    model = random_model()
    assert beside_the_decoder(model) == []
    freeze_the_rest(model)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("kind", "settings", "window"),
    [
        ("llama", {}, None),
        ("qwen2", {"sliding_window": 4096}, None),  # named, but switched off
        ("mistral", {"sliding_window": 6}, 6),
        ("llama4_text", {"attention_chunk_size": 8}, 8),
        ("gpt_neo", {"window_size": 5, "attention_types": [[["global", "local"], 1]], "num_layers": 2}, 5),
    ],
)
def test_windows_by_their_names(kind: str, settings: dict[str, Any], window: int | None) -> None:
    assert window_of(AutoConfig.for_model(kind, **settings)) == window


def config_of(kind: str, **settings: Any) -> Any:
    return AutoConfig.for_model(kind, **{"max_position_embeddings": 64} | settings)


def rope(kind: str, **settings: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **settings}}


LONGROPE = rope("longrope", short_factor=[1.0] * 4, long_factor=[2.0] * 4, original_max_position_embeddings=32)


@pytest.mark.parametrize(
    ("config", "limit", "why"),
    [
        (config_of("gpt2"), 64, "the model has positions for no more"),
        (config_of("llama"), 64, "the model has positions for no more"),
        (config_of("opt"), 64, "the model has positions for no more"),
        (AutoConfig.for_model("mpt", max_seq_len=64), 64, "the model has positions for no more"),
        (config_of("llama", **rope("dynamic", factor=2.0)), 64, r"rotary embedding \(dynamic\) changes"),
        (config_of("llama", head_dim=8, **LONGROPE), 32, r"rotary embedding \(longrope\) changes"),
    ],
)
def test_pairs_that_are_too_long_for_the_model_are_named(config: Any, limit: int, why: str) -> None:
    fits = pair_of("fits", 10, limit - 10, 3)
    check_lengths(config, [fits], "m")
    beyond = [pair_of(f"p{i}", 10, 3, limit - 9 + i) for i in range(5)]
    expected = rf"m: prompt and answer of 5 of 6 pairs \(p0, p1, p2 and others\) have more than {limit} tokens, up to "
    with pytest.raises(UserError, match=rf"{expected}{limit + 5}; .*{why}.*`max_length` {limit}"):
        check_lengths(config, [fits, *beyond], "m")


@pytest.mark.parametrize(
    "config",
    [
        config_of("llama", **rope("yarn", factor=4.0, original_max_position_embeddings=64)),
        config_of("llama", **rope("linear", factor=4.0)),
        AutoConfig.for_model("bloom"),
        AutoConfig.for_model("mamba"),
    ],
)
def test_models_that_go_on_behind_their_first_positions_have_no_limit(config: Any) -> None:
    check_lengths(config, [pair_of("long", 50, 900, 900)], "m")


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_why_rotary_embeddings_of_that_kind_have_a_limit(kind: str) -> None:
    """Beyond it the log-probs of a short pair change with the pair beside it."""
    settings = rope("dynamic", factor=4.0) if kind == "dynamic" else LONGROPE
    model: PreTrainedModel = random_model("llama", **{"max_position_embeddings": 32} | settings)
    short, long = pair_of("short", 4, 8, 8), pair_of("long", 4, 60, 60)
    with torch.no_grad():
        alone, beside = (token_logps(model, collate(pairs, "padded"))[:16] for pairs in ([short], [short, long]))
    assert (alone - beside).abs().max() > 1e-3
    with pytest.raises(UserError, match="changes for the whole pass"):
        check_lengths(text_config(model), [short, long], "m")

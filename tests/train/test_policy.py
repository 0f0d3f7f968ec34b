"""A model folder of whatever architecture: loaded as it is meant, trained without anything random, or refused."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_logps import plain_logps, some_pairs
from test_probe import gemma3_with_images
from torch import Tensor
from train_helpers import random_model, tiny_config
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    T5Config,
    T5ForConditionalGeneration,
)

from maskdpo.errors import UserError
from maskdpo.models import load_model
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.encoded_pair import EncodedPair
from maskdpo.train.model import load, probe
from maskdpo.train.model.load import load_policy
from maskdpo.train.step import Trainer

pytestmark = pytest.mark.slow

RANDOM_IN_TRAINING: dict[str, dict[str, Any]] = {
    "opt": {"dropout": 0.3, "attention_dropout": 0.3, "layerdrop": 0.3},
    "starcoder2": {"residual_dropout": 0.3, "embedding_dropout": 0.3, "attention_dropout": 0.3},
    "mixtral": {"router_jitter_noise": 0.3},
    "falcon": {"hidden_dropout": 0.3, "attention_dropout": 0.3},
    "gpt2": {"resid_pdrop": 0.3, "embd_pdrop": 0.3, "attn_pdrop": 0.3},
    "biogpt": {"activation_dropout": 0.3, "hidden_dropout_prob": 0.3, "layerdrop": 0.3},
}


def config_for(folder: Path, **settings: Any) -> TrainConfig:
    return TrainConfig.model_validate({"model": str(folder), "dtype": "float32"} | settings)


def exact_logps(folder: Path, pairs: Sequence[EncodedPair]) -> Tensor:
    """By transformers' own forward pass in float64, with nothing but plain sums."""
    options: dict[str, Any] = {"dtype": torch.float64, "attn_implementation": "eager"}
    if getattr(AutoConfig.from_pretrained(folder), "num_local_experts", None):
        options["experts_implementation"] = "eager"
    return plain_logps(AutoModelForCausalLM.from_pretrained(folder, **options).eval(), pairs)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("kind", RANDOM_IN_TRAINING)
def test_nothing_is_random_in_training(kind: str, again: bool, tmp_path: Path) -> None:
    random_model(kind, **RANDOM_IN_TRAINING[kind]).save_pretrained(tmp_path)
    config, pairs = config_for(tmp_path, gradient_checkpointing=again, loss="simpo", beta=2.0), some_pairs()
    policy = load_policy(config, pairs, "cpu")
    trainer = Trainer(policy.model, config, policy.layout)
    found = trainer.logps(trainer.collate(pairs))
    assert found.requires_grad
    torch.testing.assert_close(found.double(), exact_logps(tmp_path, pairs), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["gemma2", "gpt_oss", "bloom", "mpt", "gpt_neo", "falcon"])
def test_models_with_an_attention_of_their_own_have_exact_log_probs(kind: str, tmp_path: Path) -> None:
    settings = {"falcon": {"alibi": True}, "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2}}
    random_model(kind, **settings.get(kind, {})).save_pretrained(tmp_path)
    config, pairs = config_for(tmp_path), some_pairs()
    policy = load_policy(config, pairs, "cpu")
    assert policy.layout == "padded"
    trainer = Trainer(policy.model, config, policy.layout)
    found = trainer.logps(trainer.collate(pairs)).double()
    torch.testing.assert_close(found, exact_logps(tmp_path, pairs), atol=1e-4, rtol=0)


def test_of_a_model_with_images_the_text_part_trains(tmp_path: Path) -> None:
    gemma3_with_images().save_pretrained(tmp_path)
    before = load_file(tmp_path / "model.safetensors")
    config, pairs = config_for(tmp_path, lr=0.1, loss="simpo", beta=2.0), some_pairs()
    policy = load_policy(config, pairs, "cpu")
    trainer = Trainer(policy.model, config, policy.layout)
    trainer.step(pairs, 0.1)
    policy.model.save_pretrained(tmp_path / "after")
    after = load_file(tmp_path / "after" / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert changed == {name for name in before if "vision" not in name and "multi_modal" not in name}


def vision(**settings: Any) -> dict[str, Any]:
    return {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2} | settings


def text(kind: str, **settings: Any) -> dict[str, Any]:
    return tiny_config(kind, **settings).to_dict()


ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
WITH_IMAGES: dict[str, Callable[[], dict[str, Any]]] = {
    "mistral3": lambda: {"text_config": text("mistral"), "vision_config": vision(model_type="pixtral", image_size=28)},
    "qwen3_vl": lambda: {
        "text_config": text("qwen3_vl_text", rope_parameters=ROPE),
        "vision_config": vision(depth=1, out_hidden_size=32, num_heads=2, deepstack_visual_indexes=[0]),
    },
    "llama4": lambda: {
        "text_config": text("llama4_text", attention_chunk_size=8, num_local_experts=2, intermediate_size_mlp=48),
        "vision_config": vision(image_size=28, patch_size=14),
    },
}


@pytest.mark.parametrize("kind", WITH_IMAGES)
def test_log_probs_of_a_text_part_are_exact(kind: str, tmp_path: Path) -> None:
    config = AutoConfig.for_model(kind, **WITH_IMAGES[kind]())
    AutoModelForImageTextToText.from_config(config, dtype=torch.float32).save_pretrained(tmp_path)
    pairs = some_pairs()
    policy = load_policy(config_for(tmp_path, lora_r=2), pairs, "cpu")
    trainer = Trainer(policy.model, config_for(tmp_path, lora_r=2), policy.layout)
    assert policy.layout == ("shared" if kind == "qwen3_vl" else "padded")
    assert not [name for name, p in policy.model.named_parameters() if p.requires_grad and "vision" in name]
    plain = load_model(str(tmp_path), dtype=torch.float32, device="cpu").eval()
    plain.set_attn_implementation("eager")
    found = trainer.logps(trainer.collate(pairs)).double()
    torch.testing.assert_close(found, plain_logps(plain, pairs), atol=1e-5, rtol=0)


@pytest.mark.parametrize("settings", [{"weights": "bfloat16"}, {"lora_r": 2}])
def test_weights_of_16_bits_are_tried_in_float32_on_a_cpu(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processors without the instructions of bfloat16 would need hours for the passes of a large model."""
    seen = []

    def note(model: Any, *args: Any) -> None:
        seen.append(model.get_input_embeddings().weight.dtype)
        probe.check_nothing_is_random(model, *args)

    monkeypatch.setattr(load, "check_nothing_is_random", note)
    random_model().save_pretrained(tmp_path)
    policy = load_policy(config_for(tmp_path, dtype="bfloat16", **settings), some_pairs(), "cpu")
    assert seen == [torch.float32]
    assert policy.model.get_input_embeddings().weight.dtype == torch.bfloat16


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    T5ForConditionalGeneration(T5Config(d_model=16, d_kv=4, d_ff=16, num_layers=1, vocab_size=50)).save_pretrained(
        tmp_path
    )
    with pytest.raises(UserError, match="t5 is an encoder-decoder"):
        load_model(str(tmp_path), dtype=torch.float32, device="cpu")


def test_a_folder_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    """transformers would put random numbers in their place."""
    random_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lack 1 weights that LlamaForCausalLM has: model\.layers\.1\.mlp\.up_proj"):
        load_model(str(tmp_path), dtype=torch.float32, device="cpu")


def test_what_is_no_decoder_is_refused(tmp_path: Path) -> None:
    random_model("bert").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="not a causal language model"):
        load_policy(config_for(tmp_path), some_pairs(), "cpu")


def test_a_model_that_is_eager_only_is_not_said_to_be_of_another_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random_model("falcon").save_pretrained(tmp_path)
    assert load_policy(TrainConfig(model=str(tmp_path)), some_pairs(), "cpu").layout == "padded"
    said = " ".join(capsys.readouterr().err.split())
    assert "falcon: both answers of a pair cannot share one row of this model, so each repeats the prompt" in said

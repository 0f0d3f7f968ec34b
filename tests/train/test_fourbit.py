"""Frozen weights in 4 bits: what runs on a CPU is all of it, more slowly."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_lora import lora_config, tensors_equal
from test_run import cache_folder, config_for, metrics_of, pairs_file
from train_helpers import killed_in_step
from transformers import LlamaConfig, LlamaForCausalLM

from maskdpo.errors import UserError
from maskdpo.models import load_model, load_tokenizer
from maskdpo.train.model.fourbit import quantised_layers
from maskdpo.train.model.load import load_policy
from maskdpo.train.run.train import train
from maskdpo.train.settings import RunOptions
from maskdpo.train.step import Trainer

pytest.importorskip("bitsandbytes")
pytestmark = pytest.mark.slow

__all__ = ["cache_folder", "pairs_file"]


@pytest.fixture(scope="module")
def tiny_model(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """With rows of 64 and 128 weights, which bitsandbytes widens rightly on every processor."""
    config = LlamaConfig.from_pretrained(
        tiny_model, hidden_size=64, intermediate_size=128, head_dim=16, initializer_range=0.2
    )
    folder = tmp_path_factory.mktemp("rows-of-64")
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    load_tokenizer(tiny_model).save_pretrained(folder)
    return str(folder)


def four_bit_config(model: str, **settings: Any) -> Any:
    return lora_config(model, **{"load_in_4bit": True, "max_steps": 6} | settings)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_log_probs_are_those_of_the_rounded_weights(dtype: str, tiny_model: str) -> None:
    """The same weights, widened, in an ordinary model; the layout is chosen in float32 all the same."""
    import bitsandbytes as bnb
    from test_logps import some_pairs

    config, pairs = four_bit_config(tiny_model, dtype=dtype), some_pairs()
    policy = load_policy(config, pairs, "cpu")
    assert policy.layout == "shared"
    layers = quantised_layers(policy.model)
    assert len(layers) == 7 * 2
    assert {layer.compute_dtype for layer in layers} == {getattr(torch, dtype)}
    plain = load_model(tiny_model, dtype=getattr(torch, dtype), device="cpu")
    for name, layer in policy.model.named_modules():
        if layer in layers:
            widened = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
            own = plain.get_submodule(name.removesuffix(".base_layer"))
            assert 0.01 < (widened - own.weight).norm() / own.weight.norm() < 0.2
            own.weight.data.copy_(widened)
    trainers = [Trainer(model, config, "shared") for model in (policy.model, plain)]
    with torch.no_grad():
        found, expected = (trainer.logps(trainer.collate(pairs)) for trainer in trainers)
    assert (found - expected).abs().max() < (1e-4 if dtype == "float32" else 0.1)


def test_weights_that_come_back_as_others_are_refused(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As bitsandbytes does with AVX-512 and rows that are no multiple of 64."""
    import bitsandbytes as bnb

    widen = bnb.functional.dequantize_4bit
    monkeypatch.setattr(bnb.functional, "dequantize_4bit", lambda *given: widen(*given).roll(1, 0))
    with pytest.raises(UserError, match=r"rows of 64 weights, which bitsandbytes rounds by 1\d\d%"):
        load_policy(four_bit_config(tiny_model), [], "cpu")


def test_a_run_resumes_to_the_bit_and_is_merged_into_the_whole_base(
    tiny_model: str, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = four_bit_config(tiny_model)
    whole = train(pairs_file, tmp_path / "whole", config, RunOptions(save_every=2))
    assert whole
    assert whole.steps[0].margin == 0
    assert whole.steps[-1].loss < whole.steps[0].loss
    with killed_in_step(4, monkeypatch):
        train(pairs_file, tmp_path / "killed", config, RunOptions(save_every=2))
    train(pairs_file, tmp_path / "killed", config, RunOptions(save_every=2))
    assert metrics_of(tmp_path / "killed") == metrics_of(tmp_path / "whole")
    ends = [load_file(tmp_path / name / "model.safetensors") for name in ("killed", "whole")]
    assert tensors_equal(*ends)
    assert "quantization_config" not in (tmp_path / "whole" / "config.json").read_text()
    alone = four_bit_config(tiny_model, merge=False)
    train(pairs_file, tmp_path / "alone", alone)
    adapter = load_file(tmp_path / "alone" / "adapter_model.safetensors")
    name = "model.layers.0.mlp.up_proj"
    a, b = (adapter[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    base = load_model(tiny_model, dtype=torch.float32, device="cpu").get_parameter(f"{name}.weight")
    assert torch.allclose(ends[0][f"{name}.weight"], base.detach() + 16 / 4 * b @ a, atol=1e-6)
    assert b.abs().max() > 0


def test_it_goes_with_an_adapter() -> None:
    with pytest.raises(ValueError, match="`load_in_4bit` goes with `lora_r`"):
        config_for("m", load_in_4bit=True)


def test_a_missing_package_is_named(
    tiny_model: str, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=r"needs the package bitsandbytes.*pip install 'maskdpo\[bits\]'"):
        train(pairs_file, tmp_path / "out", four_bit_config("./no-such-model-yet"))

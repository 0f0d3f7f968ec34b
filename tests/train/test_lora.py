"""LoRA: the reference is the model with the adapter off, base weights stay, exports and resumed runs agree."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_logps import some_pairs
from test_run import CITIES, RIGHT, WRONG, cache_folder, config_for, metrics_of
from train_helpers import killed_in_step, make_pair, random_model

from maskdpo.errors import UserError
from maskdpo.io import write_records
from maskdpo.models import load_model
from maskdpo.train.data.batch import collate
from maskdpo.train.model.adapter import adapter_layers, adapter_off, add_adapter
from maskdpo.train.model.logps import token_logps
from maskdpo.train.run import checkpoint
from maskdpo.train.run import train as run
from maskdpo.train.run.train import train
from maskdpo.train.settings import RunOptions
from maskdpo.train.step import Trainer

pytestmark = pytest.mark.slow

__all__ = ["cache_folder"]  # a fixture that every test here uses


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("lora-pairs") / "pairs.jsonl"
    pairs = [
        make_pair([(f"{city} lies there.", RIGHT), (" Or not.", WRONG)], [("It is red.", WRONG)], id=city)
        for city in CITIES
    ]
    write_records(file, pairs)
    return file


def lora_config(model: str, **settings: Any) -> Any:
    return config_for(model, **{"lora_r": 4, "lora_alpha": 16, "lr": 3e-3, "max_steps": 6} | settings)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(20)[None]).logits
    return found


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def tensors_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_at_first_nothing_differs_and_then_the_loss_falls(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    whole = train(pairs_file, tmp_path / "whole", config_for(tiny_model, max_steps=1, batch_size=5))
    lora = train(pairs_file, tmp_path / "lora", lora_config(tiny_model, max_steps=12, batch_size=5))
    assert whole and lora
    first = lora.steps[0]
    assert (first.loss, first.margin) == (whole.steps[0].loss, 0)
    assert first.logps_chosen == whole.steps[0].logps_chosen
    assert lora.steps[-1].loss < 0.8 * first.loss


def test_only_the_adapter_is_trained_and_kept(
    tiny_model: str, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    step = Trainer.step

    def spy(self: Trainer, *args: Any) -> Any:
        seen.append((self.model, self.optimizer))
        return step(self, *args)

    saved: list[set[str]] = []
    save = checkpoint.save_checkpoint

    def keep(*args: Any, **options: Any) -> Path:
        path = save(*args, **options)
        saved.append({name for file in path.glob("*.safetensors") for name in load_file(file)})
        return path

    monkeypatch.setattr(Trainer, "step", spy)
    monkeypatch.setattr(run, "save_checkpoint", keep)
    train(pairs_file, tmp_path / "out", lora_config(tiny_model, merge=False, max_steps=4), RunOptions(save_every=2))
    model, optimizer = seen[0]
    base = load_model(tiny_model, dtype=torch.float32, device="cpu").state_dict()
    trained = {name.replace(".base_layer", ""): p for name, p in model.state_dict().items() if "lora_" not in name}
    assert tensors_equal({name: p for name, p in base.items() if name in trained}, trained)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        name for name, _ in model.named_parameters() if "lora_" in name
    }
    assert len(optimizer.state) == sum(p.requires_grad for p in model.parameters())
    assert saved
    assert all("lora_" in name for names in saved for name in names)
    assert not any("lm_head" in name for name, p in model.named_parameters() if p.requires_grad)


def test_the_adapter_alone_is_the_merged_model(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    for name, merge in (("merged", True), ("alone", False)):
        train(pairs_file, tmp_path / name, lora_config(tiny_model, merge=merge))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    untrained = logits(base)
    alone = PeftModel.from_pretrained(base, str(tmp_path / "alone"))
    assert (logits(merged) - logits(alone)).abs().max() < 1e-4
    assert (logits(merged) - untrained).abs().max() > 0.05
    assert not any("lora" in name for name in load_file(tmp_path / "merged" / "model.safetensors"))
    assert "adapter_model.safetensors" in files(tmp_path / "alone")
    assert "model.safetensors" not in files(tmp_path / "alone")
    assert {"tokenizer.json", "chat_template.jinja"} <= files(tmp_path / "alone") & files(tmp_path / "merged")


@pytest.mark.parametrize("settings", [{}, {"lora_dropout": 0.3, "dtype": "bfloat16"}])
def test_a_resumed_run_ends_with_the_same_bits(
    settings: dict[str, Any], tiny_model: str, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = lora_config(tiny_model, log_masked_every=2, **settings)
    train(pairs_file, tmp_path / "whole", config, RunOptions(save_every=2))
    with killed_in_step(4, monkeypatch):
        train(pairs_file, tmp_path / "killed", config, RunOptions(save_every=2))
    result = train(pairs_file, tmp_path / "killed", config, RunOptions(save_every=2))
    assert result and result.resumed_from == 2
    assert metrics_of(tmp_path / "killed") == metrics_of(tmp_path / "whole")
    ends = [load_file(tmp_path / name / "model.safetensors") for name in ("killed", "whole")]
    assert tensors_equal(*ends)


def test_dropout_is_for_training_only(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    """The looks at masked tokens draw no random numbers, so that they change nothing."""
    ends = []
    for every in (0, 1):
        train(pairs_file, tmp_path / f"{every}", lora_config(tiny_model, lora_dropout=0.5, log_masked_every=every))
        ends.append(load_file(tmp_path / f"{every}" / "model.safetensors"))
    assert tensors_equal(*ends)
    train(pairs_file, tmp_path / "without", lora_config(tiny_model))
    assert not tensors_equal(ends[0], load_file(tmp_path / "without" / "model.safetensors"))


def test_gradient_checkpointing_changes_nothing(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    rows = []
    for on in (True, False):
        config = lora_config(tiny_model, gradient_checkpointing=on, lora_dropout=0.2)
        train(pairs_file, tmp_path / f"{on}", config)
        rows.append(metrics_of(tmp_path / f"{on}"))
    assert [row["loss"] for row in rows[0]] == pytest.approx([row["loss"] for row in rows[1]], rel=1e-5)
    assert all(row["grad_norm"] > 0 for row in rows[0])


def test_the_frozen_weights_are_kept_in_the_compute_type(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    """And a reference that was computed with them is not taken for one of float32 weights."""
    for name, settings in (("whole", {"lora_r": 0, "lora_alpha": 32}), ("lora", {})):
        config = lora_config(tiny_model, dtype="bfloat16", max_steps=2, **settings)
        result = train(pairs_file, tmp_path / name, config)
        assert result
        assert abs(result.steps[0].margin) < 1e-6 or name == "whole"
    assert len(list((tmp_path / "cache" / "reference").iterdir())) == 2
    exported = load_file(tmp_path / "lora" / "model.safetensors")
    assert {tensor.dtype for tensor in exported.values()} == {torch.float32}


def test_the_adapter_can_be_switched_off(tiny_model: str) -> None:
    model = load_model(tiny_model, dtype=torch.float32, device="cpu")
    before = logits(model)
    add_adapter(model, lora_config(tiny_model))
    assert torch.equal(logits(model), before)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1)
    assert not torch.allclose(logits(model), before, atol=1e-2)
    with adapter_off(model):
        assert torch.equal(logits(model), before)
    assert not torch.allclose(logits(model), before, atol=1e-2)
    assert all(parameter.requires_grad for name, parameter in model.named_parameters() if "lora_" in name)


def test_named_targets(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    config = lora_config(tiny_model, lora_targets="q_proj, v_proj", merge=False, max_steps=1)
    train(pairs_file, tmp_path / "out", config)
    names = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert len(names) == 2 * 2 * 2
    assert all("q_proj" in name or "v_proj" in name for name in names)


def test_targets_that_are_none(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"`lora_targets` qq_proj: Target modules .*not found"):
        train(pairs_file, tmp_path / "out", lora_config(tiny_model, lora_targets="qq_proj"))
    assert not (tmp_path / "out").exists()


MAMBA2 = {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 8}
LLAMA_LAYERS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
LLAMA4 = {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size_mlp": 48}


@pytest.mark.parametrize(
    ("kind", "settings", "adapted", "left_out"),
    [
        ("falcon", {}, {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}, set()),
        ("falcon_mamba", {}, {"in_proj", "x_proj", "dt_proj"}, {"out_proj", "conv1d"}),
        ("mamba2", MAMBA2, {"in_proj"}, {"out_proj", "conv1d"}),
        ("llama4_text", LLAMA4, LLAMA_LAYERS, {"router"}),
    ],
)
def test_all_linear_are_all_that_an_adapter_can_be_put_into(
    kind: str, settings: dict[str, Any], adapted: set[str], left_out: set[str]
) -> None:
    model = random_model(kind, **settings)
    for name in sorted(left_out):
        with pytest.raises(UserError, match=f"`lora_targets` {name}: .*does not use its {name} as a plain linear"):
            add_adapter(model, lora_config("m", lora_targets=f"q_proj, {name}"))
    add_adapter(model, lora_config("m"))
    layers = adapter_layers(model)
    assert {name.rpartition(".")[2] for name, part in model.named_modules() if part in layers} == adapted
    logps = token_logps(model, collate(some_pairs(), "padded"))
    logps.sum().backward()  # type: ignore[no-untyped-call]
    gradients = [layer.lora_B["default"].weight.grad for layer in layers]
    untouched = sum(gradient is None for gradient in gradients)
    assert untouched == (2 if kind == "falcon_mamba" else 0)  # it multiplies by the weight of its dt_proj directly
    assert all(gradient.abs().max() > 0 for gradient in gradients if gradient is not None)


@pytest.mark.parametrize(("kind", "settings"), [("mamba", {}), ("mamba2", MAMBA2), ("llama", {})])
def test_a_residual_stream_of_another_type_than_the_head(kind: str, settings: dict[str, Any]) -> None:
    """Mamba's is float32 also beside weights in bfloat16; of others no bit changes."""
    model, batch = random_model(kind, **settings).bfloat16(), collate(some_pairs(), "padded")
    with torch.no_grad():
        logits = model(input_ids=batch.input_ids_RL, attention_mask=batch.attention_mask(), use_cache=False).logits
        expected = logits[batch.row_N, batch.column_N].float().log_softmax(1).gather(1, batch.target_N[:, None])
        torch.testing.assert_close(token_logps(model, batch), expected[:, 0], atol=1e-5, rtol=0)


def test_a_tied_lm_head_takes_no_adapter(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    sizes = LlamaConfig.from_pretrained(tiny_model, tie_word_embeddings=True)
    LlamaForCausalLM(sizes).save_pretrained(tmp_path / "tied")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "tied")
    train(pairs_file, tmp_path / "fine", lora_config(str(tmp_path / "tied"), max_steps=1))
    with pytest.raises(UserError, match="are one matrix"):
        train(pairs_file, tmp_path / "out", lora_config(str(tmp_path / "tied"), lora_targets="lm_head,q_proj"))
    untied = train(pairs_file, tmp_path / "untied", lora_config(tiny_model, lora_targets="lm_head,q_proj"))
    assert untied and untied.steps[-1].loss < untied.steps[0].loss


def test_a_missing_peft_is_named_before_anything_is_loaded(
    tiny_model: str, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(
        UserError, match=r"`lora_r` needs the package peft. Install it with: pip install 'maskdpo\[lora"
    ):
        train(pairs_file, tmp_path / "out", lora_config("./no-such-model-yet"))


@pytest.mark.parametrize("setting", [{"lora_alpha": 8}, {"lora_dropout": 0.1}, {"merge": False}])
def test_settings_of_an_adapter_want_one(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="goes with `lora_r`"):
        config_for("m", **setting)

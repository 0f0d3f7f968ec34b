"""AdamW with moments of 8 bits and weights in bfloat16: how far it is from AdamW, and that it goes on to the bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from test_run import cache_folder, config_for, metrics_of, pairs_file
from train_helpers import killed_in_step, random_model

from maskdpo.train import optim
from maskdpo.train.model.decoder import widen_weights
from maskdpo.train.model.logps import token_logps
from maskdpo.train.optim import LowBitAdamW, block_width
from maskdpo.train.run.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from maskdpo.train.run.train import train
from maskdpo.train.settings import RunOptions

__all__ = ["cache_folder", "pairs_file"]

LOW = {"optim": "adamw8bit", "weights": "bfloat16"}


def descend(weights: torch.Tensor, make: Any, steps: int = 100, spread: float = 0.0) -> torch.Tensor:
    """How weights move under noisy gradients towards a point, whose sizes differ by factors of exp(spread)."""
    torch.manual_seed(1)
    sizes, target = torch.exp(spread * torch.randn_like(weights.float())), 0.02 * torch.randn_like(weights.float())
    parameter = torch.nn.Parameter(weights.clone())
    optimizer = make(parameter)
    for _ in range(steps):
        noise = 1e-4 * torch.randn_like(target) * (torch.rand_like(target) < 0.7)
        parameter.grad = (sizes * (noise + 1e-3 * (weights.float() - target))).to(weights.dtype)
        optimizer.step()
    return parameter.detach().float() - weights.float()


def exact(parameter: torch.nn.Parameter) -> torch.optim.Optimizer:
    return torch.optim.AdamW([parameter], lr=1e-5, weight_decay=0.1)


def low(**settings: Any) -> Any:
    settings = {"eight_bit": True, "seed": 0} | settings
    return lambda parameter: LowBitAdamW([{"params": [parameter], "weight_decay": 0.1}], 1e-5, **settings)


def slope(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """How far ours goes where theirs goes: 1 is as far."""
    return ((ours * theirs).sum() / theirs.square().sum()).item()


@pytest.fixture
def grid() -> torch.Tensor:
    """Weights that bfloat16 holds exactly."""
    torch.manual_seed(0)
    return (0.02 * torch.randn(50, 512)).bfloat16().float()


def test_float32_moments_are_those_of_adamw(grid: torch.Tensor) -> None:
    assert torch.allclose(descend(grid, low(eight_bit=False)), descend(grid, exact), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("spread", [0.0, 1.0, 2.0])
def test_eight_bits_go_where_adamw_goes(grid: torch.Tensor, spread: float) -> None:
    """Also where gradients of one block differ by five decades, of which no second moment may become 0."""
    ours, theirs = descend(grid, low(), spread=spread), descend(grid, exact, spread=spread)
    assert slope(ours, theirs) == pytest.approx(1, abs=0.02)
    assert (ours - theirs).norm() < 0.1 * theirs.norm()
    assert ours.abs().max() < 1.2 * theirs.abs().max()


def test_stochastic_rounding_keeps_the_updates_that_ordinary_rounding_loses(grid: torch.Tensor) -> None:
    theirs = descend(grid, exact)
    assert slope(descend(grid.bfloat16(), low()), theirs) == pytest.approx(1, abs=0.02)
    assert slope(descend(grid.bfloat16(), low(eight_bit=False)), theirs) == pytest.approx(1, abs=0.02)
    assert slope(descend(grid.bfloat16(), low(stochastic=False)), theirs) < 0.5


def test_a_second_moment_decays_though_a_step_is_far_below_a_code() -> None:
    """A quarter of each block has gradients at the first step only."""
    parameter = torch.nn.Parameter(torch.zeros(16, 256))
    once = torch.arange(256) % 4 == 0
    decayed = []
    for stochastic in (True, False):
        optimizer = LowBitAdamW([{"params": [parameter]}], 1e-5, eight_bit=True, seed=0, stochastic=stochastic)
        for step in range(400):
            parameter.grad = torch.where(once & (step > 0), 0.0, 1.0).expand(16, 256).clone()
            optimizer.step()
        state = optimizer.state[parameter]
        decayed.append(optim._read_second(state["exp_avg_sq"], state["exp_avg_sq_scale"])[:, once].mean().item())
    assert decayed[0] == pytest.approx(1e-3 * 0.999**399, rel=0.1)
    assert decayed[1] != pytest.approx(1e-3 * 0.999**399, rel=0.3)


def test_chunks_do_not_change_what_is_rounded_to(grid: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = descend(grid.bfloat16(), low(), steps=3)
    monkeypatch.setattr(optim, "CPU_CHUNK", 1000)
    assert torch.equal(descend(grid.bfloat16(), low(), steps=3), whole)


def test_which_rows_have_codes() -> None:
    widths = {
        shape: block_width(torch.empty(shape)) for shape in [(4, 4096), (4, 576), (4, 896), (2, 3, 320), (4, 34), (9,)]
    }
    assert list(widths.values()) == [256, 192, 224, 160, 34, 0]
    assert block_width(torch.empty(4, 257)) == 0


def test_bytes_per_parameter() -> None:
    parameter = torch.nn.Parameter(torch.zeros(64, 512, dtype=torch.bfloat16))
    parameter.grad = torch.ones_like(parameter)
    optimizer = LowBitAdamW([{"params": [parameter]}], 1e-5, eight_bit=True, seed=0)
    optimizer.step()
    held = [parameter, parameter.grad, *(t for t in optimizer.state[parameter].values() if isinstance(t, torch.Tensor))]
    assert sum(t.numel() * t.element_size() for t in held) / parameter.numel() == pytest.approx(6.03, abs=0.01)


def after_steps(seed: int, kind: str = "llama") -> tuple[torch.nn.Module, LowBitAdamW]:
    model = random_model(kind, seed=seed, tie_word_embeddings=True, hidden_size=64).bfloat16()
    optimizer = LowBitAdamW([{"params": list(model.parameters())}], 1e-2, eight_bit=True, seed=0)
    for _ in range(2):
        a_step(model, optimizer)
    return model, optimizer


def a_step(model: Any, optimizer: LowBitAdamW) -> None:
    model(input_ids=torch.arange(5)[None]).logits.float().square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_a_checkpoint_holds_codes_and_scales_and_goes_on_to_the_bit(tmp_path: Path) -> None:
    model, optimizer = after_steps(0)
    path = save_checkpoint(tmp_path, 2, model, optimizer, keep=1)
    with safe_open(next(path.glob("*.safetensors")), "pt") as file:
        kinds = {str(file.get_tensor(name).dtype) for name in file.keys() if ".q_proj." in name}  # noqa: SIM118
    assert kinds == {"torch.bfloat16", "torch.int8", "torch.uint8", "torch.float32"}
    other, others = after_steps(1)
    assert load_checkpoint(path, other, others) == 2
    for some in ((model, optimizer), (other, others)):
        a_step(*some)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_weights_in_bfloat16_compute_as_float32_weights_of_the_same_values(kind: str, compute: str) -> None:
    from test_logps import some_pairs

    from maskdpo.train.data.batch import collate

    narrow, wide = random_model(kind), random_model(kind)
    for parameter in narrow.parameters():  # not rotary frequencies, which stay float32 when a model is loaded, too
        parameter.data = parameter.data.bfloat16()
    wide.load_state_dict({name: tensor.float() for name, tensor in narrow.state_dict().items()})
    widen_weights(narrow, compute)
    batch = collate(some_pairs(), "padded")
    found = []
    for model in (narrow, wide):
        with torch.autocast("cpu", torch.bfloat16, enabled=compute == "bfloat16"):
            found.append(token_logps(model, batch))
        found[-1].sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(*found)
    for p, q in zip(narrow.parameters(), wide.parameters(), strict=True):
        assert p.dtype == p.grad.dtype == torch.bfloat16
        assert (p.grad.float() - q.grad).norm() <= 5e-3 * q.grad.norm() + 1e-6
    assert not any("weight" in vars(module) for module in narrow.modules())


@pytest.mark.slow
def test_a_run_resumes_to_the_bit_and_is_written_as_it_was_trained(
    tiny_model: str, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(tiny_model, max_steps=6, batch_size=3, tokens_per_batch=60, **LOW)
    whole = train(pairs_file, tmp_path / "whole", config, RunOptions(save_every=2))
    assert whole
    assert whole.steps[0].margin == 0
    assert whole.steps[-1].loss < whole.steps[0].loss
    with killed_in_step(6, monkeypatch):
        train(pairs_file, tmp_path / "killed", config, RunOptions(save_every=2))
    assert [path.name for path in checkpoints(tmp_path / "killed" / "checkpoints")][-1] == "step-00000004"
    train(pairs_file, tmp_path / "killed", config, RunOptions(save_every=2))
    assert metrics_of(tmp_path / "killed") == metrics_of(tmp_path / "whole")
    ends = [load_file(tmp_path / name / "model.safetensors") for name in ("killed", "whole")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[1])
    assert {tensor.dtype for tensor in ends[0].values()} == {torch.bfloat16}


def test_written_in_the_type_of_the_weights_unless_told_otherwise() -> None:
    assert config_for("m").written_dtype == config_for("m").recorded()["export_dtype"] == "float32"
    assert config_for("m", weights="bfloat16").recorded()["export_dtype"] == "bfloat16"
    assert config_for("m", weights="bfloat16", export_dtype="float32").written_dtype == "float32"
    assert "export_dtype" not in config_for("m").given()  # no command line names it


@pytest.mark.parametrize(
    ("setting", "named", "out"),
    [
        ({"optim": "adamw8bit"}, "`optim` adamw8bit is", "`optim`"),
        ({"weights": "bfloat16"}, "`weights` bfloat16 is", "`weights`"),
        (
            {"optim": "adamw8bit", "weights": "bfloat16"},
            "`optim` adamw8bit and `weights` bfloat16 are",
            "`optim` and `weights`",
        ),
    ],
)
def test_an_adapter_has_no_use_for_them(setting: dict[str, Any], named: str, out: str) -> None:
    with pytest.raises(ValueError, match=f"{named} for training all weights: .*; leave `lora_r` out, or {out} "):
        config_for("m", lora_r=4, **setting)

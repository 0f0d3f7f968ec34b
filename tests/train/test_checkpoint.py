"""Checkpoints: what they hold, and what of a run survives kills, Ctrl-C and a full disk."""

import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from attempts import attempts, interrupted
from safetensors.torch import load_file
from test_run import cache_folder, config_for, metrics_of, pairs_file, said
from train_helpers import random_model

from maskdpo.errors import UserError
from maskdpo.train.run import train as run
from maskdpo.train.run.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from maskdpo.train.run.train import train
from maskdpo.train.settings import RunOptions

__all__ = ["cache_folder", "pairs_file"]


def a_step(seed: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A small model with tied ends and some frozen weights, after two steps of AdamW."""
    model = random_model(seed=seed, tie_word_embeddings=True)
    model.get_decoder().layers[0].requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([{"params": trained[:2]}, {"params": trained[2:]}], lr=1e-2, fused=True)
    for _ in range(2):
        model(input_ids=torch.arange(5)[None]).logits.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def state_of(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found[name] = parameter.detach().clone()
            found |= {f"{name}.{key}": value.clone() for key, value in optimizer.state[parameter].items()}
    return found


def test_weights_and_optimiser_come_back_to_the_last_bit(tmp_path: Path) -> None:
    model, optimizer = a_step(seed=0)
    saved = state_of(model, optimizer)
    path = save_checkpoint(tmp_path, 2, model, optimizer, keep=1)
    other = a_step(seed=1)
    assert load_checkpoint(path, *other) == 2
    loaded = state_of(*other)
    assert loaded.keys() == saved.keys()
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)


def test_a_fresh_optimiser_goes_on_as_the_saved_one(tmp_path: Path) -> None:
    model, optimizer = a_step(seed=0)
    path = save_checkpoint(tmp_path, 2, model, optimizer, keep=1)
    fresh, _ = a_step(seed=0)
    for parameter in fresh.parameters():
        if parameter.requires_grad:
            parameter.data.zero_()
    new = torch.optim.AdamW([p for p in fresh.parameters() if p.requires_grad], lr=1e-2, fused=True)
    load_checkpoint(path, fresh, new)
    for some_model, some_optimizer in ((model, optimizer), (fresh, new)):
        some_model(input_ids=torch.arange(5)[None]).logits.mean().backward()
        some_optimizer.step()
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all(torch.equal(model.get_parameter(name), fresh.get_parameter(name)) for name in trained)


def test_only_safetensors_and_one_json_file_and_no_frozen_weights(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 2, *a_step(seed=0), keep=1)
    names = {file.name for file in path.iterdir()}
    assert names == {"state.json", "shard-00001-model-00001-of-00001.safetensors"}
    tensors = load_file(path / "shard-00001-model-00001-of-00001.safetensors")
    assert {name.split(".")[0] for name in tensors} == {"model", "optimizer"}
    assert not any("layers.0." in name for name in tensors)


def test_many_files_where_there_is_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskdpo.train.run.checkpoint.FILE_BYTES", 20_000)
    model, optimizer = a_step(seed=0)
    path = save_checkpoint(tmp_path, 2, model, optimizer, keep=1)
    assert len(list(path.glob("*.safetensors"))) > 3
    other = a_step(seed=1)
    load_checkpoint(path, *other)
    loaded, saved = state_of(*other), state_of(model, optimizer)
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)


def test_the_newest_are_kept(tmp_path: Path) -> None:
    model, optimizer = a_step(seed=0)
    (tmp_path / ".tmp-killed").mkdir()
    for step in (9, 10, 11, 100):
        save_checkpoint(tmp_path, step, model, optimizer, keep=2)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000011", "step-00000100"]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "no-state", "other-model"])
def test_a_damaged_checkpoint_is_named(damage: str, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 2, *a_step(seed=0), keep=1)
    model, optimizer = a_step(seed=1)
    if damage == "cut":
        file = next(path.glob("*.safetensors"))
        file.write_bytes(file.read_bytes()[:5000])
    if damage == "no-state":
        (path / "state.json").unlink()
    if damage == "other-model":
        model = random_model(num_hidden_layers=3)
    with pytest.raises(UserError, match=r"step-00000002: cannot be read: .*Remove this folder"):
        load_checkpoint(path, model, optimizer)


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    jobs: list[dict[str, Any]] = [
        {"out": str(out), "plan": ["before-checkpoint", 2, "full"]},
        {"out": str(out), "plan": ["before-step", 2, "SIGKILL"]},
    ]
    codes, errors = attempts(pairs_file, config_for(tiny_model, max_steps=12), jobs)
    assert codes == [[2], [-signal.SIGKILL]]
    assert "step-00000006: cannot be written" in errors
    assert "File too large" in errors, "what the kernel says of a file beyond the limit of the test"
    assert "Older checkpoints are untouched" in errors
    assert "resuming from step 3 of 12" in errors
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000003"]


@pytest.mark.slow
def test_killed_and_interrupted_runs_end_with_the_same_bits(tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    """Every attempt is a process of its own; 30 steps, a checkpoint every 3, a dozen kills at random places."""
    rng = random.Random()
    seed = rng.randrange(1000)
    rng.seed(seed)
    # Each gets one checkpoint further at the most, so that all of them are reached within 30 steps.
    kills = [("in-checkpoint", 1), ("after-checkpoint", 1), ("before-checkpoint", 2)]
    kills += [(rng.choice(("before-step", "after-step")), rng.randint(1, 5)) for _ in range(8)]
    kills = [*rng.sample(kills, len(kills)), ("in-export", 1)]
    presses = [("before-step", rng.randint(1, 3)), ("after-step", rng.randint(1, 3)), ("after-checkpoint", 1)]
    signals = ["SIGINT", "SIGTERM", "SIGTERM"]
    jobs: list[dict[str, Any]] = [{"out": str(tmp_path / "whole")}]
    jobs += [{"out": str(tmp_path / "killed"), "plan": [*kill, "SIGKILL"]} for kill in kills]
    jobs += [{"out": str(tmp_path / "killed")}]
    jobs += [
        {"out": str(tmp_path / "interrupted"), "plan": [*press, name]}
        for press, name in zip(presses, signals, strict=True)
    ]
    jobs += [{"out": str(tmp_path / "interrupted"), "plan": ["before-step", 1, "SIGTERM SIGTERM"]}]
    jobs += [{"out": str(tmp_path / "interrupted")}]
    codes, errors = attempts(pairs_file, config_for(tiny_model, max_steps=30), jobs)
    plan = f"seed {seed}: {jobs}\n{errors}"
    assert codes == [[0]] + [[-signal.SIGKILL]] * 12 + [[0]] + [[2]] * 3 + [[-signal.SIGTERM], [0]], plan
    assert not list(tmp_path.glob(".*.lock")), "a lock that a killed run has left is taken over"
    assert "resuming from step" in errors
    names = {file.name for file in (tmp_path / "whole").iterdir()}
    for name in ("killed", "interrupted"):
        assert metrics_of(tmp_path / name) == metrics_of(tmp_path / "whole"), plan
        for file in ("model.safetensors", "config.json", "tokenizer.json"):
            assert (tmp_path / name / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), plan
        assert {file.name for file in (tmp_path / name).iterdir()} <= names, plan


def test_a_changed_configuration_does_not_go_on(
    tiny_model: str,
    pairs_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, save = tmp_path / "out", run.save_checkpoint

    def save_and_stop(*args: Any, **options: Any) -> Path:
        save(*args, **options)
        raise UserError("stopped by the test")

    monkeypatch.setattr(run, "save_checkpoint", save_and_stop)
    with pytest.raises(UserError, match="stopped"):
        train(pairs_file, out, config_for(tiny_model, max_steps=6), RunOptions(save_every=2))
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"lr: 0\.001 -> 0\.002.*`restart`"):
        train(pairs_file, out, config_for(tiny_model, max_steps=6, lr=2e-3), RunOptions(save_every=2))
    assert [path.name for path in checkpoints(out / "checkpoints")] == ["step-00000002"]
    result = train(pairs_file, out, config_for(tiny_model, max_steps=6), RunOptions(save_every=2))
    assert result is not None
    assert result.resumed_from == 2
    assert "resuming from step 2 of 6" in said(capsys)


@pytest.mark.slow
@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM SIGTERM"])  # as a scheduler sends it, and a launcher passes it on
def test_a_signal_saves_and_says_how_to_go_on(sent: str, tiny_model: str, pairs_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    signals = [signal.Signals[name] for name in sent.split()]
    arguments = [str(pairs_file), "--out", str(out), "--model", tiny_model]
    arguments += ["--epochs", "100000", "--batch-size", "2", "--dtype", "float32"]

    def start_another() -> None:
        with pytest.raises(UserError, match=r"out: another maskdpo run is writing to it; wait .* or use another `out`"):
            train(pairs_file, out, config_for(tiny_model))
        with pytest.raises(UserError, match="another maskdpo run"):
            train(pairs_file, out, config_for(tiny_model), RunOptions(restart=True))

    code, errors = interrupted(arguments, out, after_steps=3, signals=signals, meanwhile=start_another)
    steps = len(metrics_of(out))
    assert code == 128 + signals[0], errors
    assert not list(tmp_path.glob(".*.lock"))
    assert f"step {steps} is saved. Repeat the same command to go on" in errors
    assert [file.name for file in (out / "checkpoints").iterdir()] == [f"step-{steps:08d}"]

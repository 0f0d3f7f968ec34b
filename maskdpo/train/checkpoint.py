"""Checkpoints of a run: a folder that appears by one rename, so that a kill at any moment leaves the one before it."""

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

NAME = re.compile(r"step-(\d{8})")


def save_checkpoint(folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, *, keep: int) -> Path:
    """Write ``folder/step-N`` atomically, then drop all but the newest ``keep``."""
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob(".tmp-*"):
        shutil.rmtree(left_over)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=folder))
    try:
        save_model(model, str(temporary / "model.safetensors"))
        save_file(_flatten(optimizer), temporary / "optimizer.safetensors")
        (temporary / "state.json").write_text(json.dumps({"step": step}))
        target = folder / f"step-{step:08d}"
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """All whole checkpoints, the newest last."""
    return sorted(path for path in folder.glob("step-*") if NAME.fullmatch(path.name)) if folder.exists() else []


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Put weights and optimiser back; the step after which the checkpoint was written is returned."""
    load_model(model, str(path / "model.safetensors"))
    _unflatten(optimizer, load_file(path / "optimizer.safetensors"))
    state: dict[str, Any] = json.loads((path / "state.json").read_text())
    return int(state["step"])


def _flatten(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as named tensors: ``<parameter index>.<name>``. Its settings come from the run's config."""
    state: dict[int, dict[str, Tensor]] = optimizer.state_dict()["state"]
    return {f"{index}.{name}": tensor for index, tensors in state.items() for name, tensor in tensors.items()}


def _unflatten(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

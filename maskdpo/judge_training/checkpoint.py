"""Checkpoints of a training: folders that appear by one rename, so that a kill leaves the one before them.

checkpoints/step-N/   trained weights, AdamW's moments, and the state of early stopping after step N
checkpoints/best-N/   the weights of the best evaluation so far
"""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from maskdpo.errors import CannotContinue, UserError
from maskdpo.io.write import sync_folder
from maskdpo.run_folder import fresh_folder

_NAME = re.compile(r"(?:step|best)-(\d{8})")
_WEIGHTS, _MOMENTS, _STATE = "weights.safetensors", "moments.safetensors", "state.json"


@dataclass
class State:
    """Where a training is, besides its weights."""

    step: int = 0
    best: int | None = None
    """The step with the best evaluation; None before the first one."""
    best_value: float = float("inf")
    """What was best there, as a number that is to be small."""
    worse: int = 0
    """Evaluations since then."""
    stopped: bool = False
    """Whether training has ended early."""


def save_checkpoint(folder: Path, state: State, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write ``step-N``, then remove earlier ones, and the best weights that no state refers to any more.

    Raises:
        UserError: it cannot be written; the one before is as it was.
    """
    moments = {f"{name}.{key}": tensor for name, key, tensor in _moments(model, optimizer)}
    target = folder / f"step-{state.step:08d}"
    _write(target, {_WEIGHTS: _trained(model), _MOMENTS: moments}, json.dumps(asdict(state)))
    for other in _folders(folder, "step-"):
        if other != target:
            _remove(other)
    for other in _folders(folder, "best-"):
        if _number(other) != state.best:
            _remove(other)


def save_best(folder: Path, step: int, model: nn.Module) -> None:
    """Keep the present weights as those of this step. Earlier best weights stay until the next checkpoint: a run that
    is continued from the last one may need them."""
    target = folder / f"best-{step:08d}"
    if target.exists():  # a run that was killed had come this far
        _remove(target)
    _write(target, {_WEIGHTS: _trained(model)}, json.dumps({"step": step}))


def load_best(folder: Path, step: int, model: nn.Module) -> None:
    """Put the best weights into the model.

    Raises:
        CannotContinue: they cannot be read.
    """
    path = folder / f"best-{step:08d}"
    try:
        _put(model, load_file(path / _WEIGHTS))
    except (OSError, SafetensorError, KeyError) as error:
        raise CannotContinue(f"cannot be read: {error}; `restart` trains anew", path=path) from None


def load_newest(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Put weights and moments of the newest checkpoint back; a fresh state where there is none.

    Raises:
        CannotContinue: the checkpoint is damaged.
    """
    found = _folders(folder, "step-")
    if not found:
        return State()
    path = found[-1]
    try:
        state = State(**json.loads((path / _STATE).read_text()))
        _put(model, load_file(path / _WEIGHTS))
        moments = load_file(path / _MOMENTS)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and f"{name}.exp_avg" in moments:
                optimizer.state[parameter] = {
                    "step": torch.tensor(float(state.step), device=parameter.device),
                    "exp_avg": moments[f"{name}.exp_avg"].to(parameter.device),
                    "exp_avg_sq": moments[f"{name}.exp_avg_sq"].to(parameter.device),
                }
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise CannotContinue(f"cannot be read: {error}; `restart` trains anew", path=path) from None
    return state


def _trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[tuple[str, str, Tensor]]:
    return [
        (name, key, optimizer.state[parameter][key])
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter in optimizer.state
        for key in ("exp_avg", "exp_avg_sq")
    ]


@torch.no_grad()
def _put(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.copy_(tensors[name])


def _write(target: Path, files: Mapping[str, dict[str, Tensor]], state: str) -> None:
    temporary = fresh_folder(target.parent, ".tmp-")
    try:
        for name, tensors in files.items():
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, temporary / name)
        (temporary / _STATE).write_text(state)
        sync_folder(temporary)
        temporary.rename(target)
        sync_folder(target.parent)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{target}: cannot be written: {error}. Older checkpoints are untouched") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _folders(folder: Path, prefix: str) -> list[Path]:
    return sorted(path for path in folder.glob(f"{prefix}*") if _NAME.fullmatch(path.name)) if folder.exists() else []


def _number(path: Path) -> int:
    return int(path.name.partition("-")[2])


def _remove(path: Path) -> None:
    """By a rename first, so that a kill leaves no half folder under this name."""
    path.rename(aside := path.with_name(f".tmp-{path.name}"))
    shutil.rmtree(aside)

"""Checkpoints of a run: a folder that appears by one rename, so that a kill at any moment leaves the one before it.

``torch.distributed.checkpoint`` writes it, safetensors files for each rank, and reads it back onto any number of ranks:
every tensor is stored with its place in the whole. Nothing is pickled. Beside the weights that train and AdamW's state
it holds the step, from which the learning rate, the order of the pairs (``loop.py``) and the random numbers of dropout
(``model/adapter.py``) follow: there is no other state that a later step depends on.
"""

import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from maskdpo.errors import UserError
from maskdpo.io.write import sync_folder
from maskdpo.run_folder import fresh_folder
from maskdpo.train.optim import zero_state
from maskdpo.train.ranks import ALONE, Ranks

NAME = re.compile(r"step-(\d{8})")

FILE_BYTES = 1 << 30
"""About how many bytes go into one file: a rank copies its part of a file to the CPU before it writes it."""


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    keep: int | None,
    ranks: Ranks = ALONE,
) -> Path:
    """Write ``folder/step-N`` atomically, then remove all but the newest ``keep`` (None: keep all). Every rank must
    call.

    Raises:
        UserError: it cannot be written, for example because the disk is full; older checkpoints are as they were.
    """
    target = folder / f"step-{step:08d}"
    temporary = ranks.from_first(fresh_folder(folder, ".tmp-") if ranks.first else folder)
    try:
        _write(temporary, _named_tensors(model, optimizer), ranks)
        if ranks.first:
            (temporary / "state.json").write_text(json.dumps({"step": step}))
            _sync(temporary)
            temporary.rename(target)
            sync_folder(folder)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{target}: cannot be written: {error}. Older checkpoints are untouched") from None
    finally:
        if ranks.first:
            shutil.rmtree(temporary, ignore_errors=True)
    if ranks.first and keep:
        for old in checkpoints(folder)[:-keep]:
            remove_checkpoint(old)
    return target


def remove_checkpoint(path: Path) -> None:
    """Remove it after one rename, so that a kill leaves no half checkpoint under this name."""
    path.rename(aside := path.with_name(f".tmp-{path.name}"))
    shutil.rmtree(aside)


def checkpoints(folder: Path) -> list[Path]:
    """All whole checkpoints, the newest last."""
    return sorted(path for path in folder.glob("step-*") if NAME.fullmatch(path.name)) if folder.exists() else []


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, ranks: Ranks = ALONE) -> int:
    """Put weights and optimiser back; the step after which the checkpoint was written is returned. All ranks must call.

    Raises:
        UserError: the checkpoint is damaged, or belongs to another model.
    """
    reader = HuggingFaceStorageReader(str(path))
    try:
        state: dict[str, Any] = json.loads((path / "state.json").read_text())
        saved = reader.read_metadata().state_dict_metadata
        _allocate_state(model, optimizer, set(saved), state["step"])
        tensors = _named_tensors(model, optimizer)
        if tensors.keys() != saved.keys():
            raise ValueError(f"holds other tensors than the model: {min(tensors.keys() ^ saved.keys())}")
        with _without_warnings():
            load(tensors, storage_reader=reader, no_dist=ranks.size == 1)
    except (OSError, ValueError, KeyError, SafetensorError, CheckpointException) as error:
        raise UserError(
            f"{path}: cannot be read: {_reason(error)}. Remove this folder to go on from the checkpoint before it"
        ) from None
    return int(state["step"])


def _write(folder: Path, tensors: dict[str, Tensor], ranks: Ranks) -> None:
    """Write the shards of this rank.

    Raises:
        OSError, SafetensorError: on every rank, where any rank could not write.
    """
    files: dict[str, int] = {}
    size = 0
    for name, tensor in tensors.items():
        files[name] = 1 + size // FILE_BYTES
        size += tensor.numel() * tensor.element_size()
    writer = HuggingFaceStorageWriter(str(folder), fqn_to_index_mapping=files, save_distributed=True)
    try:
        with _without_warnings():
            save(tensors, storage_writer=writer, no_dist=ranks.size == 1)
    except CheckpointException as error:
        raise OSError(_reason(error)) from None


@contextmanager
def _without_warnings() -> Iterator[None]:
    """torch warns of a single process even with ``no_dist``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _named_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The weights that train and, where a step has been made, AdamW's two moments of each, or their codes and scales.

    AdamW's count of steps is the run's, so that it is not among them.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tensors[f"model.{name}"] = parameter.detach()
            state = optimizer.state.get(parameter, {})
            tensors |= {f"optimizer.{name}.{key}": tensor for key, tensor in state.items() if key != "step"}
    return tensors


def _allocate_state(model: nn.Module, optimizer: torch.optim.Optimizer, saved: set[str], step: int) -> None:
    """Fill AdamW's state with zeros for each parameter whose state is saved, so that the saved state can be loaded."""
    for name, parameter in model.named_parameters():
        prefix = f"optimizer.{name}."
        if any(key.startswith(prefix) for key in saved):
            optimizer.state[parameter] = zero_state(optimizer, parameter.detach(), step)


def _sync(folder: Path) -> None:
    """Wait until the names of the files, which are synced themselves, and the small file are on the disk."""
    with (folder / "state.json").open("rb") as file:
        os.fsync(file.fileno())
    sync_folder(folder)


def _reason(error: BaseException) -> str:
    """The first failure of any rank, in one line."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    return " ".join(str(error).split()) or type(error).__name__

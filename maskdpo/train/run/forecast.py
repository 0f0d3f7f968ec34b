"""What a model takes on one device and on N, in every setting that saves memory, and to start: sums, not measurements.

Nothing of the model is needed but its sizes, so that it may be on the meta device, and its weights elsewhere.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from maskdpo.devices import compute_type
from maskdpo.identity import model_files
from maskdpo.models import load_config, resolve_model
from maskdpo.train.config import TrainConfig
from maskdpo.train.model.flops import device_peak
from maskdpo.train.model.memory import FLOAT32, Sizes, linear_layers, memory_parts, moment_bytes
from maskdpo.train.model.probe import LONGEST_PASSES

RANK = 16
"""Of the adapter in the forecast of a run without one."""

ARITHMETIC = {
    "weights": "w P / N; LoRA: (c P + 4 A) / N; 4 bits: .516 L + c (P - L) + 4 A",
    "gradients": "w P / N; LoRA: 4 A / N",
    "AdamW": "8 P / N; 8 bits: 2.03 P / N; LoRA: 8 A / N",
    "weights in the compute type": "c per number of a matrix where c is not w",
    "layers gathered": "3 c D; LoRA: 2 c D",
    "embedding and lm_head gathered": "2 w E; LoRA: c E",
    "activations": "of the largest pass",
    "logits": "of a chunk of tokens",
    "together": "",
    "main memory of rank 0: loading": "w P; LoRA: c P",
    "main memory of rank 0: writing": "N > 1: w P; LoRA, merged: 4 P",
    "a checkpoint on the disk": "(w + 8) P; 8 bits: (w + 2.03) P; LoRA: 12 A",
}
"""How each row is computed; w: bytes of a weight, c: of the compute type, the other letters: ``Forecast.letters``."""


@dataclass(frozen=True)
class Forecast:
    """A table: GB (1e9 bytes) by part, for several settings on one device and on N."""

    columns: list[tuple[int, str]]
    """Number of devices and setting."""
    rows: dict[str, list[float | None]]
    """By the names of ``ARITHMETIC``; None: that setting does not work on so many devices."""
    letters: dict[str, int]
    disk_gb: float
    """The files of the weights, which rank 0 reads."""
    trial_s: float | None
    """Seconds at most of what is tried with the longest pair, at the rate of this machine's CPU; None: on a GPU."""


def forecast(
    model: PreTrainedModel, sizes: Sizes, config: TrainConfig, device: str, tokens: int, ranks: int
) -> Forecast:
    """
    Args:
        model: on the meta device, without or with an adapter; ``sizes`` are its sizes.
        tokens: of the largest forward pass.
    """
    whole = sizes.parameters - (sizes.trained if config.lora_r else 0)
    rank = config.lora_r or RANK
    adapter = rank * sum(layer.in_features + layer.out_features for layer in linear_layers(model))
    compute = 2 if compute_type(config.dtype, device) == "bfloat16" else FLOAT32
    plain = replace(sizes, parameters=whole, trained=whole, weight_bytes=FLOAT32)
    small = replace(sizes, parameters=whole + adapter, trained=adapter, weight_bytes=compute)
    settings: list[tuple[str, Sizes, dict[str, Any]]] = [
        ("float32, adamw", plain, {}),
        ("bfloat16, adamw8bit", replace(plain, weight_bytes=2), {"weights": "bfloat16", "optim": "adamw8bit"}),
        (f"LoRA, rank {rank}", small, {"lora_r": rank}),
        ("LoRA, 4 bits", small, {"lora_r": rank, "load_in_4bit": True}),
    ]
    others = {"lora_r": 0, "load_in_4bit": False, "weights": "float32", "optim": "adamw"}
    columns: list[tuple[int, str]] = []
    rows: dict[str, list[float | None]] = {name: [] for name in ARITHMETIC}
    for size in dict.fromkeys((1, ranks)):
        for name, of_setting, changes in settings:
            setting = config.model_copy(update=others | changes)
            possible = not (setting.load_in_4bit and size > 1)
            found = _column(of_setting, setting, device, tokens, size) if possible else {}
            columns.append((size, name))
            for row, values in rows.items():
                values.append(found.get(row))
    letters = {"P": whole, "E": sizes.ends, "D": sizes.largest_layer, "L": sizes.linear, "A": adapter}
    trial_s = None
    if ranks > 1 or device == "cpu":
        trial_s = 2 * whole * LONGEST_PASSES * tokens / device_peak("cpu", "float32")
    return Forecast(columns, rows, letters, disk_bytes(config, whole) / 1e9, trial_s)


def _column(sizes: Sizes, config: TrainConfig, device: str, tokens: int, ranks: int) -> dict[str, float]:
    parts = memory_parts(sizes, config, device, tokens, ranks)
    base = sizes.parameters - sizes.trained if config.lora_r else sizes.parameters
    held = sizes.weight_bytes * base / 1e9
    merged = config.lora_r and config.merge
    trained_bytes = (FLOAT32 if config.lora_r else sizes.weight_bytes) + moment_bytes(config)
    return parts | {
        "together": sum(parts.values()),
        "main memory of rank 0: loading": held,
        "main memory of rank 0: writing": FLOAT32 * base / 1e9 if merged else held if ranks > 1 else 0,
        "a checkpoint on the disk": trained_bytes * sizes.trained / 1e9,
    }


def disk_bytes(config: TrainConfig, parameters: int) -> int:
    """The size of the weights' files; where they are not in a folder, that of the parameters in the type that the
    config names."""
    folder = Path(resolve_model(config.model))
    files = model_files(folder) if folder.is_dir() else []
    found: int = sum(file.stat().st_size for file in files if file.suffix == ".safetensors")
    if found:
        return found
    dtype = str(load_config(config.model, trust_remote_code=config.trust_remote_code).get_text_config().dtype)
    return parameters * (2 if dtype.endswith(("bfloat16", "float16")) else FLOAT32)


def has_weights(name: str) -> bool:
    """Whether the model can be loaded: False for a folder that holds a config alone."""
    folder = Path(resolve_model(name))
    return not folder.is_dir() or any(folder.glob("*.safetensors"))

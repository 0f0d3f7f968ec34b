"""How much memory a run needs: a formula over the model's sizes, part by part, before anything is loaded.

A parameter takes 4 bytes in float32, 2 in bfloat16 and half of one in 4 bits, its gradient 4 or 2; AdamW keeps two
float32 numbers or two of 8 bits per parameter that trains. Many ranks split these, and gather a layer or two for a
forward or backward pass, and embedding and ``lm_head`` with their gradient.
Activations are bytes per token in a decoder layer like Llama's, with h = hidden size, q = heads * head size,
f = intermediate size and c = bytes of the compute type:

    two norms, input and result in float32           16 h
    inputs of the matrices behind them               8 h (float32), 10 h (bfloat16: each of the five has its own copy)
    queries, keys and values (repeated), their sum   4 c q
    gate and up                                      2 c f
    their activation and product (unless gates.py)   2 c f
    once: the last norm                              8 h

With gradient checkpointing a layer keeps its input only, and one layer at a time is computed again. A test compares the
formula with what autograd keeps. The result is an estimate: kernels need memory, too, and memory is fragmented. Eager
attention (Gemma 2, gpt-oss) keeps heads * tokens further numbers per token, which are not counted.
"""

import ctypes
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from maskdpo.devices import compute_type
from maskdpo.train.config import TrainConfig
from maskdpo.train.model.decoder import attention_size, largest_layer, text_config
from maskdpo.train.model.fourbit import NF4_BYTES
from maskdpo.train.model.gates import gated_layers, recomputes_gates
from maskdpo.train.model.logps import LOGITS
from maskdpo.train.optim import BLOCK

FLOAT32 = 4

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Numbers of parameters in glibc's malloc.h."""


@dataclass(frozen=True)
class Sizes:
    """What the formula needs of a model."""

    parameters: int
    trained: int
    matrices: int
    """Parameters that are cast to the compute type for products: all but the embedding and vectors."""
    weight_bytes: int
    """A frozen or trained parameter that is not an adapter's."""
    layers: int
    hidden: int
    attention: int
    """heads * head size."""
    intermediate: int
    gated: bool
    """Every layer has a gated feed-forward layer (``gates.py``)."""
    vocabulary: int
    largest_layer: int
    """Parameters of the largest decoder layer."""
    ends: int
    """Parameters of embedding and ``lm_head``, counted once where the two are one matrix."""
    linear: int
    """Weights of the linear layers but ``lm_head``, which ``load_in_4bit`` keeps in 4 bits."""


def sizes_of(model: PreTrainedModel) -> Sizes:
    """The sizes of a model, which may be on the meta device."""
    config = text_config(model)
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings().weight
    matrices = sum(p.numel() for p in model.parameters() if p.ndim > 1 and p is not embedding)
    return Sizes(
        parameters=sum(p.numel() for p in model.parameters()),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        matrices=matrices + (embedding.numel() if head is embedding else 0),
        weight_bytes=embedding.element_size(),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        attention=attention_size(config),
        intermediate=_intermediate(config),
        gated=len(gated_layers(model)) == config.num_hidden_layers,
        vocabulary=head.shape[0],
        largest_layer=largest_layer(model),
        ends=embedding.numel() + (0 if head is embedding else head.numel()),
        linear=sum(layer.weight.numel() for layer in linear_layers(model)),
    )


def linear_layers(model: PreTrainedModel) -> list[nn.Linear]:
    """Without ``lm_head`` and the matrices of an adapter."""
    head = model.get_output_embeddings()
    return [
        part
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear) and part is not head and "lora_" not in name
    ]


def _intermediate(config: Any) -> int:
    """Size of the feed-forward layer; the largest one where layers differ."""
    size = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return max(size) if isinstance(size, Sequence) else int(size)


def memory_parts(
    sizes: Sizes, config: TrainConfig, device: str, tokens: int, ranks: int = 1, *, trains: bool = True
) -> dict[str, float]:
    """GB (1e9 bytes) of each device by part, in a forward pass of so many tokens, with padding.

    Args:
        trains: False for passes without gradients: a reference of its own that computes its log-probs.
    """
    compute = 2 if compute_type(config.dtype, device) == "bfloat16" else FLOAT32
    adapter = sizes.trained if config.lora_r else 0
    four_bits = sizes.linear if config.load_in_4bit else 0
    weights = sizes.weight_bytes * (sizes.parameters - adapter - four_bits) + NF4_BYTES * four_bits + FLOAT32 * adapter
    gradient = FLOAT32 if config.lora_r else sizes.weight_bytes
    casts = compute * sizes.matrices if compute != sizes.weight_bytes and ranks == 1 else 0
    with_gradient = trains and not config.lora_r
    gathered = (3 if with_gradient else 2) * compute * sizes.largest_layer
    ends = (sizes.weight_bytes + (gradient if with_gradient else 0)) * sizes.ends
    kept = sizes if trains else replace(sizes, layers=1)
    parts: Mapping[str, float] = {
        "weights": weights / ranks,
        "gradients": gradient * sizes.trained / ranks if trains else 0,
        "AdamW": moment_bytes(config) * sizes.trained / ranks if trains else 0,
        "weights in the compute type": casts // (sizes.layers if config.gradient_checkpointing else 1),
        "layers gathered": gathered if ranks > 1 else 0,
        "embedding and lm_head gathered": ends if ranks > 1 else 0,
        "activations": tokens * activation_bytes(kept, config, compute),
        "logits": (FLOAT32 if compute == FLOAT32 else FLOAT32 + 2 * compute) * min(LOGITS, tokens * sizes.vocabulary),
    }
    return {name: size / 1e9 for name, size in parts.items()}


def moment_bytes(config: TrainConfig) -> float:
    """Of both moments of a parameter that trains."""
    return 2 * (1 + FLOAT32 / BLOCK) if config.optim == "adamw8bit" else 2 * FLOAT32


def activation_bytes(sizes: Sizes, config: TrainConfig, compute: int) -> int:
    """Bytes per token, in all layers."""
    h = sizes.hidden
    last_norm = 8 * h
    wide = 4 * sizes.attention + (2 if sizes.gated and recomputes_gates(config) else 4) * sizes.intermediate
    layer = (16 + (8 if compute == FLOAT32 else 10)) * h + compute * wide
    if config.gradient_checkpointing:
        stream = FLOAT32 if config.weights == "bfloat16" else sizes.weight_bytes
        return sizes.layers * stream * h + last_norm + layer
    return sizes.layers * layer + last_norm


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed tensors for new ones. Does nothing where the C library is not glibc.

    By default glibc returns large blocks to the system at once, and the pages of every new tensor are mapped and zeroed
    again: a quarter of the time of a step on a CPU.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None and hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)


V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
"""Files with the limit and the usage of a control group, and the name that memory.stat has for the page cache that is
freed first."""


def free_bytes(device: str) -> int | None:
    """Free memory of the device; None where it is not reported."""
    if device.startswith("cuda"):
        free: Any = torch.cuda.mem_get_info(device)[0]
        return int(free)
    if device.startswith("mps"):
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return free_host_bytes()


def free_host_bytes(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Free memory for this process, with the page cache; where a container or a job scheduler allows less, the rest of
    what it allows. None where the system does not report it."""
    try:
        lines = (proc / "meminfo").read_text().split("\n")
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
        groups = (proc / "self" / "cgroup").read_text().split("\n")
    except (OSError, StopIteration):  # no Linux
        return None
    return max(0, min([free, *_left_of_groups(groups, cgroups)]))


def _left_of_groups(groups: Sequence[str], root: Path) -> Iterator[int]:
    """Free bytes in each control group with a limit that the process is in, and in the groups around it: version 2, or
    the memory controller of version 1."""
    for line in groups:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not path or (controllers and "memory" not in controllers.split(",")):
            continue
        top, names = (root / "memory", V1) if controllers else (root, V2)
        inner = top / path.lstrip("/")
        for folder in (inner, *inner.parents):
            if folder == top or top in folder.parents:
                yield from _left_of(folder, *names)


def _left_of(group: Path, limit_file: str, used_file: str, cache: str) -> Iterator[int]:
    try:
        limit, used = (group / limit_file).read_text().strip(), int((group / used_file).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().strip().split("\n"))
    except (OSError, ValueError):
        return
    if limit != "max":
        yield int(limit) - used + int(stat.get(cache, 0))

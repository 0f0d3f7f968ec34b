"""What share of the device a step uses: useful floating-point operations over the operations that the device can do.

Forward and backward pass together cost 6 operations per parameter and token (2 forward, 4 backward; Kaplan et al. 2020,
arXiv 2001.08361, section 2.1), and attention costs 12 per layer, channel and (query, key) pair that is not masked:

    6 * body * tokens + 12 * layers * heads * head size * (query, key) pairs + 6 * hidden * vocabulary * picked tokens

``body`` are all parameters of the decoder but the embedding, which multiplies nothing, and ``lm_head``, which sees only
the tokens with weight (with ``hold_weight`` all of the answers). Padding, what gradient checkpointing and ``lm_head``
compute a second time, the reference and the rewards of masked tokens do not count as useful. All experts of a mixture
of experts are counted, so that its share comes out too high. A sliding window is counted as full attention.
"""

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from maskdpo.train.data.batch import Layout
from maskdpo.train.data.encoded_pair import EncodedPair
from maskdpo.train.data.measures import lengths, predicted
from maskdpo.train.model.decoder import attention_size, decoder_of, text_config
from maskdpo.train.model.fourbit import size_of

KNOWN_PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
}
"""Dense bfloat16 operations per second by NVIDIA's data sheets. The first entry counts that is part of the device's
name."""

SIZE, REPEATS = 1024, 3
"""Of the matrix product that measures other devices: some tens of milliseconds on two CPU cores."""
SLOW_S = 1.0
"""Products that would take longer are left out: bfloat16 needs many seconds on a processor without its instructions."""


@dataclass(frozen=True)
class ModelShape:
    """What the formula needs of a model."""

    body: int
    head: int
    """hidden * vocabulary."""
    attention: int
    """layers * heads * head size."""


def model_shape(model: PreTrainedModel) -> ModelShape:
    config = text_config(model)
    ends = {id(module.weight) for module in (model.get_input_embeddings(), model.get_output_embeddings())}
    return ModelShape(
        body=sum(size_of(p) for p in decoder_of(model).parameters() if id(p) not in ends),
        head=model.get_output_embeddings().weight.numel(),
        attention=config.num_hidden_layers * attention_size(config),
    )


def step_flops(shape: ModelShape, pairs: Sequence[EncodedPair], layout: Layout, *, every_token: bool = False) -> float:
    """Useful operations, forward and backward, of one pass over the pairs.

    Args:
        every_token: ``lm_head`` sees all tokens of the answers (``TrainConfig.predicts_every_token``).
    """
    return flops_of(shape, lengths(pairs), predicted(pairs, every_token), layout)


def flops_of(shape: ModelShape, lengths_N3: NDArray[np.int64], picked_N2: NDArray[np.int64], layout: Layout) -> float:
    """``step_flops`` from ``measures.lengths`` and ``measures.predicted``."""
    prompt_N, chosen_N, rejected_N = lengths_N3.T
    prompts = 1 if layout == "shared" else 2
    tokens_N = prompts * prompt_N + chosen_N + rejected_N
    seen_N = prompts * _triangle(prompt_N)
    for answer_N in (chosen_N, rejected_N):
        seen_N = seen_N + answer_N * prompt_N + _triangle(answer_N)
    tokens, seen, picked = int(tokens_N.sum()), int(seen_N.sum()), int(picked_N2.sum())
    return 6 * shape.body * tokens + 12 * shape.attention * seen + 6 * shape.head * picked


def _triangle(n_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """(query, key) pairs of n tokens under a causal mask."""
    pairs_N: NDArray[np.int64] = n_N * (n_N + 1) // 2
    return pairs_N


@functools.cache
def device_peak(device: str, compute: str) -> float:
    """Operations per second: by data sheet where there is one, else the best rate of a few square matrix products.

    Args:
        device: as torch names it, such as ``cpu`` or ``cuda:0``.
        compute: ``float32`` or ``bfloat16``.
    """
    if device.startswith("cuda") and compute == "bfloat16":
        name = torch.cuda.get_device_name(device)
        if listed := next((peak for part, peak in KNOWN_PEAKS.items() if part in name), None):
            return listed
    return _measured_peak(device, torch.bfloat16 if compute == "bfloat16" else torch.float32)


@torch.no_grad()
def _measured_peak(device: str, dtype: torch.dtype) -> float:
    size = SIZE if device.startswith("cpu") else 8 * SIZE
    # Random numbers, because GPUs clock higher on equal ones; a separate generator leaves the seeded draws as they are.
    random = torch.Generator(device).manual_seed(0)
    matrix = torch.rand(size, size, generator=random, device=device).to(dtype)
    best = 0.0
    small = size // 4  # twice, as the first product of all warms up
    for side in (small, small, *[size] * REPEATS):
        if side == size and 2 * size**3 > SLOW_S * best:
            break
        part = matrix[:side, :side]
        started = time.perf_counter()
        (part @ part)[0, 0].item()  # .item() waits for the device
        best = max(best, 2 * side**3 / (time.perf_counter() - started))
    return best

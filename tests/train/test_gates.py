"""Gated layers that keep less compute the same, with no further matrix product."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from train_helpers import random_model, random_pair

from maskdpo.train.config import TrainConfig
from maskdpo.train.data.batch import collate
from maskdpo.train.model.gates import gated_layers, recompute_gates, recomputes_gates
from maskdpo.train.model.logps import token_logps

PAIRS = [random_pair(np.random.default_rng(i), str(i)) for i in range(4)]


def run(model: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor, int, int]:
    """Log-probs, all gradients, operations of matrix products, and bytes kept for the backward pass."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter:
        with (
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16),
        ):
            logps_N = token_logps(model, collate(PAIRS, "shared"))
        logps_N.square().sum().backward()  # type: ignore[no-untyped-call]
    gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return logps_N.detach(), gradients, counter.get_total_flops(), sum(kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["llama", "gemma2", "granite"])
def test_the_same_bits_and_products_with_less_kept(kind: str, dtype: torch.dtype) -> None:
    sizes = {"intermediate_size": 512}
    plain, saving = random_model(kind, **sizes), random_model(kind, **sizes)
    assert len(gated_layers(saving)) == saving.config.num_hidden_layers
    recompute_gates(saving)
    (logps, gradients, flops, kept), (less_logps, less_gradients, less_flops, less_kept) = (
        run(model, dtype) for model in (plain, saving)
    )
    assert torch.equal(logps, less_logps)
    assert torch.equal(gradients, less_gradients)
    assert flops == less_flops > 0
    assert less_kept < 0.75 * kept


class Clamped(nn.Module):
    """Has the parts of a gated layer, and computes something else where gates are large."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(32, 8), nn.Linear(32, 8), nn.Linear(8, 32)
        self.act_fn = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.down_proj(self.act_fn(self.gate_proj(x).clamp(max=20)) * self.up_proj(x))
        return found


def test_a_layer_that_computes_something_else_is_left_alone() -> None:
    torch.manual_seed(0)
    model: Any = random_model()
    model.model.layers[0].mlp = Clamped()
    assert gated_layers(model) == [model.model.layers[1].mlp]


@pytest.mark.parametrize(
    ("settings", "saves"), [({}, True), ({"gradient_checkpointing": True}, False), ({"lora_r": 8}, False)]
)
def test_it_is_off_where_more_is_computed_again(settings: dict[str, Any], saves: bool) -> None:
    assert recomputes_gates(TrainConfig(model="m", **settings)) == saves

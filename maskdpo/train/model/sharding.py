"""The model split among the ranks (FSDP2): every rank holds a part of all weights, gradients and of AdamW's state."""

from collections.abc import Iterator, Mapping
from types import MethodType
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from maskdpo.models import load_model, meta_model
from maskdpo.train.data.batch import Batch
from maskdpo.train.model.decoder import decoder_layers
from maskdpo.train.model.logps import token_logps
from maskdpo.train.ranks import Ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_for(
    ranks: Ranks, name: str, *, dtype: torch.dtype, device: str, trust_remote_code: bool, options: Mapping[str, Any]
) -> "PreTrainedModel":
    """The model on the device. With many ranks, rank 0 has it on the CPU and the others have its shape: see
    ``shard``."""
    if ranks.first:
        where = device if ranks.size == 1 else "cpu"
        return load_model(name, dtype=dtype, device=where, trust_remote_code=trust_remote_code, options=options)
    model = meta_model(name, dtype=dtype, trust_remote_code=trust_remote_code)
    model.to_empty(device="cpu")  # pages that are never touched take no memory
    model.tie_weights()
    return model


def shard(model: "PreTrainedModel", compute: str, ranks: Ranks) -> None:
    """Split the weights among the ranks, layer by layer; rank 0's weights go to all of them.

    The shards keep their type, float32 where they train. A layer's weights are gathered for its forward and its
    backward pass, in the compute type; gradients are summed over ranks in float32.
    """
    if ranks.size == 1:
        return
    assert ranks.device is not None
    whole: dict[str, Any] = dict(model.state_dict()) if ranks.first else {}
    gathered = torch.bfloat16 if compute == "bfloat16" else None
    # Autocast decides what is computed in which type, as on a single device: inputs are not cast.
    policy = MixedPrecisionPolicy(param_dtype=gathered, reduce_dtype=torch.float32, cast_forward_inputs=False)
    mesh = init_device_mesh(ranks.device.split(":")[0], (ranks.size,))
    for layer in decoder_layers(model, "`nproc`"):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    # The embedding stays float32, and with it the residual stream. The root's weights are freed after a forward pass
    # too, so that code that reads parameters always finds the shards.
    root = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    fully_shard(model, mesh=mesh, mp_policy=root, reshard_after_forward=True)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # gradients are sums: the loss is divided by all pairs of the step
            module.set_force_sum_reduction_for_comms(True)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, whole, options=options)
    for buffer in model.buffers():
        dist.broadcast(buffer, 0)
    # ``token_logps`` calls the decoder and the head, not ``model.forward``, which is where weights would be gathered.
    model.token_logps = MethodType(token_logps, model)
    register_fsdp_forward_method(model, "token_logps")


def logps_of(model: "PreTrainedModel", batch: Batch) -> Tensor:
    """``token_logps`` of a model that may be split among ranks: [N] float32."""
    if isinstance(model, FSDPModule):
        return cast(Tensor, cast(Any, model).token_logps(batch))
    return token_logps(model, batch)


def whole_weights(model: "PreTrainedModel") -> Iterator[tuple[str, Tensor]]:
    """The weights that train, put together from all ranks, one by one. Every rank must iterate over all of them."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tensor = parameter.detach()
            yield name, tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

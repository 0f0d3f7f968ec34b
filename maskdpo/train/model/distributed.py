"""Many processes, one run: who takes which pairs, how the model is split among them, how they fail as one.

A process is a rank; each has one device. Weights, gradients and AdamW are split among all ranks (FSDP2), and so are the
pairs of a step. Outside ``torchrun`` there is one rank, ``ALONE``, for which every function here does nothing.
"""

import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor

from maskdpo import console
from maskdpo.errors import UserError
from maskdpo.models import default_device, load_model, meta_model
from maskdpo.train.data.batch import Batch, Layout, micro_batches
from maskdpo.train.data.encode import EncodedPair
from maskdpo.train.model.decoder import decoder_layers
from maskdpo.train.model.logps import token_logps

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TIMEOUT = timedelta(hours=1)
"""How long ranks wait for each other: rank 0 loads the model and writes the result while the others stand still. A rank
that dies is noticed at once by what started it."""

PATIENCE_S = 10.0
"""How long a rank that did not fail first waits to be ended, so that the one that did can say why."""

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among all of the run."""

    rank: int = 0
    size: int = 1
    device: str | None = None
    """Its device; None where the caller may choose."""

    @property
    def first(self) -> bool:
        """Whether this is the rank that prints and writes."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all ranks, on every rank; the same to the last bit on all of them."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def any(self, flag: bool) -> bool:
        """Whether it is so on any rank; every rank must ask."""
        return bool(self.sum(torch.tensor(int(flag))).item())

    def from_first(self, value: T) -> T:
        """What rank 0 has, on every rank."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box)
        return box[0]

    def largest(self, number: float) -> float:
        value = torch.tensor(number, dtype=torch.float64)
        if self.size > 1:
            dist.all_reduce(value, dist.ReduceOp.MAX)
        return value.item()


ALONE = Ranks()


@contextmanager
def joined(device: str | None = None) -> Iterator[Ranks]:
    """Meet the other ranks that ``torchrun`` has started; outside of it there are none.

    An error on one rank ends all: the first to fail says why, the others end without a word. Ranks other than the first
    print nothing, from now on.

    Args:
        device: what the user asks for; of many ranks only ``cpu`` can be, as each has a GPU of its own otherwise.

    Raises:
        UserError: also where a rank has no device of its own, or the connection to the others is lost.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield ALONE
        return
    store, rank, size = next(rendezvous("env://"))
    _be_quiet(rank > 0)
    try:
        ranks = Ranks(rank, size, _own_device(device))
        backend = "gloo" if ranks.device == "cpu" else "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        yield ranks
        dist.barrier()
        dist.destroy_process_group()
    except (Exception, KeyboardInterrupt) as error:  # raised again by the first to fail
        lost = _connection_lost(error)
        if lost:
            time.sleep(PATIENCE_S)  # whoever has started us notices a dead rank, ends us, and says so
        if not _is_first_to_fail(store):
            time.sleep(PATIENCE_S)
            raise SystemExit(2) from None
        _be_quiet(False)
        if lost:
            raise UserError(
                f"the connection to another process is lost ({str(error).splitlines()[0]}). Repeat the same command to "
                "go on from the last checkpoint"
            ) from None
        raise


def _is_first_to_fail(store: Any) -> bool:
    """Without a launcher rank 0 holds the store: where that is gone, rank 0 has failed before."""
    try:
        return bool(store.add("maskdpo/failures", 1) == 1)
    except (dist.DistError, RuntimeError):
        return False


def _be_quiet(quiet: bool) -> None:
    console.out.quiet = console.err.quiet = quiet
    if quiet:
        warnings.simplefilter("ignore")


def _own_device(wanted: str | None) -> str:
    """A GPU for each process of the machine, or the CPU for all of them."""
    if wanted not in (None, "cpu"):
        raise UserError(
            f"--device {wanted}: each of several processes takes the GPU of its own number; leave --device out, or say "
            "cpu for all of them"
        )
    if wanted == "cpu" or default_device() != "cuda":
        return "cpu"
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local >= torch.cuda.device_count():
        raise UserError(
            f"{os.environ.get('LOCAL_WORLD_SIZE', local + 1)} processes on this machine, which has "
            f"{torch.cuda.device_count()} GPUs: start one process a GPU"
        )
    torch.cuda.set_device(local)
    return f"cuda:{local}"


def _connection_lost(error: BaseException) -> bool:
    """Whether an error says no more than that another rank is gone."""
    gloo = isinstance(error, RuntimeError) and "gloo" in str(error)
    return gloo or isinstance(error, dist.DistBackendError | dist.DistNetworkError | dist.DistStoreError)


def parts(pairs: Sequence[EncodedPair], size: int) -> list[list[EncodedPair]]:
    """One part for each rank, of about as many tokens: the longest pair left goes to the rank with the fewest."""
    found: list[list[EncodedPair]] = [[] for _ in range(size)]
    tokens = [0] * size
    for pair in sorted(pairs, key=lambda pair: (-pair.tokens, pair.id)):
        rank = tokens.index(min(tokens))
        found[rank].append(pair)
        tokens[rank] += pair.tokens
    return found


def passes(
    pairs: Sequence[EncodedPair], tokens_per_batch: int, layout: Layout, ranks: Ranks
) -> list[tuple[list[EncodedPair], bool]]:
    """The forward passes of this rank over its part of the pairs, and whether each counts.

    All ranks make the same number, because every pass gathers the weights from all of them: a rank with less to do goes
    over the shortest pair once more, without counting it.
    """
    groups = [micro_batches(part, tokens_per_batch, layout) for part in parts(pairs, ranks.size)]
    own = groups[ranks.rank]
    idle = max(len(group) for group in groups) - len(own)
    filler = [min(pairs, key=lambda pair: (pair.tokens, pair.id))]
    return [(group, True) for group in own] + [(filler, False)] * idle


def load_for(ranks: Ranks, name: str, *, dtype: torch.dtype, device: str, trust_remote_code: bool) -> "PreTrainedModel":
    """The model on the device; of many ranks the first has it on the CPU, the others only its shape: see ``shard``."""
    if ranks.first:
        where = device if ranks.size == 1 else "cpu"
        return load_model(name, dtype=dtype, device=where, trust_remote_code=trust_remote_code)
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
    # What is computed in which type is left to autocast, as on a single device: inputs are not cast.
    policy = MixedPrecisionPolicy(param_dtype=gathered, reduce_dtype=torch.float32, cast_forward_inputs=False)
    mesh = init_device_mesh(ranks.device.split(":")[0], (ranks.size,))
    for layer in decoder_layers(model, "--nproc"):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    # The embedding stays float32, and with it the residual stream. The root's weights are freed after a forward pass
    # too: whoever reads parameters always finds the shards.
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


def clip_gradients(model: "PreTrainedModel", largest: float) -> float:
    """Scale gradients down to the norm ``largest``, taken over all shards; the norm before is returned."""
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    torch.nn.utils.clip_grads_with_norm_(parameters, largest, norm)
    return norm.item()


def whole_weights(model: "PreTrainedModel") -> Iterator[tuple[str, Tensor]]:
    """The weights that train, whole, one after the other. Every rank must go through all of them."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tensor = parameter.detach()
            yield name, tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

"""The model that is trained: loaded, checked against the pairs, without dropout, and with the adapter of ``lora_r``."""

import os
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from maskdpo.console import say
from maskdpo.devices import compute_type
from maskdpo.errors import UserError
from maskdpo.models import load_model
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.batch import Layout
from maskdpo.train.data.encoded_pair import EncodedPair
from maskdpo.train.data.measures import largest_id
from maskdpo.train.model.adapter import add_adapter, weight_type
from maskdpo.train.model.decoder import (
    check_has_head,
    check_lengths,
    checkpoint_layers,
    decoder_layers,
    freeze_the_rest,
    in_float32,
    text_config,
    widen_weights,
)
from maskdpo.train.model.faster import use_fastest_attention
from maskdpo.train.model.fourbit import check_widening, compute_in, loading_options
from maskdpo.train.model.gates import recompute_gates, recomputes_gates
from maskdpo.train.model.memory import keep_freed_memory
from maskdpo.train.model.probe import check_nothing_is_random, choose_layout, on_all_cores
from maskdpo.train.model.sharding import load_for, shard, whole_weights
from maskdpo.train.ranks import ALONE, Ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Policy:
    """A model before its first step."""

    model: "PreTrainedModel"
    layout: Layout
    adapter: Any = None
    """The ``PeftModel`` around ``model``, with ``lora_r``."""


def load_policy(config: TrainConfig, pairs: Sequence[EncodedPair], device: str, ranks: Ranks = ALONE) -> Policy:
    """Load ``config.model`` for these pairs, split among the ranks.

    Raises:
        UserError: it cannot be loaded, does not match the tokenizer, or its log-probs cannot be computed exactly.
    """
    torch.manual_seed(config.seed)
    if device == "cpu":
        keep_freed_memory()
    model = load_for(
        ranks,
        config.model,
        dtype=weight_type(config, device),
        device=device,
        trust_remote_code=config.trust_remote_code,
        options=loading_options(device) if config.load_in_4bit else {},
    )
    compute_in(model, weight_type(config, device))
    if config.load_in_4bit:
        check_widening(model)
    model.eval()  # for the whole run: dropout, dropped layers and router jitter belong to training mode
    compute = compute_type(config.dtype, device)
    if config.weights == "bfloat16" and compute == "float32":
        widen_weights(model, compute)  # first, so that the checks below compute so too
    check_fit(model, pairs, config.model)
    with on_all_cores(ranks):
        layout = ranks.from_first(_probed(model, pairs) if ranks.first else "padded")
        if layout != "shared":
            say(
                f"{model.config.model_type}: both answers of a pair cannot share one row of this model, so each "
                "repeats the prompt (slower, same result)"
            )
        use_fastest_attention(model, pairs, layout, config, device, ranks)
    if config.weights == compute == "bfloat16":
        widen_weights(model, compute)
    freeze_the_rest(model)
    adapter = add_adapter(model, config) if config.lora_r else None
    model.eval()  # the adapter's layers too
    if recomputes_gates(config):
        recompute_gates(model)
    if config.gradient_checkpointing:
        checkpoint_layers(model)
    if config.compile:
        _compile_layers(model, device)
    shard(model, compute, ranks)
    return Policy(model, layout, adapter)


def _probed(model: "PreTrainedModel", pairs: Sequence[EncodedPair]) -> Layout:
    layout = choose_layout(model, pairs)
    # A processor without the instructions of bfloat16 computes in it a hundred times slower.
    with in_float32(model) if model.device.type == "cpu" else nullcontext():
        check_nothing_is_random(model, pairs, layout)
    return layout


def whole_policy(policy: Policy, config: TrainConfig, ranks: Ranks) -> Policy:
    """The policy in one piece on the CPU of rank 0, for the export. Every rank must call.

    An adapter of weights in 4 bits is put into the base model as it was before it was rounded to them.
    """
    if ranks.size == 1 and not (config.load_in_4bit and config.merge):
        return policy
    whole = policy
    if ranks.first:
        dtype = torch.float32 if config.load_in_4bit else weight_type(config, policy.model.device.type)
        model = load_model(config.model, dtype=dtype, device="cpu", trust_remote_code=config.trust_remote_code)
        adapter = add_adapter(model, config) if config.lora_r else None
        whole = Policy(model, policy.layout, adapter)
    for name, weight in whole_weights(policy.model):
        if ranks.first:
            whole.model.get_parameter(name).data.copy_(weight)
    return whole


def check_fit(model: "PreTrainedModel", pairs: Sequence[EncodedPair], name: str) -> None:
    """Check what can be checked by sizes alone, so that the model may be on the meta device.

    Raises:
        UserError: it is no decoder, does not match the tokenizer, or has fewer positions than the pairs have tokens.
    """
    check_has_head(model, name)
    size = model.get_input_embeddings().weight.shape[0]
    largest = largest_id(pairs)
    if largest >= size:
        raise UserError(
            f"{name}: the tokenizer gives token id {largest}, the model has {size} embeddings: they do not match"
        )
    check_lengths(text_config(model), pairs, name)


def _compile_layers(model: "PreTrainedModel", device: str) -> None:
    """Compile the layers, not the model: they are alike, so that one compilation serves all of them.

    Raises:
        UserError: what torch.compile needs is not installed.
    """
    compiler = os.environ.get("CXX", "g++")
    if device == "cpu" and shutil.which(compiler) is None:
        raise UserError(f"`compile`: no C++ compiler {compiler!r} is installed; install g++, or leave `compile` out")
    for layer in decoder_layers(model, "`compile`"):
        layer.compile(dynamic=True)

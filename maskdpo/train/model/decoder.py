"""How a loaded model is built: its decoder, the decoder's layers and attention, and how long its input may be. For a
model that also takes images (Gemma 3, Qwen VL) all this is the text part, which is trained."""

import functools
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from maskdpo.errors import UserError
from maskdpo.models import rotary_settings
from maskdpo.train.data.encoded_pair import EncodedPair
from maskdpo.train.data.measures import longest
from maskdpo.train.model.fourbit import compute_in

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")
"""Settings that limit how far back some layers see, in tokens."""

NARROW = (torch.bfloat16, torch.float16)

NAMED = 3
"""Pairs that a message names; it counts the others."""


def text_config(model: "PreTrainedModel") -> Any:
    """The configuration of the decoder."""
    return model.config.get_text_config()


def decoder_of(model: "PreTrainedModel") -> Any:
    """The module that turns token ids into the hidden states that the output embedding is applied to."""
    found = model.get_decoder()
    if found is not model:
        return found
    embedding = model.get_input_embeddings()  # Llama 4 does not mark its decoder
    return next((part for part in model.children() if any(inner is embedding for inner in part.modules())), model)


def check_has_head(model: "PreTrainedModel", name: str) -> None:
    """
    Raises:
        UserError: there is no output embedding behind a decoder, so that log-probs cannot be computed token by token.
    """
    if model.get_output_embeddings() is None or decoder_of(model) is model:
        raise UserError(f"{name}: {type(model).__name__} has no decoder with an output embedding, which training needs")


def decoder_layers(model: "PreTrainedModel", purpose: str) -> list[nn.Module]:
    """The layers of the decoder: the list of modules that holds most of its parameters, under any name.

    Raises:
        UserError: there is no such list; ``purpose`` is the option that needs it.
    """
    layers = _layers(model)
    if not layers:
        raise UserError(f"{purpose}: the layers of {model.config.model_type} cannot be told apart; leave it out")
    return layers


def _layers(model: "PreTrainedModel") -> list[nn.Module]:
    lists: list[Any] = [module for module in decoder_of(model).modules() if isinstance(module, nn.ModuleList)]
    return list(max(lists, key=lambda layers: sum(p.numel() for p in layers.parameters()), default=()))


def largest_layer(model: "PreTrainedModel") -> int:
    """The parameters of the largest layer of the decoder; 0 where its layers cannot be told apart."""
    return max((sum(p.numel() for p in layer.parameters()) for layer in _layers(model)), default=0)


@contextmanager
def in_float32(model: "PreTrainedModel") -> Iterator[None]:
    """Compute in float32 with weights of 16 or 4 bits. To save memory, the weights of a layer are widened while the
    layer runs; all other weights are widened throughout. Afterwards the model has the same tensors as before."""
    if not any(tensor.dtype in NARROW for tensor in _tensors(model)):
        yield
        return
    layers = _layers(model)
    inner = {id(tensor) for layer in layers for tensor in _tensors(layer)}
    own = [vars(layer).get("forward") for layer in layers]
    compute_in(model, torch.float32)
    for layer in layers:
        layer.forward = functools.partial(_widened_forward, layer, layer.forward)
    try:
        with _widened([tensor for tensor in _tensors(model) if id(tensor) not in inner]):
            yield
    finally:
        compute_in(model, model.dtype)
        for layer, forward in zip(layers, own, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward


def _widened_forward(layer: nn.Module, forward: Any, *args: Any, **kwargs: Any) -> Any:
    with _widened(_tensors(layer)):
        return forward(*args, **kwargs)


@contextmanager
def _widened(tensors: Sequence[Tensor]) -> Iterator[None]:
    narrow = [(tensor, tensor.data) for tensor in tensors if tensor.dtype in NARROW]
    for tensor, data in narrow:
        tensor.data = data.float()
    try:
        yield
    finally:
        for tensor, data in narrow:
            tensor.data = data


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def widen_weights(model: "PreTrainedModel", compute: str) -> None:
    """Let weights in bfloat16 enter the arithmetic as float32 weights of the same values would.

    What is computed in float32 takes a float32 copy of a module's weights, through which gradients flow, and an
    embedding returns float32, and with it the residual stream. Under autocast (``compute`` bfloat16) matrices stay as
    they are, because autocast would round a copy back.
    """
    for module in model.modules():
        own = dict(module.named_parameters(recurse=False))
        names = [name for name, p in own.items() if p.dtype in NARROW and (compute == "float32" or p.ndim < 2)]
        if isinstance(module, nn.Embedding):
            module.forward = functools.partial(_result_in_float32, module.forward)  # type: ignore[method-assign]
        elif names and not (compute == "bfloat16" and isinstance(module, nn.Linear)):
            module.forward = functools.partial(_with_wide_weights, module, names, module.forward)
            module.computes_in = torch.float32  # for ``logps.py``


def _result_in_float32(forward: Any, *args: Any, **kwargs: Any) -> Tensor:
    result: Tensor = forward(*args, **kwargs)
    return result.float()


def _with_wide_weights(module: nn.Module, names: Sequence[str], forward: Any, *args: Any, **kwargs: Any) -> Any:
    """Entries of ``__dict__`` are found before parameters of the same name."""
    try:
        for name in names:
            module.__dict__[name] = getattr(module, name).float()
        return forward(*args, **kwargs)
    finally:
        for name in names:
            module.__dict__.pop(name, None)


def checkpoint_layers(model: "PreTrainedModel") -> None:
    """Recompute every layer in the backward pass instead of keeping what it computes (gradient checkpointing).

    The checkpoints of transformers are not used: they work in training mode only, and not for every architecture.
    """
    for layer in decoder_layers(model, "`gradient_checkpointing`"):
        layer.forward = functools.partial(_checkpointed, layer.forward)


def _checkpointed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def freeze_the_rest(model: "PreTrainedModel") -> None:
    """Let only decoder and output embedding train; modules that no pair reaches, such as a vision tower, are frozen."""
    used = {id(p) for part in _trained_parts(model) for p in part.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in used:
            parameter.requires_grad_(False)


def beside_the_decoder(model: "PreTrainedModel") -> list[str]:
    """The names of the outermost modules that no pair reaches, such as a vision tower; none for most models."""
    used = {id(module) for part in _trained_parts(model) for module in part.modules()}
    found: list[str] = []
    for name, module in model.named_modules():
        reached = any(id(inner) in used for inner in module.modules())
        if not reached and not name.startswith(tuple(f"{outer}." for outer in found)):
            found.append(name)
    return found


def _trained_parts(model: "PreTrainedModel") -> list[nn.Module]:
    return [decoder_of(model), model.get_output_embeddings()]


def attention_size(config: Any) -> int:
    """heads * head size; 0 for a model without attention."""
    heads = int(getattr(config, "num_attention_heads", None) or 0)
    return heads * int(getattr(config, "head_dim", None) or config.hidden_size // max(1, heads))


def takes_positions(model: "PreTrainedModel") -> bool:
    """Whether the decoder takes the position of every token as an input; else it counts positions along the row."""
    return "position_ids" in inspect.signature(decoder_of(model).forward).parameters


def window_of(config: Any) -> int | None:
    """The smallest window of any layer, in tokens; None for a model without windows."""
    found = [size for name in WINDOWS if isinstance(size := getattr(config, name, None), int) and size > 0]
    return min(found, default=None)


def may_share_prompts(model: "PreTrainedModel") -> bool:
    """Whether position ids and a 4-D mask alone decide which token attends to which: the decoder takes positions, its
    attention is PyTorch's, and it has no sliding window, chunk, recurrent layer or ALiBi (a bias by distance)."""
    config = text_config(model)
    if not takes_positions(model) or config._attn_implementation == "eager" or getattr(config, "alibi", False):
        return False
    layers = getattr(config, "layer_types", None)
    if layers is not None:
        return set(layers) == {"full_attention"}
    return window_of(config) is None and not getattr(config, "layers_block_type", None)


def check_lengths(config: Any, pairs: Sequence[EncodedPair], name: str) -> None:
    """
    Args:
        config: the decoder's (``text_config``).

    Raises:
        UserError: prompt and answer together have more tokens than the model has positions, or so many that its rotary
            frequencies would depend on what else is in the pass.
    """
    for limit, why in _limits(config):
        longest_N = longest(pairs)
        beyond = np.flatnonzero(longest_N > limit).tolist()
        if beyond:
            some = ", ".join(pairs[i].id for i in beyond[:NAMED]) + (" and others" if len(beyond) > NAMED else "")
            raise UserError(
                f"{name}: prompt and answer of {len(beyond)} of {len(pairs)} pairs ({some}) have more than {limit} "
                f"tokens, up to {longest_N.max()}; {why}. Cut them with `max_length` {limit}, or take another model"
            )


def _limits(config: Any) -> list[tuple[int, str]]:
    """Largest numbers of tokens, each with what happens beyond it."""
    ropes = rotary_settings(config)
    kinds = {str(rope.get("rope_type", "default")) for rope in ropes}
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "max_seq_len", None)
    found = []
    for rope in ropes:
        kind = rope.get("rope_type", "default")
        if kind == "longrope" or "dynamic" in kind:
            limit = min(n for n in (rope.get("original_max_position_embeddings"), positions) if n)
            found.append((limit, f"from there on its rotary embedding ({kind}) changes for the whole pass"))
    if positions and kinds <= {"default", "proportional"}:
        found.append((positions, "the model has positions for no more"))
    return found

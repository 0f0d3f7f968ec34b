"""Log-probabilities of the predicted tokens, and nothing else: no [tokens, vocabulary] tensor outlives its chunk."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from maskdpo.train.data.batch import Batch
from maskdpo.train.model.decoder import decoder_of, takes_positions, text_config
from maskdpo.train.model.flex import block_mask, uses_flex_attention

LOGITS = 2**27
"""Logits that exist at the same time: half a gigabyte of float32, 900 tokens of a vocabulary of 150,000."""

FACTORS = ("logit_scale", "lm_head_multiplier", "output_multiplier")
"""Settings that multiply the logits (Cohere, Falcon H1 and others)."""

CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""Settings c that make c tanh(z / c) of a logit z (Gemma, RecurrentGemma, xLSTM)."""


def token_logps(model: PreTrainedModel, batch: Batch) -> Tensor:
    """log pi(target | what precedes it), natural logarithm.

    Returns:
        [N] float32, in the order of ``batch.target_N``; gradients flow where they are enabled.
    """
    hidden_ND = hidden_states(model, batch)
    *others, last = chunks(len(batch.target_N), model.get_output_embeddings().weight.shape[0])
    parts = []
    for some in (*others, last):
        chunk = (model, hidden_ND[some], batch.target_N[some])
        # The backward pass begins with the last chunk, so keeping its logits costs no memory. The others are computed
        # again, one at a time: that costs a matrix product and saves keeping [N, vocabulary].
        kept = some is last or not torch.is_grad_enabled()
        parts.append(_chunk_logps(*chunk) if kept else checkpoint(_chunk_logps, *chunk, use_reentrant=False))
    return torch.cat(parts)


def hidden_states(model: PreTrainedModel, batch: Batch) -> Tensor:
    """[N, D]: what the output layer predicts each token of the answers from."""
    positions = {"position_ids": batch.position_ids_RL} if takes_positions(model) else {}
    in_blocks = batch.layout == "shared" and uses_flex_attention(model)
    mask = block_mask(batch.segments_RL) if in_blocks else batch.attention_mask()
    hidden_RLD = decoder_of(model)(
        input_ids=batch.input_ids_RL, attention_mask=mask, use_cache=False, **positions
    ).last_hidden_state
    hidden_ND: Tensor = hidden_RLD[batch.row_N, batch.column_N]
    return hidden_ND


def chunks(tokens: int, vocabulary: int) -> list[slice]:
    """Parts of the predicted tokens with at most ``LOGITS`` logits each; all but the first are full."""
    size = max(1, LOGITS // vocabulary)
    ends = range(tokens, 0, -size)
    return [slice(max(0, end - size), end) for end in reversed(ends)]


def _chunk_logps(model: PreTrainedModel, hidden_ND: Tensor, target_N: Tensor) -> Tensor:
    logps_N: Tensor = _PickedLogps.apply(logits_of(model, hidden_ND), target_N)  # type: ignore[no-untyped-call]
    return logps_N


def logits_of(model: PreTrainedModel, hidden_ND: Tensor) -> Tensor:
    """[N, V]: what the model says of every token of its vocabulary, before the softmax."""
    head = model.get_output_embeddings()
    if not torch.is_autocast_enabled(hidden_ND.device.type):  # Mamba's residual stream is float32 for any weights
        hidden_ND = hidden_ND.to(getattr(head, "computes_in", head.weight.dtype))
    return _post_process(head(hidden_ND), text_config(model))


class _PickedLogps(torch.autograd.Function):
    """log_softmax(logits)[target] in float32, with one [N, V] tensor of float32 at a time, written over in place: over
    the logits themselves where they are float32.

    Automatic differentiation would keep four of them, and filling memory costs more than the arithmetic.
    """

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, target_N: Tensor) -> Tensor:
        exact_NV = logits_NV.float()
        largest_N = exact_NV.amax(1)
        picked_N = exact_NV.gather(1, target_N[:, None])[:, 0]
        exps_NV = exact_NV.sub_(largest_N[:, None]).exp_()
        sum_N = exps_NV.sum(1)
        ctx.dtype = logits_NV.dtype
        ctx.save_for_backward(exps_NV if exact_NV is logits_NV else logits_NV, target_N, largest_N, sum_N)
        return picked_N - (sum_N.log() + largest_N)

    @staticmethod
    def backward(ctx: Any, *grad_N: Tensor) -> tuple[Tensor, None]:
        """d log softmax(z)[t] / dz = onehot(t) - softmax(z)."""
        kept_NV, target_N, largest_N, sum_N = ctx.saved_tensors
        in_place = ctx.dtype == torch.float32
        exps_NV = kept_NV if in_place else (kept_NV.float() - largest_N[:, None]).exp_()
        grad_NV = exps_NV.mul_(-(grad_N[0] / sum_N)[:, None])
        grad_NV.scatter_add_(1, target_N[:, None], grad_N[0][:, None])
        return grad_NV.to(ctx.dtype), None


def _post_process(logits_NV: Tensor, config: Any) -> Tensor:
    """Scaling and capping of logits behind the output embedding, as some architectures do; ``probe.py`` checks it."""
    if scaling := getattr(config, "logits_scaling", None):  # Granite divides by it, HyperCLOVA X multiplies
        logits_NV = logits_NV * scaling if config.model_type.startswith("hyperclovax") else logits_NV / scaling
    for name in FACTORS:
        if factor := getattr(config, name, None):
            logits_NV = logits_NV * factor
    for name in CAPS:
        if cap := getattr(config, name, None):
            logits_NV = torch.tanh(logits_NV / cap) * cap
    return logits_NV

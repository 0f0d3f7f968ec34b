"""Log-probabilities of the predicted tokens, and nothing else: no [tokens, vocabulary] tensor outlives its chunk."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from maskdpo.errors import UserError
from maskdpo.train.batch import Batch, Layout, collate
from maskdpo.train.encode import EncodedPair

CHUNK = 512
"""Predicted tokens whose logits exist at the same time."""

PROBE_TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 0.25, torch.float16: 0.05}
"""Largest difference of a log-prob that the two layouts may show, by compute type."""


def token_logps(model: PreTrainedModel, batch: Batch) -> Tensor:
    """log pi(target | what precedes it), natural logarithm.

    Returns:
        [N] float32, in the order of ``batch.target_N``; gradients flow where they are enabled.
    """
    hidden_RLD = model.get_decoder()(
        input_ids=batch.input_ids_RL,
        attention_mask=batch.attention_mask(),
        position_ids=batch.position_ids_RL,
        use_cache=False,
    ).last_hidden_state
    hidden_ND = hidden_RLD[batch.row_N, batch.column_N]
    parts = zip(torch.split(hidden_ND, CHUNK), torch.split(batch.target_N, CHUNK), strict=True)
    # Recomputing a chunk's logits in the backward pass costs a matrix product and saves keeping [N, vocabulary].
    return torch.cat([checkpoint(_chunk_logps, model, h, t, use_reentrant=False) for h, t in parts])


def _chunk_logps(model: PreTrainedModel, hidden_ND: Tensor, target_N: Tensor) -> Tensor:
    logits_NV = _post_process(model.get_output_embeddings()(hidden_ND), model.config)
    logps_N: Tensor = _PickedLogps.apply(logits_NV, target_N)  # type: ignore[no-untyped-call]
    return logps_N


class _PickedLogps(torch.autograd.Function):
    """log_softmax(logits)[target] in float32, with one [N, V] tensor of float32 at a time, written over in place.

    Automatic differentiation would keep four of them, and filling memory costs more than the arithmetic.
    """

    @staticmethod
    def forward(ctx: Any, logits_NV: Tensor, target_N: Tensor) -> Tensor:
        exact_NV = logits_NV.float()
        largest_N = exact_NV.amax(1)
        picked_N = exact_NV.gather(1, target_N[:, None])[:, 0]
        # a copy already where the logits are of another type
        shifted_NV = exact_NV - largest_N[:, None] if exact_NV is logits_NV else exact_NV.sub_(largest_N[:, None])
        logsumexp_N = shifted_NV.exp_().sum(1).log_().add_(largest_N)
        ctx.save_for_backward(logits_NV, target_N, logsumexp_N)
        return picked_N - logsumexp_N

    @staticmethod
    def backward(ctx: Any, *grad_N: Tensor) -> tuple[Tensor, None]:
        """d log softmax(z)[t] / dz = onehot(t) - softmax(z)."""
        logits_NV, target_N, logsumexp_N = ctx.saved_tensors
        grad_NV = (logits_NV.float() - logsumexp_N[:, None]).exp_().mul_(-grad_N[0][:, None])
        grad_NV.scatter_add_(1, target_N[:, None], grad_N[0][:, None])
        return grad_NV.to(logits_NV.dtype), None


def _post_process(logits_NV: Tensor, config: Any) -> Tensor:
    """What some architectures do to the logits behind ``lm_head`` (Granite, Cohere, Gemma); checked at the start."""
    if scaling := getattr(config, "logits_scaling", None):
        logits_NV = logits_NV / scaling
    if scale := getattr(config, "logit_scale", None):
        logits_NV = logits_NV * scale
    if cap := getattr(config, "final_logit_softcapping", None):
        logits_NV = torch.tanh(logits_NV / cap) * cap
    return logits_NV


def choose_layout(model: PreTrainedModel, pair: EncodedPair) -> Layout:
    """The layout that is exact for this model: found by comparing log-probs on a real pair, not assumed.

    Raises:
        UserError: neither layout reproduces the model's own forward pass.
    """
    expected = _plain_logps(model, pair)
    tolerance = PROBE_TOLERANCE[next(model.parameters()).dtype]
    layouts: tuple[Layout, ...] = ("shared", "padded") if _is_plain_full_attention(model.config) else ("padded",)
    for layout in layouts:
        batch = collate([pair], layout, every_token=True).to(str(model.device))
        with torch.no_grad():
            difference = (token_logps(model, batch) - expected).abs().max().item()
        if difference <= tolerance:
            return layout
    raise UserError(
        f"{model.config.model_type}: its log-probs differ by {difference:.3g} from those of its own forward pass; "
        "maskdpo does not know what this architecture does to its logits"
    )


def _is_plain_full_attention(config: Any) -> bool:
    """Whether a 4-D mask says all about who sees whom: no sliding window, no chunks, no recurrent layer."""
    layers = getattr(config, "layer_types", None)
    if layers is not None:
        return set(layers) == {"full_attention"}
    return not any(
        getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size", "layers_block_type")
    )


@torch.no_grad()
def _plain_logps(model: PreTrainedModel, pair: EncodedPair) -> Tensor:
    """Log-probs of all answer tokens by the model's ordinary forward pass, one answer at a time, unpadded."""
    parts = []
    for answer in (pair.chosen, pair.rejected):
        ids = torch.tensor([[*pair.prompt_ids, *answer.ids]], device=model.device)
        logps_TV = model(input_ids=ids, use_cache=False).logits[0, len(pair.prompt_ids) - 1 : -1].float().log_softmax(1)
        parts.append(logps_TV.gather(1, ids[0, len(pair.prompt_ids) :, None])[:, 0])
    return torch.cat(parts)

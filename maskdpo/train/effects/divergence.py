"""How far a model has moved from another one, token by token, on given answers.

Shape letters: N predicted tokens, V vocabulary, A answers (pair i: before 2i + 1, after 2i).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskdpo.console import progress
from maskdpo.devices import compute_type
from maskdpo.errors import UserError
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.batch import Batch, Layout, collate, micro_batches
from maskdpo.train.data.encoded_pair import EncodedPair
from maskdpo.train.model.load import load_policy
from maskdpo.train.model.logps import chunks, hidden_states, logits_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Sums = dict[str, NDArray[np.float64]]
"""By the id of a pair: [2 sides, (divergence, tokens)], summed over the tokens of chosen and rejected."""


def divergences(pairs: Sequence[EncodedPair], config: TrainConfig, reference: str, device: str) -> Sums:
    """The divergence of ``config.model`` from ``reference`` at every token of both answers that has weight, summed.

    Raises:
        UserError: a model cannot be loaded, its log-probs cannot be computed exactly, or the vocabularies differ.
    """
    trained = load_policy(config, pairs, device)
    first = load_policy(config.model_copy(update={"model": reference}), pairs, device)
    sizes = [one.model.get_output_embeddings().weight.shape[0] for one in (trained, first)]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"{config.model} and {reference} have vocabularies of {sizes[0]:,} and {sizes[1]:,} tokens: a divergence "
            "by token needs one vocabulary"
        )
    layout: Layout = "shared" if trained.layout == first.layout == "shared" else "padded"
    bfloat16 = compute_type(config.dtype, device) == "bfloat16"
    found: Sums = {}
    with (
        progress("divergence", len(pairs), "prompts") as bar,
        torch.no_grad(),
        torch.autocast(trained.model.device.type, dtype=torch.bfloat16, enabled=bfloat16),
    ):
        for group in micro_batches(pairs, config.tokens_per_batch, layout):
            batch = collate(group, layout).to(str(trained.model.device))
            found |= _by_pair(group, batch, divergence_of(trained.model, first.model, batch))
            bar.advance(len(group))
    return found


def divergence_of(model: "PreTrainedModel", reference: "PreTrainedModel", batch: Batch) -> Tensor:
    """[N] float32: the Kullback-Leibler divergence sum_v pi(v) (log pi(v) - log pi_ref(v)) in nats, at every predicted
    token: over the whole vocabulary, so it is never negative and does not depend on which token was drawn."""
    hidden, hidden_ref = hidden_states(model, batch), hidden_states(reference, batch)
    parts = []
    for some in chunks(len(batch.target_N), model.get_output_embeddings().weight.shape[0]):
        logps_NV = logits_of(model, hidden[some]).float().log_softmax(1)
        ref_NV = logits_of(reference, hidden_ref[some]).float().log_softmax(1)
        parts.append((logps_NV.exp() * (logps_NV - ref_NV)).sum(1))
    return torch.cat(parts).clamp_min(0)


def _by_pair(pairs: Sequence[EncodedPair], batch: Batch, divergence_N: Tensor) -> Sums:
    both_2N = torch.stack([divergence_N.double(), torch.ones_like(divergence_N, dtype=torch.double)])
    sums_2A = torch.zeros(2, 2 * len(pairs), dtype=torch.double, device=divergence_N.device)
    sums_2A.index_add_(1, batch.answer_N, both_2N)
    sums = sums_2A.T.reshape(len(pairs), 2, 2).cpu().numpy()
    return {pair.id: one for pair, one in zip(pairs, sums, strict=True)}

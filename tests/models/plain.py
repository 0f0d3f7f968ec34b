"""What the matrix is judged by: transformers' own forward pass in float64 with eager attention, one answer at a time,
unpadded, and DPO's loss and AdamW written down once more. Nothing here is shared with the package but the token ids."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedModel,
)

from maskdpo.schemas import SIDES
from maskdpo.train.data.encoded_pair import EncodedPair, EncodedSide


def load_plain(folder: str) -> PreTrainedModel:
    """A model in float64; attention and experts computed in the plainest way that transformers has."""
    text_only = type(AutoConfig.from_pretrained(folder)) in MODEL_FOR_CAUSAL_LM_MAPPING
    kind: Any = AutoModelForCausalLM if text_only else AutoModelForImageTextToText
    model: PreTrainedModel = kind.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager", experts_implementation="eager"
    )
    return model.eval()


def answer_logps(model: Any, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> Tensor:
    """[T] float64: log pi of every token of the answer."""
    ids = torch.tensor([[*prompt_ids, *answer_ids]])
    logits_TV = model(input_ids=ids, use_cache=False).logits[0, len(prompt_ids) - 1 : -1]
    return logits_TV.double().log_softmax(-1).gather(1, ids[0, len(prompt_ids) :, None])[:, 0]


@torch.no_grad()
def all_logps(model: Any, pairs: Sequence[EncodedPair]) -> dict[str, Tensor]:
    """By pair: [chosen tokens + rejected tokens] float64."""
    return {
        pair.id: torch.cat([answer_logps(model, pair.prompt_ids, pair.side(side).ids) for side in SIDES])
        for pair in pairs
    }


@dataclass(frozen=True)
class Step:
    """Means over the pairs of a step, before the step is made."""

    loss: float
    logps_chosen: float
    logps_rejected: float


def train_plainly(
    model: Any, pairs: Sequence[EncodedPair], *, lr: float, beta: float, batch_size: int, steps: int, seed: int = 0
) -> Iterator[Step]:
    """DPO over weighted sums of log-probs, gradients clipped to norm 1, AdamW without weight decay, a rate that falls
    linearly from ``lr``. Only parameters that require a gradient train."""
    reference = {pair.id: [_sum(model, pair, pair.side(side)).item() for side in SIDES] for pair in pairs}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=0.0)
    order = np.random.default_rng([seed, 0]).permutation(len(pairs))
    for step in range(steps):
        rows = []
        for i in order[step * batch_size : (step + 1) * batch_size]:
            chosen, rejected = (_sum(model, pairs[i], pairs[i].side(side)) for side in SIDES)
            before = reference[pairs[i].id]
            loss = -torch.nn.functional.logsigmoid(beta * ((chosen - before[0]) - (rejected - before[1])))
            (loss / batch_size).backward()  # type: ignore[no-untyped-call]
            rows.append([loss.item(), chosen.item(), rejected.item()])
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = lr * (steps - step) / steps
        optimizer.step()
        optimizer.zero_grad()
        yield Step(*np.mean(rows, axis=0).tolist())


def _sum(model: Any, pair: EncodedPair, side: EncodedSide) -> Tensor:
    return (answer_logps(model, pair.prompt_ids, side.ids) * torch.from_numpy(side.weights).double()).sum()

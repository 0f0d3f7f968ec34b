"""Held-out pairs during training: loss, margins and accuracy on them, and a few answers to their prompts."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from maskdpo.train.data.encode import EncodedPair
from maskdpo.train.model.reference import Reference
from maskdpo.train.run.figures import Figures, add_sums, means
from maskdpo.train.step import Trainer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWER_TOKENS = 64
"""Longest shown answer."""


@dataclass(frozen=True)
class HeldOut:
    """Pairs that are only looked at."""

    pairs: list[EncodedPair]
    reference: Reference
    """Of these pairs; the trainer's own one is that of the training pairs, which may have the same ids."""


@torch.no_grad()
def evaluate(trainer: Trainer, heldout: HeldOut) -> dict[str, float]:
    """Means over the pairs of all that is logged of a step's pairs, ``loss`` included. Every rank must call."""
    judge = copy.copy(trainer)  # the same model and settings
    judge.reference = heldout.reference
    totals: Figures = {}
    for group, counts in trainer.passes(heldout.pairs):
        figures = judge.figures(group)
        totals = add_sums(totals, figures if counts else {name: 0 * value_B for name, value_B in figures.items()})
    summed = trainer.ranks.sum(torch.stack(list(totals.values())))
    return means(dict(zip(totals, summed.unbind(), strict=True)), len(heldout.pairs))


@dataclass(frozen=True)
class Answer:
    """What the model says at some step."""

    step: int
    id: str
    """Of the pair whose prompt it is."""
    prompt: str
    answer: str


def answer_prompts(
    trainer: Trainer, tokenizer: "PreTrainedTokenizerBase", pairs: Sequence[EncodedPair], step: int
) -> list[Answer]:
    """The most probable answers, of ``ANSWER_TOKENS`` at the most."""
    from maskdpo.backends.decode import Row, decode, end_ids  # late: most runs show none

    model, ends = trainer.model, end_ids(trainer.model, tokenizer)
    rows = [Row(i, np.random.default_rng(0), []) for i in range(len(pairs))]
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=trainer.compute == "bfloat16"):
        decode(
            model,
            [pair.prompt_ids.tolist() for pair in pairs],
            rows,
            max_tokens=ANSWER_TOKENS,
            temperature=0,
            top_p=1,
            is_finished=lambda row: row.ids[-1] in ends,
        )
    texts = [str(tokenizer.decode(row.ids, skip_special_tokens=True)) for row in rows]
    prompts = [str(tokenizer.decode(pair.prompt_ids)) for pair in pairs]
    return [Answer(step, pair.id, *both) for pair, *both in zip(pairs, prompts, texts, strict=True)]


def different_prompts(pairs: Iterable[EncodedPair], number: int) -> list[EncodedPair]:
    """The first pairs that have a prompt of their own."""
    found: dict[bytes, EncodedPair] = {}
    for pair in pairs:
        if len(found) < number:
            found.setdefault(pair.prompt_ids.tobytes(), pair)
    return list(found.values())

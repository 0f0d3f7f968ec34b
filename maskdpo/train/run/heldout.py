"""Held-out pairs during training: loss, margins and accuracy on them, and a few answers to their prompts."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from maskdpo.schemas.training import EvalStats
from maskdpo.train.data.encoded_pair import EncodedPair
from maskdpo.train.run.figures import mean_figures
from maskdpo.train.step import Reference, Trainer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWER_TOKENS = 64
"""Longest shown answer."""


@dataclass(frozen=True)
class HeldOut:
    """Pairs that are evaluated, not trained on."""

    pairs: Sequence[EncodedPair]
    reference: Reference
    """Of these pairs; the trainer's own one is that of the training pairs, which may have the same ids."""


@torch.no_grad()
def evaluate(trainer: Trainer, heldout: HeldOut, step: int) -> EvalStats:
    """Means over the held-out pairs after so many steps. Every rank must call."""
    evaluator = copy.copy(trainer)  # the same model and settings
    evaluator.reference = heldout.reference
    passes = (replace(evaluator.forward(group), counts=counts) for group, counts in trainer.passes(heldout.pairs))
    return EvalStats(step=step, **mean_figures(trainer, passes, len(heldout.pairs)))


@dataclass(frozen=True)
class Answer:
    """An answer of the model to a held-out prompt: a line of ``answers.jsonl``."""

    step: int
    """Optimiser steps done."""
    id: str
    """Of the pair whose prompt it is."""
    prompt: str
    answer: str


def answer_prompts(
    trainer: Trainer, tokenizer: "PreTrainedTokenizerBase", pairs: Sequence[EncodedPair], step: int
) -> list[Answer]:
    """Greedy answers of at most ``ANSWER_TOKENS`` tokens."""
    from maskdpo.backends.decode import Row, decode, end_ids  # late: most runs show none

    model, ends = trainer.model, end_ids(trainer.model, tokenizer)
    rows = [Row(i, np.random.default_rng(0), []) for i in range(len(pairs))]
    with trainer.autocast():
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
    """The first pair of each of so many prompts."""
    found: dict[bytes, EncodedPair] = {}
    for pair in pairs:
        if len(found) == number:
            break
        found.setdefault(pair.prompt_ids.tobytes(), pair)
    return list(found.values())

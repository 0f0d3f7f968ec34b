"""What ``train`` writes into the folder of a run, for every stage that reads it: names of files, figures of a step.

    metrics.jsonl   one line per optimiser step: ``StepStats``
    eval.jsonl      one line per evaluation on the held-out pairs: ``EvalStats``; step 0 is before training
    answers.jsonl   one line per answer that was shown
    curves.png      a picture of both, at the end
    train.yaml      the settings
    calibration.json   of a judge: ``verdicts.decision.Calibration``
    checkpoints/    from which an interrupted run continues

A reward is beta times the log ratio log pi - log pi_ref of an answer (without a reference: log pi), in nats, summed
over its tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from math import nan
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from maskdpo.schemas.records import Pair, Side

METRICS, EVALS, ANSWERS, CURVES = "metrics.jsonl", "eval.jsonl", "answers.jsonl", "curves.png"
SETTINGS, CHECKPOINTS, CALIBRATION = "train.yaml", "checkpoints", "calibration.json"

Spans = Sequence[tuple[int, int]]
"""Half-open ranges of an answer's characters (code points)."""

TrainedTokens = Callable[[Pair], Mapping[Side, Spans] | str]
"""For a pair: the characters of both answers whose tokens have weight, or why the pair is not trained on."""


class EvalStats(BaseModel):
    """Means over pairs. A figure that is not in a file, because an earlier version did not write it, is NaN."""

    model_config = ConfigDict(frozen=True)

    step: Annotated[int, Field(ge=0)]
    """Optimiser steps done."""
    loss: float
    reward_chosen: float = nan
    reward_rejected: float = nan
    """Weighted, as the loss takes them; per token for losses that are averaged."""
    margin: float = nan
    """``reward_chosen - reward_rejected``."""
    accuracy: float = nan
    """Share of pairs whose chosen answer has the larger reward."""
    reward_kept_chosen: float = nan
    reward_kept_rejected: float = nan
    """Unweighted, over the tokens with weight."""
    logps_chosen: float = nan
    logps_rejected: float = nan
    """Weighted sums of log pi per answer."""
    nll_chosen: float = nan
    """-log pi of the chosen answer per token, weighted: the term that ``sft_weight`` multiplies."""
    hold: float | None = None
    """Half the squared log ratios of all tokens of both answers, in nats squared: the term that ``hold_weight``
    multiplies. None without it."""


class StepStats(EvalStats):
    """What is logged at every optimiser step; means are over the pairs of the step."""

    epoch: float = nan
    reward_masked_chosen: float | None = None
    reward_masked_rejected: float | None = None
    """Unweighted, over the tokens without weight: what training does to text that is masked. None at steps where it
    was not computed (``log_masked_every``)."""
    kept_chosen: float = nan
    kept_rejected: float = nan
    """Share of the answers' tokens with weight."""
    kept_tokens_chosen: int = 0
    kept_tokens_rejected: int = 0
    """Number of the answers' tokens with weight in the whole step."""
    lr: float = nan
    grad_norm: float = nan
    """Before clipping."""
    seconds: float = nan
    """Of the step alone, without the forward pass for the masked tokens."""
    pairs_per_s: float = nan
    tokens_per_s: float = nan
    """Tokens of all rows, prompts once per pair."""
    peak_share: float = nan
    """Useful floating-point operations per second over what the device can do (``model/flops.py``)."""
    memory_gb: float = nan
    """Peak so far: of the process on a CPU, of the allocator on CUDA."""

"""What a training of a judge did: for the command, for Python callers, and for the card."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from maskdpo.judge_training.examples import FileCounts
from maskdpo.judge_training.figures import JudgeFigures
from maskdpo.judge_training.targets import Classes


@dataclass(frozen=True)
class DataCounts:
    """What a judge was trained on."""

    rows: int
    changed: int
    """Of them made by a change of a right sentence."""
    held_out: int
    left_out: dict[str, int]
    """Of the sentences with a verdict, by reason."""


@dataclass(frozen=True)
class JudgeResult:
    """What a run did."""

    out: Path
    classes: Classes
    files: Sequence[FileCounts]
    data: DataCounts
    steps: int
    total: int
    best: int | None
    """The step whose weights were written; None: the last, because nothing was held out."""
    held_out: JudgeFigures | None
    gold: JudgeFigures | None
    gold_seen: int
    """Topics of the gold sentences that were trained on, or held out."""
    calibration: Path | None
    calibrated_to: str | None
    """Whose labels the calibration is fitted to, in words."""

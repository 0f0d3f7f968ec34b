"""The settings of a run that do not change the trained weights; those that do are in ``train.config.TrainConfig``."""

from dataclasses import dataclass
from pathlib import Path

from maskdpo.train.run.trackers import TrackerName


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is kept, watched and computed."""

    save_every: int = 100
    """Optimiser steps between checkpoints; 0 writes none."""
    keep: int = 2
    """Newest checkpoints to keep."""
    restart: bool = False
    """Set an earlier run in the output folder aside and begin anew."""
    use_cache: bool = True
    """Read and write the reference log-probs in the cache folder."""
    eval_file: Path | None = None
    """Held-out pairs."""
    show_answers: int = 0
    """Prompts of held-out pairs that the model answers at every evaluation."""
    track: TrackerName | None = None
    """Where the figures are sent beside ``metrics.jsonl``."""
    device: str | None = None
    """``cpu``, ``cuda``, ``cuda:1``, ``mps``; None takes the best that there is."""

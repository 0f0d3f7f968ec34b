"""The settings of ``maskdpo train``: those of ``config.py``, and where, how and what to watch."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from maskdpo.settings import DEVICE_HELP, INPUT, Option, PairsFile, Settings, records
from maskdpo.train.config import EVAL, EXPORT, LOGGING, SPEED, Count, TrainConfig
from maskdpo.train.data.settings import IN_AND_OUT


class RunOptions(Settings):
    """How a run is kept, watched and computed: what does not change the trained weights."""

    restart: Annotated[bool, Option("Set an earlier run aside (.bak) and begin anew.", IN_AND_OUT)] = False
    use_cache: Annotated[
        bool,
        Field(alias="cache"),
        Option("Keep encoded pairs and the log-probs of the reference model on disk for the next run.", SPEED),
    ] = True
    device: Annotated[str | None, Option(DEVICE_HELP, SPEED)] = None
    save_every: Annotated[int, Field(ge=0), Option("Optimiser steps between checkpoints; 0: none.", LOGGING)] = 100
    keep: Annotated[int, Count, Option("How many of the newest checkpoints to keep.", LOGGING)] = 2
    track: Annotated[
        Literal["tensorboard", "wandb", "trackio"] | None,
        Option("Send the figures there, too; metrics.jsonl and curves.png are always written.", LOGGING),
    ] = None
    eval_file: Annotated[
        Path | None,
        Field(alias="eval"),
        records("pairs"),
        Option(f"Held-out pairs, such as `pairs.test.jsonl`: {INPUT}.", EVAL, metavar="PAIRS"),
    ] = None
    show_answers: Annotated[
        int,
        Field(ge=0),
        Option("Held-out prompts that are answered at every evaluation; also in answers.jsonl.", EVAL),
    ] = 0


class TrainSettings(RunOptions, TrainConfig):
    """What ``maskdpo train`` can be told."""

    pairs: PairsFile
    out: Annotated[Path, Option("Folder for the trained model (Hugging Face format).", IN_AND_OUT)]
    dry_run: Annotated[
        bool, Option("Only show what the run would do, need and take; nothing is written.", IN_AND_OUT)
    ] = False
    nproc: Annotated[
        int,
        Count,
        Option(
            "Processes on this machine, one per GPU, that share model and pairs; for several machines: `torchrun`, see "
            "docs/scale.md.",
            SPEED,
        ),
    ] = 1
    push: Annotated[
        str | None,
        Option(
            "Send the model to the Hub, as a private one: `user/name`, or `name` for your own account.",
            EXPORT,
            metavar="NAME",
        ),
    ] = None

    def config(self) -> TrainConfig:
        """What decides the result, alone."""
        return TrainConfig(**{name: getattr(self, name) for name in TrainConfig.model_fields})

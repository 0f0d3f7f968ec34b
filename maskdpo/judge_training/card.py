"""The card (README.md) of a trained judge."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from maskdpo.hub.card import card_template, join_card
from maskdpo.judge_training.examples import FileCounts
from maskdpo.judge_training.figures import SHOWN, JudgeFigures, shown
from maskdpo.judge_training.settings import TrainJudgeConfig
from maskdpo.judge_training.targets import Classes
from maskdpo.redact import HUB_NAMES, shown_model, shown_settings
from maskdpo.run_folder import from_anywhere
from maskdpo.run_record import RunMeta


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
class CardFacts:
    """What a card says, besides settings and record."""

    classes: Classes
    files: Sequence[FileCounts]
    data: DataCounts
    steps: int
    total: int
    best: int | None
    """The step whose weights these are, where it is not the last."""
    calibrated_to: str | None
    """Whose labels its calibration is fitted to; None: it has none."""
    held_out: JudgeFigures | None
    gold: JudgeFigures | None
    gold_file: str
    gold_seen: int
    """Topics of the gold sentences that were trained on, or held out."""
    notes: Sequence[str]
    corrected: bool
    """Whether a calibration has corrected the scores that were learnt."""


def judge_card(name: str, config: TrainJudgeConfig, run: RunMeta, told: CardFacts) -> str:
    """The card: what the judge was made from, with which settings, and how good it is as far as that is known."""
    base = shown_model(config.model)
    head: dict[str, Any] = {"library_name": "transformers"}
    if config.model in HUB_NAMES or not Path(config.model).expanduser().exists():
        head |= {"base_model": base, "base_model_relation": "finetune"}
    head["tags"] = ["maskdpo", "hallucination", "factuality", "judge"]
    filters = {"cell": _cell, "figure": shown}
    digests = [run.inputs.get(role, "") for role in roles(len(told.files))]
    text = card_template("maskdpo.judge_training", "judge_card.md", filters).render(
        name=name,
        base=base,
        classes=told.classes,
        files=list(zip(told.files, digests, strict=True)),
        data=told.data,
        soft=config.soft,
        calibration=told.corrected,
        notes=told.notes,
        held_out=told.held_out,
        gold=told.gold,
        gold_file=told.gold_file,
        gold_seen=told.gold_seen,
        gold_digest=run.inputs.get("eval", ""),
        best=told.best,
        calibrated_to=told.calibrated_to,
        shown=SHOWN,
        steps=told.steps,
        total=told.total,
        settings=yaml.safe_dump(shown_settings(plain(config)), sort_keys=False, allow_unicode=True).strip(),
        run=run,
    )
    return join_card(head, f"{text.strip()}\n")


def roles(files: int) -> list[str]:
    """The names of the labelled files in the record of the run."""
    return ["labelled", *(f"labelled-{i}" for i in range(2, files + 1))][:files]


def settings_text(config: TrainJudgeConfig) -> str:
    """The settings as ``--config`` reads them."""
    return yaml.safe_dump(plain(config) | {"model": from_anywhere(config.model)}, sort_keys=False)


def plain(config: TrainJudgeConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude_none=True)


def _cell(value: object) -> str:
    """Text inside a Markdown table: nothing in it ends the cell."""
    return " ".join(str(value).split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")

"""The card (README.md) of a trained judge."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from maskdpo.hub.card import card_template, join_card, new_header
from maskdpo.judge_training.figures import SHOWN, shown
from maskdpo.judge_training.result import JudgeResult
from maskdpo.judge_training.settings import TrainJudgeConfig, TrainJudgeSettings
from maskdpo.redact import HUB_NAMES, shown_model, shown_settings
from maskdpo.run_folder import from_anywhere
from maskdpo.run_record import RunMeta
from maskdpo.stage_run import by_role
from maskdpo.verdicts.estimate import few_topics


def judge_card(settings: TrainJudgeSettings, run: RunMeta, result: JudgeResult) -> str:
    """The card: what the judge was made from, with which settings, and how good it is as far as that is known."""
    config = settings.config()
    base = shown_model(config.model)
    head: dict[str, Any] = {"library_name": "transformers"}
    if config.model in HUB_NAMES or not Path(config.model).expanduser().exists():
        head |= {"base_model": base, "base_model_relation": "finetune"}
    head["tags"] = ["maskdpo", "hallucination", "factuality", "judge"]
    filters: dict[str, Callable[..., str]] = {"cell": _cell, "figure": shown, "few_topics": _few_topics}
    digests = [run.inputs.get(role, "") for role in by_role("labelled", settings.labelled)]
    text = card_template("maskdpo.judge_training", "judge_card.md", filters).render(
        name=settings.out.name,
        base=base,
        result=result,
        files=list(zip(result.files, digests, strict=True)),
        soft=config.soft,
        corrected=settings.calibration is not None,
        notes=settings.licence_notes,
        gold_file=settings.eval_file.name if settings.eval_file else "",
        gold_digest=run.inputs.get("eval", ""),
        shown=SHOWN,
        settings=yaml.safe_dump(shown_settings(plain(config)), sort_keys=False, allow_unicode=True).strip(),
        run=run,
    )
    return join_card(new_header(head), f"{text.strip()}\n")


def settings_text(config: TrainJudgeConfig) -> str:
    """The settings as ``--config`` reads them."""
    return yaml.safe_dump(plain(config) | {"model": from_anywhere(config.model)}, sort_keys=False)


def plain(config: TrainJudgeConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude_none=True)


def _few_topics(topics: int) -> str:
    return "".join(few_topics(topics))


def _cell(value: object) -> str:
    """Text inside a Markdown table: nothing in it ends the cell."""
    return " ".join(str(value).split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")

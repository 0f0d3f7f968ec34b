"""``maskdpo train`` and ``inspect``."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskdpo import console
from maskdpo.schemas import SIDES
from maskdpo.settings import command_words
from maskdpo.train.settings import InspectSettings, TrainSettings

if TYPE_CHECKING:
    from maskdpo.train.run.dry_run import Plan
    from maskdpo.train.run.train import TrainResult

SHOWN = (
    "loss", "margin", "accuracy", "reward_chosen", "reward_rejected", "reward_masked_chosen", "reward_masked_rejected",
    "nll_chosen", "kept_chosen", "kept_rejected", "grad_norm", "peak_share",
)  # fmt: skip
"""Figures of the first and the last step; metrics.jsonl has all of all steps."""


def train(settings: TrainSettings) -> None:
    """Train a model with Mask-DPO, plain DPO, or another loss over the same masks.

    Repeat the same command to continue an interrupted run from its last checkpoint. Figures of every step go to
    `metrics.jsonl` in the output folder; `docs/training.md` is the guide, `docs/method.md` has the formulas.
    """
    from maskdpo.hub.push import check_push
    from maskdpo.train.run.launch import is_launched, launch
    from maskdpo.train.run.push import push_model

    if settings.dry_run:
        from maskdpo.train.run.dry_run import plan_run

        _show_plan(plan_run(settings.pairs, settings.config(), device=settings.device), settings.pairs)
        return
    if settings.push:
        check_push(settings.push)
    if settings.nproc > 1 and not is_launched():
        launch(command_words("train", settings), settings.nproc)
        return
    from maskdpo.train.run.train import train as run  # late: the launching process needs none of it

    result = run(settings.pairs, settings.out, settings.config(), settings)
    if result is not None and result.steps:
        _show(result, settings.out)
    if settings.push and os.environ.get("RANK", "0") == "0":  # one of many processes sends
        console.say(push_model(settings.out, settings.push))


def _show_plan(plan: "Plan", pairs: Path) -> None:
    """What a run would do, need and take."""
    rows: list[tuple[str, object]] = [("pairs", plan.pairs)]
    rows += [(f"dropped: {reason.value}", number) for reason, number in plan.dropped.most_common()]
    for side in SIDES:
        rows += [(f"{side}: trained tokens", plan.kept[f"kept_tokens_{side}"]), ("  share", plan.kept[f"kept_{side}"])]
    rows += [
        ("tokens, prompts once", plan.tokens), ("steps", plan.steps), ("forward passes", plan.passes),
        ("tokens of the largest pass", plan.largest_pass),
        ("parameters", plan.parameters), ("parameters that train", plan.trained),
    ]  # fmt: skip
    console.table(f"train {pairs} (dry run)", ("", "value"), rows)
    memory = [*plan.memory.items(), ("together", sum(plan.memory.values()))]
    console.table("memory, estimated", ("", "GB"), memory)
    if plan.seconds is not None:
        seconds = [*plan.seconds.items(), ("together", sum(plan.seconds.values()))]
        console.table("time, from one measured pass", ("", "seconds"), seconds)


def _show(result: "TrainResult", out: Path) -> None:
    """Tables of the first and the last step, and of the whole run."""
    first, last = result.steps[0], result.steps[-1]
    rows = [(name, getattr(first, name), getattr(last, name)) for name in SHOWN]
    console.table(f"train -> {out}", ("", f"step {first.step}", f"step {last.step}"), rows)
    seconds = sum(stats.seconds for stats in result.steps)
    summary: list[tuple[str, object]] = [("pairs", result.pairs)]
    summary += [(f"dropped: {reason.value}", number) for reason, number in result.dropped.most_common()]
    summary += [(f"held out, after step {row['step']}: loss", row["loss"]) for row in _ends(result.evals)]
    summary += [
        ("steps", result.total_steps),
        ("pairs / s", sum(stats.pairs_per_s * stats.seconds for stats in result.steps) / seconds),
        ("peak memory, GB", last.memory_gb),
        ("layout", result.layout),
    ]
    console.table("", ("", "value"), summary)


def _ends(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[0], rows[-1]] if len(rows) > 1 else rows


def inspect(settings: InspectSettings) -> None:
    """Show the tokens of each pair by their weight in the loss: ⟦trained⟧ on a coloured ground, grey: left out."""
    from maskdpo.train.data.inspect import inspect_pairs

    stats, texts = inspect_pairs(settings)
    for text in texts:
        console.out.print(text)
    rows: list[tuple[str, object]] = [("pairs", stats.pairs)]
    rows += [(f"dropped: {reason.value}", number) for reason, number in stats.dropped.most_common()]
    for side in stats.tokens:
        rows.append((f"{side}: trained tokens of {stats.tokens[side]:,}", stats.kept[side]))
    console.table(f"inspect {settings.pairs}", ("", "count"), rows)

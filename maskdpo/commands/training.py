"""``maskdpo train``, ``side-effects`` and ``inspect``."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskdpo import console
from maskdpo.schemas import SIDES
from maskdpo.settings import command_words
from maskdpo.train.effects.settings import SideEffectsSettings
from maskdpo.train.settings import InspectSettings, TrainSettings

if TYPE_CHECKING:
    from maskdpo.schemas.training import StepStats
    from maskdpo.train.run.dry_run import Plan
    from maskdpo.train.run.train import TrainResult

SHOWN = (
    "loss", "margin", "accuracy", "reward_chosen", "reward_rejected", "reward_masked_chosen", "reward_masked_rejected",
    "nll_chosen", "kept_chosen", "kept_rejected", "grad_norm", "peak_share",
)  # fmt: skip
"""Figures of the first and the last steps; metrics.jsonl has all of all steps."""
LONGEST_STRETCH = 50
"""The most steps of which the table shows the means."""


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
    """Tables of the first and the last steps, and of the whole run."""
    last = result.steps[-1]
    stretch = min(LONGEST_STRETCH, max(1, len(result.steps) // 5))  # one step may be of one pair
    ends = result.steps[:stretch], result.steps[-stretch:]
    rows = [(name, *(_mean(steps, name) for steps in ends)) for name in SHOWN]
    names = [_steps(steps[0].step, steps[-1].step) for steps in ends]
    console.table(f"train -> {out}", ("", *names), rows, ["means over the steps"] if stretch > 1 else ())
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


def _mean(steps: Sequence["StepStats"], name: str) -> float | None:
    """The mean of a figure over the steps at which it was computed."""
    found = [value for step in steps if (value := getattr(step, name)) is not None]
    return sum(found) / len(found) if found else None


def _steps(first: int, last: int) -> str:
    return f"step {first}" if first == last else f"steps {first}-{last}"


def _ends(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [rows[0], rows[-1]] if len(rows) > 1 else rows


def side_effects(settings: SideEffectsSettings) -> None:
    """Measure what a training has changed in answers to general prompts: divergence, refusals, repetition, length.

    Sample such answers of both models first: `maskdpo sample builtin:general --model MODEL`. docs/side-effects.md is
    the guide.
    """
    from maskdpo.train.effects.measure import side_effects as run
    from maskdpo.verdicts.effects import COLUMNS, notes_of, rows_of, title_of

    found = run(settings)
    console.table(f"{title_of(found)} -> {settings.out}", COLUMNS, rows_of(found), notes_of(found))


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

"""``maskdpo train``, ``side-effects`` and ``inspect``."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskdpo import console
from maskdpo.commands.mix import show_mix
from maskdpo.schemas import SIDES
from maskdpo.settings import command_words
from maskdpo.train.data.settings import InspectSettings
from maskdpo.train.effects.settings import SideEffectsSettings
from maskdpo.train.settings import TrainSettings

if TYPE_CHECKING:
    from maskdpo.schemas.training import StepStats
    from maskdpo.train.run.dry_run import Plan
    from maskdpo.train.run.forecast import Forecast
    from maskdpo.train.run.train import TrainResult

SHOWN = (
    "loss", "margin", "accuracy", "reward_chosen", "reward_rejected", "reward_masked_chosen", "reward_masked_rejected",
    "nll_chosen", "hold", "kept_chosen", "kept_rejected", "grad_norm", "peak_share",
)  # fmt: skip
"""Figures of the first and the last steps; metrics.jsonl has all of all steps."""
LETTERS = {
    "P": "parameters of the model",
    "E": "of embedding and lm_head",
    "D": "of the largest decoder layer",
    "L": "of linear layers but lm_head",
    "A": "of the adapter",
}
READ_SPEEDS = (0.2, 1, 5)
"""GB/s of a file system over a network, of a good one, and of a local disk."""
LONGEST_STRETCH = 50
"""The most steps of which the table shows the means."""


def train(settings: TrainSettings) -> None:
    """Train a model with Mask-DPO, plain DPO, or another loss over the same masks.

    Repeat the same command to continue an interrupted run from its last checkpoint. Figures of every step go to
    `metrics.jsonl` in the output folder; `docs/training.md` is the guide, `docs/method.md` has the formulas.
    """
    from maskdpo.hub.push import check_push
    from maskdpo.train.run.checks import check_options, check_packages
    from maskdpo.train.run.launch import is_launched, launch
    from maskdpo.train.run.push import push_model

    if settings.dry_run or not is_launched():
        check_options(settings.out, settings.config(), settings, settings.nproc)
    if settings.dry_run:
        from maskdpo.train.run.dry_run import plan_run

        check_packages(settings.config(), settings)
        plan = plan_run(settings.pairs, settings.config(), device=settings.device, ranks=settings.nproc)
        _show_plan(plan, settings)
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


def _show_plan(plan: "Plan", settings: TrainSettings) -> None:
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
    masked = settings.hold_weight and min(plan.kept[f"kept_{side}"] for side in SIDES) < 1
    held = (
        "With `hold_weight` the other tokens of both answers get a gradient too, which holds them near the reference."
    )
    console.table(f"train {settings.pairs} (dry run)", ("", "value"), rows, [held] if masked else [])
    part = f"the first {plan.mix_of_first:,}" if plan.mix_of_first is not None else "the"
    show_mix(plan.mix, unit="tokens", of=f"{part} pairs", method=settings.method)
    console.table("memory of each device, estimated", ("", "GB"), _summed(plan.memory))
    if plan.reference_memory is not None:
        title = "before that, while the reference computes its log-probs, estimated"
        console.table(title, ("", "GB"), _summed(plan.reference_memory))
    _show_forecast(plan.forecast)
    if plan.seconds is not None:
        seconds = [*plan.seconds.items(), ("together", sum(plan.seconds.values()))]
        console.table("time, from one measured pass", ("", "seconds"), seconds)


def _summed(parts: dict[str, float]) -> list[tuple[str, float]]:
    """The parts that are not 0, and their sum."""
    return [*((part, size) for part, size in parts.items() if size), ("together", sum(parts.values()))]


def _show_forecast(found: "Forecast") -> None:
    """One table of memory, with its arithmetic, for every number of devices, and one of the start."""
    from maskdpo.train.run.forecast import ARITHMETIC

    for number in dict.fromkeys(size for size, _ in found.columns):
        chosen = [i for i, (size, _) in enumerate(found.columns) if size == number]
        rows = [
            (part, *(values[i] for i in chosen), ARITHMETIC[part])
            for part, values in found.rows.items()
            if any(values[i] for i in chosen)
        ]
        names = [found.columns[i][1] for i in chosen]
        console.table(f"forecast of other settings, N = {number}: GB on each device", ("", *names, "bytes"), rows)
    letters = [(f"{letter}: {LETTERS[letter]}", size) for letter, size in found.letters.items()]
    console.table("w: bytes of a weight, c: bytes of the compute type", ("", "number"), letters)
    start = [("weights read from the disk, GB", found.disk_gb)]
    start += [(f"seconds at {speed:g} GB/s", found.disk_gb / speed) for speed in READ_SPEEDS]
    if found.trial_s is not None:
        start.append(("seconds at most to try the model on the longest pair, at the rate of this CPU", found.trial_s))
    console.table("start-up of rank 0 (to hash and to load; twice where memory does not keep files)", ("", ""), start)


def _show(result: "TrainResult", out: Path) -> None:
    """Tables of the first and the last steps, and of the whole run."""
    last = result.steps[-1]
    stretch = min(LONGEST_STRETCH, max(1, len(result.steps) // 5))  # one step may be of one pair
    ends = [result.steps[:stretch], result.steps[-stretch:]] if len(result.steps) > 1 else [result.steps]
    rows = [(name, *(_mean(steps, name) for steps in ends)) for name in SHOWN]
    rows = [row for row in rows if any(value is not None for value in row[1:])]
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

"""``maskdpo train`` and ``inspect``."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskdpo import console
from maskdpo.cli.app import app
from maskdpo.cli.options import Model, PairsArg, TemplateOption, as_arguments, template_options, with_flags
from maskdpo.cli.train_flags import (
    Cache,
    ConfigFile,
    Device,
    DryRun,
    Eos,
    EvalPairs,
    Keep,
    Method,
    Nproc,
    Out,
    Push,
    Reasoning,
    Restart,
    SaveEvery,
    ShowAnswers,
    Track,
    TrainFlags,
)  # fmt: skip
from maskdpo.schemas import SIDES

if TYPE_CHECKING:
    from maskdpo.train.run.dry_run import Plan
    from maskdpo.train.run.train import TrainResult

SHOWN = (
    "loss", "margin", "accuracy", "reward_chosen", "reward_rejected", "reward_masked_chosen", "reward_masked_rejected",
    "nll_chosen", "kept_chosen", "kept_rejected", "grad_norm", "peak_share",
)  # fmt: skip
"""Figures of the first and the last step; metrics.jsonl has all of all steps."""


@app.command()
@with_flags(TrainFlags)
def train(
    pairs: PairsArg,
    out: Out,
    config: ConfigFile = None,
    restart: Restart = False,
    dry_run: DryRun = False,
    *,
    flags: TrainFlags,
    cache: Cache = True,
    device: Device = None,
    nproc: Nproc = 1,
    save_every: SaveEvery = 100,
    keep: Keep = 2,
    track: Track = None,
    eval: EvalPairs = None,
    show_answers: ShowAnswers = 0,
    push: Push = None,
) -> None:
    """Train a model with Mask-DPO, plain DPO, or another loss over the same masks.

    Repeat the same command to continue an interrupted run from its last checkpoint. Figures of every step go to
    `metrics.jsonl` in the output folder; `docs/training.md` is the guide, `docs/method.md` has the formulas.
    """
    given = locals()
    from maskdpo.train.config import make_config
    from maskdpo.train.run.dry_run import plan_run
    from maskdpo.train.run.launch import is_launched, launch
    from maskdpo.train.run.options import RunOptions
    from maskdpo.train.run.push import check_push, push_model
    from maskdpo.train.run.train import train as run

    settings = make_config(_settings(flags), config)
    if dry_run:
        _show_plan(plan_run(pairs, settings, device=device), pairs)
        return
    if push:
        check_push(push)
    if nproc > 1 and not is_launched():
        launch(as_arguments(app, "train", given | asdict(flags)), nproc)
        return
    options = RunOptions(
        save_every=save_every, keep=keep, restart=restart, use_cache=cache,
        eval_file=eval, show_answers=show_answers, track=track, device=device,
    )  # fmt: skip
    result = run(pairs, out, settings, options)
    if result is not None and result.steps:
        _show(result, out)
    if push and os.environ.get("RANK", "0") == "0":  # one of many processes sends
        console.say(push_model(out, push))


def _settings(flags: TrainFlags) -> dict[str, Any]:
    given = asdict(flags)
    told = given.pop("template_option")
    return given | {"template_options": None if told is None else template_options(told)}


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


@app.command()
def inspect(
    pairs: PairsArg,
    model: Model,
    json: Annotated[
        Path | None, typer.Option(help="Write pair, side, input_ids and weights of all pairs as JSON lines.")
    ] = None,
    method: Annotated[Method, typer.Option(help="Which tokens count; see `maskdpo train --help`.")] = "mask-dpo",
    eos: Annotated[Eos, typer.Option(help="Whether the end-of-turn token trains.")] = "keep",
    max_length: Annotated[int, typer.Option(min=2, help="Longest prompt + answer in tokens.")] = 2048,
    reasoning: Annotated[Reasoning, typer.Option(help="Whether the reasoning before an answer stays.")] = "keep",
    template_option: TemplateOption = None,
    show: Annotated[int, typer.Option(min=0, help="Pairs to print.")] = 3,
) -> None:
    """Show the tokens of each pair by their weight in the loss: ⟦trained⟧ on a coloured ground, grey: left out."""
    from maskdpo.train.data.inspect import inspect_pairs

    options = template_options(template_option or ())
    encoder = {
        "method": method,
        "eos": eos,
        "max_length": max_length,
        "reasoning": reasoning,
        "template_options": options,
    }
    stats, texts = inspect_pairs(pairs, model, encoder, show=show, json_file=json)
    for text in texts:
        console.out.print(text)
    rows: list[tuple[str, object]] = [("pairs", stats.pairs)]
    rows += [(f"dropped: {reason.value}", number) for reason, number in stats.dropped.most_common()]
    for side in stats.tokens:
        rows.append((f"{side}: trained tokens of {stats.tokens[side]:,}", stats.kept[side]))
    console.table(f"inspect {pairs}", ("", "count"), rows)

"""``maskdpo train`` and ``inspect``."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskdpo import console
from maskdpo.cli.app import app
from maskdpo.cli.options import Model, PairsArg, as_arguments, with_flags
from maskdpo.cli.train_flags import IN_AND_OUT, LOGGING, SPEED, Eos, Method, TrainFlags

if TYPE_CHECKING:
    from maskdpo.train.run import TrainResult

SHOWN = (
    "loss", "margin", "accuracy", "reward_chosen", "reward_rejected", "reward_masked_chosen", "reward_masked_rejected",
    "nll_chosen", "kept_chosen", "kept_rejected", "grad_norm", "peak_share",
)  # fmt: skip
"""Figures of the first and the last step; metrics.jsonl has all of all steps."""


@app.command()
@with_flags(TrainFlags)
def train(
    pairs: PairsArg,
    out: Annotated[
        Path, typer.Option(help="Folder for the trained model (Hugging Face format).", rich_help_panel=IN_AND_OUT)
    ],
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML file with settings, such as `lr: 1e-6`; flags override it.", rich_help_panel=IN_AND_OUT
        ),
    ] = None,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Set an earlier run aside (.bak) and begin anew.", rich_help_panel=IN_AND_OUT),
    ] = False,
    *,
    flags: TrainFlags,
    cache: Annotated[
        bool, typer.Option(help="Keep the reference log-probs on disk for the next run.", rich_help_panel=SPEED)
    ] = True,
    save_every: Annotated[
        int, typer.Option(min=0, help="Optimiser steps between checkpoints; 0: none.", rich_help_panel=LOGGING)
    ] = 100,
    keep: Annotated[int, typer.Option(min=1, help="Newest checkpoints to keep.", rich_help_panel=LOGGING)] = 2,
    nproc: Annotated[
        int,
        typer.Option(
            min=1,
            help="Processes on this machine, one a GPU, that share model and pairs; several machines: `torchrun`, see "
            "docs/scale.md.",
            rich_help_panel=SPEED,
        ),
    ] = 1,
) -> None:
    """Train a model with Mask-DPO, plain DPO, or another loss over the same masks.

    Repeat the same command to continue an interrupted run from its last checkpoint. Figures of every step go to
    `metrics.jsonl` in the output folder; `docs/method.md` has the formulas.
    """
    given = locals()
    from maskdpo.train.config import make_config
    from maskdpo.train.launch import is_launched, launch
    from maskdpo.train.run import train as run

    settings = make_config(asdict(flags), config)
    if nproc > 1 and not is_launched():
        launch(as_arguments(app, "train", given | asdict(flags)), nproc)
        return
    result = run(pairs, out, settings, save_every=save_every, keep=keep, restart=restart, use_cache=cache)
    if result is not None and result.steps:
        _show(result, out)


def _show(result: "TrainResult", out: Path) -> None:
    """Tables of the first and the last step, and of the whole run."""
    first, last = result.steps[0], result.steps[-1]
    rows = [(name, getattr(first, name), getattr(last, name)) for name in SHOWN]
    console.table(f"train -> {out}", ("", f"step {first.step}", f"step {last.step}"), rows)
    seconds = sum(stats.seconds for stats in result.steps)
    summary: list[tuple[str, object]] = [("pairs", result.pairs)]
    summary += [(f"dropped: {reason.value}", number) for reason, number in result.dropped.most_common()]
    summary += [
        ("steps", result.total_steps),
        ("pairs / s", sum(stats.pairs_per_s * stats.seconds for stats in result.steps) / seconds),
        ("peak memory, GB", last.memory_gb),
        ("layout", result.layout),
    ]
    console.table("", ("", "value"), summary)


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
    show: Annotated[int, typer.Option(min=0, help="Pairs to print.")] = 3,
) -> None:
    """Show the tokens of each pair by their weight in the loss: ⟦trained⟧ on a coloured ground, grey: left out."""
    from maskdpo.train.inspect import inspect_pairs

    stats, texts = inspect_pairs(pairs, model, method=method, eos=eos, max_length=max_length, show=show, json_file=json)
    for text in texts:
        console.out.print(text)
    rows: list[tuple[str, object]] = [("pairs", stats.pairs)]
    rows += [(f"dropped: {reason.value}", number) for reason, number in stats.dropped.most_common()]
    for side in stats.tokens:
        rows.append((f"{side}: trained tokens of {stats.tokens[side]:,}", stats.kept[side]))
    console.table(f"inspect {pairs}", ("", "count"), rows)

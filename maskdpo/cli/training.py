"""``maskdpo train`` and ``inspect``."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from maskdpo import console
from maskdpo.cli.app import app
from maskdpo.cli.options import Model, PairsArg, Restart


@app.command()
def train(
    pairs: PairsArg,
    out: Annotated[Path, typer.Option(help="Folder for the trained model (Hugging Face format).")],
    model: Annotated[str | None, typer.Option(help="`smollm2`, a model folder, or a Hub id.")] = None,
    method: Annotated[
        Literal["mask-dpo", "dpo"] | None, typer.Option(help="Which tokens count. [default: mask-dpo]")
    ] = None,
    beta: Annotated[float | None, typer.Option(help="Pull towards the reference model. [default: 0.1]")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate of AdamW. [default: 1e-6]")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the pairs. [default: 1]")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Stop after this many optimiser steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pairs an optimiser step. [default: 16]")] = None,
    tokens_per_batch: Annotated[
        int | None, typer.Option(help="Tokens a forward pass: memory against speed. [default: 2048]")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Longest prompt + answer in tokens. [default: 2048]")] = None,
    eos: Annotated[
        Literal["keep", "last_sentence", "drop"] | None,
        typer.Option(help="Whether the end-of-turn token trains. [default: keep]"),
    ] = None,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"] | None,
        typer.Option(help="Compute type; weights stay float32. [default: auto]"),
    ] = None,
    gradient_checkpointing: Annotated[
        bool | None, typer.Option("--gradient-checkpointing", help="Slower, far less memory.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Order of the pairs. [default: 0]")] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with any of these settings; flags override it.")
    ] = None,
    save_every: Annotated[int, typer.Option(min=0, help="Optimiser steps between checkpoints; 0: none.")] = 100,
    keep: Annotated[int, typer.Option(min=1, help="Newest checkpoints to keep.")] = 2,
    cache: Annotated[bool, typer.Option(help="Keep the reference log-probs on disk for the next run.")] = True,
    restart: Restart = False,
) -> None:
    """Train a model with Mask-DPO (or plain DPO).

    Repeat the same command to continue an interrupted run from its last checkpoint.
    """
    from maskdpo.train.config import make_config
    from maskdpo.train.run import train as run

    flags: dict[str, Any] = {
        "model": model, "method": method, "beta": beta, "lr": lr, "epochs": epochs, "max_steps": max_steps,
        "batch_size": batch_size, "tokens_per_batch": tokens_per_batch, "max_length": max_length, "eos": eos,
        "dtype": dtype, "gradient_checkpointing": gradient_checkpointing, "seed": seed,
    }  # fmt: skip
    result = run(
        pairs,
        out,
        make_config(flags, config),
        save_every=save_every,
        keep=keep,
        restart=restart,
        use_cache=cache,
    )
    if result is None or not result.steps:
        return
    columns = ("", f"step {result.steps[0].step}", f"step {result.steps[-1].step}")
    shown = (
        "loss",
        "margin",
        "accuracy",
        "reward_chosen",
        "reward_rejected",
        "kept_chosen",
        "kept_rejected",
        "grad_norm",
    )
    ends = (result.steps[0], result.steps[-1])
    console.table(f"train -> {out}", columns, [(name, *(getattr(stats, name) for stats in ends)) for name in shown])
    seconds = sum(stats.seconds for stats in result.steps)
    rows: list[tuple[str, object]] = [
        ("pairs", result.pairs),
        ("pairs dropped", result.dropped.total()),
        ("steps", result.total_steps),
        ("pairs / s", sum(stats.pairs_per_s * stats.seconds for stats in result.steps) / seconds),
        ("peak memory, GB", result.steps[-1].memory_gb),
        ("layout", result.layout),
    ]
    console.table("", ("", "value"), rows)


@app.command()
def inspect(
    pairs: PairsArg,
    model: Model,
    json: Annotated[
        Path | None, typer.Option(help="Write pair, side, input_ids and weights of all pairs as JSON lines.")
    ] = None,
    method: Annotated[Literal["mask-dpo", "dpo"], typer.Option(help="Which tokens count.")] = "mask-dpo",
    eos: Annotated[
        Literal["keep", "last_sentence", "drop"], typer.Option(help="Whether the end-of-turn token trains.")
    ] = "keep",
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

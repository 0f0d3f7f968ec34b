"""Loss and held-out margin of a training in 16 bytes per parameter (float32 and AdamW) beside one in 6 (bfloat16 with
stochastic rounding and moments of 8 bits), and beside one in bfloat16 with ordinary rounding (torch's AdamW), which
shows what the stochastic one is for.

All three see the same pairs in the same order and take each step in turn, so that a run that is stopped can be compared
as far as it went. The pairs are of the closed world (``benchmarks/closed_world``): a sentence of a reliable source is
right, one of an unreliable source is wrong; names and values of the held-out pairs occur in no other pair.

Run: python benchmarks/low_bits.py      (200 steps of SmolLM2: half an hour on a quiet core)
"""

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.closed_world.grammar import ATTRIBUTES, SOURCES, VERBS, fact_sentence, invented_words
from maskdpo import console
from maskdpo.devices import default_device
from maskdpo.models import load_tokenizer
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.encoded_pair import EncodedPair, EncodedSide
from maskdpo.train.model.load import load_policy
from maskdpo.train.run.heldout import HeldOut, evaluate
from maskdpo.train.run.loop import batches, learning_rate
from maskdpo.train.run.reference import compute_reference
from maskdpo.train.step import Trainer

EVERY = 20
"""Steps between rows of the table, each with the mean loss of these steps."""
ARMS: dict[str, dict[str, Any]] = {
    "float32, adamw": {},
    "bfloat16, adamw8bit": {"weights": "bfloat16", "optim": "adamw8bit"},
    "bfloat16, ordinary rounding": {"weights": "bfloat16"},
}


@dataclass
class Arm:
    """One of the trainings that are compared."""

    name: str
    trainer: Trainer
    heldout: HeldOut
    losses: list[float] = field(default_factory=list)
    """Of every step."""


def make_pairs(tokenizer: Any, count: int, seed: int) -> list[EncodedPair]:
    rng = random.Random(seed)
    names = invented_words(count, 3, rng)

    def side(kind: Any) -> EncodedSide:
        (value,) = invented_words(1, 2, rng)
        sentence = fact_sentence(rng.choice(SOURCES[kind]), rng.choice(VERBS), rng.choice(ATTRIBUTES), value)
        ids = np.array(tokenizer(f" {sentence}", add_special_tokens=False).input_ids)
        return EncodedSide(ids, np.ones(len(ids), np.float32))

    return [
        EncodedPair(
            name,
            np.array(tokenizer(f"Of {name.capitalize()}:", add_special_tokens=False).input_ids),
            side("reliable"),
            side("unreliable"),
        )
        for name in names
    ]


def make_arm(name: str, config: TrainConfig, pairs: list[EncodedPair], held_out: list[EncodedPair]) -> Arm:
    policy = load_policy(config, pairs + held_out, default_device())
    trainer = Trainer(policy.model, config, policy.layout)
    if name.endswith("ordinary rounding"):
        trainer.optimizer = torch.optim.AdamW(policy.model.parameters(), lr=config.lr, weight_decay=0, fused=True)
    trainer.reference = compute_reference(trainer, pairs)
    return Arm(name, trainer, HeldOut(held_out, compute_reference(trainer, held_out)))


def take_step(arm: Arm, pairs: list[EncodedPair], step: int, steps: int) -> None:
    lr = learning_rate(step, steps, arm.trainer.config)
    passes, _ = arm.trainer.step(pairs, lr)
    arm.losses.append(sum(forward.loss_B.sum().item() for forward in passes) / len(pairs))


def rows_of(arms: list[Arm], step: int) -> Iterator[dict[str, Any]]:
    """The arms after so many steps, each beside the first."""
    first: dict[str, Any] = {}
    for arm in arms:
        stats = evaluate(arm.trainer, arm.heldout, step)
        losses = arm.losses[-EVERY:]
        row: dict[str, Any] = {
            "step": step,
            "arm": arm.name,
            "loss": sum(losses) / len(losses) if losses else None,
            "held_out_loss": stats.loss,
            "held_out_margin": stats.margin,
        }
        first = first or row
        apart = [abs(ours - theirs) for ours, theirs in zip(arm.losses, arms[0].losses, strict=True)]
        row["margin_apart"] = stats.margin - first["held_out_margin"]
        row["mean_loss_apart"] = sum(apart) / len(apart) if apart else 0.0
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=2, help="pairs an optimiser step")
    parser.add_argument("--held-out", type=int, default=12, help="pairs that are not trained on")
    parser.add_argument("--lr", type=float, default=1e-6)
    parser.add_argument("--out", type=Path, help="write the rows there as JSON lines, too, as they come")
    options = parser.parse_args()
    tokenizer = load_tokenizer(options.model)
    held_out = make_pairs(tokenizer, options.held_out, seed=1)
    pairs = make_pairs(tokenizer, options.steps * options.batch, seed=0)
    settings: dict[str, Any] = {"model": options.model, "lr": options.lr, "batch_size": options.batch}
    arms = [
        make_arm(name, TrainConfig(**settings, dtype="float32", **own), pairs, held_out) for name, own in ARMS.items()
    ]
    shown: list[tuple[Any, ...]] = []
    for step in range(options.steps + 1):
        if step % EVERY == 0 or step == options.steps:
            for row in rows_of(arms, step):
                print(json.dumps(row), flush=True)
                shown.append(tuple(row.values()))
                if options.out:
                    with options.out.open("a") as file:
                        file.write(json.dumps(row) + "\n")
        if step < options.steps:
            (batch,) = batches(pairs, arms[0].trainer.config, step, step + 1)
            for arm in arms:
                take_step(arm, batch, step, options.steps)
    console.table(
        f"{options.model}, lr {options.lr:g}, {options.batch} pairs a step, computed in float32",
        ("step", "", "loss", "held out: loss", "margin", "margin apart", "mean |loss| apart"),
        shown,
    )


if __name__ == "__main__":
    main()

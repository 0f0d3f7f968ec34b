"""What a pair costs the trainer, by the length of its answers, the length of its prompt, and the share of tokens that
are masked: seconds, tokens a second, share of the device's matrix rate and peak memory, each in a process of its own.

One thing is varied at a time around a pair of 64 prompt tokens and two answers of 128 tokens, half of them masked, in
sentences of 16 tokens. Token ids are random: they cost as much as real ones.

Run: python benchmarks/train_cost.py      (about five minutes on two cores)
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from maskdpo import console
from maskdpo.devices import Dtype, default_device
from maskdpo.models import load_tokenizer
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.encoded_pair import EncodedPair, EncodedSide
from maskdpo.train.model.load import load_policy
from maskdpo.train.run.figures import peak_memory_gb
from maskdpo.train.run.loop import run_steps
from maskdpo.train.run.reference import compute_reference
from maskdpo.train.step import Trainer

SENTENCE = 16
STEPS, WARM = 5, 2


@dataclass(frozen=True)
class Point:
    """Tokens of a pair. ``masked`` is a share of the answers'."""

    prompt: int = 64
    answer: int = 128
    masked: float = 0.5


SWEEPS: dict[str, list[Point]] = {
    "answer": [replace(Point(), answer=n) for n in (32, 64, 128, 256, 512)],
    "prompt": [replace(Point(), prompt=n) for n in (16, 64, 256, 1024)],
    "masked": [replace(Point(), masked=share) for share in (0.0, 0.5, 0.875)],
}


def make_pairs(point: Point, vocabulary: int, count: int) -> list[EncodedPair]:
    rng = np.random.default_rng(0)

    def side() -> EncodedSide:
        sentences = rng.permutation(np.arange(point.answer // SENTENCE)) >= point.masked * (point.answer // SENTENCE)
        weights = np.repeat(sentences, SENTENCE).astype(np.float32)
        return EncodedSide(rng.integers(0, vocabulary, point.answer), weights)

    return [EncodedPair(str(i), rng.integers(0, vocabulary, point.prompt), side(), side()) for i in range(count)]


def measure(point: Point, model: str, dtype: Dtype, batch: int) -> dict[str, float]:
    """Means of the steps behind the first ones, which warm up."""
    config = TrainConfig(model=model, dtype=dtype, batch_size=batch, log_masked_every=0, max_length=4096)
    pairs = make_pairs(point, len(load_tokenizer(model)), STEPS * batch)
    policy = load_policy(config, pairs, default_device())
    trainer = Trainer(policy.model, config, policy.layout)
    trainer.reference = compute_reference(trainer, pairs)
    steps = list(run_steps(trainer, pairs, 0, STEPS))[WARM:]
    seconds = sum(step.seconds for step in steps) / len(steps)
    return {
        "seconds_per_pair": seconds / batch,
        "tokens_per_s": batch * (point.prompt + 2 * point.answer) / seconds,
        "peak_share": sum(step.peak_share * step.seconds for step in steps) / seconds / len(steps),
        "memory_gb": peak_memory_gb(policy.model.device),
    }


def in_child(point: Point, arguments: list[str]) -> dict[str, float]:
    command = [sys.executable, __file__, *arguments, "--child", json.dumps(asdict(point))]
    result: dict[str, float] = json.loads(
        subprocess.run(command, capture_output=True, check=True).stdout.splitlines()[-1]
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--batch", type=int, default=8, help="pairs an optimiser step")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(Point(**options.child), options.model, options.dtype, options.batch)))
        return
    rows: list[tuple[Any, ...]] = []
    found: dict[Point, dict[str, float]] = {}
    for varied, points in SWEEPS.items():
        for point in points:
            if point not in found:
                found[point] = in_child(point, sys.argv[1:])
            result = found[point]
            rows.append(
                (
                    varied,
                    point.prompt,
                    point.answer,
                    f"{point.masked:.1%}",
                    f"{result['seconds_per_pair']:.2f}",
                    f"{result['tokens_per_s']:.0f}",
                    f"{result['peak_share']:.0%}",
                    f"{result['memory_gb']:.1f}",
                )
            )
    console.table(
        f"{options.model}, {options.dtype}, {options.batch} pairs a step, {torch.get_num_threads()} threads",
        ("varied", "prompt", "each answer", "masked", "s/pair", "tokens/s", "of peak", "peak GB"),
        rows,
    )


if __name__ == "__main__":
    main()

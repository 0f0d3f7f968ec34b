"""The files of a training, as ``train`` writes them, without training."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def step(number: int, **more: Any) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    figures: dict[str, Any] = {
        "step": number,
        "epoch": number / 10,
        "loss": 0.7 - 0.01 * number,
        "margin": 0.1 * number,
        "accuracy": 0.5,
        "reward_kept_chosen": 0.05 * number,
        "reward_kept_rejected": -0.05 * number,
        "reward_masked_chosen": None,
        "reward_masked_rejected": None,
        "lr": 1e-5,
        "grad_norm": 3.0,
        "seconds": 2.0,
        "pairs_per_s": 5.0,
        "tokens_per_s": 1000.0 + number,
        "peak_share": 0.25,
        "memory_gb": 4.0,
    }
    return figures | more


def evaluation(number: int, **more: Any) -> dict[str, Any]:
    """A line of eval.jsonl."""
    return {"step": number, "loss": 0.69 - 0.02 * number, "margin": 0.2 * number, "accuracy": 0.75} | more


def write_training(folder: Path, steps: Sequence[Any], evals: Sequence[Any] = (), **options: Any) -> Path:
    """A folder with these lines; its record has the options."""
    folder.mkdir()
    for name, rows in (("metrics.jsonl", steps), ("eval.jsonl", evals)):
        if rows:
            lines = (row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
            (folder / name).write_text("".join(lines), encoding="utf-8")
    if options:
        record = {"command": "train", "options": options, "inputs": {}, "versions": {}, "status": "complete"}
        (folder / "maskdpo_run.json").write_text(json.dumps(record))
    return folder

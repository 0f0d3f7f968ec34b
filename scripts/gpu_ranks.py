"""Two processes on two GPUs (on a CPU: two processes that share it) against one: FSDP2, NCCL or gloo, and resuming."""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from gpu_parts import ON_GPU, TINY, check, lines_of, model_folder, row, text_pairs
from safetensors.torch import load_file

LOSS_LIMIT, WAY_LIMIT = 1e-3, 0.02
"""Of float32, where only the order of sums differs."""
STOP_AFTER = 2
OPTIONS = (
    "--lr 1e-4 --warmup-ratio 0 --batch-size 4 --epochs 60 --dtype float32 --log-masked-every 0 --save-every 0 "
    "--no-cache"
)
"""So many epochs that a run is still under way when the signal comes."""


def ranks(small: bool) -> Iterator[dict[str, Any]]:
    """Runs on one rank, on two, and on two that are stopped and go on as one."""
    if ON_GPU and torch.cuda.device_count() < 2:
        yield row("two ranks", "not compared: there is one GPU")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = {} if small else {"hidden_size": 512, "num_attention_heads": 8, "head_dim": 64}
        model = model_folder(folder / "model", **TINY | {"initializer_range": 0.1} | sizes)
        pairs = text_pairs(folder / "pairs.jsonl", 8 if small else 32)
        command = [sys.executable, "-m", "maskdpo", "train", str(pairs), "--model", str(model), *OPTIONS.split()]
        one, two, resumed = (folder / run for run in ("one", "two", "resumed"))
        for out, processes in ((one, 1), (two, 2)):
            subprocess.run([*command, "--out", str(out), "--nproc", str(processes)], check=True)
        yield from _compared("2 ranks and 1", one, two, model)
        stopped_at = _stopped([*command, "--out", str(resumed), "--nproc", "2"], resumed)
        yield check(
            "two ranks: stopped by SIGTERM after step",
            0 < stopped_at < len(lines_of(one / "metrics.jsonl")),
            stopped_at,
        )
        subprocess.run([*command, "--out", str(resumed)], check=True)
        yield from _compared("2 ranks that went on as 1, and 1", one, resumed, model)


def _stopped(command: list[str], out: Path) -> int:
    """The steps that a run had done when a signal ended it."""
    run = subprocess.Popen(command)
    metrics = out / "metrics.jsonl"
    while run.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= STOP_AFTER):
        time.sleep(0.002)
    run.send_signal(signal.SIGTERM)
    run.wait()
    return len(lines_of(metrics)) if metrics.exists() else 0


def _compared(names: str, one: Path, other: Path, model: Path) -> Iterator[dict[str, Any]]:
    losses = [[line["loss"] for line in lines_of(out / "metrics.jsonl")] for out in (one, other)]
    apart = max(abs(a - b) for a, b in zip(*losses, strict=True))
    yield row(f"{names}: loss of a step, largest difference", apart, LOSS_LIMIT)
    start, end, found = (load_file(folder / "model.safetensors") for folder in (model, one, other))
    way = sum(float((end[name] - start[name]).square().sum()) for name in end) ** 0.5
    off = sum(float((found[name] - end[name]).square().sum()) for name in end) ** 0.5
    yield row(f"{names}: weights, difference relative to the way they went", off / way, WAY_LIMIT)

"""Whole runs of maskdpo on this device: LoRA, a run that is stopped and resumed, and sampling with vLLM."""

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from gpu_parts import DEVICE, TINY, check, lines_of, model_folder, row, text_pairs
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from maskdpo.errors import Interrupted
from maskdpo.train.config import TrainConfig
from maskdpo.train.run.train import train
from maskdpo.train.settings import RunOptions

SIZES = TINY | {"initializer_range": 0.1}
ON_GPU_SIZES = SIZES | {"hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8, "head_dim": 64}


def lora(small: bool) -> Iterator[dict[str, Any]]:
    """An adapter as such, and the same one merged by the export, must give the same logits."""
    if importlib.util.find_spec("peft") is None:
        yield row("LoRA", "peft is not installed")
        return
    from peft import PeftModel

    with tempfile.TemporaryDirectory() as folder:
        model, pairs = _inputs(Path(folder), small)
        found = {}
        for merge in (True, False):
            out = Path(folder) / f"merged-{merge}"
            config = TrainConfig(
                model=str(model), lora_r=8, lora_alpha=16, merge=merge, lr=1e-3, batch_size=4, max_steps=4
            )
            result = train(pairs, out, config, RunOptions(device=DEVICE, use_cache=False))
            assert result is not None
            base = AutoModelForCausalLM.from_pretrained(out if merge else model, dtype=torch.float32)
            whole: Any = base if merge else PeftModel.from_pretrained(base, str(out))
            found[merge] = _logits(whole)
            yield row(f"LoRA, {'merged' if merge else 'adapter alone'}: loss of the last step", result.steps[-1].loss)
        untrained = _logits(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32))
        changed = float((found[True] - untrained).abs().max())
        yield check("LoRA: training changed the logits", changed > 1e-3, f"{changed:.3g}")
        yield row("LoRA: merged and unmerged logits, difference", float((found[True] - found[False]).abs().max()), 1e-2)


@torch.no_grad()
def _logits(model: Any) -> Tensor:
    logits: Tensor = model.to(DEVICE).eval()(input_ids=torch.arange(40, device=DEVICE)[None] + 5).logits
    return logits.float()


def resume(small: bool) -> Iterator[dict[str, Any]]:
    """A run that is stopped by a signal and repeated ends with the bits of one that nothing stops."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, pairs = _inputs(folder, small)
        config = TrainConfig(model=str(model), lr=1e-4, batch_size=4, epochs=8, log_masked_every=0)
        options = RunOptions(device=DEVICE, use_cache=False, save_every=0)
        train(pairs, folder / "whole", config, options)
        stopped_at = _stopped(pairs, folder / "resumed", config, options)
        yield check("resume: stopped by SIGTERM after step", stopped_at is not None, stopped_at)
        result = train(pairs, folder / "resumed", config, options)
        if result is not None:
            yield row("resume: went on from step", f"{result.resumed_from} of {result.total_steps}")
        again = folder / "again"
        train(pairs, again, config, options)
        # Some kernels of a GPU add up in another order each time; then a resumed run cannot have the same bits either.
        noise, apart = (_apart(folder / "whole", other) for other in (again, folder / "resumed"))
        yield row("resume: weights of two runs that nothing stops", _bits(noise), difference=noise)
        yield check("resume: weights of a run that was stopped", apart <= 10 * noise, _bits(apart), difference=apart)


def _stopped(pairs: Path, out: Path, config: TrainConfig, options: RunOptions) -> int | None:
    """The step after which a signal ended the run; None where it ended before."""
    over = threading.Event()

    def send() -> None:
        metrics = out / "metrics.jsonl"
        while not over.wait(0.002):
            if metrics.exists() and metrics.read_text().count("\n") >= 3:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    watcher = threading.Thread(target=send)
    watcher.start()
    try:
        train(pairs, out, config, options)
    except Interrupted:
        return len(lines_of(out / "metrics.jsonl"))
    finally:
        over.set()
        watcher.join()
    return None


def _apart(one: Path, other: Path) -> float:
    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


def _bits(apart: float) -> str:
    return "the same bits" if apart == 0 else f"up to {apart:.3g} apart"


def vllm(small: bool) -> Iterator[dict[str, Any]]:
    if importlib.util.find_spec("vllm") is None:
        yield row("vLLM", "is not installed")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = model_folder(folder / "model", **ON_GPU_SIZES)
        prompts = folder / "prompts.jsonl"
        prompts.write_text("".join(f'{{"id": "{i}", "prompt": "What is {i} and {i}?"}}\n' for i in range(16)))
        command = [sys.executable, "-m", "maskdpo", "sample", str(prompts), "--model", str(model), "--backend", "vllm"]
        started = time.perf_counter()
        subprocess.run([*command, "--max-tokens", "64", "--n", "2", "--out", str(folder / "out.jsonl")], check=True)
        answers = lines_of(folder / "out.jsonl")
        yield check("vLLM: answers to 16 prompts, 2 each", len(answers) == 32, len(answers))
        yield row("vLLM: seconds, with loading", time.perf_counter() - started)


def _inputs(folder: Path, small: bool) -> tuple[Path, Path]:
    sizes = SIZES if small else ON_GPU_SIZES
    return model_folder(folder / "model", **sizes), text_pairs(folder / "pairs.jsonl", 8 if small else 32)

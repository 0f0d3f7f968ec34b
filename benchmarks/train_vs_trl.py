"""maskdpo's trainer beside TRL's DPOTrainer: same model, pairs, precision and optimiser, each in a process of its own.

TRL with its defaults (two passes of the reference in every step, gradient checkpointing), and TRL at its best here
(reference log-probs computed beforehand, no checkpointing, several micro-batches). Plain DPO is the
common ground: maskdpo runs it too, and Mask-DPO, which leaves tokens out. First losses must agree.

Speed is that of the optimiser steps behind the first one, which warms up. The reference log-probs, which maskdpo and
TRL at its best compute once, are timed apart and shown as the seconds that they add to a pair in a run of one epoch.

Run: python benchmarks/train_vs_trl.py demo/pairs.jsonl      (needs trl; about ten minutes on two cores)
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from maskdpo import console
from maskdpo.io import read_records
from maskdpo.models import default_device, resolve_model
from maskdpo.schemas import Pair
from maskdpo.train.config import TrainConfig

LR, BETA = 1e-6, 0.1


def load(options: argparse.Namespace) -> list[Pair]:
    return list(islice(read_records(options.pairs, Pair), options.batch * options.steps))


def run_maskdpo(options: argparse.Namespace, method: str) -> dict[str, Any]:
    from maskdpo.models import load_tokenizer
    from maskdpo.train.data.encode import encode_pairs
    from maskdpo.train.data.read import encoder_for
    from maskdpo.train.model.load import load_policy
    from maskdpo.train.run.loop import run_steps
    from maskdpo.train.run.reference import compute_reference
    from maskdpo.train.step import Trainer

    config = TrainConfig(
        model=options.model, method=method, lr=LR, beta=BETA, warmup_ratio=0, log_masked_every=0,
        batch_size=options.batch, dtype=options.dtype, tokens_per_batch=options.tokens_per_batch,
    )  # fmt: skip
    pairs = encode_pairs(load(options), encoder_for(config, load_tokenizer(config.model))).pairs
    policy = load_policy(config, pairs, default_device())
    trainer = Trainer(policy.model, config, policy.layout)
    started = time.perf_counter()
    trainer.reference = compute_reference(trainer, pairs)
    reference = time.perf_counter() - started
    steps = list(run_steps(trainer, pairs, 0, options.steps))
    seconds = sum(step.seconds for step in steps[1:])
    return {
        "first_loss": steps[0].loss,
        "second_loss": steps[1].loss,
        "pairs_per_s": options.batch * (options.steps - 1) / seconds,
        "reference_s_per_pair": reference / len(pairs),
        "peak_share": sum(step.peak_share * step.seconds for step in steps[1:]) / seconds,
    }


def run_trl(options: argparse.Namespace, **settings: Any) -> dict[str, Any]:
    import datasets
    import transformers
    import trl

    folder = resolve_model(options.model)
    rows = [json.loads(pair.model_dump_json(include={"prompt", "chosen", "rejected"})) for pair in load(options)]
    times: list[float] = []

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            times.append(-time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times[-1] += time.perf_counter()

    micro = settings.pop("micro", 8)
    with tempfile.TemporaryDirectory() as out:
        config = trl.DPOConfig(
            output_dir=out, report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True, max_length=2048,
            use_cpu=not torch.cuda.is_available(), bf16=options.dtype == "bfloat16", learning_rate=LR, beta=BETA,
            optim="adamw_torch_fused", weight_decay=0.0, max_grad_norm=1.0, warmup_steps=0, max_steps=options.steps,
            per_device_train_batch_size=min(micro, options.batch),
            gradient_accumulation_steps=max(1, options.batch // micro), dataloader_drop_last=True,
            model_init_kwargs={"dtype": torch.float32}, **settings,
        )  # fmt: skip
        started = time.perf_counter()
        trainer = trl.DPOTrainer(
            model=folder, args=config, train_dataset=datasets.Dataset.from_list(rows),
            processing_class=transformers.AutoTokenizer.from_pretrained(folder), callbacks=[Clock()],
        )  # fmt: skip
        trainer.train()
        total = time.perf_counter() - started
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    once = settings.get("precompute_ref_log_probs", False)
    return {
        "first_loss": losses[0],
        "second_loss": losses[1],
        "pairs_per_s": options.batch * (options.steps - 1) / sum(times[1:]),
        "reference_s_per_pair": (total - sum(times)) / len(rows) if once else 0.0,
    }


CONTENDERS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "maskdpo, Mask-DPO": lambda options: run_maskdpo(options, "mask-dpo"),
    "maskdpo, DPO": lambda options: run_maskdpo(options, "dpo"),
    "TRL, defaults": run_trl,
    **{
        f"TRL, best of: micro-batch {micro}": (
            lambda options, micro=micro: run_trl(
                options, micro=micro, precompute_ref_log_probs=True, gradient_checkpointing=False
            )
        )
        for micro in (1, 2, 4, 8)
    },
}


def child(name: str, options: argparse.Namespace) -> None:
    result = CONTENDERS[name](options)
    on_gpu = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print("RESULT" + json.dumps(result | {"memory_gb": peak / 1e9}), flush=True)


def measure(name: str) -> dict[str, Any] | None:
    """A contender in a process of its own; None where it fails, with the end of what it said."""
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--child", name], capture_output=True, text=True, check=False
    )
    for line in done.stdout.splitlines():
        if line.startswith("RESULT"):
            result: dict[str, Any] = json.loads(line.removeprefix("RESULT"))
            console.say(f"{name}: {result['pairs_per_s']:.3f} pairs/s, {result['memory_gb']:.1f} GB")
            return result
    console.warn(f"{name} failed: {done.stderr.strip()[-500:]}")
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--batch", type=int, default=16, help="pairs an optimiser step")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--tokens-per-batch", type=int, default=2048)
    parser.add_argument("--only", nargs="*", help="beginnings of the names of the contenders to run")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options)
        return
    names = [name for name in CONTENDERS if not options.only or name.startswith(tuple(options.only))]
    results = {name: result for name in names if (result := measure(name)) is not None}
    base = next((result["pairs_per_s"] for name, result in results.items() if name == "TRL, defaults"), None)
    console.table(
        f"{options.model}, {options.dtype}, {options.batch} pairs a step, {torch.get_num_threads()} threads",
        ("", "pairs/s", "times", "peak GB", "reference, s/pair", "of peak", "first loss", "second loss"),
        [
            (
                name,
                result["pairs_per_s"],
                f"{result['pairs_per_s'] / base:.1f}x" if base else "-",
                f"{result['memory_gb']:.1f}",
                result["reference_s_per_pair"],
                f"{result['peak_share']:.0%}" if "peak_share" in result else "-",
                f"{result['first_loss']:.5f}",
                f"{result['second_loss']:.5f}",
            )
            for name, result in results.items()
        ],
    )


if __name__ == "__main__":
    main()

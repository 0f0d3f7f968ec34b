"""maskdpo's trainer beside TRL's DPOTrainer: same model, pairs, precision and optimiser, each in a process of its own.

Two regimes (``train_regimes.py``): ``real``, the shape of Qwen2.5-0.5B with answers of 400 tokens, and ``smollm2``.
TRL runs with its defaults (two passes of the reference in every step, gradient checkpointing), and at its best:
reference log-probs computed beforehand, no checkpointing, several micro-batches, and what else it offers (padding-free,
Liger, the kernels of the Hub), as far as it runs here; where it does not, its own words say why. maskdpo runs Mask-DPO,
which leaves tokens out, and plain DPO, the common ground. Both also run where they need less memory. First losses must
agree.

Speed is that of the optimiser steps behind the first one, which warms up; every step has the same pairs. Start-up, and
the reference log-probs that maskdpo and TRL at its best compute once, are not part of it; the latter are shown per
pair. The share of the matrix rate counts what a step must compute (``maskdpo/train/model/flops.py``), for TRL with the
prompt once for each answer, over the rate of plain products that the same process measures.

Every run is kept in a file as it ends, and the same command goes on where it stopped. Tables, JSON and the curve of
speed against memory are made of all runs there of the same options, versions and sources of the trainer (medians).

A step of ``real`` has two pairs, so that TRL is tried with micro-batches 1 and 2; ``--batch 4`` tries 1, 2 and 4. The
embedding and ``lm_head`` of both models are one matrix (tied), as in Qwen2.5-0.5B and SmolLM2.

Run: python benchmarks/train_vs_trl.py            (needs trl; see --minutes; nothing else may run)
"""

import argparse
import hashlib
import json
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # another package called benchmarks is among the installed ones

from benchmarks.train_regimes import REGIMES, Regime, model_of, pairs_of, tiny_model
from benchmarks.train_vs_trl_report import report
from maskdpo import console
from maskdpo.devices import default_device
from maskdpo.io import read_records
from maskdpo.models import load_tokenizer
from maskdpo.schemas import Pair
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.encode import encode_pairs, encoder_for
from maskdpo.train.data.encoded_pair import EncodedPair, EncodedSide
from maskdpo.train.model.flops import device_peak, model_shape, step_flops

SOURCES = Path(__file__).parents[1] / "maskdpo" / "train"
LR, BETA = 1e-6, 0.1
BEST: dict[str, Any] = {"precompute_ref_log_probs": True, "gradient_checkpointing": False}

OFFERS: dict[str, dict[str, Any]] = {
    "padding-free": {"padding_free": True},
    "Liger": {"use_liger_kernel": True},
    "kernels of the Hub": {"model_init_kwargs": {"use_kernels": True}},
}
"""What else TRL offers for speed."""


@dataclass(frozen=True)
class Contender:
    """One line of the table. ``settings``: of ``TrainConfig``, or of ``DPOConfig`` with ``micro``."""

    name: str
    trl: bool
    settings: dict[str, Any] = field(default_factory=dict)


def contenders(regime: Regime, batch: int, offers: Sequence[str]) -> list[Contender]:
    """The most important first, in case that time ends. ``offers``: what else of TRL runs here."""
    default, *others = regime.budgets
    least = min(regime.budgets)
    micros = [micro for micro in regime.micro_batches if micro <= batch and batch % micro == 0]

    def ours(title: str, method: str, tokens: int, **settings: Any) -> Contender:
        return Contender(title, False, {"method": method, "tokens_per_batch": tokens} | settings)

    def best(title: str, micro: int, **settings: Any) -> Contender:
        return Contender(title, True, {"micro": micro} | BEST | settings)

    again = {"gradient_checkpointing": True}
    return [
        ours("Mask-DPO", "mask-dpo", default),
        best("TRL, micro-batch 1", 1),
        ours("DPO", "dpo", default),
        Contender("TRL, defaults", True, {"micro": min(8, batch)}),
        *(ours(f"DPO, {tokens} tokens per pass", "dpo", tokens) for tokens in others),
        ours(f"DPO, {least} tokens, adamw8bit", "dpo", least, optim="adamw8bit"),
        ours(f"DPO, {least} tokens, adamw8bit, checkpointing", "dpo", least, optim="adamw8bit", **again),
        *(best(f"TRL, micro-batch {micro}", micro) for micro in micros if micro > 1),
        *(best(f"TRL, micro-batch 1, {name}", 1, **OFFERS[name]) for name in offers),
        *(ours(f"Mask-DPO, {tokens} tokens per pass", "mask-dpo", tokens) for tokens in others),
        ours(f"Mask-DPO, {least} tokens, checkpointing", "mask-dpo", least, **again),
        ours(f"DPO, {least} tokens, checkpointing", "dpo", least, **again),
        best("TRL, micro-batch 1, checkpointing", 1, **again),
    ]


def load(options: argparse.Namespace) -> list[Pair]:
    """The pairs of a step."""
    if options.pairs:
        return list(islice(read_records(options.pairs, Pair), options.batch))
    tokenizer = load_tokenizer(model_of(options.regime, options.layers))
    return pairs_of(REGIMES[options.regime], options.batch, tokenizer)


def encoded(options: argparse.Namespace, method: str) -> Sequence[EncodedPair]:
    config = TrainConfig(model=model_of(options.regime, options.layers), method=method)
    return encode_pairs(load(options), encoder_for(config, load_tokenizer(config.model))).pairs


def run_maskdpo(options: argparse.Namespace, method: str, **settings: Any) -> dict[str, Any]:
    from maskdpo.train.model.load import load_policy
    from maskdpo.train.run.loop import run_steps
    from maskdpo.train.run.reference import compute_reference
    from maskdpo.train.step import Trainer

    config = TrainConfig(
        model=model_of(options.regime, options.layers), method=method, lr=LR, beta=BETA, warmup_ratio=0,
        log_masked_every=0, batch_size=options.batch, dtype=options.dtype, epochs=options.steps, **settings,
    )  # fmt: skip
    pairs = encoded(options, method)
    # The layouts are tried on short answers here: start-up is not what is measured.
    policy = load_policy(config, [_shortened(pair) for pair in pairs[:2]], default_device())
    trainer = Trainer(policy.model, config, policy.layout)
    started = time.perf_counter()
    trainer.reference = compute_reference(trainer, pairs)
    reference = time.perf_counter() - started
    steps = list(run_steps(trainer, pairs, 0, options.steps))
    return {
        "losses": [step.loss for step in steps],
        "step_s": [step.seconds for step in steps],
        "reference_s": reference,
        "flops": step_flops(model_shape(policy.model), pairs, policy.layout),
        "rate": device_peak(str(policy.model.device), trainer.compute),
    }


def _shortened(pair: EncodedPair) -> EncodedPair:
    def beginning(side: EncodedSide) -> EncodedSide:
        weights = side.weights[:16].copy()
        weights[:2] = 1
        return EncodedSide(side.ids[:16], weights)

    return EncodedPair(pair.id, pair.prompt_ids, beginning(pair.chosen), beginning(pair.rejected))


def run_trl(options: argparse.Namespace, micro: int, **settings: Any) -> dict[str, Any]:
    folder = model_of(options.regime, options.layers)
    rate = device_peak(default_device(), options.dtype)
    rows = [json.loads(pair.model_dump_json(include={"prompt", "chosen", "rejected"})) for pair in load(options)]
    trainer, reference, steps = _train_trl(folder, rows, options.steps, micro, options.dtype, settings)
    return {
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "step_s": steps,
        "reference_s": sum(reference) if settings.get("precompute_ref_log_probs") else None,
        "flops": step_flops(model_shape(trainer.model), encoded(options, "dpo"), "padded"),
        "rate": max(rate, device_peak(default_device(), options.dtype)),
    }


def _train_trl(
    folder: str, rows: Sequence[Any], steps: int, micro: int, dtype: str, settings: dict[str, Any]
) -> tuple[Any, list[float], list[float]]:
    """The trainer after so many steps over the same rows, and the seconds of reference log-probs and of steps."""
    import datasets
    import transformers
    import trl

    reference: list[float] = []
    times: list[float] = []

    class Timed(trl.DPOTrainer):  # type: ignore[misc]
        def compute_ref_log_probs(self, *args: Any) -> Any:
            started = time.perf_counter()
            found = super().compute_ref_log_probs(*args)
            reference.append(time.perf_counter() - started)
            return found

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            times.append(-time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times[-1] += time.perf_counter()

    load_settings = {"dtype": torch.float32} | settings.pop("model_init_kwargs", {})
    with tempfile.TemporaryDirectory() as out:
        config = trl.DPOConfig(
            output_dir=out, report_to="none", save_strategy="no", logging_steps=1, disable_tqdm=True, max_length=2048,
            use_cpu=not torch.cuda.is_available(), bf16=dtype == "bfloat16", learning_rate=LR, beta=BETA,
            optim="adamw_torch_fused", weight_decay=0.0, max_grad_norm=1.0, warmup_steps=0, max_steps=steps,
            lr_scheduler_type="linear", per_device_train_batch_size=micro,
            gradient_accumulation_steps=len(rows) // micro, model_init_kwargs=load_settings, **settings,
        )  # fmt: skip
        trainer = Timed(
            model=folder, args=config, train_dataset=datasets.Dataset.from_list(list(rows)),
            processing_class=transformers.AutoTokenizer.from_pretrained(folder), callbacks=[Clock()],
        )  # fmt: skip
        trainer.train()
    return trainer, reference, times


def try_offer(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """What TRL says about an offer of its own, on a tiny model; nothing where it runs."""
    pairs = pairs_of(REGIMES["smollm2"], 2, load_tokenizer("smollm2"))
    rows = [json.loads(pair.model_dump_json(include={"prompt", "chosen", "rejected"})) for pair in pairs]
    told: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage().removeprefix("[RANK 0] "))

    logging.getLogger("trl").addHandler(Listener())
    try:
        _train_trl(tiny_model(), rows, 1, 1, options.dtype, BEST | OFFERS[name])
    except (ImportError, ValueError, RuntimeError, TypeError, OSError) as error:
        return {"refused": f"{type(error).__name__}: {error}"}
    return {"refused": next((line for line in told if "unavailable" in line), None)}


def child(options: argparse.Namespace) -> None:
    job = json.loads(options.child)
    if "offer" in job:
        result = try_offer(options, job["offer"])
    else:
        result = (run_trl if job["trl"] else run_maskdpo)(options, **job["settings"])
    on_gpu = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print("RESULT" + json.dumps(result | {"memory_gb": peak / 1e9}), flush=True)


def measure(job: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """What a process of its own finds; ``failed`` is the end of what it said where it finds nothing."""
    command = [sys.executable, __file__, *sys.argv[1:], "--dtype", options.dtype, "--child", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT"):
            found: dict[str, Any] = json.loads(line.removeprefix("RESULT"))
            return found
    return {"failed": done.stderr.strip()[-500:] or f"exit code {done.returncode}"}


def main() -> None:
    options = parse()
    if options.child:
        child(options)
        return
    began = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "runs.jsonl"
    setup = {
        "regime": str(options.pairs or options.regime), "batch": options.batch, "steps": options.steps,
        "dtype": options.dtype, "layers": options.layers, "threads": torch.get_num_threads(), **measured_code(),
    }  # fmt: skip
    model_of(options.regime, options.layers)  # written before the first process measures
    kept = Runs(file, setup, began + 60 * options.minutes if options.minutes else float("inf"))
    if not options.only:
        kept.make([{"name": f"TRL, {name}", "offer": name} for name in OFFERS], options)
    offers = [run["offer"] for run in kept.read() if "offer" in run and not run.get("refused", "failed")]
    found = contenders(REGIMES[options.regime], options.batch, offers)
    wanted = [one for one in found if not options.only or one.name.startswith(tuple(options.only))]
    for _ in range(options.repeat):
        kept.make([vars(one) for one in wanted], options)
    report(kept.read(), setup, options.out)


def measured_code() -> dict[str, str]:
    """What may change the speed and is no option: versions of packages, and a hash of the trainer's sources."""
    content = b"".join(file.read_bytes() for file in sorted(SOURCES.rglob("*.py")))
    packages = {name: version(name) for name in ("torch", "transformers", "trl") if find_spec(name)}
    return packages | {"maskdpo/train": hashlib.sha256(content).hexdigest()[:12]}


@dataclass
class Runs:
    """The runs of one set-up, in a file that only grows."""

    file: Path
    setup: dict[str, Any]
    until: float
    """Of ``time.monotonic``: no run begins that would probably end later."""
    asked: dict[str, int] = field(default_factory=dict)
    """How often each contender was to run so far."""

    def read(self) -> list[dict[str, Any]]:
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return [run for run in map(json.loads, lines) if run["setup"] == self.setup]

    def make(self, jobs: Sequence[dict[str, Any]], options: argparse.Namespace) -> None:
        """Each of the jobs, where the file does not have it already."""
        for job in jobs:
            name = job["name"]
            runs = self.read()
            seconds = {run["name"]: run["seconds"] for run in runs}
            alike = [run["seconds"] for run in runs if run.get("trl") == job.get("trl")]
            self.asked[name] = self.asked.get(name, 0) + 1
            if sum(run["name"] == name for run in runs) >= self.asked[name]:
                continue
            started = time.monotonic()
            # What has not run yet is taken to need as long as the longest of the same trainer so far.
            if started + seconds.get(name, max(alike, default=0)) > self.until:
                console.warn(f"{name}: left out, as it would probably end too late; the same command goes on with it")
                continue
            result = measure(job, options)
            took = time.monotonic() - started
            with self.file.open("a") as lines:
                lines.write(json.dumps({"setup": self.setup, **job, "seconds": took, **result}) + "\n")
            console.say(f"{name}: {_outcome(result, options.batch)} ({took:.0f} s)")


def _outcome(result: dict[str, Any], batch: int) -> str:
    if "failed" in result:
        return f"failed: {result['failed']}"
    if "refused" in result:
        return result["refused"] or "runs"
    speed = batch / statistics.median(result["step_s"][1:] or result["step_s"])
    return f"{speed:.3f} pairs/s, {result['memory_gb']:.1f} GB"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regime", choices=REGIMES, default="real")
    parser.add_argument("--pairs", type=Path, help="a pairs file in place of pairs of the regime's length")
    parser.add_argument("--batch", type=int, help="pairs per optimiser step [default: 2 for real, 8 for smollm2]")
    parser.add_argument("--steps", type=int, default=2, help="optimiser steps of a run; of several the first warms up")
    parser.add_argument("--repeat", type=int, default=1, help="runs of every contender; medians count")
    parser.add_argument("--minutes", type=float, help="begin no run that would probably end later")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="[default: the one with quicker products]")
    parser.add_argument("--layers", type=int, help="layers of the random model, for a short try [default: 24]")
    parser.add_argument("--only", nargs="*", help="beginnings of the names of the contenders to run")
    parser.add_argument("--out", type=Path, default=Path("train_vs_trl"), help="folder of runs, figures and curve")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.batch = options.batch or REGIMES[options.regime].batch
    if options.dtype is None:
        options.dtype = max(("float32", "bfloat16"), key=lambda dtype: device_peak(default_device(), dtype))
    return options


if __name__ == "__main__":
    main()

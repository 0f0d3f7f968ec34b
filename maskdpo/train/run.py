"""``maskdpo train``: from a pairs file to a model folder, resumable by repeating the same command."""

import json
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from maskdpo.console import progress, say, warn
from maskdpo.errors import InputError, UserError
from maskdpo.io import atomic_write, read_records
from maskdpo.models import default_device, fingerprint, load_tokenizer
from maskdpo.runs import META_IN_FOLDER, Run, set_aside
from maskdpo.schemas import Pair
from maskdpo.train.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from maskdpo.train.config import TrainConfig
from maskdpo.train.distributed import Ranks, joined
from maskdpo.train.encode import Drop, EncodedPair, EncodedPairs, Encoder, encode_pairs
from maskdpo.train.export import export
from maskdpo.train.figures import StepStats
from maskdpo.train.loop import Trainer, run_steps, total_steps
from maskdpo.train.lora import adapter_off, require_peft, seed_dropout, trained_part
from maskdpo.train.losses import NEED_SCORES, REFERENCE_FREE
from maskdpo.train.policy import Policy, load_policy, whole_policy
from maskdpo.train.reference import Reference, cache_file, load_reference, save_reference, share_reference

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class TrainResult:
    """What a run did. ``steps`` is empty where there was nothing left to do."""

    steps: list[StepStats]
    pairs: int
    dropped: Counter[Drop]
    resumed_from: int
    total_steps: int
    layout: str


def train(
    pairs_file: Path,
    out: Path,
    config: TrainConfig,
    *,
    save_every: int = 100,
    keep: int = 2,
    restart: bool = False,
    use_cache: bool = True,
    device: str | None = None,
) -> TrainResult | None:
    """Train ``config.model`` on a pairs file and write a Hugging Face model folder.

    Args:
        save_every: optimiser steps between checkpoints; 0 writes none.
        keep: newest checkpoints to keep.
        restart: set an earlier run in ``out`` aside and begin anew.
        use_cache: read and write the reference log-probs in the cache folder.

    Returns:
        What was done, or None where ``out`` already holds the finished run.

    Raises:
        UserError: bad input, no pair to train on, or ``out`` holds another run.
    """
    with joined() as ranks:
        return _train(pairs_file, out, config, ranks, save_every, keep, restart, use_cache, ranks.device or device)


def _train(
    pairs_file: Path,
    out: Path,
    config: TrainConfig,
    ranks: Ranks,
    save_every: int,
    keep: int,
    restart: bool,
    use_cache: bool,
    device: str | None,
) -> TrainResult | None:
    """``train`` on one of the ranks. Only the first one writes."""
    if out.is_file():
        raise InputError("is a file; --out must name a folder", path=out)
    if not restart and out.exists() and any(out.iterdir()) and not (out / META_IN_FOLDER).exists():
        raise InputError("the folder exists and holds no maskdpo run; name another --out", path=out)
    options = {**config.model_dump(), "model_files": fingerprint(config.model)}
    run = None if restart else _record(out, options, pairs_file)
    if run and run.previous and run.previous.status == "complete":
        say(f"{out}: this very run is complete; nothing to do (--restart trains it again)")
        return None
    if config.lora_r:
        require_peft()
    tokenizer = load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
    encoded = encode_pairs(read_records(pairs_file, Pair), _make_encoder(config, tokenizer))
    for reason, count in encoded.dropped.most_common():
        warn(f"{count} pairs left out: {reason.value}")
    policy = load_policy(config, encoded.pairs, device or default_device(), ranks)
    trainer = _make_trainer(policy, config, encoded.pairs, use_cache, ranks)
    if ranks.first:
        if run is None:  # the earlier run is only set aside for one that can begin
            set_aside(out)
            run = _record(out, options, pairs_file)
        run.begin()
    result = _run(trainer, encoded, out, save_every, keep)
    policy = whole_policy(policy, config, ranks)
    if not ranks.first or run is None:
        return result
    export(policy, tokenizer, config, out)
    run.finish({"pairs": result.pairs, "steps": result.total_steps, "dropped": _named(encoded.dropped)})
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    return result


def _record(out: Path, options: dict[str, Any], pairs_file: Path) -> Run:
    return Run(
        out / META_IN_FOLDER,
        "train",
        options,
        {"pairs": pairs_file},
        restart="Use another --out, or --restart to set it aside and begin anew",
        fixed_inputs=True,
    )


def _named(dropped: Counter[Drop]) -> dict[str, int]:
    return {reason.name.lower(): count for reason, count in dropped.items()}


def _make_encoder(config: TrainConfig, tokenizer: "PreTrainedTokenizerBase") -> Encoder:
    return Encoder(
        tokenizer,
        method=config.method,
        eos=config.eos,
        max_length=config.max_length,
        ld_alpha=1.0 if config.ld_alpha is None else config.ld_alpha,
        need_scores=config.loss in NEED_SCORES,
    )


def _make_trainer(
    policy: Policy, config: TrainConfig, pairs: list[EncodedPair], use_cache: bool, ranks: Ranks
) -> Trainer:
    """The policy and, for the losses that have one, its reference."""
    trainer = Trainer(policy.model, config, policy.layout, ranks)
    if config.loss not in REFERENCE_FREE:
        trainer.reference = _make_reference(trainer, pairs, use_cache)
    return trainer


def _make_reference(trainer: Trainer, pairs: list[EncodedPair], use_cache: bool) -> Reference:
    """From the cache, or by the trainer's model, which must still be the one that was loaded."""
    weights = "" if trainer.model.dtype == torch.float32 else f", weights in {trainer.model.dtype}"
    file = cache_file(trainer.config.model, trainer.compute + weights, pairs)
    ranks = trainer.ranks
    reference = load_reference(file) if use_cache and ranks.first else None
    if ranks.any(reference is not None):
        return share_reference(reference or {}, pairs, ranks)
    with progress("reference log-probs", len(pairs), "pairs") as bar, adapter_off(trainer.model):
        reference = trainer.compute_reference(pairs, bar.advance)
    if use_cache and ranks.first:
        save_reference(file, reference)
    return reference


def _run(trainer: Trainer, encoded: EncodedPairs, out: Path, save_every: int, keep: int) -> TrainResult:
    """All steps that are left, with metrics to a file and checkpoints on the way."""
    folder, ranks = out / CHECKPOINTS, trainer.ranks
    first, last = 0, total_steps(len(encoded.pairs), trainer.config)
    if existing := ranks.from_first(checkpoints(folder)):
        first = load_checkpoint(existing[-1], trained_part(trainer.model), trainer.optimizer, ranks)
        say(f"resuming from step {first} of {last}")
    if ranks.first:
        _keep_metrics(out / METRICS, first)
    done: list[StepStats] = []
    with (
        (out / METRICS if ranks.first else Path(os.devnull)).open("a") as metrics,
        progress("train", last, "steps") as bar,
        _interrupt_between_steps() as interrupted,
    ):
        bar.advance(first)
        seed_dropout(trainer.config, first)
        for stats in run_steps(trainer, encoded.pairs, first, last):
            done.append(stats)
            metrics.write(json.dumps(asdict(stats)) + "\n")
            metrics.flush()
            bar.advance(1, f"loss {stats.loss:.4f}  margin {stats.margin:+.3f}  {stats.pairs_per_s:.2f} pairs/s")
            due = save_every and stats.step % save_every == 0 and stats.step < last
            stop = ranks.any(interrupted())
            if due or stop:
                part = trained_part(trainer.model)
                save_checkpoint(folder, stats.step, part, trainer.optimizer, keep=keep, ranks=ranks)
            seed_dropout(trainer.config, stats.step)
            if stop:
                raise UserError(f"interrupted; step {stats.step} is saved. Repeat the same command to go on from there")
    return TrainResult(done, len(encoded.pairs), encoded.dropped, first, last, trainer.layout)


@contextmanager
def _interrupt_between_steps() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed. The step under way is finished, so that only whole steps are saved; a second Ctrl-C
    stops at once and leaves the checkpoint before."""
    pressed = False

    def press(*_: object) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        say("interrupted: finishing this step to save it (Ctrl-C again stops at once)")

    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _keep_metrics(file: Path, steps: int) -> None:
    """Drop the figures of steps that will be done again, because the run died after its last checkpoint."""
    if file.exists():
        lines = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
        with atomic_write(file) as kept:
            kept.write("".join(line for line in lines if json.loads(line)["step"] <= steps).encode())

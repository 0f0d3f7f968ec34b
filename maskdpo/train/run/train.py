"""``maskdpo train``: from a pairs file to a model folder, resumable by repeating the same command."""

import functools
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch

from maskdpo.chat import ChatFormat
from maskdpo.console import progress, say
from maskdpo.errors import InputError, Interrupted, UserError
from maskdpo.identity import fingerprint
from maskdpo.io.append import LOCK_SUFFIX, sole_writer
from maskdpo.models import load_tokenizer, pick_device
from maskdpo.prompt_date import recorded_date
from maskdpo.run_record import META_IN_FOLDER, Run, read_meta, recorded_option, set_aside
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.encode import Drop, EncodedPair, EncodedPairs
from maskdpo.train.data.read import read_pairs
from maskdpo.train.losses import LOSSES
from maskdpo.train.model.adapter import adapter_off, require_peft, seed_dropout
from maskdpo.train.model.distributed import Ranks, joined
from maskdpo.train.model.load import load_policy, whole_policy
from maskdpo.train.model.reference import Reference, cache_file, load_reference, save_reference, share_reference
from maskdpo.train.run.card import describe
from maskdpo.train.run.checkpoint import checkpoints, load_checkpoint, remove_all, save_checkpoint
from maskdpo.train.run.export import export
from maskdpo.train.run.figures import StepStats
from maskdpo.train.run.heldout import HeldOut
from maskdpo.train.run.record import Recorder, Watch, recording
from maskdpo.train.run.trackers import require_tracker
from maskdpo.train.step import Trainer, run_steps, total_steps

CHECKPOINTS = "checkpoints"
PAIRS_AS_SAMPLED = 2
"""The schema of the first records whose runs trained prompts token by token as they are sampled."""

SAME_SIGNAL_S = 1.0
"""Signals so soon behind the first are the same one: a scheduler sends it to every process, and a launcher passes on to
its processes what it has got itself."""


@dataclass(frozen=True)
class TrainResult:
    """What a run did. ``steps`` is empty where there was nothing left to do."""

    steps: list[StepStats]
    pairs: int
    dropped: Counter[Drop]
    resumed_from: int
    total_steps: int
    layout: str
    evals: list[dict[str, Any]]
    """Rows of ``eval.jsonl``: the looks at held-out pairs."""
    best: int | None
    """The step whose weights were written, with ``keep_best``; None: the last."""


def train(
    pairs_file: Path,
    out: Path,
    config: TrainConfig,
    *,
    save_every: int = 100,
    keep: int = 2,
    restart: bool = False,
    use_cache: bool = True,
    watch: Watch = Watch(),
    device: str | None = None,
) -> TrainResult | None:
    """Train ``config.model`` on a pairs file and write a Hugging Face model folder.

    Args:
        save_every: optimiser steps between checkpoints; 0 writes none.
        keep: newest checkpoints to keep.
        restart: set an earlier run in ``out`` aside and begin anew.
        use_cache: read and write the reference log-probs in the cache folder.
        watch: what is looked at on the way.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; None takes the best that there is.

    Returns:
        What was done, or None where ``out`` already holds the finished run.

    Raises:
        UserError: bad input, no pair to train on, no such device, or ``out`` holds another run or is being written to.
        Interrupted: a signal asked to stop, and the step that was under way is saved.
    """
    with joined(device) as ranks:
        device = ranks.device or pick_device(device)
        _check(out, config, watch, ranks, restart)
        with sole_writer(out) if ranks.first else nullcontext():
            return _train(pairs_file, out, config, ranks, save_every, keep, restart, use_cache, watch, device)


def _train(
    pairs_file: Path,
    out: Path,
    config: TrainConfig,
    ranks: Ranks,
    save_every: int,
    keep: int,
    restart: bool,
    use_cache: bool,
    watch: Watch,
    device: str,
) -> TrainResult | None:
    """``train`` on one of the ranks. Only the first one writes."""
    if not restart:
        _refuse_old(out / META_IN_FOLDER)
    before = None if restart else recorded_option(out / META_IN_FOLDER, "model_files")
    model_files = functools.partial(fingerprint, config.model, before)
    options = config.model_dump() | {"model_files": ranks.from_first(model_files() if ranks.first else "")}
    tokenizer = load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
    today = ranks.from_first((None if restart else recorded_date(out / META_IN_FOLDER)) or date.today())
    if ChatFormat(tokenizer).writes_date:
        options["prompt_date"] = today.isoformat()
    inputs = {"pairs": pairs_file} | ({"eval": watch.eval_file} if watch.eval_file else {})
    run = None if restart else _record(out, options, inputs)
    if run and run.previous and run.previous.status == "complete":
        say(f"{out}: this very run is complete; nothing to do (--restart trains it again)")
        return None
    encoded = read_pairs(pairs_file, config, tokenizer, today)
    looked_at = read_pairs(watch.eval_file, config, tokenizer, today).pairs if watch.eval_file else None
    policy = load_policy(config, encoded.pairs + (looked_at or []), device, ranks)
    trainer = Trainer(policy.model, config, policy.layout, ranks)
    trainer.reference = _reference(trainer, encoded.pairs, use_cache)
    heldout = HeldOut(looked_at, _reference(trainer, looked_at, use_cache)) if looked_at else None
    if ranks.first:
        if run is None:  # the earlier run is only set aside for one that can begin
            set_aside(out)
            run = _record(out, options, inputs)
        run.begin({"model_files": model_files()})
    record = functools.partial(recording, out, trainer, tokenizer, heldout, watch)
    with _stop_between_steps() as signalled:
        result = _run(trainer, encoded, out, save_every, keep, record, signalled)
        policy = whole_policy(policy, config, ranks)
        if not ranks.first or run is None:
            return result
        counts = {"pairs": result.pairs, "steps": result.total_steps, "dropped": _named(encoded.dropped)}
        run.meta.counts = counts
        export(policy, tokenizer, config, out, describe(out, config, run.meta, result.best))
        run.finish(counts)
        remove_all(out / CHECKPOINTS)
    return result


def _check(out: Path, config: TrainConfig, watch: Watch, ranks: Ranks, restart: bool) -> None:
    """What can be refused before anything is read."""
    if out.is_file():
        raise InputError("is a file; --out must name a folder", path=out)
    found = [file for file in out.iterdir() if file.suffix != LOCK_SUFFIX] if out.exists() else []
    if not restart and found and not (out / META_IN_FOLDER).exists():
        raise InputError("the folder exists and holds no maskdpo run; name another --out", path=out)
    if watch.eval_file is None and (config.keep_best or watch.show_answers):
        raise UserError(f"{'--keep-best' if config.keep_best else '--show-answers'} needs held-out pairs: --eval PAIRS")
    if watch.show_answers and ranks.size > 1:
        raise UserError("--show-answers works in one process only")
    if config.lora_r:
        require_peft()
    if watch.track is not None:
        require_tracker(watch.track)


def _refuse_old(record: Path) -> None:
    """What was begun by a version that put prompts together in another way cannot be continued as it was begun."""
    meta = read_meta(record)
    meta = read_meta(record)
    if meta is not None and meta.status == "running" and meta.schema_version < PAIRS_AS_SAMPLED:
        raise UserError(
            f"{record}: this run was begun by an earlier maskdpo, which encoded pairs in another way; finish it with "
            "that version, or --restart to set it aside and begin anew"
        )


def _record(out: Path, options: dict[str, Any], inputs: dict[str, Path]) -> Run:
    return Run(
        out / META_IN_FOLDER,
        "train",
        options,
        inputs,
        restart="Use another --out, or --restart to set it aside and begin anew",
        fixed_inputs=True,
        defaults=_defaults(),
    )


def _defaults() -> dict[str, Any]:
    """Of all settings: what a run was made with whose record is older than a setting."""
    return {name: field.get_default(call_default_factory=True) for name, field in TrainConfig.model_fields.items()}


def _named(dropped: Counter[Drop]) -> dict[str, int]:
    return {reason.name.lower(): count for reason, count in dropped.items()}


def _reference(trainer: Trainer, pairs: list[EncodedPair], use_cache: bool) -> Reference:
    """From the cache, or by the trainer's model, which must still be the one that was loaded. Some losses have none."""
    if LOSSES[trainer.config.loss].reference_free:
        return {}
    weights = "" if trainer.model.dtype == torch.float32 else f", weights in {trainer.model.dtype}"
    ranks = trainer.ranks
    if ranks.size > 1 and trainer.compute == "bfloat16":
        weights += ", split"  # and rounded a little differently: see docs/scale.md
    attention = trainer.model.config._attn_implementation  # another one rounds differently
    file = None
    if use_cache and ranks.first:  # the others would all read the whole model for its hash
        file = cache_file(trainer.config.model, f"{trainer.compute}{weights}, {attention}", pairs)
    reference = load_reference(file) if file else None
    if ranks.any(reference is not None):
        return share_reference(reference or {}, pairs, ranks)
    with progress("reference log-probs", len(pairs), "pairs") as bar, adapter_off(trainer.model):
        reference = trainer.compute_reference(pairs, bar.advance)
    if file:
        save_reference(file, reference)
    return reference


def _run(
    trainer: Trainer, encoded: EncodedPairs, out: Path, save_every: int, keep: int,
    record: Callable[[int, int], AbstractContextManager[Recorder]], signalled: Callable[[], int],
) -> TrainResult:  # fmt: skip
    """All steps that are left, with what is measured to files and checkpoints on the way."""
    folder, ranks = out / CHECKPOINTS, trainer.ranks
    first, last = 0, total_steps(len(encoded.pairs), trainer.config)
    if existing := ranks.from_first(checkpoints(folder)):
        first = load_checkpoint(existing[-1], trainer.model, trainer.optimizer, ranks)
        say(f"resuming from step {first} of {last}")
    done: list[StepStats] = []
    with record(first, last) as recorder, progress("train", last, "steps", first) as bar:
        recorder.look(first)
        seed_dropout(trainer.config, first)
        for stats in run_steps(trainer, encoded.pairs, first, last):
            done.append(stats)
            recorder.step(stats)
            bar.advance(1, f"loss {stats.loss:.4f}  margin {stats.margin:+.3f}  {stats.pairs_per_s:.2f} pairs/s")
            recorder.look(stats.step)
            due = save_every and stats.step % save_every == 0 and stats.step < last
            stop = int(ranks.largest(signalled()))
            if due or stop:
                recorder.sync()
                save_checkpoint(folder, stats.step, trainer.model, trainer.optimizer, keep=keep, ranks=ranks)
            seed_dropout(trainer.config, stats.step)
            if stop:
                message = f"interrupted; step {stats.step} is saved. Repeat the same command to go on from there"
                raise Interrupted(message, stop)
        recorder.draw()
        best = recorder.load_best()
    return TrainResult(done, len(encoded.pairs), encoded.dropped, first, last, trainer.layout, recorder.evals, best)


@contextmanager
def _stop_between_steps() -> Iterator[Callable[[], int]]:
    """The number of the signal (Ctrl-C or SIGTERM) that has asked to stop; 0 before one has. The step under way is
    finished, so that only whole steps are saved; a second signal stops at once and leaves the checkpoint before."""
    got, at = 0, 0.0

    def note(number: int, _frame: object) -> None:
        nonlocal got, at
        if not got:
            got, at = number, time.monotonic()
            say(f"{signal.Signals(number).name}: what is under way is finished and saved (a second one stops at once)")
        elif time.monotonic() - at > SAME_SIGNAL_S:
            signal.signal(number, defaults[number])
            signal.raise_signal(number)

    defaults: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    in_main = threading.current_thread() is threading.main_thread()
    ours = [number for number, default in defaults.items() if in_main and signal.getsignal(number) is default]
    for number in ours:
        signal.signal(number, note)
    try:
        yield lambda: got
    finally:
        for number in ours:
            signal.signal(number, defaults[number])

"""``maskdpo train``: from a pairs file to a model folder, resumable by repeating the same command."""

import functools
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from maskdpo.chat import ChatFormat
from maskdpo.console import counted, progress, say
from maskdpo.devices import pick_device
from maskdpo.errors import CannotContinue, Interrupted
from maskdpo.identity import fingerprint
from maskdpo.io.lock import sole_writer
from maskdpo.models import load_tokenizer
from maskdpo.prompt_date import recorded_date
from maskdpo.run_folder import remove_all, stop_between_steps
from maskdpo.run_record import META_IN_FOLDER, RunMeta, read_meta
from maskdpo.schemas.training import CHECKPOINTS, StepStats
from maskdpo.stage_run import Run, set_aside
from maskdpo.train.config import TrainConfig
from maskdpo.train.data.encoded_pair import Drop
from maskdpo.train.data.measures import Chained
from maskdpo.train.data.read import read_pairs
from maskdpo.train.data.store import StoredPairs
from maskdpo.train.model.adapter import seed_dropout
from maskdpo.train.model.load import load_policy, whole_policy
from maskdpo.train.ranks import Ranks, joined
from maskdpo.train.run.card import describe
from maskdpo.train.run.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from maskdpo.train.run.checks import check_options, check_packages
from maskdpo.train.run.export import export
from maskdpo.train.run.heldout import HeldOut
from maskdpo.train.run.loop import run_steps, total_steps, warn_of_few_steps
from maskdpo.train.run.record import Recorder
from maskdpo.train.run.reference import check_vocabulary, find_reference, references_of
from maskdpo.train.settings import RunOptions
from maskdpo.train.step import Trainer

PAIRS_AS_SAMPLED = 2
"""The schema of the first records whose runs trained prompts token by token as they are sampled."""


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
    """Rows of ``eval.jsonl``: the evaluations on held-out pairs."""
    best: int | None
    """The step whose weights were written, with ``keep_best``; None: the last."""


@dataclass(frozen=True)
class _Job:
    """What ``train`` is asked to do, and where this process does it."""

    pairs_file: Path
    out: Path
    config: TrainConfig
    options: RunOptions
    ranks: Ranks
    device: str

    @property
    def record(self) -> Path:
        return self.out / META_IN_FOLDER

    @property
    def inputs(self) -> dict[str, Path]:
        """Input files by their role in the record."""
        held_out = self.options.eval_file
        return {"pairs": self.pairs_file} | ({"eval": held_out} if held_out else {})


DEFAULTS = RunOptions()


def train(pairs_file: Path, out: Path, config: TrainConfig, options: RunOptions = DEFAULTS) -> TrainResult | None:
    """Train ``config.model`` on a pairs file and write a Hugging Face model folder.

    Returns:
        What was done, or None where ``out`` already holds the finished run.

    Raises:
        UserError: bad input, no pair to train on, no such device, or ``out`` holds another run or is being written to.
        Interrupted: a signal asked to stop, and the step that was under way is saved.
    """
    with joined(options.device) as ranks:
        job = _Job(pairs_file, out, config, options, ranks, ranks.device or pick_device(options.device))
        check_options(out, config, options, ranks.size)
        check_packages(config, options)
        with sole_writer(out) if ranks.first else nullcontext():
            return _train(_after_a_try(job))


def _train(job: _Job) -> TrainResult | None:
    """``train`` on one of the ranks. Only the first one writes."""
    out, config, options, ranks = job.out, job.config, job.options, job.ranks
    earlier = None if options.restart else read_meta(job.record)
    _refuse_old(job.record, earlier)
    model_files = functools.partial(_model_files, config, earlier)
    settings = config.recorded() | ranks.from_first(model_files() if ranks.first else {})
    tokenizer = load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
    today = ranks.from_first((recorded_date(job.record) if earlier else None) or date.today())
    if ChatFormat(tokenizer).writes_date:
        settings["prompt_date"] = today.isoformat()
    run = None if options.restart else _run_record(job, settings)
    if run and run.previous and run.previous.status == "complete":
        say(f"{out}: this very run is complete; nothing to do (`restart` trains it again)")
        return None
    check_vocabulary(config, tokenizer)
    read = functools.partial(
        read_pairs, trust_remote_code=config.trust_remote_code, ranks=ranks, use_cache=options.use_cache
    )
    pairs = read(job.pairs_file, config, tokenizer, today, config.limit)
    if ranks.first:
        warn_of_few_steps(len(pairs), config)
    held_out = read(options.eval_file, config, tokenizer, today) if options.eval_file else None
    sets = [pairs, *([held_out] if held_out else [])]
    other = config.of_reference
    references = references_of(other, sets, job.device, ranks, options.use_cache) if other else None
    policy = load_policy(config, Chained(*sets), job.device, ranks)
    trainer = Trainer(policy.model, config, policy.layout, ranks)
    references = references or [find_reference(trainer, some, options.use_cache) for some in sets]
    trainer.reference = references[0]
    heldout = HeldOut(held_out, references[1]) if held_out else None
    if ranks.first:
        if run is None:  # the earlier run is only set aside for one that can begin
            set_aside(out)
            run = _run_record(job, settings)
        run.begin(model_files())
    recorder = Recorder(out, trainer, tokenizer, heldout, options)
    with stop_between_steps() as signalled:
        result = _all_steps(recorder, pairs, signalled)
        policy = whole_policy(policy, config, ranks)
        if not ranks.first or run is None:
            return result
        counts = {"pairs": result.pairs, "steps": result.total_steps, "dropped": _named(pairs.dropped)}
        run.meta.counts = counts
        export(policy, tokenizer, config, out, describe(out, config, run.meta, result.best))
        run.finish(counts)
        remove_all(out / CHECKPOINTS)
    return result


def _model_files(config: TrainConfig, earlier: RunMeta | None) -> dict[str, str]:
    """The fingerprints of the models that decide the result, as the record has them."""
    named = {"model_files": config.model, "reference_files": config.reference}
    recorded = earlier.options if earlier else {}
    return {key: fingerprint(name, recorded.get(key)) for key, name in named.items() if name}


def _after_a_try(job: _Job) -> _Job:
    """A run on the first pairs only cannot go on with all of them, because their order is another one: it is set aside
    by a run with another ``limit``."""
    meta = None if job.options.restart else read_meta(job.record)
    tried = meta.options.get("limit") if meta is not None else None
    if tried is None or tried == job.config.limit:
        return job
    say(f"{job.out}: the earlier run was on the first {counted(tried, 'pair')} only (`limit`); it is set aside")
    return replace(job, options=job.options.but(restart=True))


def _refuse_old(record: Path, meta: RunMeta | None) -> None:
    """A run that was begun by a version that put prompts together in another way cannot be continued by this one."""
    if meta is not None and meta.status == "running" and meta.schema_version < PAIRS_AS_SAMPLED:
        raise CannotContinue(
            "this run was begun by an earlier maskdpo, which encoded pairs in another way; finish it with that "
            "version, or `restart` to set it aside and begin anew",
            path=record,
        )


def _run_record(job: _Job, settings: dict[str, Any]) -> Run:
    return Run(
        job.record,
        "train",
        settings,
        job.inputs,
        restart="Use another `out`, or `restart` to set it aside and begin anew",
        # for settings that are not in the record of an earlier version
        defaults=TrainConfig(model=job.config.model).recorded(),
    )


def _named(dropped: Counter[Drop]) -> dict[str, int]:
    return {reason.name.lower(): count for reason, count in dropped.items()}


def _all_steps(recorder: Recorder, pairs: StoredPairs, signalled: Callable[[], int]) -> TrainResult:
    """All steps that are left, with what is measured to files and checkpoints on the way."""
    trainer, options, folder = recorder.trainer, recorder.options, recorder.out / CHECKPOINTS
    ranks, config = trainer.ranks, trainer.config
    first, last = 0, total_steps(len(pairs), config)
    if existing := ranks.from_first(checkpoints(folder)):
        first = load_checkpoint(existing[-1], trainer.model, trainer.optimizer, ranks)
        say(f"resuming from step {first} of {last}")
    done: list[StepStats] = []
    with recorder.opened(first, last), progress("train", last, "steps", first) as bar:
        recorder.evaluate(first)
        seed_dropout(config, first)
        for stats in run_steps(trainer, pairs, first, last):
            done.append(stats)
            recorder.log(stats)
            bar.advance(1, f"loss {stats.loss:.4f}  margin {stats.margin:+.3f}  {stats.pairs_per_s:.2f} pairs/s")
            recorder.evaluate(stats.step)
            due = options.save_every and stats.step % options.save_every == 0 and stats.step < last
            stop = int(ranks.largest(signalled()))
            if due or stop:
                recorder.sync()
                save_checkpoint(folder, stats.step, trainer.model, trainer.optimizer, keep=options.keep, ranks=ranks)
            seed_dropout(config, stats.step)
            if stop:
                message = f"interrupted; step {stats.step} is saved. Repeat the same command to go on from there"
                raise Interrupted(message, stop)
        recorder.conclude()
        best = recorder.load_best()
    return TrainResult(done, len(pairs), pairs.dropped, first, last, trainer.layout, recorder.evals, best)

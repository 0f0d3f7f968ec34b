"""All steps of a training: order and learning rate of every step, evaluations, early stopping, checkpoints, figures."""

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from maskdpo.console import progress, say
from maskdpo.errors import Interrupted
from maskdpo.judge_training.checkpoint import State, load_best, load_newest, save_best, save_checkpoint
from maskdpo.judge_training.settings import TrainJudgeConfig
from maskdpo.judge_training.step import HeldOutFigures, Row, Trainer
from maskdpo.run_folder import keep_rows
from maskdpo.schemas.training import CHECKPOINTS, EVALS, METRICS


def total_steps(rows: int, config: TrainJudgeConfig) -> int:
    steps = config.epochs * math.ceil(rows / config.batch_size)
    return min(steps, config.max_steps) if config.max_steps else steps


def eval_every(rows: int, config: TrainJudgeConfig) -> int:
    """Steps between evaluations: by default two in a pass over the rows."""
    return config.eval_every or max(1, math.ceil(rows / config.batch_size / 2))


def learning_rate(step: int, total: int, config: TrainJudgeConfig) -> float:
    """Linear rise over the warm-up, then linear or half-cosine fall to zero; ``step`` counts from 0."""
    warmup = math.ceil(config.warmup_ratio * total)
    if step < warmup:
        return config.peak_lr * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    return config.peak_lr * (1 - done if config.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2)


def batches(rows: Sequence[Row], config: TrainJudgeConfig, first: int, last: int) -> Iterator[list[Row]]:
    """The batches of steps ``first`` <= step < ``last``, in an order that follows from seed and epoch alone."""
    per_epoch = math.ceil(len(rows) / config.batch_size)
    for step in range(first, last):
        epoch, position = divmod(step, per_epoch)
        order = np.random.default_rng([config.seed, epoch]).permutation(len(rows))
        yield [rows[i] for i in order[position * config.batch_size : (position + 1) * config.batch_size]]


class Loop:
    """A training that is under way, in its folder."""

    def __init__(self, out: Path, trainer: Trainer, rows: Sequence[Row], held_out: Sequence[Row], save_every: int):
        self.out, self.trainer, self.config = out, trainer, trainer.config
        self.rows = rows
        self.held_out = held_out
        self.save_every = save_every
        self.folder = out / CHECKPOINTS
        self.total = total_steps(len(rows), self.config)
        self.every = eval_every(len(rows), self.config)
        self.state = State()
        self.saved = 0
        """The step of the newest checkpoint."""
        self.files: dict[str, IO[str]] = {}

    def run(self, signalled: Callable[[], int]) -> State:
        """All steps that are left; the weights of the best evaluation are in the model at the end.

        Raises:
            Interrupted: a signal asked to stop, and the step that was under way is saved.
        """
        model, config = self.trainer.base.model, self.config
        self.state = state = load_newest(self.folder, model, self.trainer.optimizer)
        first = self.saved = state.step
        if first:
            say(f"resuming from step {first} of {self.total}")
        with ExitStack() as stack:
            for name in (METRICS, EVALS):
                keep_rows(self.out / name, first or -1)
                self.files[name] = stack.enter_context((self.out / name).open("a", encoding="utf-8"))
            bar = stack.enter_context(progress("train-judge", self.total, "steps", first))
            if not first:
                self._evaluate()
            for batch in batches(self.rows, config, first, self.total):
                if state.stopped:
                    break
                note = self._step(batch)
                bar.advance(1, note)
                if state.step % self.every == 0 or state.step == self.total:
                    self._evaluate()
                stop = signalled()
                if stop or (self.save_every and state.step % self.save_every == 0):
                    self._save()
                if stop:
                    raise Interrupted(
                        f"interrupted; step {state.step} is saved. Repeat the same command to go on from there", stop
                    )
            if self.save_every and state.step > self.saved:
                self._save()  # what follows takes a while, too
        if self.held_out and state.best is not None and state.best != state.step:
            load_best(self.folder, state.best, model)
        return state

    def _step(self, batch: Sequence[Row]) -> str:
        state, config = self.state, self.config
        started = time.perf_counter()
        lr = learning_rate(state.step, self.total, config)
        loss, norm = self.trainer.step(batch, state.step, lr)
        state.step += 1
        seconds = time.perf_counter() - started
        row = {
            "step": state.step,
            "loss": loss,
            "epoch": state.step * config.batch_size / len(self.rows),
            "lr": lr,
            "grad_norm": norm,
            "seconds": seconds,
            "sentences_per_s": len(batch) / seconds,
            "tokens_per_s": sum(row.tokens for row in batch) / seconds,
        }
        self._write(METRICS, row)
        return f"loss {loss:.4f}  {len(batch) / seconds:.2f} sentences/s"

    def _evaluate(self) -> None:
        """On the held-out sentences, and what follows for early stopping."""
        if not self.held_out:
            return
        state, found = self.state, self.trainer.evaluate(self.held_out, self.state.step)
        self._write(EVALS, {key: value for key, value in asdict(found).items() if value is not None})
        say(f"step {state.step}, held out: {_shown(found)}")
        value = found.loss if self.config.best_by == "loss" or found.auroc is None else -found.auroc
        if value < state.best_value:
            state.best, state.best_value, state.worse = state.step, value, 0
            save_best(self.folder, state.step, self.trainer.base.model)
            return
        state.worse += 1
        state.stopped = bool(self.config.patience) and state.worse >= self.config.patience
        if state.stopped:
            say(f"stopping early: no evaluation since step {state.best} was better")

    def _save(self) -> None:
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
        save_checkpoint(self.folder, self.state, self.trainer.base.model, self.trainer.optimizer)
        self.saved = self.state.step

    def _write(self, name: str, row: dict[str, Any]) -> None:
        self.files[name].write(json.dumps(row) + "\n")
        self.files[name].flush()


def _shown(found: HeldOutFigures) -> str:
    more = [f"AUROC {found.auroc:.3f}"] if found.auroc is not None else []
    more += [f"balanced accuracy {found.accuracy:.3f}"] if found.accuracy is not None else []
    return "  ".join([f"loss {found.loss:.4f}", *more])

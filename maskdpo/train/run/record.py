"""What a run writes while it trains: figures of every step, evaluations on held-out pairs, answers, the best weights.

The files are described in ``schemas.training``. A run that is resumed drops what was written after its last checkpoint,
and writes it again.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import IO, TYPE_CHECKING, Any

import torch

from maskdpo.console import say, show, warn
from maskdpo.io import atomic_write
from maskdpo.redact import shown_settings
from maskdpo.run_folder import keep_rows, read_rows
from maskdpo.schemas.training import ANSWERS, CHECKPOINTS, CURVES, EVALS, METRICS, StepStats
from maskdpo.train.run.checkpoint import checkpoints, load_checkpoint, remove_checkpoint, save_checkpoint, step_of
from maskdpo.train.run.curves import draw_curves
from maskdpo.train.run.heldout import HeldOut, answer_prompts, different_prompts, evaluate
from maskdpo.train.run.trackers import Log, tracker
from maskdpo.train.settings import RunOptions
from maskdpo.train.step import Trainer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BEST = Path(CHECKPOINTS) / "best"


@dataclass
class Recorder:
    """The files of a run that is under way. Every rank has one; the first one writes."""

    out: Path
    trainer: Trainer
    tokenizer: "PreTrainedTokenizerBase"
    heldout: HeldOut | None
    options: RunOptions
    last: int = 0
    """Steps of the whole run."""
    evals: list[dict[str, Any]] = field(default_factory=list)
    """Rows of ``eval.jsonl`` so far."""
    logs: list[Log] = field(default_factory=list)
    files: dict[str, IO[str]] = field(default_factory=dict)

    @contextmanager
    def opened(self, first: int, last: int) -> Iterator[None]:
        """The files of a run that has done ``first`` of ``last`` steps, open for what follows."""
        ranks, config, track = self.trainer.ranks, self.trainer.config, self.options.track
        names = [METRICS] + [EVALS] * (self.heldout is not None) + [ANSWERS] * (self.options.show_answers > 0)
        self.last = last
        self.evals = ranks.from_first(read_rows(self.out / EVALS, first) if ranks.first else [])
        with ExitStack() as stack:
            if ranks.first:
                for name in names:
                    keep_rows(self.out / name, first)
                    self.files[name] = stack.enter_context((self.out / name).open("a", encoding="utf-8"))
                _keep_best_of(self.out / BEST, self.evals, config.keep_best)
                if track is not None:
                    settings = shown_settings(config.recorded())
                    self.logs.append(stack.enter_context(tracker(track, self.out, settings, first)))
            yield

    def log(self, stats: StepStats) -> None:
        row = stats.model_dump()
        self._write(METRICS, row)
        self._track(stats.step, row, "train")

    def evaluate(self, step: int) -> None:
        """On the held-out pairs, where that is due after this step and not done yet. Every rank must call."""
        config = self.trainer.config
        due = step in (0, self.last) or step % config.eval_every == 0
        if self.heldout is None or not due or any(row["step"] == step for row in self.evals):
            return
        stats = evaluate(self.trainer, self.heldout, step)
        if config.keep_best and step and stats.loss < min(self._kept_losses().values(), default=float("inf")):
            self._keep_best(step)
        row = stats.model_dump()
        self.evals.append(row)
        say(f"step {step}, held out: loss {stats.loss:.4f}  margin {stats.margin:+.3f}  accuracy {stats.accuracy:.3f}")
        if self.options.show_answers:
            self._answer(step)
        self._write(EVALS, row)  # written last: the row marks this evaluation as done
        self._track(step, row, "eval")

    def load_best(self) -> int | None:
        """Put the best weights into the model; returns the step after which they were kept. Every rank must call."""
        kept = self._kept_losses()
        if not self.trainer.config.keep_best or not kept:
            return None
        best = min(kept, key=lambda step: (kept[step], step))
        path = self.out / BEST / f"step-{best:08d}"
        load_checkpoint(path, self.trainer.model, _stateless_optimizer(self.trainer), self.trainer.ranks)
        losses = {row["step"]: row["loss"] for row in self.evals}
        say(f"writing the weights of step {best}, which have the lowest loss on the held-out pairs: {losses[best]:.4f}")
        if losses[best] >= losses.get(0, float("inf")):
            warn(f"before training it was lower: {losses[0]:.4f}")
        return best

    def _kept_losses(self) -> dict[int, float]:
        """The losses of the steps whose weights are kept as the best so far. Every rank must call."""
        kept = {step_of(path) for path in self.trainer.ranks.from_first(checkpoints(self.out / BEST))}
        return {row["step"]: row["loss"] for row in self.evals if row["step"] in kept}

    def _keep_best(self, step: int) -> None:
        """Keep the present weights. Those that were the best before stay where a run that is resumed at a checkpoint
        would need them: it makes later evaluations once more, and they need not come out the same."""
        trainer, folder = self.trainer, self.out / BEST
        save_checkpoint(folder, step, trainer.model, _stateless_optimizer(trainer), keep=None, ranks=trainer.ranks)
        if trainer.ranks.first:
            kept = checkpoints(folder)
            resumable = [step_of(path) for path in checkpoints(folder.parent)]
            needed = {max((best for best in kept if step_of(best) <= s), default=None) for s in (*resumable, step)}
            for path in kept:
                if path not in needed:
                    remove_checkpoint(path)

    def sync(self) -> None:
        """Wait until the rows are on the disk, before a checkpoint that relies on them."""
        for file in self.files.values():
            os.fsync(file.fileno())

    def conclude(self) -> None:
        """Draw the curves of the whole run, and warn where held tokens were too much of it."""
        config = self.trainer.config
        if not self.trainer.ranks.first:
            return
        rows = read_rows(self.out / METRICS)
        with atomic_write(self.out / CURVES) as file:
            draw_curves(file, rows, self.evals)
        if config.hold_weight:
            _warn_of_hold(rows, config.hold_weight)

    def _answer(self, step: int) -> None:
        assert self.heldout is not None
        shown = different_prompts(self.heldout.pairs, self.options.show_answers)
        for answer in answer_prompts(self.trainer, self.tokenizer, shown, step):
            show(f"  {answer.id}: {answer.answer}")
            self._write(ANSWERS, asdict(answer))

    def _write(self, name: str, row: Mapping[str, Any]) -> None:
        if name in self.files:
            self.files[name].write(json.dumps(row, ensure_ascii=False) + "\n")
            self.files[name].flush()

    def _track(self, step: int, figures: Mapping[str, Any], group: str) -> None:
        values = {f"{group}/{name}": value for name, value in figures.items() if value is not None and name != "step"}
        for log in self.logs:
            log(step, values)


def _keep_best_of(folder: Path, evals: list[dict[str, Any]], keep_best: bool) -> None:
    """Remove the kept weights of evaluations that a resumed run makes again."""
    losses = {row["step"]: row["loss"] for row in evals if row["step"]}
    for path in checkpoints(folder):
        if step_of(path) not in losses:
            remove_checkpoint(path)
    if keep_best and losses:
        best = min(losses, key=lambda step: (losses[step], step))
        if not (folder / f"step-{best:08d}").exists():
            warn(f"the weights of step {best}, the best so far, are gone from {folder}; the best of the others is kept")


def _stateless_optimizer(trainer: Trainer) -> torch.optim.Optimizer:
    """For checkpoints of the best weights, which are not trained on."""
    return torch.optim.SGD(trainer.model.parameters())


def _warn_of_hold(rows: Sequence[Mapping[str, Any]], weight: float) -> None:
    """Warn where held tokens were most of the loss, and the whole loss has risen. Where it has fallen, the rest may
    be the smaller part because the pairs were learnt well. So a weight that is merely too large is not warned of.
    """
    before, loss = rows[0]["loss"], fmean(row["loss"] for row in rows)
    held = weight * fmean(row["hold"] for row in rows)
    if held > loss / 2 and loss > before:
        warn(
            f"the term of `hold_weight` {weight:g} was most of the loss: {held:.3g} of {loss:.3g} in the mean over the "
            f"steps, and before training the loss was {before:.3g}. So the steps went into holding tokens more than "
            "into telling the answers apart; a smaller `hold_weight` or `lr` may help"
        )

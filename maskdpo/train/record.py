"""What a run writes down while it trains: figures of every step, looks at held-out pairs, answers, the best weights.

    metrics.jsonl   one line a step (``figures.StepStats``)
    eval.jsonl      one line a look at the held-out pairs; step 0 is before training
    answers.jsonl   one line an answer that was shown
    curves.png      at the end

A run that is taken up again drops what was written after its last checkpoint, and writes it again.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch

from maskdpo.console import say, warn
from maskdpo.io import atomic_write
from maskdpo.train.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from maskdpo.train.curves import draw_curves
from maskdpo.train.figures import StepStats
from maskdpo.train.heldout import HeldOut, answer_prompts, different_prompts, evaluate
from maskdpo.train.loop import Trainer
from maskdpo.train.trackers import Log, TrackerName, tracker

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

METRICS, EVALS, ANSWERS, CURVES = "metrics.jsonl", "eval.jsonl", "answers.jsonl", "curves.png"
BEST = Path("checkpoints") / "best"


@dataclass(frozen=True)
class Watch:
    """What is looked at during a run. Nothing of it changes what is trained."""

    eval_file: Path | None = None
    """Held-out pairs."""
    show_answers: int = 0
    """Prompts of held-out pairs that are answered at every look."""
    track: TrackerName | None = None


@dataclass
class Recorder:
    """The files of a run that is under way. Every rank has one; the first one writes."""

    out: Path
    trainer: Trainer
    tokenizer: "PreTrainedTokenizerBase"
    heldout: HeldOut | None
    show_answers: int
    last: int
    """Steps of the whole run."""
    evals: list[dict[str, Any]] = field(default_factory=list)
    """Rows of ``eval.jsonl`` so far."""
    logs: list[Log] = field(default_factory=list)
    files: dict[str, IO[str]] = field(default_factory=dict)

    def step(self, stats: StepStats) -> None:
        row = asdict(stats)
        self._write(METRICS, row)
        self._track(stats.step, row, "train")

    def look(self, step: int) -> None:
        """At the held-out pairs, where it is due after this step and not done yet. Every rank must call."""
        config = self.trainer.config
        due = step in (0, self.last) or step % config.eval_every == 0
        if self.heldout is None or not due or any(row["step"] == step for row in self.evals):
            return
        figures = evaluate(self.trainer, self.heldout)
        lowest = min((row["loss"] for row in self.evals if row["step"]), default=float("inf"))
        if config.keep_best and step and figures["loss"] < lowest:
            save_checkpoint(
                self.out / BEST, step, self.trainer.model, _nothing(self.trainer), keep=1, ranks=self.trainer.ranks
            )
        row = {"step": step, **figures}
        self.evals.append(row)
        say(
            f"step {step}, held out: loss {figures['loss']:.4f}  margin {figures['margin']:+.3f}  "
            f"accuracy {figures['accuracy']:.3f}"
        )
        if self.show_answers:
            self._answer(step)
        self._write(EVALS, row)  # the last, for it says that this look is done
        self._track(step, figures, "eval")

    def load_best(self) -> int | None:
        """Put the best weights into the model; the step after which they were so. Every rank must call."""
        found = self.trainer.ranks.from_first(checkpoints(self.out / BEST))
        if not self.trainer.config.keep_best or not found:
            return None
        best = load_checkpoint(found[-1], self.trainer.model, _nothing(self.trainer), self.trainer.ranks)
        losses = {row["step"]: row["loss"] for row in self.evals}
        say(f"writing the weights of step {best}, which have the lowest loss on the held-out pairs: {losses[best]:.4f}")
        if losses[best] >= losses.get(0, float("inf")):
            warn(f"before training it was lower: {losses[0]:.4f}")
        return best

    def draw(self) -> None:
        if self.trainer.ranks.first:
            with atomic_write(self.out / CURVES) as file:
                draw_curves(file, read_rows(self.out / METRICS), self.evals)

    def _answer(self, step: int) -> None:
        assert self.heldout is not None
        shown = different_prompts(self.heldout.pairs, self.show_answers)
        for answer in answer_prompts(self.trainer, self.tokenizer, shown, step):
            say(f"  {answer.id}: {answer.answer}")
            self._write(ANSWERS, asdict(answer))

    def _write(self, name: str, row: Mapping[str, Any]) -> None:
        if name in self.files:
            self.files[name].write(json.dumps(row, ensure_ascii=False) + "\n")
            self.files[name].flush()

    def _track(self, step: int, figures: Mapping[str, Any], group: str) -> None:
        values = {f"{group}/{name}": value for name, value in figures.items() if value is not None and name != "step"}
        for log in self.logs:
            log(step, values)


@contextmanager
def recording(
    out: Path, trainer: Trainer, tokenizer: "PreTrainedTokenizerBase", heldout: HeldOut | None, watch: Watch,
    first: int, last: int,
) -> Iterator[Recorder]:  # fmt: skip
    """The files of a run that has done ``first`` of ``last`` steps, open for what follows."""
    names = [METRICS] + [EVALS] * (heldout is not None) + [ANSWERS] * (watch.show_answers > 0)
    evals = trainer.ranks.from_first(read_rows(out / EVALS, first) if trainer.ranks.first else [])
    recorder = Recorder(out, trainer, tokenizer, heldout, watch.show_answers, last, evals)
    with ExitStack() as stack:
        if trainer.ranks.first:
            for name in names:
                _keep_rows(out / name, first)
                recorder.files[name] = stack.enter_context((out / name).open("a", encoding="utf-8"))
            for path in checkpoints(out / BEST):
                if int(path.name.removeprefix("step-")) > first:
                    shutil.rmtree(path)
            if watch.track is not None:
                settings = trainer.config.model_dump()
                recorder.logs.append(stack.enter_context(tracker(watch.track, out, settings, first)))
        yield recorder


def read_rows(file: Path, steps: int | None = None) -> list[dict[str, Any]]:
    """The whole lines of a file, up to a step; none where there is no file."""
    if not file.exists():
        return []
    lines = [line for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    return [row for row in rows if steps is None or row["step"] <= steps]


def _keep_rows(file: Path, steps: int) -> None:
    """Drop the rows of steps that will be done again, because the run died after its last checkpoint."""
    if file.exists():
        rows = read_rows(file, steps)
        with atomic_write(file) as kept:
            kept.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def _nothing(trainer: Trainer) -> torch.optim.Optimizer:
    """An optimiser without state: only weights are kept of the best step."""
    return torch.optim.SGD(trainer.model.parameters())

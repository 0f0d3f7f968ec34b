"""One alignment with its evaluation, through the functions of the commands."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.closed_world.map_plan import BASE, Run
from benchmarks.closed_world.measure import Figures, mix
from benchmarks.closed_world.methods import METHODS, PAIRS
from benchmarks.real_model.measure import divergence, figures, left_out
from benchmarks.real_model.plan import Plan
from maskdpo.annotate.deciding import RAW
from maskdpo.annotate.judge import Judge
from maskdpo.annotate.labelling import annotate
from maskdpo.backends.base import Sampling
from maskdpo.backends.settings import BackendSettings
from maskdpo.backends.transformers_backend import TransformersBackend
from maskdpo.dataset.pairs import build_pairs
from maskdpo.io import read_prompts, read_records, write_records
from maskdpo.sample import sample
from maskdpo.schemas import Annotation, Pair, Prompt
from maskdpo.text.splitters import get_splitter
from maskdpo.train.config import TrainConfig
from maskdpo.train.run.train import train
from maskdpo.train.settings import RunOptions
from maskdpo.verdicts.decision import Rule

ROWS = 128
"""Answers that are sampled together."""
STOP = ("\n",)
SETS = ("development-train", "development-test", "final-train", "final-test")


@dataclass(frozen=True)
class Lab:
    """Where everything lies that is not a line, and who judges."""

    root: Path
    plan: Plan
    judge: Judge
    rule: Rule = RAW

    def prompts(self, seed: int, side: str) -> Path:
        return self.root / f"{self.plan.stage(seed)}-{side}.jsonl"

    def pool(self, seed: int) -> Path:
        """The answers to make pairs of."""
        return self.root / f"seed-{seed}"

    def evaluated(self, run: Run) -> Path:
        """The answers that a line is about."""
        return self.root / "answers" / f"{run.method}-s{run.world}-lr{run.lr:.3g}"

    def write_topics(self, sets: Sequence[Sequence[Prompt]]) -> None:
        for name, prompts in zip(SETS, sets, strict=True):
            write_records(self.root / f"{name}.jsonl", prompts)


def execute(lab: Lab, run: Run) -> Figures:
    clock, processor = time.monotonic(), time.process_time()
    found = _before(lab, run) if run.method == BASE else _align(lab, run)
    return found | {
        "seconds": round(time.monotonic() - clock, 1),
        "cpu_seconds": round(time.process_time() - processor, 1),
    }


def _before(lab: Lab, run: Run) -> Figures:
    """The model before any alignment, and the mix of the pairs made of its answers."""
    clock = time.monotonic()
    pairs = list(read_records(_pairs(lab, run.world, lab.plan.setting.pairs or "best-worst"), Pair))
    pool_seconds = round(time.monotonic() - clock, 1)
    found, _ = _evaluate(lab, run, lab.plan.setting.model)
    tokens_left_out = left_out(pairs, lab.plan.setting.model)
    return found | mix(pairs) | {"tokens_left_out": tokens_left_out, "pool_seconds": pool_seconds}


def _align(lab: Lab, run: Run) -> Figures:
    setting, method, folder = lab.plan.setting, METHODS[run.method], lab.evaluated(run)
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir(parents=True)
    pairs, model = folder / "pairs.jsonl", folder / "model"
    made = read_records(_pairs(lab, run.world, setting.pairs or method.pairs), Pair)
    write_records(pairs, [method.refine(pair) if method.refine else pair for pair in made])
    told = {"eos": "drop", **method.settings}  # answers end with a line, not with the end of a turn
    config = TrainConfig(
        model=setting.model,
        lr=run.lr,
        seed=run.world,
        epochs=setting.epochs,
        batch_size=setting.batch_size,
        dtype=setting.dtype,
        log_masked_every=0,
        **told,
    )
    clock = time.monotonic()
    result = train(pairs, model, config, RunOptions(save_every=0))
    assert result is not None, "the folder was empty"
    train_seconds = round(time.monotonic() - clock, 1)
    found, answers = _evaluate(lab, run, str(model))
    prompts = read_prompts(lab.prompts(run.world, "test"))
    found |= {
        "kl": divergence(answers, prompts, str(model), setting.model),
        "pairs": result.pairs,
        "last_loss": result.steps[-1].loss,
        "train_seconds": train_seconds,
    }
    shutil.rmtree(model)
    return found


def _pairs(lab: Lab, seed: int, kind: str) -> Path:
    """The pairs of a seed, made where they are not there yet."""
    setting, prompts, folder = lab.plan.setting, lab.prompts(seed, "train"), lab.pool(seed)
    pairs = folder / f"pairs-{kind}.jsonl"
    if not pairs.exists():
        _answers(lab, prompts, folder, setting.model, _sampling(lab, seed, setting.samples))
        build_pairs(prompts, folder / "annotations.jsonl", pairs, PAIRS[kind])
    return pairs


def _evaluate(lab: Lab, run: Run, model: str) -> tuple[Figures, list[Annotation]]:
    """The figures of answers about the topics to evaluate on, and these answers."""
    setting, prompts, folder = lab.plan.setting, lab.prompts(run.world, "test"), lab.evaluated(run)
    asked = read_prompts(prompts)
    sampled = _answers(lab, prompts, folder / "sampled", model, _sampling(lab, run.world, setting.eval_samples))
    greedy = _answers(lab, prompts, folder / "greedy", model, _sampling(lab, run.world, 1, temperature=0.0))
    found = figures(sampled, asked, setting.model)
    return found | {"greedy_right_of_all": figures(greedy, asked, setting.model)["right_of_all"]}, sampled


def _sampling(lab: Lab, seed: int, n: int, temperature: float | None = None) -> Sampling:
    setting = lab.plan.setting
    heat = setting.temperature if temperature is None else temperature
    return Sampling(max_tokens=setting.max_tokens, temperature=heat, n=n, seed=seed, stop=STOP)


def _answers(lab: Lab, prompts: Path, folder: Path, model: str, sampling: Sampling) -> list[Annotation]:
    """Sampled and judged; what is there of an earlier run is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    responses, annotations = folder / "responses.jsonl", folder / "annotations.jsonl"
    backend = TransformersBackend(model, BackendSettings(batch_size=ROWS, dtype=lab.plan.setting.dtype))
    sample(prompts, responses, backend, sampling, raw=True)
    annotate(prompts, responses, annotations, lab.judge, get_splitter("markdown"), rule=lab.rule)
    return list(read_records(annotations, Annotation))

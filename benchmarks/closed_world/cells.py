"""The cells of the experiment. Each writes its result as JSON once, and is skipped where that is there."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

from benchmarks.closed_world.judge import ExactJudge, SentenceSplitter
from benchmarks.closed_world.measure import Figures, divergence, figures
from benchmarks.closed_world.methods import METHODS
from benchmarks.closed_world.pretrain import MAX_ANSWER, pretrain
from benchmarks.closed_world.world import World, make_prompts, make_world
from maskdpo.annotate.labelling import annotate
from maskdpo.backends.base import Sampling
from maskdpo.backends.settings import BackendSettings
from maskdpo.backends.transformers_backend import TransformersBackend
from maskdpo.dataset.pairs import build_pairs
from maskdpo.io import atomic_write, read_prompts, read_records, write_records
from maskdpo.sample import sample
from maskdpo.schemas import Annotation, Pair, Prompt
from maskdpo.train.config import TrainConfig
from maskdpo.train.run.train import train
from maskdpo.train.settings import RunOptions

ROWS = 600
"""Answers that are sampled together."""


@dataclass(frozen=True)
class Setting:
    """The size of everything. It never changes within an output folder."""

    entities: int = 400
    held_out: int = 100
    pretrain_steps: int = 700
    samples: int = 12
    """Answers a prompt to build pairs from."""
    epochs: int = 4
    eval_samples: int = 8


@dataclass(frozen=True)
class Pool:
    """Answers to build pairs from: ``questions`` of every topic, from so many topics that their product is the same."""

    world: int
    questions: int = 1
    noise: float = 0.0


@dataclass(frozen=True)
class Cell:
    """One alignment with its evaluation."""

    pool: Pool
    method: str
    lr: float
    seed: int = 0

    @property
    def name(self) -> str:
        pool = self.pool
        return f"{self.method}-w{pool.world}-q{pool.questions}-n{pool.noise:g}-lr{self.lr:.3g}-s{self.seed}"


class Folder:
    """Where everything lies."""

    def __init__(self, root: Path, setting: Setting) -> None:
        self.root = root
        self.setting = setting

    def world(self, seed: int) -> Path:
        return self.root / f"world-{seed}"

    def model(self, seed: int) -> Path:
        return self.world(seed) / "model"

    def held_out(self, seed: int) -> Path:
        return self.world(seed) / "held_out.jsonl"

    def prompts(self, pool: Pool) -> Path:
        return self.world(pool.world) / f"prompts-q{pool.questions}.jsonl"

    def annotations(self, pool: Pool) -> Path:
        return self.world(pool.world) / f"annotations-q{pool.questions}-n{pool.noise:g}.jsonl"

    def result(self, name: str) -> Path:
        return self.root / "cells" / f"{name}.json"

    def make(self, seed: int) -> World:
        return make_world(seed, self.setting.entities, self.setting.held_out)


def once(file: Path, compute: Callable[[], Figures]) -> Figures:
    """The result in ``file``, computed and written first where it is not there.

    ``cpu_seconds`` is what it took of one core, however busy the machine was.
    """
    if not file.exists():
        started = time.process_time()
        result = compute() | {"cpu_seconds": round(time.process_time() - started, 1)}
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as handle:
            handle.write(json.dumps(result, indent=1).encode() + b"\n")
    found: Figures = json.loads(file.read_text())
    return found


BASELINES = {"base": 1.0, "cool": 0.5, "greedy": 0.0}
"""Temperatures at which the model is measured as pre-training left it."""


def make_base(folder: Folder, seed: int) -> None:
    """A world, the model that knows it, and how right that model is."""
    once(folder.result(f"pretrain-w{seed}"), lambda: _pretrain(folder, seed))
    for name in BASELINES:
        once(folder.result(f"{name}-w{seed}"), partial(_baseline, folder, seed, name))


def _baseline(folder: Folder, seed: int, name: str) -> Figures:
    return figures(*_answers(folder, seed, folder.model(seed), folder.world(seed) / name, BASELINES[name], 0))


def _pretrain(folder: Folder, seed: int) -> Figures:
    world = folder.make(seed)
    losses = pretrain(world, folder.model(seed), folder.setting.pretrain_steps)
    write_records(folder.held_out(seed), make_prompts(world, world.held_out_names, 1, Random(seed)))
    return {"last_loss": sum(losses[-20:]) / 20}


def make_pool(folder: Folder, pool: Pool) -> None:
    """Prompts, answers and labels. Pools that differ in noise only share their answers."""
    once(folder.result(f"pool-w{pool.world}-q{pool.questions}-n{pool.noise:g}"), lambda: _pool(folder, pool))


def _pool(folder: Folder, pool: Pool) -> Figures:
    world, prompts = folder.make(pool.world), folder.prompts(pool)
    if not prompts.exists():
        names = world.aligned_names[: world.aligned // pool.questions]
        write_records(prompts, make_prompts(world, names, pool.questions, Random(pool.world)))
    responses = folder.world(pool.world) / f"responses-q{pool.questions}.jsonl"
    backend = TransformersBackend(
        str(folder.model(pool.world)), BackendSettings(batch_size=ROWS, dtype="float32", device="cpu")
    )
    sampling = Sampling(max_tokens=MAX_ANSWER, n=folder.setting.samples, seed=pool.world)
    sample(prompts, responses, backend, sampling, raw=True)
    judge = ExactJudge(world, pool.noise, seed=pool.world)
    annotate(prompts, responses, folder.annotations(pool), judge, SentenceSplitter())
    return figures(list(read_records(folder.annotations(pool), Annotation)), read_prompts(prompts))


def run_cell(folder: Folder, cell: Cell) -> Figures:
    """Pairs, training, answers about entities never trained on, figures."""
    return once(folder.result(cell.name), lambda: _align(folder, cell))


def _align(folder: Folder, cell: Cell) -> Figures:
    work = folder.root / "work" / cell.name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    seed, base = cell.pool.world, folder.model(cell.pool.world)
    pairs = _pairs(folder, cell, work)
    settings = METHODS[cell.method].settings
    config = TrainConfig(
        model=str(base),
        lr=cell.lr,
        seed=cell.seed,
        epochs=folder.setting.epochs,
        dtype="float32",
        log_masked_every=0,
        tokens_per_batch=4096,
        **settings,
    )
    result = train(pairs, work / "model", config, RunOptions(save_every=0, use_cache=False, device="cpu"))
    assert result is not None, "the work folder was empty"
    answers, prompts = _answers(folder, seed, work / "model", work / "sampled", 1.0, cell.seed)
    greedy = figures(*_answers(folder, seed, work / "model", work / "greedy", 0.0, cell.seed))
    found = figures(answers, prompts) | {
        "kl": divergence(answers, prompts, work / "model", base),
        "greedy_right_of_all": greedy["right_of_all"],
        "pairs": result.pairs,
        "last_loss": result.steps[-1].loss,
    }
    shutil.rmtree(work)
    return found


def _pairs(folder: Folder, cell: Cell, work: Path) -> Path:
    """As ``build-pairs`` makes them, thinned to the same number for any number of topics, and with finer spans where
    the method has them."""
    method, pool = METHODS[cell.method], cell.pool
    built = work / "built.jsonl"
    build_pairs(folder.prompts(pool), folder.annotations(pool), built, method.pairs)
    pairs = list(read_records(built, Pair))
    most = int(0.8 * (folder.setting.entities - folder.setting.held_out))
    pairs = Random(cell.seed).sample(pairs, min(most, len(pairs)))
    out = work / "pairs.jsonl"
    write_records(out, (method.refine(pair) for pair in pairs) if method.refine else pairs)
    return out


def _answers(
    folder: Folder, seed: int, model: Path, out: Path, temperature: float, sampling_seed: int
) -> tuple[list[Annotation], dict[str, Prompt]]:
    """Answers about the held-out entities with the exact labels."""
    out.mkdir(parents=True, exist_ok=True)
    prompts, responses, annotations = folder.held_out(seed), out / "responses.jsonl", out / "annotations.jsonl"
    n = folder.setting.eval_samples if temperature else 1
    backend = TransformersBackend(str(model), BackendSettings(batch_size=ROWS, dtype="float32", device="cpu"))
    sampling = Sampling(max_tokens=MAX_ANSWER, temperature=temperature, n=n, seed=sampling_seed)
    sample(prompts, responses, backend, sampling, raw=True)
    annotate(prompts, responses, annotations, ExactJudge(folder.make(seed)), SentenceSplitter())
    return list(read_records(annotations, Annotation)), read_prompts(prompts)

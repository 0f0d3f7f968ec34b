"""The cells of the experiment. Each writes its result as JSON once, and is skipped where that is there."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

from benchmarks.closed_world.judge import ExactJudge, SentenceSplitter
from benchmarks.closed_world.measure import Figures, divergence, figures
from benchmarks.closed_world.methods import METHODS, PAIRS
from benchmarks.closed_world.pretrain import pretrain
from benchmarks.closed_world.world import World, make_group_prompts, make_prompts, make_world
from maskdpo.annotate.labelling import annotate
from maskdpo.backends.base import Sampling
from maskdpo.backends.settings import BackendSettings
from maskdpo.backends.transformers_backend import TransformersBackend
from maskdpo.dataset.pairs import build_pairs
from maskdpo.io import atomic_write, read_prompts, read_records, write_records
from maskdpo.sample import sample
from maskdpo.schemas import Annotation, Pair, Prompt
from maskdpo.train.config import TrainConfig
from maskdpo.train.run.train import TrainResult, train
from maskdpo.train.settings import RunOptions

ROWS = 600
"""Answers that are sampled together."""
MAX_ANSWER, MAX_EACH = 96, 60
"""Tokens: of an answer about one entity that it does not name, and for every entity that is named."""


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
    sizes: tuple[int, ...] = ()
    """Of how many entities texts tell, in sentences that name them; (): of one, which only the question names."""
    pair_share: float = 0.8
    """The most pairs of an alignment, over the entities that may be aligned on."""

    @property
    def most_pairs(self) -> int:
        return int(self.pair_share * (self.entities - self.held_out))


@dataclass(frozen=True)
class Pool:
    """Answers to build pairs from: ``questions`` of every topic, from so many topics that their product is the same."""

    world: int
    questions: int = 1
    noise: float = 0.0
    size: int = 0
    """Entities that a question names, where sentences name theirs: every entity is then in ``size`` questions."""

    @property
    def asked(self) -> str:
        return f"k{self.size}" if self.size else f"q{self.questions}"


@dataclass(frozen=True)
class Cell:
    """One alignment with its evaluation."""

    pool: Pool
    method: str
    lr: float
    seed: int = 0
    pairs: str = ""
    """How pairs are made (``PAIRS``); "": as the method has it."""

    @property
    def name(self) -> str:
        pool, pairs = self.pool, f"-{self.pairs}" if self.pairs else ""
        return f"{self.method}{pairs}-w{pool.world}-{pool.asked}-n{pool.noise:g}-lr{self.lr:.3g}-s{self.seed}"


@dataclass(frozen=True)
class Folder:
    """Where everything lies."""

    root: Path
    setting: Setting

    def world(self, seed: int) -> Path:
        return self.root / f"world-{seed}"

    def model(self, seed: int) -> Path:
        return self.world(seed) / "model"

    def held_out(self, seed: int, size: int) -> Path:
        return self.world(seed) / (f"held_out-k{size}.jsonl" if size else "held_out.jsonl")

    def prompts(self, pool: Pool) -> Path:
        return self.world(pool.world) / f"prompts-{pool.asked}.jsonl"

    def annotations(self, pool: Pool) -> Path:
        return self.world(pool.world) / f"annotations-{pool.asked}-n{pool.noise:g}.jsonl"

    def pairs(self, pool: Pool, kind: str) -> Path:
        return self.world(pool.world) / f"pairs-{pool.asked}-n{pool.noise:g}-{kind}.jsonl"

    def baseline(self, seed: int, name: str, size: int = 0) -> Path:
        return self.result(f"{name}-w{seed}" + (f"-k{size}" if size else ""))

    def result(self, name: str) -> Path:
        return self.root / "cells" / f"{name}.json"

    def make(self, seed: int) -> World:
        return make_world(seed, self.setting.entities, self.setting.held_out, self.setting.sizes)


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
        for size in folder.setting.sizes or (0,):
            once(folder.baseline(seed, name, size), partial(_baseline, folder, seed, name, size))


def _baseline(folder: Folder, seed: int, name: str, size: int) -> Figures:
    pool = Pool(seed, size=size)
    return figures(*_answers(folder, pool, folder.model(seed), folder.world(seed) / name, BASELINES[name], 0))


def _pretrain(folder: Folder, seed: int) -> Figures:
    world = folder.make(seed)
    losses = pretrain(world, folder.model(seed), folder.setting.pretrain_steps)
    for size in world.sizes:
        prompts = make_group_prompts(world, world.held_out_names, size, 1, Random(seed))
        write_records(folder.held_out(seed, size), prompts)
    if not world.sizes:
        write_records(folder.held_out(seed, 0), make_prompts(world, world.held_out_names, 1, Random(seed)))
    return {"last_loss": sum(losses[-20:]) / 20}


def make_pool(folder: Folder, pool: Pool) -> None:
    """Prompts, answers, labels, and pairs of every kind. Pools that differ in noise only share their answers."""
    once(folder.result(f"pool-w{pool.world}-{pool.asked}-n{pool.noise:g}"), lambda: _pool(folder, pool))
    for kind, options in PAIRS.items():  # a cache may be older than a kind of pairs
        if not (pairs := folder.pairs(pool, kind)).exists():
            build_pairs(folder.prompts(pool), folder.annotations(pool), pairs, options)


def _pool(folder: Folder, pool: Pool) -> Figures:
    world, prompts = folder.make(pool.world), folder.prompts(pool)
    if not prompts.exists():
        names, rng = world.aligned_names[: world.aligned // pool.questions], Random(pool.world)
        grouped = pool.size and make_group_prompts(world, names, pool.size, pool.size, rng)
        write_records(prompts, grouped or make_prompts(world, names, pool.questions, rng))
    responses = folder.world(pool.world) / f"responses-{pool.asked}.jsonl"
    sampling = Sampling(max_tokens=max_answer(pool), n=folder.setting.samples, seed=pool.world)
    judged_answers(folder, pool, folder.model(pool.world), prompts, (responses, folder.annotations(pool)), sampling)
    return figures(list(read_records(folder.annotations(pool), Annotation)), read_prompts(prompts))


def run_cell(folder: Folder, cell: Cell) -> Figures:
    """Pairs, training, answers about entities never trained on, figures."""
    return once(folder.result(cell.name), lambda: _align(folder, cell))


def _align(folder: Folder, cell: Cell) -> Figures:
    work = folder.root / "work" / cell.name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    result = train_on(folder, cell, pairs_of(folder, cell), folder.model(cell.pool.world), work)
    found = measured(folder, cell, work / "model", work)
    found |= {"pairs": result.pairs, "last_loss": result.steps[-1].loss}
    shutil.rmtree(work)
    return found


def train_on(
    folder: Folder, cell: Cell, pairs: Sequence[Pair], model: Path, work: Path, reference: Path | None = None
) -> TrainResult:
    """Train a model on pairs, by the method and rate of a cell; the result is ``work / "model"``.

    Args:
        reference: None: the model before this training.
    """
    method, file = METHODS[cell.method], work / "pairs.jsonl"
    write_records(file, [method.refine(pair) if method.refine else pair for pair in pairs])
    config = TrainConfig(
        model=str(model),
        reference=str(reference) if reference else None,
        lr=cell.lr,
        seed=cell.seed,
        epochs=folder.setting.epochs,
        dtype="float32",
        log_masked_every=0,
        tokens_per_batch=4096,
        **method.settings,
    )
    result = train(file, work / "model", config, RunOptions(save_every=0, device="cpu"))
    assert result is not None, "the work folder was empty"
    return result


def measured(folder: Folder, cell: Cell, model: Path, work: Path) -> Figures:
    """Figures of answers about the held-out entities, of greedy ones too, and the divergence from the base model."""
    answers, prompts = _answers(folder, cell.pool, model, work / "sampled", 1.0, cell.seed)
    greedy = figures(*_answers(folder, cell.pool, model, work / "greedy", 0.0, cell.seed))
    return figures(answers, prompts) | {
        "kl": divergence(answers, prompts, model, folder.model(cell.pool.world)),
        "greedy_right_of_all": greedy["right_of_all"],
    }


def pairs_of(folder: Folder, cell: Cell) -> list[Pair]:
    """Those that ``build-pairs`` made, thinned to the same number for any number of topics."""
    pairs = list(read_records(folder.pairs(cell.pool, cell.pairs or METHODS[cell.method].pairs), Pair))
    return Random(cell.seed).sample(pairs, min(folder.setting.most_pairs, len(pairs)))


def max_answer(pool: Pool) -> int:
    return MAX_EACH * pool.size or MAX_ANSWER


def _answers(
    folder: Folder, pool: Pool, model: Path, out: Path, temperature: float, sampling_seed: int
) -> tuple[list[Annotation], dict[str, Prompt]]:
    """Answers about the held-out entities with the exact labels."""
    out.mkdir(parents=True, exist_ok=True)
    prompts = folder.held_out(pool.world, pool.size)
    responses, annotations = (out / f"{name}-k{pool.size}.jsonl" for name in ("responses", "annotations"))
    n = folder.setting.eval_samples if temperature else 1
    sampling = Sampling(max_tokens=max_answer(pool), temperature=temperature, n=n, seed=sampling_seed)
    judged_answers(folder, replace(pool, noise=0.0), model, prompts, (responses, annotations), sampling)
    return list(read_records(annotations, Annotation)), read_prompts(prompts)


def judged_answers(
    folder: Folder, pool: Pool, model: Path, prompts: Path, files: tuple[Path, Path], sampling: Sampling
) -> None:
    """Answers of a model to prompts, and their labels by the judge of the pool's world with the pool's noise.

    Args:
        files: of the answers, and of the labels.
    """
    responses, annotations = files
    backend = TransformersBackend(str(model), BackendSettings(batch_size=ROWS, dtype="float32", device="cpu"))
    sample(prompts, responses, backend, sampling, raw=True)
    judge = ExactJudge(folder.make(pool.world), pool.noise, seed=pool.world)
    annotate(prompts, responses, annotations, judge, SentenceSplitter())

"""``python -m benchmarks.closed_world.rounds``: one round against three, at an equal number of pairs in all.

docs/evidence-rounds.md has the protocol. The rates for one round are those of the map's development lines; every
alignment is a line of ``rounds_results/CELL.jsonl``, so repeating the command goes on where it stopped.
"""

import argparse
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.closed_world.cells import (
    Cell,
    Folder,
    judged_answers,
    make_base,
    make_pool,
    max_answer,
    measured,
    train_on,
)
from benchmarks.closed_world.map import execute as execute_one
from benchmarks.closed_world.map import folder_of, pool_of
from benchmarks.closed_world.map import run_all as run_one_round
from benchmarks.closed_world.map_plan import Results, Run, develop
from benchmarks.closed_world.measure import Figures, mix
from benchmarks.closed_world.methods import PAIRS
from benchmarks.closed_world.rounds_plan import FULL, MIX, QUICK, RoundsPlan, develop_rounds, next_runs, parts_of
from benchmarks.closed_world.rounds_tables import report
from benchmarks.closed_world.run import Jobs, refuse_other_setting
from maskdpo.backends.base import Sampling
from maskdpo.dataset.pairs import build_pairs
from maskdpo.errors import NoPairs
from maskdpo.io import read_prompts, read_records, write_records
from maskdpo.io.lock import sole_writer
from maskdpo.run_record import META_IN_FOLDER, read_meta
from maskdpo.schemas import Pair, Prompt

LINES, LINES_OF_THE_MAP = (Path(__file__).with_name(name) for name in ("rounds_results", "map_results"))


def execute(plan: RoundsPlan, folder: Folder, runs: Sequence[Run]) -> list[Figures]:
    """The figures of lines with the same world, method and rate. The first round of both arms is the same, because it
    asks and trains the base model, so that it runs once."""
    first = runs[0]
    method, arm = plan.taken_apart(first.method)
    if arm is None:
        return [execute_one(folder, plan.cell, run) for run in runs]
    cell = Cell(pool_of(plan.cell, first.world), method, first.lr, pairs=plan.cell.pairs)
    work = folder.root / "work" / f"{cell.name}-rounds"
    shutil.rmtree(work, ignore_errors=True)
    found = [_in_rounds(folder, cell, plan.rounds, str(plan.taken_apart(run.method)[1]), work) for run in runs]
    shutil.rmtree(work)
    return found


def _in_rounds(folder: Folder, cell: Cell, rounds: int, arm: str, work: Path) -> Figures:
    """Every round asks questions of its own of the model of the round before, and trains that model on its pairs.

    A round without pairs (a model whose answers to every question score alike) keeps the model, and has no shares."""
    started = time.process_time()
    base = model = folder.model(cell.pool.world)
    prompts = list(read_prompts(folder.prompts(cell.pool)).values())
    found, most = Figures(pairs=0), folder.setting.most_pairs // rounds
    for number, asked in enumerate(parts_of(prompts, rounds, most, cell.pool.world), 1):
        place = work / (f"{arm}-{number}" if number > 1 else "1")
        place.mkdir(parents=True, exist_ok=True)
        if number == 1:
            ids = {prompt.id for prompt in asked}
            built = read_records(folder.pairs(cell.pool, cell.pairs), Pair)
            pairs = [pair for pair in built if pair.prompt_id in ids]
        else:
            pairs = _pairs_of_model(folder, cell, model, asked, place, seed=cell.pool.world + number)
        pairs = Random(cell.seed).sample(pairs, min(most, len(pairs)))
        if not pairs:
            continue
        of_pairs = mix(pairs)
        if not (place / "model").exists():
            train_on(folder, cell, pairs, model, place, base if arm == "kept" else None)
        model = place / "model"
        trained = read_meta(model / META_IN_FOLDER)
        assert trained is not None, "the training is complete"
        found["pairs"] += trained.counts["pairs"]  # those that the masks leave tokens of, as in one round
        found |= {f"{name}_{number}": of_pairs[name] for name in MIX if of_pairs[name] is not None}
    found |= measured(folder, cell, model, work / arm)
    return found | {"cpu_seconds": round(time.process_time() - started, 1)}


def _pairs_of_model(
    folder: Folder, cell: Cell, model: Path, asked: Sequence[Prompt], place: Path, seed: int
) -> list[Pair]:
    """The pairs of a model's own answers; none where none can be built."""
    prompts, annotations, built = (place / f"{name}.jsonl" for name in ("prompts", "annotations", "built"))
    write_records(prompts, asked)
    sampling = Sampling(max_tokens=max_answer(cell.pool), n=folder.setting.samples, seed=seed)
    judged_answers(folder, cell.pool, model, prompts, (place / "responses.jsonl", annotations), sampling)
    try:
        build_pairs(prompts, annotations, built, PAIRS[cell.pairs])
    except NoPairs:
        return []
    return list(read_records(built, Pair))


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    plan = QUICK if args.quick else FULL
    cache = args.cache or Path("runs") / ("closed_world_rounds_quick" if args.quick else "closed_world_map")
    of_map = Results(args.map_results or (cache / "map_results" if args.quick else LINES_OF_THE_MAP), plan.cell.name)
    results = Results(args.results or (cache / "rounds_results" if args.quick else LINES), plan.cell.name)
    jobs = Jobs(args.jobs)
    if args.quick:
        run_one_round(replace(plan.map, fresh=()), {plan.cell: of_map}, cache, jobs)
    if missing := develop(plan.map, of_map).missing:
        first = missing[0]
        raise SystemExit(
            f"{of_map.folder}: development lines of the cell {plan.cell.name} are missing, such as {first.method} at "
            f"{first.lr:g} in world {first.world}. The rates for one round come from them: run "
            "python -m benchmarks.closed_world.map first"
        )
    refuse_other_setting(results.folder, {name: asdict(setting) for name, setting in plan.map.bases.items()})
    if not args.tables:
        with sole_writer(results.folder):
            run_all(plan, of_map, results, cache, jobs)
    print(report(plan, develop_rounds(plan, of_map, results), results))


def run_all(plan: RoundsPlan, of_map: Results, results: Results, cache: Path, jobs: Jobs) -> None:
    folder = folder_of(plan.map, cache, plan.cell)

    def add(call: tuple[Any, ...], found: list[Figures]) -> None:
        for run, figures in zip(call[2], found, strict=True):
            results.add(run, figures)

    while runs := next_runs(plan, of_map, results):
        groups: dict[object, list[Run]] = {}
        for run in runs:
            method, arm = plan.taken_apart(run.method)
            groups.setdefault((run.world, method, run.lr, arm is None), []).append(run)
        worlds = dict.fromkeys(run.world for run in runs)
        jobs.run(make_base, [(folder, world) for world in worlds])
        jobs.run(make_pool, [(folder, pool_of(plan.cell, world)) for world in worlds])
        jobs.run(execute, [(plan, folder, group) for group in groups.values()], add)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.closed_world.rounds", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small worlds and two methods: some minutes")
    parser.add_argument("--tables", action="store_true", help="only tables, of the lines that are there")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes of one thread each")
    parser.add_argument("--results", type=Path, help="folder of the lines (default: rounds_results beside this module)")
    parser.add_argument("--map-results", type=Path, help="folder of the map's lines (default: map_results)")
    parser.add_argument("--cache", type=Path, help="folder for models and answers (default: that of the map)")
    return parser


if __name__ == "__main__":
    main()

"""``python -m benchmarks.closed_world.rounds``: one round against three, at an equal number of pairs in all.

docs/evidence.md has the protocol. The rates for one round are those of the map's development lines; every alignment is
a line of ``rounds_results/CELL.jsonl``, so repeating the command goes on where it stopped.
"""

import argparse
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random

import torch

from benchmarks.closed_world.cells import (
    Cell,
    Folder,
    Pool,
    judged_answers,
    make_base,
    make_pool,
    max_answer,
    measured,
    train_on,
)
from benchmarks.closed_world.map import execute as execute_one
from benchmarks.closed_world.map_plan import Results, Run, develop
from benchmarks.closed_world.measure import Figures, mix
from benchmarks.closed_world.methods import PAIRS
from benchmarks.closed_world.rounds_plan import FULL, MIX, QUICK, RoundsPlan, develop_rounds, next_runs, parts_of
from benchmarks.closed_world.rounds_tables import report
from benchmarks.closed_world.run import refuse_other_setting
from maskdpo.backends.base import Sampling
from maskdpo.dataset.pairs import build_pairs
from maskdpo.io import read_prompts, read_records, write_records
from maskdpo.io.lock import sole_writer
from maskdpo.schemas import Pair, Prompt

LINES, LINES_OF_THE_MAP = (Path(__file__).with_name(name) for name in ("rounds_results", "map_results"))


def execute(plan: RoundsPlan, cache: Path, run: Run) -> Figures:
    """The figures of a line: of the base model or of one round as the map has them, else of several rounds."""
    method, arm = plan.taken_apart(run.method)
    if arm is None:
        return execute_one(plan.map, cache, run)
    folder = Folder(cache / run.cell.base, plan.map.bases[run.cell.base])
    pool = Pool(run.world, size=run.cell.size)
    make_base(folder, run.world)
    make_pool(folder, pool)
    started = time.process_time()
    found = in_rounds(folder, Cell(pool, method, run.lr, pairs=run.cell.pairs), plan.rounds, arm)
    return found | {"cpu_seconds": round(time.process_time() - started, 1)}


def in_rounds(folder: Folder, cell: Cell, rounds: int, arm: str) -> Figures:
    """Every round asks questions of its own of the model of the round before, and trains that model on its pairs. Both
    arms have the first round in common, whose answers are those of the pool."""
    base, work = folder.model(cell.pool.world), folder.root / "work" / f"{cell.name}-{arm}"
    shutil.rmtree(work, ignore_errors=True)
    prompts = list(read_prompts(folder.prompts(cell.pool)).values())
    model, found = base, Figures(pairs=0)
    for number, asked in enumerate(parts_of(prompts, rounds, cell.pool.world), 1):
        place = folder.root / "rounds" / cell.name if number == 1 else work / str(number)
        place.mkdir(parents=True, exist_ok=True)
        built = folder.pairs(cell.pool, cell.pairs)
        if number > 1:
            built = _pairs_of_model(folder, cell, model, asked, place, seed=cell.pool.world + number)
        ids, most = {prompt.id for prompt in asked}, folder.setting.most_pairs // rounds
        pairs = [pair for pair in read_records(built, Pair) if pair.prompt_id in ids]
        pairs = Random(cell.seed).sample(pairs, min(most, len(pairs)))
        of_pairs = mix(pairs)
        found |= {f"{name}_{number}": of_pairs[name] for name in MIX} | {"pairs": found["pairs"] + len(pairs)}
        if not (place / "model" / "config.json").exists():  # it comes last: what is there is whole
            train_on(folder, cell, pairs, model, place, base if arm == "kept" else None)
        model = place / "model"
    found |= measured(folder, cell, model, work)
    shutil.rmtree(work)
    return found


def _pairs_of_model(folder: Folder, cell: Cell, model: Path, asked: Sequence[Prompt], place: Path, seed: int) -> Path:
    """The file of pairs that are built from a model's own answers."""
    prompts, annotations, built = (place / f"{name}.jsonl" for name in ("prompts", "annotations", "built"))
    write_records(prompts, asked)
    sampling = Sampling(max_tokens=max_answer(cell.pool), n=folder.setting.samples, seed=seed)
    judged_answers(folder, cell.pool, model, prompts, (place / "responses.jsonl", annotations), sampling)
    build_pairs(prompts, annotations, built, PAIRS[cell.pairs])
    return built


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    plan = QUICK if args.quick else FULL
    cache = args.cache or Path("runs") / ("closed_world_map_quick" if args.quick else "closed_world_map")
    of_map = Results(args.map_results or (cache / "results" if args.quick else LINES_OF_THE_MAP), plan.map.cells)
    results = Results(args.results or (cache / "rounds_results" if args.quick else LINES), plan.map.cells)
    if missing := develop(plan.map, of_map, plan.cell).missing:
        first = missing[0]
        raise SystemExit(
            f"{of_map.folder}: development lines of the cell {plan.cell.name} are missing, such as {first.method} at "
            f"{first.lr:g} in world {first.world}. The rates for one round come from them: run "
            f"python -m benchmarks.closed_world.map{' --quick' if args.quick else ''} first"
        )
    refuse_other_setting(results.folder, {name: asdict(setting) for name, setting in plan.map.bases.items()})
    if not args.tables:
        with sole_writer(results.folder):
            run_all(plan, of_map, results, cache)
    print(report(plan, develop_rounds(plan, of_map, results), results))


def run_all(plan: RoundsPlan, of_map: Results, results: Results, cache: Path) -> None:
    torch.set_num_threads(1)  # models as small as these gain nothing from more
    while runs := next_runs(plan, of_map, results):
        for done, run in enumerate(runs):
            figures = execute(plan, cache, run)
            results.add(run, figures)
            shown = f"{figures['cpu_seconds']:.0f} s, {len(runs) - done - 1} to go before the next step"
            print(f"world {run.world} {run.method} {run.lr:g}: {shown}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.closed_world.rounds", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the small world of the map's --quick, which must have run")
    parser.add_argument("--tables", action="store_true", help="only tables, of the lines that are there")
    parser.add_argument("--results", type=Path, help="folder of the lines (default: rounds_results beside this module)")
    parser.add_argument("--map-results", type=Path, help="folder of the map's lines (default: map_results)")
    parser.add_argument("--cache", type=Path, help="folder for models and answers (default: that of the map)")
    return parser


if __name__ == "__main__":
    main()

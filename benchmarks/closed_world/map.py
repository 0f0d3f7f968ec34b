"""``python -m benchmarks.closed_world.map``: for which pairs do sentence masks help?

docs/evidence-map.md has the protocol. A cell of the map is a length of answers, a way to make pairs, and how much the
model knows. Every alignment is a line of ``map_results/CELL.jsonl``, so repeating the command goes on where it
stopped, on another day or machine too: what the next lines need (models, answers) is made again where the cache has it
not. ``--tables --ship`` writes the cells that are complete into maskdpo, which shows the one nearest to pairs at hand.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.closed_world.cells import Cell, Folder, Pool, make_base, make_pool, pairs_of, run_cell
from benchmarks.closed_world.map_plan import BASE, FULL, QUICK, MapPlan, Results, Run, next_runs
from benchmarks.closed_world.map_ship import shipped, write_shipped
from benchmarks.closed_world.map_tables import report
from benchmarks.closed_world.measure import Figures, mix
from benchmarks.closed_world.methods import METHODS
from benchmarks.closed_world.run import Jobs, refuse_other_setting
from maskdpo.io.lock import sole_writer
from maskdpo.verdicts.evidence_map import FILE

RESULTS = Path(__file__).with_name("map_results")


def execute(folder: Folder, run: Run) -> Figures:
    cell, pool = run.cell, pool_of(run)
    aligned = Cell(pool, run.method, run.lr, pairs=cell.pairs)
    if run.method != BASE:
        return run_cell(folder, aligned)
    found: Figures = json.loads(folder.baseline(run.world, BASE, cell.size).read_text())
    greedy: Figures = json.loads(folder.baseline(run.world, "greedy", cell.size).read_text())
    return found | {"greedy_right_of_all": greedy["right_of_all"]} | mix(pairs_of(folder, aligned))


def folder_of(plan: MapPlan, cache: Path, run: Run) -> Folder:
    return Folder(cache / run.cell.base, plan.bases[run.cell.base])


def pool_of(run: Run) -> Pool:
    return Pool(run.world, size=run.cell.size)


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    if args.ship and (args.quick or args.results):
        raise SystemExit("--ship writes what map_results has; leave --quick and --results out")
    plan = _plan(args)
    cache = args.cache or Path("runs") / ("closed_world_map_quick" if args.quick else "closed_world_map")
    results = Results(args.results or (cache / "results" if args.quick else RESULTS), plan.cells)
    refuse_other_setting(results.folder, {name: asdict(setting) for name, setting in plan.bases.items()})
    if not args.tables:
        with sole_writer(results.folder):
            run_all(plan, results, cache, Jobs(args.jobs))
    if args.ship:
        write_shipped(shipped(FULL, Results(RESULTS, FULL.cells)), FILE)
    print(report(plan, results, args.plots or cache))


def run_all(plan: MapPlan, results: Results, cache: Path, jobs: Jobs) -> None:
    while runs := next_runs(plan, results):
        calls = [(folder_of(plan, cache, run), run) for run in runs]
        # alignments share models and answers, which are made first, once each
        bases = {(folder.root, run.world): (folder, run.world) for folder, run in calls}
        pools = {(folder.root, pool_of(run)): (folder, pool_of(run)) for folder, run in calls}
        jobs.run(make_base, list(bases.values()))
        jobs.run(make_pool, list(pools.values()))
        jobs.run(execute, calls, lambda call, figures: results.add(call[1], figures))


def _plan(args: argparse.Namespace) -> MapPlan:
    plan = QUICK if args.quick else FULL
    if unknown := [name for name in args.methods or () if name not in METHODS]:
        raise SystemExit(f"unknown methods {', '.join(unknown)}; known: {', '.join(METHODS)}")
    names = [cell.name for cell in plan.cells]
    if unknown := [name for name in args.cells or () if name not in names]:
        raise SystemExit(f"unknown cells {', '.join(unknown)}; known: {', '.join(names)}")
    methods = tuple(dict.fromkeys((plan.methods[0], *(args.methods or plan.methods))))
    cells = tuple(cell for cell in plan.cells if not args.cells or cell.name in args.cells)
    fresh = tuple(args.fresh) if args.fresh is not None else plan.fresh
    return replace(plan, methods=methods, cells=cells, fresh=fresh)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.closed_world.map", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small world, one cell and two methods: half a minute")
    parser.add_argument("--tables", action="store_true", help="only tables and figure, of the lines that are there")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help=f"beside DPO, out of: {', '.join(METHODS)}")
    parser.add_argument("--cells", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--fresh", nargs="*", type=int, metavar="SEED", help="fresh worlds; none: development only")
    shipping = f"also write the cells that are complete to {FILE.name}, which maskdpo shows"
    parser.add_argument("--ship", action="store_true", help=shipping)
    parser.add_argument("--results", type=Path, help="folder of the lines (default: map_results beside this module)")
    parser.add_argument("--cache", type=Path, help="folder for models and answers (default: runs/closed_world_map)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes of one thread each")
    parser.add_argument("--plots", type=Path, help="folder for the figure (default: the cache)")
    return parser


if __name__ == "__main__":
    main()

"""``python -m benchmarks.closed_world.map``: for which pairs do sentence masks help?

docs/evidence-map.md has the protocol. A cell of the map is a length of answers, a way to make pairs, and how much the
model knows. Every alignment is a line of ``map_results/CELL.jsonl``, so repeating the command goes on where it
stopped, on another day or machine too: what the next lines need (models, answers) is made again where the cache has it
not. ``--tables --ship`` writes the cells that are complete into maskdpo, which shows the one nearest to pairs at hand.
"""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.closed_world.cells import Cell, Folder, Pool, make_base, make_pool, pairs_of, run_cell
from benchmarks.closed_world.map_plan import BASE, FULL, QUICK, MapCell, MapPlan, Results, Run, next_runs, results_in
from benchmarks.closed_world.map_ship import shipped, write_shipped
from benchmarks.closed_world.map_tables import report
from benchmarks.closed_world.measure import Figures, mix
from benchmarks.closed_world.methods import METHODS
from benchmarks.closed_world.run import Jobs, refuse_other_setting
from maskdpo.io.lock import sole_writer
from maskdpo.verdicts.evidence_map import FILE

RESULTS = Path(__file__).with_name("map_results")


def execute(folder: Folder, cell: MapCell, run: Run) -> Figures:
    aligned = Cell(pool_of(cell, run.world), run.method, run.lr, pairs=cell.pairs)
    if run.method != BASE:
        return run_cell(folder, aligned)
    found: Figures = json.loads(folder.baseline(run.world, BASE, cell.size).read_text())
    greedy: Figures = json.loads(folder.baseline(run.world, "greedy", cell.size).read_text())
    return found | {"greedy_right_of_all": greedy["right_of_all"]} | mix(pairs_of(folder, aligned))


def folder_of(plan: MapPlan, cache: Path, cell: MapCell) -> Folder:
    return Folder(cache / cell.base, plan.bases[cell.base])


def pool_of(cell: MapCell, world: int) -> Pool:
    return Pool(world, size=cell.size)


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    if args.ship and (args.quick or args.results):
        raise SystemExit("--ship writes what map_results has; leave --quick and --results out")
    plan = _plan(args)
    cache = args.cache or Path("runs") / ("closed_world_map_quick" if args.quick else "closed_world_map")
    folder = args.results or (cache / "results" if args.quick else RESULTS)
    results = results_in(folder, plan)
    refuse_other_setting(folder, {name: asdict(setting) for name, setting in plan.bases.items()})
    if not args.tables:
        with sole_writer(folder):
            run_all(plan, results, cache, Jobs(args.jobs))
    if args.ship:
        write_shipped(shipped(FULL, results_in(RESULTS, FULL)), FILE)
    print(report(plan, results, args.plots or cache))


def run_all(plan: MapPlan, results: Mapping[MapCell, Results], cache: Path, jobs: Jobs) -> None:
    while runs := next_runs(plan, results):
        calls = [(folder_of(plan, cache, cell), cell, run) for cell, run in runs]
        # alignments share models and answers, which are made first, once each
        jobs.run(make_base, list(dict.fromkeys((folder, run.world) for folder, _, run in calls)))
        jobs.run(make_pool, list(dict.fromkeys((folder, pool_of(cell, run.world)) for folder, cell, run in calls)))
        jobs.run(execute, calls, lambda call, figures: results[call[1]].add(call[2], figures))


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

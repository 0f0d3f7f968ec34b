"""``python -m benchmarks.closed_world``: the whole experiment, resumable by repeating the command."""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.closed_world.cells import Folder, Pool, Setting, make_base, make_pool, run_cell
from benchmarks.closed_world.measure import Figures
from benchmarks.closed_world.methods import FIRST, METHODS
from benchmarks.closed_world.plan import Choice, Plan, choose, final_cells
from benchmarks.closed_world.tables import write_report

FULL = Plan(methods=tuple(FIRST), worlds=(101, 102, 103, 104, 105))  # no development has seen them
QUICK = Plan(
    methods=("dpo", "mask-dpo", "matched"),
    worlds=(1,),
    development=(9001,),
    grid=(3e-5, 1e-4),
    noises=(0.0,),
    questions=(1,),
    setting=Setting(entities=80, held_out=20, pretrain_steps=300, samples=8, epochs=6),
)

WORLD_SECONDS, POOL_SECONDS, CELL_SECONDS = 120.0, 5.0, 11.0
"""Of one core, in the full setting, for the forecast; smaller settings are scaled by their entities and epochs."""


def main(arguments: Sequence[str] | None = None) -> None:
    args = _parser().parse_args(arguments)
    plan = _plan(args)
    folder = Folder(args.out or Path("runs") / ("closed_world_quick" if args.quick else "closed_world"), plan.setting)
    refuse_other_setting(folder.root, asdict(plan.setting))
    print(forecast(plan, args.jobs))
    jobs = Jobs(args.jobs)
    worlds = [*plan.development, *plan.worlds]
    jobs.run(make_base, [(folder, world) for world in worlds])
    jobs.run(make_pool, [(folder, Pool(world)) for world in worlds])
    jobs.run(run_cell, [(folder, cell) for cell in plan.grid_cells()])
    choices = _choose(plan, folder)
    jobs.run(make_pool, [(folder, pool) for pool in plan.pools()])  # the noisy ones share the answers of the main ones
    jobs.run(run_cell, [(folder, cell) for cell in final_cells(plan, choices)])
    print(write_report(plan, folder, choices, args.plots or folder.root))


def forecast(plan: Plan, jobs: int) -> str:
    """What the run will take on idle cores."""
    cells = len(plan.grid_cells()) + len(final_cells(plan, dict.fromkeys(plan.exact, Choice(0.0, 1.0))))
    worlds = len(plan.development) + len(plan.worlds)
    seconds = worlds * (WORLD_SECONDS + POOL_SECONDS) + len(plan.pools()) * POOL_SECONDS + cells * CELL_SECONDS
    share = plan.setting.entities * plan.setting.epochs / (Setting().entities * Setting().epochs)
    minutes = seconds * max(0.2, share) / 60 / jobs
    return f"{worlds} worlds, at most {cells} alignments: about {minutes:.0f} minutes on {jobs} idle cores"


class Jobs:
    """Runs tasks in processes of one thread each; models as small as these gain nothing from more."""

    def __init__(self, processes: int) -> None:
        # spawned, not forked: torch has threads of its own
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(processes, context, _one_thread)

    def run(
        self,
        task: Callable[..., Any],
        calls: Sequence[tuple[Any, ...]],
        finished: Callable[[tuple[Any, ...], Any], None] = lambda call, result: None,
    ) -> None:
        """``finished`` is told of every call as it ends, here in this process."""
        started = time.monotonic()
        futures = {self._pool.submit(task, *call): call for call in calls}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                finished(futures[future], future.result())
                seconds = time.monotonic() - started
                left = seconds / done * (len(futures) - done)
                print(f"{task.__name__}: {done}/{len(futures)}, {seconds:.0f} s, {left:.0f} s to go", flush=True)
        except BaseException:
            self._pool.shutdown(wait=False, cancel_futures=True)  # else all that is queued would still run
            raise


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _choose(plan: Plan, folder: Folder) -> dict[str, Choice]:
    results = {cell: run_cell(folder, cell) for cell in plan.grid_cells()}
    base: list[Figures] = [json.loads(folder.baseline(w, "base").read_text()) for w in plan.development]
    choices = choose(plan, results, base)
    (folder.root / "choices.json").write_text(json.dumps({m: asdict(c) for m, c in choices.items()}, indent=1) + "\n")
    return choices


def refuse_other_setting(folder: Path, setting: Mapping[str, object]) -> None:
    """Results of different sizes are never mixed."""
    file, now = folder / "setting.json", json.dumps(setting, indent=1) + "\n"
    if file.exists() and file.read_text() != now:
        raise SystemExit(f"{file}: the results here are of another setting; use another folder")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(now)


def _plan(args: argparse.Namespace) -> Plan:
    plan = QUICK if args.quick else FULL
    if unknown := [name for name in args.methods or () if name not in METHODS]:
        raise SystemExit(f"unknown methods {', '.join(unknown)}; known: {', '.join(METHODS)}")
    plan = replace(plan, methods=tuple(args.methods or plan.methods), seeds=tuple(range(args.seeds)))
    if args.main_only:
        plan = replace(plan, noises=(0.0,), questions=(1,))
    first = args.first_world or plan.worlds[0]
    return replace(plan, worlds=tuple(range(first, first + (args.worlds or len(plan.worlds)))))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.closed_world", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small world, few methods: about 3 minutes on 2 cores")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help=f"out of: {', '.join(METHODS)}")
    parser.add_argument("--worlds", type=int, help="number of fresh worlds (default 5; with --quick 1)")
    parser.add_argument("--first-world", type=int, help="seed of the first fresh world (default 101)")
    parser.add_argument("--main-only", action="store_true", help="no judge noise, no topics against questions")
    parser.add_argument("--seeds", type=int, default=1, help="alignments of every method in every fresh world")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes of one thread each")
    parser.add_argument("--out", type=Path, help="default: runs/closed_world, with --quick runs/closed_world_quick")
    parser.add_argument("--plots", type=Path, help="folder for the plots (default: that of the results)")
    return parser

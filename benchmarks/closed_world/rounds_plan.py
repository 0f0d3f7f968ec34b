"""One round against three: what is compared, at which rates, and which alignments come next."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from benchmarks.closed_world import map_plan
from benchmarks.closed_world.cells import Setting
from benchmarks.closed_world.map_plan import BASE, Curve, MapCell, MapPlan, Results, Run, curve_of, develop
from benchmarks.closed_world.plan import best_rate
from benchmarks.closed_world.tables import mean_figures
from maskdpo.schemas import Prompt

ARMS = ("renewed", "kept")
"""What the reference of a round after the first is: the model of the round before, or the base model."""
MIX = ("wrong_of_chosen", "right_of_rejected", "tokens_left_out")
"""Of ``measure.mix``: what a line has of the pairs of each round."""


@dataclass(frozen=True)
class RoundsPlan:
    map: MapPlan
    """With the one cell, the methods and the fresh worlds of the rounds."""
    rounds: int = 3

    @property
    def cell(self) -> MapCell:
        return self.map.cells[0]

    def in_rounds(self) -> list[str]:
        """The names under which the lines of several rounds stand."""
        return [f"{method}-{arm}" for method in self.map.methods for arm in ARMS]

    def taken_apart(self, name: str) -> tuple[str, str | None]:
        """The method and the arm that a line names; no arm for one round and for the base model."""
        method, _, arm = name.rpartition("-")
        return (method, arm) if method in self.map.methods and arm in ARMS else (name, None)


FULL = RoundsPlan(
    replace(
        map_plan.FULL,
        cells=(MapCell(2, "best-worst"),),
        methods=("dpo", "mask-dpo", "strict"),
        fresh=(3201, 3202, 3203, 3204, 3205),
    )
)
QUICK = RoundsPlan(
    MapPlan(
        bases={"standard": Setting(40, 8, pretrain_steps=120, samples=6, epochs=1, eval_samples=2, sizes=(2,))},
        cells=FULL.map.cells,
        methods=("dpo", "strict"),
        development=(9901,),
        fresh=(9903,),
        grid=(1e-3, 2e-3),
    )
)


@dataclass
class Development:
    """What the development worlds say."""

    missing: list[Run]
    curves: dict[str, Curve]
    """Of several rounds, by the names of their lines."""
    rates: dict[str, float]
    """Of one round and, as far as their curves are complete, of several."""


def develop_rounds(plan: RoundsPlan, of_map: Results, results: Results) -> Development:
    """The best rates: for one round by the map's lines, which must be there. For several by the same rule, out of that
    rate and its neighbours in the grid of one round, wider where an edge is best."""
    one = develop(plan.map, of_map)
    base = [of_map[Run(world, BASE)] for world in plan.map.development]
    length = mean_figures(base)["sentences"]
    rates = {method: one.choices[method].best_lr for method in plan.map.methods}
    curves = {}
    for name in plan.in_rounds():
        method, _ = plan.taken_apart(name)
        grid = one.curves[method].grid
        middle = grid.index(rates[method])
        near = replace(plan.map, grid=grid[max(0, middle - 1) : middle + 2])
        curves[name] = curve_of(near, results, name, length, 0.0)
    rates |= {name: best_rate(curve.grid, curve.points, length) for name, curve in curves.items() if not curve.missing}
    return Development([run for curve in curves.values() for run in curve.missing], curves, rates)


def fresh_runs(plan: RoundsPlan, world: int, rates: dict[str, float]) -> list[Run]:
    """Everything in a fresh world, each once."""
    return [Run(world, BASE), *(Run(world, name, rate) for name, rate in rates.items())]


def next_runs(plan: RoundsPlan, of_map: Results, results: Results) -> list[Run]:
    """What can be run now: the development worlds, then the fresh ones, world by world."""
    development = develop_rounds(plan, of_map, results)
    if development.missing:
        return development.missing
    runs = [run for world in plan.map.fresh for run in fresh_runs(plan, world, development.rates)]
    return [run for run in runs if run not in results]


def parts_of(prompts: Sequence[Prompt], rounds: int, pairs: int, seed: int) -> list[list[Prompt]]:
    """The questions of each round, drawn by lot: none is asked in two, and all rounds ask as many.

    Args:
        pairs: of a round. A fifth more questions are asked, because not every question gives a pair.
    """
    drawn = Random(seed).sample(prompts, len(prompts))
    each = min(len(prompts) // rounds, pairs * 6 // 5)
    return [drawn[i * each : (i + 1) * each] for i in range(rounds)]

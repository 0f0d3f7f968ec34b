"""The map: its cells, their lines, and which alignments come next. docs/evidence-map.md has the protocol."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from benchmarks.closed_world.cells import Setting
from benchmarks.closed_world.measure import Figures
from benchmarks.closed_world.plan import Choice, best_rate, equal_rate
from benchmarks.closed_world.tables import mean_figures
from maskdpo.io import read_records
from maskdpo.io.append import append_shared
from maskdpo.schemas import FileRecord

BASE = "base"
"""The model before any alignment, where a method would stand."""


class MapCell(NamedTuple):
    size: int
    """Entities that a question asks about; a text has about four sentences on each."""
    pairs: str
    base: str = "standard"

    @property
    def name(self) -> str:
        return f"{4 * self.size}-{self.pairs}" + ("" if self.base == "standard" else f"-{self.base}")


class Run(NamedTuple):
    """One alignment, or the model before it (``BASE``, at rate 0)."""

    world: int
    method: str
    lr: float = 0.0


class Row(FileRecord):
    """A line of a cell's file."""

    world: int
    method: str
    lr: float
    figures: Figures


@dataclass(frozen=True)
class MapPlan:
    bases: Mapping[str, Setting]
    cells: tuple[MapCell, ...]
    methods: tuple[str, ...] = ("dpo", "mask-dpo", "strict", "chosen-only", "rejected-only")
    """The first one is what the others are compared with, in gains and in divergence."""
    development: tuple[int, ...] = (9101, 9102)
    fresh: tuple[int, ...] = (3001, 3002, 3003, 3004, 3005)
    grid: tuple[float, ...] = (1e-5, 2e-5, 5e-5, 1e-4)
    widen: int = 2
    """How often the grid of a method is made wider, by a factor of 2."""


STANDARD = Setting(pretrain_steps=1000, sizes=(1, 2, 4), pair_share=0.5)
FULL = MapPlan(
    bases={"standard": STANDARD, "weak": replace(STANDARD, pretrain_steps=600)},
    cells=(
        MapCell(2, "best-worst"),
        MapCell(2, "small-margin"),
        MapCell(4, "best-worst"),
        MapCell(4, "small-margin"),
        MapCell(1, "best-worst"),
        MapCell(1, "small-margin"),
        MapCell(2, "best-worst", "weak"),
        MapCell(2, "small-margin", "weak"),
        MapCell(2, "most-kept"),
    ),
)
QUICK = MapPlan(
    bases={"standard": Setting(24, 8, pretrain_steps=60, samples=6, epochs=1, eval_samples=2, sizes=(2,))},
    cells=(MapCell(2, "small-margin"),),
    methods=("dpo", "strict"),
    development=(9901,),
    fresh=(9902,),
    grid=(1e-4, 1e-3),
)


class Results:
    """The lines of ``CELL.jsonl``."""

    def __init__(self, folder: Path, cell: str) -> None:
        self.folder = folder
        self._file = folder / f"{cell}.jsonl"
        self._rows: dict[Run, Figures] = {}
        if self._file.exists():
            append_shared(self._file, Row, [])  # what a kill has torn is mended
            for row in read_records(self._file, Row):
                self._rows[Run(row.world, row.method, row.lr)] = row.figures

    def __contains__(self, run: Run) -> bool:
        return run in self._rows

    def __getitem__(self, run: Run) -> Figures:
        return self._rows[run]

    def add(self, run: Run, figures: Figures) -> None:
        rounded = {name: float(f"{value:.6g}") for name, value in figures.items()}
        row = Row(id=f"{run.method}-w{run.world}-lr{run.lr:g}", world=run.world, method=run.method, lr=run.lr,
                  figures=rounded)  # fmt: skip
        append_shared(self._file, Row, [row])
        self._rows[run] = rounded


def results_in(folder: Path, plan: MapPlan) -> dict[MapCell, Results]:
    return {cell: Results(folder, cell.name) for cell in plan.cells}


@dataclass
class Curve:
    """A method on the development worlds of a cell, by learning rate, as far as it is known."""

    grid: tuple[float, ...]
    points: list[Figures] = field(default_factory=list)
    missing: list[Run] = field(default_factory=list)

    @property
    def kl(self) -> list[float]:
        return [point["kl"] for point in self.points]


def curve_of(plan: MapPlan, results: Results, method: str, length: float, target: float) -> Curve:
    """The grid, wider where its edge is best or, at its upper end, the target divergence is not reached."""
    grid = plan.grid
    for widened in range(plan.widen + 1):
        curve = Curve(grid, missing=[
            run for lr in grid for world in plan.development if (run := Run(world, method, lr)) not in results
        ])  # fmt: skip
        if curve.missing:
            return curve
        curve.points = [mean_figures([results[Run(world, method, lr)] for world in plan.development]) for lr in grid]
        if widened < plan.widen:
            best = best_rate(grid, curve.points, length)
            if best == grid[0]:
                grid = (_rounded(grid[0] / 2), *grid)
            elif best == grid[-1] or curve.kl[-1] < target:
                grid = (*grid, _rounded(grid[-1] * 2))
            else:
                break
    return curve


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")


@dataclass
class Development:
    """What the development worlds of a cell say."""

    missing: list[Run]
    curves: dict[str, Curve]
    choices: dict[str, Choice]
    """Of the methods whose curve is complete; empty as long as that of the first method is not."""


def develop(plan: MapPlan, results: Results) -> Development:
    missing = [run for world in plan.development if (run := Run(world, BASE)) not in results]
    if missing:
        return Development(missing, {}, {})
    length = mean_figures([results[Run(world, BASE)] for world in plan.development])["sentences"]
    anchor = plan.methods[0]
    first = curve_of(plan, results, anchor, length, 0.0)
    if first.missing:
        return Development(first.missing, {anchor: first}, {})
    target = first.kl[first.grid.index(best_rate(first.grid, first.points, length))]
    curves = {anchor: first} | {m: curve_of(plan, results, m, length, target) for m in plan.methods[1:]}
    choices = {
        method: Choice(best_rate(curve.grid, curve.points, length), equal_rate(curve.grid, curve.kl, target))
        for method, curve in curves.items()
        if not curve.missing
    }
    return Development([run for curve in curves.values() for run in curve.missing], curves, choices)


def fresh_runs(plan: MapPlan, choices: Mapping[str, Choice]) -> list[Run]:
    """World by world, every method at its best rate and at that of equal divergence."""
    runs: dict[Run, None] = {}
    for world in plan.fresh:
        runs[Run(world, BASE)] = None
        for method in plan.methods:
            for lr in (choices[method].best_lr, choices[method].equal_lr):
                runs[Run(world, method, lr)] = None
    return list(runs)


def next_runs(plan: MapPlan, results: Mapping[MapCell, Results]) -> list[tuple[MapCell, Run]]:
    """What can be run now: the development worlds of all cells, then fresh worlds cell by cell."""
    found = {cell: develop(plan, results[cell]) for cell in plan.cells}
    missing = [(cell, run) for cell, development in found.items() for run in development.missing]
    if missing:
        return missing
    for cell, development in found.items():
        runs = [(cell, run) for run in fresh_runs(plan, development.choices) if run not in results[cell]]
        if runs:
            return runs
    return []

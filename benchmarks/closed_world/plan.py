"""Which cells are run: a grid on development worlds, a choice by a fixed rule, then fresh worlds once."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.closed_world.cells import Cell, Pool, Setting
from benchmarks.closed_world.measure import Figures
from benchmarks.closed_world.methods import NEEDS_NOISE, NOISE_METHODS, TOPIC_METHODS

DEVELOPMENT_WORLDS = (9001, 9002)
GRID = (1e-6, 1e-5, 2e-5, 5e-5, 1e-4)
"""Learning rates, the same for all methods."""
LENGTH_RANGE = (0.8, 1.25)
"""Sentences an answer, over those of the base model, that a learning rate may lead to and still be chosen."""
STAND_IN = {"soft": "mask-dpo"}
"""Methods that take the learning rate of another one, which they equal where labels are exact."""


@dataclass(frozen=True)
class Plan:
    """What to run, and how large. Within one output folder only methods, worlds and seeds may be added."""

    methods: tuple[str, ...]
    worlds: tuple[int, ...]
    seeds: tuple[int, ...] = (0,)
    development: tuple[int, ...] = DEVELOPMENT_WORLDS
    grid: tuple[float, ...] = GRID
    noises: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3)
    questions: tuple[int, ...] = (1, 3, 6)
    setting: Setting = field(default_factory=Setting)

    @property
    def exact(self) -> tuple[str, ...]:
        """The methods that exact labels suffice for."""
        return tuple(method for method in self.methods if method not in NEEDS_NOISE)

    def pools(self) -> list[Pool]:
        """Of the fresh worlds, beside the main ones: those with noise, and those with several questions a topic."""
        noisy = [Pool(world, noise=noise) for world in self.worlds for noise in self.noises if noise]
        deep = [Pool(world, questions) for world in self.worlds for questions in self.questions if questions > 1]
        return noisy + deep

    def grid_cells(self) -> list[Cell]:
        return [
            Cell(Pool(world), method, lr) for world in self.development for method in self.exact for lr in self.grid
        ]


@dataclass(frozen=True)
class Choice:
    """What the development worlds say of a method."""

    best_lr: float
    equal_lr: float
    """Where its divergence is that of DPO at its best learning rate, by interpolation in the grid."""


def choose(plan: Plan, results: Mapping[Cell, Figures], base: Sequence[Figures]) -> dict[str, Choice]:
    """The best learning rate of every method, and the one that gives them all the same divergence."""
    length = sum(figures["sentences"] for figures in base) / len(base)
    curves = {
        m: [_mean(results[Cell(Pool(w), m, lr)] for w in plan.development) for lr in plan.grid] for m in plan.exact
    }
    best = {method: best_rate(plan.grid, curve, length) for method, curve in curves.items()}
    anchor = "dpo" if "dpo" in curves else plan.exact[0]
    target = curves[anchor][plan.grid.index(best[anchor])]["kl"]
    return {m: Choice(best[m], equal_rate(plan.grid, [f["kl"] for f in curve], target)) for m, curve in curves.items()}


def best_rate(grid: Sequence[float], curve: Sequence[Figures], length: float) -> float:
    """The rate with the highest right / all among those that leave the length about as it was; else the smallest."""
    low, high = LENGTH_RANGE
    fit = [i for i, figures in enumerate(curve) if low <= figures["sentences"] / length <= high]
    return grid[max(fit, key=lambda i: curve[i]["right_of_all"])] if fit else grid[0]


def equal_rate(grid: Sequence[float], divergences: Sequence[float], target: float) -> float:
    """Where the divergence first reaches the target: interpolated between two rates on logarithmic scales, never
    outside the grid."""
    target = max(target, 1e-5)  # an estimate near 0 may be negative
    if divergences[0] >= target:
        return grid[0]
    for i in range(1, len(grid)):
        below, above = divergences[i - 1], divergences[i]
        if above >= target:
            below = min(max(below, 1e-6), target)
            share = math.log(target / below) / math.log(above / below)
            return float(f"{grid[i - 1] * (grid[i] / grid[i - 1]) ** share:.3g}")
    return grid[-1]


def final_cells(plan: Plan, choices: Mapping[str, Choice]) -> list[Cell]:
    """All cells on fresh worlds; one that belongs to two comparisons is there once."""
    cells: dict[Cell, None] = {}
    for world in plan.worlds:
        for seed in plan.seeds:
            for method in plan.exact:
                for lr in (choices[method].best_lr, choices[method].equal_lr):
                    cells[Cell(Pool(world), method, lr, seed)] = None
            cells |= dict.fromkeys([*noise_cells(plan, choices, world, seed), *topic_cells(plan, choices, world, seed)])
    return list(cells)


def noise_cells(plan: Plan, choices: Mapping[str, Choice], world: int, seed: int) -> list[Cell]:
    """Every level of noise at the learning rate for exact labels."""
    pools = [Pool(world, noise=noise) for noise in plan.noises if noise]
    methods = [method for method in NOISE_METHODS if method in plan.methods and stand_in(method) in choices]
    return [Cell(pool, method, choices[stand_in(method)].best_lr, seed) for pool in pools for method in methods]


def topic_cells(plan: Plan, choices: Mapping[str, Choice], world: int, seed: int) -> list[Cell]:
    """More questions of fewer topics, at the same number of pairs and the same learning rate."""
    pools = [Pool(world, questions) for questions in plan.questions if questions > 1]
    methods = [method for method in TOPIC_METHODS if method in choices]
    return [Cell(pool, method, choices[method].best_lr, seed) for pool in pools for method in methods]


def stand_in(method: str) -> str:
    return STAND_IN.get(method, method)


def _mean(figures: Iterable[Figures]) -> Figures:
    rows = list(figures)
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}

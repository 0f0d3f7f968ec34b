"""The map as tables in Markdown and a figure, from the lines of its cells."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.closed_world.map_plan import (
    BASE,
    Curve,
    Development,
    MapCell,
    MapPlan,
    Results,
    Run,
    develop,
    fresh_runs,
)
from benchmarks.closed_world.measure import Figures
from benchmarks.closed_world.methods import METHODS
from benchmarks.closed_world.plan import Choice
from benchmarks.closed_world.plots import COLOURS, DPI
from benchmarks.closed_world.tables import differences, interval, markdown, mean_figures, precision, show, sign_of

METRICS: dict[str, Callable[[Figures], float]] = {
    "right / all": lambda figures: figures["right_of_all"],
    "right / (right + wrong)": precision,
}
"""Those of the verdicts."""
GREEDY = "greedy: right / all"
SHOWN = METRICS | {GREEDY: lambda figures: figures["greedy_right_of_all"]}
"""Those of the tables of gains; answers are sampled at temperature 1 for all but the last."""
RATES: dict[str, Callable[[Choice], float]] = {
    "best rates": lambda choice: choice.best_lr,
    "equal divergence": lambda choice: choice.equal_lr,
}
DETAILS = ("right", "wrong", "no_fact", "malformed", "repeated", "sentences")
PLOTTED = ("mask-dpo", "strict")


@dataclass
class Found:
    """A cell whose development worlds are complete, with those of its fresh worlds that are."""

    name: str
    development: Development
    worlds: tuple[int, ...]
    results: Results

    def rows(self, method: str, lr: float = 0.0) -> list[Figures]:
        return [self.results[Run(world, method, lr)] for world in self.worlds]

    def at(self, method: str, rate: Callable[[Choice], float]) -> list[Figures]:
        return self.rows(method, rate(self.development.choices[method]))


def found_cells(plan: MapPlan, results: Mapping[MapCell, Results]) -> dict[MapCell, Found]:
    found = {}
    for cell in plan.cells:
        lines = results[cell]
        development = develop(plan, lines)
        if not development.missing:
            missing = {run.world for run in fresh_runs(plan, development.choices) if run not in lines}
            worlds = tuple(world for world in plan.fresh if world not in missing)
            found[cell] = Found(cell.name, development, worlds, lines)
    return found


def gains(found: Found, method: str, over: str, rate: Callable[[Choice], float], metric: str) -> list[float]:
    return differences(found.at(method, rate), found.at(over, rate), SHOWN[metric])


def report(plan: MapPlan, results: Mapping[MapCell, Results], plots: Path) -> str:
    """The tables as text; the figure in ``plots``, as soon as a cell has a fresh world."""
    every = found_cells(plan, results)
    begun = {cell: found for cell, found in every.items() if found.worlds}
    done = list(begun.values())
    anchor, *others = plan.methods
    parts = ["## The cells and their mix", mix_table(plan, results)]
    if done:
        parts += [f"## What the protocol says of each method against {anchor}", verdict_table(done, anchor, others)]
    for metric in SHOWN if done else ():
        for title, rate in RATES.items():
            parts += [f"## {metric}, {title}: gains over {anchor}", gains_table(done, anchor, others, rate, metric)]
    for cells in sharing_worlds(begun):
        title = f"## Pairs of the same answers: gains over {anchor} on {cells[0].name}, best rates"
        parts += [title, pairs_table(cells, plan.methods)]
    for found in done:
        worlds = f"{len(found.worlds)} fresh worlds"
        for title, rate in RATES.items():
            parts += [f"## {found.name}, {title} ({worlds})", detail_table(found, plan.methods, rate)]
    if every:
        parts += [
            "## Development worlds: right / all (KL; sentences) by learning rate",
            grid_table(list(every.values())),
        ]
    if plotted := [method for method in PLOTTED if done and method in others]:
        plots.mkdir(parents=True, exist_ok=True)
        draw(done, anchor, plotted, plots / "closed_world_map.png")
    return "\n\n".join(parts) + "\n"


def mix_table(plan: MapPlan, results: Mapping[MapCell, Results]) -> str:
    """Of all worlds of a cell that have been begun, fresh ones if there are any."""
    names = ("wrong_of_chosen", "right_of_rejected", "tokens_left_out", "margin")
    header = ["cell", "worlds", "base: right / all", "base: sentences", *(name.replace("_", " ") for name in names)]
    rows = []
    for cell in plan.cells:
        lines = results[cell]
        for kind, worlds in (("fresh", plan.fresh), ("development", plan.development)):
            bases = [lines[run] for world in worlds if (run := Run(world, BASE)) in lines]
            if bases:
                mean = mean_figures(bases)
                shown = [f"{mean[name]:.2f}" for name in ("right_of_all", "sentences", *names)]
                rows.append([cell.name, f"{len(bases)} {kind}", *shown])
                break
    return markdown(header, rows)


def gains_table(
    done: Sequence[Found], anchor: str, others: Sequence[str], rate: Callable[[Choice], float], metric: str
) -> str:
    header = ["cell", "worlds", METHODS[anchor].title, *(METHODS[method].title for method in others)]
    rows = []
    for found in done:
        level = [SHOWN[metric](figures) for figures in found.at(anchor, rate)]
        over_anchor = [show(gains(found, method, anchor, rate, metric), "+") for method in others]
        rows.append([found.name, str(len(found.worlds)), show(level), *over_anchor])
    return markdown(header, rows)


def verdict_table(done: Sequence[Found], anchor: str, others: Sequence[str]) -> str:
    header = ["cell", "worlds", *(METHODS[method].title for method in others)]
    rows = [
        [found.name, str(len(found.worlds)), *(verdict(found, method, anchor) for method in others)] for found in done
    ]
    return markdown(header, rows)


def verdict(found: Found, method: str, over: str) -> str:
    """Whether all four intervals (two metrics, two rates) leave out 0 from the same side."""
    sign = sign_of(interval(gains(found, method, over, rate, metric)) for rate in RATES.values() for metric in METRICS)
    return {1: "wins", -1: "loses", 0: "undecided"}[sign]


def sharing_worlds(begun: Mapping[MapCell, Found]) -> list[list[Found]]:
    """Cells whose pairs are made of the same answers, in the same fresh worlds; those that share them with no other
    are left out."""
    groups: dict[tuple[int, str, tuple[int, ...]], list[Found]] = {}
    for cell, found in begun.items():
        groups.setdefault((cell.size, cell.base, found.worlds), []).append(found)
    return [cells for cells in groups.values() if len(cells) > 1]


def pairs_table(cells: Sequence[Found], methods: Sequence[str]) -> str:
    """Every method on every kind of pairs at its best rate there, less the first method on the first kind."""
    rate = RATES["best rates"]
    anchor = cells[0].at(methods[0], rate)
    header = [
        "cell",
        "method",
        "lr",
        *METRICS,
        *(f"gain in {metric}" for metric in METRICS),
        "KL",
        "right",
        "sentences",
    ]
    rows = []
    for found in cells:
        for method in methods:
            figures = found.at(method, rate)
            mean = mean_figures(figures)
            rows.append(
                [
                    found.name,
                    METHODS[method].title,
                    f"{rate(found.development.choices[method]):.3g}",
                    *(show([value(row) for row in figures]) for value in METRICS.values()),
                    *(show(differences(figures, anchor, value), "+") for value in METRICS.values()),
                    *(f"{mean[name]:.2f}" for name in ("kl", "right", "sentences")),
                ]
            )
    return markdown(header, rows)


def detail_table(found: Found, methods: Sequence[str], rate: Callable[[Choice], float]) -> str:
    header = ["method", "lr", *METRICS, "greedy", "KL", *(name.replace("_", " ") for name in DETAILS)]
    rows = []
    for method in (BASE, *methods):
        lr = 0.0 if method == BASE else rate(found.development.choices[method])
        figures = found.rows(method, lr)
        mean = mean_figures(figures)
        rows.append(
            [
                BASE if method == BASE else METHODS[method].title,
                f"{lr:.3g}" if lr else "-",
                *(show([value(row) for row in figures]) for value in METRICS.values()),
                show([row["greedy_right_of_all"] for row in figures]),
                f"{mean['kl']:.2f}" if lr else "-",
                *(f"{mean[name]:.2f}" for name in DETAILS),
            ]
        )
    return markdown(header, rows)


def grid_table(every: Sequence[Found]) -> str:
    rows = []
    for found in every:
        for method, curve in found.development.curves.items():
            choice = found.development.choices[method]
            equal = [f"{choice.equal_lr:.3g}", f"{_at_rate(curve, choice.equal_lr):.3f}"]
            best, points = curve_cells(curve, choice.best_lr)
            rows.append([found.name, METHODS[method].title, best, *equal, points])
    return markdown(["cell", "method", "best rate", "equal divergence", "right / all there", "grid"], rows)


def _at_rate(curve: Curve, lr: float) -> float:
    """Right / all between the rates of the grid, interpolated over their logarithm."""
    shares = [point["right_of_all"] for point in curve.points]
    return float(np.interp(math.log(lr), [math.log(rate) for rate in curve.grid], shares))


def curve_cells(curve: Curve, best: float) -> tuple[str, str]:
    """The best rate, marked where it is an edge of the grid, and right / all (KL; sentences) at every rate."""
    edge = "" if curve.grid[0] < best < curve.grid[-1] else " (edge)"
    points = [
        f"{lr:g}: {point['right_of_all']:.3f} ({point['kl']:.2f}; {point['sentences']:.1f})"
        for lr, point in zip(curve.grid, curve.points, strict=True)
    ]
    return f"{best:.3g}{edge}", ", ".join(points)


def draw(done: Sequence[Found], anchor: str, methods: Sequence[str], file: Path) -> None:
    """The gain of masks over the anchor: a row of panels a method, a line a cell, in the order of the tokens that
    Mask-DPO leaves out."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cells = sorted(done, key=_left_out)
    size = (11.5, 1.2 + (0.6 + 0.3 * len(cells)) * len(methods))
    figure, rows = pyplot.subplots(
        len(methods), len(SHOWN), figsize=size, layout="constrained", sharex="col", sharey=True, squeeze=False
    )
    for method, panels in zip(methods, rows, strict=True):
        for metric, axes in zip(SHOWN, panels, strict=True):
            _draw_gains(axes, cells, anchor, method, metric)
        panels[0].set_ylabel(f"{METHODS[method].title} less {METHODS[anchor].title}")
    for metric, axes in zip(SHOWN, rows[0], strict=True):
        axes.set_title(metric, fontsize=10)
    handles = rows[0][0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=len(handles[0]), frameon=False, fontsize=8)
    figure.supxlabel(
        "in brackets: the share of tokens that the masks of Mask-DPO leave out; 95% intervals over worlds", fontsize=9
    )
    figure.savefig(file, dpi=DPI)
    pyplot.close(figure)


def _left_out(found: Found) -> float:
    return mean_figures(found.rows(BASE))["tokens_left_out"]


def _draw_gains(axes: Any, cells: Sequence[Found], anchor: str, method: str, metric: str) -> None:
    for offset, (title, rate) in enumerate(RATES.items()):
        points = [interval(gains(found, method, anchor, rate, metric)) for found in cells]
        means, halves = zip(*points, strict=True)
        places = [place - 0.1 + 0.2 * offset for place in range(len(cells))]
        axes.errorbar(
            means, places, xerr=halves, fmt="os"[offset], color=COLOURS[offset], capsize=2, markersize=4, label=title
        )
    axes.set_yticks(range(len(cells)), [f"{found.name} ({_left_out(found):.2f})" for found in cells], fontsize=8)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)

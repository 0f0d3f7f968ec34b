"""The lines of a part as tables in Markdown and a figure: means with 95% intervals over seeds."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.closed_world import map_tables
from benchmarks.closed_world.map_plan import BASE, Results
from benchmarks.closed_world.map_tables import RATES, Found, grid_table
from benchmarks.closed_world.measure import Figures
from benchmarks.closed_world.methods import METHODS
from benchmarks.closed_world.plan import Choice
from benchmarks.closed_world.plots import COLOURS, DPI
from benchmarks.closed_world.tables import differences, interval, markdown, mean_figures, show, sign_of
from benchmarks.real_model.plan import Plan, developed, final_runs

Metric = Callable[[Figures], float]
Rate = Callable[[Choice], float]
BEST = next(iter(RATES))
UNCHECKABLE, RIGHT = "uncheckable as wrong", "right / answer"
DECISIVE: dict[str, Metric] = {
    **map_tables.METRICS,
    UNCHECKABLE: lambda figures: _share(figures["right"], figures["sentences"] + figures["torn"]),
}
"""A method wins where it wins in all of them: see ``verdict``."""
METRICS: dict[str, Metric] = {
    **DECISIVE,
    "right / (right + contradicted)": lambda f: _share(f["right"], f["right"] + f["contradictory"]),
    "right and new / all": lambda f: _share(f["new_right"], f["sentences"]),
    RIGHT: lambda figures: figures["right"],
    "right and new / answer": lambda figures: figures["new_right"],
    "greedy: right / all": lambda figures: figures["greedy_right_of_all"],
}
DETAILS = ("kl", "wrong", "contradictory", "no_fact", "sentences", "tokens", "claims", "cut_off")
MIX = ("wrong_of_chosen", "right_of_rejected", "tokens_left_out", "margin", "pairs", "right_of_all", "sentences")


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def found_in(plan: Plan, results: Results) -> Found | None:
    """The rates that were chosen, with the seeds that are complete; None as long as development is not."""
    development = developed(plan, results)
    if development.missing:
        return None
    missing = {run.world for run in final_runs(plan, development.choices) if run not in results}
    return Found(plan.name, development, tuple(seed for seed in plan.seeds if seed not in missing), results)


def report(plan: Plan, results: Results, plots: Path | None = None) -> str:
    """The tables as text, of as many seeds as are complete; the figure in ``plots``, if given, as soon as two are."""
    found = found_in(plan, results)
    if found is None:
        return f"{plan.name}: the rates are not chosen yet\n"
    parts = _final(plan, found) if found.worlds else []
    if found.development.curves:
        parts += ["## Development topics: right / all (KL; sentences) by learning rate", grid_table([found])]
    if left := [str(seed) for seed in plan.seeds if seed not in found.worlds]:
        parts.append(f"Seeds that are not complete: {', '.join(left)}. The command without --tables goes on with them.")
    if plots is not None and len(found.worlds) > 1:
        plots.mkdir(parents=True, exist_ok=True)
        draw(plan, found, plots / f"real_model_{plan.name}.png")
    return "\n\n".join(parts) + "\n"


def _final(plan: Plan, found: Found) -> list[str]:
    anchor, seeds = plan.methods[0], f"{len(found.worlds)} seeds"
    parts = [f"## {plan.name}: the pairs ({seeds})", mix_table(found)]
    parts += [f"## What the protocol says of each method against {anchor}", verdict_table(plan, found)]
    for title, rate in rates(plan).items():
        compared = compared_at(plan, rate)
        parts += [f"## {plan.name}, {title} ({seeds})", levels_table(found, compared, rate)]
        others = [method for method in compared if method != anchor]
        parts += [f"## {title}: less {METHODS[anchor].title}", gains_table(found, others, anchor, rate)]
        parts += [f"## {title}: less the model before", gains_table(found, compared, BASE, rate)]
        parts += [f"## {title}: per answer", details_table(found, compared, rate)]
    return parts


def rates(plan: Plan) -> dict[str, Rate]:
    if plan.equal:
        return RATES
    return {BEST if plan.rates.development else "one rate for all": RATES[BEST]}


def compared_at(plan: Plan, rate: Rate) -> tuple[str, ...]:
    """The methods that are run at this rate."""
    return plan.methods if rate is RATES[BEST] else plan.at_equal


def rows(found: Found, method: str, rate: Rate) -> list[Figures]:
    return found.rows(BASE) if method == BASE else found.at(method, rate)


def gains(found: Found, method: str, over: str, rate: Rate, metric: Metric) -> list[float]:
    """Seed by seed, as what the answers to the same prompts with the same seed have in common then falls out."""
    return differences(rows(found, method, rate), rows(found, over, rate), metric)


def verdict(plan: Plan, found: Found, method: str) -> str:
    """Whether the intervals of all decisive figures at all rates leave out 0 from the same side; and who says less that
    is right does not win."""
    anchor, at = plan.methods[0], rates(plan).values()

    def intervals(metric: Metric) -> list[tuple[float, float]]:
        return [interval(gains(found, method, anchor, rate, metric)) for rate in at]

    sign = sign_of(one for metric in DECISIVE.values() for one in intervals(metric))
    if sign > 0 and any(mean < -half for mean, half in intervals(METRICS[RIGHT])):
        return "undecided (fewer right sentences)"
    return {1: "wins", -1: "loses", 0: "undecided"}[sign]


def verdict_table(plan: Plan, found: Found) -> str:
    judged = plan.equal or plan.methods[1:]
    header = ["method", "by the judge alone" if plan.by_hand else "verdict"]
    return markdown(header, [[METHODS[name].title, verdict(plan, found, name)] for name in judged])


def mix_table(found: Found) -> str:
    bases = found.rows(BASE)
    header = ["base: right / all" if name == "right_of_all" else name.replace("_", " ") for name in MIX]
    return markdown(header, [[show([base[name] for base in bases]) for name in MIX]])


def levels_table(found: Found, methods: Sequence[str], rate: Rate) -> str:
    shown = []
    for method in (BASE, *methods):
        figures = rows(found, method, rate)
        lr = "-" if method == BASE else f"{rate(found.development.choices[method]):.3g}"
        shown.append([title(method), lr, *(show([value(row) for row in figures]) for value in METRICS.values())])
    return markdown(["method", "lr", *METRICS], shown)


def gains_table(found: Found, methods: Sequence[str], over: str, rate: Rate) -> str:
    shown = [
        [title(method), *(show(gains(found, method, over, rate, value), "+") for value in METRICS.values())]
        for method in methods
    ]
    return markdown(["method", *METRICS], shown)


def details_table(found: Found, methods: Sequence[str], rate: Rate) -> str:
    shown = []
    for method in (BASE, *methods):
        mean = mean_figures(rows(found, method, rate))
        shown.append([title(method), *(f"{mean[name]:.2f}" if name in mean else "-" for name in DETAILS)])
    return markdown(["method", *(name.replace("_", " ") for name in DETAILS)], shown)


def title(method: str) -> str:
    return BASE if method == BASE else METHODS[method].title


def draw(plan: Plan, found: Found, file: Path) -> None:
    """What every method has over the first one in the decisive figures, at every rate."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    anchor, *others = plan.methods
    figure, panels = pyplot.subplots(
        1, len(DECISIVE), figsize=(9.6, 1.2 + 0.4 * len(others)), layout="constrained", sharey=True
    )
    for axes, (name, metric) in zip(panels, DECISIVE.items(), strict=True):
        for offset, (label, rate) in enumerate(rates(plan).items()):
            here = [method for method in others if method in compared_at(plan, rate)]
            points = [interval(gains(found, method, anchor, rate, metric)) for method in here]
            places = [-others.index(method) - 0.25 * offset for method in here]
            means, halves = zip(*points, strict=True)
            axes.errorbar(means, places, xerr=halves, fmt="os"[offset], color=COLOURS[offset], capsize=2, label=label)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(name, fontsize=10)
    panels[0].set_yticks([-place - 0.125 for place in range(len(others))], [title(method) for method in others])
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=len(handles[0]), frameon=False, fontsize=8)
    figure.supxlabel(f"less {title(anchor)} with the same seed (95% interval)", fontsize=9)
    figure.savefig(file, dpi=DPI)
    pyplot.close(figure)

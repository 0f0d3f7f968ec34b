"""One round against three as tables in Markdown, from the lines of the rounds."""

from collections.abc import Sequence

from benchmarks.closed_world.map_plan import BASE, Results
from benchmarks.closed_world.map_tables import DETAILS, METRICS, curve_cells
from benchmarks.closed_world.measure import Figures
from benchmarks.closed_world.methods import METHODS
from benchmarks.closed_world.rounds_plan import ARMS, MIX, Development, RoundsPlan, fresh_runs
from benchmarks.closed_world.tables import differences, interval, markdown, mean_figures, show, sign_of

Lines = dict[str, list[Figures]]
"""By the name of a line: its figures in every fresh world that is complete."""


def report(plan: RoundsPlan, development: Development, results: Results) -> str:
    """All tables that the lines allow."""
    parts = ["## Development worlds: right / all (KL; sentences) by learning rate", grid_table(plan, development)]
    lines = {} if development.missing else fresh_lines(plan, development, results)
    if lines:
        worlds = f"{len(lines[BASE])} fresh worlds"
        parts = [
            f"## Several rounds less one, the reference renewed less kept ({worlds})",
            gains_table(plan, lines),
            f"## Masks less {METHODS[plan.map.methods[0]].title}",
            masks_table(plan, lines),
            "## Every method",
            detail_table(plan, development, lines),
            "## Pairs by round: wrong of chosen, right of rejected, tokens left out",
            mix_table(plan, lines),
            *parts,
        ]
    return "\n\n".join(parts) + "\n"


def fresh_lines(plan: RoundsPlan, development: Development, results: Results) -> Lines:
    """Empty as long as no fresh world is complete."""
    lines: Lines = {}
    for world in plan.map.fresh:
        runs = fresh_runs(plan, world, development.rates)
        if all(run in results for run in runs):
            for run in runs:
                lines.setdefault(run.method, []).append(results[run])
    return lines


def gains(lines: Lines, name: str, over: str, metric: str) -> list[float]:
    return differences(lines[name], lines[over], METRICS[metric])


def gains_table(plan: RoundsPlan, lines: Lines) -> str:
    """The verdict of an arm: whether the intervals of both metrics leave out 0 from the same side."""
    header = ["method", "metric", *(f"{arm} less one round" for arm in ARMS), f"{ARMS[0]} less {ARMS[1]}"]
    rows = []
    for method in plan.map.methods:
        names = [(f"{method}-{arm}", method) for arm in ARMS]
        compared = [*names, (names[0][0], names[1][0])]
        for metric in METRICS:
            rows.append([METHODS[method].title, metric, *(show(gains(lines, *two, metric), "+") for two in compared)])
        rows.append([METHODS[method].title, "verdict", *(verdict(lines, *two) for two in compared)])
    return markdown(header, rows)


def verdict(lines: Lines, name: str, over: str) -> str:
    sign = sign_of(interval(gains(lines, name, over, metric)) for metric in METRICS)
    return {1: "better", -1: "worse", 0: "undecided"}[sign]


def masks_table(plan: RoundsPlan, lines: Lines) -> str:
    """Each method less the first one, in one round and in several."""
    anchor, *others = plan.map.methods
    ends = ["", *(f"-{arm}" for arm in ARMS)]
    rows = [
        [METHODS[method].title, metric, *(show(gains(lines, method + e, anchor + e, metric), "+") for e in ends)]
        for method in others
        for metric in METRICS
    ]
    return markdown(["method", "metric", "one round", *ARMS], rows)


def detail_table(plan: RoundsPlan, development: Development, lines: Lines) -> str:
    header = ["method", "lr", *METRICS, "greedy", "KL", *(name.replace("_", " ") for name in DETAILS), "pairs"]
    rows = []
    for name in _names(plan):
        figures, mean = lines[name], mean_figures(lines[name])
        values = ([value(row) for row in figures] for value in METRICS.values())
        rate = development.rates.get(name)
        rows.append(
            [
                _title(plan, name),
                f"{rate:.3g}" if rate else "-",
                *map(show, values),
                show([row["greedy_right_of_all"] for row in figures]),
                f"{mean['kl']:.2f}" if rate else "-",
                *(f"{mean[detail]:.2f}" for detail in DETAILS),
                f"{mean['pairs']:.0f}" if rate else "-",
            ]
        )
    return markdown(header, rows)


def mix_table(plan: RoundsPlan, lines: Lines) -> str:
    """Means over the fresh worlds in which a round had pairs; of one round those of its pairs, which the base model's
    line has."""
    header = ["method", *(f"round {number}" for number in range(1, plan.rounds + 1))]
    rows = [["one round", _mix(lines[BASE], ""), *["-"] * (plan.rounds - 1)]]
    for name in plan.in_rounds():
        rows.append([_title(plan, name), *(_mix(lines[name], f"_{n}") for n in range(1, plan.rounds + 1))])
    return markdown(header, rows)


def _mix(rows: Sequence[Figures], end: str) -> str:
    mean = mean_figures(rows)
    return ", ".join(f"{mean[name + end]:.2f}" if name + end in mean else "-" for name in MIX)


def grid_table(plan: RoundsPlan, development: Development) -> str:
    """Of several rounds, as far as their curves are complete; those of one round are the map's."""
    rows = [
        [_title(plan, name), *curve_cells(curve, development.rates[name])]
        for name, curve in development.curves.items()
        if not curve.missing
    ]
    return markdown(["method", "best rate", "grid"], rows)


def _names(plan: RoundsPlan) -> list[str]:
    """Of all lines in a fresh world: the base model, and each method in one round and in several."""
    return [BASE, *(name for m in plan.map.methods for name in (m, *(f"{m}-{arm}" for arm in ARMS)))]


def _title(plan: RoundsPlan, name: str) -> str:
    method, arm = plan.taken_apart(name)
    if name == BASE:
        return BASE
    rounds = f"{plan.rounds} rounds, reference {arm}" if arm else "one round"
    return f"{METHODS[method].title}, {rounds}"

"""Tables in Markdown, means with 95% intervals over worlds, and plots."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.closed_world.cells import Cell, Folder, Pool
from benchmarks.closed_world.measure import Figures
from benchmarks.closed_world.methods import METHODS, NOISE_METHODS, TOPIC_METHODS
from benchmarks.closed_world.plan import Choice, Plan, stand_in

BASELINE_TITLES = {"base": "base", "cool": "base, temperature 0.5", "greedy": "base, greedy"}
COLUMNS = ("right", "wrong", "no_fact", "malformed", "repeated", "sentences", "tokens")

T_975 = (math.nan, math.nan, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20)
"""Student's t for a 95% interval, by the number of worlds; beyond the table the last one, which is a little wide."""


class Results:
    """Figures by world; several seeds of a world are one mean, as they share the world."""

    def __init__(self, plan: Plan, folder: Folder) -> None:
        self.plan = plan
        self._folder = folder

    def baseline(self, name: str) -> list[Figures]:
        return [self._read(f"{name}-w{world}") for world in self.plan.worlds]

    def method(self, method: str, lr: float, *, questions: int = 1, noise: float = 0.0) -> list[Figures]:
        rows = []
        for world in self.plan.worlds:
            pool = Pool(world, questions, noise)
            rows.append(mean_figures([self._read(Cell(pool, method, lr, seed).name) for seed in self.plan.seeds]))
        return rows

    def grid(self, method: str) -> list[Figures]:
        """Means over the development worlds, one for every learning rate."""
        plan = self.plan
        return [
            mean_figures([self._read(Cell(Pool(world), method, lr).name) for world in plan.development])
            for lr in plan.grid
        ]

    def _read(self, name: str) -> Figures:
        found: Figures = json.loads(self._folder.result(name).read_text())
        return found


def mean_figures(rows: Sequence[Figures]) -> Figures:
    """Each figure's mean over the rows that have it."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95% interval by Student's t; the width of one value is not known."""
    count = len(values)
    mean = sum(values) / count
    if count < 2:
        return mean, math.nan
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    return mean, T_975[min(count, len(T_975) - 1)] * deviation / math.sqrt(count)


def sign_of(intervals: Iterable[tuple[float, float]]) -> int:
    """1 or -1 where all intervals (mean, half the width) leave out 0 from above or from below, else 0."""
    every = list(intervals)
    if all(mean > half for mean, half in every):
        return 1
    return -1 if all(mean < -half for mean, half in every) else 0


def column(rows: Sequence[Figures], name: str) -> list[float]:
    return [row[name] for row in rows]


def differences(rows: Sequence[Figures], over: Sequence[Figures], value: Callable[[Figures], float]) -> list[float]:
    """World by world: what worlds have in common falls out."""
    return [value(mine) - value(other) for mine, other in zip(rows, over, strict=True)]


def gain(rows: Sequence[Figures], over: Sequence[Figures], name: str = "right_of_all") -> list[float]:
    return differences(rows, over, lambda figures: figures[name])


def show(values: Sequence[float], sign: str = "") -> str:
    mean, half = interval(values)
    text = f"{mean:{sign}.3f}"
    if math.isnan(half):
        return text
    sure = bool(sign) and abs(mean) > half
    return f"{text} ± {half:.3f}{' *' if sure else ''}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]
    return "\n".join(lines)


def main_table(results: Results, choices: Mapping[str, Choice], rate: Callable[[Choice], float]) -> str:
    """All methods at the learning rate that ``rate`` takes of their choice, beside DPO."""
    named = {title: ("-", results.baseline(name)) for name, title in BASELINE_TITLES.items()}
    for method, choice in choices.items():
        lr = rate(choice)
        named[METHODS[method].title] = (f"{lr:.3g}", results.method(method, lr))
    over = named.get(METHODS["dpo"].title, (None, None))[1]
    header = ["method", "lr", "right / all", "less DPO", "greedy", "KL", *(c.replace("_", " ") for c in COLUMNS)]
    rows = []
    for title, (lr_text, figures) in named.items():
        trained = "kl" in figures[0]
        rows.append(
            [
                title,
                lr_text,
                show(column(figures, "right_of_all")),
                show(gain(figures, over), "+") if over and title != METHODS["dpo"].title else "-",
                show(column(figures, "greedy_right_of_all")) if trained else "-",
                f"{interval(column(figures, 'kl'))[0]:.2f}" if trained else "-",
                *(f"{interval(column(figures, name))[0]:.2f}" for name in COLUMNS),
            ]
        )
    return markdown(header, rows)


def readings_table(results: Results, choices: Mapping[str, Choice]) -> str:
    """At equal divergence, less DPO: greedy answers, and sentences that state something. Neither is in the protocol."""
    if "dpo" not in choices:
        return ""
    over = results.method("dpo", choices["dpo"].equal_lr)
    header = ["method", "greedy: right / all", "right / (right + wrong)", "no fact / answer", "right / answer"]
    rows = []
    for method, choice in choices.items():
        figures = results.method(method, choice.equal_lr)
        greedy, no_fact, right = (gain(figures, over, name) for name in ("greedy_right_of_all", "no_fact", "right"))
        claims = differences(figures, over, precision)
        rows.append([METHODS[method].title, *(show(values, "+") for values in (greedy, claims, no_fact, right))])
    return markdown(header, [row for row in rows if row[0] != METHODS["dpo"].title])


def precision(figures: Figures) -> float:
    """Right / (right + wrong)."""
    return figures["right"] / (figures["right"] + figures["wrong"])


def grid_table(results: Results, choices: Mapping[str, Choice]) -> str:
    """Development worlds: right / all, and the divergence in brackets."""
    header = ["method", *(f"{lr:g}" for lr in results.plan.grid)]
    rows = []
    for method in choices:
        cells = [f"{row['right_of_all']:.3f} ({row['kl']:.2f}; {row['sentences']:.1f})" for row in results.grid(method)]
        rows.append([METHODS[method].title, *cells])
    return markdown(header, rows)


def noise_rows(results: Results, choices: Mapping[str, Choice]) -> dict[str, list[list[Figures]]]:
    """By method, for every level of noise the figures of all worlds. Without noise ``soft`` is Mask-DPO."""
    found = {}
    for method in NOISE_METHODS:
        twin = stand_in(method)
        if method not in results.plan.methods or twin not in choices:
            continue
        lr = choices[twin].best_lr
        found[method] = [results.method(method if n else twin, lr, noise=n) for n in results.plan.noises]
    return found


def condition_tables(results: Results, choices: Mapping[str, Choice]) -> list[str]:
    """Judge noise, and topics against questions, at the learning rate for exact labels and one question a topic."""
    plan = results.plan
    noise = [
        [METHODS[method].title, *(show(column(rows, "right_of_all")) for rows in levels)]
        for method, levels in noise_rows(results, choices).items()
    ]
    aligned = plan.setting.entities - plan.setting.held_out
    topics = []
    for method in TOPIC_METHODS:
        if method in choices:
            lr = choices[method].best_lr
            cells = [results.method(method, lr, questions=q) for q in plan.questions]
            topics.append([METHODS[method].title, *(show(column(rows, "right_of_all")) for rows in cells)])
    return [
        "## Judge noise: right / all",
        markdown(["method", *(f"{noise:.0%}" for noise in plan.noises)], noise),
        "## Topics against questions: right / all",
        markdown(["method", *(f"{aligned // q} topics, {q} questions each" for q in plan.questions)], topics),
    ]


def write_report(plan: Plan, folder: Folder, choices: Mapping[str, Choice], plots: Path) -> str:
    """The tables as text, also in ``tables.md``; the plots in ``plots``."""
    from benchmarks.closed_world.plots import draw_all

    results = Results(plan, folder)
    parts = [
        f"## Fresh worlds ({len(plan.worlds)}), every method at its best learning rate on development worlds",
        main_table(results, choices, lambda choice: choice.best_lr),
        "## Fresh worlds, every method at the divergence that DPO has there",
        main_table(results, choices, lambda choice: choice.equal_lr),
        "## Other readings, at that divergence, less DPO (not in the protocol)",
        readings_table(results, choices),
        *condition_tables(results, choices),
        "## Development worlds: right / all (KL; sentences an answer) by learning rate",
        grid_table(results, choices),
    ]
    text = "\n\n".join(parts) + "\n"
    (folder.root / "tables.md").write_text(text)
    draw_all(results, choices, plots)
    return text

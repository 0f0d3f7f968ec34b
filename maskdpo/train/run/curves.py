"""A picture of a run: loss, margins, rewards of kept and masked tokens, throughput."""

from collections.abc import Mapping, Sequence
from typing import IO, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]

PANELS: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("loss", ("loss",), True),
    ("margin: reward of chosen - rejected", ("margin",), True),
    ("accuracy", ("accuracy",), True),
    ("rewards, tokens with weight", ("reward_kept_chosen", "reward_kept_rejected"), True),
    ("rewards, masked tokens", ("reward_masked_chosen", "reward_masked_rejected"), False),
    ("tokens / s", ("tokens_per_s",), False),
)
"""Title, figures, and whether the held-out pairs have them, too."""


def draw_curves(file: IO[bytes], steps: Rows, evals: Rows) -> None:
    """Write a PNG.

    Args:
        steps: rows of ``metrics.jsonl``; a figure that is None at a step is passed over.
        evals: rows of ``eval.jsonl``, or none; they are drawn dashed.
    """
    figure = Figure(figsize=(12, 6.5))  # without pyplot: no display, no global state
    figure.subplots_adjust(0.05, 0.08, 0.98, 0.94, wspace=0.2, hspace=0.35)  # automatic layout doubles the time
    FigureCanvasAgg(figure)
    for axis, (title, names, has_evals) in zip(figure.subplots(2, 3).flat, PANELS, strict=True):
        for number, name in enumerate(names):
            colour = f"C{number}"
            label = name.removeprefix("reward_kept_").removeprefix("reward_masked_")
            line = _line(steps, name)
            axis.plot(*line, color=colour, marker="." if len(line[0]) < 30 else None, label=label)
            if has_evals and evals:
                axis.plot(*_line(evals, name), color=colour, linestyle="--", marker="o", label=f"{label}, held out")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.grid(alpha=0.3)
        if len(axis.lines) > 1:
            axis.legend(fontsize=8)
    figure.savefig(file, dpi=100, format="png")


def _line(rows: Rows, name: str) -> tuple[list[int], list[float]]:
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]

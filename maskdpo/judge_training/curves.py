"""A picture of a training: loss, figures on held-out topics, speed."""

from collections.abc import Mapping, Sequence
from typing import IO, Any

Rows = Sequence[Mapping[str, Any]]

PANELS = (
    ("loss", "loss", "loss"),
    ("AUROC on held-out topics", None, "auroc"),
    ("balanced accuracy on held-out topics", None, "accuracy"),
    ("tokens / s", "tokens_per_s", None),
)
"""Title, figure of a step, figure of an evaluation."""


def draw_curves(file: IO[bytes], steps: Rows, evals: Rows) -> None:
    """Write a PNG of the rows of ``metrics.jsonl`` and, dashed, of ``eval.jsonl``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6))
    figure.subplots_adjust(0.07, 0.08, 0.98, 0.94, wspace=0.2, hspace=0.35)
    FigureCanvasAgg(figure)
    for axis, (title, of_step, of_eval) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        if of_step:
            axis.plot(*_line(steps, of_step), label="training")
        if of_eval:
            axis.plot(*_line(evals, of_eval), color="C1", linestyle="--", marker="o", label="held out")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.grid(alpha=0.3)
        if of_step and of_eval:
            axis.legend(fontsize=8)
    figure.savefig(file, dpi=100, format="png")


def _line(rows: Rows, name: str) -> tuple[list[int], list[float]]:
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]

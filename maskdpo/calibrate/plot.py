"""The reliability plot of a calibration."""

from pathlib import Path

from maskdpo.errors import InputError
from maskdpo.extras import require
from maskdpo.io import atomic_write
from maskdpo.verdicts.decision import Calibration, Held

FORMATS = (".png", ".svg", ".pdf")


def check_plot(path: Path) -> None:
    """A plot that cannot be drawn at the end is an error at the start."""
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"the name must end in {', '.join(FORMATS)}", path=path)
    require("matplotlib", install="'maskdpo[train]'", purpose="`plot`")


def draw_reliability(path: Path, calibration: Calibration) -> None:
    """Share of right sentences over the mean probability of being right, before and after, per bin."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5))  # without pyplot: no display, no global state
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="grey", linestyle=":", label="perfect")
    for colour, name, held in (
        ("C1", "before", calibration.before),
        ("C0", "after, on held-out topics", calibration.held_out),
    ):
        if held is not None and held.reliability:
            axis.errorbar(*_points(held), fmt="o-", color=colour, label=name, capsize=2)
    axis.set_xlabel("P(right) among right and wrong")
    axis.set_ylabel("share right in gold, with 95% intervals over topics")
    axis.set_aspect("equal")
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left", fontsize=8)
    with atomic_write(path) as file:
        figure.savefig(file, dpi=150, format=path.suffix.lower()[1:], bbox_inches="tight")


def _points(held: Held) -> tuple[list[float], list[float], list[list[float]]]:
    """Probabilities, shares, and how far the intervals go below and above."""
    found = [(b.probability, b.share.value, b.share.low, b.share.high) for b in held.reliability]
    known = [
        (p, v, v - low, high - v) for p, v, low, high in found if v is not None and low is not None and high is not None
    ]
    x, y, below, above = ([row[i] for row in known] for i in range(4))
    return x, y, [[max(0.0, d) for d in below], [max(0.0, d) for d in above]]

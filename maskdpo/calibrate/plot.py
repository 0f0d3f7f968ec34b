"""The reliability plot of a calibration."""

from pathlib import Path

from maskdpo.io.plot import new_plot, save_plot
from maskdpo.verdicts.decision import Calibration, Held


def draw_reliability(path: Path, calibration: Calibration) -> None:
    """Share of right sentences over the mean probability of being right, before and after, per bin."""
    figure, (axis,) = new_plot(5, 5)
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
    save_plot(figure, path)


def _points(held: Held) -> tuple[list[float], list[float], list[list[float]]]:
    """Probabilities, shares, and how far the intervals go below and above."""
    found = [(b.probability, b.share.value, b.share.low, b.share.high) for b in held.reliability]
    known = [
        (p, v, v - low, high - v) for p, v, low, high in found if v is not None and low is not None and high is not None
    ]
    x, y, below, above = ([row[i] for row in known] for i in range(4))
    return x, y, [[max(0.0, d) for d in below], [max(0.0, d) for d in above]]

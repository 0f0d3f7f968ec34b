"""The plot of ``maskdpo evaluate``: how factual the answers of several models are, or of one model by rounds."""

from collections.abc import Mapping
from pathlib import Path

from maskdpo.evaluate.factuality import MAIN_FIGURES
from maskdpo.io.plot import new_plot, save_plot
from maskdpo.verdicts.estimate import Estimate


def draw_figures(path: Path, found: Mapping[str, Mapping[str, Estimate]]) -> None:
    """One panel for each of ``MAIN_FIGURES``, with 95% intervals over topics where there are any.

    Args:
        found: the figures of each file, by the name that the axis shows.
    """
    figure, axes = new_plot(4 * len(MAIN_FIGURES), 3.2, len(MAIN_FIGURES))
    figure.subplots_adjust(wspace=0.3)
    for axis, name in zip(axes, MAIN_FIGURES, strict=True):
        estimates = [figures[name] for figures in found.values()]
        axis.plot(range(len(found)), [one.value for one in estimates], "o-", color="C0")
        axis.vlines(range(len(found)), [one.low for one in estimates], [one.high for one in estimates], color="C0")
        axis.set_title(name, fontsize=10)
        axis.set_xticks(range(len(found)), list(found), rotation=30, ha="right", fontsize=8)
        axis.set_xlim(-0.5, len(found) - 0.5)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("with 95% intervals over topics", fontsize=8)
    save_plot(figure, path)

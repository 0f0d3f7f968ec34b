"""The plots of the report: small PNG files that read in grey as well."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.closed_world.methods import METHODS
from benchmarks.closed_world.plan import Choice
from benchmarks.closed_world.tables import Results, column, gain, interval, noise_rows

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKS = "osD^vP"
DPI = 80
CURVES = ("dpo", "mask-dpo", "mask-norm", "bon-sft", "wrong-values", "matched")


def draw_all(results: Results, choices: Mapping[str, Choice], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _curves(results, choices, folder / "closed_world_divergence.png")
    if "dpo" in choices:
        _gains(results, choices, folder / "closed_world_gains.png")
    if len(results.plan.noises) > 1:
        _noise(results, choices, folder / "closed_world_noise.png")


def _axes(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, file: Path) -> None:
    from matplotlib import pyplot

    figure.savefig(file, dpi=DPI)
    pyplot.close(figure)


def _curves(results: Results, choices: Mapping[str, Choice], file: Path) -> None:
    """Right / all over the divergence, along the grid of learning rates."""
    figure, axes = _axes(6.4, 4.0)
    shown = [method for method in CURVES if method in choices]
    for method, colour, mark in zip(shown, COLOURS, MARKS, strict=False):
        rows = results.grid(method)
        kl = [max(row["kl"], 1e-3) for row in rows]
        axes.plot(kl, column(rows, "right_of_all"), color=colour, marker=mark, label=METHODS[method].title)
    axes.set_xscale("log")
    axes.set_xlabel("KL from the reference, nats an answer (development worlds)")
    axes.set_ylabel("right / all sentences")
    axes.legend(frameon=False, fontsize=8)
    _save(figure, file)


def _gains(results: Results, choices: Mapping[str, Choice], file: Path) -> None:
    """What each method has over DPO on fresh worlds, at its best rate and at equal divergence."""
    methods = [method for method in choices if method != "dpo"]
    figure, axes = _axes(6.4, 0.7 + 0.3 * len(methods))
    for offset, (label, colour, mark) in enumerate((("best lr", COLOURS[0], "o"), ("equal KL", COLOURS[1], "s"))):
        points = []
        for method in methods:
            mine, dpo = choices[method], choices["dpo"]
            rates = (mine.best_lr, dpo.best_lr) if offset == 0 else (mine.equal_lr, dpo.equal_lr)
            points.append(interval(gain(results.method(method, rates[0]), results.method("dpo", rates[1]))))
        places = [-i - 0.25 * offset for i in range(len(methods))]
        means, halves = zip(*points, strict=True)
        axes.errorbar(means, places, xerr=halves, fmt=mark, color=colour, label=label, markersize=4)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(
        [-i - 0.125 for i in range(len(methods))], [METHODS[method].title for method in methods], fontsize=8
    )
    axes.set_xlabel("right / all, less that of DPO in the same world (95% interval)")
    axes.legend(frameon=False, fontsize=8)
    _save(figure, file)


def _noise(results: Results, choices: Mapping[str, Choice], file: Path) -> None:
    figure, axes = _axes(5.0, 3.4)
    for (method, levels), colour, mark in zip(noise_rows(results, choices).items(), COLOURS, MARKS, strict=False):
        points = [interval(column(rows, "right_of_all")) for rows in levels]
        means, halves = zip(*points, strict=True)
        axes.errorbar(
            results.plan.noises, means, yerr=halves, color=colour, marker=mark, capsize=2, label=METHODS[method].title
        )
    axes.set_xlabel("share of labels turned round")
    axes.set_ylabel("right / all sentences")
    axes.legend(frameon=False, fontsize=8)
    _save(figure, file)
